//! What is recorded of the sound alone, out of clips with picture.

use std::collections::HashSet;
use std::sync::Arc;

use edgerec::domain::files::FileFormat;
use edgerec::domain::time::rescale;
use edgerec::media::audio_only::AudioOnly;
use edgerec::media::render::{self, RenderError, Rendering};

use crate::clip::MemoryClip;
use crate::media::{Packet, Source, in_track_order, probe};
use crate::reading::{read_all, read_as_it_comes};
use crate::{adts, assert_packets, expected, in_ts, modulo_32_bits, rtmp, source, verbatim};

/// So many bytes in a row of a picture are not there by chance.
const TRACE_BYTES: usize = 16;

/// The source as if the camera had only a microphone.
fn without_picture(source: &Source) -> Source {
    let mut sound = source.clone();
    sound.tracks.retain(|track| !track.is_video());
    let kept: Vec<_> = sound.tracks.iter().map(|track| track.id).collect();
    sound.samples.retain(|sample| kept.contains(&sample.track));
    sound
}

fn open(format: FileFormat, source: &Source) -> Result<Box<dyn Rendering>, RenderError> {
    let clip = AudioOnly::new(Arc::new(MemoryClip::new(source)));
    render::open(format, Arc::new(clip))
}

/// All objects of a rendering but the playlist, read in two ways, and no picture found in them.
fn bytes_of(format: FileFormat, source: &Source) -> Vec<u8> {
    let rendering = open(format, source).expect("the sound renders");
    assert!(rendering.dropped_tracks().is_empty());
    let playlist = usize::from(format == FileFormat::Hls);
    let mut bytes = Vec::new();
    for object in 0..rendering.objects().len() - playlist {
        let one = read_all(&*rendering, object);
        read_as_it_comes(&*rendering, object, &one);
        bytes.extend(one);
    }
    assert!(!has_picture(&bytes, source), "{format:?} has bytes of the picture");
    bytes
}

/// Whether any stretch of a picture's coded bytes stands in `bytes`.
fn has_picture(bytes: &[u8], source: &Source) -> bool {
    let seen: HashSet<&[u8]> = bytes.windows(TRACE_BYTES).collect();
    let pictures = source.samples.iter().filter(|sample| source.is_video(sample));
    let mut traces = pictures.flat_map(|sample| sample.data.chunks_exact(TRACE_BYTES));
    traces.any(|trace| seen.contains(trace))
}

#[test]
fn all_four_formats_hold_every_frame_of_the_sound_and_no_picture() {
    for name in ["b-frames", "plain", "hevc"] {
        let source = rtmp(&source(name), 5_000);
        let sound = without_picture(&source);
        let first = sound.samples[0].dts;

        let mp4 = probe(&bytes_of(FileFormat::Mp4, &source), "mp4", &[]);
        assert_packets(name, &mp4, &expected(&sound, |ticks, _| ticks - first, verbatim));

        let flv = bytes_of(FileFormat::Flv, &source);
        let mut seen: Vec<Packet> = probe(&flv, "flv", &[]);
        let mut wanted = expected(&sound, |ticks, _| ticks, verbatim);
        seen.iter_mut().chain(&mut wanted).for_each(modulo_32_bits);
        assert_packets(name, &seen, &wanted);

        let ts = bytes_of(FileFormat::Hls, &source);
        let seen = in_track_order(probe(&ts, "ts", &[]), &sound);
        let to_clock = |ticks, timescale| rescale(ticks, timescale, 90_000);
        assert_packets(name, &seen, &expected(&sound, to_clock, in_ts));

        let frames: Vec<u8> = sound.samples.iter().flat_map(|s| adts(&sound, s)).collect();
        assert!(bytes_of(FileFormat::Aac, &source) == frames, "{name}: ADTS");
    }
}

#[test]
fn fragmented_mp4_in_hls_finds_its_payload() {
    let source = source("alaw");
    let sound = without_picture(&source);
    let seen = probe(&bytes_of(FileFormat::Hls, &source), "mp4", &[]);
    assert_packets("alaw", &seen, &expected(&sound, |ticks, _| ticks, verbatim));
}

#[test]
fn with_its_picture_a_clip_is_told_from_one_without() {
    let source = source("plain");
    let whole = render::open(FileFormat::Mp4, Arc::new(MemoryClip::new(&source)));
    assert!(has_picture(&read_all(&*whole.expect("renders"), 0), &source));
}

#[test]
fn a_clip_without_sound_gives_no_file() {
    for format in FileFormat::ALL {
        let silent = open(format, &source("open-gop")).map(|_| ());
        assert!(matches!(silent, Err(RenderError::NothingToHold { .. })), "{format:?}");
    }
}
