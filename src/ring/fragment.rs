//! What a stream hands to the writer: finished fragments, each with the segment it belongs to.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::ids::{BootId, FragmentSequence, SessionId};
use crate::domain::sample::{Track, TrackId};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{BootTime, Instant};
use crate::ring::layout::SealRecordings;

/// A session as the ring and the catalog know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStart {
    /// Its identity.
    pub id: SessionId,
    /// Whose media it is.
    pub key: StreamKey,
    /// The boot in which it began.
    pub boot_id: BootId,
    /// When it began.
    pub began: Instant,
    /// How the stream comes in (`rtmp`, `rtsp`).
    pub protocol: &'static str,
    /// Query string of the push URL; may hold secrets.
    pub query: String,
}

/// A stretch of a session with the same tracks and one timeline. A segment on flash begins with
/// it, and again in each slot that it runs on into.
#[derive(Debug)]
pub struct SegmentStart {
    /// The session.
    pub session: Arc<SessionStart>,
    /// Its place in the session, from 0.
    pub number: u32,
    /// Time or codec parameters do not run on from the segment before.
    pub discontinuity: bool,
    /// Tracks as announced.
    pub tracks: Arc<[Track]>,
    /// Raw time of the source at media time 0.
    pub origins: Vec<(TrackId, i64)>,
    /// Script data of the source; empty if none came.
    pub script_data: Bytes,
    /// `ftyp` and `moov`.
    pub init: Bytes,
}

/// A finished fragment on its way to flash.
#[derive(Debug)]
pub struct Fragment {
    /// What it is a part of.
    pub segment: Arc<SegmentStart>,
    /// Position in the session.
    pub sequence: FragmentSequence,
    /// `moof` and the head of `mdat`.
    pub head: Vec<u8>,
    /// The payload of `mdat`, sample by sample.
    pub payload: Vec<Bytes>,
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

impl Fragment {
    /// Bytes of `moof` and `mdat` together.
    #[must_use]
    pub fn media_bytes(&self) -> usize {
        self.head.len() + self.payload.iter().map(Bytes::len).sum::<usize>()
    }
}
