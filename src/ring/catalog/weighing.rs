//! What the eviction plan and the forecast see of each closed slot, kept in memory: the tables of a large
//! ring take a second to read, and little changes from one question to the next.
//!
//! Triggers note the slots of which something changes, whatever changes it; they are of this connection,
//! and what they note is in memory and goes with a transaction that is rolled back.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::eviction::{Content, OnFull, SlotView, UploadPriority};
use crate::domain::ids::SlotIndex;
use crate::domain::time::UnixMillis;
use crate::domain::upload_order::UploadKind;
use crate::platform::planted;
use crate::ring::catalog::CatalogState;

/// Of a file that grows only its time changes, and that counts for nothing before it is finished.
const WATCH: &str = "
CREATE TEMP TABLE touched (slot INTEGER PRIMARY KEY);
CREATE TEMP TRIGGER slot_changes AFTER UPDATE OF state, age ON slot BEGIN
    INSERT OR IGNORE INTO touched VALUES (new.slot); END;
CREATE TEMP TRIGGER span_in AFTER INSERT ON span BEGIN
    INSERT OR IGNORE INTO touched VALUES (new.slot); END;
CREATE TEMP TRIGGER span_changes AFTER UPDATE OF file, slot, generation ON span BEGIN
    INSERT OR IGNORE INTO touched VALUES (old.slot), (new.slot); END;
CREATE TEMP TRIGGER span_out AFTER DELETE ON span BEGIN
    INSERT OR IGNORE INTO touched VALUES (old.slot); END;
CREATE TEMP TRIGGER segment_in AFTER INSERT ON segment BEGIN
    INSERT OR IGNORE INTO touched VALUES (new.slot); END;
CREATE TEMP TRIGGER segment_out AFTER DELETE ON segment BEGIN
    INSERT OR IGNORE INTO touched VALUES (old.slot); END;
CREATE TEMP TRIGGER file_in AFTER INSERT ON file BEGIN
    INSERT OR IGNORE INTO touched SELECT slot FROM span WHERE file = new.id; END;
CREATE TEMP TRIGGER file_changes AFTER UPDATE OF state, priority, storage_s, trusted, end_ms ON file
    WHEN old.state <> 0 OR new.state <> 0 BEGIN
    INSERT OR IGNORE INTO touched SELECT slot FROM span WHERE file = new.id; END;
CREATE TEMP TRIGGER file_out AFTER DELETE ON file BEGIN
    INSERT OR IGNORE INTO touched SELECT slot FROM span WHERE file = old.id; END;
";

/// The closed slots, as last read.
#[derive(Default)]
pub(in crate::ring) struct Weighed {
    slots: HashMap<SlotIndex, Slot>,
    /// In which order uploads were, when all slots were read; `None` if they never were.
    kinds: Option<[UploadKind; 3]>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Slot {
    view: SlotView,
    /// The id of the stream whose media it holds.
    stream: Option<i64>,
}

/// From now on it is noted what changes.
pub(super) fn watch(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(WATCH)
}

impl CatalogState {
    /// The closed slots as the eviction plan sees them.
    pub(super) fn slot_views(&mut self) -> rusqlite::Result<Vec<SlotView>> {
        self.weigh_what_changed()?;
        let leases = self.leases.snapshot();
        let on_full = self.on_full_of_streams()?;
        let seen = |slot: &Slot| SlotView {
            leased: leases.contains(&slot.view.slot),
            on_full: slot.stream.and_then(|stream| on_full.get(&stream).copied()),
            ..slot.view
        };
        Ok(self.weighed.slots.values().map(seen).collect())
    }

    /// Reads the slots that were touched; all if nothing is known, or uploads have another order.
    fn weigh_what_changed(&mut self) -> rusqlite::Result<()> {
        let kinds = self.upload_order.kinds;
        if self.weighed.kinds != Some(kinds) {
            self.touch_all()?;
            self.weighed = Weighed { slots: HashMap::new(), kinds: Some(kinds) };
        }
        let changed = self.touched_slots()?;
        for (slot, seen) in changed {
            match seen {
                Some(seen) => self.weighed.slots.insert(slot, seen),
                None => self.weighed.slots.remove(&slot),
            };
        }
        self.db.prepare_cached("DELETE FROM touched")?.execute([])?;
        #[cfg(any(test, feature = "simulation"))]
        self.assert_all_was_noted();
        Ok(())
    }

    fn touch_all(&self) -> rusqlite::Result<()> {
        let all = "INSERT OR IGNORE INTO touched SELECT slot FROM slot";
        self.db.prepare_cached(all)?.execute([]).map(drop)
    }

