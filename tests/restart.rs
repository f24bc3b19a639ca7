//! New rules reach a live stream by a restart at a key frame: nothing that was sent is lost.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use support::edge_box::{BoxPlan, EdgeBox};
use support::media::Clip;
use support::packets::{Kind, Packet, of_kind, packets};
use support::push::{Pace, push_file};
use support::wait::wait_until;

const CLIP: Clip =
    Clip { seconds: 10, fps: 25, gop: 25, b_frames: 2, video_kbps: 500, audio: true };
const SOON: Duration = Duration::from_secs(20);

/// A rule set whose only template makes FLV files of this length.
fn rules(revision: u64, mode: &str, interval_s: u32, enabled: u8) -> Value {
    json!({"revision": revision, "apply": {"mode": mode},
        "templates": [{"TemplateName": "t",
                       "FlvParam": {"Enable": enabled, "RecordInterval": interval_s}}],
        "rules": [{"DomainName": "", "AppName": "live", "StreamName": "", "TemplateName": "t"}]})
}

/// Pushes the clip in its own time and gives the box other rules in the middle; tells the files
/// of the stream in order, each as it was read back.
fn push_over_a_change(before: &Value, after: &Value) -> (EdgeBox, Vec<PathBuf>) {
    let edge = BoxPlan::default().rules(before.clone()).start();
    let log = edge.dir().join("push.log");
    let mut pusher = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Real, &log);
    wait_until(SOON, "four seconds are sent", || pusher.sent_ms() >= 4_000);
    edge.write_rules(after);
    pusher.finish_within(SOON);
    wait_until(SOON, "no file grows", || {
        let rows = edge.ls();
        !rows.is_empty() && rows.iter().all(|row| row["state"] != "recording")
    });
    let export = |(number, row): (usize, Value)| {
        let id = row["file_id"].as_str().expect("a row has a file id");
        edge.export_file(id, &format!("{number}.flv"))
    };
    let files = edge.ls().into_iter().enumerate().map(export).collect();
    (edge, files)
}

/// Times, key flag and hash of each packet of one kind, file after file.
fn all_packets(files: &[PathBuf], kind: Kind) -> Vec<(Option<i64>, Option<i64>, bool, String)> {
    let told = |packet: Packet| (packet.dts, packet.pts, packet.key, packet.hash);
    files.iter().flat_map(|file| of_kind(&packets(file), kind)).map(told).collect()
}

#[test]
fn a_restart_loses_no_packet_and_repeats_none() {
    let (_edge, files) =
        push_over_a_change(&rules(1, "restart", 1_800, 1), &rules(2, "restart", 900, 1));
    assert_eq!(files.len(), 2, "a file under each rule set");
    let sent = [CLIP.flv()];
    for kind in [Kind::Video, Kind::Audio] {
        assert_eq!(all_packets(&files, kind), all_packets(&sent, kind), "{kind:?}");
    }
    let (_, _, key, _) = all_packets(&files[1..], Kind::Video)[0];
    assert!(key, "the new session begins at a key frame");
}

#[test]
fn next_start_and_rules_of_the_same_content_leave_the_session_alone() {
    let (_edge, files) =
        push_over_a_change(&rules(1, "restart", 1_800, 1), &rules(2, "next_start", 900, 1));
    assert_eq!(files.len(), 1, "it keeps what it began with");
    let (_edge, files) =
        push_over_a_change(&rules(1, "restart", 1_800, 1), &rules(2, "restart", 1_800, 1));
    assert_eq!(files.len(), 1, "nothing changes for it");
}

#[test]
fn a_stream_that_was_not_recorded_is_from_the_next_key_frame_on() {
    let (_edge, files) =
        push_over_a_change(&rules(1, "restart", 1_800, 0), &rules(2, "restart", 1_800, 1));
    assert_eq!(files.len(), 1);
    let sent = all_packets(&[CLIP.flv()], Kind::Video);
    let kept = all_packets(&files, Kind::Video);
    let (_, _, key, _) = kept[0];
    assert!(key && kept.len() >= 50, "{} packets", kept.len());
    assert_eq!(kept, sent[sent.len() - kept.len()..]);
}
