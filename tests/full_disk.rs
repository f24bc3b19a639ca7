//! The disk of the ring is full, or has no inode left, because somebody else took it all: what is
//! recorded is kept all the same, also over a kill, and the catalog has it when there is room again.
//! Only the box itself takes room.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::edge_box::{BoxPlan, EdgeBox, binary, record_all};
use support::http::metric;
use support::media::Clip;
use support::mounts::LoopDisk;
use support::packets::{Kind, assert_stretch_of, of_kind, packets};
use support::push::{Pace, Pusher, push_file};
use support::wait::wait_until;
use support::{scratch, tool};

const DISK_BYTES: u64 = 80 << 20;
const SOON: Duration = Duration::from_secs(60);
const CLIP: Clip =
    Clip { seconds: 10, fps: 25, gop: 25, b_frames: 0, video_kbps: 500, audio: true };
/// Loss bound of a kill, in pictures of 40 ms.
const KILL_PICTURES: usize = 63;

fn push(edge: &EdgeBox, stream: &str) -> Pusher {
    let log = edge.dir().join(format!("{stream}.log"));
    push_file(&CLIP.flv(), &edge.push_url(stream), Pace::Real, &log)
}

/// Takes every block and every inode that is left, as somebody else.
fn take_all(disk: &Path) -> PathBuf {
    let dir = disk.join("of-somebody-else");
    fs::create_dir(&dir).expect("there is room");
    let mut file = File::create_new(dir.join("blocks")).expect("there is room");
    let names = (0..).map(|number| dir.join(format!("{number}")));
    for name in names {
        if File::create_new(name).is_err() {
            break;
        }
    }
    for piece in [1 << 20, 4096, 1] {
        let piece = vec![1; piece];
        while file.write_all(&piece).is_ok() {}
    }
    file.sync_all().expect("what was taken is kept");
    dir
}

/// Pictures that are missing at the end of what is kept of a stream; nothing else may be.
fn missing_pictures(edge: &EdgeBox, stream: &str) -> usize {
    let kept = edge.export_all(&edge.stream_key(stream), "flv", stream).expect("exported");
    let (kept, sent) = (packets(&kept), packets(&CLIP.flv()));
    assert_stretch_of(&kept, &sent, stream);
    of_kind(&sent, Kind::Video).len() - of_kind(&kept, Kind::Video).len()
}

#[test]
fn who_only_looks_at_a_ring_takes_no_room() {
    let dir = scratch("room");
    let (path, calls) = (dir.path().join("edgerec"), dir.path().join("calls"));
    let script = format!(
        "#!/bin/sh\nexec '{}' -f -qq -e signal=none -e trace=fallocate -A -o '{}' '{}' \"$@\"\n",
        tool("strace").display(),
        calls.display(),
        binary().display()
    );
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    let edge = BoxPlan::default().binary(&path).ring_setting("capacity", "\"32MiB\"").prepare();
    edge.cli_ok(&["format"]);
    let taken = || fs::read_to_string(&calls).expect("traced").lines().count();
    let by_format = taken();
    assert!(by_format > 0, "slots have their space from the start");
    edge.cli_ok(&["ls"]);
    assert_eq!(taken(), by_format);
}

#[test]
fn a_disk_that_somebody_else_fills_costs_nothing() {
    let disk = LoopDisk::new("full-disk", DISK_BYTES);
    let plan = BoxPlan::default().rules(record_all(&["Flv"])).ring(disk.mount().join("ring"));
    let plan = plan.ring_setting("capacity", "\"48MiB\"").ring_setting("slot", "\"1MiB\"");
    let mut edge = plan.start();
    let mut through = push(&edge, "through");
    wait_until(SOON, "it is recorded", || !edge.ls().is_empty());
    let taken = take_all(disk.mount());
    through.finish_within(SOON);
    push(&edge, "while-full").finish_within(SOON);
    edge.kill();
    edge.start_again();
    push(&edge, "after-kill").finish_within(SOON);
    fs::remove_dir_all(taken).expect("removed");
    for stream in ["through", "while-full", "after-kill"] {
        edge.file_within(SOON, |row| row["stream"] == stream && row["state"] != "recording");
    }
    let missing = ["through", "after-kill"].map(|stream| missing_pictures(&edge, stream));
    assert_eq!(missing, [0, 0]);
    let of_kill = missing_pictures(&edge, "while-full");
    assert!(of_kill <= KILL_PICTURES, "{of_kill} pictures");
}

/// What a folder and all in it take of the disk; nothing if it is not there any more.
fn bytes_on_disk(path: &Path) -> u64 {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    let below: u64 = below.map(|entry| bytes_on_disk(&entry.path())).sum();
    fs::symlink_metadata(path).map_or(0, |taken| taken.blocks() * 512) + below
}

#[test]
fn a_ring_turns_inside_its_budget_where_nothing_else_is_left() {
    const BUDGET_BYTES: u64 = 24 << 20;
    /// 16 slots of 1 MiB, twice.
    const REUSED: usize = 32;
    let disk = LoopDisk::new("budget", DISK_BYTES);
    let ring = disk.mount().join("ring");
    let plan = BoxPlan::default().rules(record_all(&["Flv", "Hls", "Mp4", "Aac"])).ring(&ring);
    let plan = plan.ring_setting("capacity", "\"24MiB\"");
    let edge = plan.ring_setting("slot", "\"1MiB\"").start();
    let heavy = Clip { video_kbps: 12_000, ..CLIP };
    let _pushers = ["a", "b"].map(|stream| {
        let log = edge.dir().join(format!("{stream}.log"));
        push_file(&heavy.flv(), &edge.push_url(stream), Pace::RealLooped, &log)
    });
    wait_until(SOON, "it is recorded", || !edge.ls().is_empty());
    take_all(disk.mount());
    let mut most = bytes_on_disk(&ring);
    wait_until(SOON, "the ring has turned twice", || {
        most = most.max(bytes_on_disk(&ring));
        edge.log().matches("a slot is reused").count() >= REUSED
    });
    assert!(most <= BUDGET_BYTES, "{most} bytes of {BUDGET_BYTES}");
    for name in ["edgerec_fragments_dropped_total", "edgerec_sync_failures_total"] {
        assert_eq!(metric(&edge, name), Some(0), "{name}");
    }
}
