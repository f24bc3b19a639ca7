//! The H.265 configuration record `hvcC` (ISO/IEC 14496-15, 8.3.3.1), and as much of the
//! parameter sets (ITU-T H.265, 7.3.2) as recording needs.

use std::num::NonZeroUsize;

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::rbsp::{BitRead, BitReader, BitReaderError, ByteReader as RbspReader};

use crate::media::codec::avc::trim_zeros;
use crate::media::codec::byte_reader::ByteReader;
use crate::media::codec::{CodecError, VideoInfo};

/// What errors call the record.
const RECORD: &str = "H.265 configuration";
/// NAL unit type of a video parameter set.
pub const NAL_VPS: u8 = 32;
/// NAL unit type of a sequence parameter set.
pub const NAL_SPS: u8 = 33;
/// NAL unit type of a picture parameter set.
pub const NAL_PPS: u8 = 34;
/// Bytes of the record before the arrays.
const FIXED_BYTES: usize = 22;
/// The H.265 NAL unit header.
const NAL_HEADER_BYTES: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

/// The record, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HevcConfig {
    /// Bytes of the length before each NAL unit of a sample: 1, 2 or 4.
    pub length_size: u8,
    /// NAL unit type and the units of that type, in the order of the record.
    pub arrays: Vec<(u8, Vec<Bytes>)>,
    /// The fixed part as it came (profile, level, chroma format …).
    fixed: [u8; FIXED_BYTES - 1],
    /// Whether the record says that each array is complete, for writing back.
    complete: Vec<bool>,
}

impl HevcConfig {
    /// Reads a record; the units share its memory.
    ///
    /// # Errors
    /// The record is cut short, of another version or without a sequence parameter set.
    pub fn parse(record: &Bytes) -> Result<Self, CodecError> {
        let mut reader = ByteReader::new(record, RECORD);
        let head = reader.take(FIXED_BYTES)?;
        // Version 0 was written by early encoders and means the same.
        if head[0] > 1 {
            return Err(invalid("version"));
        }
        let mut fixed = [0; FIXED_BYTES - 1];
        fixed.copy_from_slice(&head[1..]);
        let length_size = (head[FIXED_BYTES - 1] & 3) + 1;
        if length_size == 3 {
            return Err(invalid("NAL length size"));
        }
        let array_count = reader.u8()?;
        let mut arrays = Vec::new();
        let mut complete = Vec::new();
        for _ in 0..array_count {
            let kind = reader.u8()?;
            let unit_count = reader.u16()?;
            let mut units = Vec::new();
            for _ in 0..unit_count {
                units.push(reader.block16()?);
            }
            complete.push(kind & 0x80 != 0);
            arrays.push((kind & 0x3f, units));
        }
        let config = HevcConfig { length_size, arrays, fixed, complete };
        config.first(NAL_SPS).ok_or(invalid("sequence parameter set"))?;
        Ok(config)
    }

    /// The record as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(1);
        out.put_slice(&self.fixed[..FIXED_BYTES - 2]);
        out.put_u8(self.fixed[FIXED_BYTES - 2] & !3 | (self.length_size - 1));
        out.put_u8(self.arrays.len() as u8);
        for (index, (kind, units)) in self.arrays.iter().enumerate() {
            let complete = self.complete.get(index).copied().unwrap_or(false);
            out.put_u8(u8::from(complete) << 7 | kind);
            out.put_u16(units.len() as u16);
            for unit in units {
                out.put_u16(unit.len() as u16);
                out.put_slice(unit);
            }
        }
        out.freeze()
    }

    /// The first unit of a NAL unit type.
    #[must_use]
    pub fn first(&self, nal_type: u8) -> Option<&Bytes> {
        self.arrays
            .iter()
            .filter(|(kind, _)| *kind == nal_type)
            .find_map(|(_, units)| units.first())
    }

    /// What the first sequence and video parameter sets say.
    ///
    /// # Errors
    /// The sequence parameter set cannot be read.
    pub fn video_info(&self) -> Result<VideoInfo, CodecError> {
        let sps = self.first(NAL_SPS).ok_or(invalid("sequence parameter set"))?;
        let mut info = read_sps(&mut bits(sps)).map_err(|error| match error {
            SpsError::Bits(error) => CodecError::ParameterSet {
                what: "H.265 sequence parameter set",
                why: format!("{error:?}"),
            },
            SpsError::PictureSize => invalid("picture size"),
        })?;
        info.frame_ticks =
            self.first(NAL_VPS).and_then(|vps| read_vps(&mut bits(vps)).ok().flatten());
        Ok(info)
    }
}

