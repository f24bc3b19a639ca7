//! MPEG-TS for HLS: one PES packet per sample with its own times, packet by packet.
//!
//! The length of everything follows from the `moof` alone, so that nothing but `moof`s is read to
//! know where a byte lies. A video sample counts as having our access unit delimiter; if it
//! brings its own, ours is left out and the first packet is stuffed by as much.

use bytes::Bytes;

use crate::domain::sample::{Codec, Track, TrackId};
use crate::media::codec::aac::{ADTS_FRAME_BYTES_MAX, ADTS_HEADER_BYTES, AacConfig};
use crate::media::codec::avc::AvcConfig;
use crate::media::codec::hevc::{HevcConfig, NAL_PPS, NAL_SPS, NAL_VPS};
use crate::media::codec::nal::{h264_type, h265_type};
use crate::media::fmp4::Moof;
use crate::media::render::RenderError;
use crate::media::render::aac::adts_config;
use crate::media::render::merge::{Taken, merged};
use crate::media::render::program::Programs;
use crate::media::render::stream::{
    FragmentSource, Layout, NalPlace, Piece, PieceKind, Pieces, PlacedSample, overlay,
};
use crate::media::ts::packet::{
    FLAGS_BYTES, Front, PCR_BYTES, pes_header, pes_header_len, write_packet,
};
use crate::media::ts::tables::{STREAMS_MAX, StreamEntry, TABLES_BYTES, tables};
use crate::media::ts::{BODY_BYTES, CLOCK_HZ, PACKET_BYTES};

/// PID of the first track; the others follow.
const FIRST_PID: u16 = 0x100;
/// The clock runs this much behind decoding times, so that packets arrive before they are due.
const CLOCK_DELAY: i64 = CLOCK_HZ as i64 / 2;
/// Packets made in one go.
const SLAB_PACKETS: u64 = 256;
const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Bytes of a NAL unit's length field; tracks with shorter ones are not taken.
const LENGTH_BYTES: u64 = START_CODE.len() as u64;
/// Access unit delimiters with start codes: any slice types.
const AUD_H264: &[u8] = &[0, 0, 0, 1, 0x09, 0xf0];
const AUD_H265: &[u8] = &[0, 0, 0, 1, 0x46, 0x01, 0x50];
const NAL_AUD_H264: u8 = 9;
const NAL_AUD_H265: u8 = 35;
/// A delimiter is longer only if it is none of ours to move.
const AUD_NAL_BYTES_MAX: usize = 8;

/// A set of tracks as a TS program.
#[derive(Debug)]
pub struct TsProgram {
    tracks: Vec<TsTrack>,
    pcr_slot: usize,
}

#[derive(Debug)]
struct TsTrack {
    id: TrackId,
    timescale: u32,
    coding: Coding,
}

#[derive(Debug)]
enum Coding {
    /// Parameter sets with start codes, and the delimiter.
    Video {
        codec: Codec,
        parameter_sets: Vec<u8>,
        delimiter: &'static [u8],
    },
    Aac(AacConfig),
}

impl TsProgram {
    /// The program for a set of tracks; `None` if one of them does not fit in TS as it is.
    #[must_use]
    pub fn new(set: &[Track]) -> Option<Self> {
        if set.is_empty() || set.len() > STREAMS_MAX {
            return None;
        }
        let tracks = set.iter().map(TsTrack::new).collect::<Option<Vec<_>>>()?;
        let pcr_slot = set.iter().position(Track::is_video).unwrap_or(0);
        Some(TsProgram { tracks, pcr_slot })
    }

    fn tables(&self, counter: u8) -> [u8; TABLES_BYTES] {
        let entry = |(slot, track): (usize, &TsTrack)| {
            let stream_type = match track.coding {
                Coding::Video { codec: Codec::H265, .. } => 0x24,
                Coding::Video { .. } => 0x1b,
                Coding::Aac(_) => 0x0f,
            };
            StreamEntry { stream_type, pid: FIRST_PID + slot as u16 }
        };
        let entries: Vec<_> = self.tracks.iter().enumerate().map(entry).collect();
        tables(&entries, FIRST_PID + self.pcr_slot as u16, counter)
    }

