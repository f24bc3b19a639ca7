//! Frames of a camera in, tracks and samples out: decoding times, one time axis, descriptions.
//! Pure: what comes out depends on the order and content of what went in, not on when.
//!
//! At the start frames are held until every track is described and has a frame and, with several
//! tracks, a sender report of each has come to align them by; at most for [`HOLD_MS`] of media
//! ([`HOLD_UNTOLD_MS`] if session control told no common zero) or [`HOLD_BYTES_MAX`]. A track
//! that shows up later joins the axis then; its tracks are announced again. After the start only
//! the few pictures stay back that [`DecodeOrder`] needs at the start of a stretch.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::domain::decode_order::DecodeOrder;
pub(super) use crate::domain::handover::Output;
use crate::domain::origin::{self, SenderReport, TrackClock};
use crate::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use crate::domain::time::rescale;

/// Media time that is held to wait for tracks and sender reports, in milliseconds.
const HOLD_MS: i64 = 500;
/// The same when each track's zero is only its first packet, in milliseconds.
const HOLD_UNTOLD_MS: i64 = 1_500;
/// Bytes that are held at the start, and that wait for their dts, at most (and one frame more).
const HOLD_BYTES_MAX: usize = 2 << 20;
/// Frames that are held at the start.
const HOLD_FRAMES_MAX: usize = 1_024;
/// Room before the first sample for tracks that have none yet, in milliseconds.
const HEADROOM_MS: u32 = 1_000;

/// What a track needs to be announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    /// Codec configuration, see [`Codec`].
    pub(super) config: Bytes,
    /// Picture or sound.
    pub(super) shape: Shape,
    /// Reorder depth that a video stream states.
    pub(super) reorder_frames: Option<u8>,
}

/// A frame as the camera sent it. Times are RTP time, wrap unrolled.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Presentation time.
    pub(super) rtp: i64,
    /// What session control calls zero.
    pub(super) zero: i64,
    /// Decoding can start here.
    pub(super) key: bool,
    /// The coded bytes.
    pub(super) data: Bytes,
}

/// One track on its way.
#[derive(Debug)]
struct Lane {
    id: TrackId,
    codec: Codec,
    timescale: u32,
    format: Option<Format>,
    /// Of video.
    order: DecodeOrder,
    /// Pictures without dts yet.
    waiting: VecDeque<Frame>,
    waiting_bytes: usize,
    /// The zero, and whether it is more than the first packet's time.
    zero: Option<(i64, bool)>,
    /// The first sender report, by which the tracks are aligned.
    report: Option<SenderReport>,
    /// The newest: the sender's two clocks may drift apart by seconds a day.
    newest_report: Option<SenderReport>,
    /// Least and greatest dts seen.
    extent: Option<(i64, i64)>,
    origin: Option<i64>,
    /// Whole wraps added after time fell below the origin.
    lift: i64,
}

/// A frame with its dts.
#[derive(Debug)]
struct Timed {
    lane: usize,
    dts: i64,
    frame: Frame,
}

/// The state of one session's tracks.
#[derive(Debug)]
pub(super) struct Assembly {
    lanes: Vec<Lane>,
    left_out: Vec<String>,
    /// Frames of the start, while not aligned.
    held: Vec<Timed>,
    held_bytes: usize,
    aligned: bool,
    outputs: VecDeque<Output>,
}

impl Assembly {
    /// For tracks with these codecs and clock rates; `left_out` says what else the camera has.
    pub(super) fn new(tracks: &[(Codec, u32)], left_out: Vec<String>) -> Self {
        let lanes = (1..)
            .zip(tracks)
            .map(|(number, (codec, timescale))| Lane::new(TrackId(number), *codec, *timescale))
            .collect();
        Assembly {
            lanes,
            left_out,
            held: Vec::new(),
            held_bytes: 0,
            aligned: false,
            outputs: VecDeque::new(),
        }
    }

    /// Describes a track: before its first frame, and again before the first that it is true of.
    pub(super) fn describe(&mut self, lane: usize, format: Format) {
        if self.lanes[lane].format.as_ref() == Some(&format) {
            return;
        }
        let state = &self.lanes[lane];
        if state.extent.is_some() || !state.waiting.is_empty() {
            // What came before was coded the old way: let it out under the old description.
            self.lanes[lane].order.flush();
            self.collect(lane);
            self.align(true);
        }
        self.lanes[lane].order.restate(format.reorder_frames);
        self.lanes[lane].format = Some(format);
        if self.aligned {
            self.announce();
        }
    }

