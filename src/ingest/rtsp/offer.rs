//! What a camera offers: which tracks are taken, and what their parameters say.

use bytes::Bytes;
use retina::client::Stream;
use retina::codec::ParametersRef;

use super::assembly::Format;
use crate::domain::limits::{CODEC_CONFIG_BYTES_MAX, TRACKS_MAX};
use crate::domain::sample::{Codec, Shape};
use crate::media::codec::VideoInfo;
use crate::media::codec::aac::AacConfig;
use crate::media::codec::avc::AvcConfig;
use crate::media::codec::hevc::HevcConfig;

/// The only RTP clock rate of H.264 and H.265 (RFC 6184, 8.2.1; RFC 7798, 7.1).
const VIDEO_CLOCK_RATE: u32 = 90_000;
/// Tracks that are named as left out; more are only counted.
const LEFT_OUT_NAMED_MAX: usize = 16;
/// Characters of a camera's own words that are repeated.
const NAME_CHARS_MAX: usize = 32;

/// A track that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its place in the description.
    pub(super) stream: usize,
    /// How it is coded.
    pub(super) codec: Codec,
    /// RTP clock rate; never 0.
    pub(super) timescale: u32,
}

/// Splits the offer into what is taken, at most [`TRACKS_MAX`], and what is left out, in words.
pub(super) fn choose(streams: &[Stream]) -> (Vec<Wanted>, Vec<String>) {
    let mut wanted = Vec::new();
    let mut left_out = Vec::new();
    let mut unnamed = 0_usize;
    for (index, stream) in streams.iter().enumerate() {
        let refusal = match check(stream) {
            Ok(_) if wanted.len() >= TRACKS_MAX => "too many tracks",
            Ok(codec) => {
                wanted.push(Wanted { stream: index, codec, timescale: stream.clock_rate_hz() });
                continue;
            }
            Err(why) => why,
        };
        if left_out.len() < LEFT_OUT_NAMED_MAX {
            left_out.push(format!("{}: {refusal}", name(stream)));
        } else {
            unnamed += 1;
        }
    }
    if unnamed > 0 {
        left_out.push(format!("{unnamed} more"));
    }
    (wanted, left_out)
}

/// What a track is called in reports: the camera's words, made harmless.
pub(super) fn name(stream: &Stream) -> String {
    let words = format!("{}/{}", stream.media(), stream.encoding_name());
    words.chars().filter(|c| c.is_ascii_graphic()).take(NAME_CHARS_MAX).collect()
}

fn check(stream: &Stream) -> Result<Codec, &'static str> {
    let codec = match (stream.media(), stream.encoding_name()) {
        ("video", "h264") => Codec::H264,
        ("video", "h265") => Codec::H265,
        ("audio", "mpeg4-generic") => Codec::Aac,
        ("audio", "pcma") => Codec::PcmAlaw,
        ("audio", "pcmu") => Codec::PcmUlaw,
        _ => return Err("cannot be carried"),
    };
    if stream.clock_rate_hz() == 0 || codec.is_video() && stream.clock_rate_hz() != VIDEO_CLOCK_RATE
    {
        return Err("bad clock rate");
    }
    // Parameters of video may come later, inside the stream; those of audio never do.
    if !codec.is_video() && stream.parameters().is_none() {
        return Err("bad parameters");
    }
    Ok(codec)
}

/// The format that parameters describe; an error says in words why they describe none.
pub(super) fn format(codec: Codec, parameters: &ParametersRef<'_>) -> Result<Format, String> {
    let format = match parameters {
        ParametersRef::Video(video) => {
            let config = Bytes::copy_from_slice(video.extra_data());
            let info = video_info(codec, &config);
            let (width, height) = video.pixel_dimensions();
            Format {
                shape: Shape::Video {
                    width: u16::try_from(width).unwrap_or(0),
                    height: u16::try_from(height).unwrap_or(0),
                },
                reorder_frames: info.and_then(|info| info.reorder_frames),
                config,
            }
        }
        ParametersRef::Audio(audio) => {
            // G.711 has none; what else stands in the description is not configuration.
            let config = match codec {
                Codec::Aac => Bytes::copy_from_slice(audio.extra_data()),
                _ => Bytes::new(),
            };
            let told = AacConfig::parse(&config).ok().filter(|_| codec == Codec::Aac);
            let channels = u8::try_from(audio.channels().get()).unwrap_or(u8::MAX);
            let shape = Shape::Audio {
                sample_rate: told.map_or(audio.clock_rate(), |told| told.sample_rate),
                channels: told.map(|told| told.channels).filter(|n| *n > 0).unwrap_or(channels),
            };
            Format { config, shape, reorder_frames: None }
        }
        ParametersRef::Message(_) => return Err("not a media track".to_owned()),
    };
    match format.config.len() {
        0 if matches!(codec, Codec::H264 | Codec::H265 | Codec::Aac) => {
            Err("empty configuration".to_owned())
        }
        CODEC_CONFIG_BYTES_MAX.. => Err("configuration too long".to_owned()),
        _ => Ok(format),
    }
}

/// What the parameter sets say; `None` if they cannot be read (then the depth is observed).
fn video_info(codec: Codec, config: &Bytes) -> Option<VideoInfo> {
    match codec {
        Codec::H264 => AvcConfig::parse(config).and_then(|config| config.video_info()).ok(),
        Codec::H265 => HevcConfig::parse(config).and_then(|config| config.video_info()).ok(),
        Codec::Aac | Codec::PcmAlaw | Codec::PcmUlaw => None,
    }
}
