//! What every target promises, asked of each in the same words: a folder, a bucket, the VOD
//! platform. What was sent is read from the far side: the server's log, or the inodes of a folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use edgerec::delivery::open_target;
use edgerec::delivery::settings::TargetSettings;
use edgerec::delivery::target::Target;
use edgerec::domain::ids::FileId;
use edgerec::platform::clock::SystemClock;
use edgerec::platform::flash::SystemFlash;
use edgerec::platform::net::SystemNet;
use serde_json::json;
use tempfile::TempDir;

use crate::bench::{Running, s3_target, vod_target};
use crate::support::fake_vod::FakeVod;
use crate::support::memory_shelf::{MadeUp, MemoryShelf};
use crate::support::s3_server::S3Server;
use crate::support::scratch;

/// A far side.
enum Place {
    Folder(TempDir),
    Bucket(S3Server),
    Platform(FakeVod),
}

impl Place {
    async fn all() -> [Place; 3] {
        let bucket = S3Server::start().await;
        [Place::Folder(scratch("folder")), Place::Bucket(bucket), Place::Platform(FakeVod::start())]
    }

    fn name(&self) -> &'static str {
        match self {
            Place::Folder(_) => "directory",
            Place::Bucket(_) => "s3",
            Place::Platform(_) => "tencent-vod",
        }
    }

    fn target(&self) -> Arc<dyn Target> {
        let clock = Arc::new(SystemClock::new());
        match self {
            Place::Folder(dir) => {
                let settings = TargetSettings::Directory { root: dir.path().to_owned() };
                let (flash, net) = (Arc::new(SystemFlash), Arc::new(SystemNet));
                open_target(&settings, flash, net, clock, &[]).expect("good settings")
            }
            Place::Bucket(server) => s3_target(&server.settings(), clock),
            Place::Platform(vod) => vod_target(vod, clock),
        }
    }

    fn start(&self, shelf: &Arc<MemoryShelf>) -> Running {
        Running::start(shelf, self.target())
    }

    /// The bytes of an object that the far side has.
    async fn stored(&self, shelf: &MemoryShelf, file: FileId, object: &str) -> Option<Vec<u8>> {
        let path = shelf.path(file, object);
        match self {
            Place::Folder(dir) => fs::read(dir.path().join(path)).ok(),
            Place::Bucket(server) => server.object(&format!("boxes/one/{path}")).await,
            Place::Platform(vod) => {
                let context = json!(format!("edgerec-file:{file}"));
                let media = vod.media();
                let mut found = media.iter().filter(|media| media["SourceContext"] == context);
                let first = found.next()?["Objects"][0].as_str().expect("a path").to_owned();
                assert!(found.next().is_none(), "it is there twice");
                match object {
                    "" | "index.m3u8" => vod.object(&first),
                    name => {
                        let folder = first.rsplit_once('/').expect("a folder").0;
                        vod.object(&format!("{folder}/{name}"))
                    }
                }
            }
        }
    }

    /// What there is to show for everything that was ever sent: more of it is sent again.
    async fn sent(&self) -> Vec<String> {
        match self {
            Place::Folder(dir) => inodes(dir.path()),
            Place::Bucket(server) => {
                let log = server.log().await;
                let sent = log.iter().filter(|seen| matches!(&*seen.method, "PUT" | "POST"));
                sent.map(|seen| format!("{} {} {:?}", seen.on, seen.key, seen.part)).collect()
            }
            Place::Platform(vod) => {
                let log = vod.log();
                let sent = log.iter().filter(|seen| {
                    !matches!(&*seen.on, "SearchMedia" | "head" | "get" | "parts" | "uploads")
                });
                sent.map(|seen| format!("{} {} {:?}", seen.on, seen.key, seen.part)).collect()
            }
        }
    }
}

/// Every file below a folder with its inode and time of change.
fn inodes(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(inodes(&path));
        } else {
            let meta = fs::metadata(&path).expect("there");
            let changed = (meta.mtime(), meta.mtime_nsec());
            found.push(format!("{} {} {changed:?}", path.display(), meta.ino()));
        }
    }
    found.sort();
    found
}

