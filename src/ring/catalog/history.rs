//! What was decided about a stream, as its recordings tell.

use rusqlite::params;

use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::open::RecordingContent;

/// Recordings of one session that are reported.
const RECORDINGS_MAX: u32 = 64;

impl CatalogState {
    /// What the recordings of the session that ran at `at` were made of; `None` if the catalog
    /// has no session of the stream at that time. A stream that is not recorded has no session in
    /// the catalog.
    ///
    /// # Errors
    /// The database fails.
    pub fn recordings_at(
        &self,
        key: &StreamKey,
        at: UnixMillis,
    ) -> Result<Option<Vec<RecordingContent>>, RingError> {
        self.read_recordings_at(key, at).map_err(RingError::catalog("reading recordings"))
    }

    fn read_recordings_at(
        &self,
        key: &StreamKey,
        at: UnixMillis,
    ) -> rusqlite::Result<Option<Vec<RecordingContent>>> {
        let sessions: Vec<i64> = self
            .db
            .prepare_cached(
                "SELECT session.id FROM session JOIN stream ON stream.id = session.stream
                 WHERE stream.domain = ?1 AND stream.app = ?2 AND stream.stream = ?3
                 AND began_ms <= ?4 AND coalesce(ended_ms, ?4) >= ?4
                 ORDER BY began_ms DESC LIMIT 1",
            )?
            .query_map(params![key.domain(), key.app(), key.stream(), at.0], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let Some(session) = sessions.first() else { return Ok(None) };
        let texts: Vec<String> = self
            .db
            .prepare_cached(
                "SELECT content FROM recording WHERE session = ?1 ORDER BY id LIMIT ?2",
            )?
            .query_map(params![session, RECORDINGS_MAX], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        // Content of another version of the program is left out.
        Ok(Some(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect()))
    }
}
