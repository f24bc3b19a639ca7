//! Writing a fragment: the `moof` box and the header of the `mdat` that follows.
//!
//! Players read the ordinary boxes. Where those cannot say the exact source time (a dts that
//! steps back inside the fragment), a private `uuid` box in the `traf` holds it, and
//! [`parse_moof`](crate::media::fmp4::parse_moof) gives it back.

use crate::domain::limits::{FRAGMENT_BYTES_TARGET, SAMPLE_BYTES_MAX};
use crate::domain::sample::{Codec, Sample, Shape, Track};
use crate::domain::time::rescale;
use crate::media::fmp4::bmff::{put_u32, put_u64, write_box, write_full_box};
use crate::media::fmp4::init::{FLAGS_DEPENDENT, FLAGS_KEY};

/// Type of the private box with exact times.
pub const EXACT_TIMES_UUID: [u8; 16] = *b"edgerec-times\0v1";

/// `tfhd`: default duration, size and flags are given; offsets count from the `moof`.
pub(super) const TFHD_DEFAULT_DURATION: u32 = 0x08;
pub(super) const TFHD_DEFAULT_SIZE: u32 = 0x10;
pub(super) const TFHD_DEFAULT_FLAGS: u32 = 0x20;
pub(super) const TFHD_BASE_IS_MOOF: u32 = 0x02_0000;
pub(super) const TRUN_DATA_OFFSET: u32 = 0x01;
pub(super) const TRUN_FIRST_FLAGS: u32 = 0x04;
pub(super) const TRUN_DURATION: u32 = 0x100;
pub(super) const TRUN_SIZE: u32 = 0x200;
pub(super) const TRUN_FLAGS: u32 = 0x400;
pub(super) const TRUN_CTS: u32 = 0x800;

/// Bytes of the `mdat` header that ends the head.
const MDAT_HEADER_BYTES: usize = 8;
/// `moof` and `mfhd`.
const MOOF_FIXED_BYTES: usize = 8 + 16;
/// `traf`, `tfhd`, `tfdt`, `trun` and the header of the private box, at most.
const TRAF_BYTES_MAX: usize = 8 + 28 + 20 + 24 + 28;

// Offsets in `trun` and the size of `mdat` are 31 and 32 bits.
const _: () = assert!(FRAGMENT_BYTES_TARGET + SAMPLE_BYTES_MAX < i32::MAX as usize / 2);

/// The `moof` box of a fragment and the header of its `mdat`. Appending the payloads of all
/// samples, run after run, completes the fragment. Runs without samples are left out. Together
/// the payloads must stay below 2 GiB (the recorder closes a fragment at about 1 MiB).
///
/// The last duration of a run repeats the one before it: what comes next is not known yet, and
/// the next fragment says its own start.
#[must_use]
pub fn fragment_head(sequence: u32, runs: &[(&Track, &[Sample])]) -> Vec<u8> {
    let bound: usize = runs.iter().map(|(_, samples)| TRAF_BYTES_MAX + 16 * samples.len()).sum();
    let mut out = Vec::with_capacity(MOOF_FIXED_BYTES + bound + MDAT_HEADER_BYTES);
    // Places of the data offsets, to be filled in once the length of the `moof` is known.
    let mut offsets = heapless::Vec::<(usize, u32), { crate::domain::limits::TRACKS_MAX }>::new();
    let mut payload: u32 = 0;
    write_box(&mut out, *b"moof", |out| {
        write_full_box(out, *b"mfhd", 0, 0, |out| put_u32(out, sequence));
        for (track, samples) in runs.iter().filter(|(_, samples)| !samples.is_empty()) {
            let place = write_traf(out, track, samples);
            // More runs than tracks can be: the offset stays 0, the fragment is still parsed.
            let _ = offsets.push((place, payload));
            payload = samples.iter().fold(payload, |sum, s| sum.saturating_add(size_of_sample(s)));
        }
    });
    let start = u32::try_from(out.len() + MDAT_HEADER_BYTES).unwrap_or(u32::MAX);
    for (place, offset) in offsets {
        out[place..place + 4].copy_from_slice(&start.saturating_add(offset).to_be_bytes());
    }
    put_u32(&mut out, payload.saturating_add(MDAT_HEADER_BYTES as u32));
    out.extend_from_slice(b"mdat");
    out
}

