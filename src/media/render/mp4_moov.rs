//! The `moov` of a progressive MP4 with its tables left open: bytes, and between them gaps that
//! are made when they are read.

use crate::media::fmp4::bmff::{put_u16, put_u32, put_u64};
use crate::media::fmp4::init::{
    write_mdia_head, write_minf_head, write_mvhd, write_stsd, write_tkhd,
};
use crate::media::render::mp4_tables::{Lane, LaneState, Table, TableState, Wanted};

/// Ticks a second of the movie when no common multiple of the tracks' is small enough.
const FALLBACK_TIMESCALE: u32 = 90_000;
/// A rate of 1.0, 16.16.
const RATE_ONE: u32 = 0x0001_0000;

/// A stretch of the file.
#[derive(Debug)]
pub enum Region {
    /// As it is.
    Known(Vec<u8>),
    /// A table of this many bytes.
    Gap(Wanted, u64),
}

/// `ftyp` and `moov` for tables as they are at the end of the clip.
#[must_use]
pub fn file_head(lanes: &[Lane], end: &TableState) -> Vec<Region> {
    let present: Vec<usize> =
        (0..lanes.len()).filter(|lane| end.lanes[*lane].samples > 0).collect();
    let timescale = movie_timescale(present.iter().map(|lane| lanes[*lane].track().timescale));
    let clock = MovieClock { timescale };
    let starts = present.iter().map(|lane| {
        let (track, state) = (lanes[*lane].track(), &end.lanes[*lane]);
        clock.ticks(state.base.saturating_add(state.first_pts.min(0)), track.timescale)
    });
    let origin = starts.min().unwrap_or(0);
    let places: Vec<(usize, Placement)> = present
        .iter()
        .map(|at| (*at, Placement::new(&clock, &lanes[*at], &end.lanes[*at], origin)))
        .collect();
    let mut head = Skeleton::default();
    head.in_box(*b"ftyp", |head| head.bytes(b"isom\0\0\x02\0isomiso4mp41"));
    head.in_box(*b"moov", |head| {
        let duration = places.iter().map(|(_, place)| place.end).max().unwrap_or(0);
        let next_id = u32::try_from(places.len() + 1).unwrap_or(u32::MAX);
        head.write(|out| write_mvhd(out, timescale, duration, next_id));
        for (number, (at, place)) in places.iter().enumerate() {
            let id = u32::try_from(number + 1).unwrap_or(u32::MAX);
            write_trak(head, id, *at, &lanes[*at], &end.lanes[*at], place);
        }
    });
    head.finish()
}

