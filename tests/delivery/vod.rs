//! The straight ways to the VOD platform, and restarts on the way.

use std::sync::Arc;

use edgerec::delivery::error::ErrorClass;
use edgerec::domain::ids::BootId;
use edgerec::domain::media_terms::MediaTerms;
use edgerec::domain::time::{Instant, UnixMillis};
use edgerec::platform::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::bench::{Running, vod_target};
use crate::support::fake_vod::FakeVod;
use crate::support::memory_shelf::{Fate, MadeUp, MemoryShelf};

pub const MIB: u64 = 1 << 20;

/// The only file that was committed.
#[track_caller]
pub fn only_media(vod: &FakeVod) -> Value {
    let mut media = vod.media();
    assert_eq!(media.len(), 1, "{media:#?}");
    media.remove(0)
}

/// Fails unless the objects of a committed file are these bytes.
#[track_caller]
pub fn assert_stored(vod: &FakeVod, media: &Value, made_up: &MadeUp) {
    let paths = media["Objects"].as_array().expect("a list");
    assert_eq!(paths.len(), made_up.objects.len());
    for (index, object) in made_up.objects.iter().enumerate() {
        let wanted = match object.name.as_str() {
            "" | "index.m3u8" => media["Objects"][0].as_str().expect("a path").to_owned(),
            name => {
                let first = media["Objects"][0].as_str().expect("a path");
                format!("{}/{name}", first.rsplit_once('/').expect("a folder").0)
            }
        };
        let stored = vod.object(&wanted).expect("stored");
        assert!(stored == made_up.bytes(index), "{wanted} is not what was rendered");
    }
}

