//! AAC configuration (AudioSpecificConfig, ISO/IEC 14496-3, 1.6.2.1) and ADTS headers (1.A.2.2).

use h264_reader::rbsp::{BitRead, BitReader, BitReaderError};

use crate::media::codec::CodecError;

/// What errors call the record.
const RECORD: &str = "AAC configuration";
/// Samples a second by sampling index.
pub const SAMPLE_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];
/// The index that says that the rate follows as a number.
const EXPLICIT_RATE: u8 = 15;
/// Object types that announce spectral band replication or parametric stereo before the core's.
const SBR: u8 = 5;
const PS: u8 = 29;
/// Channels by channel configuration; 0 where it is reserved (or told elsewhere).
const CHANNELS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 8, 0, 0, 0, 7, 8, 24, 8, 0];
/// The longest frame that ADTS can carry, in bytes without the header.
pub const ADTS_FRAME_BYTES_MAX: usize = 0x1fff - ADTS_HEADER_BYTES;
/// Length of the ADTS header that [`AacConfig::adts_header`] makes.
pub const ADTS_HEADER_BYTES: usize = 7;

/// The configuration, read. The raw bytes are kept by the track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AacConfig {
    /// Audio object type of the core codec (2 is AAC-LC), also for HE-AAC.
    pub object_type: u8,
    /// Index of the core's sampling rate; 15 when the rate is none of [`SAMPLE_RATES`].
    pub sampling_index: u8,
    /// Samples a second of the core (HE-AAC plays at twice that).
    pub sample_rate: u32,
    /// Channels of the core; 0 when the configuration does not tell.
    pub channels: u8,
    /// Samples of the core in a frame.
    pub frame_samples: u16,
}

impl AacConfig {
    /// Reads an AudioSpecificConfig. What follows the core's configuration is not looked at.
    ///
    /// # Errors
    /// The record is cut short or has a reserved sampling index.
    pub fn parse(config: &[u8]) -> Result<Self, CodecError> {
        let mut bits = BitReader::new(config);
        let mut object_type = object_type(&mut bits)?;
        let (mut sampling_index, mut sample_rate) = (0, 0);
        read_rate(&mut bits, &mut sampling_index, &mut sample_rate)?;
        let channel_configuration = bits.read::<u8>(4, "channelConfiguration")?;
        if matches!(object_type, SBR | PS) {
            let (mut index, mut rate) = (0, 0);
            read_rate(&mut bits, &mut index, &mut rate)?;
            object_type = self::object_type(&mut bits)?;
        }
        let mut channels = CHANNELS[usize::from(channel_configuration & 15)];
        // A configuration that ends here is in use; the defaults then hold.
        let short = bits.read_bool("frameLengthFlag").unwrap_or(false);
        let frame_samples = match (object_type, short) {
            (23 | 39, false) => 512,
            (23 | 39, true) => 480,
            (_, false) => 1024,
            (_, true) => 960,
        };
        if channel_configuration == 0 {
            channels = count_channels(&mut bits).unwrap_or(0);
        }
        Ok(AacConfig { object_type, sampling_index, sample_rate, channels, frame_samples })
    }

    /// The ADTS header of a frame of `frame_len` bytes (at most [`ADTS_FRAME_BYTES_MAX`]; more
    /// does not fit in the field, and no AAC frame is that long).
    #[must_use]
    pub fn adts_header(&self, frame_len: usize) -> [u8; 7] {
        let profile = self.object_type.saturating_sub(1).min(3);
        let rate = adts_rate(self.sampling_index, self.sample_rate);
        let channels = match self.channels {
            channels @ 0..=6 => channels,
            8 => 7,
            _ => 0,
        };
        let len = frame_len.min(ADTS_FRAME_BYTES_MAX) + ADTS_HEADER_BYTES;
        [
            0xff,
            0xf1,
            profile << 6 | rate << 2 | channels >> 2,
            (channels & 3) << 6 | (len >> 11) as u8,
            (len >> 3) as u8,
            ((len & 7) as u8) << 5 | 0x1f,
            0xfc,
        ]
    }
}

fn object_type(bits: &mut impl BitRead) -> Result<u8, CodecError> {
    let short = bits.read::<u8>(5, "audioObjectType")?;
    if short < 31 { Ok(short) } else { Ok(32 + bits.read::<u8>(6, "audioObjectTypeExt")?) }
}

