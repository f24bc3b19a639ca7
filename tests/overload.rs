//! Flash that takes less than comes, and flash that stalls: what somebody asked for is recorded whole,
//! the rest loses whole fragments and says so, nobody who pushes is held up, and memory stays bounded.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::http::act;
use support::media::Clip;
use support::packets::{Kind, assert_stretch_of, of_kind, packets};
use support::push::{Pace, push_file};
use support::slow_disk::SlowDisk;
use support::wait::wait_until;
use support::{scratch, tool};

const DISK_BYTES: u64 = 160 << 20;
const FLASH_BYTES_PER_S: u64 = 1 << 20;
/// Four of them want nearly twice what the flash takes.
const BY_RULE: Clip =
    Clip { seconds: 20, fps: 25, gop: 25, b_frames: 0, video_kbps: 4_000, audio: true };
/// An eighth of it.
const BY_TASK: Clip =
    Clip { seconds: 20, fps: 25, gop: 25, b_frames: 0, video_kbps: 1_000, audio: true };
const SOON: Duration = Duration::from_secs(120);
/// 12 MiB idle, and for each of five streams seven fragments in its lane and what waits for a sync.
const MEMORY_BYTES_MAX: u64 = 80 << 20;

/// Milliseconds in the ledger that flash was too slow for, by stream.
fn too_slow(edge: &EdgeBox) -> BTreeMap<String, i64> {
    let path = edge.ring().join("state.db");
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    let mut query = db
        .prepare(
            "SELECT stream.stream, sum(media_ms) FROM gap JOIN stream ON stream.id = gap.stream
             WHERE cause = 'flash did not keep up' GROUP BY gap.stream",
        )
        .expect("the ledger is there");
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("asked");
    rows.collect::<rusqlite::Result<_>>().expect("read")
}

/// The most memory that the box has had.
fn peak_bytes(edge: &mut EdgeBox) -> u64 {
    let status = format!("/proc/{}/status", edge.process().id());
    let status = fs::read_to_string(status).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

/// Pictures of a stream that are kept and that were sent.
fn pictures(edge: &EdgeBox, stream: &str, clip: Clip) -> (usize, usize) {
    let (kept, sent) = (edge.export_all(&edge.stream_key(stream), "flv", stream), clip.flv());
    let (kept, sent) = (packets(&kept.expect("exported")), packets(&sent));
    (of_kind(&kept, Kind::Video).len(), of_kind(&sent, Kind::Video).len())
}

#[test]
fn what_a_task_asked_for_loses_nothing_where_flash_takes_half_of_what_comes() {
    let mut disk = SlowDisk::new("overload", DISK_BYTES);
    let plan = BoxPlan::default().rules(record_all(&["Flv"])).ring(disk.mount().join("ring"));
    let plan = plan.ring_setting("capacity", "\"128MiB\"").ring_setting("slot", "\"2MiB\"");
    let mut edge = plan.start();
    let domain = edge.rtmp().ip().to_string();
    let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let end = end.expect("after 1970").as_secs() + 3_600;
    let task = json!({"DomainName": domain, "AppName": "live", "StreamName": "match",
        "EndTime": end});
    act(&edge, "CreateRecordTask", task);
    assert!(edge.terminate(SOON).success());
    disk.slow_down(FLASH_BYTES_PER_S);
    edge.start_again();

    let others = ["a", "b", "c", "d"];
    let push = |stream: &str, clip: Clip| {
        let log = edge.dir().join(format!("{stream}.log"));
        push_file(&clip.flv(), &edge.push_url(stream), Pace::Real, &log)
    };
    let mut pushers = others.map(|stream| push(stream, BY_RULE));
    let mut of_match = push("match", BY_TASK);
    // Nobody who pushes is held up, or thrown out.
    pushers.iter_mut().chain([&mut of_match]).for_each(|pusher| pusher.finish_within(SOON));
    let peak = peak_bytes(&mut edge);
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes");
    for stream in others.iter().chain(&["match"]) {
        let kept = |edge: &EdgeBox| {
            let rows = edge.ls().into_iter().filter(|row| row["stream"] == **stream);
            rows.map(|row| row["state"].clone()).collect::<Vec<_>>()
        };
        let ended = || kept(&edge).iter().all(|state| state != "recording");
        wait_until(SOON, &format!("{stream} is on flash"), ended);
    }
    let lost = too_slow(&edge);
    println!("lost, in milliseconds: {lost:?}; peak: {} MiB", peak >> 20);
    assert_eq!(lost.get("match"), None, "{lost:?}");
    let (kept, sent) = pictures(&edge, "match", BY_TASK);
    assert_eq!(kept, sent, "every picture of the task is kept; the others lost {lost:?}");
    // The others lost some, all kept some, and the ledger has what is missing.
    assert!(lost.values().sum::<i64>() > 5_000, "it was no overload: {lost:?}");
    for stream in others {
        let (kept, sent) = pictures(&edge, stream, BY_RULE);
        let missing_ms = i64::try_from((sent - kept) * 40).expect("small");
        let ledger_ms = lost.get(stream).copied().unwrap_or(0);
        assert!(kept > sent / 10, "{stream}: {kept} of {sent} pictures");
        // A fragment that has sound only has no picture to miss.
        let fault_ms = (missing_ms - ledger_ms).abs();
        assert!(fault_ms <= ledger_ms / 10 + 100, "{stream}: {missing_ms}, {ledger_ms} ms");
    }
    edge.kill();
    drop(edge);
    disk.take_out();
}

/// A box whose fifth sync takes five seconds, as on a card that cleans up.
fn stalling(dir: &Path) -> PathBuf {
    let (program, strace) = (support::edge_box::binary(), tool("strace"));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = run ] || exec '{}' \"$@\"\n\
         exec '{}' -D -f -qq -e signal=none -o /dev/null -e trace=syncfs \
         -e inject=syncfs:delay_enter=5000000:when=5 '{}' \"$@\"\n",
        program.display(),
        strace.display(),
        program.display()
    );
    let path = dir.join("edgerec");
    fs::write(&path, script).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).expect("set");
    path
}

#[test]
fn a_sync_that_stalls_for_five_seconds_costs_nothing() {
    const CLIP: Clip =
        Clip { seconds: 14, fps: 25, gop: 25, b_frames: 0, video_kbps: 1_000, audio: true };
    let dir = scratch("stall");
    // In memory: only the stall counts, not what else the machine writes.
    let ring = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let plan = BoxPlan::default().binary(stalling(dir.path())).ring(ring.path().join("ring"));
    let edge = plan.ring_setting("capacity", "\"64MiB\"").start();
    let streams = ["a", "b", "c"];
    let mut pushers = streams.map(|stream| {
        let log = edge.dir().join(format!("{stream}.log"));
        push_file(&CLIP.flv(), &edge.push_url(stream), Pace::Real, &log)
    });
    pushers.iter_mut().for_each(|pusher| pusher.finish_within(SOON));
    let sent = packets(&CLIP.flv());
    for stream in streams {
        edge.file_within(SOON, |row| row["stream"] == stream && row["state"] == "waiting");
        let kept = edge.export_all(&edge.stream_key(stream), "flv", stream).expect("exported");
        let kept = packets(&kept);
        assert_stretch_of(&kept, &sent, stream);
        assert_eq!(
            of_kind(&kept, Kind::Video).len(),
            of_kind(&sent, Kind::Video).len(),
            "{stream}"
        );
    }
    assert!(too_slow(&edge).is_empty(), "{:?}", too_slow(&edge));
}
