//! Files as media for the API: those that are finished and still somewhere, page by page, and
//! what is left of one that was deleted.

use rusqlite::params;

use crate::domain::ids::FileId;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::files::{COLUMNS, FileRecord};
use crate::ring::catalog::open::FileState;
use crate::ring::catalog::rows::{sql, unsql};

/// Files that one job on the catalog thread reads, so that it is never held for long.
pub const PAGE_FILES_MAX: u32 = 256;

/// Why a deleted file stands where it stands.
const DELETED: &str = "deleted through the API";

/// A file that is finished.
#[derive(Debug, Clone)]
pub struct MediaRow {
    /// The file.
    pub file: FileRecord,
    /// Seconds that it is kept; 0 is no limit.
    pub storage_s: u64,
}

impl MediaRow {
    /// When it came to be, Unix milliseconds: its last sample arrived.
    #[must_use]
    pub fn created_ms(&self) -> i64 {
        self.file.end_ms
    }

    /// When it need not be kept any more, Unix milliseconds; `None` is never.
    #[must_use]
    pub fn expires_ms(&self) -> Option<i64> {
        let kept_ms = i64::try_from(self.storage_s).unwrap_or(i64::MAX).saturating_mul(1_000);
        (kept_ms > 0).then(|| self.file.end_ms.saturating_add(kept_ms))
    }
}

/// What became of a request to delete a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Done,
    /// There is no such file, or it was gone before.
    Unknown,
    /// It still grows.
    Growing,
}

impl CatalogState {
    /// Finished files after the one that began at `start_ms` with this identity, the oldest first,
    /// at most [`PAGE_FILES_MAX`].
    ///
    /// # Errors
    /// The database fails.
    pub fn media_after(&self, (start_ms, id): (i64, FileId)) -> Result<Vec<MediaRow>, RingError> {
        let text = format!(
            "SELECT {COLUMNS} WHERE file.state BETWEEN 1 AND 5
             AND (file.start_ms, file.id) > (?1, ?2)
             ORDER BY file.start_ms, file.id LIMIT ?3"
        );
        self.media_rows(self.select(&text, params![start_ms, sql(id.0), PAGE_FILES_MAX])?)
    }

    /// Those of the files that are finished, in the order of `ids`; others are left out.
    ///
    /// # Errors
    /// The database fails.
    pub fn media(&self, ids: &[FileId]) -> Result<Vec<MediaRow>, RingError> {
        let text = format!("SELECT {COLUMNS} WHERE file.state BETWEEN 1 AND 5 AND file.id = ?1");
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.select(&text, [sql(id.0)])?);
        }
        self.media_rows(found)
    }

    /// Deletes a finished file, durably: no address leads to it any more, and its media may be
    /// overwritten unless another file needs it. Its row stays for a while, evicted, so that a
    /// recovery does not make it anew; only a catalog that is lost as a whole brings back a
    /// deleted file whose media is still there.
    ///
    /// # Errors
    /// The database fails: nothing has changed then.
    pub fn delete_file(&mut self, id: FileId) -> Result<Deletion, RingError> {
        if self.open_files.values().any(|open| open.id == id) {
            return Ok(Deletion::Growing);
        }
        let row = params![sql(id.0), FileState::Evicted as u8, DELETED];
        let changed = self.durably("deleting a file", |transaction| {
            let changed = transaction.execute(
                "UPDATE file SET state = ?2, why = ?3, url = NULL
                 WHERE id = ?1 AND state BETWEEN 1 AND 5",
                row,
            )?;
            if changed > 0 {
                transaction.execute("DELETE FROM span WHERE file = ?1", [sql(id.0)])?;
                transaction.execute("DELETE FROM progress WHERE file = ?1", [sql(id.0)])?;
            }
            Ok(changed)
        })?;
        if changed > 0 {
            return Ok(Deletion::Done);
        }
        match self.file(id) {
            Ok(file) if file.state == FileState::Recording => Ok(Deletion::Growing),
            Ok(_) | Err(RingError::Gone(_)) => Ok(Deletion::Unknown),
            Err(error) => Err(error),
        }
    }

    fn media_rows(&self, files: Vec<FileRecord>) -> Result<Vec<MediaRow>, RingError> {
        let mut rows = Vec::with_capacity(files.len());
        for file in files {
            let storage_s: i64 = self
                .db
                .prepare_cached("SELECT storage_s FROM file WHERE id = ?1")
                .and_then(|mut query| query.query_row([sql(file.id.0)], |row| row.get(0)))
                .map_err(RingError::catalog("listing media"))?;
            rows.push(MediaRow { file, storage_s: unsql(storage_s) });
        }
        Ok(rows)
    }
}
