//! The outbox's budget of bytes, and what goes when it is used up: first what no reader waits for,
//! the oldest first; then the oldest, which is entered in the ledger of losses. What the fleet had
//! not got grows one entry until the fleet was told of it, so that weeks without a link cost one row.
//! What it had, or was never to have, grows another, of which it is not told.

use rusqlite::{OptionalExtension, Transaction, params};
use tracing::error;

use crate::domain::limits::NOTICES_MAX;
use crate::domain::notice::NoticeSeq;
use crate::domain::time::UnixMillis;
use crate::platform::planted;
use crate::ring::catalog::notices::HISTORY_MS;
use crate::ring::catalog::rows::sql;
use crate::ring::identity::RingIdentity;

/// The measure of rows in bytes, indexes included: bodies of the contract have 500 to 1,500.
const UNIT_BYTES: u64 = 2_048;
/// What a row takes beside its texts, generously.
const BESIDE_BYTES: u64 = 256;
/// Even the smallest ring holds so many units.
const UNITS_MIN: u64 = 1_000;
/// What the `told` column has of an overflow that the fleet has nothing to do with.
const NOT_FOR_FLEET: u8 = 3;
/// The history is cut at each so many rows.
pub(super) const CUT_EVERY: u64 = 64;

/// How many units a ring has room for beside everything else in its reserve.
pub(super) fn units_max(identity: &RingIdentity) -> u64 {
    if let Some(planted) = planted::number("EDGEREC_PLANT_OUTBOX_UNITS") {
        return planted;
    }
    let slots = u64::from(identity.slots) * identity.slot_bytes;
    let reserve = identity.capacity_bytes.saturating_sub(slots);
    (reserve / 4 / UNIT_BYTES).max(UNITS_MIN).min(u64::from(NOTICES_MAX))
}

/// The size of a row with these texts, in units.
pub(super) fn units_of(texts: &[&str]) -> u64 {
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    (BESIDE_BYTES + bytes as u64).div_ceil(UNIT_BYTES)
}

/// Makes room for one more row, and cuts the history now and then.
pub(super) fn make_room(
    transaction: &Transaction<'_>,
    seq: NoticeSeq,
    now: UnixMillis,
    (units, units_max): (u64, u64),
) -> rusqlite::Result<()> {
    if seq.0.is_multiple_of(CUT_EVERY) {
        transaction
            .prepare_cached(
                "DELETE FROM notice WHERE state NOT IN (0, 3) AND fleet <> 1
                 AND coalesce(last_ms, at_ms) < ?1",
            )?
            .execute([now.0.saturating_sub(HISTORY_MS)])?;
    }
    loop {
        let taken: i64 = transaction
            .prepare_cached("SELECT units FROM outbox")?
            .query_row([], |row| row.get(0))?;
        if taken.saturating_add(sql(units)) <= sql(units_max) || !drop_one(transaction, now)? {
            return Ok(());
        }
    }
}

/// Lets the first go that is to go; `false`: there is none.
fn drop_one(transaction: &Transaction<'_>, now: UnixMillis) -> rusqlite::Result<bool> {
    let first = |condition: &str| {
        let text = format!("SELECT seq, fleet FROM notice {condition} ORDER BY seq LIMIT 1");
        transaction
            .prepare_cached(&text)?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u8>(1)?)))
            .optional()
    };
    let told = first("WHERE state NOT IN (0, 3) AND fleet <> 1")?;
    let waits = if told.is_none() { first("")? } else { None };
    let Some((victim, _)) = told.or(waits) else { return Ok(false) };
    if let Some((_, fleet)) = waits {
        enter_overflow(transaction, victim, fleet == 1, now)?;
    }
    transaction.prepare_cached("DELETE FROM notice WHERE seq = ?1")?.execute([victim])?;
    Ok(true)
}

/// A row that somebody waits for goes untold: that is a loss, of the fleet's too or not.
fn enter_overflow(
    transaction: &Transaction<'_>,
    victim: i64,
    of_fleet: bool,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let told = if of_fleet { 0 } else { NOT_FOR_FLEET };
    let grown = transaction
        .prepare_cached(
            "UPDATE loss SET events = events + 1, last_seq = ?1, at_ms = ?2
             WHERE told = ?3 AND events > 0",
        )?
        .execute(params![victim, now.0, told])?;
    if grown == 0 {
        error!(seq = victim, of_fleet, "the outbox is full: events that nobody took are dropped");
        transaction
            .prepare_cached(
                "INSERT INTO loss (file, at_ms, media_ms, reason, told, events, first_seq, last_seq)
                 VALUES (0, ?2, 0, 'the outbox was full', ?3, 1, ?1, ?1)",
            )?
            .execute(params![victim, now.0, told])?;
    }
    Ok(())
}
