//! The H.264 configuration record `avcC` (ISO/IEC 14496-15, 5.3.3.1).

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::{PicOrderCntType, SeqParameterSet};
use h264_reader::rbsp::{BitReader, ByteReader as RbspReader};

use crate::media::codec::byte_reader::ByteReader;
use crate::media::codec::{CodecError, VideoInfo};

/// What errors call the record.
const RECORD: &str = "H.264 configuration";
/// Profiles in which `constraint_set3_flag` says intra only, hence no reordering (H.264 E.2.1).
const INTRA_PROFILES: [u8; 6] = [44, 86, 100, 110, 122, 244];

/// The record, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvcConfig {
    /// Bytes of the length before each NAL unit of a sample: 1, 2 or 4.
    pub length_size: u8,
    /// Sequence parameter sets; at least one, none shorter than four bytes.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets.
    pub pps: Vec<Bytes>,
    /// What follows the picture parameter sets in high profiles, as it came.
    extension: Bytes,
}

impl AvcConfig {
    /// A record from parameter sets as they stand in the stream (without start codes).
    ///
    /// # Errors
    /// No sequence parameter set, one that is too short, or more than the record can hold.
    pub fn new(sps: Vec<Bytes>, pps: Vec<Bytes>) -> Result<Self, CodecError> {
        let config = AvcConfig { length_size: 4, sps, pps, extension: Bytes::new() };
        config.check()?;
        Ok(config)
    }

    /// Reads a record; the parameter sets share its memory.
    ///
    /// # Errors
    /// The record is cut short, of another version, or without a sequence parameter set.
    pub fn parse(record: &Bytes) -> Result<Self, CodecError> {
        let mut reader = ByteReader::new(record, RECORD);
        if reader.u8()? != 1 {
            return Err(invalid("version"));
        }
        reader.take(3)?;
        let length_size = (reader.u8()? & 3) + 1;
        let sps_count = reader.u8()? & 0x1f;
        let sps = (0..sps_count).map(|_| reader.block16()).collect::<Result<Vec<_>, _>>()?;
        let pps_count = reader.u8()?;
        let pps = (0..pps_count).map(|_| reader.block16()).collect::<Result<Vec<_>, _>>()?;
        let config = AvcConfig { length_size, sps, pps, extension: reader.into_rest() };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CodecError> {
        if !matches!(self.length_size, 1 | 2 | 4) {
            return Err(invalid("NAL length size"));
        }
        if self.sps.is_empty() || self.sps.len() > 31 || self.sps.iter().any(|sps| sps.len() < 4) {
            return Err(invalid("sequence parameter set"));
        }
        let too_long = |set: &Bytes| set.len() > usize::from(u16::MAX);
        if self.pps.len() > 255 || self.sps.iter().chain(&self.pps).any(too_long) {
            return Err(invalid("picture parameter set"));
        }
        Ok(())
    }

    /// The record as bytes. A record that was read comes out with the same content.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let sets = self.sps.iter().chain(&self.pps).map(|set| set.len() + 2).sum::<usize>();
        let mut out = BytesMut::with_capacity(7 + sets + self.extension.len());
        out.put_u8(1);
        out.put_slice(&self.sps[0][1..4]);
        out.put_u8(0xfc | (self.length_size - 1));
        out.put_u8(0xe0 | self.sps.len() as u8);
        put_sets(&mut out, &self.sps);
        out.put_u8(self.pps.len() as u8);
        put_sets(&mut out, &self.pps);
        out.put_slice(&self.extension);
        out.freeze()
    }

    /// What the first sequence parameter set says.
    ///
    /// # Errors
    /// The parameter set cannot be read.
    pub fn video_info(&self) -> Result<VideoInfo, CodecError> {
        let sps = trim_zeros(&self.sps[0]);
        let reader = BitReader::new(RbspReader::skipping_h264_header(sps));
        let sps = SeqParameterSet::from_bits(reader).map_err(|error| unreadable(&error))?;
        let (width, height) = sps.pixel_dimensions().map_err(|error| unreadable(&error))?;
        let side = |value| u16::try_from(value).map_err(|_| invalid("picture size"));
        Ok(VideoInfo {
            width: side(width)?,
            height: side(height)?,
            reorder_frames: reorder_frames(&sps),
            frame_ticks: frame_ticks(&sps),
        })
    }
}

