//! An encoder that is unplugged and comes back: one HLS recording with a discontinuity.

mod support;

use std::fs;
use std::time::Duration;

use serde_json::json;
use support::edge_box::BoxPlan;
use support::ffmpeg::Ffmpeg;
use support::media::Clip;
use support::packets::{Kind, of_kind, packets};
use support::process::run;
use support::push::{Pace, push_file};
use support::wait::wait_until;

const CLIP: Clip = Clip { seconds: 4, fps: 25, gop: 25, b_frames: 2, video_kbps: 500, audio: true };
const SOON: Duration = Duration::from_secs(30);

fn pushed_twice(clip: Clip) {
    let rules = json!({"revision": 1,
        "templates": [{"TemplateName": "t", "HlsParam": {"Enable": 1}, "Mp4Param": {"Enable": 1},
                       "HlsSpecialParam": {"FlowContinueDuration": 6}}],
        "rules": [{"DomainName": "", "AppName": "live", "StreamName": "", "TemplateName": "t"}]});
    let edge = BoxPlan::default().rules(rules).start();
    for round in 1..=2 {
        let log = edge.dir().join(format!("push-{round}.log"));
        push_file(&clip.flv(), &edge.push_url("cam"), Pace::Fast, &log).finish_within(SOON);
        wait_until(SOON, "the MP4 file of the push is finished", || {
            let rows = edge.ls();
            let finished =
                |row: &&serde_json::Value| row["format"] == "mp4" && row["state"] == "waiting";
            rows.iter().filter(finished).count() == round
        });
    }
    let row = edge.file_within(SOON, |row| row["format"] == "hls" && row["state"] == "waiting");
    let hls = edge.ls().iter().filter(|row| row["format"] == "hls").count();
    assert_eq!(hls, 1, "one HLS file over both pushes");

    let id = row["file_id"].as_str().expect("a row has a file id");
    let folder = edge.dir().join("out");
    edge.cli_ok(&["export", "--file", id, "-o", folder.to_str().expect("text")]);
    let playlist = folder.join("index.m3u8");
    let text = fs::read_to_string(&playlist).expect("a playlist");
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
    // The sound of the second push overlaps the first by part of a frame; a player evens that out.
    let mut player = Ffmpeg::System.command();
    player.args(["-v", "error", "-i"]).arg(&playlist);
    if clip.audio {
        player.args(["-af", "aresample=async=1"]);
    }
    let played = run(player.args(["-f", "null", "-"]));
    assert!(played.status.success() && played.stderr.is_empty(), "{played:?}");
    let sent = packets(&clip.flv());
    let kept = packets(&playlist);
    for kind in [Kind::Video, Kind::Audio] {
        assert_eq!(of_kind(&kept, kind).len(), 2 * of_kind(&sent, kind).len(), "{kind:?}");
    }
}

#[test]
fn with_sound() {
    pushed_twice(CLIP);
}

#[test]
fn without_sound() {
    pushed_twice(Clip { audio: false, ..CLIP });
}
