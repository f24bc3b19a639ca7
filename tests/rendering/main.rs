//! Renderings against real media: what ffprobe reads out of a rendered file is compared packet
//! by packet with what it reads out of the source file.

// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

mod clip;
mod live;
mod media;
mod odd;
mod reading;
mod sound;

use std::sync::Arc;

use edgerec::domain::files::FileFormat;
use edgerec::domain::sample::Codec;
use edgerec::domain::time::rescale;
use edgerec::media::codec::aac::AacConfig;
use edgerec::media::codec::avc::AvcConfig;
use edgerec::media::codec::hevc::HevcConfig;
use edgerec::media::render::mp4::Mp4Rendering;
use edgerec::media::render::{self, Rendering};

use clip::MemoryClip;
use media::{Packet, Source, probe, sha256};
use reading::{read_all, read_as_it_comes};

/// Source file by its ffmpeg arguments.
const SOURCES: &[(&str, &[&str], &str)] = &[
    ("b-frames", &["v", "a", "-c:v", "libx264", "-bf", "2", "-g", "50", "-c:a", "aac"], "mp4"),
    ("plain", &["v", "a", "-c:v", "libx264", "-bf", "0", "-g", "30", "-c:a", "aac"], "mp4"),
    (
        "open-gop",
        &["v", "-c:v", "libx264", "-bf", "2", "-g", "25", "-x264-params", "open-gop=1:aud=1"],
        "mp4",
    ),
    ("sound", &["a", "-c:a", "aac", "-ar", "48000"], "mp4"),
    ("alaw", &["v", "a", "-c:v", "libx264", "-c:a", "pcm_alaw", "-ar", "8000", "-ac", "1"], "mov"),
    (
        "hevc",
        &[
            "v",
            "a",
            "-c:v",
            "libx265",
            "-g",
            "50",
            "-x265-params",
            "log-level=none",
            "-tag:v",
            "hvc1",
            "-c:a",
            "aac",
        ],
        "mp4",
    ),
];

fn source(name: &str) -> Source {
    let (_, arguments, extension) =
        SOURCES.iter().find(|(known, ..)| *known == name).expect("a known source");
    media::make(name, arguments, extension)
}

fn open(format: FileFormat, clip: MemoryClip) -> Box<dyn Rendering> {
    render::open(format, Arc::new(clip)).expect("the clip renders")
}

/// The clip as ingest over RTMP would have it: times in milliseconds from `base_ms`.
fn rtmp(source: &Source, base_ms: i64) -> Source {
    let mut source = source.clone();
    for track in &mut source.tracks {
        let from = track.timescale;
        track.timescale = 1_000;
        for sample in source.samples.iter_mut().filter(|sample| sample.track == track.id) {
            sample.dts = rescale(sample.dts, from, 1_000) + base_ms;
            sample.pts = rescale(sample.pts, from, 1_000) + base_ms;
        }
    }
    source
}

/// What a probe of a rendering must give, by track: (pts, dts, key, hash).
fn assert_packets(what: &str, seen: &[Packet], expected: &[Packet]) {
    let streams = expected.iter().map(|packet| packet.stream).max().map_or(0, |last| last + 1);
    assert!(streams > 0, "{what}: nothing expected");
    assert_eq!(seen.len(), expected.len(), "{what}: packets");
    for stream in 0..streams {
        let of = |packets: &[Packet]| -> Vec<Packet> {
            packets.iter().filter(|packet| packet.stream == stream).cloned().collect()
        };
        let (seen, expected) = (of(seen), of(expected));
        assert_eq!(seen.len(), expected.len(), "{what}: packets of stream {stream}");
        for (at, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
            assert_eq!(seen, expected, "{what}: packet {at} of stream {stream}");
        }
    }
}

