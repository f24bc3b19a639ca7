//! The init section: `ftyp` and `moov` with `mvex`, without samples.

use crate::domain::sample::Track;
use crate::media::fmp4::bmff::{put_u16, put_u32, put_u64, write_box, write_full_box};
use crate::media::fmp4::sample_entry::{picture_size, write_sample_entry};

/// Ticks a second of the movie header of an init section.
const MOVIE_TIMESCALE: u32 = 1_000;
/// Language `und`, packed.
const LANGUAGE_UNDETERMINED: u16 = 0x55c4;
const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];
/// Flags of a sample that others do not need and that needs others.
pub const FLAGS_DEPENDENT: u32 = 0x0101_0000;
/// Flags of a sample where decoding can start.
pub const FLAGS_KEY: u32 = 0x0200_0000;

/// The init section for `tracks`: what fragments made by
/// [`fragment_head`](crate::media::fmp4::fragment_head) follow.
#[must_use]
pub fn init_segment(tracks: &[Track]) -> Vec<u8> {
    let configs: usize = tracks.iter().map(|track| track.config.len()).sum();
    let mut out = Vec::with_capacity(256 + 640 * tracks.len() + configs);
    write_box(&mut out, *b"ftyp", |out| out.extend_from_slice(b"iso6\0\0\0\0iso6mp41"));
    write_box(&mut out, *b"moov", |out| {
        let next_id = tracks.iter().map(|track| u32::from(track.id.0)).max().unwrap_or(0) + 1;
        write_mvhd(out, MOVIE_TIMESCALE, 0, next_id);
        for track in tracks {
            write_box(out, *b"trak", |out| {
                write_tkhd(out, track, u32::from(track.id.0), 0);
                write_box(out, *b"mdia", |out| {
                    write_mdia_head(out, track, 0);
                    write_box(out, *b"minf", |out| {
                        write_minf_head(out, track);
                        write_box(out, *b"stbl", |out| write_empty_tables(out, track));
                    });
                });
            });
        }
        write_box(out, *b"mvex", |out| {
            for track in tracks {
                write_trex(out, track);
            }
        });
    });
    out
}

/// The movie header; `duration` in ticks of `timescale`.
pub fn write_mvhd(out: &mut Vec<u8>, timescale: u32, duration: u64, next_track_id: u32) {
    write_full_box(out, *b"mvhd", 1, 0, |out| {
        put_u64(out, 0); // creation_time: a file does not say when
        put_u64(out, 0);
        put_u32(out, timescale);
        put_u64(out, duration);
        put_u32(out, 0x0001_0000); // rate
        put_u16(out, 0x0100); // volume
        out.extend_from_slice(&[0; 10]);
        put_matrix(out);
        out.extend_from_slice(&[0; 24]);
        put_u32(out, next_track_id);
    });
}

/// The track header; `duration` in ticks of the movie.
pub fn write_tkhd(out: &mut Vec<u8>, track: &Track, id: u32, duration: u64) {
    let (width, height) = picture_size(track);
    write_full_box(out, *b"tkhd", 1, 3, |out| {
        put_u64(out, 0);
        put_u64(out, 0);
        put_u32(out, id);
        put_u32(out, 0);
        put_u64(out, duration);
        out.extend_from_slice(&[0; 8]);
        put_u16(out, 0); // layer
        put_u16(out, u16::from(!track.is_video())); // alternate_group
        put_u16(out, if track.is_video() { 0 } else { 0x0100 }); // volume
        put_u16(out, 0);
        put_matrix(out);
        put_u32(out, u32::from(width) << 16);
        put_u32(out, u32::from(height) << 16);
    });
}

/// `mdhd` and `hdlr`; `duration` in ticks of the track.
pub fn write_mdia_head(out: &mut Vec<u8>, track: &Track, duration: u64) {
    write_full_box(out, *b"mdhd", 1, 0, |out| {
        put_u64(out, 0);
        put_u64(out, 0);
        put_u32(out, track.timescale);
        put_u64(out, duration);
        put_u16(out, LANGUAGE_UNDETERMINED);
        put_u16(out, 0);
    });
    write_full_box(out, *b"hdlr", 0, 0, |out| {
        put_u32(out, 0);
        out.extend_from_slice(if track.is_video() { b"vide" } else { b"soun" });
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(if track.is_video() { b"video\0" } else { b"sound\0" });
    });
}

