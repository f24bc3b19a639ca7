//! A reel: a short FLV file played over and over, with times that run on.

use bytes::Bytes;

use crate::media::flv::demux::{FlvError, FlvReader, FlvTag};
use crate::media::flv::mux::{TAG_AUDIO, TAG_SCRIPT, TAG_VIDEO};
use crate::media::flv::tag::{TagBody, TagError, parse_audio, parse_video};

/// Tags of a reel. It lies in memory and is meant to be short.
const TAGS_MAX: usize = 1 << 20;

/// A file cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReelError {
    /// It is no FLV, or breaks off.
    #[error(transparent)]
    Flv(#[from] FlvError),
    /// A tag cannot be read.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// There is nothing in it that takes time.
    #[error("the file holds no media that could be played in a loop")]
    Still,
    /// It is far too long.
    #[error("the file has more than {TAGS_MAX} tags")]
    TooLong,
}

/// Media to be played over and over.
#[derive(Debug, Clone)]
pub struct Reel {
    /// Script data and codec configurations, sent once before everything else.
    opening: Vec<FlvTag>,
    /// Access units and audio frames in the order of the file.
    frames: Vec<FlvTag>,
    /// The time from a frame to the same one a round later, in milliseconds.
    round_ms: u32,
}

impl Reel {
    /// Reads a whole FLV file.
    ///
    /// # Errors
    /// It is no FLV, is damaged, or holds fewer than two frames of each track.
    pub fn parse(file: Bytes) -> Result<Reel, ReelError> {
        let (mut opening, mut frames) = (Vec::new(), Vec::new());
        for tag in FlvReader::new(file)? {
            let tag = tag?;
            if opening.len() + frames.len() == TAGS_MAX {
                return Err(ReelError::TooLong);
            }
            let body = match tag.kind {
                TAG_AUDIO => parse_audio(&tag.body)?,
                TAG_VIDEO => parse_video(&tag.body)?,
                TAG_SCRIPT => {
                    opening.push(tag);
                    continue;
                }
                _ => continue,
            };
            match body {
                TagBody::Config { .. } => opening.push(tag),
                TagBody::Frame { .. } => frames.push(tag),
                // An end of sequence in every round would be no stream.
                TagBody::Ignored | TagBody::Unsupported(_) => {}
            }
        }
        let rounds = [TAG_AUDIO, TAG_VIDEO].map(|kind| round_of(&frames, kind));
        let round_ms = rounds.into_iter().flatten().max().ok_or(ReelError::Still)?;
        Ok(Reel { opening, frames, round_ms })
    }

    /// What is sent once, before any frame.
    #[must_use]
    pub fn opening(&self) -> &[FlvTag] {
        &self.opening
    }

    /// The frame at place `number` of the endless stream, with its time in milliseconds since the
    /// stream began.
    #[must_use]
    pub fn frame(&self, number: u64) -> (u64, &FlvTag) {
        let round = number / self.frames.len() as u64;
        let tag = &self.frames[(number % self.frames.len() as u64) as usize];
        (round * u64::from(self.round_ms) + u64::from(tag.time_ms), tag)
    }
}

/// How long a round of one track takes: up to its last frame, and as long again as frames are
/// apart.
fn round_of(frames: &[FlvTag], kind: u8) -> Option<u32> {
    let times: Vec<u32> =
        frames.iter().filter(|tag| tag.kind == kind).map(|tag| tag.time_ms).collect();
    let span = u64::from(times.last()?.checked_sub(*times.first()?)?);
    let steps = times.len() as u64 - 1;
    let round = (span * (steps + 1) + steps / 2).checked_div(steps)?;
    u32::try_from(round).ok().filter(|round| *round > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::CLIP;

    #[test]
    fn the_bundled_clip_joins_its_own_beginning() {
        assert!(CLIP.len() <= 300 << 10);
        let reel = Reel::parse(Bytes::from_static(CLIP)).expect("the clip is sound");
        assert_eq!(reel.round_ms, 9_600);
        assert_eq!(reel.opening().len(), 3);
        assert_eq!(reel.frames.len(), 240 + 450);
        for kind in [TAG_AUDIO, TAG_VIDEO] {
            let times: Vec<u64> = (0..3 * reel.frames.len() as u64)
                .map(|number| reel.frame(number))
                .filter(|(_, tag)| tag.kind == kind)
                .map(|(time_ms, _)| time_ms)
                .collect();
            let steps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let usual = if kind == TAG_VIDEO { 40..=40 } else { 21..=22 };
            assert!(steps.iter().all(|step| usual.contains(step)), "{kind}: {steps:?}");
        }
    }

    #[test]
    fn what_cannot_be_played_is_refused() {
        assert_eq!(
            Reel::parse(Bytes::from_static(b"RIFF")).err(),
            Some(ReelError::Flv(FlvError::Foreign))
        );
        let one_frame = CLIP[..13].to_vec();
        assert_eq!(Reel::parse(one_frame.into()).err(), Some(ReelError::Still));
    }
}
