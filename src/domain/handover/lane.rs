//! What a handover knows of the tracks that go out, and of the access units that went out last.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::domain::sample::{Codec, Sample, Track, TrackId};
use crate::domain::time::rescale;

/// Key frames that are remembered: the next connection begins with one of the newest.
const KEYS_MAX: usize = 8;
/// Access units of the reference that are remembered.
const UNITS_MAX: usize = 2_048;

/// Whose samples of a track go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The connection that is recorded.
    Current,
    /// The one that takes its place.
    Next,
}

/// A track that goes out.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) id: TrackId,
    pub(super) codec: Codec,
    pub(super) timescale: u32,
    pub(super) from: Side,
    /// What is added to times of that side.
    pub(super) shift: i64,
    /// The dts that went out last.
    pub(super) last: Option<i64>,
    /// The step to it, and the shorter of that and the one before: a unit that is missing makes a long
    /// one.
    pub(super) last_step: i64,
    pub(super) step: i64,
    /// It has just changed sides: what the other side brought already does not go out again.
    pub(super) joins: bool,
}

impl Lane {
    pub(super) fn of(track: &Track) -> Self {
        let Track { id, codec, timescale, .. } = *track;
        Lane {
            id,
            codec,
            timescale,
            from: Side::Current,
            shift: 0,
            last: None,
            last_step: 0,
            step: 0,
            joins: false,
        }
    }

    /// Whether a track is coded and timed as this one.
    pub(super) fn is_coded_as(&self, track: &Track) -> bool {
        (self.codec, self.timescale) == (track.codec, track.timescale)
    }

    /// Whether a track goes on with this one.
    pub(super) fn is_like(&self, track: &Track) -> bool {
        self.id == track.id && self.is_coded_as(track)
    }

    /// Half a step between two units, for times that were rounded on their way.
    pub(super) fn half_step(&self) -> i64 {
        self.step / 2
    }

    /// When the next sample is due.
    pub(super) fn due(&self) -> i64 {
        self.last.map_or(0, |last| last.saturating_add(self.step.max(1)))
    }

    /// When the next sample comes at the latest if none is missing.
    pub(super) fn due_at_last(&self) -> i64 {
        self.due().saturating_add(self.half_step())
    }

    /// Whether a sample goes out; then it does.
    pub(super) fn goes_out(&mut self, dts: i64) -> bool {
        let went_out = self.last.map(|last| last.saturating_add(self.half_step()));
        if self.joins && went_out.is_some_and(|went_out| dts <= went_out) {
            return false;
        }
        self.joins = false;
        self.went_out(dts);
        true
    }

    fn went_out(&mut self, dts: i64) {
        if let Some(step) = self.last.map(|last| dts.saturating_sub(last)).filter(|step| *step > 0)
        {
            // A pause is no step: sound and pictures of one stream have steps far below a second.
            let step = step.min(i64::from(self.timescale));
            self.step = if self.last_step == 0 { step } else { step.min(self.last_step) };
            self.last_step = step;
        }
        self.last = Some(self.last.map_or(dts, |last| last.max(dts)));
    }
}

/// A key frame of the reference.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyFrame {
    /// Of its bytes.
    hash: u64,
    pub(super) dts: i64,
    pub(super) pts: i64,
}

impl KeyFrame {
    pub(super) fn of(sample: &Sample) -> Self {
        let mut hasher = DefaultHasher::new();
        sample.data.hash(&mut hasher);
        KeyFrame { hash: hasher.finish(), dts: sample.dts, pts: sample.pts }
    }
}

/// Times of one access unit that were rounded on two ways are no further apart: 2 ms.
pub(super) fn times_apart_max(timescale: u32) -> i64 {
    rescale(2, 1_000, timescale)
}

/// The newest access units of the reference track that went out.
#[derive(Debug, Default)]
pub(super) struct Units {
    keys: VecDeque<KeyFrame>,
    pts: VecDeque<i64>,
}

impl Units {
    pub(super) fn went_out(&mut self, sample: &Sample) {
        if sample.key {
            if self.keys.len() == KEYS_MAX {
                self.keys.pop_front();
            }
            self.keys.push_back(KeyFrame::of(sample));
        }
        if self.pts.len() == UNITS_MAX {
            self.pts.pop_front();
        }
        self.pts.push_back(sample.pts);
    }

    /// The newest key frame with the same bytes.
    pub(super) fn same_key(&self, key: &KeyFrame) -> Option<KeyFrame> {
        self.keys.iter().rev().find(|known| known.hash == key.hash).copied()
    }

    /// Whether a unit of this pts went out.
    pub(super) fn has(&self, pts: i64, timescale: u32) -> bool {
        let near = times_apart_max(timescale);
        self.pts.iter().any(|known| (known - pts).abs() <= near)
    }
}
