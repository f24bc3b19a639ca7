//! The catalog's tables, in numbered steps (`PRAGMA user_version`).

use std::path::Path;

use rusqlite::{Connection, params};

use crate::ring::RingError;
use crate::ring::catalog::damage;
use crate::ring::catalog::open::SlotState;
use crate::ring::catalog::room::LOG_BYTES;
use crate::ring::identity::RingIdentity;

/// Each step takes the schema from its index to the next number.
const STEPS: &[&str] = &["
-- One row a slot. state: 0 spare, 1 reserved, 2 open, 3 closed, 4 failed.
CREATE TABLE slot (
    slot INTEGER PRIMARY KEY, generation INTEGER NOT NULL, state INTEGER NOT NULL,
    age INTEGER NOT NULL DEFAULT 0);
CREATE TABLE stream (
    id INTEGER PRIMARY KEY, domain TEXT NOT NULL, app TEXT NOT NULL, stream TEXT NOT NULL,
    UNIQUE (domain, app, stream));
-- Wall times are Unix milliseconds; trusted says whether the clock was.
CREATE TABLE session (
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, boot_id BLOB NOT NULL,
    began_boot_ms INTEGER NOT NULL, began_ms INTEGER NOT NULL, trusted INTEGER NOT NULL,
    protocol TEXT NOT NULL, query TEXT NOT NULL, ended_ms INTEGER, cause TEXT);
-- What the ring holds of a session, slot by slot. Offsets are bytes in the slot.
CREATE TABLE segment (
    slot INTEGER NOT NULL, start INTEGER NOT NULL, generation INTEGER NOT NULL,
    session INTEGER NOT NULL, media INTEGER NOT NULL, end INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    PRIMARY KEY (slot, start)) WITHOUT ROWID;
CREATE INDEX segment_session ON segment (session, first_sequence);
-- One template or task at work on one stream. content is what was in force, as JSON.
CREATE TABLE recording (
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, session INTEGER NOT NULL,
    content TEXT NOT NULL, ended INTEGER NOT NULL DEFAULT 0);
-- state: 0 recording, 1 waiting, 2 queued, 3 uploading, 4 delivered, 5 failed, 6 evicted.
CREATE TABLE file (
    id INTEGER PRIMARY KEY, recording INTEGER NOT NULL, stream INTEGER NOT NULL,
    session INTEGER NOT NULL, format INTEGER NOT NULL, state INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL, start_boot_ms INTEGER NOT NULL, start_ms INTEGER NOT NULL,
    trusted INTEGER NOT NULL, end_ms INTEGER NOT NULL, media_start_ms INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    storage_s INTEGER NOT NULL, name_pattern TEXT NOT NULL, tracks TEXT NOT NULL DEFAULT '[]',
    dropped_tracks TEXT NOT NULL DEFAULT '[]', name TEXT, size INTEGER, sha256 TEXT,
    url TEXT,
    queue_number INTEGER NOT NULL DEFAULT 0, priority INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '');
CREATE INDEX file_state ON file (state, id);
CREATE INDEX file_recording ON file (recording, format);
CREATE INDEX file_session ON file (session);
CREATE INDEX file_queue ON file (queue_number);
CREATE INDEX file_start ON file (start_ms, id);
-- A range of fragments of one segment that belongs to a file.
CREATE TABLE span (
    file INTEGER NOT NULL, place INTEGER NOT NULL, slot INTEGER NOT NULL,
    generation INTEGER NOT NULL, segment INTEGER NOT NULL, start INTEGER NOT NULL,
    end INTEGER NOT NULL, PRIMARY KEY (file, place)) WITHOUT ROWID;
CREATE INDEX span_slot ON span (slot);
-- How far the delivery of a file has come, in the target's own words.
CREATE TABLE progress (file INTEGER PRIMARY KEY, content TEXT NOT NULL);
-- The ledger: why media is missing, and what went before it was delivered.
CREATE TABLE gap (
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, session INTEGER NOT NULL,
    from_ms INTEGER NOT NULL, until_ms INTEGER, media_ms INTEGER, cause TEXT NOT NULL);
CREATE TABLE loss (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    media_ms INTEGER NOT NULL, reason TEXT NOT NULL);
", "
-- What callers of the API have set; content is JSON.
CREATE TABLE entry (
    kind TEXT NOT NULL, key TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (kind, key))
    WITHOUT ROWID;
-- Notifications, in the order in which they happened. state: 0 waits, 1 taken by the receiver,
-- 2 given up, 3 waits and lets those behind it pass. body is JSON without t and sign, which are
-- made for each attempt.
CREATE TABLE notice (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, stream TEXT NOT NULL,
    event_type INTEGER NOT NULL, at_ms INTEGER NOT NULL, url TEXT NOT NULL, key TEXT NOT NULL,
    body TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
    last_ms INTEGER, answer TEXT);
CREATE INDEX notice_state ON notice (state, seq);
CREATE INDEX notice_lane ON notice (stream, seq) WHERE state = 0;
CREATE INDEX notice_stream ON notice (stream, at_ms);
-- One row a push or pull, from begin to end, recorded or not.
CREATE TABLE push (
    id INTEGER PRIMARY KEY, domain TEXT NOT NULL, app TEXT NOT NULL, stream TEXT NOT NULL,
    boot_id BLOB NOT NULL, began_boot_ms INTEGER NOT NULL, began_ms INTEGER NOT NULL,
    trusted INTEGER NOT NULL, peer TEXT NOT NULL, query TEXT NOT NULL,
    ended_ms INTEGER, cause TEXT NOT NULL DEFAULT '', errcode INTEGER NOT NULL DEFAULT 0,
    width INTEGER NOT NULL DEFAULT 0, height INTEGER NOT NULL DEFAULT 0);
CREATE INDEX push_began ON push (began_ms);
CREATE INDEX push_stream ON push (stream, began_ms);
-- What was decided about a stream while it was live, as JSON.
CREATE TABLE decision (
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, boot_id BLOB NOT NULL,
    boot_ms INTEGER NOT NULL, from_ms INTEGER NOT NULL, until_ms INTEGER,
    content TEXT NOT NULL);
CREATE INDEX decision_stream ON decision (stream, from_ms);
CREATE INDEX gap_stream ON gap (stream, from_ms);
-- A span that was taken from the past is not told by the seals of its fragments.
ALTER TABLE span ADD COLUMN past INTEGER NOT NULL DEFAULT 0;
-- A recording that waits for its stream: since when, on which clocks; NULL while it does not.
ALTER TABLE recording ADD COLUMN paused TEXT;
-- When a gap's times can be believed, as with sessions.
ALTER TABLE gap ADD COLUMN trusted INTEGER NOT NULL DEFAULT 1;
-- What a recording does, and what was told of it last: 0 nothing yet, 1 it records, 2 it waits for
-- its stream, 3 it is over. It may have recorded in between, which `ran` keeps until it is told.
ALTER TABLE recording ADD COLUMN status INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recording ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recording ADD COLUMN ran INTEGER NOT NULL DEFAULT 0;
CREATE INDEX recording_untold ON recording (id) WHERE status <> told OR ran = 1;
", "
-- The target's own id of a delivered file, if it gives one.
ALTER TABLE file ADD COLUMN target_file_id TEXT;
", "
-- A row of the outbox has its readers. The receiver of notices: state, where 4 is nobody. The fleet:
-- 0 is not told, 1 waits, 2 its broker has taken it. units is the size, of 2 KiB each.
ALTER TABLE notice ADD COLUMN fleet INTEGER NOT NULL DEFAULT 0;
ALTER TABLE notice ADD COLUMN units INTEGER NOT NULL DEFAULT 1;
CREATE INDEX notice_fleet ON notice (seq) WHERE fleet = 1;
CREATE INDEX notice_told ON notice (seq) WHERE state NOT IN (0, 3) AND fleet <> 1;
-- One row: the outbox that the numbers are of, and its size.
CREATE TABLE outbox (id TEXT NOT NULL, units INTEGER NOT NULL);
INSERT INTO outbox SELECT lower(hex(randomblob(8))), count(*) FROM notice;
CREATE TRIGGER notice_in AFTER INSERT ON notice BEGIN
    UPDATE outbox SET units = units + new.units; END;
CREATE TRIGGER notice_out AFTER DELETE ON notice BEGIN
    UPDATE outbox SET units = units - old.units; END;
-- What the fleet was told of an entry of a ledger: 0 nothing, 1 that it began, 2 all of it.
ALTER TABLE gap ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
UPDATE gap SET told = 2;
CREATE INDEX gap_untold ON gap (id) WHERE told = 0 OR told = 1 AND until_ms IS NOT NULL;
ALTER TABLE loss ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
UPDATE loss SET told = 2;
CREATE INDEX loss_untold ON loss (id) WHERE told = 0;
-- Events that fell out of the full outbox: how many, and between which numbers. file is 0 then. told
-- is 3 if the fleet had them, or was never to have them.
ALTER TABLE loss ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
ALTER TABLE loss ADD COLUMN first_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE loss ADD COLUMN last_seq INTEGER NOT NULL DEFAULT 0;
", "
-- Somebody wants the file delivered now, before all others.
ALTER TABLE file ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0;
", "
-- Bytes that have gone out on a local day; one row.
CREATE TABLE upload_day (id INTEGER PRIMARY KEY CHECK (id = 0), day INTEGER, bytes INTEGER NOT NULL);
-- The row was lost once: the target may have the file already.
ALTER TABLE file ADD COLUMN maybe_there INTEGER NOT NULL DEFAULT 0;
", "
-- The few entries that grow are found among all.
CREATE INDEX loss_of_events ON loss (told) WHERE events > 0;
", "
-- What was written to the disk. One row: what the kernel had counted, in which boot and since which
-- appearance of the disk; what was written ever, and what of it nobody knows the day of. And by day of UTC.
CREATE TABLE wear (
    id INTEGER PRIMARY KEY CHECK (id = 0), boot_id BLOB NOT NULL, appearance INTEGER NOT NULL,
    seen_bytes INTEGER NOT NULL, seen_flushes INTEGER NOT NULL, bytes INTEGER NOT NULL,
    flushes INTEGER NOT NULL, undated_bytes INTEGER NOT NULL, undated_flushes INTEGER NOT NULL);
CREATE TABLE wear_day (
    day INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, flushes INTEGER NOT NULL);
", "
-- Boots whose clock was set once: the wall time of their boot time 0.
CREATE TABLE boot (
    id INTEGER PRIMARY KEY, boot_id BLOB NOT NULL UNIQUE, zero_ms INTEGER NOT NULL);
-- A gap on the clock of its boot; NULL in older rows. Where an end cannot be told in wall time, until_ms
-- is where the gap begins, and until_boot_ms tells it on the clock of until_boot_id.
ALTER TABLE gap ADD COLUMN boot_id BLOB;
ALTER TABLE gap ADD COLUMN boot_ms INTEGER;
ALTER TABLE gap ADD COLUMN until_boot_id BLOB;
ALTER TABLE gap ADD COLUMN until_boot_ms INTEGER;
ALTER TABLE decision ADD COLUMN trusted INTEGER NOT NULL DEFAULT 1;
-- When a segment began on the clock of its session's boot; NULL in older rows.
ALTER TABLE segment ADD COLUMN first_boot_ms INTEGER;
-- What waits for a date.
CREATE INDEX session_undated ON session (boot_id) WHERE trusted = 0;
CREATE INDEX file_undated ON file (session) WHERE trusted = 0;
CREATE INDEX gap_undated ON gap (boot_id) WHERE trusted = 0;
CREATE INDEX gap_unended ON gap (until_boot_id) WHERE until_boot_id IS NOT NULL;
CREATE INDEX decision_undated ON decision (boot_id) WHERE trusted = 0;
CREATE INDEX push_undated ON push (boot_id) WHERE trusted = 0;
", "
-- What starting and reusing a slot look for must not be looked for in all slots.
CREATE INDEX slot_state ON slot (state);
CREATE INDEX slot_age ON slot (age);
-- CRC32C of what is said of a finished file.
ALTER TABLE file ADD COLUMN crc INTEGER;
", "
-- What waits, in the order of the queue: urgent or not, of each kind.
CREATE INDEX file_waiting ON file (
    urgent <> 0, CASE WHEN priority IN (1, 2) THEN priority ELSE 0 END, queue_number)
    WHERE state IN (2, 3);
-- A file is lost once.
CREATE INDEX loss_file ON loss (file);
"];

/// Opens the database, brings its schema up to date, and makes sure each slot has its row.
///
/// # Errors
/// It cannot be opened, is damaged, or was written by a newer program.
pub fn open(path: &Path, identity: &RingIdentity) -> Result<Connection, RingError> {
    let what = RingError::catalog("opening state.db");
    let mut db = open_database(path).map_err(what)?;
    let what = RingError::catalog("reading the schema of state.db");
    let version: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(what)?;
    if version as usize > STEPS.len() {
        let what = format!("state.db has schema {version}, this program knows {}", STEPS.len());
        return Err(RingError::Foreign { path: path.to_owned(), what });
    }
    migrate(&mut db, version)
        .and_then(|()| fill_slots(&mut db, identity))
        .map_err(RingError::catalog("bringing state.db up to date"))?;
    Ok(db)
}

fn open_database(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    // The sandbox has no folder for scratch files, and rows are few.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "foreign_keys", "OFF")?;
    db.pragma_update(None, "cache_size", -1024)?;
    db.pragma_update(None, "journal_size_limit", LOG_BYTES.cast_signed())?;
    db.set_prepared_statement_cache_capacity(64);
    damage::look_at_small(&db)?;
    Ok(db)
}

/// Each slot has its row. What a slot holds that had none is not known.
fn fill_slots(db: &mut Connection, identity: &RingIdentity) -> rusqlite::Result<()> {
    let last: Option<u32> = db.query_row("SELECT max(slot) FROM slot", [], |row| row.get(0))?;
    if last.is_some_and(|last| last + 1 >= identity.slots) {
        return Ok(());
    }
    let transaction = db.transaction()?;
    transaction.execute(
        "WITH RECURSIVE one (slot) AS (SELECT 0 UNION ALL SELECT slot + 1 FROM one
         WHERE slot + 1 < ?1)
         INSERT OR IGNORE INTO slot (slot, generation, state) SELECT slot, 0, ?2 FROM one",
        params![identity.slots, SlotState::Unread as u8],
    )?;
    transaction.commit()
}

