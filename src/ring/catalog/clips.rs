//! From files and time ranges to clips in the ring.

use std::collections::BTreeMap;

use rusqlite::params;

use crate::domain::ids::{FileId, FragmentSequence, SessionId, SlotGeneration, SlotIndex};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::files::FileRecord;
use crate::ring::catalog::open::{FileState, Span};
use crate::ring::catalog::rows::{sql, unsql};
use crate::ring::clip::Lease;
use crate::ring::layout::{Seal, SlotPlace};

/// What is needed to open a clip: its spans, and the lease that keeps them.
pub struct ClipSpans {
    /// In order.
    pub spans: Vec<Span>,
    /// Taken before anybody else could evict.
    pub lease: Lease,
}

/// A piece of the ring that overlaps a time range.
#[derive(Debug, Clone, Copy)]
pub struct RangeSegment {
    /// All of the segment, as a span.
    pub span: Span,
    /// Of which session.
    pub session: SessionId,
    /// The number of its first fragment there.
    pub sequence: FragmentSequence,
    /// Arrival of its first sample, Unix milliseconds.
    pub first_ms: i64,
    /// Arrival of its last sample, Unix milliseconds.
    pub last_ms: i64,
}

/// When the fragments of a segment came: by boot time since the first of it, whose wall time the
/// catalog has. What their seals say may be of a clock that was not set, or that stepped since.
#[derive(Debug, Clone, Copy)]
pub struct Arrivals {
    first_ms: i64,
    first: Option<BootTime>,
}

impl Arrivals {
    /// Of this segment, whose fragments are asked for from the first one on.
    #[must_use]
    pub fn of(segment: &RangeSegment) -> Self {
        Arrivals { first_ms: segment.first_ms, first: None }
    }

    /// When the next fragment came, Unix milliseconds.
    pub fn next(&mut self, seal: &Seal) -> i64 {
        let first = *self.first.get_or_insert(seal.first_arrival.boot);
        let since = seal.first_arrival.boot.since(first).as_millis();
        self.first_ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

/// Sessions by the time they began at, and what is of one session as it was written: the clock may have
/// been set back in between.
fn in_order(segments: &mut [RangeSegment]) {
    let mut began: BTreeMap<SessionId, i64> = BTreeMap::new();
    for segment in segments.iter() {
        let first_ms = began.entry(segment.session).or_insert(segment.first_ms);
        *first_ms = segment.first_ms.min(*first_ms);
    }
    segments.sort_by_key(|one| (began[&one.session], one.session, one.sequence));
}

impl CatalogState {
    /// The spans of a file, the growing one included.
    ///
    /// # Errors
    /// The database fails, or nothing of the file is in the ring.
    pub fn file_spans(&self, file: FileId) -> Result<ClipSpans, RingError> {
        let what = "reading spans";
        let mut spans = self.stored_spans(file).map_err(RingError::catalog(what))?;
        let growing = self.open_files.values().find(|open| open.id == file);
        spans.extend(growing.and_then(|open| open.span));
        if spans.is_empty() {
            return Err(RingError::Gone(format!("file {file}")));
        }
        Ok(self.leased(spans))
    }

    /// Whether the ring still has all media of a file, as far as its spans tell. Media that was
    /// delivered may be overwritten slot by slot.
    ///
    /// # Errors
    /// The database fails.
    pub fn holds_file(&self, file: &FileRecord) -> Result<bool, RingError> {
        if file.state == FileState::Evicted {
            return Ok(false);
        }
        let (spans, gapless): (i64, bool) = self
            .db
            .prepare_cached(
                "SELECT count(*), count(*) = coalesce(max(place) + 1, 0) FROM span
                 WHERE file = ?1",
            )
            .and_then(|mut query| {
                query.query_row([sql(file.id.0)], |row| Ok((row.get(0)?, row.get(1)?)))
            })
            .map_err(RingError::catalog("counting spans"))?;
        let mut growing = self.open_files.values();
        let grows = growing.any(|open| open.id == file.id && open.span.is_some());
        Ok(gapless && (spans > 0 || grows))
    }

    /// The segments of a stream that overlap a range of wall time, the growing one included.
    ///
    /// # Errors
    /// The database fails, or the ring holds nothing of the range.
    pub fn range_spans(
        &self,
        key: &StreamKey,
        from_ms: i64,
        until_ms: i64,
    ) -> Result<(Vec<RangeSegment>, Lease), RingError> {
        let what = "reading segments";
        let stored = self.stored_segments(key, from_ms, until_ms);
        let mut segments = stored.map_err(RingError::catalog(what))?;
        for open in self.open_segments.values() {
            let ours = self.stream_of(open.session).map_err(RingError::catalog(what))?;
            let (first_ms, last_ms) = (open.first_ms(), open.last_ms());
            if ours.as_ref() == Some(key) && last_ms >= from_ms && first_ms <= until_ms {
                let span = Span {
                    place: open.place,
                    segment_offset: open.start,
                    start: open.media,
                    end: open.end,
                };
                // The end of its session has stored it as it stood then.
                segments.retain(|known| {
                    (known.span.place, known.span.segment_offset) != (open.place, open.start)
                });
                let (session, sequence) = (open.session, open.first_sequence);
                segments.push(RangeSegment { span, session, sequence, first_ms, last_ms });
            }
        }
        in_order(&mut segments);
        if segments.is_empty() {
            return Err(RingError::Gone(format!("nothing of {key} in that range")));
        }
        let slots = segments.iter().map(|segment| segment.span.slot());
        let lease = self.leases.take(slots);
        Ok((segments, lease))
    }

    fn leased(&self, spans: Vec<Span>) -> ClipSpans {
        let lease = self.leases.take(spans.iter().map(Span::slot));
        ClipSpans { spans, lease }
    }

    fn stored_spans(&self, file: FileId) -> rusqlite::Result<Vec<Span>> {
        self.db
            .prepare_cached(
                "SELECT slot, generation, segment, start, end FROM span WHERE file = ?1
                 ORDER BY place",
            )?
            .query_map(params![sql(file.0)], |row| self.span(row))?
            .collect()
    }

    fn stored_segments(
        &self,
        key: &StreamKey,
        from_ms: i64,
        until_ms: i64,
    ) -> rusqlite::Result<Vec<RangeSegment>> {
        self.db
            .prepare_cached(
                "SELECT segment.slot, segment.generation, segment.start, media, end, first_ms,
                 last_ms, segment.session, first_sequence FROM segment
                 JOIN session ON session.id = segment.session
                 JOIN stream ON stream.id = session.stream
                 WHERE stream.domain = ?1 AND stream.app = ?2 AND stream.stream = ?3
                 AND last_ms >= ?4 AND first_ms <= ?5",
            )?
            .query_map(params![key.domain(), key.app(), key.stream(), from_ms, until_ms], |row| {
                let span = self.span(row)?;
                Ok(RangeSegment {
                    span,
                    session: SessionId(unsql(row.get(7)?)),
                    sequence: FragmentSequence(row.get(8)?),
                    first_ms: row.get(5)?,
                    last_ms: row.get(6)?,
                })
            })?
            .collect()
    }

    /// Slot, generation, segment, start, end.
    fn span(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Span> {
        Ok(Span {
            place: SlotPlace {
                directory: self.identity.directory,
                slot: SlotIndex(row.get(0)?),
                generation: SlotGeneration(unsql(row.get(1)?)),
            },
            segment_offset: unsql(row.get(2)?),
            start: unsql(row.get(3)?),
            end: unsql(row.get(4)?),
        })
    }
}
