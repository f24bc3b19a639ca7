//! RecordInterval: clips that are cut at key frames and lose and repeat nothing, from a push much
//! faster than the media.

use std::time::Duration;

use serde_json::json;

use crate::clip::{
    Codecs, DELIVERED_WITHIN, assert_frames, assert_same_media, first_dts, from_first_key, timed,
};
use crate::support::edge_box::{BoxPlan, record_all};
use crate::support::ffmpeg::Ffmpeg;
use crate::support::media::made;
use crate::support::outbox::{Outbox, joined};
use crate::support::push::{Pace, push_file};
use crate::support::scratch;
use crate::support::units::{Media, Unit};

/// The shortest interval that a template may ask for, in milliseconds.
const INTERVAL_MS: i64 = 60_000;

#[test]
fn clips_are_cut_at_key_frames_and_hold_every_packet_once() {
    let arguments = "PICTURES SOUND -c:v libx264 -preset ultrafast -bf 2 -g 70 -s 96x54 \
                     -pix_fmt yuv420p -sc_threshold 0 -c:a aac -b:a 48k -t 150 \
                     -flvflags no_duration_filesize";
    let file = made(Ffmpeg::System, "interval.flv", arguments);
    let mut rules = record_all(&["Flv", "Hls", "Mp4", "Aac"]);
    for format in ["Flv", "Mp4", "Aac"] {
        rules["templates"][0][format!("{format}Param")]["RecordInterval"] = json!(60);
    }
    let outbox = Outbox::new();
    let plan = BoxPlan::default().sections(&outbox.section()).rules(rules);
    let edge = plan.ring_setting("hls_clip_max", "\"1h\"").start();
    let log = edge.dir().join("push.log");
    // Clips begin in different seconds, so that their names tell their order.
    let mut pusher = push_file(&file, &edge.push_url("s"), Pace::Times(40), &log);
    pusher.finish_within(Duration::from_secs(60));

    let sent = from_first_key(Codecs::H264_AAC.read(&file));
    let expected = cut(&sent);
    assert_eq!(expected.len(), 3);
    let stream = edge.stream_key("s");
    let clips = |format: &str| {
        let files = outbox.wait(&stream, format, expected.len(), DELIVERED_WITHIN);
        assert_eq!(files.len(), expected.len(), "{files:?}");
        files.into_iter().zip(&expected)
    };
    for (path, clip) in clips("flv") {
        Ffmpeg::System.assert_decodes(&path);
        assert_same_media("flv", &Codecs::H264_AAC.read(&path), clip);
    }
    for (path, clip) in clips("mp4") {
        Ffmpeg::System.assert_decodes(&path);
        let origin = first_dts(clip);
        let seen = Codecs::H264_AAC.read(&path);
        assert_same_media("mp4", &seen, &timed(clip, |ms, _| ms - origin));
    }
    for (path, clip) in clips("aac") {
        assert_frames("aac", &path, &clip.audio.units);
    }
    let playlists = outbox.wait(&stream, "hls", 1, DELIVERED_WITHIN);
    assert_eq!(playlists.len(), 1, "HLS is one file");
    let scratch = scratch("joined");
    let ts = Codecs::H264_AAC.read(&joined(&playlists[0], scratch.path()));
    assert_same_media("hls", &ts, &timed(&sent, |ms, _| ms * 90));
}

/// What was sent, cut at the first key frame at or after each interval; sound goes with what was
/// sent around it.
fn cut(sent: &Media) -> Vec<Media> {
    let mut places = Vec::new();
    let mut since = None;
    for picture in sent.video.units.iter().filter(|unit| unit.key) {
        if since.is_none_or(|since| picture.dts - since >= INTERVAL_MS) {
            since = Some(picture.dts);
            places.push(picture.place);
        }
    }
    places.push(usize::MAX);
    let part = |units: &[Unit], from: usize, to: usize| -> Vec<Unit> {
        units.iter().filter(|unit| (from..to).contains(&unit.place)).cloned().collect()
    };
    let clips = places.windows(2).map(|two| {
        let mut clip = sent.clone();
        clip.video.units = part(&sent.video.units, two[0], two[1]);
        clip.audio.units = part(&sent.audio.units, two[0], two[1]);
        clip
    });
    clips.collect()
}
