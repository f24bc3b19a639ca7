//! A file system in memory with a page cache: what is written is seen at once, and survives a power
//! cut only once it is synced; of the rest each page may have been written, not, or torn at a
//! sector. A failed sync marks the pages clean all the same: what was to become durable is lost
//! silently unless it is written again (ATC'20, "Can Applications Recover from fsync Failures?").
//!
//! SQLite reaches its file by its own means, so files called `state.db…` are the machine's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::platform::flash::{Flash, FlashFile, FlashLock, Open, Space, SystemFlash};
use crate::sim::random::Random;

/// What is written or lost as one.
const PAGE: usize = 4_096;
/// What a torn page is torn at.
const SECTOR: usize = 512;

/// What is done on the flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A file is opened.
    Open,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// A file, a folder or the file system is synced.
    Sync,
    /// A name is made, changed or removed.
    Name,
}

/// Called before each operation; an error is what becomes of it. It may let time pass.
pub type Trouble = Box<dyn FnMut(Operation) -> io::Result<()> + Send>;

/// The file system.
#[derive(Clone)]
pub struct SimFlash(Arc<Mutex<Medium>>);

struct Medium {
    /// Which content has which name, now and after a power cut.
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    contents: BTreeMap<u64, Content>,
    locked: BTreeSet<PathBuf>,
    next: u64,
    trouble: Option<Trouble>,
    /// What must never be written, and how often it was.
    forbidden: Option<Vec<u8>>,
    seen: u64,
    total_bytes: u64,
    syncs: u64,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    /// Pages that a power cut may take back, as they are on the medium.
    unsynced: BTreeMap<usize, Vec<u8>>,
    /// Pages of which a failed sync has said nothing: only the page cache has what was written.
    lost: BTreeMap<usize, Vec<u8>>,
}

impl SimFlash {
    /// An empty file system of this size.
    #[must_use]
    pub fn new(total_bytes: u64) -> Self {
        SimFlash(Arc::new(Mutex::new(Medium {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            contents: BTreeMap::new(),
            locked: BTreeSet::new(),
            next: 0,
            trouble: None,
            forbidden: None,
            seen: 0,
            total_bytes,
            syncs: 0,
        })))
    }

    /// What is asked before each operation from now on.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        self.medium().trouble = trouble;
    }

    /// Bytes that must never be written.
    pub fn forbid(&self, bytes: &[u8]) {
        self.medium().forbidden = Some(bytes.to_vec());
    }

    /// How often what is forbidden was written.
    #[must_use]
    pub fn forbidden_seen(&self) -> u64 {
        self.medium().seen
    }

    /// How often the whole file system was made durable.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.medium().syncs
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.medium().used_bytes()
    }

    /// The power goes: what was not durable is there, torn, or gone, as `random` has it.
    pub fn cut(&self, random: &mut Random) {
        let mut medium = self.medium();
        medium.names = medium.durable_names.clone();
        medium.locked.clear();
        for content in medium.contents.values_mut() {
            for (page, old) in std::mem::take(&mut content.unsynced) {
                let sector = SECTOR * random.below((PAGE / SECTOR) as u64) as usize;
                let lost = match random.below(4) {
                    0 => 0..PAGE,
                    1 => sector..PAGE,
                    2 => sector..sector + SECTOR,
                    _ => 0..0,
                };
                content.take_back(page, &old, lost);
            }
            for (page, old) in std::mem::take(&mut content.lost) {
                content.take_back(page, &old, 0..PAGE);
            }
        }
    }

    /// The process is gone; the page cache stays.
    pub fn kill(&self) {
        self.medium().locked.clear();
    }

    /// Turns one bit of a file over, on the medium.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) {
        let mut medium = self.medium();
        let Some(id) = medium.names.get(path).copied() else { return };
        let offset = usize::try_from(offset).expect("small files");
        let content = medium.contents.get_mut(&id).expect("named");
        if let Some(byte) = content.bytes.get_mut(offset) {
            *byte ^= 1 << (bit % 8);
        }
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the trouble; it may look at the file system, so it is asked without the lock.
    fn ask(&self, operation: Operation) -> io::Result<()> {
        let trouble = self.medium().trouble.take();
        let Some(mut trouble) = trouble else { return Ok(()) };
        let answer = trouble(operation);
        self.medium().trouble.get_or_insert(trouble);
        answer
    }
}

