//! What the catalog says should be in the slots, for `fsck`: rows as they stand, nothing
//! recovered.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::domain::ids::{FileId, SlotGeneration, SlotIndex};
use crate::ring::RingError;
use crate::ring::catalog::rows::unsql;
use crate::ring::catalog::{damage, database_path, schema};
use crate::ring::identity::RingIdentity;

/// Files without media that are told one by one.
const FILES_MAX: u32 = 1_000;

/// An open copy of the catalog.
pub struct Inventory {
    db: Connection,
}

/// A slot as the catalog knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRow {
    /// Which.
    pub slot: SlotIndex,
    /// Its life.
    pub generation: SlotGeneration,
    /// A number of [`SlotState`](crate::ring::catalog::open::SlotState).
    pub state: u8,
}

/// A segment that has ended. Offsets are bytes in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRow {
    /// The life of the slot that it was written in.
    pub generation: SlotGeneration,
    /// Where it begins.
    pub start: u64,
    /// Where its first fragment begins.
    pub media: u64,
    /// Where its last fragment ends.
    pub end: u64,
}

/// A span of a file. Offsets are bytes in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanRow {
    /// Whose.
    pub file: FileId,
    /// The life of the slot that it was written in.
    pub generation: SlotGeneration,
    /// Where its segment begins.
    pub segment: u64,
    /// Where its first fragment begins.
    pub start: u64,
    /// Where its last fragment ends.
    pub end: u64,
}

impl Inventory {
    /// Opens the copy in `folder`; `None` if there is no catalog.
    ///
    /// # Errors
    /// It is damaged.
    pub fn open(folder: &Path, identity: &RingIdentity) -> Result<Option<Self>, RingError> {
        let path = database_path(folder);
        if !path.exists() {
            return Ok(None);
        }
        let db = schema::open(&path, identity)?;
        damage::look_at(&db).map_err(RingError::catalog("looking at state.db"))?;
        Ok(Some(Inventory { db }))
    }

    /// Every slot in order.
    ///
    /// # Errors
    /// The database fails.
    pub fn slots(&self) -> Result<Vec<SlotRow>, RingError> {
        self.rows("SELECT slot, generation, state FROM slot ORDER BY slot", [], |row| {
            let generation = SlotGeneration(unsql(row.get(1)?));
            Ok(SlotRow { slot: SlotIndex(row.get(0)?), generation, state: row.get(2)? })
        })
    }

    /// The ended segments of a slot in order.
    ///
    /// # Errors
    /// The database fails.
    pub fn segments(&self, slot: SlotIndex) -> Result<Vec<SegmentRow>, RingError> {
        self.rows(
            "SELECT generation, start, media, end FROM segment WHERE slot = ?1 ORDER BY start",
            params![slot.0],
            |row| {
                Ok(SegmentRow {
                    generation: SlotGeneration(unsql(row.get(0)?)),
                    start: unsql(row.get(1)?),
                    media: unsql(row.get(2)?),
                    end: unsql(row.get(3)?),
                })
            },
        )
    }

    /// The spans in a slot in order.
    ///
    /// # Errors
    /// The database fails.
    pub fn spans(&self, slot: SlotIndex) -> Result<Vec<SpanRow>, RingError> {
        self.rows(
            "SELECT file, generation, segment, start, end FROM span WHERE slot = ?1
             ORDER BY start, file",
            params![slot.0],
            |row| {
                Ok(SpanRow {
                    file: FileId(unsql(row.get(0)?)),
                    generation: SlotGeneration(unsql(row.get(1)?)),
                    segment: unsql(row.get(2)?),
                    start: unsql(row.get(3)?),
                    end: unsql(row.get(4)?),
                })
            },
        )
    }

    /// Finished files, not yet delivered, of which the catalog has no media at all.
    ///
    /// # Errors
    /// The database fails.
    pub fn files_without_media(&self) -> Result<Vec<FileId>, RingError> {
        self.rows(
            "SELECT id FROM file WHERE state IN (1, 2, 3)
             AND NOT EXISTS (SELECT 1 FROM span WHERE span.file = file.id) ORDER BY id LIMIT ?1",
            params![FILES_MAX],
            |row| Ok(FileId(unsql(row.get(0)?))),
        )
    }

    fn rows<T>(
        &self,
        text: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, RingError> {
        self.db
            .prepare_cached(text)
            .and_then(|mut query| query.query_map(parameters, read)?.collect())
            .map_err(RingError::catalog("reading the inventory"))
    }
}