fn read_rate(bits: &mut impl BitRead, index: &mut u8, rate: &mut u32) -> Result<(), CodecError> {
    *index = bits.read::<u8>(4, "samplingFrequencyIndex")?;
    if *index == EXPLICIT_RATE {
        *rate = bits.read::<u32>(24, "samplingFrequency")?;
        let known = SAMPLE_RATES.iter().position(|known| known == rate);
        *index = known.map_or(EXPLICIT_RATE, |known| known as u8);
    } else {
        *rate = SAMPLE_RATES.get(usize::from(*index)).copied().unwrap_or(0);
    }
    if *rate == 0 {
        return Err(CodecError::Invalid { what: RECORD, field: "sampling rate" });
    }
    Ok(())
}

/// The nearest rate that ADTS can name (14496-3 table 4.82 draws the same lines).
fn adts_rate(index: u8, rate: u32) -> u8 {
    if index != EXPLICIT_RATE {
        return index;
    }
    let nearest = (0u8..).zip(SAMPLE_RATES).min_by_key(|(_, known)| known.abs_diff(rate));
    nearest.map_or(EXPLICIT_RATE, |(index, _)| index)
}

/// Channels of the program config element that follows when the configuration is 0 (4.4.1.1).
fn count_channels(bits: &mut impl BitRead) -> Result<u8, BitReaderError> {
    if bits.read_bool("dependsOnCoreCoder")? {
        bits.skip(14, "coreCoderDelay")?;
    }
    bits.skip(1 + 4 + 2 + 4, "extensionFlag")?;
    let elements = bits.read::<u8>(4, "num_front")?
        + bits.read::<u8>(4, "num_side")?
        + bits.read::<u8>(4, "num_back")?;
    let mut channels = bits.read::<u8>(2, "num_lfe")?;
    bits.skip(3 + 4, "num_assoc_data")?;
    for (bit_count, name) in [(4, "mono_mixdown"), (4, "stereo_mixdown"), (3, "matrix_mixdown")] {
        if bits.read_bool(name)? {
            bits.skip(bit_count, name)?;
        }
    }
    for _ in 0..elements {
        channels += 1 + u8::from(bits.read_bool("is_cpe")?);
        bits.skip(4, "tag_select")?;
    }
    Ok(channels)
}

impl From<BitReaderError> for CodecError {
    fn from(_: BitReaderError) -> Self {
        CodecError::Truncated(RECORD)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> (u8, u8, u32, u8, u16) {
        let config = AacConfig::parse(bytes).expect("readable");
        let AacConfig { object_type, sampling_index, sample_rate, channels, frame_samples } =
            config;
        (object_type, sampling_index, sample_rate, channels, frame_samples)
    }

    #[test]
    fn configurations_seen_in_the_field() {
        assert_eq!(parse(&[0x12, 0x10]), (2, 4, 44_100, 2, 1024));
        // ffmpeg adds a backward compatible extension, GStreamer's RTSP server pads to five.
        assert_eq!(parse(&[0x11, 0x90, 0x56, 0xe5, 0x00]), (2, 3, 48_000, 2, 1024));
        // HE-AAC v1, explicit: core 24 kHz, plays at 48 kHz.
        assert_eq!(parse(&[0x2b, 0x11, 0x88, 0x00]), (2, 6, 24_000, 2, 1024));
        // Explicit rate of 44,100 in 24 bits, then 960-sample frames.
        let explicit = [0x17, 0x80, 0x56, 0x22, 0x14];
        assert_eq!(parse(&explicit), (2, 4, 44_100, 2, 960));
    }

    #[test]
    fn short_and_reserved_ones_are_refused() {
        assert_eq!(AacConfig::parse(&[0x12]), Err(CodecError::Truncated(RECORD)));
        let reserved = CodecError::Invalid { what: RECORD, field: "sampling rate" };
        assert_eq!(AacConfig::parse(&[0x16, 0x90]), Err(reserved));
    }

    #[test]
    fn adts_header_of_a_stereo_frame() {
        let config = AacConfig::parse(&[0x12, 0x10]).expect("readable");
        // Written by ffmpeg for a frame of 371 bytes with header.
        assert_eq!(config.adts_header(364), [0xff, 0xf1, 0x50, 0x80, 0x2e, 0x7f, 0xfc]);
        assert_eq!(config.adts_header(usize::MAX)[3] & 3, 3);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..32),
            len in any::<usize>(),
        ) {
            if let Ok(config) = AacConfig::parse(&bytes) {
                prop_assert!(config.sample_rate > 0);
                let _ = config.adts_header(len);
            }
        }
    }
}