/// The samples as packets; `time` maps (ticks, timescale), `content` makes the bytes.
fn expected(
    source: &Source,
    time: impl Fn(i64, u32) -> i64,
    content: impl Fn(&Source, &edgerec::domain::sample::Sample) -> Vec<u8>,
) -> Vec<Packet> {
    let packet = |sample: &edgerec::domain::sample::Sample| {
        let stream = source.tracks.iter().position(|track| track.id == sample.track).unwrap();
        let timescale = source.tracks[stream].timescale;
        Packet {
            stream,
            pts: time(sample.pts, timescale),
            dts: time(sample.dts, timescale),
            key: sample.key,
            video: source.is_video(sample),
            hash: sha256(&content(source, sample)),
        }
    };
    source.samples.iter().map(packet).collect()
}

fn verbatim(_: &Source, sample: &edgerec::domain::sample::Sample) -> Vec<u8> {
    sample.data.to_vec()
}

/// The sample as it stands in a transport stream.
fn in_ts(source: &Source, sample: &edgerec::domain::sample::Sample) -> Vec<u8> {
    let track = source.tracks.iter().find(|track| track.id == sample.track).unwrap();
    let annex_b = |units: Vec<&[u8]>| -> Vec<u8> {
        units.into_iter().flat_map(|unit| [&[0, 0, 0, 1], unit].concat()).collect()
    };
    let mut units: Vec<&[u8]> = Vec::new();
    let mut rest = &sample.data[..];
    if track.is_video() {
        while !rest.is_empty() {
            let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            units.push(&rest[4..4 + len]);
            rest = &rest[4 + len..];
        }
    }
    match track.codec {
        Codec::H264 => {
            let config = AvcConfig::parse(&track.config).unwrap();
            let sets: Vec<&[u8]> = config.sps.iter().chain(&config.pps).map(|u| &u[..]).collect();
            let own = if units[0][0] & 0x1f == 9 { units.remove(0) } else { &[0x09, 0xf0] };
            let sets = if sample.key { sets } else { Vec::new() };
            annex_b([vec![own], sets, units].concat())
        }
        Codec::H265 => {
            let config = HevcConfig::parse(&track.config).unwrap();
            let sets: Vec<&[u8]> =
                [32, 33, 34].iter().map(|kind| &config.first(*kind).unwrap()[..]).collect();
            let sets = if sample.key { sets } else { Vec::new() };
            annex_b([vec![&[0x46, 0x01, 0x50][..]], sets, units].concat())
        }
        _ => adts(source, sample),
    }
}

fn adts(source: &Source, sample: &edgerec::domain::sample::Sample) -> Vec<u8> {
    let track = source.tracks.iter().find(|track| track.id == sample.track).unwrap();
    let config = AacConfig::parse(&track.config).unwrap();
    [&config.adts_header(sample.data.len()), &sample.data[..]].concat()
}

#[test]
fn mp4_has_every_packet_with_its_own_time() {
    for (name, ..) in SOURCES {
        for base in [0, 5_000_000_000] {
            let mut source = source(name);
            source.shift(base);
            check_mp4(&format!("{name} from {base}"), &source);
        }
        check_mp4(&format!("{name} over RTMP"), &rtmp(&source(name), (1 << 32) - 3_000));
    }
}

fn check_mp4(what: &str, source: &Source) {
    let rendering = open(FileFormat::Mp4, MemoryClip::new(source));
    let file = read_all(&*rendering, 0);
    read_as_it_comes(&*rendering, 0, &file);
    // Long clips have their tables made while they are read.
    let long = Mp4Rendering::open_keeping(Arc::new(MemoryClip::new(source)), 0).unwrap();
    assert!(read_all(&long, 0) == file, "{what}: tables made on reading");
    read_as_it_comes(&long, 0, &file);
    let start = |sample: &edgerec::domain::sample::Sample| {
        let track = source.tracks.iter().find(|track| track.id == sample.track).unwrap();
        rescale(sample.dts, track.timescale, 1 << 30)
    };
    let origin = source.samples.iter().min_by_key(|sample| start(sample)).unwrap();
    let from = source.tracks.iter().find(|track| track.id == origin.track).unwrap().timescale;
    let time = |ticks, timescale| ticks - rescale(origin.dts, from, timescale);
    assert_packets(what, &probe(&file, "mp4", &[]), &expected(source, time, verbatim));
}

