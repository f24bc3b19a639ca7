//! The sample tables of a progressive MP4, fragment by fragment: each table is the fragments'
//! contributions one after the other, so that any stretch of it can be made from their `moof`s.

use crate::domain::sample::{Track, TrackId};
use crate::domain::time::rescale;
use crate::media::fmp4::{Moof, Run};
use crate::media::render::program::Programs;

/// Tracks of a file. More could only come from a clip that changes its tracks all the time.
pub const LANES_MAX: usize = 64;
const MICROS: u32 = 1_000_000;

/// A track of the file: a track of the clip, as long as its codec and timescale stay.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The track with each of its configurations, in order of appearance.
    pub configs: Vec<Track>,
}

impl Lane {
    /// The track as it was first.
    #[must_use]
    pub fn track(&self) -> &Track {
        &self.configs[0]
    }
}

/// Which track of which set goes into which lane.
#[derive(Debug)]
pub struct Lanes {
    /// The tracks of the file.
    pub list: Vec<Lane>,
    /// Per set: (track, lane, configuration from 1).
    by_set: Vec<Vec<(TrackId, usize, u32)>>,
    programs: Programs,
}

impl Lanes {
    /// From the sets of tracks of a clip. Tracks beyond [`LANES_MAX`] are returned.
    #[must_use]
    pub fn new(programs: Programs) -> (Self, Vec<Track>) {
        let (mut list, mut by_set, mut left_out) = (Vec::<Lane>::new(), Vec::new(), Vec::new());
        for set in &programs.sets {
            let mut places = Vec::with_capacity(set.len());
            for track in set.iter() {
                let same = |lane: &Lane| {
                    let first = lane.track();
                    (first.id, first.codec, first.timescale)
                        == (track.id, track.codec, track.timescale)
                };
                let lane = match list.iter().position(same) {
                    Some(lane) => lane,
                    None if list.len() == LANES_MAX => {
                        left_out.push(track.clone());
                        continue;
                    }
                    None => {
                        list.push(Lane { configs: Vec::new() });
                        list.len() - 1
                    }
                };
                let configs = &mut list[lane].configs;
                let known = configs.iter().position(|known| known == track);
                let config = known.unwrap_or_else(|| {
                    configs.push(track.clone());
                    configs.len() - 1
                });
                places.push((track.id, lane, u32::try_from(config + 1).unwrap_or(u32::MAX)));
            }
            by_set.push(places);
        }
        (Lanes { list, by_set, programs }, left_out)
    }

    /// Takes a fragment into `state`; what it adds to the tables goes to `target`.
    pub fn apply(&self, fragment: u32, moof: &Moof, state: &mut TableState, target: &mut Target) {
        let part = self.programs.part_of(fragment);
        let places = part.and_then(|(part, _)| self.by_set.get(part.set as usize));
        let place_of = |run: &Run| {
            let place = places?.iter().find(|(id, ..)| *id == run.track)?;
            (!run.samples.is_empty()).then_some((place.1, place.2))
        };
        if part.is_some_and(|(part, first)| first && part.discontinuity) {
            let starts = moof.runs.iter().filter_map(|run| {
                let (lane, _) = place_of(run)?;
                Some(rescale(run.samples[0].dts, self.list[lane].track().timescale, MICROS))
            });
            state.shift_us =
                starts.min().map_or(state.shift_us, |start| state.end_us.saturating_sub(start));
        }
        for run in &moof.runs {
            let offset = state.payload;
            state.payload = state.payload.saturating_add(run.payload_len());
            let Some((lane, config)) = place_of(run) else { continue };
            let timescale = self.list[lane].track().timescale;
            let shift = rescale(state.shift_us, MICROS, timescale);
            let mut sink = Sink { lane, target };
            state.lanes[lane].apply(run, shift, config, offset, &mut sink);
            let end = rescale(run.end_dts.saturating_add(shift), timescale, MICROS);
            state.end_us = state.end_us.max(end);
        }
    }
}

