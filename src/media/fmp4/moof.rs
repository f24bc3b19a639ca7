//! Reading a fragment's `moof` back: tracks, exact times, key flags, sizes.
//!
//! What is read comes from flash and may be anything: every count is checked against the bytes
//! there are before memory is taken for it.

use crate::domain::limits::{FRAGMENT_SAMPLES_MAX, TRACKS_MAX};
use crate::domain::sample::TrackId;
use crate::media::fmp4::Fmp4Error;
use crate::media::fmp4::bmff::Reader;
use crate::media::fmp4::fragment::{
    EXACT_TIMES_UUID, TFHD_BASE_IS_MOOF, TFHD_DEFAULT_DURATION, TFHD_DEFAULT_FLAGS,
    TFHD_DEFAULT_SIZE, TRUN_CTS, TRUN_DATA_OFFSET, TRUN_DURATION, TRUN_FIRST_FLAGS, TRUN_FLAGS,
    TRUN_SIZE,
};

/// Samples of all runs of a fragment: what the recorder closes a fragment at, with room.
const SAMPLES_MAX: usize = 2 * FRAGMENT_SAMPLES_MAX;
/// `sample_is_non_sync_sample`.
const FLAG_NON_SYNC: u32 = 0x0001_0000;

/// A fragment as its `moof` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moof {
    /// `mfhd` sequence number.
    pub sequence: u32,
    /// One per track with samples, in the order of their payloads in `mdat`.
    pub runs: Vec<Run>,
    /// Bytes of the box itself.
    pub box_len: u64,
}

/// The samples of one track in a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which track.
    pub track: TrackId,
    /// In decoding order; their payloads follow each other.
    pub samples: Vec<SampleEntry>,
    /// Where the last sample ends, in ticks of the track; a guess, see
    /// [`fragment_head`](crate::media::fmp4::fragment_head).
    pub end_dts: i64,
}

/// A sample without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleEntry {
    /// Decoding time in ticks of the track, as the source gave it.
    pub dts: i64,
    /// Presentation time in ticks of the track.
    pub pts: i64,
    /// Decoding can start here.
    pub key: bool,
    /// Bytes of payload.
    pub size: u32,
}

impl Run {
    /// Bytes of payload of all samples.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.size)).sum()
    }
}

impl Moof {
    /// Bytes of the `mdat` payload that the runs describe.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        self.runs.iter().map(Run::payload_len).sum()
    }
}

/// Reads a `moof` box as [`fragment_head`](crate::media::fmp4::fragment_head) writes it. Bytes
/// after the box are not looked at.
///
/// # Errors
/// The bytes are not such a box, or describe more than a fragment may have.
pub fn parse_moof(bytes: &[u8]) -> Result<Moof, Fmp4Error> {
    let mut outer = Reader::new(bytes, "moof");
    let body = match outer.next_box()? {
        Some((kind, body)) if &kind == b"moof" => body,
        _ => return Err(Fmp4Error::Missing("moof")),
    };
    let box_len = (bytes.len() - outer.remaining()) as u64;
    let mut boxes = Reader::new(body, "moof");
    let mut sequence = None;
    let mut runs: Vec<Run> = Vec::new();
    let mut samples_left = SAMPLES_MAX;
    while let Some((kind, body)) = boxes.next_box()? {
        match &kind {
            b"mfhd" => {
                let mut reader = Reader::new(body, "mfhd");
                reader.version_and_flags()?;
                sequence = Some(reader.u32()?);
            }
            b"traf" => {
                if runs.len() == TRACKS_MAX {
                    return Err(Fmp4Error::TooMany("tracks"));
                }
                let run = parse_traf(body, samples_left)?;
                samples_left -= run.samples.len();
                runs.push(run);
            }
            _ => {}
        }
    }
    let sequence = sequence.ok_or(Fmp4Error::Missing("mfhd"))?;
    let moof = Moof { sequence, runs, box_len };
    // Offsets into the payload are 32 bits everywhere else.
    if u32::try_from(moof.payload_len()).is_err() {
        return Err(Fmp4Error::Invalid("trun"));
    }
    Ok(moof)
}