/// ffprobe takes the 32 bits as signed, and adds a wrap where time steps back.
fn modulo_32_bits(packet: &mut Packet) {
    packet.pts -= packet.dts;
    packet.dts &= 0xffff_ffff;
}

#[test]
fn flv_keeps_source_time_modulo_32_bits() {
    for name in ["b-frames", "plain", "open-gop", "sound", "alaw"] {
        for base_ms in [0, (1 << 32) - 3_000, (5 << 32) + 12_345] {
            let source = rtmp(&source(name), base_ms);
            let rendering = open(FileFormat::Flv, MemoryClip::new(&source));
            assert!(rendering.dropped_tracks().is_empty());
            let file = read_all(&*rendering, 0);
            read_as_it_comes(&*rendering, 0, &file);
            let what = format!("{name} from {base_ms}");
            let mut seen = media::in_track_order(probe(&file, "flv", &[]), &source);
            let mut wanted = expected(&source, |ticks, _| ticks, verbatim);
            seen.iter_mut().chain(&mut wanted).for_each(modulo_32_bits);
            assert_packets(&what, &seen, &wanted);
        }
    }
}

#[test]
fn hls_in_ts_has_every_packet_and_segments_begin_with_key_frames() {
    for name in ["b-frames", "plain", "open-gop", "sound", "hevc"] {
        let mut source = source(name);
        source.shift_seconds(5);
        let rendering = open(FileFormat::Hls, MemoryClip::new(&source));
        let segments = rendering.objects().len() - 1;
        assert!(segments >= 3, "{name}: {segments} segments");
        let mut all = Vec::new();
        for object in 0..segments {
            let segment = read_all(&*rendering, object);
            read_as_it_comes(&*rendering, object, &segment);
            assert_eq!(segment.len() % 188, 0);
            let first = probe(&segment, "ts", &[]);
            let first = first.iter().find(|packet| packet.stream == 0).unwrap();
            assert!(first.key, "{name}: segment {object}");
            all.extend_from_slice(&segment);
        }
        let to_clock = |ticks, timescale| rescale(ticks, timescale, 90_000);
        let mut seen = media::in_track_order(probe(&all, "ts", &[]), &source);
        let mut wanted = expected(&source, to_clock, in_ts);
        if name == "hevc" {
            // ffprobe's parser puts the first zero of a start code at the end of the packet
            // before: bytes are compared as one stream instead.
            let pictures = source.samples.iter().filter(|s| source.is_video(s));
            let bytes: Vec<u8> = pictures.flat_map(|s| in_ts(&source, s)).collect();
            assert!(media::elementary_stream(&all, "hevc") == bytes, "hevc: bytes");
            seen.iter_mut().chain(&mut wanted).filter(|p| p.video).for_each(|p| p.hash.clear());
        }
        assert_packets(name, &seen, &wanted);
        assert!(reading::counters_run_on(&all), "{name}: continuity");
        assert_playlist(&*rendering, source.duration_us(), 0);
    }
}

#[test]
fn hls_in_ts_runs_over_the_33_bit_wrap() {
    // 2^33 ticks of 90 kHz are 95443717.7 s.
    for base_ms in [95_443_710_000, 95_443_717_690, 500_000_000_000] {
        let source = rtmp(&source("b-frames"), base_ms);
        let rendering = open(FileFormat::Hls, MemoryClip::new(&source));
        let segments = rendering.objects().len() - 1;
        let all: Vec<u8> = (0..segments).flat_map(|o| read_all(&*rendering, o)).collect();
        let mut seen = media::in_track_order(probe(&all, "ts", &[]), &source);
        let mut wanted = expected(&source, |ticks, _| ticks * 90, in_ts);
        for packet in seen.iter_mut().chain(&mut wanted) {
            packet.pts -= packet.dts;
            packet.dts &= (1 << 33) - 1;
        }
        assert_packets(&format!("from {base_ms}"), &seen, &wanted);
        assert_playlist(&*rendering, source.duration_us(), 0);
    }
}

