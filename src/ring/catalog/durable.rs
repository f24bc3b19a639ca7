//! What became durable is entered into the catalog: fragments extend segments, spans and files;
//! closed slots and ended sessions finish them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::domain::files::FileFormat;
use crate::domain::ids::{FileId, RecordingId, SessionId, SlotIndex};
use crate::domain::time::{Instant, Moment};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::dating::Dates;
use crate::ring::catalog::file_check::seal_file;
use crate::ring::catalog::losing::Unwritten;
use crate::ring::catalog::notices::Status;
use crate::ring::catalog::open::{
    FileState, OpenFile, OpenSegment, RecordingContent, RecordingStart, SlotState, Span, file_id,
    moved,
};
use crate::ring::catalog::rebuild::WHY;
use crate::ring::catalog::rows::{
    insert_recording, insert_session, sql, store_segment, store_span, stored_state,
};
use crate::ring::catalog::take_up::catch_up;
use crate::ring::fragment::{SegmentStart, SessionStart};
use crate::ring::lane::SessionEnd;
use crate::ring::layout::{Seal, SealRecording, SlotPlace};

/// A fragment that is on flash for good.
#[derive(Debug, Clone)]
pub struct DurableFragment {
    /// What it is a part of.
    pub segment: Arc<SegmentStart>,
    /// Its seal.
    pub seal: Seal,
    /// Where its `moof` begins, in bytes from the start of the slot.
    pub offset: u64,
    /// Where the next thing may begin.
    pub end: u64,
}

/// Something that is durable, in the order it happened.
#[derive(Debug)]
pub enum DurableEvent {
    /// A fragment.
    Fragment(Box<DurableFragment>),
    /// A slot is full.
    SlotClosed(SlotPlace),
    /// The flash failed in a slot; what was durable in it stays readable.
    SlotFailed(SlotPlace),
    /// A session is over.
    SessionEnded(SessionEnd),
    /// Recordings are over while their session goes on.
    RecordingsEnded(Box<[RecordingId]>),
    /// A fragment could not be written.
    FragmentLost {
        /// Of which session.
        session: Arc<SessionStart>,
        /// When its first sample came.
        first_arrival: Instant,
        /// How much media it held, in milliseconds.
        media_ms: i64,
        /// Why.
        why: Unwritten,
    },
}

impl CatalogState {
    /// Enters what became durable, in one transaction.
    ///
    /// # Errors
    /// The database fails; the slots still hold everything.
    pub fn apply(&mut self, events: Vec<DurableEvent>) -> Result<(), RingError> {
        self.flows.count(&events);
        self.do_judged(|state| state.enter(events, Origin::Live))
    }

    /// Like [`apply`](Self::apply), for fragments found again in open slots after a crash.
    pub(super) fn replay(&mut self, events: Vec<DurableEvent>) -> Result<(), RingError> {
        self.enter(events, Origin::Replay)
    }

    /// Has files made of media that was in the ring before anybody asked for it.
    pub(super) fn enter_past(
        &mut self,
        work: impl FnOnce(&mut Entry<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), RingError> {
        self.in_entry(Origin::Past, work)
    }

    fn enter(&mut self, events: Vec<DurableEvent>, origin: Origin) -> Result<(), RingError> {
        self.learn_from(&events)?;
        let begins_loss = events.iter().any(|event| self.begins_loss(event));
        let enter = |state: &mut Self| {
            state.in_entry(origin, |entry| {
                events.into_iter().try_for_each(|event| entry.enter(event))
            })
        };
        if begins_loss {
            // No media follows whose sync would make it durable.
            return self.promising("entering a loss", enter);
        }
        enter(self)
    }

    pub(super) fn in_entry(
        &mut self,
        origin: Origin,
        work: impl FnOnce(&mut Entry<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), RingError> {
        let what = "entering durable media";
        let transaction = self.db.transaction().map_err(RingError::catalog(what))?;
        let mut entry = Entry {
            transaction: &transaction,
            files: &mut self.open_files,
            segments: &mut self.open_segments,
            losing: &mut self.losing,
            dates: &self.dates,
            delivers: self.settings.delivers,
            origin,
            finished: 0,
            statuses_changed: false,
            failed: Vec::new(),
        };
        work(&mut entry).map_err(RingError::catalog(what))?;
        let Entry { finished, statuses_changed, failed, .. } = entry;
        transaction.commit().map_err(RingError::catalog(what))?;
        if finished > 0 {
            self.news.notify_one();
        }
        if statuses_changed {
            self.tell_statuses();
        }
        for session in failed {
            self.tell_failure(session);
        }
        // What else was entered since the last time is told with it: one flush for all.
        self.tell_ledgers();
        Ok(())
    }
}

/// One transaction's worth of entering.
pub(super) struct Entry<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) files: &'a mut BTreeMap<(RecordingId, FileFormat), OpenFile>,
    pub(super) segments: &'a mut BTreeMap<SlotIndex, OpenSegment>,
    /// Gaps of sessions that flash takes nothing of at present, with their reasons.
    pub(super) losing: &'a mut BTreeMap<SessionId, (i64, Unwritten)>,
    pub(super) dates: &'a Dates,
    delivers: bool,
    origin: Origin,
    finished: usize,
    pub(super) statuses_changed: bool,
    /// Sessions of which the flash takes no more.
    pub(super) failed: Vec<SessionId>,
}

