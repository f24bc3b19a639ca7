//! The sound of a clip, as a clip: what is rendered from it has no picture and no byte of one.
//!
//! Parts without sound are left out. Script data is too, as it describes the picture. The `moof`
//! of a fragment is rewritten when it is read, and its payload is what is left of the old one;
//! times stay as they are. A fragment without sound stays as one without samples, so fragments
//! keep their order and nothing has to be read when the clip is opened.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::domain::sample::Track;
use crate::media::clip::{ClipError, ClipPart, ClipSource};
use crate::media::fmp4::{Selection, select};

/// A clip without its picture.
pub struct AudioOnly {
    clip: Arc<dyn ClipSource>,
    parts: Vec<ClipPart>,
    /// For each part the number of its first fragment in the clip under it.
    origins: Vec<u32>,
    /// Where the sound of the fragment that was looked at last lies in its payload.
    newest: Mutex<Option<Sound>>,
}

/// Where the sound of a fragment lies in the payload of the clip under it.
#[derive(Clone)]
struct Sound {
    fragment: u32,
    ranges: Arc<[Range<u32>]>,
}

/// A clip as a file shows it: all of it, or only its sound.
#[must_use]
pub fn as_shown(clip: Arc<dyn ClipSource>, audio_only: bool) -> Arc<dyn ClipSource> {
    if audio_only { Arc::new(AudioOnly::new(clip)) } else { clip }
}

impl AudioOnly {
    /// The sound of `clip`. Nothing is read yet. Without any sound there are no parts, and every
    /// format holds nothing of it.
    #[must_use]
    pub fn new(clip: Arc<dyn ClipSource>) -> Self {
        let (mut parts, mut origins) = (Vec::<ClipPart>::new(), Vec::new());
        let (mut next, mut skipped) = (0, false);
        for part in clip.parts() {
            let tracks: Arc<[Track]> =
                part.tracks.iter().filter(|track| !track.is_video()).cloned().collect();
            if tracks.is_empty() {
                skipped = true;
                continue;
            }
            let discontinuity = !parts.is_empty() && (part.discontinuity || skipped);
            let (script_data, fragments) = (Bytes::new(), part.fragments);
            let first_fragment = next;
            parts.push(ClipPart { tracks, script_data, first_fragment, fragments, discontinuity });
            origins.push(part.first_fragment);
            next += fragments;
            skipped = false;
        }
        AudioOnly { clip, parts, origins, newest: Mutex::new(None) }
    }

    /// The fragment in the clip under this one, and its part here.
    fn locate(&self, fragment: u32) -> Result<(u32, &ClipPart), ClipError> {
        let after = self.parts.partition_point(|part| part.first_fragment <= fragment);
        let found = after.checked_sub(1).map(|at| (&self.parts[at], self.origins[at]));
        match found {
            Some((part, origin)) if fragment - part.first_fragment < part.fragments => {
                Ok((origin + fragment - part.first_fragment, part))
            }
            _ => Err(ClipError::Damaged { fragment, what: "there is no such fragment" }),
        }
    }

    /// The fragment without its picture; where its sound lies is kept.
    fn select(&self, fragment: u32) -> Result<(Selection, Sound), ClipError> {
        let (inner, part) = self.locate(fragment)?;
        let moof = self.clip.moof(inner)?;
        let is_sound = |id| part.tracks.iter().any(|track| track.id == id);
        let damaged = |_| ClipError::Damaged { fragment, what: "the moof box cannot be read" };
        let selection = select(&moof, is_sound).map_err(damaged)?;
        let sound = Sound { fragment, ranges: selection.payload.clone().into() };
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(sound.clone());
        Ok((selection, sound))
    }

    fn sound(&self, fragment: u32) -> Result<Sound, ClipError> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match newest.filter(|sound| sound.fragment == fragment) {
            Some(sound) => Ok(sound),
            None => Ok(self.select(fragment)?.1),
        }
    }
}

impl ClipSource for AudioOnly {
    fn parts(&self) -> &[ClipPart] {
        &self.parts
    }

    fn moof(&self, fragment: u32) -> Result<Vec<u8>, ClipError> {
        Ok(self.select(fragment)?.0.moof)
    }

    fn check(&self, fragment: u32) -> Result<(), ClipError> {
        self.clip.check(self.locate(fragment)?.0)
    }