/// A table of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which track of the file.
    pub lane: usize,
    /// Which table.
    pub table: Table,
}

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Decoding time steps (`stts`), the last one not included.
    TimeSteps,
    /// Composition offsets (`ctts`).
    Compositions,
    /// Samples per chunk (`stsc`).
    Chunks,
    /// Sample sizes (`stsz`).
    Sizes,
    /// Key frames (`stss`).
    Keys,
    /// Chunk offsets in the payload (`co64`).
    Offsets,
}

impl Table {
    /// Bytes of an entry.
    #[must_use]
    pub fn entry_bytes(self) -> u64 {
        match self {
            Table::Chunks => 12,
            Table::TimeSteps | Table::Compositions | Table::Offsets => 8,
            Table::Sizes | Table::Keys => 4,
        }
    }
}

/// How far all tables are.
#[derive(Debug, Clone)]
pub struct TableState {
    /// Bytes of payload so far, counted from where payloads begin in the file.
    pub payload: u64,
    /// What is added to source time since the last discontinuity.
    shift_us: i64,
    /// Where the media so far ends.
    end_us: i64,
    /// Per track of the file.
    pub lanes: Vec<LaneState>,
}

impl TableState {
    /// Before the first fragment; `payload_start` is where payloads begin in the file.
    #[must_use]
    pub fn new(lanes: usize, payload_start: u64) -> Self {
        let lanes = vec![LaneState::default(); lanes];
        TableState { payload: payload_start, shift_us: 0, end_us: 0, lanes }
    }

    /// Bytes so far of a table.
    #[must_use]
    pub fn table_len(&self, wanted: Wanted) -> u64 {
        let lane = &self.lanes[wanted.lane];
        u64::from(lane.entries(wanted.table)) * wanted.table.entry_bytes()
    }

    /// Memory of one such state in bytes.
    #[must_use]
    pub fn bytes(lanes: usize) -> usize {
        size_of::<TableState>() + lanes * size_of::<LaneState>()
    }
}

/// How far the tables of a track are. Media time is in its ticks, from 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneState {
    /// Source time of media time 0: the first dts.
    pub base: i64,
    /// The earliest presentation in the first fragment of the track, in media time.
    pub first_pts: i64,
    /// The latest presentation, in media time.
    pub last_pts: i64,
    /// Decoding time of the last sample, in media time.
    pub last_dts: i64,
    /// Duration of the last sample, as far as it is known.
    pub last_duration: u32,
    /// Whether any composition offset is not zero.
    pub has_compositions: bool,
    /// Samples.
    pub samples: u32,
    time_steps: u32,
    compositions: u32,
    chunks: u32,
    chunk_runs: u32,
    keys: u32,
    /// Samples and configuration of the last chunk.
    last_chunk: (u32, u32),
}

impl LaneState {
    /// Entries so far of a table.
    #[must_use]
    pub fn entries(&self, table: Table) -> u32 {
        match table {
            Table::TimeSteps => self.time_steps,
            Table::Compositions => self.compositions,
            Table::Chunks => self.chunk_runs,
            Table::Sizes => self.samples,
            Table::Keys => self.keys,
            Table::Offsets => self.chunks,
        }
    }

