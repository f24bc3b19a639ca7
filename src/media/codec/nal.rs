//! NAL units of a sample: each behind its length, as in MP4 and FLV.

use crate::domain::sample::Codec;
use crate::media::codec::CodecError;

/// NAL unit type of an H.264 IDR slice.
const H264_IDR: u8 = 5;
/// NAL unit types of H.265 intra random access pictures (BLA, IDR, CRA and reserved ones).
const H265_IRAP: std::ops::RangeInclusive<u8> = 16..=23;

/// The NAL units of a sample, in order. After an error it ends.
#[derive(Debug, Clone)]
pub struct NalUnits<'a> {
    rest: &'a [u8],
    length_size: u8,
}

impl<'a> NalUnits<'a> {
    /// Over `sample`, whose lengths have `length_size` bytes (1, 2 or 4; others give an error at
    /// the first unit).
    #[must_use]
    pub fn new(sample: &'a [u8], length_size: u8) -> Self {
        NalUnits { rest: sample, length_size }
    }

    /// The length and what follows it.
    fn split_length(&self) -> Option<(usize, &'a [u8])> {
        match self.length_size {
            1 => self
                .rest
                .split_first_chunk()
                .map(|(len, rest)| (u8::from_be_bytes(*len).into(), rest)),
            2 => self
                .rest
                .split_first_chunk()
                .map(|(len, rest)| (u16::from_be_bytes(*len).into(), rest)),
            4 => {
                let (len, rest) = self.rest.split_first_chunk()?;
                Some((usize::try_from(u32::from_be_bytes(*len)).ok()?, rest))
            }
            _ => None,
        }
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = Result<&'a [u8], CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let unit = self.split_length().and_then(|(len, rest)| rest.split_at_checked(len));
        let Some((unit, rest)) = unit else {
            self.rest = &[];
            return Some(Err(CodecError::Truncated("NAL unit")));
        };
        self.rest = rest;
        Some(Ok(unit))
    }
}

/// Type of an H.264 NAL unit; `None` if it is empty.
#[must_use]
pub fn h264_type(unit: &[u8]) -> Option<u8> {
    unit.first().map(|byte| byte & 0x1f)
}

/// Type of an H.265 NAL unit; `None` if it is empty.
#[must_use]
pub fn h265_type(unit: &[u8]) -> Option<u8> {
    unit.first().map(|byte| byte >> 1 & 0x3f)
}

/// Whether an H.264 NAL unit is a slice of an IDR picture.
#[must_use]
pub fn is_idr(unit: &[u8]) -> bool {
    h264_type(unit) == Some(H264_IDR)
}

/// Whether an H.265 NAL unit is a slice of an intra random access picture.
#[must_use]
pub fn is_irap(unit: &[u8]) -> bool {
    h265_type(unit).is_some_and(|kind| H265_IRAP.contains(&kind))
}

/// Whether decoding can start at a sample: it has an IDR (H.264) or random access (H.265) slice.
/// Audio samples are always keys. Damaged video is a key only by what stands before the damage.
#[must_use]
pub fn is_key(codec: Codec, sample: &[u8], length_size: u8) -> bool {
    let units = NalUnits::new(sample, length_size).map_while(Result::ok);
    match codec {
        Codec::H264 => units.into_iter().any(is_idr),
        Codec::H265 => units.into_iter().any(is_irap),
        Codec::Aac | Codec::PcmAlaw | Codec::PcmUlaw => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(sample: &[u8], length_size: u8) -> Vec<Result<&[u8], CodecError>> {
        NalUnits::new(sample, length_size).collect()
    }

    #[test]
    fn units_come_out_for_each_length_size() {
        assert_eq!(units(&[1, 9, 0, 2, 8, 7], 1), [Ok(&[9][..]), Ok(&[]), Ok(&[8, 7])]);
        assert_eq!(units(&[0, 1, 9, 0, 2, 8, 7], 2), [Ok(&[9][..]), Ok(&[8, 7])]);
        assert_eq!(units(&[0, 0, 0, 1, 9], 4), [Ok(&[9][..])]);
    }

    #[test]
    fn damage_ends_the_list_with_one_error() {
        let cut = || Err(CodecError::Truncated("NAL unit"));
        assert_eq!(units(&[1, 9, 5, 1], 1), [Ok(&[9][..]), cut()]);
        assert_eq!(units(&[0xff; 7], 4), [cut()]);
        assert_eq!(units(&[0, 0, 1], 3), [cut()]);
        assert_eq!(units(&[0], 2), [cut()]);
    }

    #[test]
    fn keys_are_told_apart() {
        assert!(is_key(Codec::H264, &[0, 2, 0x06, 5, 0, 1, 0x65], 2));
        assert!(!is_key(Codec::H264, &[0, 1, 0x41], 2));
        // BLA_W_LP and CRA are random access points, TRAIL_R and RASL_R are not.
        for (first, key) in [(16 << 1, true), (21 << 1, true), (1 << 1, false), (9 << 1, false)] {
            assert_eq!(is_key(Codec::H265, &[2, first, 1], 1), key);
        }
        assert!(is_key(Codec::Aac, &[], 4));
    }

    proptest! {
        #[test]
        fn any_bytes_give_units_inside_them(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            length_size in 0u8..6,
        ) {
            let total: usize =
                NalUnits::new(&bytes, length_size).filter_map(Result::ok).map(<[u8]>::len).sum();
            prop_assert!(total <= bytes.len());
            let _ = is_key(Codec::H264, &bytes, length_size);
            let _ = is_key(Codec::H265, &bytes, length_size);
        }
    }
}
