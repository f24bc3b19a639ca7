//! A box that lost `state.db` and still has its slots: it finds what the far side has, and sends
//! nothing of it again. What was sent is read from the server's log, or from the inodes of a folder.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::fake_vod::{FakeVod, SECRET_ID, SECRET_KEY};
use support::media::Clip;
use support::outbox::Outbox;
use support::push::{Pace, push_file};
use support::s3_server::{self, BUCKET, S3Server};

const SOON: Duration = Duration::from_secs(90);
const FORMATS: [&str; 4] = ["Flv", "Hls", "Mp4", "Aac"];
const SMALL: Clip =
    Clip { seconds: 10, fps: 25, gop: 50, b_frames: 2, video_kbps: 1_000, audio: true };
/// Two parts of a multipart upload and a bit.
const BIG: Clip =
    Clip { seconds: 12, fps: 25, gop: 25, b_frames: 0, video_kbps: 13_000, audio: true };

/// Rules whose files have a name, and at the platform a sub-application, of their own.
fn own_terms() -> Value {
    let mut rules = record_all(&FORMATS);
    for format in FORMATS {
        rules["templates"][0][format!("{format}Param")] =
            json!({"Enable": 1, "VodFileName": "own_{StreamID}_{StartMinute}", "VodSubAppId": 7});
    }
    rules
}

/// What the box says of each delivered file: url, size, checksum.
fn delivered(edge: &EdgeBox) -> BTreeMap<String, [Value; 3]> {
    let rows = edge.ls();
    let told = |row: &Value| ["url", "size", "sha256"].map(|name| row[name].clone());
    let all = rows.iter().filter(|row| row["state"] == "delivered");
    all.map(|row| (row["file_id"].as_str().expect("an id").to_owned(), told(row))).collect()
}

/// Delivers clips in all formats, loses the state, and waits until all is listed as delivered
/// again; `sent` tells what was sent so far.
fn lose_and_find(
    section: &str,
    rules: Value,
    clips: &[Clip],
    mut sent: impl FnMut() -> Vec<String>,
) {
    let mut edge = BoxPlan::default().sections(section).rules(rules).start();
    for (number, clip) in clips.iter().enumerate() {
        let log = edge.dir().join("push.log");
        let url = edge.push_url(&format!("s{number}"));
        push_file(&clip.flv(), &url, Pace::Times(6), &log).finish_within(SOON);
    }
    let all = clips.len() * FORMATS.len();
    let wait = |edge: &EdgeBox| {
        support::wait::wait_for(SOON, "everything delivered", || {
            Some(delivered(edge)).filter(|files| files.len() == all)
        })
    };
    let before = wait(&edge);
    let log = sent();
    assert!(log.len() >= all, "{log:#?}");
    edge.kill();
    for suffix in ["", "-wal", "-shm"] {
        let path = edge.ring().join(format!("state.db{suffix}"));
        if path.exists() {
            fs::remove_file(path).expect("removed");
        }
    }
    edge.start_again();
    assert_eq!(wait(&edge), before, "the same files, the same places, the same bytes");
    assert_eq!(sent(), log, "nothing is sent again");
    assert!(edge.log().contains("was there already"), "it looked");
}

#[test]
fn a_folder_is_read_and_not_written_again() {
    let outbox = Outbox::new();
    let inodes = |paths: Vec<PathBuf>| -> Vec<String> {
        let show = |path: &PathBuf| {
            let meta = fs::metadata(path).expect("there");
            format!("{} {} {}.{}", path.display(), meta.ino(), meta.mtime(), meta.mtime_nsec())
        };
        paths.iter().map(show).collect()
    };
    lose_and_find(&outbox.section(), own_terms(), &[SMALL], || inodes(outbox.all()));
}

#[test]
fn a_bucket_is_asked_and_not_sent_to_again() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(S3Server::start());
    let section = format!(
        "[upload]\ntarget = \"s3\"\nendpoint = \"http://127.0.0.1:{}\"\nbucket = \"{BUCKET}\"\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\nprefix = \"one\"\n",
        server.port,
        s3_server::ACCESS_KEY,
        s3_server::SECRET_KEY
    );
    lose_and_find(&section, record_all(&FORMATS), &[SMALL, BIG], || {
        let log = runtime.block_on(server.log());
        let sent = log.into_iter().filter(|seen| matches!(&*seen.method, "PUT" | "POST"));
        sent.map(|seen| format!("{} {} {:?}", seen.on, seen.key, seen.part)).collect()
    });
}

#[test]
fn the_platform_is_searched_and_not_sent_to_again() {
    search_and_find(record_all(&FORMATS));
}

#[test]
fn the_platform_is_searched_by_the_terms_that_the_rules_have() {
    search_and_find(own_terms());
}

fn search_and_find(rules: Value) {
    let vod = FakeVod::start();
    let section = format!(
        "[upload]\ntarget = \"tencent-vod\"\nendpoint = \"http://127.0.0.1:{0}\"\n\
         storage_endpoint = \"http://127.0.0.1:{0}\"\naccess_key_id = \"{SECRET_ID}\"\n\
         secret_access_key = \"{SECRET_KEY}\"\n",
        vod.port
    );
    lose_and_find(&section, rules, &[SMALL], || {
        let log = vod.log().into_iter();
        let sent = log.filter(|seen| !matches!(&*seen.on, "SearchMedia" | "head" | "get"));
        sent.map(|seen| format!("{} {} {:?}", seen.on, seen.key, seen.part)).collect()
    });
    assert_eq!(vod.media().len(), FORMATS.len(), "nothing twice");
}