fn size_of_sample(sample: &Sample) -> u32 {
    u32::try_from(sample.data.len()).unwrap_or(u32::MAX)
}

fn flags_of(sample: &Sample) -> u32 {
    if sample.key { FLAGS_KEY } else { FLAGS_DEPENDENT }
}

/// What a run needs said per sample, found in one look over it.
struct RunShape {
    flags: u32,
    duration: Option<u32>,
    size: Option<u32>,
    default_flags: u32,
    exact: ExactTimes,
}

/// Which times the ordinary boxes cannot hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ExactTimes {
    /// None.
    Plain,
    /// Decoding times.
    Dts,
    /// Both.
    DtsAndPts,
}

/// Writes a `traf`; returns where its data offset stands.
fn write_traf(out: &mut Vec<u8>, track: &Track, samples: &[Sample]) -> usize {
    let shape = look_over(track, samples);
    let mut place = 0;
    write_box(out, *b"traf", |out| {
        let mut flags = TFHD_BASE_IS_MOOF | TFHD_DEFAULT_FLAGS;
        flags |= if shape.duration.is_some() { TFHD_DEFAULT_DURATION } else { 0 };
        flags |= if shape.size.is_some() { TFHD_DEFAULT_SIZE } else { 0 };
        write_full_box(out, *b"tfhd", 0, flags, |out| {
            put_u32(out, u32::from(track.id.0));
            shape.duration.into_iter().chain(shape.size).for_each(|value| put_u32(out, value));
            put_u32(out, shape.default_flags);
        });
        let base = samples.first().map_or(0, |sample| sample.dts);
        write_full_box(out, *b"tfdt", 1, 0, |out| put_u64(out, u64::try_from(base).unwrap_or(0)));
        write_full_box(out, *b"trun", 1, shape.flags, |out| {
            put_u32(out, u32::try_from(samples.len()).unwrap_or(u32::MAX));
            place = out.len();
            put_u32(out, 0);
            if shape.flags & TRUN_FIRST_FLAGS != 0 {
                put_u32(out, samples.first().map_or(0, flags_of));
            }
            write_run(out, track, samples, shape.flags);
        });
        if shape.exact != ExactTimes::Plain {
            write_exact_times(out, samples, shape.exact);
        }
    });
    place
}

fn write_run(out: &mut Vec<u8>, track: &Track, samples: &[Sample], flags: u32) {
    const PER_SAMPLE: u32 = TRUN_DURATION | TRUN_SIZE | TRUN_FLAGS | TRUN_CTS;
    if flags & PER_SAMPLE == 0 {
        return;
    }
    for (sample, time) in samples.iter().zip(RunTimes::new(track, samples)) {
        if flags & TRUN_DURATION != 0 {
            put_u32(out, time.duration);
        }
        if flags & TRUN_SIZE != 0 {
            put_u32(out, size_of_sample(sample));
        }
        if flags & TRUN_FLAGS != 0 {
            put_u32(out, flags_of(sample));
        }
        if flags & TRUN_CTS != 0 {
            put_u32(out, time.cts as u32);
        }
    }
}

fn write_exact_times(out: &mut Vec<u8>, samples: &[Sample], exact: ExactTimes) {
    let with_pts = exact == ExactTimes::DtsAndPts;
    write_box(out, *b"uuid", |out| {
        out.extend_from_slice(&EXACT_TIMES_UUID);
        put_u32(out, u32::from(with_pts));
        for sample in samples {
            put_u64(out, sample.dts as u64);
            if with_pts {
                put_u64(out, sample.pts as u64);
            }
        }
    });
}