/// Where the fragments come from that are entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// They have just become durable.
    Live,
    /// They were found again after a crash.
    Replay,
    /// They are found again after a loss of the catalog: nothing is known of their files, and nobody is
    /// told of them before all is found.
    Rebuild,
    /// They were there before anybody asked for them.
    Past,
}

impl Entry<'_> {
    fn enter(&mut self, event: DurableEvent) -> rusqlite::Result<()> {
        match event {
            DurableEvent::Fragment(fragment) => self.fragment(&fragment),
            DurableEvent::SlotClosed(place) => self.slot_done(place, SlotState::Closed),
            DurableEvent::SlotFailed(place) => self.slot_done(place, SlotState::Failed),
            DurableEvent::SessionEnded(end) => self.session_ended(&end),
            DurableEvent::RecordingsEnded(recordings) => self.recordings_ended(&recordings),
            DurableEvent::FragmentLost { session, first_arrival, media_ms, why } => {
                self.fragment_lost(&session, first_arrival, media_ms, why)
            }
        }
    }

    pub(super) fn fragment(&mut self, fragment: &DurableFragment) -> rusqlite::Result<()> {
        let place = fragment.seal.place;
        let known = self.segments.get(&place.slot).is_some_and(|open| open.place == place);
        if !known && self.origin != Origin::Rebuild {
            self.transaction
                .prepare_cached("UPDATE slot SET state = ?2, generation = ?3 WHERE slot = ?1")?
                .execute(params![place.slot.0, SlotState::Open as u8, sql(place.generation.0)])?;
        }
        self.end_of_loss(fragment.seal.session, fragment.seal.first_arrival.boot)?;
        self.segment(fragment)?;
        for recording in &fragment.seal.recordings {
            for format in recording.formats.iter() {
                self.file(fragment, recording, format)?;
            }
        }
        Ok(())
    }

    fn segment(&mut self, fragment: &DurableFragment) -> rusqlite::Result<()> {
        let seal = &fragment.seal;
        let start = u64::from(seal.segment_offset);
        if let Some(open) = self.segments.get_mut(&seal.place.slot) {
            if open.place == seal.place && open.start == start {
                open.end = fragment.end;
                (open.last, open.media_end_ms) = (seal.last_arrival, seal.media_end_ms);
                return Ok(());
            }
            store_segment(self.transaction, open)?;
        }
        // After a loss of the catalog nobody else enters the session of media that is no file's.
        insert_session(self.transaction, &self.dates.session(&fragment.segment.session))?;
        let open = OpenSegment {
            place: seal.place,
            session: seal.session,
            start,
            media: fragment.offset,
            end: fragment.end,
            first_sequence: seal.sequence,
            first: self.arrival(fragment),
            last: seal.last_arrival,
            media_end_ms: seal.media_end_ms,
        };
        self.segments.insert(seal.place.slot, open);
        Ok(())
    }

    /// When the first sample of a fragment came.
    fn arrival(&self, fragment: &DurableFragment) -> Moment {
        let boot_id = fragment.segment.session.boot_id;
        self.dates.moment(Moment { at: fragment.seal.first_arrival, boot_id })
    }

    pub(super) fn file(
        &mut self,
        fragment: &DurableFragment,
        recording: &SealRecording,
        format: FileFormat,
    ) -> rusqlite::Result<()> {
        let key = (recording.recording, format);
        let seal = &fragment.seal;
        if recording.begins.contains(format) {
            self.finish_file(key)?;
            let id = file_id(
                &fragment.segment.session.key,
                seal.session,
                recording.recording,
                seal.sequence,
                format,
            );
            match stored_state(self.transaction, id)? {
                Some(FileState::Recording) if self.origin != Origin::Rebuild => {
                    self.adopt(key, fragment)?
                }
                // Replaying: the file was finished and stands in the catalog already.
                Some(_) => return Ok(()),
                None => self.begin_file(key, id, fragment)?,
            }
        } else if !self.files.contains_key(&key) {
            match self.origin {
                Origin::Replay => self.adopt(key, fragment)?,
                // Its beginning was overwritten, or is damaged.
                Origin::Rebuild => return Ok(()),
                Origin::Live | Origin::Past => {
                    let session = &fragment.segment.session;
                    let id = file_id(&session.key, seal.session, key.0, seal.sequence, format);
                    self.begin_file(key, id, fragment)?;
                }
            }
        }
        let last = moved(self.arrival(fragment), seal.last_arrival);
        let Some(open) = self.files.get_mut(&key) else { return Ok(()) };
        if open.past && self.origin != Origin::Past {
            let directory = seal.place.directory;
            catch_up(self.transaction, self.segments, open, directory, Some(fragment))?;
            open.past = false;
        }
        let goes_on = open.session != seal.session;
        extend(self.transaction, open, fragment, last)?;
        if goes_on { self.recording_runs(recording.recording) } else { Ok(()) }
    }

    /// Its media is on flash, perhaps again.
    fn recording_runs(&mut self, recording: RecordingId) -> rusqlite::Result<()> {
        if self.origin == Origin::Rebuild {
            return Ok(());
        }
        let changed = self
            .transaction
            .prepare_cached(
                "UPDATE recording SET status = ?2, ran = 1, paused = NULL, ended = 0
                 WHERE id = ?1 AND (status <> ?2 OR paused IS NOT NULL OR ended = 1)",
            )?
            .execute(params![sql(recording.0), Status::Runs as u8])?;
        self.statuses_changed |= changed > 0;
        Ok(())
    }

    /// Enters a new file.
    fn begin_file(
        &mut self,
        key: (RecordingId, FileFormat),
        id: FileId,
        fragment: &DurableFragment,
    ) -> rusqlite::Result<()> {
        let (recording, format) = key;
        let session = &fragment.segment.session;
        let stream = insert_session(self.transaction, &self.dates.session(session))?;
        let start = self.arrival(fragment);
        let content: Option<String> = self
            .transaction
            .prepare_cached("SELECT content FROM recording WHERE id = ?1")?
            .query_row(params![sql(recording.0)], |row| row.get(0))
            .optional()?;
        let content = match content.and_then(|text| serde_json::from_str(&text).ok()) {
            Some(content) => content,
            None => {
                // The row went down with the power; the seal says what matters.
                let content = RecordingContent::unknown(fragment.seal.formats_of(recording));
                let begun = RecordingStart { id: recording, content: content.clone() };
                insert_recording(self.transaction, stream, session.id, &begun)?;
                content
            }
        };
        let plan = content.plan(format);
        let seal = &fragment.seal;
        let found_again = self.origin == Origin::Rebuild;
        let tracks: Vec<&str> =
            fragment.segment.tracks.iter().map(|track| track.codec.name()).collect();
        self.transaction
            .prepare_cached(
                "INSERT INTO file (id, recording, stream, session, format, state, first_sequence,
                 start_boot_ms, start_ms, trusted, end_ms, media_start_ms, duration_ms, storage_s,
                 name_pattern, tracks, priority, why, maybe_there) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6,
                 ?7, ?8, ?9, ?8, ?10, 0, ?11, ?12, ?13, ?14, ?15, ?16)",
            )?
            .execute(params![
                sql(id.0),
                sql(recording.0),
                stream,
                sql(seal.session.0),
                format as u8,
                seal.sequence.0,
                sql(start.at.boot.0),
                start.at.wall.unix.0,
                start.trusted_wall().is_some(),
                seal.media_start_ms,
                sql(plan.map_or(0, |plan| plan.storage_time_s)),
                plan.map_or("", |plan| plan.name_pattern.as_str()),
                serde_json::to_string(&tracks).expect("plain text"),
                content.upload_kind() as u8,
                if found_again { WHY } else { "" },
                // Its row was lost: the target may have it already.
                found_again,
            ])?;
        let open = OpenFile {
            id,
            session: seal.session,
            last_sequence: seal.sequence,
            start,
            end: moved(start, seal.last_arrival),
            before_ms: 0,
            media_start_ms: seal.media_start_ms,
            media_end_ms: seal.media_end_ms,
            spans_stored: 0,
            span: None,
            past: self.origin == Origin::Past,
            bytes: 0,
        };
        self.files.insert(key, open);
        self.recording_runs(recording)
    }

    /// A file is complete: its last span and its figures are stored.
    pub(super) fn finish_file(&mut self, key: (RecordingId, FileFormat)) -> rusqlite::Result<()> {
        let Some(mut open) = self.files.remove(&key) else { return Ok(()) };
        store_span(self.transaction, &mut open)?;
        let (state, why) = match self.origin {
            Origin::Rebuild => (FileState::Recording, WHY),
            _ => finished_state(self.delivers),
        };
        self.transaction
            .prepare_cached(
                "UPDATE file SET state = ?2, why = ?3,
                 queue_number = (SELECT max(queue_number) + 1 FROM file) WHERE id = ?1",
            )?
            .execute(params![sql(open.id.0), state as u8, why])?;
        seal_file(self.transaction, open.id)?;
        self.finished += usize::from(state != FileState::Recording);
        Ok(())
    }

    fn slot_done(&mut self, place: SlotPlace, state: SlotState) -> rusqlite::Result<()> {
        for open in self.files.values_mut() {
            if open.span.is_some_and(|span| span.place == place) {
                store_span(self.transaction, open)?;
            }
        }
        if self.segments.get(&place.slot).is_some_and(|open| open.place == place) {
            let open = self.segments.remove(&place.slot).expect("just seen");
            store_segment(self.transaction, &open)?;
        }
        self.transaction
            .prepare_cached(
                "UPDATE slot SET state = ?2, age = (SELECT max(age) + 1 FROM slot)
                 WHERE slot = ?1 AND generation = ?3",
            )?
            .execute(params![place.slot.0, state as u8, sql(place.generation.0)])?;
        Ok(())
    }
}

