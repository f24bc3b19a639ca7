//! Sample entries (`stsd` members): how each codec is named and configured in MP4.
//!
//! References: ISO/IEC 14496-12 8.5.2, 14496-14 3.1 (`esds`), 14496-15 5.4 and 8.4.

use crate::domain::sample::{Codec, Shape, Track};
use crate::media::fmp4::bmff::{put_u16, put_u32, write_box, write_full_box};

/// Appends the sample entry of `track`.
pub fn write_sample_entry(out: &mut Vec<u8>, track: &Track) {
    match track.codec {
        Codec::H264 => write_visual(out, *b"avc1", *b"avcC", track),
        Codec::H265 => write_visual(out, *b"hvc1", *b"hvcC", track),
        Codec::Aac => write_audio(out, *b"mp4a", track),
        Codec::PcmAlaw => write_audio(out, *b"alaw", track),
        Codec::PcmUlaw => write_audio(out, *b"ulaw", track),
    }
}

/// Picture size of a track; zeros for sound.
#[must_use]
pub fn picture_size(track: &Track) -> (u16, u16) {
    match track.shape {
        Shape::Video { width, height } => (width, height),
        Shape::Audio { .. } => (0, 0),
    }
}

fn write_visual(out: &mut Vec<u8>, kind: [u8; 4], config_kind: [u8; 4], track: &Track) {
    let (width, height) = picture_size(track);
    write_box(out, kind, |out| {
        out.extend_from_slice(&[0; 6]);
        put_u16(out, 1); // data_reference_index
        out.extend_from_slice(&[0; 16]);
        put_u16(out, width);
        put_u16(out, height);
        put_u32(out, 0x0048_0000); // 72 dpi
        put_u32(out, 0x0048_0000);
        put_u32(out, 0);
        put_u16(out, 1); // frame_count
        out.extend_from_slice(&[0; 32]); // compressorname
        put_u16(out, 0x0018); // depth
        put_u16(out, 0xffff); // pre_defined
        write_box(out, config_kind, |out| out.extend_from_slice(&track.config));
    });
}

fn write_audio(out: &mut Vec<u8>, kind: [u8; 4], track: &Track) {
    let (sample_rate, channels) = match track.shape {
        Shape::Audio { sample_rate, channels } => (sample_rate, channels),
        Shape::Video { .. } => (0, 0),
    };
    write_box(out, kind, |out| {
        out.extend_from_slice(&[0; 6]);
        put_u16(out, 1); // data_reference_index
        out.extend_from_slice(&[0; 8]);
        put_u16(out, u16::from(channels));
        put_u16(out, 16); // samplesize
        put_u32(out, 0);
        // A rate above 16 bits is left to the decoder configuration.
        put_u32(out, u16::try_from(sample_rate).map_or(0, |rate| u32::from(rate) << 16));
        if track.codec == Codec::Aac {
            write_esds(out, &track.config);
        }
    });
}

/// The elementary stream descriptor with the AudioSpecificConfig as it came.
fn write_esds(out: &mut Vec<u8>, config: &[u8]) {
    let specific = 5 + config.len();
    let decoder = 5 + 13 + specific;
    write_full_box(out, *b"esds", 0, 0, |out| {
        put_descriptor(out, 0x03, 3 + decoder + 6);
        put_u16(out, 0); // ES_ID
        out.push(0);
        put_descriptor(out, 0x04, 13 + specific);
        out.push(0x40); // objectTypeIndication: ISO/IEC 14496-3 audio
        out.push(0x05 << 2 | 1); // streamType: audio
        out.extend_from_slice(&[0; 3]); // bufferSizeDB
        put_u32(out, 0); // maxBitrate
        put_u32(out, 0); // avgBitrate
        put_descriptor(out, 0x05, config.len());
        out.extend_from_slice(config);
        put_descriptor(out, 0x06, 1);
        out.push(0x02); // SLConfig: reserved for use in MP4 files
    });
}

/// Tag and length in the four-byte form (28 bits).
fn put_descriptor(out: &mut Vec<u8>, tag: u8, len: usize) {
    out.push(tag);
    for shift in [21, 14, 7] {
        out.push(0x80 | (len >> shift & 0x7f) as u8);
    }
    out.push((len & 0x7f) as u8);
}
