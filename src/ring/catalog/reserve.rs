//! Slots for the writer: spare ones first, then by the eviction plan. A slot is handed out only
//! after its new generation, and the loss entries of what went, are durable.

use rusqlite::{Transaction, params};
use tracing::{info, warn};

use crate::domain::eviction;
use crate::domain::ids::{SlotGeneration, SlotIndex};
use crate::domain::limits::{LEDGER_ENTRIES_MAX, LISTED_FILES_MAX};
use crate::domain::time::ClockQuality;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::open::{FileState, SlotState};
use crate::ring::catalog::rows::unsql;
use crate::ring::desk::ReadySlot;

impl CatalogState {
    /// Reserves up to `count` slots; fewer, or none, if nothing may go.
    ///
    /// # Errors
    /// The database fails.
    pub fn reserve(&mut self, count: usize) -> Result<Vec<ReadySlot>, RingError> {
        let mut chosen = self.spare_slots(count).map_err(RingError::catalog("finding slots"))?;
        let mut evicted = Vec::new();
        let mut to_be_kept = Vec::new();
        if chosen.len() < count && self.rebuilding.is_some() {
            // What may go is not known yet.
            self.find_blank(count - chosen.len())?;
            chosen = self.spare_slots(count).map_err(RingError::catalog("finding slots"))?;
        } else if chosen.len() < count {
            (evicted, to_be_kept) = self.choose_evicted(count - chosen.len())?;
            chosen.extend(&evicted);
        }
        if chosen.is_empty() {
            warn!("no slot is free and none may be reused");
            self.forgive_slots().map_err(RingError::catalog("taking up failed slots"))?;
            return Ok(Vec::new());
        }
        let now_ms = self.clock.now().wall.unix.0;
        let delivers = self.settings.delivers;
        let ready = self.durably("reserving slots", |transaction| {
            for slot in evicted.iter().chain(&to_be_kept) {
                forget_slot(transaction, *slot, now_ms, delivers)?;
            }
            for slot in &to_be_kept {
                let spare =
                    "UPDATE slot SET state = 0, generation = generation + 1 WHERE slot = ?1";
                transaction.execute(spare, [slot.0])?;
            }
            forget_old(transaction)?;
            chosen.iter().map(|slot| reserve_slot(transaction, *slot)).collect()
        })?;
        for slot in to_be_kept {
            self.slots.iter().for_each(|slots| {
                let blank = slots.make_blank(slot);
                blank.unwrap_or_else(|error| warn!(%slot, %error, "a slot is not made blank"));
            });
        }
        self.tell_ledgers();
        Ok(ready)
    }

    /// The slots that go for `count` others, and those that go beside them, to be kept blank.
    fn choose_evicted(
        &mut self,
        count: usize,
    ) -> Result<(Vec<SlotIndex>, Vec<SlotIndex>), RingError> {
        let snapshot = self.slot_views().map_err(RingError::catalog("weighing slots"))?;
        let wall = self.clock.now().wall;
        let now = (wall.quality == ClockQuality::Trusted).then_some(wall.unix);
        let kept_from = self.identity.kept_blank_from();
        let (mut evicted, mut to_be_kept) = (Vec::new(), Vec::new());
        for (slot, reason) in eviction::plan(&snapshot, self.settings.on_full, now) {
            if evicted.len() == count {
                break;
            }
            info!(%slot, ?reason, "a slot is reused");
            if slot < kept_from { evicted.push(slot) } else { to_be_kept.push(slot) }
        }
        Ok((evicted, to_be_kept))
    }

    /// Slots that may be written to. Those that are kept blank may be while the catalog is made anew.
    fn spare_slots(&self, count: usize) -> rusqlite::Result<Vec<SlotIndex>> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let kept_from = self.identity.kept_blank_from();
        let below = if self.rebuilding.is_some() { u32::MAX } else { kept_from.0 };
        self.db
            .prepare_cached(
                "SELECT slot FROM slot WHERE state = 0 AND slot < ?2 ORDER BY slot LIMIT ?1",
            )?
            .query_map(params![count, below], |row| Ok(SlotIndex(row.get(0)?)))?
            .collect()
    }

    /// Slots that the flash failed in are used like others again: the flash may have been away, and a
    /// bad spot fails again.
    pub(super) fn forgive_slots(&self) -> rusqlite::Result<()> {
        let [failed, closed] = [SlotState::Failed, SlotState::Closed].map(|state| state as u8);
        self.db
            .execute("UPDATE slot SET state = ?2 WHERE state = ?1", params![failed, closed])
            .map(drop)
    }
}

