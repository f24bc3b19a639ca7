//! The folder as target.

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use edgerec::delivery::directory::DirectoryTarget;
use edgerec::platform::flash::{Flash, FlashFile, FlashLock, Open, Space, SystemFlash};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::bench::Running;
use crate::support::memory_shelf::{DEADLINE, MadeUp, MemoryShelf};

fn start(shelf: &Arc<MemoryShelf>, root: &Path) -> Running {
    Running::start(shelf, Arc::new(DirectoryTarget::new(root.to_owned(), Arc::new(SystemFlash))))
}

/// Every file below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn files_arrive_whole_and_nothing_else_does() {
    let root = tempfile::tempdir().expect("scratch");
    let shelf = MemoryShelf::new();
    let single = MadeUp::single(1, 700_001);
    let hls = MadeUp::hls(2, 3, 100_000);
    let files = [shelf.put(1, single.clone()), shelf.put(2, hls.clone())];
    let running = start(&shelf, root.path());
    let receipt = shelf.delivered(files[0]).await;
    assert_eq!((receipt.size, receipt.sha256), (700_001, single.sha256()));
    let path = root.path().join(shelf.path(files[0], ""));
    assert!(fs::read(&path).expect("there") == single.bytes(0));
    let url = url::Url::parse(&receipt.url).expect("an address");
    assert_eq!(url.to_file_path().expect("a path"), path);
    assert_eq!(shelf.delivered(files[1]).await.sha256, hls.sha256());
    for (index, object) in hls.objects.iter().enumerate() {
        let path = root.path().join(shelf.path(files[1], &object.name));
        assert!(fs::read(path).expect("there") == hls.bytes(index), "{}", object.name);
    }
    assert_eq!(files_below(root.path()).len(), 5, "no leftovers");
    running.kill().await;
}

#[tokio::test]
async fn a_missing_disk_is_waited_for_and_never_made() {
    let scratch = tempfile::tempdir().expect("scratch");
    let root = scratch.path().join("usb");
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 1000));
    let running = start(&shelf, &root);
    let fate = shelf.until("two tries", file, |fate| fate.failures.len() >= 2).await;
    assert!(fate.failures[0].why.contains("usb failed: entity not found"), "{:?}", fate.failures);
    assert!(!root.exists());
    fs::create_dir(&root).expect("plugged in");
    shelf.delivered(file).await;
    running.kill().await;
}

#[tokio::test]
async fn links_do_not_lead_out() {
    let root = tempfile::tempdir().expect("scratch");
    let outside = tempfile::tempdir().expect("scratch");
    symlink(outside.path(), root.path().join("cams")).expect("linked");
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 1000));
    let running = start(&shelf, root.path());
    let fate = shelf.until("a try", file, |fate| !fate.failures.is_empty()).await;
    assert!(fate.failures[0].why.contains("leads out"), "{:?}", fate.failures);
    assert!(files_below(outside.path()).is_empty());
    running.kill().await;
}

#[tokio::test]
async fn a_link_in_place_of_the_temporary_or_final_name_is_replaced_not_followed() {
    let root = tempfile::tempdir().expect("scratch");
    let outside = tempfile::tempdir().expect("scratch");
    let precious = outside.path().join("precious");
    fs::write(&precious, "precious").expect("written");
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 1000);
    let file = shelf.put(1, made_up.clone());
    let last = root.path().join(shelf.path(file, ""));
    let name = last.file_name().expect("a name").to_str().expect("text");
    let folder = last.parent().expect("a folder");
    fs::create_dir_all(folder).expect("made");
    symlink(&precious, folder.join(format!(".{name}.part"))).expect("linked");
    symlink(&precious, &last).expect("linked");
    let running = start(&shelf, root.path());
    shelf.delivered(file).await;
    assert_eq!(fs::read_to_string(&precious).expect("there"), "precious");
    assert!(fs::symlink_metadata(&last).expect("there").is_file());
    assert!(fs::read(&last).expect("there") == made_up.bytes(0));
    running.kill().await;
}

/// A disk that keeps another byte than was written while it `lies`, makes nothing durable while it
/// `hangs`, and notes what happens to it.
#[derive(Clone, Default)]
struct BadFlash {
    lies: Arc<AtomicBool>,
    hangs: watch::Sender<bool>,
    notes: Arc<Mutex<Vec<String>>>,
}

struct BadFile(Box<dyn FlashFile>, BadFlash);

