//! Recordings of what the ring held before anybody asked for it: the same machine that cuts live
//! clips runs over the seals of the fragments, and the files are entered as if it had run then.

use std::sync::Arc;

use tracing::warn;

use crate::domain::ids::{FragmentSequence, SessionId};
use crate::domain::recording::{Boundary, Recording};
use crate::domain::stream_key::StreamKey;
use crate::platform::flash::Open;
use crate::ring::RingError;
use crate::ring::catalog::clips::{Arrivals, RangeSegment};
use crate::ring::catalog::durable::DurableFragment;
use crate::ring::catalog::open::RecordingStart;
use crate::ring::catalog::recover::segment_start;
use crate::ring::clip::ring_error;
use crate::ring::fragment::SegmentStart;
use crate::ring::handle::Ring;
use crate::ring::layout::{Seal, SealRecording};
use crate::ring::scan::{Depth, Scanner};

/// A key frame may lie so much before the time that is asked for, in milliseconds.
const KEY_BEFORE_MS: i64 = 30_000;
/// Sound that starts so much later than the fragment before ended left a gap, in milliseconds.
const AUDIO_GAP_MS: i64 = 100;
/// Fragments that are entered at once.
const ENTERED_AT_ONCE: usize = 256;

/// Where a recording of the past begins. Unix milliseconds.
#[derive(Debug, Clone)]
pub enum PastFrom {
    /// At the last key frame at or before a time, else at the first one after it.
    KeyBefore(i64),
    /// At the first key frame after a time: what came before it is recorded already.
    After(i64),
    /// With what follows a fragment that the recording took.
    Behind(LastTaken),
}

/// The last fragment that a recording of the past took.
#[derive(Debug, Clone)]
pub struct LastTaken {
    /// Its session.
    pub session: SessionId,
    /// Its number in the session.
    pub sequence: FragmentSequence,
    arrived_ms: i64,
    media_end_ms: i64,
    segment: Arc<SegmentStart>,
}

/// What a recording of the past came to.
#[derive(Debug, Clone)]
pub struct PastEnd {
    /// The machine after the last fragment that it took.
    pub recording: Recording,
    /// That fragment; `None` if the ring had nothing.
    pub last: Option<LastTaken>,
}

/// A fragment as it is found in a slot.
struct Found {
    segment: Arc<SegmentStart>,
    seal: Seal,
    offset: u64,
    end: u64,
    /// The first of its segment.
    leads: bool,
    /// When it came, Unix milliseconds.
    arrived_ms: i64,
}

impl Ring {
    /// Records what the ring holds of a stream from a time on, up to what is durable now or arrived
    /// before `until_ms`. `live` is the session that is live: all of it is still wanted, even if its
    /// last durable fragment is older than the time. Blocks on flash.
    ///
    /// # Errors
    /// A slot or the catalog cannot be read, or not now. What was entered until then stays.
    pub fn record_past(
        &self,
        key: &StreamKey,
        start: &RecordingStart,
        recording: Recording,
        from: PastFrom,
        until_ms: i64,
        live: Option<SessionId>,
    ) -> Result<PastEnd, RingError> {
        let asked = key.clone();
        let (begin_ms, last) = match &from {
            PastFrom::KeyBefore(from_ms) => (from_ms.saturating_sub(KEY_BEFORE_MS), None),
            PastFrom::After(from_ms) => (*from_ms, None),
            PastFrom::Behind(last) => (last.arrived_ms, Some(last.clone())),
        };
        let found =
            self.catalog.call_blocking(move |state| state.range_spans(&asked, begin_ms, until_ms));
        let (segments, _lease) = match found {
            Ok(found) => found,
            Err(RingError::Gone(_)) => return Ok(PastEnd { recording, last }),
            Err(error) => return Err(error),
        };
        let mut search = Search::new(from, live);
        self.each_fragment(&segments, until_ms, &mut |place, found| {
            search.look(place, found.arrived_ms, &found.seal)
        })?;
        let Some((first_segment, first_offset)) = search.begin() else {
            return Ok(PastEnd { recording, last });
        };
        let mut walk = Walk { ring: self, start, recording, last, batch: Vec::new() };
        self.each_fragment(&segments, until_ms, &mut |(segment, offset), found| {
            if (segment, offset) < (first_segment, first_offset) {
                return Ok(true);
            }
            walk.take(found)
        })?;
        walk.enter()?;
        Ok(PastEnd { recording: walk.recording, last: walk.last })
    }

