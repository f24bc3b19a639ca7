//! The ring: media on flash.
//!
//! Invariants
//! 1. Every sealed fragment up to the durable watermark survives a power cut; after recovery every
//!    segment is a self-contained fragmented MP4.
//! 2. A fragment counts only if its seal is there, matches (directory, slot, generation, stream,
//!    segment, sequence) and its CRC32C agrees; init and segment header are under a CRC too.
//! 3. The catalog never names media that is not durable, and what it says of media can be rebuilt
//!    from the slots: seals carry the recordings a fragment belongs to.
//! 4. A leased slot and a slot with undelivered spans are not evicted, unless policy says so; the
//!    loss entry is durable first.
//! 5. Slots, catalog and their reserve stay inside one budget that `format` fixed.
//!
//! Order of a write: fragment -> lane -> slot (*written*) -> group sync (*durable*) -> catalog.
//! Order of a reuse: plan -> loss entry -> new generation reserved, durable -> first write.

pub mod catalog;
pub mod clip;
pub mod desk;
pub mod disk;
mod failures;
pub mod fragment;
pub mod fsck;
pub mod handle;
pub mod identity;
pub mod lane;
pub mod layout;
pub mod live_hub;
pub mod meters;
mod open_slot;
pub mod past;
pub mod read_only;
pub mod rebuild;
pub mod right_of_way;
pub mod scan;
pub mod slots;
pub mod snapshot;
pub mod wipe;
pub mod writer;

use std::path::PathBuf;

use crate::domain::disk::DiskFault;
use crate::domain::ids::{FileId, SlotIndex};

/// The ring cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// There is no ring at the path.
    #[error("{path} holds no ring (no ring.id); `edgerec format` makes one")]
    Missing {
        /// The configured path.
        path: PathBuf,
    },
    /// A ring is already there.
    #[error("{path} already holds a ring; nothing was written")]
    Exists {
        /// The configured path.
        path: PathBuf,
    },
    /// The ring was made by another version or is not the one that is configured.
    #[error("{path} holds a ring that does not fit: {what}")]
    Foreign {
        /// The configured path.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// Another process works on the ring.
    #[error("{path} is in use by another process")]
    Busy {
        /// The configured path.
        path: PathBuf,
    },
    /// The file system has too little room for the budget.
    #[error("{path} has room for {free_bytes} bytes, the ring needs {need_bytes}")]
    NoRoom {
        /// The configured path.
        path: PathBuf,
        /// What the file system has.
        free_bytes: u64,
        /// What the budget asks for.
        need_bytes: u64,
    },
    /// Its disk cannot be recorded to.
    #[error("{path}: {}", fault.words())]
    Disk {
        /// The configured path.
        path: PathBuf,
        /// Why not.
        fault: DiskFault,
    },
    /// The flash failed.
    #[error("{what} failed")]
    Flash {
        /// What was done to which file.
        what: String,
        /// What the flash said.
        #[source]
        source: std::io::Error,
    },
    /// The catalog failed.
    #[error("the catalog failed while {what}")]
    Catalog {
        /// What was done.
        what: &'static str,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// A slot's bytes are not what was sealed.
    #[error("slot {slot} is damaged at byte {offset}: {what}")]
    Damaged {
        /// Which slot.
        slot: SlotIndex,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// What the catalog says of a file is not what it said when the file was finished.
    #[error("state.db is damaged where it tells of file {0}")]
    Rotten(FileId),
    /// The media asked for is no longer, or never was, in the ring.
    #[error("the media is not in the ring: {0}")]
    Gone(String),
    /// The ring is shutting down.
    #[error("the ring is closed")]
    Closed,
}

impl RingError {
    /// Whether a row of the catalog holds what was never written to it.
    #[must_use]
    pub fn is_bad_row(&self) -> bool {
        use rusqlite::Error;
        let RingError::Catalog { source, .. } = self else { return false };
        matches!(
            source,
            Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::Utf8Error(..)
        )
    }

    /// Whether the catalog is damaged. No failure of the flash is meant, which may pass.
    #[must_use]
    pub fn is_damage_of_catalog(&self) -> bool {
        use rusqlite::ErrorCode::{ConstraintViolation, DatabaseCorrupt, NotADatabase, Unknown};
        let RingError::Catalog { source, .. } = self else { return false };
        // Rows that contradict each other, or text that is none: SQLite says so of the statement. Ours
        // are sound where the tables are as they were made.
        let code = source.sqlite_error_code();
        self.is_bad_row()
            || matches!(source, rusqlite::Error::SqlInputError { .. })
            || matches!(code, Some(DatabaseCorrupt | NotADatabase | ConstraintViolation | Unknown))
    }

    /// Whether the catalog can be opened once there is room, or the right to.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied,
            ReadOnly,
        };
        let RingError::Catalog { source, .. } = self else { return false };
        matches!(
            source.sqlite_error_code(),
            Some(
                CannotOpen
                    | DatabaseBusy
                    | DatabaseLocked
                    | DiskFull
                    | OutOfMemory
                    | PermissionDenied
                    | ReadOnly
            )
        )
    }

    /// For `map_err`: a failed operation on the flash.
    pub(crate) fn flash(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> RingError {
        move |source| RingError::Flash { what: what.into(), source }
    }

    /// For `map_err`: a failed operation of the catalog.
    pub(crate) fn catalog(what: &'static str) -> impl FnOnce(rusqlite::Error) -> RingError {
        move |source| RingError::Catalog { what, source }
    }
}
