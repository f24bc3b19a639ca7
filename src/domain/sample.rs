//! Tracks and samples: what ingest hands on and what everything after it keeps unchanged.

use bytes::Bytes;

/// A track of a session, from 1; also the `track_ID` on flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(pub u8);

/// A codec that edgerec carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Codec {
    /// ITU-T H.264; samples are length-prefixed NAL units, config is the `avcC` record.
    H264 = 1,
    /// ITU-T H.265; samples are length-prefixed NAL units, config is the `hvcC` record.
    H265 = 2,
    /// AAC; samples are raw frames, config is the AudioSpecificConfig.
    Aac = 3,
    /// G.711 A-law; samples are octets, no config.
    PcmAlaw = 4,
    /// G.711 mu-law; samples are octets, no config.
    PcmUlaw = 5,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 5] =
        [Codec::H264, Codec::H265, Codec::Aac, Codec::PcmAlaw, Codec::PcmUlaw];

    /// Back from the number stored on flash.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| *codec as u8 == number)
    }

    /// Back from its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Whether the codec carries pictures.
    #[must_use]
    pub fn is_video(self) -> bool {
        matches!(self, Codec::H264 | Codec::H265)
    }

    /// The name as ffprobe prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::H264 => "h264",
            Codec::H265 => "hevc",
            Codec::Aac => "aac",
            Codec::PcmAlaw => "pcm_alaw",
            Codec::PcmUlaw => "pcm_mulaw",
        }
    }
}

/// What a track looks or sounds like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Picture size in luma samples; 0 when unknown.
    Video {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Sound.
    Audio {
        /// Samples a second.
        sample_rate: u32,
        /// Channels.
        channels: u8,
    },
}

/// A codec stream of a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Track {
    /// Its number in the session.
    pub id: TrackId,
    /// How its samples are coded.
    pub codec: Codec,
    /// Ticks a second of its dts and pts; never 0.
    pub timescale: u32,
    /// Codec configuration, see [`Codec`].
    pub config: Bytes,
    /// Picture or sound.
    pub shape: Shape,
}

impl Track {
    /// Whether the track carries pictures.
    #[must_use]
    pub fn is_video(&self) -> bool {
        self.codec.is_video()
    }
}

/// One access unit or audio frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The track it belongs to.
    pub track: TrackId,
    /// Decoding time in ticks of the track, source time, wrap already unrolled, not negative.
    pub dts: i64,
    /// Presentation time in ticks of the track.
    pub pts: i64,
    /// Decoding can start here (always true for audio).
    pub key: bool,
    /// The coded bytes, see [`Codec`].
    pub data: Bytes,
}
