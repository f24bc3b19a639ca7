//! Encoders over RTMP: the reference is the file that was sent.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::clip::{Codecs, assert_delivered, assert_holds, from_first_key};
use crate::support::edge_box::{BoxPlan, EdgeBox, record_all};
use crate::support::ffmpeg::Ffmpeg;
use crate::support::media::made;
use crate::support::outbox::{FORMATS, Outbox};
use crate::support::process::run_ok;
use crate::support::publisher::{Publisher, Tag, tags};
use crate::support::push::{Pace, push_file_with};
use crate::support::tool;
use crate::support::units::{Audio, Video};

const PUSHED_WITHIN: Duration = Duration::from_secs(60);
/// Arguments of every file with pictures: times begin beyond a day, where RTMP needs its extended
/// timestamps.
const LATE: &str = "-t 8 -pix_fmt yuv420p -sc_threshold 0 -output_ts_offset 90000 \
                    -flvflags no_duration_filesize";

/// A box that delivers all formats, and where to.
fn recording_box() -> (EdgeBox, Outbox) {
    let outbox = Outbox::new();
    let plan = BoxPlan::default().sections(&outbox.section());
    (plan.rules(record_all(&["Flv", "Hls", "Mp4", "Aac"])).start(), outbox)
}

/// Pushes a file made by `arguments` and compares what is delivered.
fn push_and_compare(ffmpeg: Ffmpeg, name: &str, arguments: &str, codecs: Codecs) {
    let file = made(ffmpeg, name, arguments);
    let (edge, outbox) = recording_box();
    let log = edge.dir().join("push.log");
    let pace = Pace::Times(4);
    push_file_with(ffmpeg, &file, &edge.push_url("s"), pace, &log).finish_within(PUSHED_WITHIN);
    compare(&edge, &outbox, &file, codecs);
}

fn compare(edge: &EdgeBox, outbox: &Outbox, file: &Path, codecs: Codecs) {
    let sent = from_first_key(codecs.read(file));
    let stream = edge.stream_key("s");
    assert_delivered(outbox, &stream, codecs, &sent);
    for config in configurations(file) {
        for format in ["flv", "mp4"] {
            assert_holds(&outbox.files(&stream, format)[0], &config);
        }
    }
}

/// The codec configurations that a file sends.
fn configurations(file: &Path) -> Vec<Vec<u8>> {
    let config = |tag: &Tag| match (tag.kind, &tag.body[..]) {
        (9, [0x17, 0, _, _, _, config @ ..]) => Some(config.to_vec()),
        (9, [0x90, b'h', b'v', b'c', b'1', config @ ..]) => Some(config.to_vec()),
        (8, [_, 0, config @ ..]) => Some(config.to_vec()),
        _ => None,
    };
    let found: Vec<Vec<u8>> = tags(file).iter().filter_map(config).collect();
    assert!(!found.is_empty(), "{} has no configuration", file.display());
    found
}

#[test]
fn h264_and_aac() {
    let arguments =
        format!("PICTURES SOUND -c:v libx264 -preset ultrafast -bf 0 -g 50 -c:a aac {LATE}");
    push_and_compare(Ffmpeg::System, "late-plain.flv", &arguments, Codecs::H264_AAC);
}

#[test]
fn h264_with_b_frames_and_aac() {
    let arguments =
        format!("PICTURES SOUND -c:v libx264 -preset veryfast -bf 3 -g 50 -c:a aac {LATE}");
    push_and_compare(Ffmpeg::System, "late-b-frames.flv", &arguments, Codecs::H264_AAC);
}

#[test]
fn pictures_only() {
    let arguments = format!("PICTURES -c:v libx264 -preset veryfast -bf 2 -g 50 {LATE}");
    let codecs = Codecs { video: Some(Video::H264), audio: None };
    push_and_compare(Ffmpeg::System, "late-pictures.flv", &arguments, codecs);
}

#[test]
fn sound_only() {
    let arguments = "SOUND -c:a aac -t 8 -output_ts_offset 90000 -flvflags no_duration_filesize";
    let codecs = Codecs { video: None, audio: Some(Audio::Aac) };
    push_and_compare(Ffmpeg::System, "late-sound.flv", arguments, codecs);
}

#[test]
fn enhanced_h265_and_aac() {
    push_and_compare(Ffmpeg::Newest, "late-hevc.flv", &hevc(), Codecs::H265_AAC);
}

fn hevc() -> String {
    format!(
        "PICTURES SOUND -c:v libx265 -preset ultrafast -g 50 \
         -x265-params log-level=none:bframes=2:keyint=50 -c:a aac {LATE}"
    )
}

/// The same samples under the codec id 12 that predates the enhanced form.
#[test]
fn h265_under_the_old_codec_id() {
    let file = made(Ffmpeg::Newest, "late-hevc.flv", &hevc());
    let (edge, outbox) = recording_box();
    let mut publisher = Publisher::publish(edge.rtmp(), "s").expect("it may publish");
    for tag in &tags(&file) {
        publisher.send(&in_old_form(tag));
    }
    publisher.finish();
    compare(&edge, &outbox, &file, Codecs::H265_AAC);
}

/// `hvc1` packets with their kind: 0 configuration, 1 frame with composition time, 3 without.
fn in_old_form(tag: &Tag) -> Tag {
    let [head, b'h', b'v', b'c', b'1', rest @ ..] = &tag.body[..] else { return tag.clone() };
    let (frame, kind) = ((head >> 4 & 7) << 4 | 12, head & 15);
    let body = match kind {
        0 => [&[frame, 0, 0, 0, 0], rest].concat(),
        1 => [&[frame, 1], rest].concat(),
        3 => [&[frame, 1, 0, 0, 0], rest].concat(),
        _ => [&[frame, 2, 0, 0, 0], rest].concat(),
    };
    Tag { body, ..tag.clone() }
}

#[test]
fn gstreamer_with_b_frames_and_aac() {
    let (edge, outbox) = recording_box();
    let file: PathBuf = edge.dir().join("sent.flv");
    let pipeline = format!(
        "flvmux name=m streamable=true ! tee name=t \
         t. ! queue ! rtmp2sink location={} t. ! queue ! filesink location={} \
         videotestsrc num-buffers=150 ! video/x-raw,width=192,height=108,framerate=25/1 \
         ! x264enc speed-preset=ultrafast key-int-max=50 bframes=2 ! h264parse ! m. \
         audiotestsrc num-buffers=258 ! audio/x-raw,rate=44100,channels=2 \
         ! avenc_aac ! aacparse ! m.",
        edge.push_url("s"),
        file.display(),
    );
    run_ok(Command::new(tool("gst-launch-1.0")).arg("-q").args(pipeline.split_whitespace()));
    compare(&edge, &outbox, &file, Codecs::H264_AAC);
    assert!(FORMATS.iter().all(|format| outbox.files(&edge.stream_key("s"), format).len() == 1));
}
