//! How recordings end, wait for their stream or are interrupted, in the catalog.

use rusqlite::params;

use crate::domain::files::FileFormat;
use crate::domain::ids::RecordingId;
use crate::domain::splice::Pause;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::durable::{Entry, Origin};
use crate::ring::catalog::notices::{END_RECORDING, Status};
use crate::ring::catalog::open::moved;
use crate::ring::catalog::rows::{sql, store_segment, store_span};
use crate::ring::catalog::take_up::catch_up;
use crate::ring::lane::SessionEnd;

impl CatalogState {
    /// Ends recordings whose stream did not come back: their open files are finished.
    ///
    /// # Errors
    /// The database fails.
    pub fn end_recordings(&mut self, recordings: &[RecordingId]) -> Result<(), RingError> {
        self.in_entry(Origin::Live, |entry| {
            recordings.iter().try_for_each(|recording| entry.end_recording(*recording))
        })
    }

    /// Ends all clips of recordings that go on waiting for their stream.
    ///
    /// # Errors
    /// The database fails.
    pub fn interrupt_recordings(&mut self, recordings: &[RecordingId]) -> Result<(), RingError> {
        self.in_entry(Origin::Live, |entry| {
            recordings.iter().try_for_each(|recording| entry.interrupt_recording(*recording))
        })
    }

    /// Finishes every file that still grows, but for those that wait for their stream.
    pub(super) fn finish_open_files(
        &mut self,
        waits: impl Fn(RecordingId, FileFormat) -> bool,
    ) -> Result<(), RingError> {
        let keys = self.open_files.keys().copied();
        let keys: Vec<_> = keys.filter(|(recording, format)| !waits(*recording, *format)).collect();
        self.in_entry(Origin::Replay, |entry| {
            keys.into_iter().try_for_each(|key| entry.finish_file(key))
        })
    }
}

impl Entry<'_> {
    pub(super) fn end_recording(&mut self, recording: RecordingId) -> rusqlite::Result<()> {
        for format in FileFormat::ALL {
            self.finish_file((recording, format))?;
        }
        self.transaction.prepare_cached(END_RECORDING)?.execute(params![sql(recording.0)])?;
        self.statuses_changed = true;
        Ok(())
    }

    fn interrupt_recording(&mut self, recording: RecordingId) -> rusqlite::Result<()> {
        FileFormat::ALL.into_iter().try_for_each(|format| self.finish_file((recording, format)))?;
        self.recording_waits(recording)
    }

    fn recording_waits(&mut self, recording: RecordingId) -> rusqlite::Result<()> {
        let changed = self
            .transaction
            .prepare_cached("UPDATE recording SET status = ?2 WHERE id = ?1 AND status = ?3")?
            .execute(params![sql(recording.0), Status::Waits as u8, Status::Runs as u8])?;
        self.statuses_changed |= changed > 0;
        Ok(())
    }

    /// Its HLS file waits with what it has, also over a restart of the box.
    fn pause_recording(&mut self, recording: RecordingId, pause: &Pause) -> rusqlite::Result<()> {
        if let Some(open) = self.files.get_mut(&(recording, FileFormat::Hls)) {
            store_span(self.transaction, open)?;
        }
        let pause = serde_json::to_string(pause).expect("plain fields");
        self.transaction
            .prepare_cached("UPDATE recording SET paused = ?2 WHERE id = ?1")?
            .execute(params![sql(recording.0), pause])?;
        self.recording_waits(recording)
    }

    /// Recordings end at a boundary of their session.
    pub(super) fn recordings_ended(&mut self, recordings: &[RecordingId]) -> rusqlite::Result<()> {
        recordings.iter().try_for_each(|recording| {
            self.catch_up_to_here(*recording)?;
            self.end_recording(*recording)
        })
    }

    /// Takes what has become durable of a session since a recording joined it, where no fragment
    /// has named the recording yet.
    fn catch_up_to_here(&mut self, recording: RecordingId) -> rusqlite::Result<()> {
        let mine = self.files.iter_mut().filter(|((of, _), open)| *of == recording && open.past);
        for (_, open) in mine {
            let of_session = self.segments.values().filter(|one| one.session == open.session);
            let Some(newest) = of_session.max_by_key(|one| one.first_sequence) else { continue };
            open.end = moved(newest.first, newest.last);
            open.media_end_ms = newest.media_end_ms;
            catch_up(self.transaction, self.segments, open, newest.place.directory, None)?;
        }
        Ok(())
    }

    pub(super) fn session_ended(&mut self, end: &SessionEnd) -> rusqlite::Result<()> {
        self.end_of_loss(end.session.id, end.ended.boot)?;
        let waiting = end.paused.iter().map(|(recording, _)| recording).chain(&end.interrupted);
        let mut all = waiting.chain(&end.recordings);
        all.try_for_each(|recording| self.catch_up_to_here(*recording))?;
        // What still grows of it is known from here on, so that the session is not forgotten.
        for open in self.segments.values().filter(|open| open.session == end.session.id) {
            store_segment(self.transaction, open)?;
        }
        end.recordings.iter().try_for_each(|recording| self.end_recording(*recording))?;
        for (recording, pause) in &end.paused {
            for format in FileFormat::ALL.into_iter().filter(|format| *format != FileFormat::Hls) {
                self.finish_file((*recording, format))?;
            }
            self.pause_recording(*recording, pause)?;
        }
        end.interrupted.iter().try_for_each(|recording| self.interrupt_recording(*recording))?;
        self.transaction
            .prepare_cached(
                "UPDATE session SET ended_ms = began_ms + max(0, ?2 - began_boot_ms), cause = ?3
                 WHERE id = ?1",
            )?
            .execute(params![sql(end.session.id.0), sql(end.ended.boot.0), end.cause])?;
        Ok(())
    }
}
