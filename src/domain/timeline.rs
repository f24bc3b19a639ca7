//! Source time made continuous: 32-bit wrap is unrolled per track, and jumps are told from gaps.
//!
//! A step back of more than 1 s or forward of more than 10 s begins a new timeline. Smaller steps
//! are kept as given. A track that was silent and comes back in step with the others is a gap, not
//! a jump. When the source's time jumps, its tracks do not jump at the same sample: samples of
//! tracks that have jumped are held until the others follow (or some bound is met), so that a
//! timeline holds no sample of the one before.

use std::collections::VecDeque;

use crate::domain::limits::{TIMELINE_STEP_BACK_MS, TIMELINE_STEP_FORWARD_MS};
use crate::domain::sample::{Sample, TrackId};
use crate::domain::time::rescale;

/// Samples held while a jump is under way; one more lets them go.
const HELD_SAMPLES_MAX: usize = 256;
/// Bytes held while a jump is under way.
const HELD_BYTES_MAX: usize = 2 << 20;
/// Media time held while a jump is under way, in milliseconds.
const HELD_MS_MAX: i64 = 1_000;

/// What comes out of a [`TimelineGate`].
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    /// A sample of the current timeline.
    Sample(Sample),
    /// What follows is of a new timeline.
    NewTimeline,
}

/// Finds where a new timeline begins in the samples of a session.
#[derive(Debug, Default)]
pub struct TimelineGate {
    tracks: Vec<GateTrack>,
    held: VecDeque<Sample>,
    held_bytes: usize,
}

#[derive(Debug)]
struct GateTrack {
    id: TrackId,
    timescale: u32,
    /// Time of its newest sample that passed, in milliseconds.
    last_ms: Option<i64>,
    /// Time of its first sample that is held, in milliseconds.
    jumped_ms: Option<i64>,
}

impl TimelineGate {
    /// Takes the tracks and their timescales; what is known of tracks that stay is kept.
    pub fn set_tracks(&mut self, tracks: impl IntoIterator<Item = (TrackId, u32)>) {
        let old = std::mem::take(&mut self.tracks);
        for (id, timescale) in tracks {
            let known = old.iter().find(|track| track.id == id && track.timescale == timescale);
            self.tracks.push(GateTrack {
                id,
                timescale,
                last_ms: known.and_then(|track| track.last_ms),
                jumped_ms: known.and_then(|track| track.jumped_ms),
            });
        }
    }

    /// Takes a sample; `pass` gets what may go on, in order. A sample of an unknown track is
    /// dropped.
    pub fn push(&mut self, sample: Sample, pass: &mut dyn FnMut(Passed)) {
        let Some(at) = self.tracks.iter().position(|track| track.id == sample.track) else {
            return;
        };
        let now_ms = rescale(sample.dts, self.tracks[at].timescale, 1_000);
        if self.tracks[at].jumped_ms.is_some() {
            self.hold(sample, now_ms, pass);
        } else if self.is_jump(at, now_ms) {
            self.tracks[at].jumped_ms = Some(now_ms);
            self.hold(sample, now_ms, pass);
        } else {
            self.tracks[at].last_ms = Some(now_ms);
            pass(Passed::Sample(sample));
        }
    }

    /// Lets go of what is held, at the end of the session or before the tracks change.
    pub fn flush(&mut self, pass: &mut dyn FnMut(Passed)) {
        if self.held.is_empty() {
            return;
        }
        pass(Passed::NewTimeline);
        for track in &mut self.tracks {
            track.last_ms = None;
            track.jumped_ms = None;
        }
        self.held_bytes = 0;
        for sample in std::mem::take(&mut self.held) {
            if let Some(track) = self.tracks.iter_mut().find(|track| track.id == sample.track) {
                track.last_ms = Some(rescale(sample.dts, track.timescale, 1_000));
            }
            pass(Passed::Sample(sample));
        }
    }

    /// Whether a sample at `now_ms` leaves the timeline of its track. A track in step with the
    /// others does not, however long it was silent.
    fn is_jump(&self, at: usize, now_ms: i64) -> bool {
        let Some(last_ms) = self.tracks[at].last_ms else { return false };
        let steps_out = |from_ms: i64| {
            let step = now_ms - from_ms;
            !(-TIMELINE_STEP_BACK_MS..=TIMELINE_STEP_FORWARD_MS).contains(&step)
        };
        let others = self.tracks.iter().enumerate().filter(|(other, _)| *other != at);
        let in_step = others
            .filter_map(|(_, track)| track.last_ms.filter(|_| track.jumped_ms.is_none()))
            .any(|other_ms| !steps_out(other_ms));
        steps_out(last_ms) && !(in_step && now_ms > last_ms)
    }