    /// Payload bytes of the first packet of a sample.
    fn first_capacity(&self, slot: usize) -> u64 {
        let video = matches!(self.tracks[slot].coding, Coding::Video { .. });
        let pcr = slot == self.pcr_slot;
        let field = if pcr || video { FLAGS_BYTES } else { 0 } + if pcr { PCR_BYTES } else { 0 };
        (BODY_BYTES - field) as u64
    }
}

impl TsTrack {
    fn new(track: &Track) -> Option<Self> {
        let coding = match track.codec {
            Codec::H264 => {
                let config = AvcConfig::parse(&track.config).ok()?;
                let units = config.sps.iter().chain(&config.pps);
                video(track.codec, config.length_size, units, AUD_H264)?
            }
            Codec::H265 => {
                let config = HevcConfig::parse(&track.config).ok()?;
                let of = |kind| config.arrays.iter().filter(move |(k, _)| *k == kind);
                let arrays = [NAL_VPS, NAL_SPS, NAL_PPS].into_iter().flat_map(of);
                let units = arrays.flat_map(|(_, units)| units);
                video(track.codec, config.length_size, units, AUD_H265)?
            }
            Codec::Aac => Coding::Aac(adts_config(track)?),
            Codec::PcmAlaw | Codec::PcmUlaw => return None,
        };
        Some(TsTrack { id: track.id, timescale: track.timescale, coding })
    }

    /// Bytes of a sample in its PES packet, header included, with our delimiter.
    fn nominal_len(&self, sample: &PlacedSample) -> u64 {
        let ahead = match &self.coding {
            Coding::Video { parameter_sets, delimiter, .. } => {
                delimiter.len() + if sample.key { parameter_sets.len() } else { 0 }
            }
            Coding::Aac(_) => ADTS_HEADER_BYTES,
        };
        (pes_header_len(sample.pts, sample.dts) + ahead) as u64 + u64::from(sample.size)
    }
}

fn video<'a>(
    codec: Codec,
    length_size: u8,
    units: impl Iterator<Item = &'a Bytes>,
    delimiter: &'static [u8],
) -> Option<Coding> {
    if u64::from(length_size) != LENGTH_BYTES {
        return None;
    }
    let mut parameter_sets = Vec::new();
    for unit in units {
        parameter_sets.extend_from_slice(&START_CODE);
        parameter_sets.extend_from_slice(unit);
    }
    Some(Coding::Video { codec, parameter_sets, delimiter })
}

/// Packets of a PES packet of `len` bytes.
fn packets(len: u64, first_capacity: u64) -> u64 {
    1 + len.saturating_sub(first_capacity).div_ceil(BODY_BYTES as u64)
}

/// Continuity counters by slot, and that of the tables.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    slots: [u8; STREAMS_MAX],
    tables: u8,
}

/// All segments of a clip, one after the other.
#[derive(Debug)]
pub struct TsLayout {
    /// Which fragment has which set of tracks.
    pub programs: Programs,
    /// A program per set.
    pub ts_programs: Vec<TsProgram>,
    /// Fragments that begin a segment, in order.
    pub segment_starts: Vec<u32>,
}

impl TsLayout {
    fn program_of(&self, fragment: u32) -> Option<&TsProgram> {
        self.ts_programs.get(self.programs.set_of(fragment))
    }
}

impl Layout for TsLayout {
    type State = Counters;

