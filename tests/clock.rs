//! A box whose clock is wrong: it boots in 1970 and is set 56 years later, or steps by a year while it
//! records. Nothing is lost, cut or named twice for it, and all times are right in the end.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use support::edge_box::{BoxPlan, EdgeBox};
use support::http::act;
use support::media::Clip;
use support::push::{Pace, push_file};
use support::scratch;
use support::wait::wait_for;

const SOON: Duration = Duration::from_secs(40);
const SHORT: Clip =
    Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 200, audio: false };
const LONG: Clip = Clip { seconds: 14, ..SHORT };
const YEAR_MS: i64 = 365 * 86_400_000;

fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("small")
}

fn shown(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).expect("in range").to_string()
}

/// A box with a clock that the test holds.
struct Rig {
    edge: EdgeBox,
    off: PathBuf,
    _ring: tempfile::TempDir,
}

impl Rig {
    fn start(plan: BoxPlan, off_ms: i64) -> Rig {
        let scratch = scratch("clock");
        let ring = scratch.path().join("ring");
        // Where the sandbox lets the box read.
        let off = ring.join("planted-clock");
        let mut edge =
            plan.ring(&ring).env("EDGEREC_PLANT_CLOCK", &off.to_string_lossy()).prepare();
        edge.cli_ok(&["format"]);
        set_clock(&off, off_ms);
        edge.start_again();
        Rig { edge, off, _ring: scratch }
    }

    fn set(&self, off_ms: i64) {
        set_clock(&self.off, off_ms);
    }

    /// The file of a stream, once it is one that `wanted` likes.
    fn file(&self, stream: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.edge.file_within(SOON, |row| row["stream"] == stream && wanted(row))
    }

    /// Files that a search finds which came to be between two times.
    fn found(&self, from_ms: i64, until_ms: i64) -> usize {
        let range = json!({"After": shown(from_ms), "Before": shown(until_ms)});
        let answer = act(&self.edge, "SearchMedia", json!({"CreateTime": range}));
        answer["MediaInfoSet"].as_array().expect("a list").len()
    }

    fn explain(&self, key: &str, at_ms: i64) -> String {
        self.edge.cli_ok(&["explain", key, "--at", &shown(at_ms)])
    }
}

fn set_clock(path: &Path, off_ms: i64) {
    let new = path.with_extension("new");
    fs::write(&new, off_ms.to_string()).expect("written");
    fs::rename(&new, path).expect("renamed");
}

fn ms(row: &Value, name: &str) -> i64 {
    row[name].as_i64().expect("a number")
}

/// A file lies between two times and lasts as long as its media.
fn assert_within(row: &Value, from_ms: i64, until_ms: i64) {
    let (start, end) = (ms(row, "start_ms"), ms(row, "end_ms"));
    assert!(from_ms <= start && start <= end && end <= until_ms, "{from_ms} {until_ms} {row}");
    let off_ms = end - start - ms(row, "duration_ms");
    assert!(off_ms.abs() < 2_000, "{row}");
}

