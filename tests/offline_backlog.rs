//! A box that was offline for weeks: its queue is long, its memory is not, and when the far side is
//! back the queue drains in its order.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, params};
use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::http::get;
use support::media::Clip;
use support::push::{Pace, push_file};
use support::wait::wait_until;

/// Files in the queue.
const FILES: u32 = 10_000;
/// Every so manieth of them is a highlight.
const HIGHLIGHT_EACH: u32 = 100;
/// What the queue may cost.
const RSS_MORE_KIB: u64 = 2 << 10;
const SMALL: Clip =
    Clip { seconds: 2, fps: 25, gop: 25, b_frames: 0, video_kbps: 100, audio: true };

fn long() -> bool {
    std::env::var_os("EDGEREC_LONG").is_some()
}

/// A figure of `/metrics`.
fn figure(edge: &EdgeBox, name: &str) -> u64 {
    let (status, page) = get(edge, "/metrics");
    assert_eq!(status, 200);
    let page = String::from_utf8_lossy(&page).into_owned();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{name} is not in\n{page}"))
}

/// Resident memory of the box.
fn rss_kib(edge: &mut EdgeBox) -> u64 {
    let path = format!("/proc/{}/status", edge.process().id());
    let status = fs::read_to_string(path).expect("the box runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no VmRSS in\n{status}"))
}

/// Memory after some attempts in vain.
fn rss_offline(edge: &mut EdgeBox) -> u64 {
    wait_until(Duration::from_secs(120), "attempts in vain", || {
        figure(edge, "edgerec_delivery_failures_total") >= 3
    });
    rss_kib(edge)
}

/// Puts the only file into the queue again and again, each time as another file; some are
/// highlights.
fn grow_queue(edge: &EdgeBox) {
    let mut db = Connection::open(edge.ring().join("state.db")).expect("opened");
    let all = db.transaction().expect("begun");
    // Without its checksum, which would not be that of the copies.
    all.execute_batch("CREATE TEMP TABLE one AS SELECT * FROM file; UPDATE one SET crc = NULL")
        .expect("copied");
    let only: i64 = all.query_row("SELECT id FROM one", [], |row| row.get(0)).expect("one file");
    for number in 2..=FILES {
        let id = i64::from(number) << 32;
        all.execute(
            "UPDATE one SET id = ?1, queue_number = ?2, priority = ?3",
            params![id, number, if number % HIGHLIGHT_EACH == 0 { 2 } else { 0 }],
        )
        .expect("changed");
        all.execute("INSERT INTO file SELECT * FROM one", []).expect("entered");
        all.execute(
            "INSERT INTO span SELECT ?1, place, slot, generation, segment, start, end, past
             FROM span WHERE file = ?2",
            params![id, only],
        )
        .expect("entered");
    }
    all.execute_batch("DROP TABLE one").expect("dropped");
    all.commit().expect("committed");
}

#[test]
fn a_long_queue_takes_no_memory_and_drains_in_order() {
    // Draining all of them takes minutes; the first hundreds have highlights and others.
    let drained_files = if long() { FILES as usize } else { 250 };
    let dir = support::scratch("usb");
    let disk = dir.path().join("disk");
    let path = serde_json::to_string(&disk.to_string_lossy()).expect("text");
    let section = format!("[upload]\ntarget = \"directory\"\npath = {path}\nparallel = 1\n");
    let mut edge = BoxPlan::default().sections(&section).rules(record_all(&["Aac"])).start();
    let log = edge.dir().join("push.log");
    let mut pushed = push_file(&SMALL.flv(), &edge.push_url("s"), Pace::Fast, &log);
    pushed.finish_within(Duration::from_secs(60));
    edge.file_within(Duration::from_secs(60), |row| row["state"] == "queued");
    edge.kill();
    edge.start_again();
    let with_one = rss_offline(&mut edge);
    edge.kill();
    grow_queue(&edge);
    edge.start_again();
    let with_many = rss_offline(&mut edge);
    assert_eq!(figure(&edge, "edgerec_upload_queue_files"), u64::from(FILES));
    assert!(with_many <= with_one + RSS_MORE_KIB, "{with_one} KiB became {with_many} KiB");

    let tried = figure(&edge, "edgerec_delivery_failures_total");
    fs::create_dir(&disk).expect("the disk is back");
    let until = |count: usize| {
        wait_until(Duration::from_secs(3_600), "files on the disk", || {
            delivered(&disk).len() >= count
        });
    };
    until(drained_files / 8);
    let at_work = rss_kib(&mut edge);
    until(drained_files);
    let drained = rss_kib(&mut edge);
    edge.kill();
    println!(
        "{FILES} files: {with_one} KiB with one in the queue, {with_many} KiB with all; \
         {at_work} KiB at work, {drained} KiB at the end"
    );
    assert!(drained <= at_work + RSS_MORE_KIB, "{at_work} KiB became {drained} KiB");

    let mut seen: Vec<((i64, i64), u32)> = delivered(&disk)
        .into_iter()
        .map(|path| {
            let meta = fs::metadata(&path).expect("there");
            ((meta.mtime(), meta.mtime_nsec()), number(&path))
        })
        .collect();
    assert!(!long() || seen.len() == FILES as usize, "each once");
    seen.sort_unstable();
    let order: Vec<u32> = seen.into_iter().map(|(_, number)| number).collect();
    let is_highlight = |number: &u32| number.is_multiple_of(HIGHLIGHT_EACH);
    let highlights = (2..=FILES).filter(is_highlight);
    let expected: Vec<u32> =
        highlights.chain((2..=FILES).filter(|number| !is_highlight(number))).collect();
    // What was tried in vain rests and comes when its time has come; that is the first highlights.
    let resting = HIGHLIGHT_EACH * (u32::try_from(tried).expect("few") + 2);
    let counts = |number: &u32| !is_highlight(number) || *number > resting;
    let expected: Vec<u32> = expected.into_iter().filter(counts).collect();
    // The first of all is the one that was recorded; nothing is known of its number.
    let copies: Vec<u32> = order.into_iter().filter(|number| expected.contains(number)).collect();
    assert!(copies.len() > drained_files / 2 && tried < 20, "{tried} were tried");
    assert!(expected.starts_with(&copies), "highlights, then the oldest: {copies:?}");
    assert!(!long() || copies == expected, "all of them: {copies:?}");
}

/// All files below a folder that have their names.
fn delivered(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(delivered(&path));
        } else if path.extension().is_some_and(|extension| extension == "aac") {
            found.push(path);
        }
    }
    found
}

/// The number of a copy: its name ends in the first half of its id.
fn number(path: &Path) -> u32 {
    let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let digits = stem.rsplit('-').next().expect("an id").to_owned();
    u32::from_str_radix(&digits, 16).expect("in hex")
}