/// The smallest timescale in which all tracks' ticks are whole.
fn movie_timescale(mut timescales: impl Iterator<Item = u32>) -> u32 {
    let multiple = timescales.try_fold(1_u64, |a, b| {
        let b = u64::from(b.max(1));
        let both = a / gcd(a, b) * b;
        u32::try_from(both).is_ok().then_some(both)
    });
    multiple.and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(FALLBACK_TIMESCALE)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Converts track ticks to movie ticks.
struct MovieClock {
    timescale: u32,
}

impl MovieClock {
    fn ticks(&self, ticks: i64, timescale: u32) -> i64 {
        crate::domain::time::rescale(ticks, timescale, self.timescale)
    }
}

/// Where a track lies in the movie; in movie ticks but for `media_time`.
struct Placement {
    /// Nothing is shown before.
    start: u64,
    /// How long it is shown.
    duration: u64,
    /// Where it ends.
    end: u64,
    /// What is shown first, in ticks of the track.
    media_time: u64,
    /// Length of the media, in ticks of the track.
    media_duration: u64,
}

impl Placement {
    fn new(clock: &MovieClock, lane: &Lane, state: &LaneState, origin: i64) -> Self {
        let timescale = lane.track().timescale;
        let last = i64::from(state.last_duration);
        let shown_end = state.last_pts.max(state.last_dts).saturating_add(last);
        let first = clock.ticks(state.base.saturating_add(state.first_pts), timescale);
        let start = unsigned(first.saturating_sub(origin));
        let media_time = unsigned(state.first_pts);
        let shown = shown_end.saturating_sub(state.first_pts);
        let duration = unsigned(clock.ticks(shown, timescale));
        Placement {
            start,
            duration,
            end: start.saturating_add(duration),
            media_time,
            media_duration: unsigned(state.last_dts.saturating_add(last)),
        }
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn write_trak(
    head: &mut Skeleton,
    id: u32,
    at: usize,
    lane: &Lane,
    state: &LaneState,
    place: &Placement,
) {
    let track = lane.track();
    head.in_box(*b"trak", |head| {
        head.write(|out| write_tkhd(out, track, id, place.end));
        write_edit_list(head, place);
        head.in_box(*b"mdia", |head| {
            head.write(|out| write_mdia_head(out, track, place.media_duration));
            head.in_box(*b"minf", |head| {
                head.write(|out| write_minf_head(out, track));
                head.in_box(*b"stbl", |head| write_stbl(head, at, lane, state));
            });
        });
    });
}

/// The pause before the track, and where its media is entered.
fn write_edit_list(head: &mut Skeleton, place: &Placement) {
    if place.start == 0 && place.media_time == 0 {
        return;
    }
    head.in_box(*b"edts", |head| {
        head.in_full_box(*b"elst", 1, |head| {
            head.write(|out| {
                put_u32(out, 1 + u32::from(place.start > 0));
                if place.start > 0 {
                    put_u64(out, place.start);
                    put_u64(out, u64::MAX);
                    put_u32(out, RATE_ONE);
                }
                put_u64(out, place.duration);
                put_u64(out, place.media_time);
                put_u32(out, RATE_ONE);
            });
        });
    });
}

fn write_stbl(head: &mut Skeleton, at: usize, lane: &Lane, state: &LaneState) {
    let gap = |table| (Wanted { lane: at, table }, state.entries(table));
    head.write(|out| write_stsd(out, lane.configs.iter()));
    head.in_full_box(*b"stts", 0, |head| {
        let (wanted, entries) = gap(Table::TimeSteps);
        head.write(|out| put_u32(out, entries + 1));
        head.gap(wanted, entries);
        head.write(|out| {
            put_u32(out, 1);
            put_u32(out, state.last_duration);
        });
    });
    if state.has_compositions {
        write_table(head, *b"ctts", 1, gap(Table::Compositions));
    }
    write_table(head, *b"stsc", 0, gap(Table::Chunks));
    head.in_full_box(*b"stsz", 0, |head| {
        let (wanted, entries) = gap(Table::Sizes);
        head.write(|out| {
            put_u32(out, 0);
            put_u32(out, entries);
        });
        head.gap(wanted, entries);
    });
    // Without the table every sample is a key.
    if state.entries(Table::Keys) != state.samples {
        write_table(head, *b"stss", 0, gap(Table::Keys));
    }
    write_table(head, *b"co64", 0, gap(Table::Offsets));
}

fn write_table(head: &mut Skeleton, kind: [u8; 4], version: u8, gap: (Wanted, u32)) {
    head.in_full_box(kind, version, |head| {
        head.write(|out| put_u32(out, gap.1));
        head.gap(gap.0, gap.1);
    });
}

/// Boxes with gaps in them.
#[derive(Default)]
struct Skeleton {
    bytes: Vec<u8>,
    /// Where a gap stands in `bytes`, what it is, how long.
    gaps: Vec<(usize, Wanted, u64)>,
    gaps_len: u64,
}

impl Skeleton {
    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn write(&mut self, content: impl FnOnce(&mut Vec<u8>)) {
        content(&mut self.bytes);
    }

    fn gap(&mut self, wanted: Wanted, entries: u32) {
        let len = u64::from(entries) * wanted.table.entry_bytes();
        if len > 0 {
            self.gaps.push((self.bytes.len(), wanted, len));
            self.gaps_len += len;
        }
    }

    fn in_box(&mut self, kind: [u8; 4], content: impl FnOnce(&mut Self)) {
        let (start, gaps_before) = (self.bytes.len(), self.gaps_len);
        put_u32(&mut self.bytes, 0);
        self.bytes(&kind);
        content(self);
        let size = (self.bytes.len() - start) as u64 + self.gaps_len - gaps_before;
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }

    fn in_full_box(&mut self, kind: [u8; 4], version: u8, content: impl FnOnce(&mut Self)) {
        self.in_box(kind, |head| {
            head.write(|out| {
                put_u16(out, u16::from(version) << 8);
                put_u16(out, 0);
            });
            content(head);
        });
    }

    fn finish(self) -> Vec<Region> {
        let mut regions = Vec::with_capacity(2 * self.gaps.len() + 1);
        let mut at = 0;
        for (place, wanted, len) in self.gaps {
            regions.push(Region::Known(self.bytes[at..place].to_vec()));
            regions.push(Region::Gap(wanted, len));
            at = place;
        }
        regions.push(Region::Known(self.bytes[at..].to_vec()));
        regions
    }
}
