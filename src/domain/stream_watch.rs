//! Watches an incoming stream for what event 321 reports (`callbacks.md` section 7): at the end of
//! a report interval of 5 s, what was abnormal in it, one entry a type. Pure; fed with tracks and
//! samples as they arrive, before anything repairs their times. Takes no memory while it watches.
//!
//! Seen from samples: times that go back or jump by more than 1 s, frames that arrive more than
//! 3 s apart (audio too: of the two figures that the contract has, the one that is not usual on
//! mobile links), changed codecs, frames without a codec configuration, groups of pictures longer
//! than 10 s. Only ingest can know of chunks over 8192 bytes, odd codecs and headers that cannot be
//! parsed: it says so with [`StreamWatch::told`]. Audio times too far apart (12) and a low frame
//! rate (15) have no limit in the contract and are not judged.

use crate::domain::limits::TRACKS_MAX;
use crate::domain::sample::{Codec, Sample, Track, TrackId};
use crate::domain::time::{BootTime, Instant, UnixMillis, rescale};

/// Length of a report interval, in milliseconds.
pub const REPORT_INTERVAL_MS: u64 = 5_000;
/// Times that step forward by more than this jump, in milliseconds.
const JUMP_MS: i64 = 1_000;
/// Frames of one track that arrive further apart than this are told, in milliseconds.
const FRAMES_APART_MS: u64 = 3_000;
/// A longer group of pictures is told, in milliseconds of media.
const GOP_MS: i64 = 10_000;
/// Occurrences of one type whose time and figure are kept in an interval; of more only the count.
const DETAILS_MAX: usize = 4;

/// What can be abnormal, by its number in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum StreamTrouble {
    /// Video time goes back; the figure is by how many milliseconds.
    VideoBack = 1,
    /// Audio time goes back; the figure is by how many milliseconds.
    AudioBack = 2,
    /// Video time jumps; the figure is by how many milliseconds.
    VideoJump = 3,
    /// Audio time jumps; the figure is by how many milliseconds.
    AudioJump = 4,
    /// An RTMP chunk is larger than 8192 bytes; the figure is its size.
    LargeChunk = 5,
    /// Video frames arrive far apart; the figure is how many milliseconds.
    VideoFramesApart = 6,
    /// Audio frames arrive far apart; the figure is how many milliseconds.
    AudioFramesApart = 7,
    /// Another video codec; the figure is its number on flash.
    VideoCodecChanged = 8,
    /// Another audio codec; the figure is its number on flash.
    AudioCodecChanged = 9,
    /// A video frame before its codec header; the figure is its time in milliseconds.
    VideoBeforeHeader = 10,
    /// An audio frame before its codec header; the figure is its time in milliseconds.
    AudioBeforeHeader = 11,
    /// A codec that the box does not carry; the figure is the number in its container.
    OddCodec = 13,
    /// A video header cannot be parsed; the figure is its length in bytes.
    BadVideoHeader = 14,
    /// A group of pictures is long; the figure is how many milliseconds, so far or in all.
    LongGop = 16,
}

impl StreamTrouble {
    /// Every one.
    pub const ALL: [StreamTrouble; 14] = [
        StreamTrouble::VideoBack,
        StreamTrouble::AudioBack,
        StreamTrouble::VideoJump,
        StreamTrouble::AudioJump,
        StreamTrouble::LargeChunk,
        StreamTrouble::VideoFramesApart,
        StreamTrouble::AudioFramesApart,
        StreamTrouble::VideoCodecChanged,
        StreamTrouble::AudioCodecChanged,
        StreamTrouble::VideoBeforeHeader,
        StreamTrouble::AudioBeforeHeader,
        StreamTrouble::OddCodec,
        StreamTrouble::BadVideoHeader,
        StreamTrouble::LongGop,
    ];

