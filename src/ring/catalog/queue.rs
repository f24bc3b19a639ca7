//! The queue of finished files as the scheduler of uploads sees it, and the day's account of what
//! has gone out.

use rusqlite::{OptionalExtension, Row, ToSql, params};

use crate::domain::day_windows::LocalDay;
use crate::domain::ids::FileId;
use crate::domain::upload_order::{UploadKind, UploadOrder, WaitingFile};
use crate::domain::upload_plan::{Admitted, DayAccount};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::rows::{sql, unsql};

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
        let [first, second, last] = order.kinds;
        let mut numbers: Vec<Box<dyn ToSql>> = vec![Box::new(most)];
        for kind in [first, second, last] {
            numbers.push(Box::new(kind as u8));
        }
        let admits = match admitted {
            Admitted::Everything => "1",
            Admitted::Nothing => "0",
            Admitted::Templates(names) => {
                let names = serde_json::to_string(names).expect("plain text");
                numbers.push(Box::new(names));
                "(SELECT json_extract(content, '$.template') FROM recording WHERE id = file.recording)
                 IN (SELECT value FROM json_each(?5))"
            }
        };
        let place = if order.newest_first { "DESC" } else { "ASC" };
        let text = format!(
            "SELECT id, priority, queue_number FROM file WHERE state IN (2, 3) AND {admits}
             ORDER BY CASE priority WHEN ?2 THEN 0 WHEN ?3 THEN 1 WHEN ?4 THEN 2 ELSE 3 END,
             queue_number {place} LIMIT ?1"
        );
        let mut query = self.db.prepare_cached(&text)?;
        let given = rusqlite::params_from_iter(numbers.iter());
        query.query_map(given, waiting_file)?.collect()
    }

    /// The catalog was made anew: whatever it lists may be at the target already.
    pub(super) fn look_before_sending(&mut self) -> rusqlite::Result<()> {
        self.db.execute("UPDATE file SET maybe_there = 1", []).map(drop)
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
        urgent: false,
        kind: UploadKind::from_number(row.get(1)?),
        queue_number: unsql(row.get(2)?),
        not_before: None,
    })
}
