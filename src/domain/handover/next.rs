//! The side of a handover that takes over, and what waits for it.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::handover::lane::{KeyFrame, Lane};
use crate::domain::sample::{Sample, Track, TrackId};
use crate::domain::time::BootTime;

/// Samples of a track that are held while no key frame has come.
const SOUND_WAITING_MAX: usize = 1_024;

/// On what the switch rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// The bytes of a key frame.
    Same,
    /// The senders' clocks.
    Clocks,
    /// Nothing: it follows.
    Follows,
}

/// The side that takes over.
#[derive(Debug, Default)]
pub(super) struct Next {
    pub(super) tracks: Vec<Track>,
    pub(super) left_out: Vec<String>,
    pub(super) origins: BTreeMap<TrackId, i64>,
    /// The sender's clock at time 0 of its reference.
    pub(super) zero: Option<u64>,
    pub(super) held: BTreeMap<TrackId, VecDeque<Sample>>,
    /// Key frames of its reference, and since when it has one.
    pub(super) keys: Vec<KeyFrame>,
    pub(super) keyed: Option<BootTime>,
    /// What is added to times of its reference, and since when that is known.
    pub(super) join: Option<(Join, i64, BootTime)>,
    /// What the current one brought since, of tracks that are to be switched.
    pub(super) waiting: BTreeMap<TrackId, VecDeque<Sample>>,
    /// The clocks were tried.
    pub(super) clocks_failed: bool,
    /// When the reference was switched, and the tracks that were there before.
    pub(super) switched: Option<BootTime>,
    pub(super) before: Vec<Lane>,
    /// The current one has ended.
    pub(super) is_last: bool,
}

impl Next {
    pub(super) fn reference(&self) -> Option<&Track> {
        self.tracks.iter().find(|track| track.is_video()).or(self.tracks.first())
    }

    /// Holds a sample. Pictures before the first key frame are of no use; sound waits for it, the newest
    /// of it.
    pub(super) fn hold(&mut self, sample: Sample, now: BootTime) {
        let of_reference = self.reference().is_some_and(|track| track.id == sample.track);
        if of_reference && sample.key && self.switched.is_none() {
            self.keyed.get_or_insert(now);
            self.keys.push(KeyFrame::of(&sample));
        }
        if of_reference && self.keyed.is_none() {
            return;
        }
        let queue = self.held.entry(sample.track).or_default();
        queue.push_back(sample);
        if self.keyed.is_none() && queue.len() > SOUND_WAITING_MAX {
            queue.pop_front();
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held.values().flatten().map(|sample| sample.data.len()).sum()
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.values().flatten().map(|sample| sample.data.len()).sum()
    }

    pub(super) fn reference_queue(&self) -> Option<&VecDeque<Sample>> {
        self.held.get(&self.reference()?.id)
    }

    pub(super) fn reference_queue_mut(&mut self) -> Option<&mut VecDeque<Sample>> {
        let id = self.reference()?.id;
        self.held.get_mut(&id)
    }
}
