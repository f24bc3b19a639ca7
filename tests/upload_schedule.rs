//! Uploads as the operator planned them, through the whole box: a file says why it waits or how it
//! goes, and recording is not touched by either.

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::edge_box::{BoxPlan, EdgeBox};
use support::http::{act, get};
use support::media::Clip;
use support::outbox::Outbox;
use support::push::{Pace, push_file};

const SOON: Duration = Duration::from_secs(60);
const SMALL: Clip =
    Clip { seconds: 10, fps: 25, gop: 50, b_frames: 2, video_kbps: 1_000, audio: true };

fn push(edge: &EdgeBox, clip: &Path, stream: &str) {
    let log = edge.dir().join("push.log");
    push_file(clip, &edge.push_url(stream), Pace::Times(8), &log).finish_within(SOON);
}

/// A figure of `/metrics`.
fn figure(edge: &EdgeBox, name: &str) -> f64 {
    let (status, page) = get(edge, "/metrics");
    assert_eq!(status, 200);
    let page = String::from_utf8_lossy(&page).into_owned();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in\n{page}")).parse().expect("a number")
}

#[test]
fn a_file_on_its_way_shows_bytes_rate_and_estimate() {
    let outbox = Outbox::new();
    let section = format!("{}bandwidth = \"500kbit\"\n", outbox.section());
    let edge = BoxPlan::default().sections(&section).start();
    push(&edge, &SMALL.flv(), "s");
    let number = |row: &Value, name: &str| row[name].as_u64();
    let row = edge.file_within(SOON, |row| {
        row["state"] == "uploading" && number(row, "bytes_per_s").is_some_and(|rate| rate > 0)
    });
    let (bytes, left) = (number(&row, "progress_bytes"), number(&row, "left_s"));
    assert!(bytes.is_some_and(|bytes| bytes > 0) && left.is_some(), "{row:#}");
    assert!(number(&row, "bytes_per_s") <= Some(500_000 / 8 * 105 / 100), "{row:#}");
    assert_eq!(figure(&edge, "edgerec_uploading_files"), 1.0);
    let table = edge.cli_ok(&["ls"]);
    assert!(table.contains(" sent, ") && table.contains(" left"), "{table}");
    edge.file_within(SOON, |row| row["state"] == "delivered");
    assert_eq!(figure(&edge, "edgerec_uploading_files"), 0.0);
}

#[test]
fn a_closed_window_holds_files_up_and_is_told_while_recording_goes_on() {
    let outbox = Outbox::new();
    let hour = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).hour();
    let (from, to) = ((hour + 3) % 24, (hour + 5) % 24);
    let section = format!("{}windows = [\"{from:02}:00-{to:02}:00\"]\n", outbox.section());
    let edge = BoxPlan::default().sections(&section).timezone("Etc/UTC").start();
    for stream in ["one", "two"] {
        push(&edge, &SMALL.flv(), stream);
        let row = edge.file_within(SOON, |row| row["stream"] == stream && row["state"] == "queued");
        let why = row["why"].as_str().expect("a reason").to_owned();
        assert!(why.starts_with("window opens at 20") && why.ends_with(&format!(" {from:02}:00")));
    }
    assert!(outbox.all().is_empty(), "{:?}", outbox.all());

    let told = act(&edge, "DescribeUploads", json!({"Limit": 1, "Offset": 1}));
    let shown = told["UploadSet"].as_array().expect("a list");
    assert_eq!((&told["TotalCount"], shown.len()), (&json!(2), 1), "{told:#}");
    let second = &shown[0];
    assert_eq!((&second["StreamName"], &second["State"]), (&json!("two"), &json!("queued")));
    let why = second["Why"].as_str().expect("a reason");
    assert!(why.starts_with("window opens at "), "{why}");
}