fn look_over(track: &Track, samples: &[Sample]) -> RunShape {
    let mut times = RunTimes::new(track, samples);
    let first = times.next();
    let (mut cts, mut exact) = (false, ExactTimes::Plain);
    let (mut same_duration, mut same_size, mut same_flags) = (true, true, true);
    // Flags of all samples but the first.
    let default_flags = samples.get(1).or(samples.first()).map_or(FLAGS_KEY, flags_of);
    for (at, (sample, time)) in samples.iter().zip(RunTimes::new(track, samples)).enumerate() {
        cts |= time.cts != 0;
        if time.dts.saturating_add(i64::from(time.cts)) != sample.pts {
            exact = ExactTimes::DtsAndPts;
        } else if time.dts != sample.dts && exact == ExactTimes::Plain {
            exact = ExactTimes::Dts;
        }
        same_duration &= first.as_ref().is_some_and(|first| first.duration == time.duration);
        same_size &= sample.data.len() == samples[0].data.len();
        same_flags &= at == 0 || flags_of(sample) == default_flags;
    }
    let mut flags = TRUN_DATA_OFFSET;
    flags |= if same_duration { 0 } else { TRUN_DURATION };
    flags |= if same_size { 0 } else { TRUN_SIZE };
    flags |= if cts { TRUN_CTS } else { 0 };
    if !same_flags {
        flags |= TRUN_FLAGS;
    } else if samples.first().is_some_and(|sample| flags_of(sample) != default_flags) {
        flags |= TRUN_FIRST_FLAGS;
    }
    RunShape {
        flags,
        duration: first.filter(|_| same_duration).map(|time| time.duration),
        size: samples.first().filter(|_| same_size).map(size_of_sample),
        default_flags,
        exact,
    }
}

/// The times of a run as `trun` can hold them: dts that never step back.
struct RunTimes<'a> {
    track: &'a Track,
    samples: &'a [Sample],
    at: usize,
    dts: i64,
    duration: u32,
}

/// One sample's times as written.
struct RunTime {
    dts: i64,
    duration: u32,
    cts: i32,
}

impl<'a> RunTimes<'a> {
    fn new(track: &'a Track, samples: &'a [Sample]) -> Self {
        let dts = samples.first().map_or(0, |sample| sample.dts.max(0));
        RunTimes { track, samples, at: 0, dts, duration: 0 }
    }
}

impl Iterator for RunTimes<'_> {
    type Item = RunTime;

    fn next(&mut self) -> Option<RunTime> {
        let sample = self.samples.get(self.at)?;
        self.at += 1;
        self.duration = match self.samples.get(self.at) {
            Some(next) => {
                let step = next.dts.saturating_sub(self.dts).max(0);
                u32::try_from(step).unwrap_or(u32::MAX)
            }
            None if self.duration > 0 => self.duration,
            None => guessed_duration(self.track, sample),
        };
        let dts = self.dts;
        self.dts = dts.saturating_add(i64::from(self.duration));
        let offset = sample.pts.saturating_sub(dts);
        let cts = i32::try_from(offset).unwrap_or(if offset < 0 { i32::MIN } else { i32::MAX });
        Some(RunTime { dts, duration: self.duration, cts })
    }
}

/// How long a sample that stands alone lasts, in ticks of its track.
fn guessed_duration(track: &Track, sample: &Sample) -> u32 {
    let (ticks, rate) = match (track.codec, track.shape) {
        (Codec::Aac, Shape::Audio { sample_rate, .. }) => (1024, sample_rate),
        (_, Shape::Audio { sample_rate, channels }) => {
            (sample.data.len() / usize::from(channels.max(1)), sample_rate)
        }
        (_, Shape::Video { .. }) => (1, 25),
    };
    let ticks = i64::try_from(ticks).unwrap_or(0);
    u32::try_from(rescale(ticks, rate, track.timescale)).unwrap_or(0)
}