#[test]
fn mp4_lets_a_track_begin_later() {
    for name in ["b-frames", "alaw"] {
        for late in [0, 1] {
            let mut source = source(name);
            let track = source.tracks[late].clone();
            let from = 3 * i64::from(track.timescale);
            let other = |s: &edgerec::domain::sample::Sample| s.track != track.id;
            let first = source.samples.iter().find(|s| !other(s) && s.key && s.dts >= from);
            let from = first.unwrap().dts;
            source.samples.retain(|s| other(s) || s.dts >= from);
            check_mp4(&format!("{name} without the start of track {late}"), &source);
        }
    }
}

#[test]
fn flv_names_what_it_leaves_out_and_repeats_changed_configuration() {
    let (first, mut second) = (rtmp(&source("b-frames"), 0), rtmp(&source("plain"), 30_000));
    let clip = MemoryClip::spliced(&[&first, &second, &second]);
    let file = read_all(&*open(FileFormat::Flv, clip), 0);
    // Once for each of the two encoders' parameters, not for the same ones again.
    assert_eq!(
        media::flv_configs(&file),
        [first.tracks[0].config.clone(), second.tracks[0].config.clone()]
    );
    let mut more = second.tracks[1].clone();
    more.id = edgerec::domain::sample::TrackId(9);
    second.tracks.push(more);
    let rendering = open(FileFormat::Flv, MemoryClip::new(&second));
    assert_eq!(rendering.dropped_tracks(), ["track 9 (aac): FLV holds one track of a kind"]);
    let silent = rtmp(&source("open-gop"), 0);
    let refused = render::open(FileFormat::Aac, Arc::new(MemoryClip::new(&silent)));
    assert!(matches!(refused, Err(render::RenderError::NothingToHold { format: "aac" })));
}

#[test]
fn hls_is_fragmented_mp4_where_ts_does_not_fit() {
    let source = source("alaw");
    let rendering = open(FileFormat::Hls, MemoryClip::new(&source));
    let names: Vec<&str> = rendering.objects().iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names[..2], ["init-0.mp4", "0.m4s"]);
    let objects: Vec<Vec<u8>> = (0..names.len() - 1).map(|o| read_all(&*rendering, o)).collect();
    for (object, bytes) in objects.iter().enumerate() {
        read_as_it_comes(&*rendering, object, bytes);
    }
    let seen = probe(&objects.concat(), "mp4", &[]);
    assert_packets("alaw", &seen, &expected(&source, |ticks, _| ticks, verbatim));
    assert_playlist(&*rendering, source.duration_us(), 0);
}

fn assert_playlist(rendering: &dyn Rendering, duration_us: i64, breaks: usize) {
    let last = rendering.objects().len() - 1;
    assert_eq!(rendering.objects()[last].name, "index.m3u8");
    let text = read_all(rendering, last);
    let playlist = m3u8_rs::parse_media_playlist_res(&text).expect("a playlist");
    let inits = rendering.objects().iter().filter(|o| o.name.starts_with("init-")).count();
    let named: Vec<&str> = playlist.segments.iter().map(|s| s.uri.as_str()).collect();
    let kept = &rendering.objects()[inits..last];
    assert_eq!(named, kept.iter().map(|o| o.name.as_str()).collect::<Vec<_>>());
    let total: f64 = playlist.segments.iter().map(|s| f64::from(s.duration)).sum();
    let wanted = duration_us as f64 / 1e6;
    assert!((total - wanted).abs() < 0.001, "{total} s, media has {wanted} s");
    let longest = playlist.segments.iter().map(|s| s.duration).fold(0.0, f32::max);
    assert!(playlist.target_duration as f32 >= longest && playlist.end_list);
    assert_eq!(playlist.segments.iter().filter(|s| s.discontinuity).count(), breaks);
}