    /// `type`.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// `type_desc_en`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            StreamTrouble::VideoBack => "video timestamp goes back",
            StreamTrouble::AudioBack => "audio timestamp goes back",
            StreamTrouble::VideoJump => "video timestamp jumps",
            StreamTrouble::AudioJump => "audio timestamp jumps",
            StreamTrouble::LargeChunk => "rtmp chunk too large",
            StreamTrouble::VideoFramesApart => "video frame arrive interval too long",
            StreamTrouble::AudioFramesApart => "audio frame arrive interval too long",
            StreamTrouble::VideoCodecChanged => "video codec changed",
            StreamTrouble::AudioCodecChanged => "audio codec changed",
            StreamTrouble::VideoBeforeHeader => "video frame before its header",
            StreamTrouble::AudioBeforeHeader => "audio frame before its header",
            StreamTrouble::OddCodec => "uncommon codec",
            StreamTrouble::BadVideoHeader => "video header cannot be parsed",
            StreamTrouble::LongGop => "gop too long",
        }
    }

    /// `desc` of one occurrence with its figure.
    #[must_use]
    pub fn describe(self, figure: i64) -> String {
        match self {
            StreamTrouble::VideoFramesApart
            | StreamTrouble::AudioFramesApart
            | StreamTrouble::LongGop => format!("interval={figure}(msec)"),
            StreamTrouble::VideoBack
            | StreamTrouble::AudioBack
            | StreamTrouble::VideoJump
            | StreamTrouble::AudioJump => format!("diff={figure}(msec)"),
            StreamTrouble::VideoBeforeHeader | StreamTrouble::AudioBeforeHeader => {
                format!("timestamp={figure}(msec)")
            }
            StreamTrouble::LargeChunk | StreamTrouble::BadVideoHeader => {
                format!("size={figure}(byte)")
            }
            StreamTrouble::VideoCodecChanged | StreamTrouble::AudioCodecChanged => {
                let codec = u8::try_from(figure).ok().and_then(Codec::from_number);
                format!("codec={}", codec.map_or("unknown", Codec::name))
            }
            StreamTrouble::OddCodec => format!("codec={figure}"),
        }
    }

    fn of(self, audio: StreamTrouble, track: &Track) -> StreamTrouble {
        if track.is_video() { self } else { audio }
    }

    fn place(self) -> usize {
        StreamTrouble::ALL.iter().position(|kind| *kind == self).expect("every one is in ALL")
    }
}

/// What was seen of one type in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// How often.
    pub count: u32,
    details: [(UnixMillis, i64); DETAILS_MAX],
}

impl Seen {
    /// When, and the figure of each, as far as they are kept (the first 4).
    pub fn details(&self) -> impl Iterator<Item = (UnixMillis, i64)> + '_ {
        self.details.iter().copied().take(self.count as usize)
    }
}

/// What was abnormal in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamReport([Seen; StreamTrouble::ALL.len()]);

impl StreamReport {
    /// Adds an occurrence.
    pub fn add(&mut self, kind: StreamTrouble, at: UnixMillis, figure: i64) {
        let seen = &mut self.0[kind.place()];
        if let Some(detail) = seen.details.get_mut(seen.count as usize) {
            *detail = (at, figure);
        }
        seen.count = seen.count.saturating_add(1);
    }

    /// The types that were seen.
    pub fn iter(&self) -> impl Iterator<Item = (StreamTrouble, &Seen)> {
        StreamTrouble::ALL.into_iter().zip(&self.0).filter(|(_, seen)| seen.count > 0)
    }

    /// Whether nothing was abnormal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// What is remembered of a track.
#[derive(Debug, Clone, Copy)]
struct Watched {
    id: TrackId,
    codec: Codec,
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    dts_ms: i64,
    arrived: BootTime,
    key_ms: i64,
    long_gop_told: bool,
}

/// Watches one stream.
#[derive(Debug, Default)]
pub struct StreamWatch {
    tracks: [Option<Watched>; TRACKS_MAX],
    report: StreamReport,
    began: Option<BootTime>,
}

impl StreamWatch {
    /// Watches from now on.
    #[must_use]
    pub fn new() -> Self {
        StreamWatch::default()
    }

    /// A track is announced, or announced anew: compared with what it was before.
    pub fn track(&mut self, track: &Track, now: Instant) {
        let place = self.place(track);
        let before = place.and_then(|place| self.tracks[place]);
        if let Some(before) = before.filter(|before| before.codec != track.codec) {
            // A track that changes between picture and sound is another track.
            if before.codec.is_video() == track.is_video() {
                let kind =
                    StreamTrouble::VideoCodecChanged.of(StreamTrouble::AudioCodecChanged, track);
                self.told(kind, i64::from(track.codec as u8), now);
            }
        }
        if let Some(place) = place {
            let last = before.and_then(|before| before.last);
            self.tracks[place] = Some(Watched { id: track.id, codec: track.codec, last });
        }
    }

    /// A sample arrived.
    pub fn sample(&mut self, track: &Track, sample: &Sample, now: Instant) {
        let dts_ms = rescale(sample.dts, track.timescale, 1_000);
        let needs_header = matches!(track.codec, Codec::H264 | Codec::H265 | Codec::Aac);
        if needs_header && track.config.is_empty() {
            let kind = StreamTrouble::VideoBeforeHeader.of(StreamTrouble::AudioBeforeHeader, track);
            self.told(kind, dts_ms, now);
        }
        let Some(place) = self.place(track) else { return };
        let before = self.tracks[place].and_then(|watched| watched.last);
        let mut last = Last { dts_ms, arrived: now.boot, key_ms: dts_ms, long_gop_told: false };
        if let Some(before) = before {
            self.compare(track, dts_ms, before, now);
            if track.is_video() {
                self.watch_gop(&mut last, before, sample.key, now);
            }
        }
        self.tracks[place] = Some(Watched { id: track.id, codec: track.codec, last: Some(last) });
    }

