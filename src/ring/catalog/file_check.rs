//! A checksum of what the catalog says of a finished file: SQLite has none of its own over what its rows
//! hold, and a flipped bit there must not deliver other media, under another name, than was recorded.

use rusqlite::{Connection, OptionalExtension};

use crate::domain::ids::FileId;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::rows::sql;

/// What is under the checksum: what names a file, what it was to be, and where its media is.
const TOLD: &str =
    "SELECT json_array(file.id, recording, domain, app, stream.stream, session, format,
    first_sequence, start_ms, trusted, end_ms, storage_s, name_pattern,
    (SELECT content FROM recording WHERE recording.id = file.recording), (SELECT json_group_array(
    json_array(place, slot, generation, segment, start, end)) FROM
    (SELECT * FROM span WHERE span.file = file.id ORDER BY place)))
    FROM file JOIN stream ON stream.id = file.stream WHERE file.id = ?1";

/// Enters the checksum of a file that will not change any more.
pub(super) fn seal_file(db: &Connection, id: FileId) -> rusqlite::Result<()> {
    let told: String = db.prepare_cached(TOLD)?.query_row([sql(id.0)], |row| row.get(0))?;
    db.prepare_cached("UPDATE file SET crc = ?2 WHERE id = ?1")?
        .execute((sql(id.0), crc32c::crc32c(told.as_bytes())))
        .map(drop)
}

/// Changes what is under the checksums of files. A checksum that did not hold before does not after.
pub(super) fn change_files(
    db: &Connection,
    files: &[FileId],
    change: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut good = Vec::new();
    for file in files {
        if let Some(kept) = kept_sum(db, *file)?
            && told_sum(db, *file)? == Some(kept)
        {
            good.push(*file);
        }
    }
    change()?;
    good.into_iter().try_for_each(|file| seal_file(db, file))
}

fn kept_sum(db: &Connection, id: FileId) -> rusqlite::Result<Option<u32>> {
    let mut query = db.prepare_cached("SELECT crc FROM file WHERE id = ?1")?;
    Ok(query.query_row([sql(id.0)], |row| row.get(0)).optional()?.flatten())
}

fn told_sum(db: &Connection, id: FileId) -> rusqlite::Result<Option<u32>> {
    let told: Option<String> =
        db.prepare_cached(TOLD)?.query_row([sql(id.0)], |row| row.get(0)).optional()?;
    Ok(told.map(|told| crc32c::crc32c(told.as_bytes())))
}

impl CatalogState {
    /// Whether the catalog says of a finished file what it said when the file was finished. A file
    /// without a checksum, which one of an older program has not, is believed.
    ///
    /// # Errors
    /// It does not, or the database fails.
    pub fn check_file(&self, id: FileId) -> Result<(), RingError> {
        let what = "checking a file's rows";
        let kept = kept_sum(&self.db, id).map_err(RingError::catalog(what))?;
        let sum = match told_sum(&self.db, id).map_err(RingError::catalog(what)) {
            Err(damage) if damage.is_damage_of_catalog() => None,
            sum => sum?,
        };
        let agrees = kept.is_none_or(|kept| sum == Some(kept));
        if agrees { Ok(()) } else { Err(RingError::Rotten(id)) }
    }
}
