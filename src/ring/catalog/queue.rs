//! The queue of finished files as the scheduler of uploads sees it, and the day's account of what
//! has gone out.

use rusqlite::{OptionalExtension, Row, params};

use crate::domain::day_windows::LocalDay;
use crate::domain::ids::FileId;
use crate::domain::stream_key::StreamKey;
use crate::domain::upload_order::{UploadKind, UploadOrder, WaitingFile};
use crate::domain::upload_plan::{Admitted, DayAccount};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::rows::{sql, unsql};

/// What somebody wants delivered now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Urgent {
    /// A file.
    File(FileId),
    /// Every file of a stream that waits.
    Stream(StreamKey),
}

impl CatalogState {
    /// Files that wait and may set out, at most `most`, in the order of the queue.
    ///
    /// # Errors
    /// The database fails.
    pub fn waiting_files(
        &self,
        order: &UploadOrder,
        admitted: &Admitted,
        most: u32,
    ) -> Result<Vec<WaitingFile>, RingError> {
        self.read_queue(order, admitted, most).map_err(RingError::catalog("reading the queue"))
    }

    /// Files that wait, at most `most`, in the order of the queue, whatever holds them up.
    ///
    /// # Errors
    /// The database fails.
    pub fn waiting_in_order(&self, most: u32) -> Result<Vec<WaitingFile>, RingError> {
        self.waiting_files(&self.upload_order, &Admitted::Everything, most)
    }

    fn read_queue(
        &self,
        order: &UploadOrder,
        admitted: &Admitted,
        most: u32,
    ) -> rusqlite::Result<Vec<WaitingFile>> {
        let names = match admitted {
            Admitted::Templates(names) => serde_json::to_string(names).expect("plain text"),
            Admitted::Everything | Admitted::Nothing => String::new(),
        };
        let place = if order.newest_first { "DESC" } else { "ASC" };
        let mut waiting: Vec<WaitingFile> = Vec::new();
        for (urgent, kind) in [true, false].into_iter().flat_map(|u| order.kinds.map(|k| (u, k))) {
            let admits = match admitted {
                Admitted::Everything => "",
                _ if urgent => "",
                Admitted::Nothing => break,
                Admitted::Templates(_) => {
                    "AND (SELECT json_extract(content, '$.template') FROM recording
                     WHERE id = file.recording AND json_valid(content))
                     IN (SELECT value FROM json_each(?4))"
                }
            };
            // In the order of the index, so that no more rows are visited than are taken.
            let mut query = self.db.prepare_cached(&format!(
                "SELECT id, priority, queue_number, urgent <> 0 FROM file INDEXED BY file_waiting
                 WHERE state IN (2, 3) AND (urgent <> 0) = ?1
                 AND CASE WHEN priority IN (1, 2) THEN priority ELSE 0 END = ?2 {admits}
                 ORDER BY queue_number {place} LIMIT ?3"
            ))?;
            let left = most.saturating_sub(u32::try_from(waiting.len()).unwrap_or(u32::MAX));
            query.raw_bind_parameter(1, urgent)?;
            query.raw_bind_parameter(2, kind as u8)?;
            query.raw_bind_parameter(3, left)?;
            if !admits.is_empty() {
                query.raw_bind_parameter(4, &names)?;
            }
            for file in query.raw_query().mapped(waiting_file) {
                waiting.push(file?);
            }
            #[cfg(test)]
            tests::STEPS.with(|steps| {
                steps.set(steps.get() + query.reset_status(rusqlite::StatementStatus::VmStep));
            });
        }
        Ok(waiting)
    }

    /// Those that wait to be delivered are to be delivered now: a file, or all of a stream. Durable;
    /// tells how many.
    ///
    /// # Errors
    /// The database fails.
    pub fn make_urgent(&mut self, which: &Urgent) -> Result<usize, RingError> {
        let changed = self.durably("having files delivered now", |transaction| match which {
            Urgent::File(id) => transaction.execute(
                "UPDATE file SET urgent = 1 WHERE id = ?1 AND state IN (2, 3)",
                [sql(id.0)],
            ),
            Urgent::Stream(key) => transaction.execute(
                "UPDATE file SET urgent = 1 WHERE state IN (2, 3) AND stream =
                 (SELECT id FROM stream WHERE domain = ?1 AND app = ?2 AND stream = ?3)",
                params![key.domain(), key.app(), key.stream()],
            ),
        })?;
        self.news.notify_one();
        Ok(changed)
    }

    /// Whether a file may be at the target although nothing here says so.
    ///
    /// # Errors
    /// The database fails.
    pub fn maybe_there(&self, id: FileId) -> Result<bool, RingError> {
        self.db
            .prepare_cached("SELECT maybe_there FROM file WHERE id = ?1")
            .and_then(|mut query| query.query_row([sql(id.0)], |row| row.get(0)).optional())
            .map(|found| found.unwrap_or(false))
            .map_err(RingError::catalog("reading how a file came to be listed"))
    }

    /// Eviction gives up what is not delivered in the reverse of this order.
    pub fn set_upload_order(&mut self, order: UploadOrder) {
        self.upload_order = order;
    }

    /// What has gone out this day, as last kept; nothing if it never was.
    ///
    /// # Errors
    /// The database fails.
    pub fn day_account(&self) -> Result<DayAccount, RingError> {
        let since = self.clock.now().boot;
        let kept = self
            .db
            .query_row("SELECT day, bytes FROM upload_day", [], |row| {
                let day: Option<i32> = row.get(0)?;
                Ok(DayAccount { day: day.map(LocalDay), bytes: unsql(row.get(1)?), since })
            })
            .optional()
            .map_err(RingError::catalog("reading what has gone out"))?;
        Ok(kept.unwrap_or(DayAccount { day: None, bytes: 0, since }))
    }

    /// Keeps what has gone out this day. A power cut may forget the last of it.
    ///
    /// # Errors
    /// The database fails.
    pub fn keep_day_account(&mut self, account: &DayAccount) -> Result<(), RingError> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO upload_day (id, day, bytes) VALUES (0, ?1, ?2)")
            .and_then(|mut put| {
                put.execute(params![account.day.map(|day| day.0), sql(account.bytes)])
            })
            .map_err(RingError::catalog("keeping what has gone out"))?;
        Ok(())
    }
}

