//! Flash that is slow: what is live is recorded whole, whatever else wants the flash.

mod support;

use std::fs;
use std::time::Duration;

use serde_json::Value;
use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::media::Clip;
use support::packets::{Kind, assert_stretch_of, of_kind, packets};
use support::push::{Pace, push_file};
use support::scratch;
use support::slow_disk::SlowDisk;
use support::wait::poll_for;

const DISK_BYTES: u64 = 192 << 20;
/// Read and written together.
const FLASH_BYTES_PER_S: u64 = 1 << 20;
/// Uploading it takes longer than the live streams last.
const BACKLOG: Clip =
    Clip { seconds: 60, fps: 25, gop: 50, b_frames: 0, video_kbps: 6_000, audio: true };
/// Two of them want a quarter of the flash.
const LIVE: Clip =
    Clip { seconds: 30, fps: 25, gop: 50, b_frames: 2, video_kbps: 1_000, audio: true };
/// What is uploaded meanwhile at least, in bytes: readers wait at most 2 s for the writer before each
/// piece of 256 KiB.
const UPLOADED_MIN: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(120);

/// The state of a stream's only file.
fn file(edge: &EdgeBox, stream: &str) -> Option<Value> {
    edge.ls().into_iter().find(|row| row["stream"] == stream)
}

/// Goal G12: uploading takes all that the link and the flash give, and costs recording nothing.
#[test]
fn uploading_a_backlog_from_slow_flash_costs_what_is_live_nothing() {
    let mut disk = SlowDisk::new("slow-flash", DISK_BYTES);
    let target = scratch("target");
    let folder = target.path().join("disk/files");
    // A file where the folder is to be: the target is away.
    fs::write(target.path().join("disk"), "").expect("written");
    let section = format!("[upload]\ntarget = \"directory\"\npath = {:?}\n", folder);
    let plan = BoxPlan::default().rules(record_all(&["Flv"])).ring(disk.mount().join("ring"));
    let plan = plan.ring_setting("capacity", "\"128MiB\"").ring_setting("slot", "\"2MiB\"");
    let mut edge = plan.sections(&section).start();
    let log = edge.dir().join("backlog.log");
    push_file(&BACKLOG.flv(), &edge.push_url("backlog"), Pace::Times(8), &log).finish_within(SOON);
    let finished = || file(&edge, "backlog").filter(|row| row["state"] != "recording");
    poll_for(SOON, finished).expect("the backlog is recorded");
    assert!(edge.terminate(SOON).success());

    disk.slow_down(FLASH_BYTES_PER_S);
    fs::remove_file(target.path().join("disk")).expect("removed");
    fs::create_dir_all(&folder).expect("made");
    edge.start_again();
    let is_uploading = || file(&edge, "backlog").filter(|row| row["state"] == "uploading");
    poll_for(SOON, is_uploading).expect("the backlog is uploaded");
    let streams = ["one", "two"];
    let mut pushers = streams.map(|stream| {
        let log = edge.dir().join(format!("{stream}.log"));
        push_file(&LIVE.flv(), &edge.push_url(stream), Pace::Real, &log)
    });
    pushers.iter_mut().for_each(|pusher| pusher.finish_within(SOON));
    let row = file(&edge, "backlog").expect("it is there");

    let sent = packets(&LIVE.flv());
    for stream in streams {
        edge.file_within(SOON, |row| row["stream"] == stream && row["state"] != "recording");
        let kept = edge.export_all(&edge.stream_key(stream), "flv", stream).expect("exported");
        let kept = packets(&kept);
        assert_stretch_of(&kept, &sent, stream);
        let pictures = [&kept, &sent].map(|packets| of_kind(packets, Kind::Video).len());
        assert_eq!(pictures[0], pictures[1], "{stream}: every picture is kept");
    }
    let uploaded = row["progress_bytes"].as_u64();
    assert!(row["state"] == "uploading" && uploaded > Some(UPLOADED_MIN), "all the while: {row:#}");
    edge.kill();
    drop(edge);
    disk.take_out();
}
