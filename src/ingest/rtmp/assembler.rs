//! Tags to tracks and samples: what a publisher sends becomes calls of a [`StreamSink`].
//!
//! The tracks must be known before the first sample, but a publisher names them one by one. So
//! samples are held until both kinds are configured, or metadata says that only one comes, or
//! enough time or media has passed. A track that comes later is announced with a new full set.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use crate::domain::time::BootTime;
use crate::domain::timeline::Unroll32;
use crate::ingest::intake::{EndCause, StreamSink};
use crate::media::codec::aac::AacConfig;
use crate::media::codec::avc::AvcConfig;
use crate::media::codec::hevc::HevcConfig;
use crate::media::codec::{CodecError, VideoInfo};
use crate::media::flv::tag::{TagBody, TagError, g711_channels, parse_audio, parse_video};
use crate::wire::rtmp::amf0::Reader;

/// RTMP counts milliseconds.
const TIMESCALE: u32 = 1000;
/// Samples are held no longer than this, in arrival time and in media time.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(1);
/// Samples are held up to this size.
const HOLD_BYTES_MAX: usize = 2 << 20;
/// G.711 in FLV is always of telephone rate.
const G711_RATE: u32 = 8000;
/// What a held sample takes beside its bytes.
const HELD_SAMPLE_BYTES: usize = 128;
/// Names of tracks that are left out; a source has no more.
const LEFT_OUT_MAX: usize = 8;

/// Video or audio; a publisher has at most one track of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Video = 0,
    Audio = 1,
}

impl Kind {
    fn track_id(self) -> TrackId {
        TrackId(self as u8 + 1)
    }

    fn other(self) -> Kind {
        if self == Kind::Video { Kind::Audio } else { Kind::Video }
    }

    fn name(self) -> &'static str {
        if self == Kind::Video { "video" } else { "audio" }
    }
}

/// One kind's state.
#[derive(Debug, Default)]
struct Lane {
    track: Option<Track>,
    /// Metadata says that this kind does not come.
    absent: bool,
    time: Option<Unroll32>,
}

/// Puts one publish together.
pub(super) struct Assembler {
    sink: Box<dyn StreamSink>,
    lanes: [Lane; 2],
    left_out: Vec<String>,
    announced: bool,
    /// The tracks changed since they were last announced.
    changed: bool,
    held: Vec<Sample>,
    held_bytes: usize,
    /// Earliest and latest dts of what is held.
    held_times: Option<(i64, i64)>,
    /// Frames that came without a configuration of their codec.
    undecodable: u64,
    /// When the first media came.
    began: Option<BootTime>,
}

impl Assembler {
    pub(super) fn new(sink: Box<dyn StreamSink>) -> Self {
        Assembler {
            sink,
            lanes: Default::default(),
            left_out: Vec::new(),
            announced: false,
            changed: false,
            held: Vec::new(),
            held_bytes: 0,
            held_times: None,
            undecodable: 0,
            began: None,
        }
    }

    /// When [`tick`](Self::tick) must be called if nothing comes before; `None` when samples are
    /// not held.
    pub(super) fn held_until(&self) -> Option<BootTime> {
        let began = self.began.filter(|_| !self.announced && self.has_something())?;
        Some(BootTime(began.0.saturating_add(HOLD_MAX.as_millis() as u64)))
    }

    /// Time passed.
    pub(super) fn tick(&mut self, now: BootTime) {
        if self.held_until().is_some_and(|until| now >= until) {
            self.announce();
        }
    }

    /// A video tag body.
    ///
    /// # Errors
    /// The tag cannot be read; it is left out and the stream goes on.
    pub(super) fn video(
        &mut self,
        timestamp_ms: u32,
        body: &Bytes,
        now: BootTime,
    ) -> Result<(), TagError> {
        let tag = parse_video(body)?;
        self.take(Kind::Video, timestamp_ms, tag, 0, now);
        Ok(())
    }

    /// An audio tag body.
    ///
    /// # Errors
    /// The tag cannot be read; it is left out and the stream goes on.
    pub(super) fn audio(
        &mut self,
        timestamp_ms: u32,
        body: &Bytes,
        now: BootTime,
    ) -> Result<(), TagError> {
        let tag = parse_audio(body)?;
        self.take(Kind::Audio, timestamp_ms, tag, g711_channels(body), now);
        Ok(())
    }