#[test]
fn aac_has_every_frame() {
    for name in ["b-frames", "sound", "hevc"] {
        let source = source(name);
        let rendering = open(FileFormat::Aac, MemoryClip::new(&source));
        let dropped = source.tracks.len() - 1;
        assert_eq!(rendering.dropped_tracks().len(), dropped);
        let file = read_all(&*rendering, 0);
        read_as_it_comes(&*rendering, 0, &file);
        let frames = source.samples.iter().filter(|s| !source.is_video(s));
        let wanted: Vec<String> = frames.map(|s| sha256(&adts(&source, s))).collect();
        let seen: Vec<String> = probe(&file, "aac", &[]).into_iter().map(|p| p.hash).collect();
        assert_eq!(seen, wanted, "{name}");
    }
}

#[test]
fn a_clip_over_a_break_renders_everywhere() {
    // The stream came back with other parameters and earlier times.
    let (first, mut second) = (rtmp(&source("b-frames"), 100_000), rtmp(&source("plain"), 50));
    second.script_data = first.script_data.clone();
    let clip = || MemoryClip::spliced(&[&first, &second]);
    let flv = open(FileFormat::Flv, clip());
    let file = read_all(&*flv, 0);
    read_as_it_comes(&*flv, 0, &file);
    let mut wanted = expected(&first, |ticks, _| ticks, verbatim);
    wanted.extend(expected(&second, |ticks, _| ticks, verbatim));
    let mut seen = media::in_track_order(probe(&file, "flv", &[]), &first);
    seen.iter_mut().chain(&mut wanted).for_each(modulo_32_bits);
    assert_packets("flv", &seen, &wanted);

    let hls = open(FileFormat::Hls, clip());
    assert_playlist(&*hls, first.duration_us() + second.duration_us(), 1);
    let ts: Vec<u8> = (0..hls.objects().len() - 1).flat_map(|o| read_all(&*hls, o)).collect();
    assert!(reading::counters_run_on(&ts));

    let mp4 = open(FileFormat::Mp4, clip());
    let file = read_all(&*mp4, 0);
    read_as_it_comes(&*mp4, 0, &file);
    let hashes = |packets: &[Packet]| -> Vec<(usize, String)> {
        let mut all: Vec<_> = packets.iter().map(|p| (p.stream, p.hash.clone())).collect();
        all.sort_by_key(|(stream, _)| *stream);
        all
    };
    let mut wanted = expected(&first, |ticks, _| ticks, verbatim);
    wanted.extend(expected(&second, |ticks, _| ticks, verbatim));
    let seen = probe(&file, "mp4", &[]);
    assert_eq!(hashes(&seen), hashes(&wanted));
}

#[test]
fn steps_back_keep_their_presentation() {
    let mut source = rtmp(&source("plain"), 0);
    // Every tenth sample of each track was stamped 15 ms early by its encoder.
    for (at, sample) in source.samples.iter_mut().enumerate() {
        if at % 10 == 5 {
            sample.dts = (sample.dts - 60).max(0);
        }
    }
    let file = read_all(&*open(FileFormat::Flv, MemoryClip::new(&source)), 0);
    let seen = media::flv_times(&file);
    let sent = |video: bool| -> Vec<i64> {
        source.samples.iter().filter(|s| source.is_video(s) == video).map(|s| s.dts).collect()
    };
    assert_eq!(seen.0, sent(true));
    assert_eq!(seen.1, sent(false));
    let file = read_all(&*open(FileFormat::Mp4, MemoryClip::new(&source)), 0);
    let seen = probe(&file, "mp4", &[]);
    let pts = |packets: &[Packet]| -> Vec<(usize, i64)> {
        let mut all: Vec<_> = packets.iter().map(|p| (p.stream, p.pts)).collect();
        all.sort_by_key(|(stream, _)| *stream);
        all
    };
    let sent = expected(&source, |ticks, _| ticks, verbatim);
    assert_eq!(pts(&seen), pts(&sent));
    // Decoding times are evened out.
    for stream in 0..2 {
        let dts = |packets: &[Packet]| -> Vec<i64> {
            packets.iter().filter(|p| p.stream == stream).map(|p| p.dts).collect()
        };
        let mut latest = i64::MIN;
        let even: Vec<i64> = dts(&sent)
            .into_iter()
            .map(|time| {
                latest = latest.max(time);
                latest
            })
            .collect();
        assert_eq!(dts(&seen), even);
    }
}
