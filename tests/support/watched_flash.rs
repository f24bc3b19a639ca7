//! The machine's file system with an eye on it: it counts reads, holds up the thread that reads the
//! slots of a ring whose catalog was lost, and makes slots that take no room until they are written.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::SystemTime;

use edgerec::platform::flash::{Flash, FlashFile, FlashLock, Open, Space, SystemFlash};

/// The name of the thread that is held up.
const HELD: &str = "rebuild";

/// The file system. Clones watch the same.
#[derive(Clone, Default)]
pub struct WatchedFlash(Arc<Watch>);

#[derive(Default)]
struct Watch {
    reads: AtomicU64,
    /// How many reads the thread may still make; `None` for all.
    left: Mutex<Option<u64>>,
    changed: Condvar,
}

impl WatchedFlash {
    /// Reads of slots and opened files so far, by everybody.
    pub fn reads(&self) -> u64 {
        self.0.reads.load(Ordering::Relaxed)
    }

    /// Lets the thread make so many more reads; `None` for all it wants.
    pub fn let_read(&self, reads: Option<u64>) {
        *self.0.left.lock().expect("nobody panics with it") = reads;
        self.0.changed.notify_all();
    }

    /// Whether the thread has made all the reads it may.
    pub fn is_held(&self) -> bool {
        *self.0.left.lock().expect("nobody panics with it") == Some(0)
    }
}

impl Watch {
    fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if std::thread::current().name() != Some(HELD) {
            return;
        }
        let left = self.left.lock().expect("nobody panics with it");
        let mut left =
            self.changed.wait_while(left, |left| *left == Some(0)).expect("nobody panics with it");
        *left = left.map(|left| left - 1);
    }
}

struct WatchedFile(Box<dyn FlashFile>, Arc<Watch>);

impl FlashFile for WatchedFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.read();
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_all_at(slices, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write_out(&self) -> io::Result<()> {
        self.0.write_out()
    }

    fn sync_file_system(&self) -> io::Result<()> {
        self.0.sync_file_system()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.write_all_at(&[IoSlice::new(&[0])], len - 1)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl Flash for WatchedFlash {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FlashFile>> {
        Ok(Box::new(WatchedFile(SystemFlash.open(path, how)?, self.0.clone())))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        SystemFlash.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemFlash.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        SystemFlash.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        SystemFlash.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        SystemFlash.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        SystemFlash.exists(path)
    }

    fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        SystemFlash.modified(path)
    }

    /// As much as anybody may ask for: nothing is really taken.
    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { total_bytes: 1 << 50, free_bytes: 1 << 50 })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FlashLock>> {
        SystemFlash.lock(path)
    }
}