    /// Script data, `onMetaData`.
    pub(super) fn script_data(&mut self, body: Bytes) {
        let mut reader = Reader::new(&body);
        let value = reader.value().and_then(|_| reader.value());
        if let Ok(Some(value)) = value {
            let names = |names: [&str; 3]| names.iter().any(|name| value.get(name).is_some());
            let has_video = names(["videocodecid", "width", "videodatarate"]);
            let has_audio = names(["audiocodecid", "audiosamplerate", "audiodatarate"]);
            self.lanes[Kind::Video as usize].absent = has_audio && !has_video;
            self.lanes[Kind::Audio as usize].absent = has_video && !has_audio;
        }
        self.sink.script_data(body);
        self.announce_if_complete();
    }

    /// The stream is over.
    pub(super) fn end(mut self, cause: EndCause) {
        if !self.announced && self.began.is_some() {
            self.announce();
        }
        self.sink.end(cause);
    }

    /// The sink's wish to end.
    pub(super) fn cancelled(&self) -> tokio_util::sync::CancellationToken {
        self.sink.cancelled()
    }

    fn take(&mut self, kind: Kind, timestamp_ms: u32, tag: TagBody, channels: u8, now: BootTime) {
        if !matches!(tag, TagBody::Ignored) {
            self.began.get_or_insert(now);
        }
        match tag {
            TagBody::Config { codec, bytes } => match track(kind, codec, bytes) {
                Ok(track) => self.configure(kind, track),
                Err(error) => self.leave_out(format!("{} ({error})", codec.name())),
            },
            TagBody::Frame { codec, key, composition_time_ms, data } => {
                if matches!(codec, Codec::PcmAlaw | Codec::PcmUlaw) {
                    let shape = Shape::Audio { sample_rate: G711_RATE, channels };
                    let id = kind.track_id();
                    let config = Bytes::new();
                    self.configure(kind, Track { id, codec, timescale: TIMESCALE, config, shape });
                }
                let dts = self.unroll(kind, timestamp_ms);
                // A frame without its configuration could never be decoded.
                let track = &self.lanes[kind as usize].track;
                if track.as_ref().is_some_and(|track| track.codec == codec) {
                    let pts = dts + i64::from(composition_time_ms);
                    self.sample(Sample { track: kind.track_id(), dts, pts, key, data });
                } else {
                    self.note_undecodable(codec);
                }
            }
            TagBody::Unsupported(name) => self.leave_out(format!("{} {name}", kind.name())),
            TagBody::Ignored => {}
        }
        self.tick(now);
    }

    /// The time of a tag. A lane's first time is the one nearest to the other lane's.
    fn unroll(&mut self, kind: Kind, timestamp_ms: u32) -> i64 {
        let other = self.lanes[kind.other() as usize].time.clone();
        let time = &mut self.lanes[kind as usize].time;
        time.get_or_insert_with(|| other.unwrap_or_default()).unroll(timestamp_ms)
    }

    fn configure(&mut self, kind: Kind, track: Track) {
        let known = &mut self.lanes[kind as usize].track;
        if known.as_ref() == Some(&track) {
            return;
        }
        if known.is_some() && !self.announced {
            // What is held belongs to the configuration before.
            self.announce();
        }
        self.lanes[kind as usize].track = Some(track);
        self.changed = true;
        self.announce_if_complete();
    }

    fn leave_out(&mut self, name: String) {
        if self.left_out.len() < LEFT_OUT_MAX && !self.left_out.contains(&name) {
            tracing::warn!(track = name, "track left out");
            self.left_out.push(name);
            self.changed = true;
            if self.announced {
                self.announce();
            }
        }
    }

    fn sample(&mut self, sample: Sample) {
        if self.announced {
            if self.changed {
                self.announce();
            }
            self.sink.sample(sample);
            return;
        }
        self.held_bytes += sample.data.len() + HELD_SAMPLE_BYTES;
        let (first, last) = self.held_times.unwrap_or((sample.dts, sample.dts));
        let (first, last) = (first.min(sample.dts), last.max(sample.dts));
        self.held_times = Some((first, last));
        self.held.push(sample);
        let media_ms = u128::from(last.abs_diff(first));
        if self.held_bytes > HOLD_BYTES_MAX || media_ms > HOLD_MAX.as_millis() {
            self.announce();
        }
    }

    fn note_undecodable(&mut self, codec: Codec) {
        self.undecodable += 1;
        if self.undecodable == 1 {
            tracing::warn!(codec = codec.name(), "frames come without a codec configuration");
        }
    }

    /// Whether there is anything to announce.
    fn has_something(&self) -> bool {
        !self.left_out.is_empty() || self.lanes.iter().any(|lane| lane.track.is_some())
    }

    fn announce_if_complete(&mut self) {
        let known = |lane: &Lane| lane.track.is_some();
        let complete = self.lanes.iter().all(|lane| known(lane) || lane.absent);
        if !self.announced && complete && self.has_something() {
            self.announce();
        }
    }

