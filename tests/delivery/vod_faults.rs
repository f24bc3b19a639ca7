//! What goes wrong at the VOD platform: nothing counts as delivered that is not there as rendered,
//! and nothing is there twice.

use std::sync::Arc;
use std::time::Duration;

use edgerec::delivery::settings::{DeliverySettings, Rest};
use edgerec::domain::ids::FileId;
use edgerec::platform::clock::SystemClock;
use serde_json::json;

use crate::bench::{Running, vod_target};
use crate::support::fake_vod::{FakeVod, SECRET_KEY};
use crate::support::memory_shelf::{DEADLINE, Fate, MadeUp, MemoryShelf};
use crate::support::wait::wait_until;
use crate::vod::{MIB, assert_stored, has_parts, only_media};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_the_commit_is_asked_for_again() {
    for repeat in ["same", "refused"] {
        let vod = FakeVod::start();
        vod.set("repeat", repeat);
        vod.fault("lost", "CommitUpload", 1);
        let shelf = MemoryShelf::new();
        let file = shelf.put(1, MadeUp::single(1, 1_000));
        // Another file of the same name that was there before, by somebody else.
        let other = shelf.put(2, MadeUp::single(2, 1_000));
        let running = Running::start_vod(&shelf, &vod);
        let receipts = [shelf.delivered(file).await, shelf.delivered(other).await];
        assert_eq!(vod.media().len(), 2, "{repeat}: {:#?}", vod.media());
        for (file, receipt) in [file, other].iter().zip(receipts) {
            let context = json!(format!("edgerec-file:{file}"));
            let mut media = vod.media();
            media.retain(|media| media["SourceContext"] == context);
            assert_eq!(media.len(), 1, "{repeat}");
            assert_eq!(json!(receipt.target_file_id), media[0]["FileId"]);
            assert_eq!(json!(receipt.url), media[0]["MediaUrl"]);
        }
        assert_eq!((vod.count("ApplyUpload"), vod.count("put")), (2, 2), "{repeat}: sent once");
        let searches = if repeat == "same" { 0 } else { 1 };
        assert_eq!(vod.count("SearchMedia"), searches, "{repeat}");
        running.kill().await;
    }
}