impl Medium {
    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<&u64> = self.names.values().collect();
        named.into_iter().map(|id| self.contents[id].bytes.len() as u64).sum()
    }

    fn make(&mut self, path: &Path) -> u64 {
        self.next += 1;
        self.contents.insert(self.next, Content::default());
        self.names.insert(path.to_owned(), self.next);
        self.next
    }

    fn sync_all(&mut self) {
        for content in self.contents.values_mut() {
            content.unsynced.clear();
        }
        self.durable_names = self.names.clone();
        self.syncs += 1;
    }

    fn fail_sync(&mut self) {
        for content in self.contents.values_mut() {
            let unsynced = std::mem::take(&mut content.unsynced);
            content.lost.extend(unsynced);
        }
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        for page in offset / PAGE..end.div_ceil(PAGE) {
            if !self.unsynced.contains_key(&page) {
                let from = page * PAGE;
                let now = || self.bytes[from..self.bytes.len().min(from + PAGE)].to_vec();
                let old = self.lost.remove(&page).unwrap_or_else(now);
                self.unsynced.insert(page, old);
            }
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    /// These bytes of a page were not written.
    fn take_back(&mut self, page: usize, old: &[u8], lost: Range<usize>) {
        let begin = page * PAGE;
        let until = old.len().min(self.bytes.len().saturating_sub(begin)).min(lost.end);
        if lost.start < until {
            let now = &mut self.bytes[begin + lost.start..begin + until];
            now.copy_from_slice(&old[lost.start..until]);
        }
    }
}

/// Whether SQLite has the file.
fn is_database(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"state.db"))
}

