//! The samples of a fragment in the order of their decoding times across tracks.

use crate::domain::sample::TrackId;
use crate::domain::time::rescale;
use crate::media::fmp4::Moof;
use crate::media::render::stream::PlacedSample;

/// A track that a format takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its number in the session.
    pub id: TrackId,
    /// Ticks a second of its times on flash.
    pub timescale: u32,
    /// Which track it is in the format.
    pub slot: u8,
}

/// The samples of the taken tracks with times in ticks of `timescale`, merged by decoding time;
/// at the same time the earlier run comes first. Order within a track is kept.
#[must_use]
pub fn merged(
    moof: &Moof,
    timescale: u32,
    taken: impl Fn(TrackId) -> Option<Taken>,
) -> Vec<PlacedSample> {
    let count = moof.runs.iter().map(|run| run.samples.len()).sum();
    let mut placed = Vec::with_capacity(count);
    let mut lanes: Vec<std::ops::Range<usize>> = Vec::with_capacity(moof.runs.len());
    let mut offset = 0;
    for run in &moof.runs {
        let Some(track) = taken(run.track) else {
            offset += run.payload_len();
            continue;
        };
        let start = placed.len();
        for sample in &run.samples {
            placed.push(PlacedSample {
                slot: track.slot,
                key: sample.key,
                counter: 0,
                dts: rescale(sample.dts, track.timescale, timescale),
                pts: rescale(sample.pts, track.timescale, timescale),
                offset,
                size: sample.size,
            });
            offset += u64::from(sample.size);
        }
        lanes.push(start..placed.len());
    }
    if lanes.len() < 2 {
        return placed;
    }
    let mut merged = Vec::with_capacity(placed.len());
    while let Some(lane) = lanes
        .iter_mut()
        .filter(|lane| lane.start < lane.end)
        .min_by_key(|lane| placed[lane.start].dts)
    {
        merged.extend(lane.next().map(|at| placed[at]));
    }
    merged
}