    /// Ingest has seen something that only it can see.
    pub fn told(&mut self, kind: StreamTrouble, figure: i64, now: Instant) {
        self.began.get_or_insert(now.boot);
        self.report.add(kind, now.wall.unix, figure);
    }

    /// The report, if an interval is over and something was abnormal in it. To be asked at least
    /// once a second, whether samples come or not.
    pub fn report(&mut self, now: Instant) -> Option<StreamReport> {
        let began = *self.began.get_or_insert(now.boot);
        if now.boot.0.saturating_sub(began.0) < REPORT_INTERVAL_MS {
            return None;
        }
        self.began = Some(now.boot);
        let report = std::mem::take(&mut self.report);
        (!report.is_empty()).then_some(report)
    }

    /// The report of an interval that the end of the stream cuts short.
    pub fn end(&mut self) -> Option<StreamReport> {
        let report = std::mem::take(&mut self.report);
        (!report.is_empty()).then_some(report)
    }

    fn compare(&mut self, track: &Track, dts_ms: i64, before: Last, now: Instant) {
        let step_ms = dts_ms.saturating_sub(before.dts_ms);
        if step_ms < 0 {
            let kind = StreamTrouble::VideoBack.of(StreamTrouble::AudioBack, track);
            self.told(kind, step_ms, now);
        } else if step_ms > JUMP_MS {
            let kind = StreamTrouble::VideoJump.of(StreamTrouble::AudioJump, track);
            self.told(kind, step_ms, now);
        }
        let apart_ms = now.boot.0.saturating_sub(before.arrived.0);
        if apart_ms > FRAMES_APART_MS {
            let kind = StreamTrouble::VideoFramesApart.of(StreamTrouble::AudioFramesApart, track);
            self.told(kind, i64::try_from(apart_ms).unwrap_or(i64::MAX), now);
        }
    }

    /// A long group is told once: as soon as it is too long.
    fn watch_gop(&mut self, last: &mut Last, before: Last, key: bool, now: Instant) {
        let gop_ms = last.dts_ms.saturating_sub(before.key_ms);
        let too_long = gop_ms > GOP_MS && !before.long_gop_told;
        if too_long {
            self.told(StreamTrouble::LongGop, gop_ms, now);
        }
        // After a step back the group counts from there.
        if !key && gop_ms >= 0 {
            last.key_ms = before.key_ms;
            last.long_gop_told = before.long_gop_told || too_long;
        }
    }