    /// Takes a sender report; only the first of a track counts for where its time lies.
    pub(super) fn report(&mut self, lane: usize, report: SenderReport) {
        if report.ntp != 0 {
            self.lanes[lane].report.get_or_insert(report);
            self.lanes[lane].newest_report = Some(report);
            self.align(false);
        }
    }

    /// Takes a frame; `false` if its track is not described yet: then it is of no use.
    pub(super) fn frame(&mut self, lane: usize, frame: Frame) -> bool {
        let state = &mut self.lanes[lane];
        state.zero.get_or_insert((frame.zero, frame.rtp != frame.zero));
        if state.format.is_none() {
            return false;
        }
        if !state.codec.is_video() {
            self.timed(Timed { lane, dts: frame.rtp, frame });
            return true;
        }
        state.order.push(frame.rtp);
        state.waiting_bytes += frame.data.len();
        state.waiting.push_back(frame);
        if state.waiting_bytes > HOLD_BYTES_MAX {
            state.order.flush();
        }
        self.collect(lane);
        true
    }

    /// The stream is over: lets out what is held.
    pub(super) fn finish(&mut self) {
        for lane in 0..self.lanes.len() {
            self.lanes[lane].order.flush();
            self.collect(lane);
        }
        self.align(true);
    }

    /// The sender's clock (NTP, 32.32 fixed point) where samples of the first track of pictures, or
    /// else of the first track, have 0, by its newest report.
    pub(super) fn clock_at_zero(&self) -> Option<u64> {
        let video = self.lanes.iter().find(|lane| lane.codec.is_video());
        let lane = video.or(self.lanes.first())?;
        let (report, origin) = (lane.newest_report?, lane.origin?);
        let ticks = i128::from(origin) - i128::from(report.rtp);
        let apart = (ticks << 32).div_euclid(i128::from(lane.timescale.max(1)));
        Some(report.ntp.wrapping_add_signed(i64::try_from(apart).ok()?))
    }

    /// What has come out.
    pub(super) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes the waiting pictures whose dts are known by now.
    fn collect(&mut self, lane: usize) {
        while let Some(dts) = self.lanes[lane].order.pop() {
            let frame = self.lanes[lane].waiting.pop_front().expect("one dts for each picture");
            self.lanes[lane].waiting_bytes -= frame.data.len();
            self.timed(Timed { lane, dts, frame });
        }
    }

    fn timed(&mut self, timed: Timed) {
        let extent = &mut self.lanes[timed.lane].extent;
        let (low, high) = extent.unwrap_or((timed.dts, timed.dts));
        *extent = Some((low.min(timed.dts), high.max(timed.dts)));
        if self.aligned {
            self.emit(timed);
        } else {
            self.held_bytes += timed.frame.data.len();
            self.held.push(timed);
            self.align(false);
        }
    }

    /// Starts the output, if it is time to.
    fn align(&mut self, force: bool) {
        if self.aligned || self.held.is_empty() || !(force || self.is_ready()) {
            return;
        }
        let seen: Vec<usize> =
            (0..self.lanes.len()).filter(|lane| self.lanes[*lane].clock().is_some()).collect();
        let clocks: Vec<TrackClock> =
            seen.iter().filter_map(|lane| self.lanes[*lane].clock()).collect();
        let headroom = if seen.len() < self.lanes.len() { HEADROOM_MS } else { 0 };
        let alignment = origin::align(&clocks, headroom);
        self.aligned = true;
        self.announce();
        for (lane, origin) in seen.into_iter().zip(alignment.origins) {
            self.lanes[lane].origin = Some(origin);
            self.outputs.push_back(Output::Origin(self.lanes[lane].id, origin));
        }
        self.held_bytes = 0;
        for timed in std::mem::take(&mut self.held) {
            self.emit(timed);
        }
    }

    /// Whether all is there to align by, or nothing more may be held.
    fn is_ready(&self) -> bool {
        let complete = self.lanes.iter().all(|lane| lane.extent.is_some());
        let reported = self.lanes.len() < 2 || self.lanes.iter().all(|lane| lane.report.is_some());
        let told = self.lanes.iter().any(|lane| lane.zero.is_some_and(|(_, told)| told));
        let bound_ms = if told { HOLD_MS } else { HOLD_UNTOLD_MS };
        complete && reported
            || self.held_bytes > HOLD_BYTES_MAX
            || self.held.len() >= HOLD_FRAMES_MAX
            || self.lanes.iter().any(|lane| lane.extent_ms() >= bound_ms)
    }

