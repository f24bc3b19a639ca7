//! The on-flash format: what stands between the standard MP4 boxes of a slot.
//!
//! ```text
//! segment   ftyp moov uuid(header) free        each row begins on a page of 4 KiB
//! fragment  moof mdat uuid(seal)   free
//! ...
//! rest      free                               written when the slot is closed
//! ```
//!
//! A slot holds one or more segments, one after the other. All numbers are big-endian, as in
//! ISO/IEC 14496-12. The checksum is CRC32C (RFC 3720, appendix B.4).

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::domain::files::FormatSet;
use crate::domain::ids::{
    BootId, DirectoryId, FragmentSequence, RecordingId, SessionId, SlotGeneration, SlotIndex,
};
use crate::domain::limits::{PAGE_BYTES, RECORDINGS_PER_STREAM_MAX, TRACKS_MAX};
use crate::domain::sample::{Codec, Shape, Track, TrackId};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{BootTime, ClockQuality, Instant, UnixMillis, WallTime};

/// Version of everything in this file; a ring of another version is refused.
pub const FORMAT_VERSION: u8 = 1;

/// Extended type of the segment header box.
const HEADER_UUID: [u8; 16] = *b"edgerec.header.1";
/// Extended type of the seal box.
const SEAL_UUID: [u8; 16] = *b"edgerec.seal...1";
/// Size of a `uuid` box before its content.
const UUID_BOX_BYTES: usize = 24;

/// Where in a seal box its generation stands, and whether decoding can start, and where its sequence
/// follows on what is the same for all fragments of a segment.
const SEAL_LIFE_AT: std::ops::Range<usize> = UUID_BOX_BYTES + 21..UUID_BOX_BYTES + 29;
const SEAL_KEY_AT: usize = UUID_BOX_BYTES + 29;
const SEAL_START_BYTES: usize = UUID_BOX_BYTES + 50;

/// Where something stands in the ring: which slot in which life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotPlace {
    /// The ring directory.
    pub directory: DirectoryId,
    /// The slot.
    pub slot: SlotIndex,
    /// Its life.
    pub generation: SlotGeneration,
}

/// What the header of a segment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Where it was written.
    pub place: SlotPlace,
    /// Whose media it is.
    pub key: StreamKey,
    /// The session.
    pub session: SessionId,
    /// The boot in which the session began.
    pub boot_id: BootId,
    /// When the session began.
    pub began: Instant,
    /// Time or codec parameters do not run on from the segment before it in its session.
    pub discontinuity: bool,
    /// Tracks as announced.
    pub tracks: Vec<Track>,
    /// Raw time of the source at media time 0, for each track that has one.
    pub origins: Vec<(TrackId, i64)>,
    /// Script data of the source.
    pub script_data: Bytes,
}

/// A recording that a fragment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealRecording {
    /// Which recording.
    pub recording: RecordingId,
    /// Formats it is made into.
    pub formats: FormatSet,
    /// Formats of which a new file begins with this fragment.
    pub begins: FormatSet,
}

/// Recordings of one fragment.
pub type SealRecordings = heapless::Vec<SealRecording, RECORDINGS_PER_STREAM_MAX>;

/// What the seal of a fragment says. The checksum over `moof`, `mdat` and the seal is added when
/// it is written and checked when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Where it was written.
    pub place: SlotPlace,
    /// First bytes of the SHA-256 of the stream key's text.
    pub stream_hash: u64,
    /// The session.
    pub session: SessionId,
    /// Where the segment begins in the slot, in bytes.
    pub segment_offset: u32,
    /// Position in the session.
    pub sequence: FragmentSequence,
    /// Bytes of `moof` and `mdat` together.
    pub media_bytes: u32,
    /// Arrival of the first sample.
    pub first_arrival: Instant,
    /// Arrival of the last sample.
    pub last_arrival: BootTime,
    /// Media time of the first sample on the session's continuous clock, in milliseconds.
    pub media_start_ms: i64,
    /// End of the last sample on the same clock, in milliseconds.
    pub media_end_ms: i64,
    /// Decoding can start here.
    pub key: bool,
    /// What it belongs to.
    pub recordings: SealRecordings,
}

impl Seal {
    /// Formats that a recording makes of the fragment.
    #[must_use]
    pub fn formats_of(&self, recording: RecordingId) -> FormatSet {
        let found = self.recordings.iter().find(|found| found.recording == recording);
        found.map_or(FormatSet::EMPTY, |found| found.formats)
    }
}

