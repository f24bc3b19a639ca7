//! Sessions and recordings as they begin and go on, and what goes missing in them.

use rusqlite::Transaction;

use crate::domain::time::Instant;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::open::RecordingStart;
use crate::ring::catalog::rows::{insert_gap, insert_recording, insert_session};
use crate::ring::fragment::SessionStart;

impl CatalogState {
    /// Enters a session and recordings that begin in it, before their first fragment.
    ///
    /// # Errors
    /// The database fails.
    pub fn begin_session(
        &mut self,
        session: &SessionStart,
        recordings: &[RecordingStart],
    ) -> Result<(), RingError> {
        self.in_transaction("entering a session", |transaction| {
            let stream = insert_session(transaction, session)?;
            recordings
                .iter()
                .try_for_each(|start| insert_recording(transaction, stream, session.id, start))
        })
    }

    /// Enters an interval of missing media into the gap ledger.
    ///
    /// # Errors
    /// The database fails.
    pub fn enter_gap(
        &mut self,
        session: &SessionStart,
        from: Instant,
        media_ms: i64,
        cause: &str,
    ) -> Result<(), RingError> {
        self.in_transaction("entering a gap", |transaction| {
            insert_gap(transaction, session, from, media_ms, cause)
        })
    }

    pub(super) fn in_transaction(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), RingError> {
        self.db
            .transaction()
            .and_then(|transaction| {
                work(&transaction)?;
                transaction.commit()
            })
            .map_err(RingError::catalog(what))
    }
}