    fn announce(&mut self) {
        let tracks = self.lanes.iter().filter_map(Lane::track).collect();
        let nameless = self.lanes.iter().filter(|lane| lane.format.is_none());
        let left_out = self
            .left_out
            .iter()
            .cloned()
            .chain(nameless.map(|lane| {
                format!("{} (track {}): not described yet", lane.codec.name(), lane.id.0)
            }))
            .collect();
        self.outputs.push_back(Output::Tracks(tracks, left_out));
    }

    /// Hands a frame on, on the common axis.
    fn emit(&mut self, timed: Timed) {
        let origin = self.origin_of(timed.lane);
        let lane = &mut self.lanes[timed.lane];
        let dts = timed.dts.saturating_sub(origin);
        // Below zero there is nothing to store; a wrap up is the same RTP time (a new timeline).
        let below = dts.saturating_add(lane.lift).saturating_neg();
        if below > 0 {
            let wraps = (below >> 32).saturating_add(1);
            lane.lift = lane.lift.saturating_add(wraps.saturating_mul(1 << 32));
        }
        self.outputs.push_back(Output::Sample(Sample {
            track: lane.id,
            dts: dts.saturating_add(lane.lift),
            pts: timed.frame.rtp.saturating_sub(origin).saturating_add(lane.lift),
            key: timed.frame.key,
            data: timed.frame.data,
        }));
    }

    /// The origin of a lane; one that has none yet joins the axis of one that has.
    fn origin_of(&mut self, lane: usize) -> i64 {
        if let Some(origin) = self.lanes[lane].origin {
            return origin;
        }
        let reference = self.lanes.iter().find_map(|other| {
            let (_, latest) = other.extent?;
            Some((TrackClock { sample: latest, ..other.clock()? }, other.origin?))
        });
        let late = self.lanes[lane].clock();
        let origin = match (reference, late) {
            (Some((reference, at)), Some(late)) => origin::join(&reference, at, &late),
            (_, late) => late.map_or(0, |late| late.sample),
        };
        self.lanes[lane].origin = Some(origin);
        self.outputs.push_back(Output::Origin(self.lanes[lane].id, origin));
        origin
    }
}

impl Lane {
    fn new(id: TrackId, codec: Codec, timescale: u32) -> Self {
        Lane {
            id,
            codec,
            timescale,
            format: None,
            order: DecodeOrder::new(timescale, None),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            zero: None,
            report: None,
            newest_report: None,
            extent: None,
            origin: None,
            lift: 0,
        }
    }

    /// The clock, once the track has a sample.
    fn clock(&self) -> Option<TrackClock> {
        let (sample, _) = self.extent?;
        let (zero, _) = self.zero?;
        Some(TrackClock { timescale: self.timescale, zero, report: self.report, sample })
    }

    fn extent_ms(&self) -> i64 {
        self.extent
            .map_or(0, |(low, high)| rescale(high.saturating_sub(low), self.timescale, 1_000))
    }

