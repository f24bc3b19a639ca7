//! One clip in all formats, against what was sent.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::ffmpeg::Ffmpeg;
use crate::support::outbox::{Outbox, joined};
use crate::support::scratch;
use crate::support::units::{Audio, Media, Unit, Video, assert_same, read};

/// A delivery takes a sync and a copy.
pub const DELIVERED_WITHIN: Duration = Duration::from_secs(30);
/// Ticks per second of RTMP and FLV.
pub const MS: i64 = 1_000;
/// Ticks per second of MPEG-TS.
pub const TS: i64 = 90_000;

/// What a stream is made of.
#[derive(Debug, Clone, Copy)]
pub struct Codecs {
    pub video: Option<Video>,
    pub audio: Option<Audio>,
}

impl Codecs {
    pub const H264_AAC: Codecs = Codecs { video: Some(Video::H264), audio: Some(Audio::Aac) };
    pub const H265_AAC: Codecs = Codecs { video: Some(Video::H265), audio: Some(Audio::Aac) };

    /// The system's ffmpeg knows no H.265 in FLV.
    pub fn reader(self) -> Ffmpeg {
        if self.video == Some(Video::H265) { Ffmpeg::Newest } else { Ffmpeg::System }
    }

    #[track_caller]
    pub fn read(self, path: &Path) -> Media {
        let media = read(self.reader(), path, self.video, self.audio);
        let what = path.display();
        assert_eq!(media.video.units.is_empty(), self.video.is_none(), "pictures of {what}");
        assert_eq!(media.audio.units.is_empty(), self.audio.is_none(), "sound of {what}");
        media
    }
}

/// What of a stream is kept: from the first key frame on, sound too.
pub fn from_first_key(mut sent: Media) -> Media {
    let first = sent.video.units.iter().find(|unit| unit.key).map_or(0, |unit| unit.place);
    sent.video.units.retain(|unit| unit.place >= first);
    sent.audio.units.retain(|unit| unit.place >= first);
    sent
}

/// Both tracks with times in other ticks: `time` maps ticks and ticks per second.
pub fn timed(media: &Media, time: impl Fn(i64, i64) -> i64) -> Media {
    let mut media = media.clone();
    for track in [&mut media.video, &mut media.audio] {
        for unit in &mut track.units {
            *unit = unit.at(time(unit.dts, track.ticks_per_s), time(unit.pts, track.ticks_per_s));
        }
    }
    media
}

/// The clip's first decoding time, in ticks per second of its own.
pub fn first_dts(media: &Media) -> i64 {
    let tracks = [&media.video, &media.audio];
    tracks.into_iter().flat_map(|track| &track.units).map(|unit| unit.dts).min().expect("units")
}

#[track_caller]
pub fn assert_same_media(what: &str, seen: &Media, sent: &Media) {
    for (kind, seen, sent) in
        [("video", &seen.video, &sent.video), ("audio", &seen.audio, &sent.audio)]
    {
        if !(seen.units.is_empty() && sent.units.is_empty()) {
            assert_same(&format!("{what} {kind}"), &seen.units, &sent.units);
        }
    }
}

/// Waits for the one file of each format and compares it with what was sent over RTMP, in
/// milliseconds.
#[track_caller]
pub fn assert_delivered(outbox: &Outbox, stream: &str, codecs: Codecs, sent: &Media) {
    let one = |format: &str| {
        let files = outbox.wait(stream, format, 1, DELIVERED_WITHIN);
        assert_eq!(files.len(), 1, "{files:?}");
        codecs.reader().assert_decodes(&files[0]);
        files.into_iter().next().expect("one")
    };
    assert_same_media("flv", &codecs.read(&one("flv")), sent);

    let mp4 = codecs.read(&one("mp4"));
    let origin = first_dts(sent);
    assert!(mp4.video.units.is_empty() || mp4.video.ticks_per_s == MS, "{:?}", mp4.video);
    assert_same_media("mp4", &in_ms(&mp4), &timed(sent, |ticks, _| ticks - origin));

    let scratch = scratch("joined");
    let ts = codecs.read(&joined(&one("hls"), scratch.path()));
    assert_same_media("hls", &ts, &timed(sent, |ms, _| ms * TS / MS));

    if codecs.audio == Some(Audio::Aac) {
        assert_frames("aac", &one("aac"), &sent.audio.units);
    }
}

/// A file of frames without times.
#[track_caller]
pub fn assert_frames(what: &str, path: &Path, sent: &[Unit]) {
    let seen = read(Ffmpeg::System, path, None, Some(Audio::Aac)).audio.units;
    let untimed = |units: &[Unit]| -> Vec<Unit> {
        units.iter().map(|unit| Unit { key: true, ..unit.at(0, 0) }).collect()
    };
    assert_same(what, &untimed(&seen), &untimed(sent));
}

/// ffmpeg counts the time of sound in samples; the file counts it in milliseconds.
fn in_ms(media: &Media) -> Media {
    timed(media, |ticks, per_s| {
        assert_eq!(per_s, MS, "the ticks of the source are kept");
        ticks
    })
}

/// Whether a file holds these bytes, such as the codec configuration that was sent.
#[track_caller]
pub fn assert_holds(path: &Path, bytes: &[u8]) {
    let file = fs::read(path).expect("the file can be read");
    assert!(
        file.windows(bytes.len()).any(|window| window == bytes),
        "{} has not the configuration that was sent",
        path.display()
    );
}