    fn apply(&mut self, run: &Run, shift: i64, config: u32, offset: u64, sink: &mut Sink<'_>) {
        let mut steps = Repeated::new(Table::TimeSteps);
        let mut compositions = Repeated::new(Table::Compositions);
        let first_run = self.samples == 0;
        if let Some(first) = run.samples.first().filter(|_| first_run) {
            self.base = first.dts.saturating_add(shift);
            self.first_pts = i64::MAX;
        }
        for sample in &run.samples {
            let dts = sample.dts.saturating_add(shift).saturating_sub(self.base);
            let pts = sample.pts.saturating_add(shift).saturating_sub(self.base);
            if self.samples > 0 {
                let step = dts.saturating_sub(self.last_dts).max(0);
                let step = u32::try_from(step).unwrap_or(u32::MAX);
                self.last_dts = self.last_dts.saturating_add(i64::from(step));
                self.time_steps += steps.push(step, sink);
            }
            let composition = pts.saturating_sub(self.last_dts);
            let composition = composition.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
            self.has_compositions |= composition != 0;
            self.compositions += compositions.push(composition as u32, sink);
            self.samples = self.samples.saturating_add(1);
            sink.put(Table::Sizes, &[sample.size]);
            if sample.key {
                self.keys += 1;
                sink.put(Table::Keys, &[self.samples]);
            }
            self.last_pts = self.last_pts.max(pts);
            self.first_pts = if first_run { self.first_pts.min(pts) } else { self.first_pts };
        }
        self.time_steps += steps.finish(sink);
        self.compositions += compositions.finish(sink);
        let last = run.samples.last().map_or(run.end_dts, |sample| sample.dts);
        let duration = run.end_dts.saturating_sub(last);
        self.last_duration = u32::try_from(duration).unwrap_or(0);
        self.chunks += 1;
        sink.put_offset(offset);
        let chunk = (u32::try_from(run.samples.len()).unwrap_or(u32::MAX), config);
        if chunk != self.last_chunk {
            self.last_chunk = chunk;
            self.chunk_runs += 1;
            sink.put(Table::Chunks, &[self.chunks, chunk.0, chunk.1]);
        }
    }
}

/// Who takes the entries of tables.
#[derive(Debug)]
pub enum Target {
    /// Nobody: they are only counted.
    Nobody,
    /// The bytes of one table.
    One(Wanted, Vec<u8>),
    /// The bytes of all tables as long as they are few.
    All(Captured),
}

/// All tables of a short clip.
#[derive(Debug)]
pub struct Captured {
    tables: Vec<(Wanted, Vec<u8>)>,
    len: usize,
    bytes_max: usize,
}

impl Captured {
    /// Takes at most `bytes_max` bytes in all; with one more, all are dropped.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Captured { tables: Vec::new(), len: 0, bytes_max }
    }

    /// Takes the bytes of a table out.
    pub fn take(&mut self, wanted: Wanted) -> Vec<u8> {
        let found = self.tables.iter_mut().find(|(known, _)| *known == wanted);
        found.map(|(_, bytes)| std::mem::take(bytes)).unwrap_or_default()
    }

    fn put(&mut self, wanted: Wanted, bytes: &[u8]) {
        self.len += bytes.len();
        match self.tables.iter_mut().find(|(known, _)| *known == wanted) {
            Some((_, table)) => table.extend_from_slice(bytes),
            None => self.tables.push((wanted, bytes.to_vec())),
        }
    }
}

/// The tables of one track of the file, on their way to the target.
struct Sink<'a> {
    lane: usize,
    target: &'a mut Target,
}

impl Sink<'_> {
    fn put(&mut self, table: Table, fields: &[u32]) {
        for field in fields {
            self.put_bytes(table, &field.to_be_bytes());
        }
    }

    fn put_offset(&mut self, offset: u64) {
        self.put_bytes(Table::Offsets, &offset.to_be_bytes());
    }

    fn put_bytes(&mut self, table: Table, bytes: &[u8]) {
        let wanted = Wanted { lane: self.lane, table };
        match self.target {
            Target::One(one, out) if *one == wanted => out.extend_from_slice(bytes),
            Target::All(captured) if captured.len + bytes.len() > captured.bytes_max => {
                *self.target = Target::Nobody;
            }
            Target::All(captured) => captured.put(wanted, bytes),
            Target::One(..) | Target::Nobody => {}
        }
    }
}

/// Entries of (count, value) over one fragment.
struct Repeated {
    table: Table,
    count: u32,
    value: u32,
}

impl Repeated {
    fn new(table: Table) -> Self {
        Repeated { table, count: 0, value: 0 }
    }

    /// Returns how many entries were completed.
    fn push(&mut self, value: u32, sink: &mut Sink<'_>) -> u32 {
        if self.count > 0 && self.value == value {
            self.count += 1;
            return 0;
        }
        let completed = self.finish(sink);
        (self.count, self.value) = (1, value);
        completed
    }

    fn finish(&mut self, sink: &mut Sink<'_>) -> u32 {
        if self.count == 0 {
            return 0;
        }
        sink.put(self.table, &[self.count, self.value]);
        self.count = 0;
        1
    }
}