impl FlashFile for BadFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)?;
        if self.1.lies.load(Ordering::SeqCst) {
            buf[0] ^= 1;
        }
        Ok(())
    }
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_all_at(slices, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.notes.lock().expect("free").push("sync".into());
        let mut hangs = self.1.hangs.subscribe();
        let works = tokio::time::timeout(DEADLINE, hangs.wait_for(|hangs| !hangs));
        let worked = Handle::current().block_on(async { works.await.is_ok() });
        assert!(worked, "the disk works in time");
        self.0.sync_data()
    }
    fn write_out(&self) -> io::Result<()> {
        self.0.write_out()
    }
    fn sync_file_system(&self) -> io::Result<()> {
        self.0.sync_file_system()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl BadFlash {
    fn note(&self, what: &str, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.notes.lock().expect("free").push(format!("{what} {name}"));
    }
}

impl Flash for BadFlash {
    fn modified(&self, path: &Path) -> io::Result<std::time::SystemTime> {
        SystemFlash.modified(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FlashFile>> {
        self.note("open", path);
        let file = SystemFlash.open(path, how)?;
        Ok(Box::new(BadFile(file, self.clone())))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.note("make", path);
        SystemFlash.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("name", to);
        SystemFlash.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.note("remove", path);
        SystemFlash.remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.note("sync-dir", path);
        SystemFlash.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        SystemFlash.list(path)
    }
    fn exists(&self, path: &Path) -> bool {
        SystemFlash.exists(path)
    }
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        SystemFlash.resolve(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        SystemFlash.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FlashLock>> {
        SystemFlash.lock(path)
    }
}

#[tokio::test]
async fn a_disk_that_lies_gets_no_file_and_the_order_of_steps_is_durable() {
    let scratch = tempfile::tempdir().expect("scratch");
    let root = scratch.path().join("root");
    fs::create_dir(&root).expect("made");
    let flash = BadFlash::default();
    let (lies, notes) = (Arc::clone(&flash.lies), Arc::clone(&flash.notes));
    lies.store(true, Ordering::SeqCst);
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 1000));
    let target = Arc::new(DirectoryTarget::new(root.clone(), Arc::new(flash)));
    let running = Running::start(&shelf, target);
    let fate = shelf.until("a try", file, |fate| !fate.failures.is_empty()).await;
    assert!(fate.failures[0].why.contains("not what was sent"), "{:?}", fate.failures);
    let name = shelf.path(file, "").rsplit('/').next().expect("a name").to_owned();
    let first: Vec<String> = notes.lock().expect("free").drain(..).collect();
    assert!(!first.iter().any(|note| *note == format!("name {name}")), "{first:?}");
    let steps = ["make cams", "sync-dir root", "make live", "sync-dir cams"];
    assert_eq!(first[..4], steps.map(str::to_owned));
    lies.store(false, Ordering::SeqCst);
    shelf.delivered(file).await;
    let last = notes.lock().expect("free").clone();
    let end = [
        format!("open .{name}.part"),
        "sync".into(),
        format!("name {name}"),
        "sync-dir gate%20%E6%97%A5".into(),
    ];
    assert_eq!(last[last.len() - 4..], end);
    running.kill().await;
}

/// What writes to a disk cannot be cut off in a call that hangs: it may come back when the file is
/// under way again.
#[tokio::test]
async fn a_copy_that_was_given_up_leaves_the_next_one_alone() {
    let root = tempfile::tempdir().expect("scratch");
    let flash = BadFlash::default();
    flash.hangs.send_replace(true);
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 1000);
    let file = shelf.put(1, made_up.clone());
    let name = shelf.path(file, "").rsplit('/').next().expect("a name").to_owned();
    let notes = || {
        let notes = flash.notes.lock().expect("free").clone();
        let about =
            |note: &String| note == "sync" || note.ends_with(&name) || note.contains(".part");
        notes.into_iter().filter(about).collect::<Vec<String>>()
    };
    let target = Arc::new(DirectoryTarget::new(root.path().to_owned(), Arc::new(flash.clone())));
    let running = Running::start(&shelf, target.clone());
    running.until("the disk hangs", || notes().last().is_some_and(|last| last == "sync")).await;
    running.kill().await;
    let running = Running::start(&shelf, target);
    running.until("it is under way again", || running.why(file).starts_with("uploading")).await;
    flash.hangs.send_replace(false);
    shelf.delivered(file).await;
    assert!(shelf.fate(file).failures.is_empty(), "{:?}", shelf.fate(file).failures);
    let (remove, open) = (format!("remove .{name}.part"), format!("open .{name}.part"));
    let given_up = [&remove, &open, "sync", &remove].map(str::to_owned);
    let whole = [&remove, &open, "sync", &format!("name {name}")].map(str::to_owned);
    assert_eq!(notes(), [given_up, whole].concat());
    let path = root.path().join(shelf.path(file, ""));
    assert!(fs::read(path).expect("there") == made_up.bytes(0));
    running.kill().await;
}

#[tokio::test]
async fn an_hls_file_begins_anew_on_another_disk() {
    let scratch = tempfile::tempdir().expect("scratch");
    let root = scratch.path().join("usb");
    fs::create_dir(&root).expect("made");
    let shelf = MemoryShelf::new();
    let hls = MadeUp::hls(2, 40, 300_000);
    let file = shelf.put(1, hls.clone());
    let running = start(&shelf, &root);
    shelf
        .until("some segments", file, |fate| {
            fate.progress.as_ref().is_some_and(|progress| progress.objects_done >= 3)
        })
        .await;
    running.kill().await;
    fs::rename(&root, scratch.path().join("taken")).expect("unplugged");
    fs::create_dir(&root).expect("another one");
    let running = start(&shelf, &root);
    assert_eq!(shelf.delivered(file).await.sha256, hls.sha256());
    assert_eq!(files_below(&root).len(), 41);
    running.kill().await;
}