    fn read_payload(&self, fragment: u32, offset: u32, buf: &mut [u8]) -> Result<(), ClipError> {
        let (inner, _) = self.locate(fragment)?;
        let sound = self.sound(fragment)?;
        let (mut skip, mut rest) = (offset, buf);
        for range in sound.ranges.iter() {
            let len = range.end - range.start;
            if rest.is_empty() {
                break;
            }
            if skip >= len {
                skip -= len;
                continue;
            }
            let count = rest.len().min((len - skip) as usize);
            let (head, tail) = rest.split_at_mut(count);
            self.clip.read_payload(inner, range.start + skip, head)?;
            (skip, rest) = (0, tail);
        }
        if rest.is_empty() {
            return Ok(());
        }
        Err(ClipError::Damaged { fragment, what: "a sample reaches past the payload" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sample::{Codec, Sample, Shape, TrackId};
    use crate::media::fmp4::{fragment_head, parse_moof};

    /// Each fragment has the tracks of its part, one sample each, filled with the track's number.
    struct Fake(Vec<ClipPart>);

    impl ClipSource for Fake {
        fn parts(&self) -> &[ClipPart] {
            &self.0
        }

        fn moof(&self, fragment: u32) -> Result<Vec<u8>, ClipError> {
            let tracks = self.tracks(fragment);
            let samples: Vec<Sample> = tracks.iter().map(|track| sample(track, fragment)).collect();
            let runs: Vec<(&Track, &[Sample])> =
                tracks.iter().zip(&samples).map(|(t, s)| (t, std::slice::from_ref(s))).collect();
            let mut head = fragment_head(fragment, &runs);
            head.truncate(head.len() - 8);
            Ok(head)
        }

        fn check(&self, _: u32) -> Result<(), ClipError> {
            Ok(())
        }

        fn read_payload(&self, fragment: u32, at: u32, buf: &mut [u8]) -> Result<(), ClipError> {
            let tracks = self.tracks(fragment);
            let payload: Vec<u8> =
                tracks.iter().flat_map(|track| sample(track, fragment).data.to_vec()).collect();
            let at = at as usize;
            buf.copy_from_slice(&payload[at..at + buf.len()]);
            Ok(())
        }
    }

    impl Fake {
        fn new(parts: &[(&[Codec], u32)]) -> Self {
            let mut first_fragment = 0;
            let mut made = Vec::new();
            for (codecs, fragments) in parts {
                let tracks = (1..).zip(*codecs).map(|(id, codec)| track(id, *codec)).collect();
                made.push(ClipPart {
                    tracks,
                    script_data: Bytes::from_static(b"width"),
                    first_fragment,
                    fragments: *fragments,
                    discontinuity: false,
                });
                first_fragment += fragments;
            }
            Fake(made)
        }

        fn tracks(&self, fragment: u32) -> Arc<[Track]> {
            let at = self.0.partition_point(|part| part.first_fragment <= fragment);
            self.0[at - 1].tracks.clone()
        }
    }

    fn track(id: u8, codec: Codec) -> Track {
        let shape = if codec.is_video() {
            Shape::Video { width: 64, height: 36 }
        } else {
            Shape::Audio { sample_rate: 8_000, channels: 1 }
        };
        Track { id: TrackId(id), codec, timescale: 1_000, config: Bytes::new(), shape }
    }

    fn sample(track: &Track, fragment: u32) -> Sample {
        let byte = 16 * track.id.0 + u8::try_from(fragment).expect("few");
        let dts = 40 * i64::from(fragment);
        let data = Bytes::from(vec![byte; 10 * usize::from(track.id.0)]);
        Sample { track: track.id, dts, pts: dts, key: true, data }
    }

    const AV: &[Codec] = &[Codec::H264, Codec::Aac];

    #[test]
    fn parts_without_sound_are_left_out_and_the_others_do_not_run_on() {
        let clip = Fake::new(&[
            (&[Codec::H264], 2),
            (AV, 3),
            (AV, 1),
            (&[Codec::H265], 4),
            (&[Codec::PcmAlaw], 2),
        ]);
        let sound = AudioOnly::new(Arc::new(clip));
        let seen: Vec<_> = sound
            .parts()
            .iter()
            .map(|part| (part.first_fragment, part.fragments, part.discontinuity))
            .collect();
        assert_eq!(seen, [(0, 3, false), (3, 1, false), (4, 2, true)]);
        assert_eq!(sound.fragment_count(), 6);
        for part in sound.parts() {
            assert!(part.script_data.is_empty());
            assert!(part.tracks.iter().all(|track| !track.is_video()));
        }
        // The last part is the fragments 10 and 11 of the clip.
        let moof = parse_moof(&sound.moof(5).expect("read")).expect("a moof");
        assert_eq!((moof.sequence, moof.runs.len(), moof.runs[0].samples[0].dts), (11, 1, 440));
        let missing = sound.moof(6).map(|_| ());
        assert!(matches!(missing, Err(ClipError::Damaged { fragment: 6, .. })), "{missing:?}");
    }

    #[test]
    fn payload_is_read_in_any_order_across_what_is_left_out() {
        let tracks = [Codec::Aac, Codec::H264, Codec::PcmAlaw, Codec::H265, Codec::PcmUlaw];
        let sound = AudioOnly::new(Arc::new(Fake::new(&[(&tracks, 3)])));
        let of = |fragment: u8| -> Vec<u8> {
            let run = |id: u8| vec![16 * id + fragment; 10 * usize::from(id)];
            [run(1), run(3), run(5)].concat()
        };
        for (fragment, other) in [(0_u8, 2_u8), (2, 1), (1, 1)] {
            let whole = of(fragment);
            for from in 0..whole.len() {
                for until in [from, from + 1, from + 35, whole.len()] {
                    let until = until.min(whole.len());
                    let mut buf = vec![0; until - from];
                    let at = u32::try_from(from).expect("small");
                    sound.read_payload(fragment.into(), at, &mut buf).expect("read");
                    assert_eq!(buf, whole[from..until], "{fragment}: {from}..{until}");
                }
                // Another fragment's layout in between changes nothing.
                sound.moof(other.into()).expect("read");
            }
            let past = sound.read_payload(fragment.into(), 1, &mut vec![0; whole.len()]);
            assert!(matches!(past, Err(ClipError::Damaged { .. })), "{past:?}");
        }
    }

    #[test]
    fn a_clip_without_sound_has_no_parts() {
        let sound = AudioOnly::new(Arc::new(Fake::new(&[(&[Codec::H264], 2)])));
        assert!(sound.parts().is_empty());
        assert_eq!(sound.fragment_count(), 0);
    }
}
