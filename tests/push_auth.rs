//! Push authentication of the built box: who has a right URL is recorded, everybody else is told
//! why not, and no secret reaches the log. The digests are Python's, not the box's own.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::edge_box::{BoxPlan, EdgeBox};
use support::media::Clip;
use support::packets::{Kind, assert_stretch_of, packets};
use support::process::run_ok;
use support::publisher::Publisher;
use support::push::{Pace, push_file};
use support::tool;
use support::wait::wait_until;

/// In no log by chance.
const KEY: &str = "canaryKey7f3a9c51";
const CLIP: Clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };
const SOON: Duration = Duration::from_secs(20);
/// Guesses that are made at once, and the least time between two lines about them.
const GUESSES: u32 = 200;
const LOG_EVERY: Duration = Duration::from_secs(10);

fn box_with_key() -> EdgeBox {
    BoxPlan::default().push_key(KEY).env("EDGEREC_LOG", "trace").start()
}

/// Unix seconds, so far from now.
fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("small") + seconds
}

fn hex_time(unix_s: i64) -> String {
    format!("{unix_s:08X}")
}

/// `hash` of the text, in hex.
fn digest(hash: &str, text: &str) -> String {
    let program = "import hashlib, sys; \
                   print(hashlib.new(sys.argv[1], sys.argv[2].encode()).hexdigest())";
    let output = run_ok(Command::new(tool("python3")).args(["-c", program, hash, text]));
    String::from_utf8(output).expect("text").trim().to_owned()
}

fn md5(stream: &str, tx_time: &str) -> String {
    digest("md5", &format!("{KEY}{stream}{tx_time}"))
}

/// Pushes with ffmpeg, and says what it complained about.
fn push(edge: &EdgeBox, clip: &Path, name: &str) -> (bool, String) {
    let log = edge.dir().join("ffmpeg.log");
    // In real time, so that it is still there to be told.
    let mut pusher = push_file(clip, &edge.push_url(name), Pace::Real, &log);
    let status = pusher.end_within(SOON);
    let told = std::fs::read_to_string(&log).expect("the log is there");
    std::fs::remove_file(&log).expect("the log goes");
    (status.success(), told)
}

#[test]
fn ffmpeg_with_a_right_url_is_recorded_and_others_are_told_why_not() {
    let edge = box_with_key();
    let clip: PathBuf = CLIP.flv();
    let later = hex_time(from_now(3_600));
    let passed = hex_time(from_now(-3_600));
    let right = md5("cam01", &later);
    let (expired, other) = (md5("cam01", &passed), md5("cam02", &later));

    for (query, code) in [
        (String::new(), "18/500"),
        (format!("?txSecret={right}"), "18/500"),
        (format!("?txSecret={expired}&txTime={passed}"), "18/501"),
        (format!("?txTime={later}"), "18/502"),
        (format!("?txSecret={other}&txTime={later}"), "18/503"),
        (format!("?txSecret={right}&txTime={}", hex_time(from_now(7_200))), "18/503"),
    ] {
        let (taken, told) = push(&edge, &clip, &format!("cam01{query}"));
        assert!(!taken, "let in: {query}");
        assert!(told.contains(code), "{query}: told `{told}`");
    }
    assert!(edge.ls().is_empty(), "a refused push left a file");

    let (taken, told) = push(&edge, &clip, &format!("cam01?txSecret={right}&txTime={later}"));
    assert!(taken, "{told}");
    let end = format!("publish ends key={}", edge.stream_key("cam01"));
    wait_until(SOON, &end, || edge.log().contains(&end));
    let row = edge.file_within(SOON, |row| row["stream"] == "cam01" && row["state"] != "recording");
    assert_eq!(edge.ls().len(), 1, "one push was let in");
    let file = edge.export_file(row["file_id"].as_str().expect("an id"), "cam01.flv");
    let (sent, kept) = (packets(&clip), packets(&file));
    assert_stretch_of(&kept, &sent, "the file");
    let first_key = sent.iter().position(|packet| packet.kind == Kind::Video && packet.key);
    let first_key = first_key.expect("there are key frames");
    assert_eq!(kept.len(), sent.len() - first_key, "all from the first key frame on");

    let log = edge.log();
    assert!(log.contains("publish refused"), "{log}");
    for secret in [KEY, &right, &expired, &other, "txSecret="] {
        assert!(!log.contains(secret), "`{secret}` is in the log");
    }
}

/// Decimal time and the other digest; upper case.
#[test]
fn all_forms_of_a_right_url_are_let_in() {
    let edge = box_with_key();
    let decimal = from_now(3_600).to_string();
    let hex = hex_time(from_now(3_600));
    for (stream, query) in [
        ("cam01", format!("txSecret={}&txTime={decimal}", md5("cam01", &decimal))),
        ("cam02", format!("txSecret={}&txTime={hex}", md5("cam02", &hex).to_uppercase())),
        ("cam03", {
            let secret = digest("sha256", &format!("{KEY}cam03{hex}"));
            format!("custom=1&txSecret={secret}&txTime={hex}")
        }),
    ] {
        let publisher = Publisher::publish(edge.rtmp(), &format!("{stream}?{query}"));
        publisher.unwrap_or_else(|told| panic!("{query}: {told}")).finish();
    }
}

#[test]
fn guessing_neither_fills_the_log_nor_locks_anybody_out() {
    let edge = box_with_key();
    let later = hex_time(from_now(3_600));
    let began = Instant::now();
    for guess in 0..GUESSES {
        let name = format!("cam01?txSecret={guess:032x}&txTime={later}");
        let told = Publisher::publish(edge.rtmp(), &name).err().expect("refused");
        assert!(told.contains("NetStream.Publish.Denied"), "{told}");
    }
    let right = md5("cam01", &later);
    let name = format!("cam01?txSecret={right}&txTime={later}");
    Publisher::publish(edge.rtmp(), &name).expect("let in").finish();

    let lines = edge.log().matches("publish refused").count();
    let allowed = 1 + began.elapsed().as_secs() / LOG_EVERY.as_secs();
    assert!(lines >= 1 && lines as u64 <= allowed, "{lines} lines for {GUESSES} guesses");
}