/// The stream's part of a seal.
#[must_use]
pub fn stream_hash(key: &StreamKey) -> u64 {
    let digest = Sha256::digest(key.to_string().as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

/// The next page boundary at or after `offset`.
#[must_use]
pub fn page_align(offset: u64) -> u64 {
    offset.next_multiple_of(PAGE_BYTES)
}

/// A `free` box (with zeros) from `offset` to a page boundary; empty if `offset` is on one.
/// A gap that is too small for a box is filled up to the page after.
#[must_use]
pub fn padding(offset: u64) -> Vec<u8> {
    let gap = page_align(offset) - offset;
    if gap == 0 {
        return Vec::new();
    }
    let gap = if gap < 8 { gap + PAGE_BYTES } else { gap };
    let mut free = vec![0; usize::try_from(gap).expect("at most two pages")];
    free[..8].copy_from_slice(&free_head(gap));
    free
}

/// The head of a `free` box over `len` bytes, which must be at least 8 and below 4 GiB.
#[must_use]
pub fn free_head(len: u64) -> [u8; 8] {
    let mut head = [0; 8];
    head[..4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    head[4..].copy_from_slice(b"free");
    head
}

/// The bytes of a segment's start: `init` (`ftyp` and `moov`), header box, padding.
#[must_use]
pub fn encode_segment_start(init: &[u8], header: &SegmentHeader) -> Vec<u8> {
    let mut content = Vec::with_capacity(512);
    put_place(&mut content, header.place);
    content.push(u8::from(header.discontinuity));
    put_text(&mut content, header.key.domain());
    put_text(&mut content, header.key.app());
    put_text(&mut content, header.key.stream());
    content.extend_from_slice(&header.session.0.to_be_bytes());
    content.extend_from_slice(&header.boot_id.0);
    put_instant(&mut content, header.began);
    content.push(u8::try_from(header.tracks.len()).expect("at most TRACKS_MAX"));
    for track in &header.tracks {
        put_track(&mut content, track);
    }
    content.push(u8::try_from(header.origins.len()).expect("at most TRACKS_MAX"));
    for (track, raw) in &header.origins {
        content.push(track.0);
        content.extend_from_slice(&raw.to_be_bytes());
    }
    put_bytes(&mut content, &header.script_data);

    let mut out = Vec::with_capacity(page_align((init.len() + content.len() + 64) as u64) as usize);
    out.extend_from_slice(init);
    put_uuid_box(&mut out, HEADER_UUID, &content, 0);
    let pad = padding(out.len() as u64);
    out.extend_from_slice(&pad);
    out
}

/// Reads the start of a segment: `None` unless the bytes begin with a whole one whose checksum
/// agrees. Gives the header, the length of `init`, and the length of the whole start.
#[must_use]
pub fn decode_segment_start(bytes: &[u8]) -> Option<(SegmentHeader, usize, usize)> {
    let (ftyp, after) = split_box(bytes, b"ftyp")?;
    let (moov, after) = split_box(after, b"moov")?;
    let init_len = ftyp.len() + moov.len();
    let (uuid, after) = split_box(after, b"uuid")?;
    let mut content = check_uuid_box(&bytes[..init_len], uuid, HEADER_UUID)?;
    let from = &mut content;
    let place = take_place(from)?;
    let discontinuity = take::<1>(from)?[0] == 1;
    let key = StreamKey::new(&take_text(from)?, &take_text(from)?, &take_text(from)?).ok()?;
    let session = SessionId(u64::from_be_bytes(take(from)?));
    let boot_id = BootId(take(from)?);
    let began = take_instant(from)?;
    let track_count = usize::from(take::<1>(from)?[0]);
    if track_count > TRACKS_MAX {
        return None;
    }
    let tracks = (0..track_count).map(|_| take_track(from)).collect::<Option<Vec<_>>>()?;
    let origin_count = usize::from(take::<1>(from)?[0]);
    let origins = (0..origin_count)
        .map(|_| Some((TrackId(take::<1>(from)?[0]), i64::from_be_bytes(take(from)?))))
        .collect::<Option<Vec<_>>>()?;
    let script_data = Bytes::copy_from_slice(take_bytes(from)?);
    let used = bytes.len() - after.len();
    let whole = used + padding(used as u64).len();
    let header = SegmentHeader {
        place,
        key,
        session,
        boot_id,
        began,
        discontinuity,
        tracks,
        origins,
        script_data,
    };
    Some((header, init_len, whole))
}

/// The seal box of a fragment. `media_crc` is the CRC32C of `moof` and `mdat`.
#[must_use]
pub fn encode_seal(seal: &Seal, media_crc: u32) -> Vec<u8> {
    let mut content = Vec::with_capacity(192);
    put_place(&mut content, seal.place);
    content.push(u8::from(seal.key));
    content.extend_from_slice(&seal.stream_hash.to_be_bytes());
    content.extend_from_slice(&seal.session.0.to_be_bytes());
    content.extend_from_slice(&seal.segment_offset.to_be_bytes());
    content.extend_from_slice(&seal.sequence.0.to_be_bytes());
    content.extend_from_slice(&seal.media_bytes.to_be_bytes());
    put_instant(&mut content, seal.first_arrival);
    content.extend_from_slice(&seal.last_arrival.0.to_be_bytes());
    content.extend_from_slice(&seal.media_start_ms.to_be_bytes());
    content.extend_from_slice(&seal.media_end_ms.to_be_bytes());
    content.push(u8::try_from(seal.recordings.len()).expect("a fixed small number"));
    for recording in &seal.recordings {
        content.extend_from_slice(&recording.recording.0.to_be_bytes());
        content.push(recording.formats.bits());
        content.push(recording.begins.bits());
    }
    let mut out = Vec::with_capacity(UUID_BOX_BYTES + content.len() + 8);
    put_uuid_box(&mut out, SEAL_UUID, &content, media_crc);
    out
}

/// Whether a seal of this place, stream, session and segment begins in `bytes`, behind a size, be one
/// bit of it wrong. What an earlier life of the slot left counts only where `after`, the last good
/// sequence, shows that it is none.
#[must_use]
pub fn is_nearly_seal(bytes: &[u8], like: &Seal, after: Option<FragmentSequence>) -> bool {
    let whole = encode_seal(like, 0);
    let Some((expected, found)) = whole.get(4..SEAL_START_BYTES).zip(bytes.get(4..)) else {
        return false;
    };
    let mut wrong = 0;
    let mut life_is_ours = true;
    for (at, (expected, found)) in (4..).zip(expected.iter().zip(found)) {
        let bits = (expected ^ found).count_ones();
        // Whether decoding can start here is not known.
        if at != SEAL_KEY_AT {
            wrong += bits;
        }
        life_is_ours &= bits == 0 || !SEAL_LIFE_AT.contains(&at);
    }
    let sequence = bytes
        .get(SEAL_START_BYTES..SEAL_START_BYTES + 4)
        .map(|bytes| FragmentSequence(u32::from_be_bytes(bytes.try_into().expect("four bytes"))));
    wrong <= 1 && (life_is_ours || after.is_some_and(|after| sequence > Some(after)))
}

/// Reads a seal box without checking its checksum. The box must be whole.
#[must_use]
pub fn decode_seal(uuid_box: &[u8]) -> Option<Seal> {
    let content = uuid_box.get(UUID_BOX_BYTES..uuid_box.len().checked_sub(4)?)?;
    if uuid_box[8..UUID_BOX_BYTES] != SEAL_UUID {
        return None;
    }
    let mut content = content;
    let from = &mut content;
    if take::<1>(from)?[0] != FORMAT_VERSION {
        return None;
    }
    let place = take_place(from)?;
    let key = take::<1>(from)?[0] == 1;
    let stream_hash = u64::from_be_bytes(take(from)?);
    let session = SessionId(u64::from_be_bytes(take(from)?));
    let segment_offset = u32::from_be_bytes(take(from)?);
    let sequence = FragmentSequence(u32::from_be_bytes(take(from)?));
    let media_bytes = u32::from_be_bytes(take(from)?);
    let first_arrival = take_instant(from)?;
    let last_arrival = BootTime(u64::from_be_bytes(take(from)?));
    let media_start_ms = i64::from_be_bytes(take(from)?);
    let media_end_ms = i64::from_be_bytes(take(from)?);
    let mut recordings = SealRecordings::new();
    for _ in 0..take::<1>(from)?[0] {
        let recording = SealRecording {
            recording: RecordingId(u64::from_be_bytes(take(from)?)),
            formats: FormatSet::from_bits(take::<1>(from)?[0]),
            begins: FormatSet::from_bits(take::<1>(from)?[0]),
        };
        recordings.push(recording).ok()?;
    }
    Some(Seal {
        place,
        stream_hash,
        session,
        segment_offset,
        sequence,
        media_bytes,
        first_arrival,
        last_arrival,
        media_start_ms,
        media_end_ms,
        key,
        recordings,
    })
}

/// Whether the checksum in a whole seal box agrees with the media's CRC32C.
#[must_use]
pub fn seal_agrees(uuid_box: &[u8], media_crc: u32) -> bool {
    let Some(at) = uuid_box.len().checked_sub(4) else { return false };
    let (covered, stored) = uuid_box.split_at(at);
    crc32c::crc32c_append(media_crc, covered).to_be_bytes() == stored
}

/// The first box of `bytes` and the rest, if it is whole and of that type.
fn split_box<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<(&'a [u8], &'a [u8])> {
    let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    if bytes.get(4..8)? != kind || size < 8 || size > bytes.len() {
        return None;
    }
    Some(bytes.split_at(size))
}

/// Appends a `uuid` box: version, content, and the CRC32C of what `crc` covers, of all that stands
/// in `out` so far, and of the box itself.
fn put_uuid_box(out: &mut Vec<u8>, uuid: [u8; 16], content: &[u8], crc: u32) {
    let size = UUID_BOX_BYTES + 1 + content.len() + 4;
    out.extend_from_slice(&u32::try_from(size).expect("headers are small").to_be_bytes());
    out.extend_from_slice(b"uuid");
    out.extend_from_slice(&uuid);
    out.push(FORMAT_VERSION);
    out.extend_from_slice(content);
    let crc = crc32c::crc32c_append(crc, out);
    out.extend_from_slice(&crc.to_be_bytes());
}

/// The content of a `uuid` box whose checksum over `before` and itself agrees.
fn check_uuid_box<'a>(before: &[u8], uuid_box: &'a [u8], uuid: [u8; 16]) -> Option<&'a [u8]> {
    if uuid_box.len() < UUID_BOX_BYTES + 5 || uuid_box[8..UUID_BOX_BYTES] != uuid {
        return None;
    }
    let fits = seal_agrees(uuid_box, crc32c::crc32c(before));
    let version_fits = uuid_box[UUID_BOX_BYTES] == FORMAT_VERSION;
    (fits && version_fits).then(|| &uuid_box[UUID_BOX_BYTES + 1..uuid_box.len() - 4])
}

fn put_place(out: &mut Vec<u8>, place: SlotPlace) {
    out.extend_from_slice(&place.directory.0);
    out.extend_from_slice(&place.slot.0.to_be_bytes());
    out.extend_from_slice(&place.generation.0.to_be_bytes());
}

fn take_place(from: &mut &[u8]) -> Option<SlotPlace> {
    Some(SlotPlace {
        directory: DirectoryId(take(from)?),
        slot: SlotIndex(u32::from_be_bytes(take(from)?)),
        generation: SlotGeneration(u64::from_be_bytes(take(from)?)),
    })
}

fn put_instant(out: &mut Vec<u8>, instant: Instant) {
    out.extend_from_slice(&instant.boot.0.to_be_bytes());
    out.extend_from_slice(&instant.wall.unix.0.to_be_bytes());
    out.push(u8::from(instant.wall.quality == ClockQuality::Trusted));
}

fn take_instant(from: &mut &[u8]) -> Option<Instant> {
    let boot = BootTime(u64::from_be_bytes(take(from)?));
    let unix = UnixMillis(i64::from_be_bytes(take(from)?));
    let trusted = take::<1>(from)?[0] == 1;
    let quality = if trusted { ClockQuality::Trusted } else { ClockQuality::Untrusted };
    Some(Instant { boot, wall: WallTime { unix, quality } })
}

fn put_track(out: &mut Vec<u8>, track: &Track) {
    out.push(track.id.0);
    out.push(track.codec as u8);
    out.extend_from_slice(&track.timescale.to_be_bytes());
    match track.shape {
        Shape::Video { width, height } => {
            out.extend_from_slice(&u32::from(width).to_be_bytes());
            out.extend_from_slice(&height.to_be_bytes());
        }
        Shape::Audio { sample_rate, channels } => {
            out.extend_from_slice(&sample_rate.to_be_bytes());
            out.extend_from_slice(&u16::from(channels).to_be_bytes());
        }
    }
    put_bytes(out, &track.config);
}

fn take_track(from: &mut &[u8]) -> Option<Track> {
    let id = TrackId(take::<1>(from)?[0]);
    let codec = Codec::from_number(take::<1>(from)?[0])?;
    let timescale = u32::from_be_bytes(take(from)?);
    let first = u32::from_be_bytes(take(from)?);
    let second = u16::from_be_bytes(take(from)?);
    let shape = if codec.is_video() {
        Shape::Video { width: u16::try_from(first).ok()?, height: second }
    } else {
        Shape::Audio { sample_rate: first, channels: u8::try_from(second).ok()? }
    };
    let config = Bytes::copy_from_slice(take_bytes(from)?);
    (timescale > 0).then_some(Track { id, codec, timescale, config, shape })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    String::from_utf8(take_bytes(from)?.to_vec()).ok()
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).expect("bounded by limits").to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(u16::from_be_bytes(take(from)?));
    let (bytes, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(bytes)
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn header() -> SegmentHeader {
        let unix = UnixMillis(1_790_000_000_123);
        SegmentHeader {
            place: SlotPlace {
                directory: DirectoryId([7; 16]),
                slot: SlotIndex(3),
                generation: SlotGeneration(9),
            },
            key: StreamKey::new("cams", "live", "gate/日本").expect("valid"),
            session: SessionId(77),
            boot_id: BootId([5; 16]),
            began: Instant {
                boot: BootTime(1234),
                wall: WallTime { unix, quality: ClockQuality::Trusted },
            },
            discontinuity: true,
            tracks: vec![
                Track {
                    id: TrackId(1),
                    codec: Codec::H264,
                    timescale: 90_000,
                    config: Bytes::from_static(b"avcc"),
                    shape: Shape::Video { width: 1920, height: 1080 },
                },
                Track {
                    id: TrackId(2),
                    codec: Codec::PcmAlaw,
                    timescale: 8_000,
                    config: Bytes::new(),
                    shape: Shape::Audio { sample_rate: 8_000, channels: 1 },
                },
            ],
            origins: vec![(TrackId(1), -106_976)],
            script_data: Bytes::from_static(b"meta"),
        }
    }

    fn init() -> Vec<u8> {
        [&[0, 0, 0, 12][..], b"ftyp", b"isom", &[0, 0, 0, 9], b"moov", b"x"].concat()
    }

    fn seal() -> Seal {
        let header = header();
        let recording = SealRecording {
            recording: RecordingId(42),
            formats: FormatSet::from_bits(0b1111),
            begins: FormatSet::from_bits(0b0101),
        };
        Seal {
            place: header.place,
            stream_hash: stream_hash(&header.key),
            session: header.session,
            segment_offset: 4096,
            sequence: FragmentSequence(5),
            media_bytes: 1000,
            first_arrival: header.began,
            last_arrival: BootTime(2000),
            media_start_ms: -3,
            media_end_ms: 997,
            key: true,
            recordings: SealRecordings::from_slice(&[recording]).expect("fits"),
        }
    }

    #[test]
    fn segment_start_round_trips_and_any_flipped_bit_is_noticed() {
        let bytes = encode_segment_start(&init(), &header());
        assert_eq!(bytes.len() as u64 % PAGE_BYTES, 0);
        let (back, init_len, whole) = decode_segment_start(&bytes).expect("whole");
        assert_eq!((back, init_len, whole), (header(), init().len(), bytes.len()));

        let size = &bytes[init().len()..init().len() + 4];
        let covered = init().len() + u32::from_be_bytes(size.try_into().expect("4")) as usize;
        for bit in 0..covered * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_segment_start(&flipped).is_none(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn seal_round_trips_and_covers_media_and_itself() {
        let crc = crc32c::crc32c(b"media");
        let bytes = encode_seal(&seal(), crc);
        assert_eq!(decode_seal(&bytes), Some(seal()));
        assert!(seal_agrees(&bytes, crc));
        assert!(!seal_agrees(&bytes, crc32c::crc32c(b"medja")));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!seal_agrees(&flipped, crc), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn padding_always_ends_on_a_page_and_is_a_free_box() {
        for offset in (0..10_000).chain([4095, 4096, 8190]) {
            let pad = padding(offset);
            assert_eq!((offset + pad.len() as u64) % PAGE_BYTES, 0);
            if !pad.is_empty() {
                assert_eq!(u32::from_be_bytes(pad[..4].try_into().expect("4")) as usize, pad.len());
                assert_eq!(&pad[4..8], b"free");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn nonsense_is_refused_without_panic(bytes in proptest::collection::vec(0u8.., 0..400)) {
            let _ = decode_segment_start(&bytes);
            let _ = decode_seal(&bytes);
        }
    }
}
