//! Sessions and recordings as they begin and go on, and what goes missing in them.

use rusqlite::{OptionalExtension, Transaction};

use crate::domain::ids::SessionId;
use crate::domain::time::Instant;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::open::RecordingStart;
use crate::ring::catalog::rows::{insert_gap, insert_recording, insert_session, sql};
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
        let session = &self.dates.session(session).into_owned();
        self.in_transaction("entering a session", |transaction| {
            let stream = insert_session(transaction, session)?;
            recordings
                .iter()
                .try_for_each(|start| insert_recording(transaction, stream, session.id, start))
        })
    }

    /// Enters an interval of missing media into the gap ledger. Told with what becomes durable next
    /// ([`apply`](Self::apply)): flash that does not keep up must not be flushed for each of many.
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
        let from = self.dates.instant(session.boot_id, from);
        self.in_transaction("entering a gap", |transaction| {
            insert_gap(transaction, session, from, media_ms, cause)
        })
    }

    /// Whether a session is over and all of it is durable; one that nobody knows any more is.
    ///
    /// # Errors
    /// The database fails.
    pub fn is_ended(&self, session: SessionId) -> Result<bool, RingError> {
        let ended: Option<bool> = self
            .db
            .prepare_cached("SELECT ended_ms IS NOT NULL FROM session WHERE id = ?1")
            .and_then(|mut query| query.query_row([sql(session.0)], |row| row.get(0)).optional())
            .map_err(RingError::catalog("reading a session"))?;
        Ok(ended.unwrap_or(true))
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