/// Commits a file; the box is killed before it has the answer, and the platform refuses to repeat it.
async fn commit_unanswered(vod: &FakeVod, made_up: MadeUp) -> (Arc<MemoryShelf>, FileId) {
    vod.set("repeat", "refused");
    vod.fault("lost", "CommitUpload", 1000);
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, made_up);
    let running = Running::start_vod(&shelf, vod);
    shelf.until("a lost answer", file, |fate| !fate.failures.is_empty()).await;
    running.kill().await;
    vod.order(&json!({"op": "clear"}));
    (shelf, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_the_answer_to_the_commit_sends_nothing_again() {
    let vod = FakeVod::start();
    let (shelf, file) = commit_unanswered(&vod, MadeUp::single(1, 20 * MIB)).await;
    // Whatever became of the credentials meanwhile: nothing is to be sent.
    vod.order(&json!({"op": "expire"}));
    let running = Running::start_vod(&shelf, &vod);
    let receipt = shelf.delivered(file).await;
    assert_eq!(json!(receipt.target_file_id), only_media(&vod)["FileId"]);
    assert_eq!((vod.count("ApplyUpload"), vod.count("part")), (1, 3));
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn among_thousands_of_its_name_a_file_is_found_over_a_bad_link() {
    let vod = FakeVod::start();
    let (shelf, file) = commit_unanswered(&vod, MadeUp::single(1, 1_000)).await;
    // Forty pages; half of all requests fail.
    vod.order(&json!({"op": "namesakes", "count": 3_950}));
    vod.set("chance", 50);
    let rest = || Rest { first: Duration::from_millis(1), longest: Duration::from_millis(5) };
    let settings =
        DeliverySettings { target_rest: rest(), file_rest: rest(), ..DeliverySettings::default() };
    let target = vod_target(&vod, Arc::new(SystemClock::new()));
    let running = Running::start_with(&shelf, target, settings);
    shelf.delivered(file).await;
    running.kill().await;
    assert_eq!((vod.count("ApplyUpload"), vod.count("put")), (1, 1), "sent once");
    assert!(vod.count("SearchMedia") >= 40, "{} pages", vod.count("SearchMedia"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_platform_forgot_begins_anew_under_the_same_identity() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 20 * MIB);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_vod(&shelf, &vod);
    shelf.until("a part", file, |fate| has_parts(fate, 1)).await;
    vod.order(&json!({"op": "forget", "what": "sessions"}));
    shelf.delivered(file).await;
    let media = only_media(&vod);
    assert_eq!(media["SourceContext"], json!(format!("edgerec-file:{file}")));
    assert_stored(&vod, &media, &made_up);
    assert_eq!(vod.count("ApplyUpload"), 2);
    assert_eq!(vod.count("SearchMedia"), 5, "looked for before all is sent again");
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_credentials_begin_anew_and_not_in_a_loop() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 20 * MIB);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_vod(&shelf, &vod);
    shelf.until("a part", file, |fate| has_parts(fate, 1)).await;
    vod.order(&json!({"op": "expire"}));
    shelf.delivered(file).await;
    assert_stored(&vod, &only_media(&vod), &made_up);
    assert_eq!(vod.count("ApplyUpload"), 2);
    let refused = vod.log().iter().filter(|seen| seen.code == "ExpiredToken").count();
    assert!(refused <= 2, "one request and giving the upload up: {:#?}", vod.log());
    running.kill().await;

    // Credentials that are never good: each try costs two sessions, then the file rests.
    vod.set("life_s", -1);
    let never = shelf.put(2, MadeUp::single(2, 1_000));
    let before = vod.count("ApplyUpload");
    let running = Running::start_vod(&shelf, &vod);
    let fate = shelf.until("two tries", never, |fate| fate.failures.len() >= 2).await;
    running.kill().await;
    assert!(fate.failures[0].why.contains("no longer good"), "{}", fate.failures[0].why);
    assert!(vod.count("ApplyUpload") - before <= 2 * (fate.failures.len() + 1));
}

/// After a restart the box looks for what it sent last; the answer to HEAD has no text that says
/// what the credentials are refused for.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_refused_after_a_restart_begin_anew() {
    for (made_up, objects_done) in [(MadeUp::single(1, 5_000), 0), (MadeUp::hls(2, 40, 300_000), 2)]
    {
        let vod = FakeVod::start();
        let shelf = MemoryShelf::new();
        let file = shelf.put(1, made_up.clone());
        if objects_done == 0 {
            vod.fault("500", "put", 1000);
        }
        let running = Running::start_vod(&shelf, &vod);
        let stands = |fate: &Fate| {
            let progress = fate.progress.as_ref().filter(|progress| progress.session.is_some());
            progress.is_some_and(|progress| progress.objects_done >= objects_done)
        };
        shelf.until("it stands in the middle", file, stands).await;
        running.kill().await;
        vod.order(&json!({"op": "clear"}));
        vod.order(&json!({"op": "expire"}));
        let running = Running::start_vod(&shelf, &vod);
        assert_eq!(shelf.delivered(file).await.sha256, made_up.sha256());
        running.kill().await;
        assert_eq!((vod.count("ApplyUpload"), vod.count("head")), (2, 1), "{:#?}", vod.log());
        assert!(vod.log().iter().any(|seen| seen.on == "put" && seen.code == "ExpiredToken"));
        let media = only_media(&vod);
        let path = media["Objects"][0].as_str().expect("a path");
        let folder = path.rsplit_once('/').expect("a folder").0;
        for (index, object) in made_up.objects.iter().enumerate() {
            let segment = object.name.ends_with(".ts").then(|| format!("{folder}/{}", object.name));
            let path = segment.as_deref().unwrap_or(path);
            assert!(vod.object(path).expect("stored") == made_up.bytes(index), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_ran_out_while_the_box_was_off_are_not_tried() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    // In their last minute at once.
    vod.set("life_s", 30);
    let file = shelf.put(1, MadeUp::single(1, 20 * MIB));
    let running = Running::start_vod(&shelf, &vod);
    shelf.until("a part", file, |fate| has_parts(fate, 1)).await;
    running.kill().await;
    vod.set("life_s", 7_200);
    let running = Running::start_vod(&shelf, &vod);
    shelf.delivered(file).await;
    only_media(&vod);
    assert_eq!(vod.count("ApplyUpload"), 2);
    assert_eq!(vod.count("abort"), 1, "the old upload was given up while that was possible");
    assert!(vod.log().iter().all(|seen| seen.code.is_empty()), "{:#?}", vod.log());
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_upload_starts_over_in_its_session() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(6, 20 * MIB);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_vod(&shelf, &vod);
    shelf.until("a part", file, |fate| has_parts(fate, 1)).await;
    running.kill().await;
    vod.order(&json!({"op": "forget", "what": "uploads"}));
    let running = Running::start_vod(&shelf, &vod);
    shelf.delivered(file).await;
    assert_stored(&vod, &only_media(&vod), &made_up);
    assert_eq!((vod.count("ApplyUpload"), vod.count("create")), (1, 2));
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_a_200_and_lost_answers_of_storage_are_no_success() {
    let vod = FakeVod::start();
    vod.fault("error-in-200", "complete", 1);
    vod.fault("lost", "complete", 1);
    vod.fault("lost", "ApplyUpload", 1);
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 20 * MIB);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_vod(&shelf, &vod);
    shelf.delivered(file).await;
    assert_stored(&vod, &only_media(&vod), &made_up);
    let whys: Vec<String> = shelf.fate(file).failures.into_iter().map(|f| f.why).collect();
    assert_eq!(whys.len(), 3, "{whys:?}");
    assert!(whys[1].contains("InternalError"), "{whys:?}");
    assert_eq!(vod.count("part"), 3, "no part twice");
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_are_found_and_sent_again() {
    let vod = FakeVod::start();
    vod.fault_on_part("flip", "2", 1);
    vod.fault("flip", "put", 1);
    let shelf = MemoryShelf::new();
    let made_up = [MadeUp::single(1, 20 * MIB), MadeUp::single(2, 5_000)];
    let large = shelf.put(1, made_up[0].clone());
    let running = Running::start_vod(&shelf, &vod);
    shelf.delivered(large).await;
    assert_eq!(vod.count("part"), 4, "three parts, one twice");
    assert_stored(&vod, &only_media(&vod), &made_up[0]);
    let small = shelf.put(2, made_up[1].clone());
    running.wake.notify_one();
    shelf.delivered(small).await;
    assert!(shelf.fate(small).failures[0].why.contains("CRC-64"), "{:?}", shelf.fate(small));
    assert_stored(&vod, &vod.media()[1], &made_up[1]);
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_checksum_that_we_know_objects_are_read_back() {
    let vod = FakeVod::start();
    let shelf = MemoryShelf::new();
    vod.fault("no-crc", "head", 1);
    let first = shelf.put(1, MadeUp::single(1, 20 * MIB));
    let running = Running::start_vod(&shelf, &vod);
    shelf.delivered(first).await;
    assert_eq!(vod.count("get"), 1, "the stand-in's ETag of the whole is no MD5 of parts");
    vod.fault("no-etag", "put", 1);
    let second = shelf.put(2, MadeUp::single(2, 5_000));
    running.wake.notify_one();
    shelf.delivered(second).await;
    assert_eq!((vod.count("get"), vod.count("head")), (1, 2), "length and CRC-64 are proof");
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_servers_portals_and_broken_links_cost_time_only() {
    let vod = FakeVod::start();
    for kind in ["500", "busy", "html", "redirect", "cut"] {
        vod.fault(kind, "ApplyUpload", 1);
        vod.fault(kind, "create", 1);
        vod.fault(kind, "part", 1);
        vod.fault(kind, "complete", 1);
        vod.fault(kind, "put", 1);
        vod.fault(kind, "CommitUpload", 1);
    }
    let shelf = MemoryShelf::new();
    let made_up = [MadeUp::single(1, 20 * MIB), MadeUp::single(2, 50_000)];
    let files = [shelf.put(1, made_up[0].clone()), shelf.put(2, made_up[1].clone())];
    let running = Running::start_vod(&shelf, &vod);
    for file in files {
        shelf.delivered(file).await;
        let why: String = shelf.fate(file).failures.into_iter().map(|f| f.why).collect();
        for secret in [SECRET_KEY, "TEMPSECRET", "TEMPTOKEN"] {
            assert!(!why.contains(secret), "{why}");
        }
    }
    let mut media = vod.media();
    assert_eq!(media.len(), 2, "{media:#?}");
    media.sort_by_key(|media| media["Size"].as_u64());
    assert_stored(&vod, &media[1], &made_up[0]);
    assert_stored(&vod, &media[0], &made_up[1]);
    let whole = vod.log().iter().filter(|seen| seen.on == "part" && seen.status == 200).count();
    assert!(whole <= 3 + 1, "html says 200 too: {:#?}", vod.log());
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_temporary_credentials_the_account_signs() {
    let vod = FakeVod::start();
    vod.set("life_s", serde_json::Value::Null);
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 1_000);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_vod(&shelf, &vod);
    shelf.delivered(file).await;
    assert_stored(&vod, &only_media(&vod), &made_up);
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_faults_and_kills_each_file_arrives_once_and_whole() {
    let vod = FakeVod::start();
    vod.set("repeat", "refused");
    vod.set("chance", 30);
    let shelf = MemoryShelf::new();
    let made_up = |number: u64| match number {
        1 => MadeUp::single(1, 20 * MIB),
        2 => MadeUp::hls(2, 10, 100_000),
        _ => MadeUp::single(number, number * 5_000),
    };
    let numbers: Vec<u64> = (1..=40).collect();
    let files: Vec<_> = numbers.iter().map(|n| (*n, shelf.put(*n, made_up(*n)))).collect();
    for kill in 1..=20 {
        let running = Running::start_vod(&shelf, &vod);
        wait_until(DEADLINE, "some requests", || vod.log().len() >= kill * 7);
        running.kill().await;
    }
    let running = Running::start_vod(&shelf, &vod);
    for (_, file) in &files {
        shelf.delivered(*file).await;
    }
    running.kill().await;
    let media = vod.media();
    assert_eq!(media.len(), files.len(), "none missing, none twice");
    for (number, file) in &files {
        let context = json!(format!("edgerec-file:{file}"));
        let found = media.iter().find(|media| media["SourceContext"] == context);
        let found = found.expect("it was committed");
        let receipt = shelf.fate(*file).receipt.expect("delivered");
        assert_eq!(json!(receipt.target_file_id), found["FileId"]);
        assert_eq!(receipt.sha256, made_up(*number).sha256());
        if *number != 2 {
            assert_stored(&vod, found, &made_up(*number));
        }
    }
    let faulted = vod.log().iter().filter(|seen| seen.fault.is_some()).count();
    assert!(faulted > 30, "the faults were there: {faulted}");
}
