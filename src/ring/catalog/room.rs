//! The catalog's room on the disk: the part of the ring's capacity that is not slots is taken for
//! `state.db` and its log from the start, as the slots are, so that the box records on where
//! somebody else fills the disk.

use std::io;
use std::path::Path;

use tracing::warn;

use crate::platform::flash::{Flash, Open};
use crate::ring::RingError;
use crate::ring::catalog::database_path;
use crate::ring::identity::RingIdentity;

/// SQLite empties its write-ahead log down to this length once all of it is in the database.
pub(super) const LOG_BYTES: u64 = 4 << 20;
/// For what the ring keeps beside slots and catalog: `ring.id`, `recovery.json`, folders.
const OTHER_BYTES: u64 = 1 << 20;

/// Takes the room of `state.db`, which is made if it is missing. To be called before SQLite opens
/// it: closing a file drops the locks that the process has on it.
pub(in crate::ring) fn take_for_database(flash: &dyn Flash, ring: &Path, identity: &RingIdentity) {
    let slots_bytes = u64::from(identity.slots) * identity.slot_bytes;
    let reserve = identity.capacity_bytes.saturating_sub(slots_bytes);
    let path = database_path(ring);
    let how = if flash.exists(&path) { Open::ReadWrite } else { Open::CreateNew };
    take(flash, &path, how, reserve.saturating_sub(LOG_BYTES + OTHER_BYTES));
}

/// Takes the room of the write-ahead log, which SQLite has made.
pub(in crate::ring) fn take_for_log(flash: &dyn Flash, ring: &Path) {
    take(flash, &ring.join("state.db-wal"), Open::ReadWrite, LOG_BYTES);
}

fn take(flash: &dyn Flash, path: &Path, how: Open, bytes: u64) {
    let taken = flash.open(path, how).and_then(|file| file.reserve(bytes));
    match taken {
        // A file system that cannot reserve says so; the log of an untouched catalog is missing.
        Err(error)
            if !matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::NotFound) =>
        {
            let why = RingError::flash(format!("taking the room of {}", path.display()))(error);
            warn!(problem = %why, cause = ?std::error::Error::source(&why),
                "if the disk gets full, the catalog cannot grow");
        }
        _ => {}
    }
}
