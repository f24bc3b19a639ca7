//! Files that are taken up again: those that were growing when the box went down, those that wait
//! for their stream over a restart, and those whose beginning was in the ring before anybody asked
//! for it.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::domain::files::FileFormat;
use crate::domain::ids::{
    BootId, DirectoryId, FileId, FragmentSequence, RecordingId, SessionId, SlotGeneration,
    SlotIndex,
};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{BootTime, ClockQuality, Instant, Moment, UnixMillis, WallTime};
use crate::platform::planted;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::durable::{DurableFragment, Entry};
use crate::ring::catalog::open::{FileState, OpenFile, OpenSegment, RecordingStart, Span, end_of};
use crate::ring::catalog::rows::{
    insert_recording, insert_session, sql, store_span, stream_id, unsql,
};
use crate::ring::layout::{SealRecording, SlotPlace};

/// A recording of which only a window is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Unwanted {
    /// Which.
    pub recording: RecordingId,
    /// The window begins, Unix milliseconds.
    pub start_ms: i64,
    /// It ends, Unix milliseconds.
    pub end_ms: i64,
}

impl Entry<'_> {
    /// Takes up again a file that was growing when the box went down.
    pub(super) fn adopt(
        &mut self,
        key: (RecordingId, FileFormat),
        fragment: &DurableFragment,
    ) -> rusqlite::Result<()> {
        let seal = &fragment.seal;
        // A file that a splice carried on was begun in an earlier session. Wall clocks tell that only
        // if both can be believed, so what a finished file has is never another's.
        let began_ms = self.dates.session(&fragment.segment.session).began.wall.unix.0;
        let adopted = self
            .transaction
            .prepare_cached(
                "SELECT id, first_sequence, start_boot_ms, start_ms, trusted, media_start_ms,
                 duration_ms,
                 (SELECT coalesce(max(place) + 1, 0) FROM span WHERE span.file = file.id),
                 session, end_ms, coalesce((SELECT past FROM span WHERE span.file = file.id
                 ORDER BY place DESC LIMIT 1), 0), (SELECT boot_id FROM session
                 WHERE session.id = file.session) FROM file WHERE recording = ?1 AND format = ?2 AND state = 0
                 AND ((session = ?3 AND first_sequence <= ?4) OR (session <> ?3 AND ?5 >
                 (SELECT began_ms FROM session WHERE session.id = file.session)
                 AND NOT EXISTS (SELECT 1 FROM file AS done WHERE done.recording = ?1
                 AND done.format = ?2 AND done.state <> 0
                 AND ((done.session = ?3 AND done.first_sequence <= ?4)
                 OR EXISTS (SELECT 1 FROM span WHERE span.file = done.id AND span.slot = ?6
                 AND span.generation = ?7 AND span.start <= ?8 AND span.end > ?8)))))
                 ORDER BY session = ?3 DESC, first_sequence DESC LIMIT 1",
            )?
            .query_row(
                params![
                    sql(key.0.0),
                    key.1 as u8,
                    sql(seal.session.0),
                    seal.sequence.0,
                    began_ms,
                    seal.place.slot.0,
                    sql(seal.place.generation.0),
                    sql(fragment.offset)
                ],
                |row| {
                    let media_start_ms: i64 = row.get(5)?;
                    let start = start_of(row, 11)?;
                    Ok(OpenFile {
                        id: FileId(unsql(row.get(0)?)),
                        session: SessionId(unsql(row.get(8)?)),
                        last_sequence: FragmentSequence(row.get(1)?),
                        start,
                        end: end_of(start, row.get(9)?),
                        before_ms: 0,
                        media_start_ms,
                        media_end_ms: media_start_ms + row.get::<_, i64>(6)?,
                        spans_stored: row.get(7)?,
                        span: None,
                        past: row.get(10)?,
                        bytes: 0,
                    })
                },
            )
            .optional()?;
        if let Some(open) = adopted {
            self.files.insert(key, open);
        }
        Ok(())
    }

    /// Takes up the HLS file of a recording that waited when the box went down; tells whether there
    /// is one.
    pub(super) fn take_up_paused(&mut self, recording: RecordingId) -> rusqlite::Result<bool> {
        let key = (recording, FileFormat::Hls);
        if self.files.contains_key(&key) {
            return Ok(true);
        }
        let found = self
            .transaction
            .prepare_cached(
                "SELECT id, first_sequence, start_boot_ms, start_ms, trusted, duration_ms,
                 (SELECT coalesce(max(place) + 1, 0) FROM span WHERE span.file = file.id), end_ms,
                 (SELECT boot_id FROM session WHERE session.id = file.session) FROM file WHERE recording = ?1 AND format = ?2 AND state = 0",
            )?
            .query_row(params![sql(recording.0), key.1 as u8], |row| {
                let start = start_of(row, 8)?;
                Ok(OpenFile {
                    id: FileId(unsql(row.get(0)?)),
                    // None of the sessions to come: each has a media clock of its own.
                    session: SessionId(0),
                    last_sequence: FragmentSequence(row.get(1)?),
                    start,
                    end: end_of(start, row.get(7)?),
                    before_ms: row.get(5)?,
                    media_start_ms: 0,
                    media_end_ms: 0,
                    spans_stored: row.get(6)?,
                    span: None,
                    past: false,
                    bytes: 0,
                })
            })
            .optional()?;
        let there = found.is_some();
        self.files.extend(found.map(|open| (key, open)));
        Ok(there)
    }
}

