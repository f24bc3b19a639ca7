//! A fragment with some of its tracks only: its `moof` rewritten, and which bytes of its `mdat`
//! payload are left.

use std::ops::Range;

use crate::domain::sample::TrackId;
use crate::media::fmp4::bmff::{Reader, write_box};
use crate::media::fmp4::fragment::TRUN_DATA_OFFSET;
use crate::media::fmp4::{Fmp4Error, parse_moof};

/// Bytes of a box's type and length.
const BOX_HEADER_BYTES: usize = 8;
/// Version, flags and the number of samples, which stand before the data offset in `trun`.
const BEFORE_DATA_OFFSET_BYTES: usize = 8;

/// What is left of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The `moof` box: `mfhd` as it was, and the `traf`s that are kept, byte for byte but for
    /// their data offsets, which count on an `mdat` with a header of eight bytes. Without a
    /// `traf` if nothing is kept.
    pub moof: Vec<u8>,
    /// The stretches of the old payload that follow each other in the new one.
    pub payload: Vec<Range<u32>>,
}

impl Selection {
    /// Bytes of the new payload.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        self.payload.iter().map(|range| u64::from(range.end - range.start)).sum()
    }
}

/// Leaves out every track of a `moof` box that `keep` does not want.
///
/// # Errors
/// The bytes are not such a box as [`fragment_head`](crate::media::fmp4::fragment_head) writes.
pub fn select(bytes: &[u8], keep: impl Fn(TrackId) -> bool) -> Result<Selection, Fmp4Error> {
    let parsed = parse_moof(bytes)?;
    let body = match Reader::new(bytes, "moof").next_box()? {
        Some((kind, body)) if &kind == b"moof" => body,
        _ => return Err(Fmp4Error::Missing("moof")),
    };
    let mut runs = parsed.runs.iter();
    let (mut at, mut kept_bytes) = (0_u32, 0_u32);
    let mut payload: Vec<Range<u32>> = Vec::new();
    // Where data offsets stand in the new box, and where their payload begins in the new `mdat`.
    let mut offsets: Vec<(usize, u32)> = Vec::new();
    let mut moof = Vec::with_capacity(bytes.len());
    let mut failed = None;
    write_box(&mut moof, *b"moof", |out| {
        let mut copy = || {
            let mut boxes = Reader::new(body, "moof");
            while let Some((kind, body)) = boxes.next_box()? {
                match &kind {
                    b"mfhd" => write_box(out, kind, |out| out.extend_from_slice(body)),
                    b"traf" => {
                        let run = runs.next().ok_or(Fmp4Error::Missing("traf"))?;
                        // The payload of all runs was checked to have less than 4 GiB.
                        let len = u32::try_from(run.payload_len()).unwrap_or(u32::MAX);
                        let range = at..at.saturating_add(len);
                        at = range.end;
                        if !keep(run.track) {
                            continue;
                        }
                        offsets.push((copy_traf(out, body)?, kept_bytes));
                        kept_bytes += len;
                        match payload.last_mut() {
                            Some(last) if last.end == range.start => last.end = range.end,
                            _ => payload.push(range),
                        }
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        failed = copy().err();
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let start = u32::try_from(moof.len() + BOX_HEADER_BYTES).unwrap_or(u32::MAX);
    for (place, offset) in offsets {
        let value = start.saturating_add(offset).to_be_bytes();
        moof.get_mut(place..place + 4).ok_or(Fmp4Error::Truncated("trun"))?.copy_from_slice(&value);
    }
    Ok(Selection { moof, payload })
}

/// Copies a `traf`; gives where its data offset stands in `out`.
fn copy_traf(out: &mut Vec<u8>, body: &[u8]) -> Result<usize, Fmp4Error> {
    let mut place = Err(Fmp4Error::Missing("trun"));
    let mut failed = None;
    write_box(out, *b"traf", |out| {
        let mut copy = || {
            let mut boxes = Reader::new(body, "traf");
            while let Some((kind, body)) = boxes.next_box()? {
                if &kind == b"trun" {
                    let (_, flags) = Reader::new(body, "trun").version_and_flags()?;
                    if flags & TRUN_DATA_OFFSET == 0 {
                        return Err(Fmp4Error::Invalid("trun"));
                    }
                    place = Ok(out.len() + BOX_HEADER_BYTES + BEFORE_DATA_OFFSET_BYTES);
                }
                write_box(out, kind, |out| out.extend_from_slice(body));
            }
            Ok(())
        };
        failed = copy().err();
    });
    failed.map_or(place, Err)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use shiguredo_mp4::{Decode, boxes::Brand, boxes::FtypBox};

    use super::*;
    use crate::domain::sample::{Codec, Sample, Shape, Track};
    use crate::media::fmp4::fragment_head;

    fn track(id: u8, codec: Codec) -> Track {
        let shape = if codec.is_video() {
            Shape::Video { width: 64, height: 36 }
        } else {
            Shape::Audio { sample_rate: 8_000, channels: 1 }
        };
        Track { id: TrackId(id), codec, timescale: 1_000, config: Bytes::new(), shape }
    }

    /// Samples of a track: `count`, with sizes, times and key flags that differ.
    fn samples(id: u8, count: i64) -> Vec<Sample> {
        let one = |n: i64| Sample {
            track: TrackId(id),
            // Steps back once, so that the private box with exact times is there too.
            dts: 7_000 + if n == 2 { 10 } else { 40 * n },
            pts: 7_000 + 40 * n + 80 * (n % 2),
            key: n % 3 == 0,
            data: Bytes::from(vec![id; 10 + usize::try_from(n).unwrap_or(0)]),
        };
        (0..count).map(one).collect()
    }

    /// A fragment of picture, sound, picture, sound; its `moof` and its payload.
    fn fragment() -> (Vec<u8>, Vec<u8>) {
        let codecs = [Codec::H264, Codec::Aac, Codec::H265, Codec::PcmAlaw];
        let tracks: Vec<Track> = (1..).zip(codecs).map(|(id, codec)| track(id, codec)).collect();
        let all: Vec<Vec<Sample>> = (1..=4).map(|id| samples(id, 3 + i64::from(id))).collect();
        let runs: Vec<(&Track, &[Sample])> =
            tracks.iter().zip(&all).map(|(track, samples)| (track, &samples[..])).collect();
        let mut moof = fragment_head(7, &runs);
        moof.truncate(moof.len() - BOX_HEADER_BYTES);
        let payload = all.iter().flatten().flat_map(|sample| sample.data.to_vec()).collect();
        (moof, payload)
    }

    fn is_sound(track: TrackId) -> bool {
        track.0.is_multiple_of(2)
    }

    /// The data offset of each `trun`, found as other readers find it.
    fn data_offsets(moof: &[u8]) -> Vec<u32> {
        let truns = moof.windows(4).enumerate().filter(|(_, four)| four == b"trun");
        let word = |at: usize| u32::from_be_bytes(moof[at..at + 4].try_into().expect("four"));
        truns.map(|(at, _)| word(at + 12)).collect()
    }

    #[test]
    fn runs_keep_their_samples_and_find_their_payload() {
        let (moof, payload) = fragment();
        let before = parse_moof(&moof).expect("own bytes");
        let selection = select(&moof, is_sound).expect("selects");
        let after = parse_moof(&selection.moof).expect("a moof");
        let wanted: Vec<_> =
            before.runs.iter().filter(|run| is_sound(run.track)).cloned().collect();
        assert_eq!((after.sequence, &after.runs), (7, &wanted));
        assert_eq!(after.box_len, selection.moof.len() as u64);
        assert_eq!(after.payload_len(), selection.payload_len());

        let range = |range: &Range<u32>| payload[range.start as usize..range.end as usize].to_vec();
        let left: Vec<u8> = selection.payload.iter().flat_map(range).collect();
        let mdat = selection.moof.len() + BOX_HEADER_BYTES;
        let offsets = data_offsets(&selection.moof);
        assert_eq!(offsets.len(), wanted.len());
        for (run, offset) in wanted.iter().zip(offsets) {
            let from = offset as usize - mdat;
            let bytes = &left[from..from + usize::try_from(run.payload_len()).expect("small")];
            assert!(bytes.iter().all(|byte| *byte == run.track.0), "{run:?}");
        }
        assert!(left.iter().all(|byte| is_sound(TrackId(*byte))));
    }

    #[test]
    fn all_or_nothing_can_be_kept() {
        let (moof, payload) = fragment();
        let all = select(&moof, |_| true).expect("selects");
        let len = u32::try_from(payload.len()).expect("small");
        assert_eq!((&all.moof, &all.payload), (&moof, &vec![Range { start: 0, end: len }]));
        let nothing = select(&moof, |_| false).expect("selects");
        let parsed = parse_moof(&nothing.moof).expect("a moof");
        assert!(parsed.runs.is_empty() && nothing.payload.is_empty());
    }

    #[test]
    fn other_boxes_are_refused() {
        let ftyp = FtypBox {
            major_brand: Brand::ISO5,
            minor_version: 0,
            compatible_brands: vec![Brand::ISO5],
        };
        let bytes = shiguredo_mp4::Encode::encode_to_vec(&ftyp).expect("encodes");
        assert!(FtypBox::decode(&bytes).is_ok());
        assert_eq!(select(&bytes, |_| true), Err(Fmp4Error::Missing("moof")));
        let (moof, _) = fragment();
        assert!(select(&moof[..moof.len() - 1], |_| true).is_err());
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(at in 0_usize..700, byte: u8) {
            let (mut moof, payload) = fragment();
            let at = at % moof.len();
            moof[at] = byte;
            if let Ok(selection) = select(&moof, is_sound) {
                let parsed = parse_moof(&selection.moof).expect("what is selected is a moof");
                prop_assert_eq!(parsed.payload_len(), selection.payload_len());
                let _ = payload;
            }
        }
    }
}