/// Removes all that the catalog says of a slot's content; files that lose media before they were
/// delivered are entered in the loss ledger.
fn forget_slot(
    transaction: &Transaction<'_>,
    slot: SlotIndex,
    now_ms: i64,
    delivers: bool,
) -> rusqlite::Result<()> {
    if delivers {
        transaction.execute(
            "INSERT INTO loss (file, at_ms, media_ms, reason)
             SELECT id, ?2, duration_ms, 'overwritten before it was delivered' FROM file
             WHERE state IN (0, 1, 2, 3, 5)
             AND NOT EXISTS (SELECT 1 FROM loss WHERE loss.file = file.id)
             AND id IN (SELECT file FROM span WHERE slot = ?1)",
            params![slot.0, now_ms],
        )?;
    }
    transaction.execute(
        "UPDATE file SET state = ?2, why = 'its media was overwritten'
         WHERE state IN (1, 2, 3, 5) AND id IN (SELECT file FROM span WHERE slot = ?1)",
        params![slot.0, FileState::Evicted as u8],
    )?;
    transaction.execute("DELETE FROM span WHERE slot = ?1", params![slot.0])?;
    transaction.execute("DELETE FROM segment WHERE slot = ?1", params![slot.0])?;
    Ok(())
}

/// Keeps the catalog inside its part of the budget: the oldest files of which nothing is left in
/// the ring, what belonged to them, and the oldest ledger entries go.
fn forget_old(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute(
        "DELETE FROM file WHERE state IN (4, 5, 6)
         AND queue_number < (SELECT max(queue_number) FROM file) - ?1
         AND NOT EXISTS (SELECT 1 FROM span WHERE span.file = file.id)",
        params![LISTED_FILES_MAX],
    )?;
    transaction.execute(
        "DELETE FROM recording WHERE ended = 1
         AND NOT EXISTS (SELECT 1 FROM file WHERE file.recording = recording.id)",
        [],
    )?;
    transaction.execute(
        "DELETE FROM session WHERE ended_ms IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM file WHERE file.session = session.id)
         AND NOT EXISTS (SELECT 1 FROM segment WHERE segment.session = session.id)",
        [],
    )?;
    for ledger in ["gap", "loss"] {
        transaction.execute(
            &format!("DELETE FROM {ledger} WHERE id < (SELECT max(id) FROM {ledger}) - ?1"),
            params![LEDGER_ENTRIES_MAX],
        )?;
    }
    Ok(())
}

fn reserve_slot(transaction: &Transaction<'_>, slot: SlotIndex) -> rusqlite::Result<ReadySlot> {
    let generation: i64 = transaction
        .prepare_cached(
            "UPDATE slot SET state = ?2, generation = generation + 1 WHERE slot = ?1
             RETURNING generation",
        )?
        .query_row(params![slot.0, SlotState::Reserved as u8], |row| row.get(0))?;
    Ok(ReadySlot { slot, generation: SlotGeneration(unsql(generation)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::FileId;
    use crate::ring::catalog::notices::tests::open;

    #[test]
    fn a_file_is_lost_once_also_if_it_was_given_up_or_still_grew() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path());
        // Queued, queued, set aside, growing.
        for (id, file_state) in [(11, 2), (12, 2), (13, 5), (14, 0)] {
            let file = "INSERT INTO file (id, recording, stream, session, format, state,
                first_sequence, start_boot_ms, start_ms, trusted, end_ms, media_start_ms,
                duration_ms, storage_s, name_pattern)
                VALUES (?1, 1, 1, 1, 0, ?2, 0, 0, 0, 1, 0, 0, 500, 0, '')";
            state.db.execute(file, params![id, file_state]).expect("entered");
            let span = "INSERT INTO span (file, place, slot, generation, segment, start, end)
                VALUES (?1, 0, 3, 1, 0, 0, 4096)";
            state.db.execute(span, params![id]).expect("entered");
        }
        for _ in 0..2 {
            state.give_up(FileId(11), "too old", 1).expect("entered");
        }
        let losses = |state: &CatalogState| -> Vec<(i64, String)> {
            let mut query =
                state.db.prepare("SELECT file, reason FROM loss ORDER BY file").expect("asked");
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("asked");
            rows.collect::<rusqlite::Result<_>>().expect("read")
        };
        assert_eq!(losses(&state), [(11, "too old".to_owned())]);
        let forget = |state: &mut CatalogState, slot| {
            let transaction = state.db.transaction().expect("begun");
            forget_slot(&transaction, SlotIndex(slot), 0, true).expect("forgotten");
            transaction.commit().expect("committed");
        };
        forget(&mut state, 3);
        let overwritten = || "overwritten before it was delivered".to_owned();
        let all = [(12, overwritten()), (13, overwritten()), (14, overwritten())];
        let all = [&[(11, "too old".to_owned())], &all[..]].concat();
        assert_eq!(losses(&state), all);
        // It grew on in another slot.
        let grown = "UPDATE file SET state = 2 WHERE id = 14;
            INSERT INTO span VALUES (14, 1, 4, 1, 0, 0, 4096, 0);";
        state.db.execute_batch(grown).expect("finished");
        forget(&mut state, 4);
        assert_eq!(losses(&state), all);
        state.db.execute("UPDATE file SET state = 2 WHERE id = 14", []).expect("set");
        state.give_up(FileId(14), "damaged", 1).expect("entered");
        assert_eq!(losses(&state), all);
    }
}