    fn lay_out(&self, fragment: u32, moof: &Moof, state: &mut Counters, pieces: &mut Pieces) {
        let Some(program) = self.program_of(fragment) else { return };
        if self.segment_starts.binary_search(&fragment).is_ok() {
            let kind = PieceKind::Head { time: 0, counter: state.tables };
            pieces.push(TABLES_BYTES as u64, kind);
            state.tables = (state.tables + 1) & 0x0f;
        }
        let samples = merged(moof, CLOCK_HZ, |id| {
            let slot = program.tracks.iter().position(|track| track.id == id)?;
            Some(Taken { id, timescale: program.tracks[slot].timescale, slot: slot as u8 })
        });
        for mut sample in samples {
            let slot = usize::from(sample.slot);
            let track = &program.tracks[slot];
            let sound = matches!(track.coding, Coding::Aac(_));
            if sound && sample.size as usize > ADTS_FRAME_BYTES_MAX {
                continue; // No AAC frame is that long.
            }
            let count = packets(track.nominal_len(&sample), program.first_capacity(slot));
            sample.counter = state.slots[slot];
            state.slots[slot] = ((u64::from(sample.counter) + count) & 0x0f) as u8;
            pieces.push(count * PACKET_BYTES as u64, PieceKind::Sample(sample));
        }
    }

    fn fill(
        &self,
        source: &mut FragmentSource,
        piece: &Piece,
        skip: u64,
        buf: &mut [u8],
    ) -> Result<(), RenderError> {
        let Some(program) = self.program_of(source.fragment) else { return Ok(()) };
        match piece.kind {
            PieceKind::Head { counter, .. } => overlay(&program.tables(counter), 0, skip, buf),
            PieceKind::Sample(sample) => {
                Pes::new(program, source, sample)?.fill(source, skip, buf)?
            }
            PieceKind::Payload => {}
        }
        Ok(())
    }
}

/// A sample's PES packet, ready to be cut into packets.
struct Pes<'a> {
    track: &'a TsTrack,
    sample: PlacedSample,
    /// PES header and what goes ahead of the sample.
    ahead: Vec<u8>,
    /// Bytes of the sample that are already in `ahead`.
    moved: u64,
    /// Bytes in all.
    len: u64,
    /// Payload bytes of the first packet.
    first: u64,
    pcr: Option<i64>,
}

impl<'a> Pes<'a> {
    fn new(
        program: &'a TsProgram,
        source: &mut FragmentSource,
        sample: PlacedSample,
    ) -> Result<Self, RenderError> {
        let slot = usize::from(sample.slot);
        let track = &program.tracks[slot];
        let (mut body, mut moved, mut saved, mut stream_id) = (Vec::new(), 0, 0, 0xc0);
        match &track.coding {
            Coding::Video { codec, parameter_sets, delimiter } => {
                stream_id = 0xe0;
                let own = own_delimiter(*codec, source, &sample)?;
                if own.is_empty() {
                    body.extend_from_slice(delimiter);
                } else {
                    body.extend_from_slice(&START_CODE);
                    body.extend_from_slice(&own);
                    moved = LENGTH_BYTES + own.len() as u64;
                    saved = delimiter.len() as u64;
                }
                if sample.key {
                    body.extend_from_slice(parameter_sets);
                }
            }
            Coding::Aac(config) => {
                body.extend_from_slice(&config.adts_header(sample.size as usize));
            }
        }
        let content = body.len() as u64 + u64::from(sample.size) - moved;
        let (header, header_len) = pes_header(stream_id, sample.pts, sample.dts, content);
        let mut ahead = header[..header_len].to_vec();
        ahead.append(&mut body);
        let pcr = (slot == program.pcr_slot).then(|| sample.dts.saturating_sub(CLOCK_DELAY).max(0));
        let len = header_len as u64 + content;
        let first = len.min(program.first_capacity(slot) - saved);
        Ok(Pes { track, sample, ahead, moved, len, first, pcr })
    }