impl Flash for SimFlash {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FlashFile>> {
        self.ask(Operation::Open)?;
        if is_database(path) {
            return SystemFlash.open(path, how);
        }
        let mut medium = self.medium();
        let known = medium.names.get(path).copied();
        let content = match (how, known) {
            (Open::Read | Open::ReadWrite, Some(id)) => id,
            (Open::Read | Open::ReadWrite, None) => return Err(io::ErrorKind::NotFound.into()),
            (Open::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::CreateNew | Open::Truncate, _) => medium.make(path),
        };
        drop(medium);
        Ok(Box::new(SimFile { flash: self.clone(), content }))
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        self.ask(Operation::Name)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Operation::Name)?;
        if is_database(from) {
            return SystemFlash.rename(from, to);
        }
        let mut medium = self.medium();
        let id = medium.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        medium.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::Name)?;
        if is_database(path) {
            return SystemFlash.remove_file(path);
        }
        self.medium().names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        self.ask(Operation::Sync)?;
        let mut medium = self.medium();
        medium.durable_names = medium.names.clone();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.ask(Operation::Read)?;
        let medium = self.medium();
        Ok(medium.names.keys().filter(|name| name.parent() == Some(path)).cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        if is_database(path) {
            return SystemFlash.exists(path);
        }
        self.medium().names.contains_key(path)
    }

    fn modified(&self, _path: &Path) -> io::Result<SystemTime> {
        Ok(SystemTime::UNIX_EPOCH)
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let medium = self.medium();
        let total_bytes = medium.total_bytes;
        Ok(Space { total_bytes, free_bytes: total_bytes.saturating_sub(medium.used_bytes()) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FlashLock>> {
        if self.medium().locked.insert(path.to_owned()) {
            return Ok(Box::new(SimLock));
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Held until the process is gone ([`SimFlash::kill`], [`SimFlash::cut`]).
struct SimLock;

impl FlashLock for SimLock {}

struct SimFile {
    flash: SimFlash,
    content: u64,
}

impl SimFile {
    fn with<T>(&self, work: impl FnOnce(&mut Content) -> T) -> T {
        work(self.flash.medium().contents.get_mut(&self.content).expect("contents stay"))
    }
}

impl FlashFile for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.flash.ask(Operation::Read)?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|content| {
            let found = content.bytes.get(from..from + buf.len());
            buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    /// One that fails has written the first of the slices.
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let answer = self.flash.ask(Operation::Write);
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        let written = if answer.is_err() { &slices[..slices.len() / 2] } else { slices };
        let mut medium = self.flash.medium();
        for slice in written {
            let seen = medium.forbidden.as_ref().is_some_and(|bytes| holds(slice, bytes));
            medium.seen += u64::from(seen);
            medium.contents.get_mut(&self.content).expect("contents stay").write(slice, at);
            at += slice.len();
        }
        answer
    }

    fn sync_data(&self) -> io::Result<()> {
        self.write_out()?;
        self.with(|content| content.unsynced.clear());
        Ok(())
    }

    /// The cache of the device loses what it has at a power cut, so nothing is durable by this.
    fn write_out(&self) -> io::Result<()> {
        let answer = self.flash.ask(Operation::Sync);
        if answer.is_err() {
            self.with(|content| {
                let unsynced = std::mem::take(&mut content.unsynced);
                content.lost.extend(unsynced);
            });
        }
        answer
    }

    fn forget_cached(&self) {
        self.with(|content| {
            for (page, old) in std::mem::take(&mut content.lost) {
                content.take_back(page, &old, 0..PAGE);
            }
        });
    }

    fn sync_file_system(&self) -> io::Result<()> {
        let answer = self.flash.ask(Operation::Sync);
        let mut medium = self.flash.medium();
        if answer.is_ok() {
            medium.sync_all()
        } else {
            medium.fail_sync()
        }
        answer
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.flash.ask(Operation::Write)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.with(|content| {
            let len = len.max(content.bytes.len());
            content.bytes.resize(len, 0);
        });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|content| content.bytes.len() as u64))
    }
}

/// Whether `bytes` has `wanted`, of which the first byte is rare.
fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else { return false };
    bytes.contains(first) && bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flash: &SimFlash, len: usize) -> Vec<u8> {
        let file = flash.open(Path::new("/f"), Open::Read).expect("there");
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0).expect("read");
        bytes
    }

    #[test]
    fn what_is_synced_stays_and_what_a_failed_sync_lost_is_lost() {
        let flash = SimFlash::new(1 << 20);
        let file = flash.open(Path::new("/f"), Open::CreateNew).expect("made");
        let write = |byte: u8, page: usize| {
            let bytes = [byte; PAGE];
            file.write_all_at(&[IoSlice::new(&bytes)], (page * PAGE) as u64).expect("written");
        };
        (0..3).for_each(|page| write(1, page));
        file.sync_file_system().expect("synced");
        write(2, 0);
        flash.set_trouble(Some(Box::new(|operation| match operation {
            Operation::Sync => Err(io::Error::other("planted")),
            _ => Ok(()),
        })));
        assert!(file.sync_file_system().is_err());
        flash.set_trouble(None);
        // The cache has it, and a sync that works brings nothing back.
        assert_eq!(read(&flash, 1), [2]);
        file.sync_file_system().expect("synced");
        write(3, 1);
        file.sync_data().expect("synced");
        let mut outcomes = BTreeSet::new();
        for seed in 0..40 {
            write(4, 2);
            flash.cut(&mut Random::new(seed));
            let bytes = read(&flash, 3 * PAGE);
            assert_eq!((bytes[0], bytes[PAGE]), (1, 3));
            outcomes.insert(bytes[2 * PAGE..].iter().filter(|byte| **byte == 4).count());
            write(1, 2);
            file.sync_data().expect("synced");
        }
        assert!(outcomes.contains(&0) && outcomes.contains(&PAGE), "{outcomes:?}");
        assert!(outcomes.iter().any(|bytes| !bytes.is_multiple_of(PAGE)), "{outcomes:?}");
    }

    #[test]
    fn a_file_is_replaced_whole_also_over_a_power_cut() {
        let flash = SimFlash::new(1 << 20);
        let replace = |text: &[u8]| {
            crate::platform::flash::replace_file(&flash, Path::new("/f"), text).expect("replaced");
        };
        replace(b"one");
        replace(b"two");
        flash.cut(&mut Random::new(1));
        assert_eq!(read(&flash, 3), b"two");
        flash.forbid(b"\xf5never");
        assert_eq!(flash.forbidden_seen(), 0);
        replace(b"it is \xf5never there");
        assert_eq!(flash.forbidden_seen(), 1);
    }
}