#[test]
fn a_boot_in_1970_has_the_right_times_once_the_clock_is_set_and_after_a_kill() {
    let rules = json!({
        "revision": 1,
        "templates": [{"TemplateName": "all", "FlvParam": {"Enable": 1}}],
        "rules": [{"DomainName": "", "AppName": "live", "StreamName": "", "TemplateName": "all"}],
        "sources": [{"DomainName": "cams", "AppName": "live", "StreamName": "gate",
            "Url": "rtsp://127.0.0.1:9/none"}],
    });
    let began_ms = unix_ms();
    let mut rig = Rig::start(BoxPlan::default().rules(rules), 1_000_000 - began_ms);
    let log = rig.edge.dir().join("push.log");
    let mut push = push_file(&SHORT.flv(), &rig.edge.push_url("short"), Pace::Real, &log);
    push.finish_within(SOON);
    let blind = rig.file("short", |row| row["state"] == "waiting");
    let short_ms = unix_ms();
    assert!(ms(&blind, "end_ms") < YEAR_MS, "{blind}");
    let missing = "the camera did not deliver";
    let in_1970 = 1_000_000 + short_ms - began_ms;
    wait_for(SOON, "the camera is missed", || {
        rig.explain("cams/live/gate", in_1970).contains(missing).then_some(())
    });

    let log = rig.edge.dir().join("long.log");
    let long_ms = unix_ms();
    let push = push_file(&LONG.flv(), &rig.edge.push_url("long"), Pace::Real, &log);
    rig.file("long", |row| ms(row, "duration_ms") > 2_000);
    rig.set(0);
    assert_within(&rig.file("short", |_| true), began_ms, short_ms);
    rig.file("long", |row| ms(row, "duration_ms") > 5_000);
    let now_ms = unix_ms();
    assert_within(&rig.file("long", |_| true), long_ms, now_ms);
    assert_eq!((rig.found(began_ms, short_ms), rig.found(0, began_ms)), (1, 0));
    let explain = |rig: &Rig| rig.explain("cams/live/gate", short_ms);
    assert!(explain(&rig).contains(missing), "{}", explain(&rig));
    let ranged = ["--from", &shown(long_ms), "--to", &shown(now_ms), "--format", "mp4", "-o"];
    let (key, out) = (rig.edge.stream_key("long"), rig.edge.dir().join("long.mp4"));
    let out = out.to_string_lossy().into_owned();
    rig.edge.cli_ok(&[&["export", &key], &ranged[..], &[&out]].concat());

    // What it writes now has its times by itself; what it wrote before is found again as it was.
    rig.edge.kill();
    rig.edge.start_again();
    drop(push);
    assert_within(&rig.file("short", |_| true), began_ms, short_ms);
    let first = |row: &Value| ms(row, "start_ms") < now_ms;
    let found = rig.file("long", |row| first(row) && row["state"] == "waiting");
    assert_within(&found, long_ms, unix_ms());
    assert!(ms(&found, "duration_ms") > 4_000, "{found}");
    assert!(rig.edge.ls().iter().all(|row| ms(row, "start_ms") >= began_ms));
    assert!(explain(&rig).contains(missing), "{}", explain(&rig));
    assert_eq!((rig.found(began_ms, short_ms), rig.found(0, began_ms)), (1, 0));
}

#[test]
fn steps_of_a_year_while_it_records_cut_nothing_and_delete_nothing() {
    let target = scratch("delivered");
    let upload = format!("[upload]\ntarget = \"directory\"\npath = {:?}", target.path());
    let rules = json!({
        "revision": 1,
        "templates": [{"TemplateName": "all", "FlvParam": {"Enable": 1, "StorageTime": 3_600},
            "HlsParam": {"Enable": 1, "StorageTime": 3_600}}],
        "rules": [{"DomainName": "", "AppName": "live", "StreamName": "", "TemplateName": "all"}],
    });
    let mut rig = Rig::start(BoxPlan::default().rules(rules).sections(&upload), 0);
    let began_ms = unix_ms();
    let log = rig.edge.dir().join("before.log");
    let mut push = push_file(&SHORT.flv(), &rig.edge.push_url("before"), Pace::Real, &log);
    push.finish_within(SOON);
    rig.file("before", |row| row["state"] == "delivered" && row["format"] == "flv");
    let log = rig.edge.dir().join("push.log");
    let mut push = push_file(&LONG.flv(), &rig.edge.push_url("cam"), Pace::Real, &log);
    // To the end of the stream it is wrong.
    for (off_ms, after_ms) in [(YEAR_MS, 3_000), (0, 6_000), (-YEAR_MS / 4, 9_000)] {
        rig.file("cam", |row| ms(row, "duration_ms") > after_ms);
        rig.set(off_ms);
    }
    push.finish_within(SOON);
    for format in ["flv", "hls"] {
        let is_there = |row: &Value| row["state"] == "delivered" && row["format"] == format;
        let file = rig.file("cam", is_there);
        assert_within(&file, began_ms, unix_ms());
        assert!(ms(&file, "duration_ms") > 13_500, "{file}");
        rig.file("before", is_there);
    }
    rig.set(0);
    assert_eq!(rig.edge.ls().len(), 4, "{:#?}", rig.edge.ls());
    rig.edge.terminate(SOON);
    let db = rusqlite::Connection::open(rig.edge.ring().join("state.db")).expect("there");
    let entries = "SELECT (SELECT count(*) FROM gap), (SELECT count(*) FROM loss)";
    let entries: (u32, u32) =
        db.query_row(entries, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("asked");
    assert_eq!(entries, (0, 0));
}