/// Why a sequence parameter set is not used.
enum SpsError {
    Bits(BitReaderError),
    PictureSize,
}

impl From<BitReaderError> for SpsError {
    fn from(error: BitReaderError) -> Self {
        SpsError::Bits(error)
    }
}

fn bits(nal: &[u8]) -> BitReader<RbspReader<&[u8]>> {
    BitReader::new(RbspReader::skipping_bytes(trim_zeros(nal), NAL_HEADER_BYTES))
}

/// 7.3.2.2.1 up to `sps_max_num_reorder_pics`.
fn read_sps(bits: &mut impl BitRead) -> Result<VideoInfo, SpsError> {
    bits.skip(4, "sps_video_parameter_set_id")?;
    let sub_layers_minus1 = bits.read::<u8>(3, "sps_max_sub_layers_minus1")?;
    bits.skip(1, "sps_temporal_id_nesting_flag")?;
    skip_profile_tier_level(bits, sub_layers_minus1)?;
    bits.read_ue("sps_seq_parameter_set_id")?;
    let chroma_format = bits.read_ue("chroma_format_idc")?;
    if chroma_format == 3 {
        bits.skip(1, "separate_colour_plane_flag")?;
    }
    let width = bits.read_ue("pic_width_in_luma_samples")?;
    let height = bits.read_ue("pic_height_in_luma_samples")?;
    let (mut cut_x, mut cut_y) = (0, 0);
    if bits.read_bool("conformance_window_flag")? {
        let (unit_x, unit_y) = match chroma_format {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        let left = u64::from(bits.read_ue("conf_win_left_offset")?);
        let right = u64::from(bits.read_ue("conf_win_right_offset")?);
        let top = u64::from(bits.read_ue("conf_win_top_offset")?);
        let bottom = u64::from(bits.read_ue("conf_win_bottom_offset")?);
        (cut_x, cut_y) = ((left + right) * unit_x, (top + bottom) * unit_y);
    }
    bits.read_ue("bit_depth_luma_minus8")?;
    bits.read_ue("bit_depth_chroma_minus8")?;
    bits.read_ue("log2_max_pic_order_cnt_lsb_minus4")?;
    let reorder = read_ordering(bits, sub_layers_minus1)?;
    let side = |whole: u32, cut| {
        u64::from(whole).checked_sub(cut).and_then(|side| u16::try_from(side).ok())
    };
    Ok(VideoInfo {
        width: side(width, cut_x).ok_or(SpsError::PictureSize)?,
        height: side(height, cut_y).ok_or(SpsError::PictureSize)?,
        reorder_frames: u8::try_from(reorder).ok(),
        frame_ticks: None,
    })
}

/// 7.3.2.1 up to the timing: duration of a picture.
fn read_vps(bits: &mut impl BitRead) -> Result<Option<(u32, u32)>, BitReaderError> {
    bits.skip(4 + 2 + 6, "vps_video_parameter_set_id")?;
    let sub_layers_minus1 = bits.read::<u8>(3, "vps_max_sub_layers_minus1")?;
    bits.skip(1 + 16, "vps_reserved_0xffff_16bits")?;
    skip_profile_tier_level(bits, sub_layers_minus1)?;
    read_ordering(bits, sub_layers_minus1)?;
    let max_layer_id = bits.read::<u32>(6, "vps_max_layer_id")?;
    let layer_sets_minus1 = bits.read_ue("vps_num_layer_sets_minus1")?.min(1023);
    for _ in 0..layer_sets_minus1 {
        bits.skip(max_layer_id + 1, "layer_id_included_flag")?;
    }
    if !bits.read_bool("vps_timing_info_present_flag")? {
        return Ok(None);
    }
    let ticks = bits.read::<u32>(32, "vps_num_units_in_tick")?;
    let scale = bits.read::<u32>(32, "vps_time_scale")?;
    Ok((ticks > 0 && scale > 0).then_some((ticks, scale)))
}

/// The ordering information of the sub-layers; gives the reordering of the highest.
fn read_ordering(bits: &mut impl BitRead, sub_layers_minus1: u8) -> Result<u32, BitReaderError> {
    let all = bits.read_bool("sub_layer_ordering_info_present_flag")?;
    let mut reorder = 0;
    for _ in 0..=(if all { sub_layers_minus1 } else { 0 }) {
        bits.read_ue("max_dec_pic_buffering_minus1")?;
        reorder = bits.read_ue("max_num_reorder_pics")?;
        bits.read_ue("max_latency_increase_plus1")?;
    }
    Ok(reorder)
}

/// 7.3.3, nothing of which is needed here.
fn skip_profile_tier_level(
    bits: &mut impl BitRead,
    sub_layers_minus1: u8,
) -> Result<(), BitReaderError> {
    bits.skip(96, "general_profile_tier_level")?;
    let mut present = Vec::with_capacity(usize::from(sub_layers_minus1));
    for _ in 0..sub_layers_minus1 {
        let profile = bits.read_bool("sub_layer_profile_present_flag")?;
        present.push((profile, bits.read_bool("sub_layer_level_present_flag")?));
    }
    if sub_layers_minus1 > 0 {
        bits.skip(2 * (8 - u32::from(sub_layers_minus1)), "reserved_zero_2bits")?;
    }
    for (profile, level) in present {
        bits.skip(88 * u32::from(profile) + 8 * u32::from(level), "sub_layer_profile_tier_level")?;
    }
    Ok(())
}

fn invalid(field: &'static str) -> CodecError {
    CodecError::Invalid { what: RECORD, field }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// x265 Main, 320x180 (cropped from 320x184), B-frames, 25 frames a second.
    const X265: &[u8] = include_bytes!("../../../tests/data/codec/x265-main.hvcc");

    #[test]
    fn a_record_from_x265_is_read_and_written_back() {
        let record = Bytes::from_static(X265);
        let config = HevcConfig::parse(&record).expect("x265 writes good records");
        assert_eq!(config.length_size, 4);
        for kind in [NAL_VPS, NAL_SPS, NAL_PPS] {
            assert!(config.first(kind).is_some(), "{kind}");
        }
        assert_eq!(config.to_bytes(), record);
        let info = config.video_info().expect("x265 writes good parameter sets");
        assert_eq!((info.width, info.height), (320, 180));
        assert_eq!(info.reorder_frames, Some(1));
        if let Some((ticks, scale)) = info.frame_ticks {
            assert_eq!(u64::from(ticks) * 25, u64::from(scale));
        }
    }

    #[test]
    fn cut_records_are_refused() {
        for end in 0..FIXED_BYTES + 20 {
            assert!(HevcConfig::parse(&Bytes::from_static(&X265[..end])).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            flips in proptest::collection::vec((0..X265.len(), any::<u8>()), 1..8),
            end in 0..X265.len(),
        ) {
            let mut bytes = X265.to_vec();
            for (at, value) in flips {
                bytes[at] = value;
            }
            for record in [Bytes::from(bytes.clone()), Bytes::from(bytes).slice(..end)] {
                if let Ok(config) = HevcConfig::parse(&record) {
                    let _ = config.video_info();
                    prop_assert!(HevcConfig::parse(&config.to_bytes()).is_ok());
                }
            }
        }
    }
}