    fn track(&self) -> Option<Track> {
        self.format.as_ref().map(|format| Track {
            id: self.id,
            codec: self.codec,
            timescale: self.timescale,
            config: format.config.clone(),
            shape: format.shape,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIDEO: usize = 0;
    const AUDIO: usize = 1;

    fn video_format(config: &'static [u8], reorder_frames: Option<u8>) -> Format {
        Format {
            config: Bytes::from_static(config),
            shape: Shape::Video { width: 160, height: 120 },
            reorder_frames,
        }
    }

    fn audio_format() -> Format {
        Format {
            config: Bytes::new(),
            shape: Shape::Audio { sample_rate: 8_000, channels: 1 },
            reorder_frames: None,
        }
    }

    fn frame(rtp: i64, zero: i64) -> Frame {
        Frame { rtp, zero, key: true, data: Bytes::from_static(b"data") }
    }

    /// H.264 without reordering and G.711, described.
    fn two_tracks() -> Assembly {
        let mut assembly =
            Assembly::new(&[(Codec::H264, 90_000), (Codec::PcmAlaw, 8_000)], vec!["opus".into()]);
        assembly.describe(VIDEO, video_format(b"one", Some(0)));
        assembly.describe(AUDIO, audio_format());
        assembly
    }

    fn outputs(assembly: &mut Assembly) -> Vec<Output> {
        std::iter::from_fn(|| assembly.next_output()).collect()
    }

    fn samples(outputs: &[Output], track: u8) -> Vec<(i64, i64)> {
        outputs
            .iter()
            .filter_map(|output| match output {
                Output::Sample(sample) if sample.track == TrackId(track) => {
                    Some((sample.dts, sample.pts))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_single_track_starts_with_its_first_frame() {
        let mut assembly = Assembly::new(&[(Codec::H264, 90_000)], Vec::new());
        assembly.describe(VIDEO, video_format(b"one", Some(0)));
        assembly.frame(VIDEO, frame(-106_976, 0));
        let out = outputs(&mut assembly);
        assert!(matches!(&out[0], Output::Tracks(tracks, left_out)
            if tracks.len() == 1 && left_out.is_empty()));
        assert_eq!(out[1], Output::Origin(TrackId(1), -106_976));
        assert_eq!(samples(&out, 1), [(0, 0)]);
    }

    #[test]
    fn the_senders_clock_is_that_of_its_newest_report() {
        let mut assembly = Assembly::new(&[(Codec::H264, 90_000)], Vec::new());
        assembly.describe(VIDEO, video_format(b"one", Some(0)));
        assembly.report(VIDEO, SenderReport { ntp: 100 << 32, rtp: 1_000 });
        assembly.frame(VIDEO, frame(1_000, 1_000));
        assert_eq!(assembly.clock_at_zero(), Some(100 << 32));
        // A day later by its RTP clock, which is 2 s slow by its other one.
        let day = SenderReport { ntp: (100 + 86_400 + 2) << 32, rtp: 1_000 + 86_400 * 90_000 };
        assembly.report(VIDEO, day);
        assert_eq!(assembly.clock_at_zero(), Some(102 << 32));
    }

    #[test]
    fn sender_reports_of_both_tracks_end_the_wait() {
        let mut assembly = two_tracks();
        assembly.frame(VIDEO, frame(1_000, 500));
        assembly.frame(AUDIO, frame(7_000, 7_000));
        assembly.report(VIDEO, SenderReport { ntp: 1 << 32, rtp: 1_000 });
        assert_eq!(outputs(&mut assembly), []);
        assembly.report(AUDIO, SenderReport { ntp: 2 << 32, rtp: 7_000 });
        let out = outputs(&mut assembly);
        assert!(matches!(&out[0], Output::Tracks(tracks, left_out)
            if tracks.len() == 2 && left_out == &["opus"]));
        // Audio's frame is a second later, though the session zero says otherwise.
        assert_eq!((samples(&out, 1), samples(&out, 2)), (vec![(0, 0)], vec![(8_000, 8_000)]));
    }

    #[test]
    fn the_wait_is_bounded_in_media_time() {
        // Zero told: half a second; not told (both begin at their zero): one and a half.
        for (zero, frames) in [(0, 14), (1_000, 39)] {
            let mut assembly = two_tracks();
            assembly.frame(AUDIO, frame(500, 500));
            let held = (0..)
                .take_while(|index| {
                    assembly.frame(VIDEO, frame(1_000 + index * 3_600, zero));
                    outputs(&mut assembly).is_empty()
                })
                .count();
            assert_eq!(held + 1, frames, "zero {zero}");
        }
    }

    #[test]
    fn the_wait_is_bounded_in_bytes() {
        let mut assembly = two_tracks();
        let data = Bytes::from(vec![0; HOLD_BYTES_MAX / 4 + 1]);
        for index in 0..4 {
            assert_eq!(outputs(&mut assembly), []);
            assembly.frame(VIDEO, Frame { data: data.clone(), ..frame(index, 0) });
        }
        assert_eq!(samples(&outputs(&mut assembly), 1).len(), 4);
    }

    #[test]
    fn a_late_track_joins_the_axis_and_is_announced_then() {
        let mut assembly =
            Assembly::new(&[(Codec::H264, 90_000), (Codec::PcmAlaw, 8_000)], Vec::new());
        assembly.describe(AUDIO, audio_format());
        assert!(!assembly.frame(VIDEO, frame(40_000, 10_000)), "not described");
        for index in 0..60 {
            assert!(assembly.frame(AUDIO, frame(1_000 + index * 160, 1_000)));
        }
        let out = outputs(&mut assembly);
        assert!(matches!(&out[0], Output::Tracks(tracks, left_out)
            if tracks.len() == 1 && left_out == &["h264 (track 1): not described yet"]));
        assert_eq!(samples(&out, 2)[0], (8_000, 8_000), "a second of headroom");
        assembly.describe(VIDEO, video_format(b"one", Some(0)));
        assembly.frame(VIDEO, frame(100_000, 10_000));
        let out = outputs(&mut assembly);
        assert!(matches!(&out[0], Output::Tracks(tracks, _) if tracks.len() == 2));
        // A second after the zero, as audio's first frame is none after it.
        assert_eq!(samples(&out, 1), [(180_000, 180_000)]);
    }

    #[test]
    fn new_parameters_are_announced_after_the_frames_before_them() {
        let mut assembly = Assembly::new(&[(Codec::H264, 90_000)], Vec::new());
        assembly.describe(VIDEO, video_format(b"one", Some(1)));
        assembly.frame(VIDEO, frame(0, 0));
        assembly.describe(VIDEO, video_format(b"two", Some(0)));
        assembly.frame(VIDEO, frame(3_600, 0));
        let kinds: Vec<&str> = outputs(&mut assembly)
            .iter()
            .map(|output| match output {
                Output::Tracks(tracks, _) if tracks[0].config == "one" => "one",
                Output::Tracks(..) => "two",
                Output::Origin(..) => "origin",
                Output::Sample(_) => "sample",
            })
            .collect();
        assert_eq!(kinds, ["one", "origin", "sample", "two", "sample"]);
    }

    #[test]
    fn a_jump_below_the_origin_goes_one_wrap_up() {
        let mut assembly = Assembly::new(&[(Codec::H264, 90_000)], Vec::new());
        assembly.describe(VIDEO, video_format(b"one", Some(0)));
        for rtp in [0, 3_600, -900_000, -896_400] {
            assembly.frame(VIDEO, frame(rtp, 0));
        }
        let lifted = (1 << 32) - 900_000;
        let times: Vec<i64> =
            samples(&outputs(&mut assembly), 1).into_iter().map(|(dts, _)| dts).collect();
        assert_eq!(times, [0, 3_600, lifted, lifted + 3_600]);
    }

    #[test]
    fn finish_lets_out_what_is_held() {
        let mut assembly = two_tracks();
        assembly.describe(VIDEO, video_format(b"two", Some(2)));
        assembly.frame(VIDEO, frame(7_200, 0));
        assembly.finish();
        assert_eq!(samples(&outputs(&mut assembly), 1), [(90_000, 97_200)]);
    }

    proptest! {
        /// Whatever a camera sends: every frame of a described track comes out once, in order, after
        /// its announcement and origin, not before 0; nothing panics.
        #[test]
        fn every_frame_comes_out_once(
            steps in prop::collection::vec((0_usize..2, any::<i32>(), 0_u8..10), 0..200),
            reorder in prop::option::of(any::<u8>()),
        ) {
            let mut assembly = two_tracks();
            assembly.describe(VIDEO, video_format(b"two", reorder));
            let mut sent = [0_u32; 2];
            for (lane, time, kind) in steps {
                match kind {
                    0 => assembly.report(lane, SenderReport {
                        ntp: u64::from(time.unsigned_abs()) << 31,
                        rtp: i64::from(time),
                    }),
                    1 => assembly.describe(VIDEO, video_format(b"new", Some(3))),
                    _ => {
                        let data = Bytes::from(sent[lane].to_be_bytes().to_vec());
                        sent[lane] += 1;
                        assembly.frame(lane, Frame { data, ..frame(i64::from(time), 9) });
                    }
                }
            }
            assembly.finish();
            let mut next = [0_u32; 2];
            let mut announced = false;
            let mut origins = [false; 2];
            for output in outputs(&mut assembly) {
                match output {
                    Output::Tracks(tracks, _) => announced = tracks.len() == 2,
                    Output::Origin(track, _) => origins[usize::from(track.0) - 1] = true,
                    Output::Sample(sample) => {
                        let lane = usize::from(sample.track.0) - 1;
                        prop_assert!(announced && origins[lane]);
                        prop_assert!(sample.dts >= 0);
                        prop_assert_eq!(&sample.data[..], next[lane].to_be_bytes());
                        next[lane] += 1;
                    }
                }
            }
            prop_assert_eq!(next, sent);
        }
    }
}
