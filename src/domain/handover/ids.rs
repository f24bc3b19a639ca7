//! What the tracks of a connection are called where they go out: as those before them that are coded
//! and timed alike, whatever order a camera lists them in.

use std::collections::BTreeMap;

use crate::domain::handover::lane::Lane;
use crate::domain::sample::{Track, TrackId};

/// The names of one connection's tracks.
#[derive(Debug, Default)]
pub(super) struct Ids(BTreeMap<TrackId, TrackId>);

impl Ids {
    /// Names tracks as they are announced, in the order given; one that has a name keeps it. A track
    /// that is like none of the `lanes` keeps its own name, or takes the first that is free.
    pub(super) fn rename(&mut self, tracks: Vec<Track>, lanes: &[Lane]) -> Vec<Track> {
        for track in &tracks {
            let like = lanes.iter().find(|lane| lane.is_coded_as(track) && self.is_free(lane.id));
            if let Some(lane) = like {
                self.0.entry(track.id).or_insert(lane.id);
            }
        }
        for track in &tracks {
            let free = std::iter::once(track.id).chain((1..=u8::MAX).map(TrackId));
            let free = free.into_iter().find(|id| self.is_free(*id)).unwrap_or(track.id);
            self.0.entry(track.id).or_insert(free);
        }
        tracks.into_iter().map(|track| Track { id: self.of(track.id), ..track }).collect()
    }

    /// What a track is called.
    pub(super) fn of(&self, track: TrackId) -> TrackId {
        self.0.get(&track).copied().unwrap_or(track)
    }

    fn is_free(&self, id: TrackId) -> bool {
        !self.0.values().any(|taken| *taken == id)
    }
}