/// Takes the schema from the step it stands at to the newest.
fn migrate(db: &mut Connection, version: u32) -> rusqlite::Result<()> {
    for (step, sql) in (1_u32..).zip(STEPS).skip(version as usize) {
        let transaction = db.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", step)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> RingIdentity {
        RingIdentity::plan(Path::new("/ring"), 32 << 20, 1 << 20).expect("fits")
    }

    #[test]
    fn opening_twice_changes_nothing_and_each_slot_has_a_row() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("state.db");
        for _ in 0..2 {
            let db = open(&path, &identity()).expect("open");
            let slots: u32 =
                db.query_row("SELECT count(*) FROM slot", [], |row| row.get(0)).expect("count");
            assert_eq!(slots, identity().slots);
        }
    }

    #[test]
    fn a_newer_schema_and_a_damaged_file_are_refused() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("state.db");
        let db = open(&path, &identity()).expect("open");
        db.pragma_update(None, "user_version", 99).expect("set");
        drop(db);
        let newer = open(&path, &identity()).map(|_| ());
        assert!(matches!(newer, Err(RingError::Foreign { .. })), "{newer:?}");
        std::fs::write(&path, vec![7; 8192]).expect("damaged");
        let damaged = open(&path, &identity()).map(|_| ());
        assert!(matches!(damaged, Err(RingError::Catalog { .. })), "{damaged:?}");
    }

    #[test]
    fn an_outbox_from_before_the_fleet_was_a_reader_is_counted_and_old_entries_are_not_told() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("state.db");
        let mut db = Connection::open(&path).expect("made");
        db.execute_batch(&STEPS[..3].concat()).expect("as it was");
        db.pragma_update(None, "user_version", 3).expect("set");
        let notice = "INSERT INTO notice (id, stream, event_type, at_ms, url, key, body)
            VALUES (?1, 'd/live/cam', 1, 0, 'http://h/', '', '{}')";
        for id in ["1-1", "1-2"] {
            db.execute(notice, [id]).expect("entered");
        }
        db.execute_batch(
            "INSERT INTO gap (stream, session, from_ms, cause) VALUES (1, 0, 0, 'c');
             INSERT INTO loss (file, at_ms, media_ms, reason) VALUES (7, 0, 0, 'r');",
        )
        .expect("entered");
        drop(db);
        db = open(&path, &identity()).expect("open");
        let number = |db: &Connection, text: &str| -> u32 {
            db.query_row(text, [], |row| row.get(0)).expect("asked")
        };
        assert_eq!(number(&db, "SELECT units FROM outbox"), 2);
        assert_eq!(number(&db, "SELECT count(*) FROM notice WHERE fleet = 0 AND state = 0"), 2);
        let told = "SELECT (SELECT sum(told) FROM gap) + (SELECT sum(told) FROM loss)";
        assert_eq!(number(&db, told), 4);
        db.execute(notice, ["1-3"]).expect("entered");
        assert_eq!(number(&db, "SELECT units FROM outbox"), 3);
        db.execute("DELETE FROM notice WHERE seq < 3", []).expect("gone");
        assert_eq!(number(&db, "SELECT units FROM outbox"), 1);
    }

    #[test]
    fn entries_from_before_boots_were_remembered_stay_as_they_were_written() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("state.db");
        let db = Connection::open(&path).expect("made");
        db.execute_batch(&STEPS[..8].concat()).expect("as it was");
        db.pragma_update(None, "user_version", 8).expect("set");
        db.execute_batch(
            "INSERT INTO gap (stream, session, from_ms, until_ms, cause, trusted)
                 VALUES (1, 0, 7, NULL, 'c', 0), (1, 5, 8, 9, 'c', 1);
             INSERT INTO decision (stream, boot_id, boot_ms, from_ms, content)
                 VALUES (1, x'01', 3, 4, '{}');",
        )
        .expect("entered");
        drop(db);
        let db = open(&path, &identity()).expect("open");
        let text = "SELECT group_concat(from_ms || ' ' || coalesce(until_ms, '') || trusted
            || (boot_id IS NULL AND until_boot_id IS NULL), ',') FROM gap";
        let gaps: String = db.query_row(text, [], |row| row.get(0)).expect("asked");
        assert_eq!(gaps, "7 01,8 911");
        let text = "SELECT from_ms + trusted + (SELECT count(*) FROM boot) FROM decision";
        let decision: i64 = db.query_row(text, [], |row| row.get(0)).expect("asked");
        assert_eq!(decision, 5);
    }
}
