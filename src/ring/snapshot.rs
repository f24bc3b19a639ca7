//! A copy of the catalog outside the ring, for readers that must not write below its path.
//!
//! SQLite writes beside every database that it opens in WAL mode, so the files are copied. A
//! running box may write meanwhile: the database is copied before its log, and the pair counts
//! only if the log was not begun anew in between (its header carries a salt that then changes).
//! Whatever a checkpoint moved meanwhile is then in the copied log too, and the log wins.

use std::io::{self, IoSlice};
use std::path::Path;

use crate::platform::flash::{Flash, Open};
use crate::platform::scratch::ScratchDir;
use crate::ring::RingError;
use crate::ring::catalog::database_path;

/// Copies are tried again this often when the box writes between.
const TRIES: usize = 20;
/// The header of a write-ahead log.
const LOG_HEADER_BYTES: u64 = 32;
/// Copied at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Copies `state.db` and its log into a new folder of its own; without a catalog the folder stays
/// empty.
///
/// # Errors
/// A file cannot be read or copied, or the box leaves no moment to.
pub fn copy_catalog(flash: &dyn Flash, ring: &Path) -> Result<ScratchDir, RingError> {
    let failed = || RingError::flash(format!("copying the catalog of {}", ring.display()));
    let scratch = ScratchDir::new().map_err(failed())?;
    let database = database_path(ring);
    let log = ring.join("state.db-wal");
    let to = database_path(scratch.path());
    for _ in 0..TRIES {
        let before = log_header(flash, &log).map_err(failed())?;
        if !flash.exists(&database) {
            return Ok(scratch);
        }
        copy(flash, &database, &to).map_err(failed())?;
        let log_copy = scratch.path().join("state.db-wal");
        if before.is_some() {
            match copy(flash, &log, &log_copy) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed()(error)),
            }
        } else if flash.exists(&log_copy) {
            flash.remove_file(&log_copy).map_err(failed())?;
        }
        if log_header(flash, &log).map_err(failed())? == before {
            return Ok(scratch);
        }
    }
    Err(failed()(io::Error::other("the box changes it all the time")))
}

/// The start of the log; `None` without a log or with an empty one.
fn log_header(flash: &dyn Flash, log: &Path) -> io::Result<Option<[u8; 32]>> {
    let file = match flash.open(log, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.len()? < LOG_HEADER_BYTES {
        return Ok(None);
    }
    let mut header = [0; 32];
    file.read_exact_at(&mut header, 0)?;
    Ok(Some(header))
}

fn copy(flash: &dyn Flash, from: &Path, to: &Path) -> io::Result<()> {
    let source = flash.open(from, Open::Read)?;
    let len = source.len()?;
    let target = flash.open(to, Open::Truncate)?;
    let mut piece = vec![0; usize::try_from(PIECE_BYTES.min(len)).map_err(io::Error::other)?];
    let mut at = 0;
    while at < len {
        let part = usize::try_from((len - at).min(PIECE_BYTES)).map_err(io::Error::other)?;
        source.read_exact_at(&mut piece[..part], at)?;
        target.write_all_at(&[IoSlice::new(&piece[..part])], at)?;
        at += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::platform::flash::SystemFlash;

    fn rows(path: &Path) -> u32 {
        let db = Connection::open(path).expect("opens");
        db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("counted")
    }

    #[test]
    fn what_is_only_in_the_log_of_a_live_database_is_copied_and_nothing_is_touched() {
        let dir = tempfile::tempdir().expect("scratch");
        let db = Connection::open(database_path(dir.path())).expect("opens");
        db.pragma_update(None, "journal_mode", "WAL").expect("set");
        db.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)").expect("written");
        let before = SystemFlash.list(dir.path()).expect("listed");
        let copied = copy_catalog(&SystemFlash, dir.path()).expect("copied");
        assert_eq!(rows(&database_path(copied.path())), 2);
        assert_eq!(SystemFlash.list(dir.path()).expect("listed"), before);
    }

    #[test]
    fn a_ring_without_a_catalog_gives_an_empty_folder() {
        let dir = tempfile::tempdir().expect("scratch");
        let copied = copy_catalog(&SystemFlash, dir.path()).expect("copied");
        assert!(SystemFlash.list(copied.path()).expect("listed").is_empty());
    }
}