    /// The slots that were touched, with nothing for those that are not closed.
    fn touched_slots(&self) -> rusqlite::Result<Vec<(SlotIndex, Option<Slot>)>> {
        let delivers = self.settings.delivers;
        let [first, second, _] = self.upload_order.kinds.map(|kind| kind as u8);
        let mut query = self.db.prepare_cached(
            "SELECT slot.slot, slot.age, slot.state = 3, count(file.id),
             max(file.state IN (0, 1, 2, 3, 5)),
             max(CASE WHEN file.state IN (0, 1, 2, 3, 5)
                 THEN CASE file.priority WHEN ?1 THEN 2 WHEN ?2 THEN 1 ELSE 0 END END),
             min(file.storage_s > 0 AND file.state <> 0 AND file.trusted),
             max(file.end_ms + 1000 * file.storage_s),
             (SELECT session.stream FROM segment JOIN session ON session.id = segment.session
              WHERE segment.slot = slot.slot LIMIT 1)
             FROM touched
             JOIN slot ON slot.slot = touched.slot
             LEFT JOIN span ON slot.state = 3 AND span.slot = slot.slot
             AND span.generation = slot.generation
             LEFT JOIN file ON file.id = span.file
             GROUP BY slot.slot",
        )?;
        let slots = query.query_map(params![first, second], |row| {
            let slot = SlotIndex(row.get(0)?);
            if !row.get::<_, bool>(2)? {
                return Ok((slot, None));
            }
            let files: i64 = row.get(3)?;
            let waiting: Option<bool> = row.get(4)?;
            let ages: Option<bool> = row.get(6)?;
            let expires: Option<i64> = row.get(7)?;
            let waiting = waiting.filter(|_| !evicts_undelivered());
            let content = match (files, delivers, waiting) {
                (0, ..) | (_, false, _) => Content::RingOnly,
                (_, true, Some(true)) => Content::Undelivered {
                    priority: UploadPriority(row.get::<_, Option<u8>>(5)?.unwrap_or(0)),
                },
                (_, true, _) => Content::Delivered,
            };
            let view = SlotView {
                slot,
                // What was found again is older than nothing: its age is negative.
                order: row.get::<_, i64>(1)?.cast_unsigned() ^ (1 << 63),
                expires_at: expires.filter(|_| ages == Some(true)).map(UnixMillis),
                content,
                leased: false,
                on_full: None,
            };
            Ok((slot, Some(Slot { view, stream: row.get(8)? })))
        })?;
        slots.collect()
    }

    /// What the rules of today say about a full ring, by the id of the stream, where they do.
    fn on_full_of_streams(&self) -> rusqlite::Result<HashMap<i64, OnFull>> {
        let service = self.service.load();
        let mut query = self.db.prepare_cached(
            "SELECT id FROM stream WHERE domain = ?1 AND app = ?2 AND stream = ?3",
        )?;
        let mut streams = HashMap::new();
        for (_, source) in service.layers.table().sources() {
            let Some(on_full) = source.on_full else { continue };
            let key = &source.key;
            let id = query.query_row([key.domain(), key.app(), key.stream()], |row| row.get(0));
            streams.extend(id.optional()?.map(|id| (id, on_full)));
        }
        Ok(streams)
    }

    /// Panics if what is kept is not what the tables say.
    #[cfg(any(test, feature = "simulation"))]
    fn assert_all_was_noted(&self) {
        self.touch_all().expect("in memory");
        let all = self.touched_slots().expect("read").into_iter();
        let all: HashMap<_, _> = all.filter_map(|(slot, seen)| Some((slot, seen?))).collect();
        self.db.execute("DELETE FROM touched", []).expect("in memory");
        assert_eq!(self.weighed.slots, all, "a slot changed and was not touched");
    }
}

/// Only in builds that plant faults for the proof rigs.
fn evicts_undelivered() -> bool {
    planted::is_planted("EDGEREC_PLANT_EVICT_UNDELIVERED")
}

#[cfg(test)]
mod tests {
    use crate::ring::catalog::notices::tests::open;

    #[test]
    fn whatever_changes_a_slot_is_noted() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path());
        state.settings.delivers = true;
        assert_eq!(state.slot_views().expect("weighed"), []);
        // Each time what is kept is compared with what the tables say.
        for change in [
            "UPDATE slot SET state = 3, generation = 1 WHERE slot IN (3, 4)",
            "UPDATE slot SET age = 7 WHERE slot = 3",
            "INSERT INTO span VALUES (1, 0, 3, 1, 0, 0, 4096, 0);
             INSERT INTO file (id, recording, stream, session, format, state, first_sequence,
             start_boot_ms, start_ms, trusted, end_ms, media_start_ms, duration_ms, storage_s,
             name_pattern) VALUES (1, 1, 1, 1, 0, 2, 0, 0, 0, 1, 1, 0, 500, 0, '')",
            "UPDATE file SET priority = 2",
            "UPDATE file SET storage_s = 9",
            "UPDATE file SET trusted = 0",
            "UPDATE file SET trusted = 1",
            "UPDATE file SET end_ms = 99",
            "UPDATE span SET slot = 4",
            "UPDATE span SET generation = 2",
            "UPDATE span SET generation = 1",
            "UPDATE file SET state = 4",
            "UPDATE span SET file = 2",
            "UPDATE span SET file = 1",
            "DELETE FROM span",
            "INSERT INTO span VALUES (1, 0, 3, 1, 0, 0, 4096, 0)",
            "DELETE FROM file",
            "INSERT INTO session (id, stream, boot_id, began_boot_ms, began_ms, trusted, protocol, query)
             VALUES (1, 5, x'01', 0, 0, 1, 'rtmp', '');
             INSERT INTO segment (slot, start, generation, session, media, end, first_sequence,
             first_ms, last_ms) VALUES (3, 0, 1, 1, 0, 0, 0, 0, 0)",
            "DELETE FROM segment",
            "UPDATE slot SET state = 0 WHERE slot = 3",
        ] {
            let before = state.weighed.slots.clone();
            state.db.execute_batch(change).expect(change);
            state.slot_views().expect("weighed");
            assert_ne!(state.weighed.slots, before, "{change}");
        }
    }
}
