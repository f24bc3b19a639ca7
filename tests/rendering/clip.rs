//! A clip in memory, cut into fragments as the recorder cuts them.

use std::sync::Arc;

use edgerec::domain::sample::{Sample, Track};
use edgerec::domain::time::rescale;
use edgerec::media::clip::{ClipError, ClipPart, ClipSource};
use edgerec::media::fmp4::fragment_head;

use crate::media::Source;

pub struct MemoryClip {
    parts: Vec<ClipPart>,
    /// `moof` and payload.
    fragments: Vec<(Vec<u8>, Vec<u8>)>,
}

impl MemoryClip {
    pub fn new(source: &Source) -> Self {
        Self::spliced(&[source])
    }

    /// One part after the other, each not running on from the one before.
    pub fn spliced(sources: &[&Source]) -> Self {
        let mut clip = MemoryClip { parts: Vec::new(), fragments: Vec::new() };
        for source in sources {
            let first_fragment = u32::try_from(clip.fragments.len()).unwrap();
            clip.fragments.extend(cut(source));
            let fragments = u32::try_from(clip.fragments.len()).unwrap() - first_fragment;
            clip.parts.push(ClipPart {
                tracks: Arc::from(source.tracks.as_slice()),
                script_data: source.script_data.clone(),
                first_fragment,
                fragments,
                discontinuity: first_fragment > 0,
            });
        }
        clip
    }
}

/// A fragment ends at a key frame, or after a second.
fn cut(source: &Source) -> Vec<(Vec<u8>, Vec<u8>)> {
    let ms = |sample: &Sample| {
        let track = source.tracks.iter().find(|track| track.id == sample.track).unwrap();
        rescale(sample.dts, track.timescale, 1_000)
    };
    // Arrival order: a sample never overtakes one of its own track.
    let mut latest = std::collections::HashMap::new();
    let mut order: Vec<(i64, &Sample)> = Vec::new();
    for sample in &source.samples {
        let seen = latest.entry(sample.track).or_insert(i64::MIN);
        *seen = ms(sample).max(*seen);
        order.push((*seen, sample));
    }
    order.sort_by_key(|(arrived, _)| *arrived);
    let mut fragments: Vec<Vec<&Sample>> = vec![Vec::new()];
    for (_, sample) in order {
        let open = fragments.last_mut().unwrap();
        let age = open.first().map_or(0, |first| ms(sample) - ms(first));
        let at_key = source.is_video(sample) && sample.key && age >= 250;
        if age >= 1_000 || at_key {
            fragments.push(vec![sample]);
        } else {
            open.push(sample);
        }
    }
    let write = |(sequence, samples): (usize, &Vec<&Sample>)| {
        let of = |track: &Track| -> Vec<Sample> {
            samples.iter().filter(|s| s.track == track.id).map(|s| (*s).clone()).collect()
        };
        let runs: Vec<(&Track, Vec<Sample>)> = source.tracks.iter().map(|t| (t, of(t))).collect();
        let runs: Vec<(&Track, &[Sample])> = runs.iter().map(|(t, s)| (*t, &s[..])).collect();
        let mut head = fragment_head(u32::try_from(sequence).unwrap(), &runs);
        head.truncate(head.len() - 8);
        let payload = runs.iter().flat_map(|(_, samples)| samples.iter());
        (head, payload.flat_map(|sample| sample.data.to_vec()).collect())
    };
    fragments.iter().enumerate().map(write).collect()
}

impl ClipSource for MemoryClip {
    fn parts(&self) -> &[ClipPart] {
        &self.parts
    }

    fn moof(&self, fragment: u32) -> Result<Vec<u8>, ClipError> {
        Ok(self.fragments[fragment as usize].0.clone())
    }

    fn check(&self, _: u32) -> Result<(), ClipError> {
        Ok(())
    }

    fn read_payload(&self, fragment: u32, offset: u32, buf: &mut [u8]) -> Result<(), ClipError> {
        let payload = &self.fragments[fragment as usize].1;
        buf.copy_from_slice(&payload[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
}