/// The media header and the data reference (this file).
pub fn write_minf_head(out: &mut Vec<u8>, track: &Track) {
    if track.is_video() {
        write_full_box(out, *b"vmhd", 0, 1, |out| out.extend_from_slice(&[0; 8]));
    } else {
        write_full_box(out, *b"smhd", 0, 0, |out| out.extend_from_slice(&[0; 4]));
    }
    write_box(out, *b"dinf", |out| {
        write_full_box(out, *b"dref", 0, 0, |out| {
            put_u32(out, 1);
            write_full_box(out, *b"url ", 0, 1, |_| {});
        });
    });
}

/// Sample descriptions, one per configuration.
pub fn write_stsd<'a>(out: &mut Vec<u8>, configs: impl ExactSizeIterator<Item = &'a Track>) {
    write_full_box(out, *b"stsd", 0, 0, |out| {
        put_u32(out, u32::try_from(configs.len()).unwrap_or(u32::MAX));
        for track in configs {
            write_sample_entry(out, track);
        }
    });
}

fn write_empty_tables(out: &mut Vec<u8>, track: &Track) {
    write_stsd(out, [track].into_iter());
    for kind in [b"stts", b"stsc", b"stco"] {
        write_full_box(out, *kind, 0, 0, |out| put_u32(out, 0));
    }
    write_full_box(out, *b"stsz", 0, 0, |out| put_u64(out, 0));
}

fn write_trex(out: &mut Vec<u8>, track: &Track) {
    write_full_box(out, *b"trex", 0, 0, |out| {
        put_u32(out, u32::from(track.id.0));
        put_u32(out, 1); // sample description
        put_u32(out, 0);
        put_u32(out, 0);
        put_u32(out, if track.is_video() { FLAGS_DEPENDENT } else { FLAGS_KEY });
    });
}

fn put_matrix(out: &mut Vec<u8>) {
    for value in MATRIX {
        put_u32(out, value);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shiguredo_mp4::{Decode, boxes::FtypBox, boxes::MoovBox, boxes::SampleEntry};

    use super::*;
    use crate::domain::sample::{Codec, Shape, TrackId};

    /// avcC with an SPS and a PPS, as x264 makes them.
    const AVCC: &[u8] = &[
        1, 0x42, 0xc0, 0x0a, 0xff, 0xe1, 0, 8, 0x67, 0x42, 0xc0, 0x0a, 0xda, 0x0f, 0x0a, 0x69, 1,
        0, 4, 0x68, 0xce, 0x3c, 0x80,
    ];

    fn track(id: u8, codec: Codec, timescale: u32, config: &'static [u8]) -> Track {
        let shape = if codec.is_video() {
            Shape::Video { width: 640, height: 360 }
        } else {
            Shape::Audio { sample_rate: 44_100, channels: 2 }
        };
        Track { id: TrackId(id), codec, timescale, config: Bytes::from_static(config), shape }
    }

    #[test]
    fn another_reader_finds_tracks_timescales_and_configuration() {
        // Five bytes of AudioSpecificConfig: HE-AAC signalled explicitly stays as it came.
        let asc = &[0x13, 0x90, 0x56, 0xe5, 0xa0];
        let tracks = [
            track(1, Codec::H264, 90_000, AVCC),
            track(2, Codec::Aac, 44_100, asc),
            track(5, Codec::PcmAlaw, 8_000, &[]),
        ];
        let init = init_segment(&tracks);
        let (_, ftyp_len) = FtypBox::decode(&init).unwrap();
        let (moov, moov_len) = MoovBox::decode(&init[ftyp_len..]).unwrap();
        assert_eq!(ftyp_len + moov_len, init.len());
        let seen: Vec<_> = moov
            .trak_boxes
            .iter()
            .map(|trak| (trak.tkhd_box.track_id, trak.mdia_box.mdhd_box.timescale.get()))
            .collect();
        assert_eq!(seen, [(1, 90_000), (2, 44_100), (5, 8_000)]);
        assert_eq!(moov.mvex_box.as_ref().unwrap().trex_boxes.len(), 3);
        let entry = |n: usize| &moov.trak_boxes[n].mdia_box.minf_box.stbl_box.stsd_box.entries[0];
        let SampleEntry::Avc1(avc1) = entry(0) else { panic!("{:?}", entry(0)) };
        assert_eq!((avc1.visual.width, avc1.visual.height), (640, 360));
        assert_eq!(avc1.avcc_box.sps_list.len(), 1);
        let SampleEntry::Mp4a(mp4a) = entry(1) else { panic!("{:?}", entry(1)) };
        let config = &mp4a.esds_box.es.dec_config_descr;
        assert_eq!(config.dec_specific_info.as_ref().unwrap().payload, asc);
        let SampleEntry::Unknown(alaw) = entry(2) else { panic!("{:?}", entry(2)) };
        assert_eq!(alaw.box_type.as_bytes(), b"alaw");
    }
}