fn reorder_frames(sps: &SeqParameterSet) -> Option<u8> {
    let restrictions =
        sps.vui_parameters.as_ref().and_then(|vui| vui.bitstream_restrictions.as_ref());
    if let Some(restrictions) = restrictions {
        return u8::try_from(restrictions.max_num_reorder_frames).ok();
    }
    let profile = u8::from(sps.profile_idc);
    let intra_only = INTRA_PROFILES.contains(&profile) && sps.constraint_flags.flag3();
    let in_order = matches!(sps.pic_order_cnt, PicOrderCntType::TypeTwo);
    (profile == 66 || intra_only || in_order).then_some(0)
}

/// A frame is two ticks long (two fields).
fn frame_ticks(sps: &SeqParameterSet) -> Option<(u32, u32)> {
    let timing = sps.vui_parameters.as_ref()?.timing_info.as_ref()?;
    let ticks = timing.num_units_in_tick.checked_mul(2)?;
    (ticks > 0 && timing.time_scale > 0).then_some((ticks, timing.time_scale))
}

fn put_sets(out: &mut BytesMut, sets: &[Bytes]) {
    for set in sets {
        out.put_u16(set.len() as u16);
        out.put_slice(set);
    }
}

/// Cameras pad parameter sets with zeros, which end no NAL unit.
pub(super) fn trim_zeros(nal: &[u8]) -> &[u8] {
    let end = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &nal[..end]
}

fn invalid(field: &'static str) -> CodecError {
    CodecError::Invalid { what: RECORD, field }
}

fn unreadable(error: &h264_reader::nal::sps::SpsError) -> CodecError {
    CodecError::ParameterSet { what: "H.264 sequence parameter set", why: format!("{error:?}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// x264 High, 320x180 (cropped from 320x192), two B-frames, 25 frames a second.
    const X264: &[u8] = include_bytes!("../../../tests/data/codec/x264-high.avcc");

    #[test]
    fn a_record_from_x264_is_read_and_written_back() {
        let record = Bytes::from_static(X264);
        let config = AvcConfig::parse(&record).expect("x264 writes good records");
        assert_eq!((config.length_size, config.sps.len(), config.pps.len()), (4, 1, 1));
        assert_eq!(config.to_bytes(), record);
        let info = config.video_info().expect("x264 writes good parameter sets");
        assert_eq!((info.width, info.height), (320, 180));
        assert_eq!(info.reorder_frames, Some(1));
        let (ticks, scale) = info.frame_ticks.expect("x264 states timing");
        assert_eq!(u64::from(ticks) * 25, u64::from(scale));
    }

    #[test]
    fn baseline_without_usability_information_implies_no_reordering() {
        // Profile 66, level 1.1, 128x96, picture order type 0, no VUI.
        let sps = Bytes::from_static(&[0x67, 0x42, 0xc0, 0x0b, 0xda, 0x08, 0x19, 0x10]);
        let config = AvcConfig::new(vec![sps], vec![]).expect("long enough");
        let info = config.video_info().expect("readable");
        assert_eq!(info.reorder_frames, Some(0));
        assert_eq!(info.frame_ticks, None);
    }

    #[test]
    fn cut_records_are_refused() {
        for end in 0..X264.len() - 4 {
            let cut = Bytes::from_static(&X264[..end]);
            assert_eq!(AvcConfig::parse(&cut), Err(CodecError::Truncated(RECORD)), "{end}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(config) = AvcConfig::parse(&Bytes::from(bytes)) {
                let _ = config.video_info();
                prop_assert_eq!(AvcConfig::parse(&config.to_bytes()), Ok(config));
            }
        }

        #[test]
        fn mutated_parameter_sets_never_panic(
            flips in proptest::collection::vec((0..X264.len(), any::<u8>()), 1..6),
        ) {
            let mut bytes = X264.to_vec();
            for (at, value) in flips {
                bytes[at] = value;
            }
            if let Ok(config) = AvcConfig::parse(&Bytes::from(bytes)) {
                let _ = config.video_info();
            }
        }
    }
}