    fn hold(&mut self, sample: Sample, now_ms: i64, pass: &mut dyn FnMut(Passed)) {
        self.held_bytes += sample.data.len();
        self.held.push_back(sample);
        let first_ms = self.tracks.iter().filter_map(|track| track.jumped_ms).min();
        let all_jumped =
            self.tracks.iter().all(|track| track.jumped_ms.is_some() || track.last_ms.is_none());
        let enough = self.held.len() > HELD_SAMPLES_MAX
            || self.held_bytes > HELD_BYTES_MAX
            || first_ms.is_some_and(|first| (now_ms - first).abs() > HELD_MS_MAX);
        if all_jumped || enough {
            self.flush(pass);
        }
    }
}

/// Unrolls a 32-bit timestamp of one track into a growing 64-bit one that never is negative.
#[derive(Debug, Clone, Default)]
pub struct Unroll32 {
    last: Option<i64>,
}

impl Unroll32 {
    /// The 64-bit time of `raw`: the one nearest to the time before. The first is taken as it is.
    pub fn unroll(&mut self, raw: u32) -> i64 {
        let time = match self.last {
            None => i64::from(raw),
            Some(last) => {
                let low = last as u32;
                let near = last + i64::from(raw.wrapping_sub(low) as i32);
                // Below zero there is nothing to store; one wrap up is the same 32-bit time.
                if near < 0 { near + (1 << 32) } else { near }
            }
        };
        self.last = Some(time);
        time
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const VIDEO: TrackId = TrackId(1);
    const AUDIO: TrackId = TrackId(2);

    fn run(samples: &[(TrackId, i64)]) -> Vec<Option<(TrackId, i64)>> {
        let mut gate = TimelineGate::default();
        gate.set_tracks([(VIDEO, 1_000), (AUDIO, 1_000)]);
        let mut out = Vec::new();
        let mut pass = |passed| match passed {
            Passed::Sample(sample) => out.push(Some((sample.track, sample.dts))),
            Passed::NewTimeline => out.push(None),
        };
        for (track, dts) in samples {
            let (track, dts) = (*track, *dts);
            gate.push(Sample { track, dts, pts: dts, key: true, data: Bytes::new() }, &mut pass);
        }
        gate.flush(&mut pass);
        out
    }

    #[test]
    fn small_steps_stay_in_the_timeline() {
        let samples = [(VIDEO, 0), (VIDEO, 5_000), (VIDEO, 4_100), (VIDEO, 14_000)];
        assert!(!run(&samples).contains(&None));
    }

    #[test]
    fn a_jump_back_and_a_jump_forward_begin_a_new_timeline() {
        let out = run(&[(VIDEO, 5_000), (VIDEO, 3_999), (VIDEO, 4_000), (VIDEO, 14_001)]);
        assert_eq!(
            out,
            [
                Some((VIDEO, 5_000)),
                None,
                Some((VIDEO, 3_999)),
                Some((VIDEO, 4_000)),
                None,
                Some((VIDEO, 14_001))
            ]
        );
    }

    #[test]
    fn stragglers_of_the_old_timeline_stay_in_it() {
        let out = run(&[
            (VIDEO, 60_000),
            (AUDIO, 60_000),
            (VIDEO, 0),
            (AUDIO, 60_020),
            (VIDEO, 40),
            (AUDIO, 10),
            (AUDIO, 30),
        ]);
        assert_eq!(
            out,
            [
                Some((VIDEO, 60_000)),
                Some((AUDIO, 60_000)),
                Some((AUDIO, 60_020)),
                None,
                Some((VIDEO, 0)),
                Some((VIDEO, 40)),
                Some((AUDIO, 10)),
                Some((AUDIO, 30)),
            ]
        );
    }

    #[test]
    fn a_silent_track_that_comes_back_in_step_is_a_gap() {
        let mut samples = vec![(AUDIO, 0)];
        samples.extend((0..20).map(|second| (VIDEO, second * 1_000)));
        samples.push((AUDIO, 19_000));
        assert!(!run(&samples).contains(&None));
    }

    #[test]
    fn a_track_that_never_follows_does_not_hold_the_other_for_ever() {
        let mut samples = vec![(VIDEO, 0), (AUDIO, 0)];
        samples.extend((0..60).map(|at| (VIDEO, 100_000 + at * 40)));
        let out = run(&samples);
        assert_eq!(out.iter().filter(|passed| passed.is_none()).count(), 1);
        assert_eq!(out.len(), samples.len() + 1);
    }

    #[test]
    fn wrap_goes_on_and_a_step_back_stays_a_step_back() {
        let mut unroll = Unroll32::default();
        assert_eq!(unroll.unroll(u32::MAX - 10), i64::from(u32::MAX) - 10);
        assert_eq!(unroll.unroll(5), (1 << 32) + 5);
        assert_eq!(unroll.unroll(u32::MAX), i64::from(u32::MAX));
    }

    #[test]
    fn time_below_zero_is_taken_one_wrap_up() {
        let mut unroll = Unroll32::default();
        assert_eq!(unroll.unroll(5), 5);
        assert_eq!(unroll.unroll(u32::MAX), i64::from(u32::MAX));
    }
}