/// State and reason of a file that has just been finished.
pub(super) fn finished_state(delivers: bool) -> (FileState, &'static str) {
    if delivers {
        (FileState::Queued, "waits for its turn")
    } else {
        (FileState::Waiting, "no upload target is configured")
    }
}

/// Adds a fragment to a file, starting a new span where the segment changes.
fn extend(
    transaction: &Transaction<'_>,
    open: &mut OpenFile,
    fragment: &DurableFragment,
    last: Moment,
) -> rusqlite::Result<()> {
    let seal = &fragment.seal;
    let segment_offset = u64::from(seal.segment_offset);
    match &mut open.span {
        Some(span) if span.place == seal.place && span.segment_offset == segment_offset => {
            span.end = fragment.end;
        }
        _ => {
            store_span(transaction, open)?;
            open.span = Some(Span {
                place: seal.place,
                segment_offset,
                start: fragment.offset,
                end: fragment.end,
            });
        }
    }
    if open.session != seal.session {
        // Each session has a media clock of its own.
        open.before_ms = open.duration_ms();
        open.session = seal.session;
        (open.media_start_ms, open.media_end_ms) = (seal.media_start_ms, seal.media_end_ms);
    }
    open.last_sequence = seal.sequence;
    open.end = last;
    open.media_end_ms = seal.media_end_ms.max(open.media_end_ms);
    open.bytes += u64::from(seal.media_bytes);
    Ok(())
}
