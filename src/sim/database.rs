//! What a power cut and a kill leave of `state.db`, which SQLite keeps in real files.
//!
//! A kill leaves everything that was written. A power cut leaves what was durable (the last sync of
//! the file system, or the last commit that promised it) and any number of the bytes of the
//! write-ahead log after that: its frames are chained by checksums, so that SQLite reads a prefix
//! of them. A log that has begun anew since is held to be durable as far as it was copied into
//! the database, which SQLite syncs in between.
//!
//! # Specification
//! SQLite database file format, section 4 "The Write-Ahead Log".

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::ring::catalog::database_path;
use crate::sim::random::Random;

/// Bytes of the header of the log; its salts are at 16.
const LOG_HEADER_BYTES: u64 = 32;
/// Bytes of the header of a frame; its salts are at 8.
const FRAME_HEADER_BYTES: u64 = 24;

/// The database of one ring.
#[derive(Debug)]
pub struct Database {
    database: PathBuf,
    log: PathBuf,
    index: PathBuf,
    durable: Mark,
}

/// How far the log goes: in which life of it, and to which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mark {
    salts: [u8; 8],
    bytes: u64,
}

/// The files as they were at one instant.
#[derive(Debug)]
pub struct Image {
    database: Option<Vec<u8>>,
    log: Option<Vec<u8>>,
}

impl Database {
    /// The database of the ring at `ring`.
    #[must_use]
    pub fn new(ring: &Path) -> Self {
        let database = database_path(ring);
        let beside = |suffix: &str| {
            let mut path = database.clone().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        };
        let (log, index) = (beside("-wal"), beside("-shm"));
        Database { database, log, index, durable: Mark::default() }
    }

    /// Everything that is committed is durable.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn synced(&mut self) -> io::Result<()> {
        self.durable = mark(&self.log, self.durable)?;
        Ok(())
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let len = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        len(&self.database) + len(&self.log) + len(&self.index)
    }

    /// The files as a kill leaves them. Taken before the connection is dropped, which would tidy up.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn killed(&self) -> io::Result<Image> {
        Ok(Image { database: read(&self.database)?, log: read(&self.log)? })
    }

    /// The files as a power cut leaves them; taken like [`killed`](Self::killed).
    ///
    /// # Errors
    /// They cannot be read.
    pub fn cut(&self, random: &mut Random) -> io::Result<Image> {
        let mut image = self.killed()?;
        if let Some(log) = &mut image.log {
            let end = mark(&self.log, self.durable)?;
            let durable = if end.salts == self.durable.salts { self.durable.bytes } else { 0 };
            let kept = durable + random.below(end.bytes - durable + 1);
            log.truncate(usize::try_from(kept).expect("it was read"));
        }
        Ok(image)
    }

    /// Puts the files there, as the box finds them at its next start. Nothing may have them open.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn restore(&mut self, image: &Image) -> io::Result<()> {
        for path in [&self.database, &self.log, &self.index] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        for (path, content) in [(&self.database, &image.database), (&self.log, &image.log)] {
            if let Some(content) = content {
                fs::write(path, content)?;
            }
        }
        self.synced()
    }
}

/// Where the frames of the log end, which are known to go on from `known`.
fn mark(log: &Path, known: Mark) -> io::Result<Mark> {
    let log = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::default()),
        opened => opened?,
    };
    let len = log.metadata()?.len();
    let mut header = [0; LOG_HEADER_BYTES as usize];
    if len < LOG_HEADER_BYTES {
        return Ok(Mark::default());
    }
    log.read_exact_at(&mut header, 0)?;
    let salts: [u8; 8] = header[16..24].try_into().expect("eight bytes");
    let page = u32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
    let goes_on = known.salts == salts && known.bytes <= len;
    let mut end = if goes_on { known.bytes.max(LOG_HEADER_BYTES) } else { LOG_HEADER_BYTES };
    let frame_bytes = FRAME_HEADER_BYTES + u64::from(page);
    while end + frame_bytes <= len {
        let mut frame = [0; FRAME_HEADER_BYTES as usize];
        log.read_exact_at(&mut frame, end)?;
        if frame[8..16] != salts {
            break;
        }
        end += frame_bytes;
    }
    Ok(Mark { salts, bytes: end })
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn open(path: &Path) -> Connection {
        let db = Connection::open(database_path(path)).expect("opened");
        db.pragma_update(None, "journal_mode", "WAL").expect("set");
        db.execute_batch("CREATE TABLE IF NOT EXISTS row (number INTEGER)").expect("made");
        db
    }

    fn rows(path: &Path) -> u32 {
        open(path).query_row("SELECT count(*) FROM row", [], |row| row.get(0)).expect("read")
    }

    #[test]
    fn a_cut_keeps_what_was_synced_and_some_of_the_rest_and_a_kill_keeps_all() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut random = Random::new(1);
        let mut database = Database::new(dir.path());
        let db = open(dir.path());
        let insert = |count: u32| {
            (0..count).for_each(|number| {
                db.execute("INSERT INTO row VALUES (?1)", [number]).expect("entered");
            });
        };
        insert(10);
        database.synced().expect("read");
        insert(10);
        let killed = database.killed().expect("read");
        let cuts: Vec<Image> = (0..40).map(|_| database.cut(&mut random).expect("read")).collect();
        drop(db);
        let mut seen = std::collections::BTreeSet::new();
        for cut in &cuts {
            database.restore(cut).expect("written");
            seen.insert(rows(dir.path()));
        }
        assert!(seen.iter().all(|rows| (10..=20).contains(rows)), "{seen:?}");
        assert!(seen.len() > 3, "{seen:?}");
        database.restore(&killed).expect("written");
        assert_eq!(rows(dir.path()), 20);
    }
}
