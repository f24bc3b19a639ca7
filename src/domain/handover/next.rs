//! The side of a handover that takes over, and what waits for it.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::handover::ids::Ids;
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

/// How the next one's times become those that go out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    pub(super) join: Join,
    /// What is added to times of its reference.
    pub(super) shift: i64,
    /// What is added to a dts of it to compare it with those of the current one.
    pub(super) dts_shift: i64,
    /// Since when that is known.
    pub(super) since: BootTime,
}

/// The side that takes over.
#[derive(Debug, Default)]
pub(super) struct Next {
    /// Since when it is to bring a key frame.
    pub(super) since: BootTime,
    /// What its tracks are called; all else is said in these names.
    pub(super) ids: Ids,
    pub(super) tracks: Vec<Track>,
    pub(super) left_out: Vec<String>,
    pub(super) origins: BTreeMap<TrackId, i64>,
    /// The sender's clock at time 0 of its reference.
    pub(super) zero: Option<u64>,
    pub(super) held: BTreeMap<TrackId, VecDeque<Sample>>,
    /// Key frames of its reference, and since when it has one.
    pub(super) keys: Vec<KeyFrame>,
    pub(super) keyed: Option<BootTime>,
    /// Once the two are joined.
    pub(super) join: Option<Joined>,
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
    pub(super) fn since(now: BootTime) -> Self {
        Next { since: now, ..Next::default() }
    }

    /// Its tracks, which are called as those of `lanes` that are alike. Where pictures show up, sound
    /// is the reference no longer.
    pub(super) fn announce(
        &mut self,
        tracks: Vec<Track>,
        left_out: Vec<String>,
        lanes: &[Lane],
        now: BootTime,
    ) {
        let id = |next: &Next| next.reference().map(|track| track.id);
        let before = id(self);
        (self.tracks, self.left_out) = (self.ids.rename(tracks, lanes), left_out);
        if id(self) != before && self.join.is_none() {
            self.wait_for_key(now);
        }
    }

    /// Key frames that came are forgotten, and what of the reference is held with them.
    pub(super) fn wait_for_key(&mut self, now: BootTime) {
        (self.since, self.keyed) = (now, None);
        self.keys.clear();
        if let Some(queue) = self.reference_queue_mut() {
            queue.clear();
        }
    }

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

    pub(super) fn newest_of_reference(&self) -> Option<&Sample> {
        self.reference_queue()?.back()
    }

    pub(super) fn reference_queue_mut(&mut self) -> Option<&mut VecDeque<Sample>> {
        let id = self.reference()?.id;
        self.held.get_mut(&id)
    }
}
