//! Stretches of sessions that flash did not take. Each is one gap, however many fragments it has: a ring
//! that is full for a week must not push everything else out of the ledger. Its beginning is durable at once:
//! a session of which nothing is written leaves no other trace.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use crate::domain::ids::SessionId;
use crate::domain::time::{BootTime, Instant};
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::durable::{DurableEvent, Entry};
use crate::ring::catalog::rows::{has_gap, insert_gap, sql, unsql};
use crate::ring::fragment::{Fragment, SessionStart};

/// Why a fragment was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritten {
    /// Nothing in the ring may go.
    Full,
    /// Writing failed.
    Failed,
}

impl Unwritten {
    /// For the ledger.
    fn words(self) -> &'static str {
        match self {
            Unwritten::Full => "the ring was full of what must stay",
            Unwritten::Failed => "the flash took no more",
        }
    }
}

/// The gaps that a box had open when it went down. Media that recovery finds behind them ends them.
pub(super) fn open_gaps(
    db: &Connection,
) -> rusqlite::Result<BTreeMap<SessionId, (i64, Unwritten)>> {
    let mut gaps = BTreeMap::new();
    for why in [Unwritten::Full, Unwritten::Failed] {
        let mut query = db.prepare(
            "SELECT session, id FROM gap WHERE until_ms IS NULL AND session <> 0 AND cause = ?1",
        )?;
        let mut rows = query.query([why.words()])?;
        while let Some(row) = rows.next()? {
            gaps.insert(SessionId(unsql(row.get(0)?)), (row.get(1)?, why));
        }
    }
    Ok(gaps)
}

impl CatalogState {
    /// Whether a gap begins with this.
    pub(super) fn begins_loss(&self, event: &DurableEvent) -> bool {
        let DurableEvent::FragmentLost { session, why, .. } = event else { return false };
        self.losing.get(&session.id).is_none_or(|(_, before)| before != why)
    }
}

impl DurableEvent {
    /// A fragment is not written, because no slot was given out or all that were failed.
    pub(in crate::ring) fn lost(fragment: &Fragment, refused: bool) -> DurableEvent {
        DurableEvent::FragmentLost {
            session: fragment.segment.session.clone(),
            first_arrival: fragment.first_arrival,
            media_ms: fragment.media_end_ms - fragment.media_start_ms,
            why: if refused { Unwritten::Full } else { Unwritten::Failed },
        }
    }
}

impl Entry<'_> {
    /// A fragment with so much media, in milliseconds, is lost: a gap begins or goes on.
    pub(super) fn fragment_lost(
        &mut self,
        session: &SessionStart,
        first_arrival: Instant,
        media_ms: i64,
        why: Unwritten,
    ) -> rusqlite::Result<()> {
        if let Some((gap, of)) = self.losing.get(&session.id)
            && *of == why
        {
            let longer = self
                .transaction
                .prepare_cached("UPDATE gap SET media_ms = media_ms + ?2 WHERE id = ?1")?
                .execute(params![gap, media_ms])?;
            if longer > 0 {
                return Ok(());
            }
        }
        self.end_of_loss(session.id, first_arrival.boot)?;
        let cause = why.words();
        if !has_gap(self.transaction, session.id, cause)? {
            self.failed.push(session.id);
        }
        let from = self.dates.instant(session.boot_id, first_arrival);
        insert_gap(self.transaction, session, from, media_ms, cause)?;
        let gap = self.transaction.last_insert_rowid();
        self.transaction
            .prepare_cached("UPDATE gap SET until_ms = NULL WHERE id = ?1")?
            .execute([gap])?;
        self.losing.insert(session.id, (gap, why));
        Ok(())
    }

    /// Flash takes what comes of a session from this time on, or nothing comes any more. What recovery
    /// finds from before the gap ends nothing.
    pub(super) fn end_of_loss(
        &mut self,
        session: SessionId,
        until: BootTime,
    ) -> rusqlite::Result<()> {
        let Some((gap, _)) = self.losing.get(&session) else { return Ok(()) };
        let ended = self
            .transaction
            .prepare_cached(
                "UPDATE gap SET until_ms = from_ms + ?2 - boot_ms WHERE id = ?1 AND boot_ms <= ?2",
            )?
            .execute(params![gap, sql(until.0)])?;
        if ended > 0 {
            self.losing.remove(&session);
        }
        Ok(())
    }
}