/// When a file began, as its row tells in the columns 2 to 4 and its session's row in `boot_id`.
fn start_of(row: &Row<'_>, boot_id: usize) -> rusqlite::Result<Moment> {
    let quality = if row.get(4)? { ClockQuality::Trusted } else { ClockQuality::Untrusted };
    let boot = BootTime(unsql(row.get(2)?));
    let wall = WallTime { unix: UnixMillis(row.get(3)?), quality };
    let boot_id = row.get::<_, Option<[u8; 16]>>(boot_id)?.unwrap_or_default();
    Ok(Moment { at: Instant { boot, wall }, boot_id: BootId(boot_id) })
}

/// Gives a file the fragments that lie between its last span, which was taken from the past, and
/// `fragment`, which is the first that names its recording; without one, up to the end of its
/// session. If the fragment is of another session, nothing lies between.
pub(super) fn catch_up(
    transaction: &Transaction<'_>,
    growing: &BTreeMap<SlotIndex, OpenSegment>,
    open: &mut OpenFile,
    directory: DirectoryId,
    fragment: Option<&DurableFragment>,
) -> rusqlite::Result<()> {
    if fragment.is_some_and(|fragment| fragment.seal.session != open.session) {
        return Ok(());
    }
    let from: Option<(u32, i64, i64, i64)> = transaction
        .prepare_cached(
            "SELECT slot, generation, segment, end FROM span WHERE file = ?1
             ORDER BY place DESC LIMIT 1",
        )?
        .query_row([sql(open.id.0)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((slot, generation, segment, end)) = from else { return Ok(()) };
    let mut segments = stored_segments(transaction, open.session, directory)?;
    segments.extend(growing.values().filter(|one| one.session == open.session).map(|one| {
        let span =
            Span { place: one.place, segment_offset: one.start, start: one.media, end: one.end };
        (one.first_sequence, span)
    }));
    segments.sort_by_key(|(first, _)| *first);
    let at = |span: &Span| {
        (span.place.slot.0, span.place.generation.0, span.segment_offset)
            == (slot, unsql(generation), unsql(segment))
    };
    let Some(begin) = segments.iter().position(|(_, span)| at(span)) else { return Ok(()) };
    for (index, (_, mut span)) in segments.into_iter().enumerate().skip(begin) {
        if index == begin {
            span.start = unsql(end);
        }
        // The fragment itself is in its segment already.
        if let Some(DurableFragment { seal, offset, .. }) = fragment
            && span.place == seal.place
            && span.segment_offset == u64::from(seal.segment_offset)
        {
            span.end = *offset;
        }
        if span.start < span.end {
            open.bytes += span.end - span.start;
            open.span = Some(span);
            store_span(transaction, open)?;
        }
    }
    Ok(())
}

/// The segments of a session that have ended, as whole spans with their first fragments.
fn stored_segments(
    transaction: &Transaction<'_>,
    session: SessionId,
    directory: DirectoryId,
) -> rusqlite::Result<Vec<(FragmentSequence, Span)>> {
    transaction
        .prepare_cached(
            "SELECT slot, generation, start, media, end, first_sequence FROM segment
             WHERE session = ?1",
        )?
        .query_map([sql(session.0)], |row| {
            let place = SlotPlace {
                directory,
                slot: SlotIndex(row.get(0)?),
                generation: SlotGeneration(unsql(row.get(1)?)),
            };
            let span = Span {
                place,
                segment_offset: unsql(row.get(2)?),
                start: unsql(row.get(3)?),
                end: unsql(row.get(4)?),
            };
            Ok((FragmentSequence(row.get(5)?), span))
        })?
        .collect()
}

impl CatalogState {
    /// Enters fragments that were there before anybody asked for them into a recording's files.
    ///
    /// # Errors
    /// The database fails.
    pub fn record_past(
        &mut self,
        start: &RecordingStart,
        fragments: &[(DurableFragment, SealRecording)],
    ) -> Result<(), RingError> {
        self.enter_past(|entry| {
            for (fragment, of_it) in fragments {
                let session = &fragment.segment.session;
                let stream = insert_session(entry.transaction, &entry.dates.session(session))?;
                insert_recording(entry.transaction, stream, session.id, start)?;
                for format in of_it.formats.iter() {
                    entry.file(fragment, of_it, format)?;
                }
            }
            // The seals do not tell of them: they must not be only in memory.
            let mine = entry.files.iter_mut().filter(|((recording, _), _)| *recording == start.id);
            for (_, open) in mine {
                store_span(entry.transaction, open)?;
            }
            Ok(())
        })
    }

    /// Enters a recording that no session began.
    ///
    /// # Errors
    /// The database fails.
    pub fn enter_recording(
        &mut self,
        key: &StreamKey,
        start: &RecordingStart,
    ) -> Result<(), RingError> {
        self.in_transaction("entering a recording", |transaction| {
            let stream = stream_id(transaction, key)?;
            insert_recording(transaction, stream, SessionId(0), start)
        })
    }

    /// Takes files of recordings off the list: what was recorded turned out not to be wanted. Files that
    /// have something of the window stay, and those of a boot of which nobody knows when it was.
    ///
    /// # Errors
    /// The database fails.
    pub fn discard_recordings(&mut self, unwanted: &[Unwanted]) -> Result<(), RingError> {
        let recordings: Vec<RecordingId> = unwanted.iter().map(|one| one.recording).collect();
        self.end_recordings(&recordings)?;
        let why = "recorded while the clock was not set; the task's window was elsewhere";
        self.durably("discarding recordings", |transaction| {
            for one in unwanted {
                transaction.execute(
                    "UPDATE file SET state = ?2, why = ?3 WHERE recording = ?1 AND state <> 4
                     AND trusted = 1 AND (end_ms <= ?4 OR start_ms >= ?5)",
                    params![
                        sql(one.recording.0),
                        FileState::Evicted as u8,
                        why,
                        one.start_ms,
                        one.end_ms
                    ],
                )?;
                transaction.execute(
                    "DELETE FROM span WHERE file IN (SELECT id FROM file WHERE recording = ?1
                     AND why = ?2)",
                    params![sql(one.recording.0), why],
                )?;
            }
            Ok(())
        })
    }

    /// Until when a recording has media, Unix milliseconds, by the clock of the segment it ends in; `None`
    /// if it has none.
    ///
    /// # Errors
    /// The database fails.
    pub fn recorded_until(&self, recording: RecordingId) -> Result<Option<i64>, RingError> {
        if planted::is_planted("EDGEREC_PLANT_FORGET_RECORDED") {
            return Ok(None);
        }
        let stored: rusqlite::Result<Option<i64>> = self
            .db
            .prepare_cached(
                "SELECT max(coalesce((SELECT (SELECT last_ms FROM segment
                 WHERE segment.slot = span.slot AND segment.start = span.segment
                 AND segment.generation = span.generation AND segment.end = span.end)
                 FROM span WHERE span.file = file.id ORDER BY place DESC LIMIT 1),
                 end_ms)) FROM file WHERE recording = ?1",
            )
            .and_then(|mut query| query.query_row([sql(recording.0)], |row| row.get(0)));
        let stored = stored.map_err(RingError::catalog("reading a recording's end"))?;
        let mine = self.open_files.iter().filter(|((of, _), _)| *of == recording);
        Ok(stored.max(mine.map(|(_, open)| open.end.at.wall.unix.0).max()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::catalog::notices::tests::open;

    /// Found by the simulation: the end of an earlier slot was taken for it, and what was recorded behind
    /// that was recorded from the past once more.
    #[test]
    fn a_recording_is_recorded_until_the_end_of_its_last_span_also_where_its_segment_goes_on() {
        let dir = tempfile::tempdir().expect("scratch");
        let state = open(dir.path());
        let rows = "INSERT INTO segment VALUES (1, 0, 1, 7, 4096, 9000, 0, 1000, 5000, NULL),
                (2, 0, 1, 7, 4096, 9000, 9, 6000, 8000, NULL);
            INSERT INTO file (id, recording, stream, session, format, state, first_sequence,
                start_boot_ms, start_ms, trusted, end_ms, media_start_ms, duration_ms, storage_s,
                name_pattern) VALUES (1, 5, 1, 7, 2, 1, 0, 0, 1000, 1, 6500, 0, 5500, 0, '');
            INSERT INTO span VALUES (1, 0, 1, 1, 0, 4096, 9000, 0), (1, 1, 2, 1, 0, 4096, 5000, 0);";
        state.db.execute_batch(rows).expect("entered");
        let until = || state.recorded_until(RecordingId(5)).expect("read");
        assert_eq!(until(), Some(6_500), "the file says it");
        state.db.execute("UPDATE span SET end = 9000 WHERE place = 1", []).expect("set");
        assert_eq!(until(), Some(8_000), "the segment ends with it");
        assert_eq!(state.recorded_until(RecordingId(6)).expect("read"), None);
    }
}
