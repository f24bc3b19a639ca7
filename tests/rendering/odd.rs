//! Clips that no encoder should make: any sizes, damaged lengths, tracks that come and go. Every
//! rendering must open, and give the same bytes however it is read.

use std::sync::Arc;

use bytes::Bytes;
use edgerec::domain::files::FileFormat;
use edgerec::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use edgerec::media::render;
use proptest::prelude::*;

use crate::clip::MemoryClip;
use crate::media::Source;
use crate::reading::{self, read_all, read_as_it_comes};

const AVCC: &[u8] = include_bytes!("../data/codec/x264-high.avcc");
const HVCC: &[u8] = include_bytes!("../data/codec/x265-main.hvcc");

fn track(id: u8, codec: Codec, timescale: u32) -> Track {
    let (config, shape) = match codec {
        Codec::H264 => (AVCC, Shape::Video { width: 192, height: 108 }),
        Codec::H265 => (HVCC, Shape::Video { width: 192, height: 108 }),
        Codec::Aac => (&[0x12, 0x10][..], Shape::Audio { sample_rate: 44_100, channels: 2 }),
        _ => (&[][..], Shape::Audio { sample_rate: 8_000, channels: 1 }),
    };
    Track { id: TrackId(id), codec, timescale, config: Bytes::from_static(config), shape }
}

/// NAL units of these lengths; the first may be a delimiter.
fn picture(lens: &[usize], delimiter: bool) -> Vec<u8> {
    let own: &[u8] = if delimiter { &[0, 0, 0, 2, 0x09, 0x10] } else { &[] };
    let mut data = own.to_vec();
    for (at, len) in lens.iter().enumerate() {
        data.extend_from_slice(&u32::try_from(*len).unwrap().to_be_bytes());
        // No start codes inside.
        data.extend((0..*len).map(|byte| (byte + at) as u8 % 250 + 1));
    }
    data
}

fn any_data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (prop::collection::vec(0..600_usize, 0..5), any::<bool>())
            .prop_map(|(lens, delimiter)| picture(&lens, delimiter)),
        2 => prop::collection::vec(any::<u8>(), 0..12),
        1 => prop::collection::vec(any::<u8>(), 0..9_000),
    ]
}

fn any_source() -> impl Strategy<Value = Source> {
    let codecs = prop_oneof![
        Just(vec![Codec::H264, Codec::Aac]),
        Just(vec![Codec::H265, Codec::Aac]),
        Just(vec![Codec::Aac]),
        Just(vec![Codec::PcmAlaw, Codec::H264, Codec::Aac]),
        Just(vec![Codec::H264, Codec::H265, Codec::Aac, Codec::Aac]),
    ];
    let timescale = prop_oneof![Just(1_000_u32), Just(90_000), Just(44_100)];
    let far = i64::MAX - 1_000_000_000;
    let start = prop_oneof![Just(0_i64), Just((1 << 32) - 500), Just(1 << 45), Just(far)];
    let sample =
        (any::<prop::sample::Index>(), -900..1_500_i64, -90..90_i64, any::<bool>(), any_data());
    (codecs, timescale, start, prop::collection::vec(sample, 1..60)).prop_map(
        |(codecs, timescale, start, raw)| {
            let tracks: Vec<Track> = codecs
                .iter()
                .enumerate()
                .map(|(at, codec)| track(at as u8 + 1, *codec, timescale))
                .collect();
            let mut dts = vec![start; tracks.len()];
            let mut samples = Vec::new();
            for (which, step, cts, key, data) in raw {
                let at = which.index(tracks.len());
                dts[at] = (dts[at] + step * i64::from(timescale) / 1_000).max(0);
                let key = key || !tracks[at].is_video();
                let pts = dts[at] + cts;
                let data = data.into();
                samples.push(Sample { track: tracks[at].id, dts: dts[at], pts, key, data });
            }
            Source { tracks, samples, script_data: Bytes::new() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_reading_gives_the_same_bytes(
        sources in prop::collection::vec(any_source(), 1..4),
    ) {
        let sources: Vec<&Source> = sources.iter().collect();
        for format in FileFormat::ALL {
            let clip = Arc::new(MemoryClip::spliced(&sources));
            let Ok(rendering) = render::open(format, clip) else {
                prop_assert_eq!(format, FileFormat::Aac);
                continue;
            };
            let mut total = 0;
            for object in 0..rendering.objects().len() {
                let whole = read_all(&*rendering, object);
                read_as_it_comes(&*rendering, object, &whole);
                total += whole.len() as u64;
                if rendering.objects()[object].name.ends_with(".ts") {
                    prop_assert!(whole.chunks(188).all(|packet| packet[0] == 0x47));
                }
            }
            prop_assert_eq!(total, rendering.total_len());
        }
    }
}

#[test]
fn a_sample_of_eight_megabytes_is_cut_into_packets_without_holding_it() {
    for delimiter in [false, true] {
        let lens = [5, 600_000, 3, 524_288 - 4, 1, 4_000_000, 3_000_000, 7, 2];
        let data = picture(&lens, delimiter);
        let video = track(1, Codec::H264, 1_000);
        let sample = |dts, data: &[u8]| Sample {
            track: TrackId(1),
            dts,
            pts: dts,
            key: true,
            data: Bytes::copy_from_slice(data),
        };
        let samples = vec![sample(0, &picture(&[9], false)), sample(40, &data)];
        let source = Source { tracks: vec![video], samples, script_data: Bytes::new() };
        let clip = Arc::new(MemoryClip::new(&source));
        let rendering = render::open(FileFormat::Hls, clip).unwrap();
        let ts = read_all(&*rendering, 0);
        read_as_it_comes(&*rendering, 0, &ts);
        assert!(reading::counters_run_on(&ts));
        let seen = reading::pes_contents(&ts, 0x100);
        let wanted: Vec<Vec<u8>> =
            source.samples.iter().map(|sample| crate::in_ts(&source, sample)).collect();
        assert!(seen == wanted, "delimiter {delimiter}");
    }
}