/// What `tfhd` says.
#[derive(Clone, Copy)]
struct Defaults {
    track: TrackId,
    duration: u32,
    size: u32,
    flags: u32,
}

fn parse_traf(body: &[u8], samples_left: usize) -> Result<Run, Fmp4Error> {
    let mut boxes = Reader::new(body, "traf");
    let (mut defaults, mut base, mut run) = (None, None, None);
    while let Some((kind, body)) = boxes.next_box()? {
        match &kind {
            b"tfhd" => defaults = Some(parse_tfhd(body)?),
            b"tfdt" => base = Some(parse_tfdt(body)?),
            b"trun" => {
                if run.is_some() {
                    return Err(Fmp4Error::TooMany("runs of a track"));
                }
                let defaults = defaults.ok_or(Fmp4Error::Missing("tfhd"))?;
                let base = base.ok_or(Fmp4Error::Missing("tfdt"))?;
                run = Some(parse_trun(body, defaults, base, samples_left)?);
            }
            b"uuid" => {
                if let Some(body) = body.strip_prefix(&EXACT_TIMES_UUID) {
                    let run = run.as_mut().ok_or(Fmp4Error::Missing("trun"))?;
                    put_exact_times(body, run)?;
                }
            }
            _ => {}
        }
    }
    run.ok_or(Fmp4Error::Missing("trun"))
}

fn parse_tfhd(body: &[u8]) -> Result<Defaults, Fmp4Error> {
    let mut reader = Reader::new(body, "tfhd");
    let (_, flags) = reader.version_and_flags()?;
    let known = TFHD_BASE_IS_MOOF | TFHD_DEFAULT_DURATION | TFHD_DEFAULT_SIZE | TFHD_DEFAULT_FLAGS;
    if flags & !known != 0 {
        return Err(Fmp4Error::Invalid("tfhd"));
    }
    let track = u8::try_from(reader.u32()?).map_err(|_| Fmp4Error::Invalid("tfhd"))?;
    let mut field = |flag| if flags & flag != 0 { reader.u32() } else { Ok(0) };
    Ok(Defaults {
        track: TrackId(track),
        duration: field(TFHD_DEFAULT_DURATION)?,
        size: field(TFHD_DEFAULT_SIZE)?,
        flags: field(TFHD_DEFAULT_FLAGS)?,
    })
}

fn parse_tfdt(body: &[u8]) -> Result<i64, Fmp4Error> {
    let mut reader = Reader::new(body, "tfdt");
    let time = match reader.version_and_flags()? {
        (1, _) => reader.u64()?,
        _ => u64::from(reader.u32()?),
    };
    i64::try_from(time).map_err(|_| Fmp4Error::Invalid("tfdt"))
}

fn parse_trun(
    body: &[u8],
    defaults: Defaults,
    base: i64,
    samples_left: usize,
) -> Result<Run, Fmp4Error> {
    let mut reader = Reader::new(body, "trun");
    let (version, flags) = reader.version_and_flags()?;
    let count = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    if flags & TRUN_DATA_OFFSET != 0 {
        reader.u32()?;
    }
    let first_flags = if flags & TRUN_FIRST_FLAGS != 0 { Some(reader.u32()?) } else { None };
    let fields = [TRUN_DURATION, TRUN_SIZE, TRUN_FLAGS, TRUN_CTS];
    let entry_bytes = 4 * fields.iter().filter(|field| flags & **field != 0).count();
    if count > samples_left {
        return Err(Fmp4Error::TooMany("samples"));
    }
    if count * entry_bytes > reader.remaining() {
        return Err(Fmp4Error::Truncated("trun"));
    }
    let mut samples = Vec::with_capacity(count);
    let mut dts = base;
    for at in 0..count {
        let mut field = |flag, default| if flags & flag != 0 { reader.u32() } else { Ok(default) };
        let duration = field(TRUN_DURATION, defaults.duration)?;
        let size = field(TRUN_SIZE, defaults.size)?;
        let mut sample_flags = field(TRUN_FLAGS, defaults.flags)?;
        let cts = field(TRUN_CTS, 0)?;
        if at == 0 {
            sample_flags = first_flags.unwrap_or(sample_flags);
        }
        let cts = if version == 0 { i64::from(cts) } else { i64::from(cts as i32) };
        let key = sample_flags & FLAG_NON_SYNC == 0;
        samples.push(SampleEntry { dts, pts: dts.saturating_add(cts), key, size });
        dts = dts.saturating_add(i64::from(duration));
    }
    Ok(Run { track: defaults.track, samples, end_dts: dts })
}

