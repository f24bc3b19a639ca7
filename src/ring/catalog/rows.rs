//! Rows of the catalog: one function a table, inside a transaction of the caller.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::domain::ids::{FileId, SessionId};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{BootTime, ClockQuality, Instant};
use crate::platform::planted;
use crate::ring::catalog::open::{FileState, OpenFile, OpenSegment, RecordingStart};
use crate::ring::fragment::SessionStart;

pub(super) fn store_segment(
    transaction: &Transaction<'_>,
    open: &OpenSegment,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO segment (slot, start, generation, session, media, end,
             first_sequence, first_ms, last_ms, first_boot_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            open.place.slot.0,
            sql(open.start),
            sql(open.place.generation.0),
            sql(open.session.0),
            sql(open.media),
            sql(open.end),
            open.first_sequence.0,
            open.first_ms(),
            open.last_ms(),
            sql(open.first.at.boot.0)
        ])?;
    Ok(())
}

/// The row of a stream, made if missing.
pub(super) fn stream_id(transaction: &Transaction<'_>, key: &StreamKey) -> rusqlite::Result<i64> {
    let parts = params![key.domain(), key.app(), key.stream()];
    transaction
        .prepare_cached("INSERT OR IGNORE INTO stream (domain, app, stream) VALUES (?1, ?2, ?3)")?
        .execute(parts)?;
    transaction
        .prepare_cached("SELECT id FROM stream WHERE domain = ?1 AND app = ?2 AND stream = ?3")?
        .query_row(parts, |row| row.get(0))
}

/// Enters a session if it is not known; gives the stream's row.
pub(super) fn insert_session(
    transaction: &Transaction<'_>,
    session: &SessionStart,
) -> rusqlite::Result<i64> {
    let stream = stream_id(transaction, &session.key)?;
    transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO session (id, stream, boot_id, began_boot_ms, began_ms, trusted,
             protocol, query) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            sql(session.id.0),
            stream,
            session.boot_id.0,
            sql(session.began.boot.0),
            session.began.wall.unix.0,
            session.began.wall.quality == ClockQuality::Trusted,
            session.protocol,
            session.query
        ])?;
    Ok(stream)
}

pub(super) fn insert_recording(
    transaction: &Transaction<'_>,
    stream: i64,
    session: SessionId,
    recording: &RecordingStart,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO recording (id, stream, session, content) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET ended = 0",
        )?
        .execute(params![
            sql(recording.id.0),
            stream,
            sql(session.0),
            serde_json::to_string(&recording.content).expect("plain fields")
        ])?;
    Ok(())
}

pub(super) fn insert_gap(
    transaction: &Transaction<'_>,
    session: &SessionStart,
    from: Instant,
    media_ms: i64,
    cause: &str,
) -> rusqlite::Result<()> {
    if planted::is_planted("EDGEREC_PLANT_NO_GAP") {
        return Ok(());
    }
    let stream = stream_id(transaction, &session.key)?;
    transaction
        .prepare_cached(
            "INSERT INTO gap (stream, session, from_ms, until_ms, media_ms, cause, trusted, boot_id,
             boot_ms) VALUES (?1, ?2, ?3, ?3 + ?4, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            stream,
            sql(session.id.0),
            from.wall.unix.0,
            media_ms,
            cause,
            from.wall.quality == ClockQuality::Trusted,
            session.boot_id.0,
            sql(from.boot.0)
        ])?;
    Ok(())
}

/// Whether the ledger names this cause for a session.
pub(super) fn has_gap(
    transaction: &Transaction<'_>,
    session: SessionId,
    cause: &str,
) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM gap WHERE session = ?1 AND cause = ?2)")?
        .query_row(params![sql(session.0), cause], |row| row.get(0))
}

pub(super) fn stored_state(
    transaction: &Transaction<'_>,
    id: FileId,
) -> rusqlite::Result<Option<FileState>> {
    transaction
        .prepare_cached("SELECT state FROM file WHERE id = ?1")?
        .query_row(params![sql(id.0)], |row| Ok(FileState::from_number(row.get(0)?)))
        .optional()
}

/// Wall time of `later`, counted from an instant of the same boot.
pub(super) fn wall_at(from: Instant, later: BootTime) -> i64 {
    from.wall.unix.0 + i64::try_from(later.since(from.boot).as_millis()).unwrap_or(0)
}

/// A 63-bit number as SQLite keeps it.
pub(super) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back from [`sql`].
pub(super) fn unsql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Stores the growing span of a file, and the file's figures with it.
pub(super) fn store_span(
    transaction: &Transaction<'_>,
    open: &mut OpenFile,
) -> rusqlite::Result<()> {
    if let Some(span) = open.span.take() {
        transaction
            .prepare_cached(
                "INSERT INTO span (file, place, slot, generation, segment, start, end, past)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                sql(open.id.0),
                open.spans_stored,
                span.place.slot.0,
                sql(span.place.generation.0),
                sql(span.segment_offset),
                sql(span.start),
                sql(span.end),
                open.past
            ])?;
        open.spans_stored += 1;
        transaction
            .prepare_cached("UPDATE file SET end_ms = ?2, duration_ms = ?3 WHERE id = ?1")?
            .execute(params![sql(open.id.0), open.end_ms(), open.duration_ms()])?;
    }
    Ok(())
}