    /// Where a track is remembered; `None` for one more than a session may have.
    fn place(&self, track: &Track) -> Option<usize> {
        let known = |slot: &Option<Watched>| slot.is_some_and(|watched| watched.id == track.id);
        let free = || self.tracks.iter().position(Option::is_none);
        self.tracks.iter().position(known).or_else(free)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::sample::Shape;
    use crate::domain::time::{ClockQuality, WallTime};

    fn at(boot_ms: u64) -> Instant {
        let unix = UnixMillis(1_700_000_000_000 + i64::try_from(boot_ms).expect("small"));
        let wall = WallTime { unix, quality: ClockQuality::Trusted };
        Instant { boot: BootTime(boot_ms), wall }
    }

    fn video() -> Track {
        let shape = Shape::Video { width: 640, height: 360 };
        let config = Bytes::from_static(b"avcC");
        Track { id: TrackId(1), codec: Codec::H264, timescale: 90_000, config, shape }
    }

    fn audio() -> Track {
        let shape = Shape::Audio { sample_rate: 48_000, channels: 2 };
        let config = Bytes::from_static(b"asc");
        Track { id: TrackId(2), codec: Codec::Aac, timescale: 1_000, config, shape }
    }

    fn sample(track: &Track, dts_ms: i64, key: bool) -> Sample {
        let dts = dts_ms * i64::from(track.timescale) / 1_000;
        Sample { track: track.id, dts, pts: dts, key, data: Bytes::new() }
    }

    /// Feeds (arrival, dts, key) and gives what was seen: type, count and figures.
    fn seen(track: &Track, samples: &[(u64, i64, bool)]) -> Vec<(u8, u32, Vec<i64>)> {
        let mut watch = StreamWatch::new();
        watch.track(track, at(0));
        for (arrived, dts_ms, key) in samples {
            watch.sample(track, &sample(track, *dts_ms, *key), at(*arrived));
        }
        let report = watch.end().unwrap_or_default();
        let figures = |seen: &Seen| seen.details().map(|(_, figure)| figure).collect();
        report.iter().map(|(kind, seen)| (kind.number(), seen.count, figures(seen))).collect()
    }

    #[test]
    fn a_healthy_stream_is_not_reported() {
        let frames: Vec<(u64, i64, bool)> = (0..600)
            .map(|i| (i * 40, i64::try_from(i).expect("small") * 40, i % 50 == 0))
            .collect();
        assert_eq!(seen(&video(), &frames), []);
        let mut watch = StreamWatch::new();
        for (arrived, dts_ms, key) in frames {
            watch.sample(&video(), &sample(&video(), dts_ms, key), at(arrived));
            assert_eq!(watch.report(at(arrived)), None);
        }
    }

    #[test]
    fn times_that_go_back_or_jump_are_told_by_track() {
        let odd = [(0, 0, true), (40, 40, false), (80, 20, false), (120, 1_021, false)];
        assert_eq!(seen(&video(), &odd), [(1, 1, vec![-20]), (3, 1, vec![1_001])]);
        assert_eq!(seen(&audio(), &odd), [(2, 1, vec![-20]), (4, 1, vec![1_001])]);
        let even = [(0, 0, true), (40, 1_000, false), (80, 1_000, false)];
        assert_eq!(seen(&video(), &even), []);
    }

    #[test]
    fn frames_far_apart_and_long_groups_are_told() {
        let late = [(0, 0, true), (3_046, 40, false), (6_046, 80, false)];
        assert_eq!(seen(&video(), &late), [(6, 1, vec![3_046])]);
        assert_eq!(seen(&audio(), &late), [(7, 1, vec![3_046])]);
        // Ten and a half seconds without a key frame: once. After one it counts anew.
        let long: Vec<(u64, i64, bool)> =
            (0..22).map(|i| (i * 500, i64::try_from(i).expect("small") * 500, i == 0)).collect();
        assert_eq!(seen(&video(), &long), [(16, 1, vec![10_500])]);
        assert_eq!(seen(&audio(), &long), []);
        let keyed: Vec<(u64, i64, bool)> = (0..60)
            .map(|i| (i * 500, i64::try_from(i).expect("small") * 500, i % 20 == 0))
            .collect();
        assert_eq!(seen(&video(), &keyed), []);
    }

    #[test]
    fn changed_codecs_and_missing_headers_are_told() {
        let mut watch = StreamWatch::new();
        watch.track(&video(), at(0));
        watch.track(&Track { codec: Codec::H265, ..video() }, at(1));
        watch.track(&audio(), at(2));
        watch.track(&Track { codec: Codec::PcmAlaw, ..audio() }, at(3));
        let bare = Track { config: Bytes::new(), codec: Codec::H265, ..video() };
        watch.sample(&bare, &sample(&bare, 7, true), at(4));
        let alaw = Track { config: Bytes::new(), codec: Codec::PcmAlaw, ..audio() };
        watch.sample(&alaw, &sample(&alaw, 7, true), at(5));
        let report = watch.end().expect("something");
        let told: Vec<(u8, String)> = report
            .iter()
            .map(|(kind, seen)| {
                let (_, figure) = seen.details().next().expect("one");
                (kind.number(), kind.describe(figure))
            })
            .collect();
        let expected = [(8, "codec=hevc"), (9, "codec=pcm_alaw"), (10, "timestamp=7(msec)")];
        assert_eq!(told, expected.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn a_report_comes_at_the_end_of_its_interval_and_is_bounded() {
        let mut watch = StreamWatch::new();
        assert_eq!(watch.report(at(0)), None);
        for i in 0..1_000 {
            watch.told(StreamTrouble::LargeChunk, 9_000, at(i));
        }
        assert_eq!(watch.report(at(4_999)), None);
        let report = watch.report(at(5_000)).expect("over");
        let (kind, seen) = report.iter().next().expect("one");
        assert_eq!((kind.number(), seen.count, seen.details().count()), (5, 1_000, 4));
        assert_eq!(watch.report(at(10_000)), None);
    }

    #[test]
    fn more_tracks_than_allowed_are_left_alone() {
        let mut watch = StreamWatch::new();
        for id in 0..40 {
            let track = Track { id: TrackId(id), ..video() };
            watch.track(&track, at(0));
            watch.sample(&track, &sample(&track, 0, true), at(0));
        }
        assert_eq!(watch.end(), None);
    }
}