/// A small file, an empty one and an HLS file; what goes in parts is in `s3.rs`, `vod.rs` and `tests/lost_state.rs`.
fn files(shelf: &MemoryShelf) -> Vec<(FileId, MadeUp)> {
    let made_up = [MadeUp::single(1, 300_001), MadeUp::single(2, 0), MadeUp::hls(4, 5, 100_000)];
    (1..).zip(made_up).map(|(n, made_up)| (shelf.put(n, made_up.clone()), made_up)).collect()
}

/// Fails unless the far side has a file as it was rendered.
async fn assert_there(place: &Place, shelf: &MemoryShelf, file: FileId, made_up: &MadeUp) {
    for (index, object) in made_up.objects.iter().enumerate() {
        let stored = place.stored(shelf, file, &object.name).await;
        let stored = stored.unwrap_or_else(|| panic!("{}: {}", place.name(), object.name));
        assert!(stored == made_up.bytes(index), "{}: {}", place.name(), object.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_target_holds_what_it_says_and_is_not_sent_it_again_after_a_lost_state() {
    for place in Place::all().await {
        let shelf = MemoryShelf::new();
        let files = files(&shelf);
        let running = place.start(&shelf);
        let mut urls = Vec::new();
        for (file, made_up) in &files {
            let receipt = shelf.delivered(*file).await;
            let size: u64 = made_up.objects.iter().map(|object| object.len).sum();
            assert_eq!(
                (receipt.size, receipt.sha256),
                (size, made_up.sha256()),
                "{}",
                place.name()
            );
            assert!(!receipt.url.contains('?') && !receipt.url.is_empty(), "{}", receipt.url);
            assert_there(&place, &shelf, *file, made_up).await;
            assert!(shelf.fate(*file).failures.is_empty(), "{:?}", shelf.fate(*file));
            urls.push(receipt.url);
        }
        running.kill().await;
        let sent = place.sent().await;
        assert!(!sent.is_empty());
        shelf.lose_state();
        // One that the target never had is sent; what was there before is not.
        let new = (shelf.put(9, MadeUp::single(9, 5_000)), MadeUp::single(9, 5_000));
        shelf.expect_there(new.0);
        let running = place.start(&shelf);
        for ((file, made_up), url) in files.iter().zip(urls) {
            let receipt = shelf.delivered(*file).await;
            assert_eq!((receipt.url, receipt.sha256), (url, made_up.sha256()), "{}", place.name());
        }
        shelf.delivered(new.0).await;
        running.kill().await;
        assert_there(&place, &shelf, new.0, &new.1).await;
        let mut again = place.sent().await;
        again.retain(|line| !sent.contains(line));
        assert_eq!(again.len(), 1, "{}: {again:#?}", place.name());
        // On the platform it takes a session and a commit besides.
        let of_new = if let Place::Platform(_) = place { 3 } else { 1 };
        let all = place.sent().await.len();
        assert_eq!(all, sent.len() + of_new, "{}: nothing twice", place.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_and_is_something_else_is_stored_anew() {
    for place in Place::all().await {
        let shelf = MemoryShelf::new();
        let file = shelf.put(1, MadeUp::single(1, 50_000));
        let running = place.start(&shelf);
        shelf.delivered(file).await;
        running.kill().await;
        if let Place::Platform(_) = place {
            // There the identity counts: it was proved before it was committed.
            continue;
        }
        let other = MadeUp::single(2, 50_000);
        shelf.replace(file, other.clone());
        shelf.lose_state();
        let running = place.start(&shelf);
        assert_eq!(shelf.delivered(file).await.sha256, other.sha256(), "{}", place.name());
        running.kill().await;
        assert_there(&place, &shelf, file, &other).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_object_goes_on_and_ends_whole() {
    for place in Place::all().await {
        let shelf = MemoryShelf::new();
        let made_up = MadeUp::hls(7, 8, 150_000);
        let file = shelf.put(1, made_up.clone());
        for done in [2, 5] {
            let running = place.start(&shelf);
            shelf
                .until("some objects", file, |fate| {
                    fate.receipt.is_some()
                        || fate.progress.as_ref().is_some_and(|p| p.objects_done >= done)
                })
                .await;
            running.kill().await;
        }
        let running = place.start(&shelf);
        assert_eq!(shelf.delivered(file).await.sha256, made_up.sha256(), "{}", place.name());
        running.kill().await;
        assert_there(&place, &shelf, file, &made_up).await;
        let again = place.sent().await.len();
        // Session, commit and one object a kill at most.
        assert!(again <= 9 + 2 + 2, "{}: {again} sent", place.name());
    }
}