    /// Gives each fragment of the segments to `take`, in order, with its place, until it has enough. What
    /// is behind damage in a segment is left out.
    fn each_fragment(
        &self,
        segments: &[RangeSegment],
        until_ms: i64,
        take: &mut dyn FnMut((usize, u64), Found) -> Result<bool, RingError>,
    ) -> Result<(), RingError> {
        for (index, of_range) in segments.iter().enumerate() {
            let (span, mut arrivals) = (of_range.span, Arrivals::of(of_range));
            let slot = span.slot();
            let file = self.slots.open(slot, Open::Read)?;
            let scanner = Scanner::new(&*file, self.identity.slot_bytes, Depth::Seals);
            let segment = scanner.segment_start(span.segment_offset, span.place);
            let missing = |offset, what| match ring_error(&scanner, slot, offset, what) {
                damage @ RingError::Damaged { .. } => {
                    warn!(%damage, "recording goes on behind it");
                    Ok(())
                }
                unreadable => Err(unreadable),
            };
            let Some(segment) = segment else {
                missing(span.segment_offset, "no such segment")?;
                continue;
            };
            let shared = Arc::new(segment_start(&segment.header));
            let mut offset = span.start;
            while offset < span.end {
                let fragment = match scanner.fragment(offset, span.place, &segment) {
                    Ok(fragment) => fragment,
                    // Where the next one begins is not known.
                    Err(what) => {
                        missing(offset, what)?;
                        break;
                    }
                };
                let arrived_ms = arrivals.next(&fragment.seal);
                if arrived_ms > until_ms {
                    break;
                }
                let end = fragment.end;
                let found = Found {
                    segment: shared.clone(),
                    seal: fragment.seal,
                    offset,
                    end,
                    leads: offset == segment.media_offset,
                    arrived_ms,
                };
                if !take((index, offset), found)? {
                    return Ok(());
                }
                offset = end;
            }
        }
        Ok(())
    }
}

/// Looks for the fragment at which a recording of the past begins.
struct Search {
    from: PastFrom,
    live: Option<SessionId>,
    candidate: Option<(usize, u64)>,
    session: Option<SessionId>,
    /// The candidate's session reaches the time that is asked for.
    reaches: bool,
    found: Option<(usize, u64)>,
}

impl Search {
    fn new(from: PastFrom, live: Option<SessionId>) -> Self {
        Search { from, live, candidate: None, session: None, reaches: false, found: None }
    }

    /// Whether to go on looking.
    fn look(
        &mut self,
        place: (usize, u64),
        arrived_ms: i64,
        seal: &Seal,
    ) -> Result<bool, RingError> {
        if self.session != Some(seal.session) {
            (self.session, self.candidate, self.reaches) = (Some(seal.session), None, false);
        }
        let from_ms = match &self.from {
            PastFrom::KeyBefore(from_ms) => *from_ms,
            PastFrom::After(after_ms) => {
                self.found = (arrived_ms > *after_ms && seal.key).then_some(place);
                return Ok(self.found.is_none());
            }
            PastFrom::Behind(last) => {
                let follows = if seal.session == last.session {
                    seal.sequence > last.sequence
                } else {
                    arrived_ms > last.arrived_ms
                };
                self.found = follows.then_some(place);
                return Ok(self.found.is_none());
            }
        };
        if arrived_ms <= from_ms {
            let lasts = seal.last_arrival.since(seal.first_arrival.boot).as_millis();
            let ends_ms = arrived_ms.saturating_add(i64::try_from(lasts).unwrap_or(i64::MAX));
            self.reaches = ends_ms >= from_ms || self.live == Some(seal.session);
            if seal.key {
                self.candidate = Some(place);
            }
            return Ok(true);
        }
        self.found = self.candidate.or(seal.key.then_some(place));
        Ok(self.found.is_none())
    }

    fn begin(self) -> Option<(usize, u64)> {
        self.found.or(self.candidate.filter(|_| self.reaches))
    }
}

/// Runs the machine over the fragments, and enters what it makes.
struct Walk<'a> {
    ring: &'a Ring,
    start: &'a RecordingStart,
    recording: Recording,
    last: Option<LastTaken>,
    batch: Vec<(DurableFragment, SealRecording)>,
}

impl Walk<'_> {
    fn take(&mut self, found: Found) -> Result<bool, RingError> {
        let Found { segment, seal, offset, end, leads, arrived_ms } = found;
        let before = self.last.as_ref().filter(|last| last.session == seal.session);
        let breaks = leads && segment.discontinuity && before.is_some();
        let same_tracks = before.is_some_and(|last| last.segment.tracks == segment.tracks);
        let gap = before.is_some_and(|last| seal.media_start_ms > last.media_end_ms + AUDIO_GAP_MS);
        let step = self.recording.step(&Boundary {
            key: seal.key,
            media_ms: seal.media_start_ms,
            new_params: breaks && !same_tracks,
            new_timeline: breaks && same_tracks,
            audio_gap: gap,
            first: before.is_none(),
            ..Boundary::default()
        });
        self.last = Some(LastTaken {
            session: seal.session,
            sequence: seal.sequence,
            arrived_ms,
            media_end_ms: seal.media_end_ms,
            segment: segment.clone(),
        });
        if step.recorded {
            let of_it = SealRecording {
                recording: self.start.id,
                formats: self.recording.open_formats(),
                begins: step.begins,
            };
            self.batch.push((DurableFragment { segment, seal, offset, end }, of_it));
            if self.batch.len() == ENTERED_AT_ONCE {
                self.enter()?;
            }
        }
        Ok(true)
    }

    fn enter(&mut self) -> Result<(), RingError> {
        let (batch, start) = (std::mem::take(&mut self.batch), self.start.clone());
        if batch.is_empty() {
            return Ok(());
        }
        self.ring.catalog.call_blocking(move |state| state.record_past(&start, &batch))
    }
}
