//! The parts of a clip, boiled down: parts with the same tracks share one program.

use std::sync::Arc;

use crate::domain::sample::Track;
use crate::media::clip::ClipPart;

/// Which tracks each fragment has.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Different sets of tracks, in order of appearance.
    pub sets: Vec<Arc<[Track]>>,
    parts: Vec<PartPlace>,
}

/// A part of the clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartPlace {
    /// Its first fragment.
    pub first_fragment: u32,
    /// Its set of tracks.
    pub set: u32,
    /// Whether its set of tracks is another one than that of the part before.
    pub changed: bool,
    /// Time or codec parameters do not run on from the part before.
    pub discontinuity: bool,
}

impl Programs {
    /// From the parts of a clip.
    #[must_use]
    pub fn new(parts: &[ClipPart]) -> Self {
        let mut programs = Programs { sets: Vec::new(), parts: Vec::with_capacity(parts.len()) };
        for part in parts {
            let known = programs.sets.iter().position(|set| *set == part.tracks);
            let set = known.unwrap_or_else(|| {
                programs.sets.push(Arc::clone(&part.tracks));
                programs.sets.len() - 1
            });
            let set = u32::try_from(set).unwrap_or(u32::MAX);
            let before = programs.parts.last().map(|before| before.set);
            programs.parts.push(PartPlace {
                first_fragment: part.first_fragment,
                set,
                changed: before != Some(set),
                discontinuity: part.discontinuity,
            });
        }
        programs
    }

    /// The part that `fragment` belongs to, and whether it is its first fragment.
    #[must_use]
    pub fn part_of(&self, fragment: u32) -> Option<(PartPlace, bool)> {
        let at = self.parts.partition_point(|part| part.first_fragment <= fragment);
        let part = *self.parts.get(at.checked_sub(1)?)?;
        Some((part, part.first_fragment == fragment))
    }

    /// The set of tracks of `fragment`, by its number.
    #[must_use]
    pub fn set_of(&self, fragment: u32) -> usize {
        self.part_of(fragment).map_or(0, |(part, _)| part.set as usize)
    }
}

/// Names a track that a format leaves out.
#[must_use]
pub fn dropped(track: &Track, why: &str) -> String {
    format!("track {} ({}): {why}", track.id.0, track.codec.name())
}

/// Appends `text` unless it is there.
pub fn push_once(list: &mut Vec<String>, text: String) {
    if !list.contains(&text) {
        list.push(text);
    }
}
