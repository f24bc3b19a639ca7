//! Stretches of sessions that flash did not take. Each is one gap, however many fragments it has: a ring
//! that is full for a week must not push everything else out of the ledger.

use rusqlite::params;

use crate::domain::ids::SessionId;
use crate::domain::time::{BootTime, Instant};
use crate::ring::catalog::durable::{DurableEvent, Entry};
use crate::ring::catalog::rows::{has_gap, insert_gap, sql};
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

    /// Flash takes what comes of a session from this time on, or nothing comes any more.
    pub(super) fn end_of_loss(
        &mut self,
        session: SessionId,
        until: BootTime,
    ) -> rusqlite::Result<()> {
        let Some((gap, _)) = self.losing.remove(&session) else { return Ok(()) };
        self.transaction
            .prepare_cached(
                "UPDATE gap SET until_ms = from_ms + max(0, ?2 - boot_ms) WHERE id = ?1",
            )?
            .execute(params![gap, sql(until.0)])
            .map(drop)
    }
}