fn waiting_file(row: &Row<'_>) -> rusqlite::Result<WaitingFile> {
    Ok(WaitingFile {
        file: FileId(unsql(row.get(0)?)),
        urgent: row.get(3)?,
        kind: UploadKind::from_number(row.get(1)?),
        queue_number: unsql(row.get(2)?),
        not_before: None,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ring::catalog::notices::tests::open;

    thread_local! {
        /// Steps of SQLite's machine that reading the queue took.
        pub(super) static STEPS: Cell<i32> = const { Cell::new(0) };
    }

    #[test]
    fn a_pick_visits_as_many_rows_as_it_takes_however_many_wait() {
        let dir = tempfile::tempdir().expect("scratch");
        let state = open(dir.path());
        let enter = |from: i64, until: i64| {
            let rows =
                "WITH RECURSIVE n (id) AS (SELECT ?1 UNION ALL SELECT id + 1 FROM n WHERE id < ?2)
                INSERT INTO file (id, recording, stream, session, format, state, first_sequence,
                start_boot_ms, start_ms, trusted, end_ms, media_start_ms, duration_ms, storage_s,
                name_pattern, queue_number, priority)
                SELECT id, 1, 1, 1, 0, 2, 0, 0, 0, 1, 0, 0, 500, 0, '', id, id % 3 FROM n";
            state.db.execute(rows, [from, until]).expect("entered");
        };
        let steps = || {
            STEPS.set(0);
            let picked = state.waiting_in_order(4).expect("read");
            assert_eq!(picked.len(), 4);
            STEPS.get()
        };
        enter(1, 30);
        let of_few = steps();
        enter(31, 3_000);
        assert_eq!(steps(), of_few, "of a hundred times as many");
        // Also what no kind has the number of.
        state.db.execute("UPDATE file SET priority = 9, urgent = 2 WHERE id = 7", []).expect("set");
        let all = state.waiting_in_order(u32::MAX).expect("read");
        assert_eq!((all.len(), all[0].file), (3_000, FileId(7)));
    }

    #[test]
    fn what_is_urgent_leads_the_queue_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path());
        let key = |stream: &str| StreamKey::new("d", "live", stream).expect("a key");
        for (number, stream) in [(1, "a"), (2, "b")] {
            let row = "INSERT INTO stream (id, domain, app, stream) VALUES (?1, 'd', 'live', ?2)";
            state.db.execute(row, params![number, stream]).expect("entered");
        }
        // Three wait, of which the last is of another stream; one is delivered.
        for (id, stream, file_state) in [(11, 1, 2), (12, 1, 3), (13, 2, 2), (14, 2, 4)] {
            let row = "INSERT INTO file (id, recording, stream, session, format, state,
                first_sequence, start_boot_ms, start_ms, trusted, end_ms, media_start_ms,
                duration_ms, storage_s, name_pattern, queue_number)
                VALUES (?1, 1, ?2, 1, 0, ?3, 0, 0, 0, 1, 0, 0, 500, 0, '', ?1)";
            state.db.execute(row, params![id, stream, file_state]).expect("entered");
        }
        let admitted = |state: &CatalogState, admitted: &Admitted| -> Vec<u64> {
            let waiting = state.waiting_files(&UploadOrder::default(), admitted, 9);
            waiting.expect("read").iter().map(|file| file.file.0).collect()
        };
        let order = |state: &CatalogState| admitted(state, &Admitted::Everything);
        assert_eq!(order(&state), [11, 12, 13]);
        assert_eq!(state.make_urgent(&Urgent::File(FileId(12))).expect("stored"), 1);
        assert_eq!(order(&state), [12, 11, 13]);
        assert_eq!(state.make_urgent(&Urgent::Stream(key("b"))).expect("stored"), 1);
        for gone in [Urgent::File(FileId(14)), Urgent::Stream(key("c"))] {
            assert_eq!(state.make_urgent(&gone).expect("nothing"), 0);
        }
        // Whatever holds the others.
        assert_eq!(admitted(&state, &Admitted::Nothing), [12, 13]);
        drop(state);
        assert_eq!(order(&open(dir.path())), [12, 13, 11]);
    }
}