/// Puts the exact times of the private box over those of `trun`.
fn put_exact_times(body: &[u8], run: &mut Run) -> Result<(), Fmp4Error> {
    let mut reader = Reader::new(body, "uuid");
    let with_pts = reader.u32()? & 1 != 0;
    let last = run.samples.last().map_or(0, |sample| sample.dts);
    let last_duration = run.end_dts.saturating_sub(last);
    for sample in &mut run.samples {
        sample.dts = reader.u64()? as i64;
        if with_pts {
            sample.pts = reader.u64()? as i64;
        }
    }
    if let Some(last) = run.samples.last() {
        run.end_dts = last.dts.saturating_add(last_duration);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::sample::{Codec, Sample, Shape, Track};
    use crate::media::fmp4::fragment_head;

    fn track(id: u8, codec: Codec) -> Track {
        let shape = if codec.is_video() {
            Shape::Video { width: 640, height: 360 }
        } else {
            Shape::Audio { sample_rate: 8_000, channels: 1 }
        };
        Track { id: TrackId(id), codec, timescale: 1_000, config: Bytes::new(), shape }
    }

    fn sample(track: u8, dts: i64, pts: i64, key: bool, size: usize) -> Sample {
        Sample { track: TrackId(track), dts, pts, key, data: Bytes::from(vec![7; size]) }
    }

    fn entries(samples: &[Sample]) -> Vec<SampleEntry> {
        let entry = |s: &Sample| SampleEntry {
            dts: s.dts,
            pts: s.pts,
            key: s.key,
            size: u32::try_from(s.data.len()).unwrap(),
        };
        samples.iter().map(entry).collect()
    }

    #[test]
    fn equal_samples_cost_nothing_each() {
        let pcm: Vec<Sample> = (0..50).map(|n| sample(1, n * 20, n * 20, true, 160)).collect();
        let head = fragment_head(9, &[(&track(1, Codec::PcmAlaw), &pcm)]);
        assert!(head.len() < 130, "{} bytes", head.len());
        let moof = parse_moof(&head).unwrap();
        assert_eq!((moof.sequence, moof.payload_len()), (9, 50 * 160));
        assert_eq!(moof.runs[0].samples, entries(&pcm));
        assert_eq!(moof.runs[0].end_dts, 1_000);
    }

    #[test]
    fn steps_back_come_back_exactly_and_players_see_growing_time() {
        let video = [
            sample(1, 1_000, 1_080, true, 10),
            sample(1, 1_040, 1_040, false, 11),
            sample(1, 1_010, 1_200, false, 12),
            sample(1, 1_080, 1_080, false, 13),
        ];
        let head = fragment_head(0, &[(&track(1, Codec::H264), &video)]);
        let moof = parse_moof(&head).unwrap();
        assert_eq!(moof.runs[0].samples, entries(&video));
        assert_eq!(moof.runs[0].end_dts, 1_120);
        // Without the private box the presentation times are the same and dts never steps back.
        let mut public = head;
        let at = public.windows(4).position(|word| word == b"uuid").unwrap();
        public[at..at + 4].copy_from_slice(b"free");
        let seen = &parse_moof(&public).unwrap().runs[0].samples;
        assert!(seen.iter().zip(&video).all(|(seen, sent)| seen.pts == sent.pts));
        assert_eq!(seen.iter().map(|s| s.dts).collect::<Vec<_>>(), [1_000, 1_040, 1_040, 1_080]);
    }

    #[test]
    fn another_reader_sees_the_same() {
        use shiguredo_mp4::{Decode, boxes::MoofBox};
        let video: Vec<Sample> = (0..25)
            .map(|n| sample(1, (1 << 40) + n * 40, (1 << 40) + n * 40 + 80, n == 0, 100))
            .collect();
        let audio: Vec<Sample> =
            (0..46).map(|n| sample(2, n * 21 + n % 2, n * 21, true, n as usize)).collect();
        let (v, a) = (track(1, Codec::H264), track(2, Codec::PcmUlaw));
        let head = fragment_head(7, &[(&v, &video), (&a, &audio)]);
        let (moof, read) = MoofBox::decode(&head).unwrap();
        assert_eq!(read + 8, head.len());
        assert_eq!(moof.mfhd_box.sequence_number, 7);
        let tfdt = |n: usize| moof.traf_boxes[n].tfdt_box.as_ref().unwrap().base_media_decode_time;
        assert_eq!((tfdt(0), tfdt(1)), (1 << 40, 0));
        let run = &moof.traf_boxes[0].trun_boxes[0];
        assert_eq!(run.samples.len(), 25);
        assert_eq!(run.data_offset, Some(i32::try_from(head.len()).unwrap()));
        assert_eq!(moof.traf_boxes[0].tfhd_box.default_sample_duration, Some(40));
        let run = &moof.traf_boxes[1].trun_boxes[0];
        assert_eq!(run.data_offset, Some(i32::try_from(head.len()).unwrap() + 2_500));
        let sizes: Vec<_> = run.samples.iter().map(|sample| sample.size).collect();
        assert_eq!(sizes, (0..46).map(Some).collect::<Vec<_>>());
        let payload = u32::from_be_bytes(head[read..read + 4].try_into().unwrap());
        assert_eq!(payload, 8 + 2_500 + (0..46).sum::<u32>());
    }

    #[test]
    fn forged_counts_take_no_memory() {
        let pcm: Vec<Sample> = (0..4).map(|n| sample(1, n * 20, n * 20, true, 160)).collect();
        let mut head = fragment_head(0, &[(&track(1, Codec::PcmAlaw), &pcm)]);
        let at = head.windows(4).position(|word| word == b"trun").unwrap() + 8;
        head[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(parse_moof(&head), Err(Fmp4Error::TooMany("samples")));
        head[at..at + 4].copy_from_slice(&5_u32.to_be_bytes());
        assert_eq!(parse_moof(&head).unwrap().runs[0].samples.len(), 5);
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        let time = prop_oneof![0..5_000_i64, 0..i64::MAX];
        (time, -100..100_i64, any::<bool>(), 0..40_usize)
            .prop_map(|(dts, cts, key, size)| sample(1, dts, dts.saturating_add(cts), key, size))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            video in prop::collection::vec(any_sample(), 0..20),
            audio in prop::collection::vec(any_sample(), 1..20),
        ) {
            let (v, a) = (track(1, Codec::H264), track(2, Codec::PcmAlaw));
            let head = fragment_head(3, &[(&v, &video), (&a, &audio)]);
            let moof = parse_moof(&head).unwrap();
            let sent = [(1, &video), (2, &audio)];
            let sent: Vec<_> = sent.into_iter().filter(|(_, samples)| !samples.is_empty()).collect();
            prop_assert_eq!(moof.runs.len(), sent.len());
            for (run, (id, samples)) in moof.runs.iter().zip(sent) {
                prop_assert_eq!(run.track, TrackId(id));
                prop_assert_eq!(&run.samples, &entries(samples));
            }
        }

        #[test]
        fn damaged_bytes_are_an_error_or_a_bounded_result(
            samples in prop::collection::vec(any_sample(), 1..20),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut head = fragment_head(3, &[(&track(1, Codec::H265), &samples)]);
            for (at, byte) in damage {
                let at = at.index(head.len());
                head[at] = byte;
            }
            head.truncate(cut.index(head.len() + 1));
            if let Ok(moof) = parse_moof(&head) {
                let read: usize = moof.runs.iter().map(|run| run.samples.len()).sum();
                prop_assert!(read <= SAMPLES_MAX);
            }
        }
    }
}