    /// Hands on the full set of tracks and what was held. Without any track there is nothing to
    /// hand on but the names of those left out.
    fn announce(&mut self) {
        let tracks: Vec<Track> = self.lanes.iter().filter_map(|lane| lane.track.clone()).collect();
        self.announced = true;
        self.changed = false;
        self.sink.tracks(&tracks, &self.left_out);
        self.held_bytes = 0;
        for sample in std::mem::take(&mut self.held) {
            self.sink.sample(sample);
        }
    }
}

/// The track that a configuration describes.
fn track(kind: Kind, codec: Codec, config: Bytes) -> Result<Track, CodecError> {
    let shape = match codec {
        Codec::H264 => video_shape(AvcConfig::parse(&config)?.video_info()),
        Codec::H265 => video_shape(HevcConfig::parse(&config)?.video_info()),
        Codec::Aac | Codec::PcmAlaw | Codec::PcmUlaw => {
            let config = AacConfig::parse(&config)?;
            Shape::Audio { sample_rate: config.sample_rate, channels: config.channels }
        }
    };
    Ok(Track { id: kind.track_id(), codec, timescale: TIMESCALE, config, shape })
}

/// A parameter set that we cannot read may still be one that players can.
fn video_shape(info: Result<VideoInfo, CodecError>) -> Shape {
    match info {
        Ok(info) => Shape::Video { width: info.width, height: info.height },
        Err(error) => {
            tracing::warn!(%error, "picture size is not known");
            Shape::Video { width: 0, height: 0 }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio_util::sync::CancellationToken;

    use super::*;

    const AVC: &[u8] = include_bytes!("../../../tests/data/codec/x264-high.avcc");

    /// What the sink was told, in short: `tracks h264+aac`, `1@40/80` (track, dts, pts) …
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl Told {
        fn push(&self, what: String) {
            self.0.lock().expect("no panic inside").push(what);
        }

        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().expect("no panic inside"))
        }
    }

    impl StreamSink for Told {
        fn cancelled(&self) -> CancellationToken {
            CancellationToken::new()
        }

        fn tracks(&mut self, tracks: &[Track], left_out: &[String]) {
            let names: Vec<_> = tracks.iter().map(|track| track.codec.name()).collect();
            let left_out: String = left_out.iter().map(|name| format!(" without {name}")).collect();
            self.push(format!("tracks {}{left_out}", names.join("+")));
        }

        fn script_data(&mut self, _: Bytes) {
            self.push("script".to_owned());
        }

        fn sample(&mut self, sample: Sample) {
            self.push(format!("{}@{}/{}", sample.track.0, sample.dts, sample.pts));
        }

        fn end(self: Box<Self>, cause: EndCause) {
            self.push(cause.to_string());
        }
    }

    /// An assembler and what is sent to it.
    struct Bench {
        assembler: Assembler,
        told: Told,
        now: BootTime,
    }

    impl Bench {
        fn new() -> Bench {
            let told = Told::default();
            let assembler = Assembler::new(Box::new(told.clone()));
            Bench { assembler, told, now: BootTime(5_000) }
        }

        fn video(&mut self, time_ms: u32, body: &[u8]) {
            let body = Bytes::copy_from_slice(body);
            self.assembler.video(time_ms, &body, self.now).expect("well formed");
        }

        fn audio(&mut self, time_ms: u32, body: &[u8]) {
            let body = Bytes::copy_from_slice(body);
            self.assembler.audio(time_ms, &body, self.now).expect("well formed");
        }

        fn avc_config(&mut self) {
            self.video(0, &[b"\x17\0\0\0\0", AVC].concat());
        }

        fn frame(&mut self, time_ms: u32) {
            self.video(time_ms, b"\x17\x01\0\0\x28frame");
        }

        fn metadata(&mut self, field: &str) {
            let field = [&[0, field.len() as u8], field.as_bytes()].concat();
            let body = [&b"\x02\0\x0aonMetaData\x03"[..], &field, b"\x05\0\0\x09"].concat();
            self.assembler.script_data(body.into());
        }
    }

    #[test]
    fn both_kinds_are_announced_before_anything_held() {
        let mut bench = Bench::new();
        bench.avc_config();
        bench.frame(0);
        bench.frame(40);
        assert!(bench.told.take().is_empty(), "the other kind may still come");
        bench.audio(10, b"\xaf\0\x12\x10");
        bench.audio(10, b"\xaf\x01frame");
        let told = bench.told.take();
        assert_eq!(told, ["tracks h264+aac", "1@0/40", "1@40/80", "2@10/10"]);
    }

    #[test]
    fn metadata_that_names_one_kind_ends_the_waiting() {
        let mut bench = Bench::new();
        bench.metadata("videocodecid");
        bench.avc_config();
        bench.frame(0);
        assert_eq!(bench.told.take(), ["script", "tracks h264", "1@0/40"]);
        // What it did not name comes all the same.
        bench.audio(10, b"\x72frame");
        assert_eq!(bench.told.take(), ["tracks h264+pcm_alaw", "2@10/10"]);
    }

    #[test]
    fn waiting_ends_after_a_second_of_media_of_arrival_or_too_much() {
        let mut bench = Bench::new();
        bench.avc_config();
        bench.frame(100);
        bench.frame(1_100);
        assert!(bench.told.take().is_empty());
        bench.frame(1_101);
        assert_eq!(bench.told.take().len(), 4);

        let mut bench = Bench::new();
        bench.avc_config();
        bench.frame(0);
        assert_eq!(bench.assembler.held_until(), Some(BootTime(6_000)));
        bench.assembler.tick(BootTime(5_999));
        assert!(bench.told.take().is_empty());
        bench.assembler.tick(BootTime(6_000));
        assert_eq!(bench.told.take(), ["tracks h264", "1@0/40"]);
        assert_eq!(bench.assembler.held_until(), None);

        let mut bench = Bench::new();
        bench.avc_config();
        for _ in 0..HOLD_BYTES_MAX / HELD_SAMPLE_BYTES {
            bench.frame(0);
        }
        assert!(!bench.told.take().is_empty(), "many small samples are bounded too");
    }

    #[test]
    fn a_short_stream_is_handed_on_at_its_end() {
        let mut bench = Bench::new();
        bench.avc_config();
        bench.frame(0);
        let Bench { assembler, told, .. } = bench;
        assembler.end(EndCause::Finished);
        assert_eq!(told.take(), ["tracks h264", "1@0/40", "finished"]);
    }

    #[test]
    fn a_new_configuration_is_announced_before_its_samples() {
        let mut bench = Bench::new();
        bench.audio(0, b"\xaf\0\x12\x10");
        bench.audio(0, b"\xaf\x01a");
        bench.audio(23, b"\xaf\0\x11\x90");
        assert_eq!(bench.told.take(), ["tracks aac", "2@0/0"], "what was held is of the old one");
        bench.audio(23, b"\xaf\0\x11\x90");
        bench.audio(23, b"\xaf\x01b");
        bench.audio(46, b"\xaf\0\x11\x90");
        bench.audio(46, b"\xaf\x01c");
        assert_eq!(bench.told.take(), ["tracks aac", "2@23/23", "2@46/46"]);
        bench.audio(69, b"\x82d");
        assert_eq!(bench.told.take(), ["tracks pcm_mulaw", "2@69/69"]);
    }

    #[test]
    fn what_cannot_be_carried_is_named_once() {
        let mut bench = Bench::new();
        bench.metadata("videocodecid");
        bench.audio(0, b"\x2fmp3");
        bench.audio(26, b"\x2fmp3");
        bench.avc_config();
        bench.frame(0);
        assert_eq!(bench.told.take(), ["script", "tracks h264 without audio mp3", "1@0/40"]);
        bench.audio(50, b"\x90Opus\x01");
        let both = "tracks h264 without audio mp3 without audio Opus";
        assert_eq!(bench.told.take(), [both]);
    }

    #[test]
    fn frames_without_configuration_do_not_pass_and_cost_no_waiting() {
        let mut bench = Bench::new();
        bench.frame(0);
        assert_eq!(bench.assembler.held_until(), None, "there is nothing to announce");
        bench.avc_config();
        bench.video(40, b"\x1c\x01\0\0\0another codec");
        bench.frame(80);
        bench.assembler.tick(BootTime(6_000));
        assert_eq!(bench.told.take(), ["tracks h264", "1@80/120"]);
    }

    #[test]
    fn time_wraps_for_both_tracks_alike() {
        let mut bench = Bench::new();
        bench.avc_config();
        bench.frame(u32::MAX - 19);
        // Audio comes for the first time after the wrap, and lies 30 ms behind, not 49 days before.
        bench.audio(10, b"\x72a");
        bench.frame(20);
        let wrap = 1i64 << 32;
        let expected = [
            "tracks h264+pcm_alaw".to_owned(),
            format!("1@{}/{}", wrap - 20, wrap + 20),
            format!("2@{0}/{0}", wrap + 10),
            format!("1@{}/{}", wrap + 20, wrap + 60),
        ];
        assert_eq!(bench.told.take(), expected);
    }
}
