//! A simulated camera, and its own record of what it sent. The payload of a picture follows from its
//! number, so that whoever reads one can tell what it must be, byte by byte.

use bytes::Bytes;
use edgerec::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use edgerec::domain::stream_key::StreamKey;
use edgerec::recorder::stream::LiveStream;
use edgerec::sim::random::Random;

/// Each payload has this; its first byte is rare in everything else.
pub const MARK: &[u8] = b"\xf5picture";
/// Bytes of a payload.
pub const PAYLOAD_BYTES: usize = 160;
/// Where the mark stands: behind the length and the head of the NAL unit.
pub const MARK_AT: usize = 5;
/// A key frame each so many pictures.
const GROUP: u64 = 4;

/// A picture that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub number: u64,
    /// True time of arrival.
    pub at_ms: u64,
    /// What the wall clock of the box said.
    pub wall_ms: i64,
    /// It was to be recorded, and that had been so for a while.
    pub due: bool,
}

pub struct Camera {
    pub index: u8,
    pub key: StreamKey,
    pub sent: Vec<Sent>,
    pub live: Option<LiveStream>,
    /// When the session ends, or the next begins.
    pub turns_at_ms: u64,
    pub next_sample_ms: u64,
    /// When the last session began.
    pub began_ms: u64,
    /// Pictures of this session.
    pub in_session: u64,
    /// Since when it has been due without a break.
    pub due_since_ms: Option<u64>,
    next: u64,
}

impl Camera {
    pub fn new(index: u8, name: &str, turns_at_ms: u64) -> Camera {
        let key = StreamKey::new("cams", "live", name).expect("valid");
        Camera {
            index,
            key,
            sent: Vec::new(),
            live: None,
            turns_at_ms,
            next_sample_ms: 0,
            began_ms: 0,
            in_session: 0,
            due_since_ms: None,
            next: 0,
        }
    }

    pub fn track() -> Track {
        let config = Bytes::from_static(&[1, 66, 0, 30, 255, 225, 0, 0, 1, 0, 0]);
        let shape = Shape::Video { width: 64, height: 64 };
        Track { id: TrackId(1), codec: Codec::H264, timescale: 1_000, config, shape }
    }

    /// The next picture, with its number.
    pub fn picture(&mut self) -> (u64, Sample) {
        let number = self.next;
        self.next += 1;
        let dts = (self.in_session * 1_000).cast_signed();
        let key = self.in_session.is_multiple_of(GROUP);
        self.in_session += 1;
        let data = payload(self.index, number).into();
        (number, Sample { track: TrackId(1), dts, pts: dts, key, data })
    }
}

/// The bytes of a picture.
pub fn payload(camera: u8, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; PAYLOAD_BYTES];
    let len = u32::try_from(PAYLOAD_BYTES - 4).expect("small");
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    bytes[4] = 0x65;
    bytes[MARK_AT..MARK_AT + MARK.len()].copy_from_slice(MARK);
    let at = MARK_AT + MARK.len();
    bytes[at] = camera;
    bytes[at + 1..at + 9].copy_from_slice(&number.to_be_bytes());
    let mut fill = Random::new(number ^ (u64::from(camera) << 56));
    for piece in bytes[at + 9..].chunks_mut(8) {
        piece.copy_from_slice(&fill.number().to_le_bytes()[..piece.len()]);
    }
    bytes
}

/// Which picture a payload says it is.
pub fn named(payload: &[u8]) -> Option<(u8, u64)> {
    let at = MARK_AT + MARK.len();
    let number = payload.get(at + 1..at + 9)?;
    Some((payload[at], u64::from_be_bytes(number.try_into().ok()?)))
}

/// The numbers of all pictures in a file, in order.
///
/// # Errors
/// One is not what was sent, or they are not in order.
pub fn pictures_in(file: &[u8]) -> Result<Vec<(u8, u64)>, String> {
    let mut found: Vec<(u8, u64)> = Vec::new();
    let mut at = 0;
    while let Some(next) = file[at..].iter().position(|byte| *byte == MARK[0]) {
        let mark = at + next;
        at = mark + 1;
        if !file[mark..].starts_with(MARK) || mark < MARK_AT {
            continue;
        }
        let begin = mark - MARK_AT;
        let bytes = file.get(begin..begin + PAYLOAD_BYTES).ok_or("a picture is cut off")?;
        let (camera, number) = named(bytes).ok_or("a picture without a number")?;
        if bytes != payload(camera, number) {
            return Err(format!("picture {number} of camera {camera} is not what was sent"));
        }
        if found.last().is_some_and(|last| last.0 != camera || last.1 >= number) {
            return Err(format!("picture {number} of camera {camera} after {:?}", found.last()));
        }
        found.push((camera, number));
    }
    Ok(found)
}