/// Whether so many parts are there for certain.
pub fn has_parts(fate: &Fate, parts: usize) -> bool {
    let multipart = fate.progress.as_ref().and_then(|progress| progress.multipart.as_ref());
    multipart.is_some_and(|multipart| multipart.etags.len() >= parts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_takes_three_requests_and_carries_its_terms() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 300_001);
    let terms = MediaTerms {
        name: "gate 日_2026".into(),
        ended: Some(UnixMillis(4_000_000_000_500)),
        storage_time_s: 60,
        sub_app_id: Some(7),
        procedure: "flow".into(),
        class_id: 3,
    };
    let file = shelf.put_with(1, made_up.clone(), terms);
    let running = Running::start_vod(&shelf, &vod);
    let receipt = shelf.delivered(file).await;
    assert_eq!((receipt.size, &receipt.sha256), (300_001, &made_up.sha256()));
    let media = only_media(&vod);
    assert_eq!(json!(receipt.url), media["MediaUrl"]);
    assert_eq!(json!(receipt.target_file_id), media["FileId"]);
    assert_stored(&vod, &media, &made_up);
    let log = vod.log();
    let steps: Vec<&str> = log.iter().map(|seen| seen.on.as_str()).collect();
    assert_eq!(steps, ["ApplyUpload", "put", "CommitUpload"]);
    let asked = json!({"MediaType": "mp4", "MediaName": "gate 日_2026", "SubAppId": 7,
        "SourceContext": format!("edgerec-file:{file}"), "ExpireTime": "2096-10-02T07:07:40Z",
        "Procedure": "flow", "ClassId": 3});
    assert_eq!(log[0].asked, asked);
    assert_eq!(log[2].asked["SubAppId"], json!(7));
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_template_asks_for_is_not_asked_of_the_platform() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    let empty = shelf.put(1, MadeUp::single(2, 0));
    let running = Running::start_vod(&shelf, &vod);
    shelf.delivered(empty).await;
    let asked = json!({"MediaType": "mp4", "MediaName": "clip", "SubAppId": 1_500_000_001,
        "SourceContext": format!("edgerec-file:{empty}")});
    assert_eq!(vod.log()[0].asked, asked);
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_upload_goes_on_in_its_session() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(5, 32 * MIB);
    let file = shelf.put(1, made_up.clone());
    for parts in [1, 2, 3] {
        let running = Running::start_vod(&shelf, &vod);
        shelf.until("some parts", file, |fate| has_parts(fate, parts)).await;
        running.kill().await;
    }
    let running = Running::start_vod(&shelf, &vod);
    let receipt = shelf.delivered(file).await;
    assert_eq!(receipt.sha256, made_up.sha256(), "checksum over all runs");
    assert_stored(&vod, &only_media(&vod), &made_up);
    let counts = ["ApplyUpload", "create", "complete", "CommitUpload"].map(|on| vod.count(on));
    assert_eq!(counts, [1, 1, 1, 1]);
    assert!(vod.count("part") <= 4 + 3, "a kill costs one part at most: {:#?}", vod.log());
    assert_eq!(vod.open_uploads(), 0);
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hls_is_one_session_with_everything_beside_the_playlist() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::hls(9, 12, 200_000);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_vod(&shelf, &vod);
    shelf
        .until("five segments", file, |fate| {
            fate.progress.as_ref().is_some_and(|progress| progress.objects_done >= 5)
        })
        .await;
    running.kill().await;
    let running = Running::start_vod(&shelf, &vod);
    let receipt = shelf.delivered(file).await;
    assert!(receipt.url.ends_with("/f0.m3u8"), "{}", receipt.url);
    assert_eq!((receipt.size, receipt.sha256), (12 * 200_000 + 100, made_up.sha256()));
    let log = vod.log();
    assert_eq!(log[0].asked["MediaType"], "m3u8");
    assert_eq!((vod.count("ApplyUpload"), vod.count("CommitUpload")), (1, 1));
    assert!(vod.count("put") <= 13 + 1, "at most one object twice: {log:#?}");
    let folder = receipt.url.rsplit_once('/').expect("a folder").0;
    let folder = &folder[folder.find("/6c0f").expect("the path")..];
    for (index, object) in made_up.objects.iter().enumerate() {
        let name = if object.name == "index.m3u8" { "f0.m3u8" } else { &object.name };
        let stored = vod.object(&format!("{folder}/{name}")).expect("stored");
        assert!(stored == made_up.bytes(index), "{name}");
    }
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_by_days_costs_one_more_request() {
    struct WrongClock(SystemClock);
    impl Clock for WrongClock {
        fn now(&self) -> Instant {
            let mut now = self.0.now();
            now.wall.unix = UnixMillis(now.wall.unix.0 - 3 * 24 * 3_600_000);
            now
        }
        fn boot_id(&self) -> BootId {
            self.0.boot_id()
        }
    }
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 20 * MIB));
    let clock = || Arc::new(WrongClock(SystemClock::new()));
    let running = Running::start(&shelf, vod_target(&vod, clock()));
    shelf.until("a part", file, |fate| has_parts(fate, 1)).await;
    running.kill().await;
    let refused = |code: &str| vod.log().iter().filter(|seen| seen.code == code).count();
    assert_eq!(refused("AuthFailure.SignatureExpire"), 1, "{:#?}", vod.log());
    // After the restart object storage is asked first: it says the same in its own words.
    let running = Running::start(&shelf, vod_target(&vod, clock()));
    shelf.delivered(file).await;
    assert_eq!(vod.log().iter().filter(|seen| !seen.code.is_empty()).count(), 2);
    assert_eq!(vod.count("ApplyUpload"), 2, "one refused, one session");
    only_media(&vod);
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_storage_time_is_over_is_not_sent() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    let terms = |ended| MediaTerms {
        name: "old".into(),
        ended,
        storage_time_s: 60,
        ..MediaTerms::default()
    };
    let now = SystemClock::new().now().wall.unix;
    let over = Some(UnixMillis(now.0 - 61_000));
    let file = shelf.put_with(1, MadeUp::single(1, 1_000), terms(over));
    // Nobody knows how old this one is.
    let unknown = shelf.put_with(2, MadeUp::single(2, 1_000), terms(None));
    let running = Running::start_vod(&shelf, &vod);
    let fate = shelf.until("given up", file, |fate| !fate.failures.is_empty()).await;
    assert_eq!(fate.failures[0].class, ErrorClass::Lose);
    assert_eq!(fate.failures[0].why, "StorageTime was over before it could be sent");
    shelf.delivered(unknown).await;
    let context = format!("edgerec-file:{unknown}");
    assert_eq!(only_media(&vod)["SourceContext"], json!(context));
    assert_eq!(vod.count("ApplyUpload"), 1);
    running.kill().await;
}
