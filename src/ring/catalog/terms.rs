//! What is asked of a file where it is delivered to.

use rusqlite::{OptionalExtension, Row};

use crate::domain::files::FileFormat;
use crate::domain::ids::FileId;
use crate::domain::media_terms::MediaTerms;
use crate::domain::time::UnixMillis;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::open::RecordingContent;
use crate::ring::catalog::rows::{sql, unsql};

impl CatalogState {
    /// What is asked of a file that is called `name`.
    ///
    /// # Errors
    /// The database fails, or there is no such file.
    pub fn media_terms(&self, id: FileId, name: String) -> Result<MediaTerms, RingError> {
        let (format, storage_s, end_ms, trusted, content) = self
            .db
            .prepare_cached(
                "SELECT file.format, file.storage_s, file.end_ms, file.trusted,
                 coalesce(recording.content, '') FROM file
                 LEFT JOIN recording ON recording.id = file.recording WHERE file.id = ?1",
            )
            .and_then(|mut query| query.query_row([sql(id.0)], asked).optional())
            .map_err(RingError::catalog("reading what is asked of a file"))?
            .ok_or_else(|| RingError::Gone(format!("file {id}")))?;
        let terms = MediaTerms {
            name,
            ended: trusted.then_some(UnixMillis(end_ms)),
            storage_time_s: unsql(storage_s),
            ..MediaTerms::default()
        };
        // Content of another version of the program, or of a row that was lost, asks for nothing.
        let content: Option<RecordingContent> = serde_json::from_str(&content).ok();
        let template = content.and_then(|content| content.content);
        let format = FileFormat::ALL[usize::from(format).min(3)];
        Ok(match template.as_ref().and_then(|template| template.params(format)) {
            Some(params) => terms.with_params(params),
            None => terms,
        })
    }
}

/// Format, StorageTime, end, whether that can be believed, and the recording's content.
fn asked(row: &Row<'_>) -> rusqlite::Result<(u8, i64, i64, bool, String)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}
