//! FLV file framing: the file header, tag headers and the script data edgerec makes itself.
//!
//! References: Adobe FLV 10.1 annex E; Enhanced RTMP (veovera) for H.265.

use crate::domain::sample::{Codec, Shape, Track};
use crate::media::flv::tag::{BodyHead, HevcForm, audio_frame_head, video_frame_head};

/// The file header and the first back pointer.
pub const FILE_HEADER_BYTES: usize = 13;
/// Header of a tag.
pub const TAG_HEADER_BYTES: usize = 11;
/// Back pointer behind each tag.
pub const BACK_POINTER_BYTES: usize = 4;
/// Longest tag body: the length field has 24 bits.
pub const BODY_BYTES_MAX: u64 = 0x00ff_ffff;
/// Longest head of a media body, see [`sample_head`].
pub const BODY_HEAD_BYTES_MAX: usize = 8;

/// Tag types.
pub const TAG_AUDIO: u8 = 8;
/// See [`TAG_AUDIO`].
pub const TAG_VIDEO: u8 = 9;
/// See [`TAG_AUDIO`].
pub const TAG_SCRIPT: u8 = 18;

/// The first bytes of a file.
#[must_use]
pub fn file_header(audio: bool, video: bool) -> [u8; FILE_HEADER_BYTES] {
    let flags = u8::from(audio) << 2 | u8::from(video);
    [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]
}

/// The header of a tag. The time is kept modulo 2^32 ms.
#[must_use]
pub fn tag_header(tag_type: u8, body_len: u32, time_ms: i64) -> [u8; TAG_HEADER_BYTES] {
    let [_, l2, l1, l0] = body_len.to_be_bytes();
    let [t3, t2, t1, t0] = (time_ms as u32).to_be_bytes();
    [tag_type, l2, l1, l0, t2, t1, t0, t3, 0, 0, 0]
}

/// The back pointer behind a tag with a body of this length.
#[must_use]
pub fn back_pointer(body_len: u32) -> [u8; BACK_POINTER_BYTES] {
    (body_len + TAG_HEADER_BYTES as u32).to_be_bytes()
}

/// Whether FLV has a standard form for the track. G.711 is 8 kHz there by definition.
#[must_use]
pub fn can_hold(track: &Track) -> bool {
    match (track.codec, track.shape) {
        (Codec::PcmAlaw | Codec::PcmUlaw, Shape::Audio { sample_rate, channels }) => {
            sample_rate == 8_000 && (1..=2).contains(&channels)
        }
        (codec, Shape::Video { .. }) => codec.is_video(),
        (codec, Shape::Audio { .. }) => codec == Codec::Aac,
    }
}

/// Tag type of a track.
#[must_use]
pub fn tag_type(track: &Track) -> u8 {
    if track.is_video() { TAG_VIDEO } else { TAG_AUDIO }
}

/// What stands before a sample's bytes in the body of its tag. Its length depends on the codec and
/// on whether the composition time is zero.
#[must_use]
pub fn sample_head(track: &Track, key: bool, composition_ms: i64) -> BodyHead {
    match track.shape {
        Shape::Video { .. } => {
            let bounded = composition_ms.clamp(-0x80_0000, 0x7f_ffff) as i32;
            video_frame_head(track.codec, HevcForm::Enhanced, key, bounded)
        }
        Shape::Audio { channels, .. } => audio_frame_head(track.codec, channels),
    }
}

/// Appends a whole tag.
pub fn write_tag(out: &mut Vec<u8>, tag_type: u8, time_ms: i64, body: &[&[u8]]) {
    let len: usize = body.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    out.extend_from_slice(&tag_header(tag_type, len, time_ms));
    body.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(&back_pointer(len));
}

/// An `onMetaData` body for sources that sent none: what the tracks are, nothing of when.
#[must_use]
pub fn minimal_script_data<'a>(tracks: impl Iterator<Item = &'a Track>) -> Vec<u8> {
    let mut numbers: Vec<(&str, f64)> = Vec::new();
    for track in tracks {
        match track.shape {
            Shape::Video { width, height } => {
                numbers.push(("width", width.into()));
                numbers.push(("height", height.into()));
                let id = if track.codec == Codec::H264 { 7 } else { u32::from_be_bytes(*b"hvc1") };
                numbers.push(("videocodecid", id.into()));
            }
            Shape::Audio { sample_rate, channels } => {
                numbers.push(("audiosamplerate", sample_rate.into()));
                numbers.push(("audiochannels", channels.into()));
                let id = match track.codec {
                    Codec::PcmAlaw => 7,
                    Codec::PcmUlaw => 8,
                    _ => 10,
                };
                numbers.push(("audiocodecid", id.into()));
            }
        }
    }
    let mut out = vec![2, 0, 10];
    out.extend_from_slice(b"onMetaData");
    out.push(8); // ECMA array
    out.extend_from_slice(&u32::try_from(numbers.len()).unwrap_or(0).to_be_bytes());
    for (name, value) in numbers {
        out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        out.push(0); // number
        out.extend_from_slice(&value.to_be_bytes());
    }
    out.extend_from_slice(&[0, 0, 9]);
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::sample::TrackId;

    fn track(codec: Codec, shape: Shape) -> Track {
        Track { id: TrackId(1), codec, timescale: 1_000, config: Bytes::new(), shape }
    }

    #[test]
    fn hevc_is_enhanced_and_composition_is_bounded() {
        let picture = Shape::Video { width: 640, height: 360 };
        let hevc = sample_head(&track(Codec::H265, picture), false, -1);
        assert_eq!(hevc[..], [0xa1, b'h', b'v', b'c', b'1', 255, 255, 255]);
        let avc = sample_head(&track(Codec::H264, picture), false, 1 << 40);
        assert_eq!(avc[..], [0x27, 1, 0x7f, 0xff, 0xff]);
    }

    #[test]
    fn time_is_written_modulo_32_bits_with_its_high_byte_last() {
        let header = tag_header(TAG_VIDEO, 0x01_0203, (7 << 32) + 0x1122_3344);
        assert_eq!(header, [9, 1, 2, 3, 0x22, 0x33, 0x44, 0x11, 0, 0, 0]);
        assert_eq!(back_pointer(5), [0, 0, 0, 16]);
    }

    #[test]
    fn wideband_g711_has_no_form_in_flv() {
        let g711 =
            |sample_rate, channels| track(Codec::PcmAlaw, Shape::Audio { sample_rate, channels });
        assert!(can_hold(&g711(8_000, 1)) && can_hold(&g711(8_000, 2)));
        assert!(!can_hold(&g711(16_000, 1)) && !can_hold(&g711(8_000, 3)));
    }
}