    /// Fills `buf` with the packets from byte `skip` on.
    fn fill(
        &self,
        source: &mut FragmentSource,
        skip: u64,
        buf: &mut [u8],
    ) -> Result<(), RenderError> {
        let end = skip + buf.len() as u64;
        let mut packet = skip / PACKET_BYTES as u64;
        let mut content = Vec::new();
        while packet * (PACKET_BYTES as u64) < end {
            let last = (packet + SLAB_PACKETS).min(end.div_ceil(PACKET_BYTES as u64));
            let (from, to) = (self.content_start(packet), self.content_start(last));
            content.resize((to - from) as usize, 0);
            self.content(source, from, &mut content)?;
            for at in packet..last {
                let range = (self.content_start(at) - from) as usize
                    ..(self.content_start(at + 1) - from) as usize;
                let mut out = [0; PACKET_BYTES];
                write_packet(&mut out, &self.front(at), &content[range]);
                overlay(&out, at * PACKET_BYTES as u64, skip, buf);
            }
            packet = last;
        }
        Ok(())
    }

    /// First content byte of a packet.
    fn content_start(&self, packet: u64) -> u64 {
        match packet {
            0 => 0,
            _ => (self.first + (packet - 1) * BODY_BYTES as u64).min(self.len),
        }
    }

    fn front(&self, packet: u64) -> Front {
        let first = packet == 0;
        Front {
            pid: FIRST_PID + u16::from(self.sample.slot),
            unit_start: first,
            counter: ((u64::from(self.sample.counter) + packet) & 0x0f) as u8,
            random_access: first && self.sample.key,
            pcr: self.pcr.filter(|_| first),
        }
    }

    /// Fills `buf` with content from `from`.
    fn content(
        &self,
        source: &mut FragmentSource,
        from: u64,
        buf: &mut [u8],
    ) -> Result<(), RenderError> {
        overlay(&self.ahead, 0, from, buf);
        let ahead = self.ahead.len() as u64;
        let skip_ahead = ahead.saturating_sub(from).min(buf.len() as u64);
        let target = &mut buf[skip_ahead as usize..];
        if target.is_empty() {
            return Ok(());
        }
        let place = from + skip_ahead - ahead + self.moved;
        source.read(self.sample.offset + place, target)?;
        if matches!(self.track.coding, Coding::Video { .. }) {
            put_start_codes(source, &self.sample, place, target)?;
        }
        Ok(())
    }
}

/// The access unit delimiter that the sample begins with; empty if it has none.
fn own_delimiter(
    codec: Codec,
    source: &mut FragmentSource,
    sample: &PlacedSample,
) -> Result<Vec<u8>, RenderError> {
    let mut start = [0; LENGTH_BYTES as usize + AUD_NAL_BYTES_MAX];
    let count = start.len().min(sample.size as usize);
    let start = &mut start[..count];
    source.read(sample.offset, start)?;
    let Some((length, unit)) = start.split_first_chunk() else { return Ok(Vec::new()) };
    let length = u32::from_be_bytes(*length) as usize;
    let Some(unit) = unit.get(..length) else { return Ok(Vec::new()) };
    let is_delimiter = match codec {
        Codec::H264 => h264_type(unit) == Some(NAL_AUD_H264),
        _ => h265_type(unit) == Some(NAL_AUD_H265),
    };
    Ok(if is_delimiter { unit.to_vec() } else { Vec::new() })
}

/// Turns the length fields in `buf`, which shows the sample from `from`, into start codes. Damaged
/// lengths end it; the bytes behind them stay as they are.
fn put_start_codes(
    source: &mut FragmentSource,
    sample: &PlacedSample,
    from: u64,
    buf: &mut [u8],
) -> Result<(), RenderError> {
    let size = u64::from(sample.size);
    let to = from + buf.len() as u64;
    let identity = (source.fragment, sample.offset);
    let known = source.nal;
    let mut at = if known.sample == identity && known.seen <= from { known.at } else { 0 };
    while at < to && at + LENGTH_BYTES <= size {
        overlay(&START_CODE, at, from, buf);
        if at + LENGTH_BYTES > to {
            break;
        }
        let mut length = [0; LENGTH_BYTES as usize];
        source.read(sample.offset + at, &mut length)?;
        let next = at + LENGTH_BYTES + u64::from(u32::from_be_bytes(length));
        at = if next > size { size } else { next };
    }
    source.nal = NalPlace { sample: identity, at, seen: to };
    Ok(())
}
