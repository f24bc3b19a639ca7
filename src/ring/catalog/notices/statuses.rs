//! Events 332 and 341: what recordings are told as.
//!
//! A recording's row says what it does and what was told of it last. Whatever changes the first is
//! followed by telling the difference, which brings the second up to date in the transaction that
//! enters the notices: a crash in between only delays them.

use tracing::error;

use crate::domain::files::{FileFormat, FormatSet};
use crate::domain::ids::{RecordingId, SessionId};
use crate::domain::notice::{Notice, RecordEvent, RecordException, RecordStatus, What};
use crate::domain::record_watch::RecordFinding;
use crate::domain::stream_key::StreamKey;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::files::stream_key;
use crate::ring::catalog::notices::enter_notice;
use crate::ring::catalog::notices::recorded::shown_task;
use crate::ring::catalog::open::{RecordingContent, RecordingStart};
use crate::ring::catalog::rows::{sql, unsql};

/// A recording is over: one that never had media was never told of, and is not now.
pub(in crate::ring::catalog) const END_RECORDING: &str =
    "UPDATE recording SET ended = 1, told = CASE status WHEN 0 THEN 3 ELSE told END, status = 3
     WHERE id = ?1 AND ended = 0";
/// The same for all of them; more conditions may follow.
pub(in crate::ring::catalog) const END_RECORDINGS: &str =
    "UPDATE recording SET ended = 1, told = CASE status WHEN 0 THEN 3 ELSE told END, status = 3
     WHERE ended = 0";

/// Everything was told.
const TOLD: &str = "UPDATE recording SET told = status, ran = 0 WHERE status <> told OR ran = 1";

/// Numbers of the `recording.status` and `recording.told` columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::ring::catalog) enum Status {
    /// No media yet.
    New = 0,
    /// Its media comes.
    Runs = 1,
    /// Its stream is away.
    Waits = 2,
    /// It is over.
    Ended = 3,
}

impl Status {
    fn from_number(number: u8) -> Status {
        [Status::New, Status::Runs, Status::Waits, Status::Ended][usize::from(number).min(3)]
    }
}

/// A recording with what notices say of it.
struct Told {
    key: StreamKey,
    id: RecordingId,
    content: RecordingContent,
    pulled: bool,
}

impl Told {
    fn formats(&self) -> FormatSet {
        let is_planned = |format: &FileFormat| self.content.plan(*format).is_some();
        FileFormat::ALL.into_iter().filter(is_planned).collect()
    }

    /// Formats that wait for the stream: of a task all of them; else only HLS can be spliced, the
    /// files of others end with their stream.
    fn waiting_formats(&self) -> FormatSet {
        let by_task = self.content.task.is_some();
        let waits = |format: &FileFormat| by_task || *format == FileFormat::Hls;
        self.formats().iter().filter(waits).collect()
    }

    fn status(&self, event: RecordEvent, format: FileFormat) -> What {
        What::RecordStatus(RecordStatus {
            event,
            recording: self.id,
            format,
            by_task: self.content.task.is_some(),
            pulled: self.pulled,
            task_id: self.content.task.as_ref().map(shown_task).unwrap_or_default(),
        })
    }

    /// What happened since it was told of.
    fn changes(&self, since: Since) -> Vec<(RecordEvent, FileFormat)> {
        let Since { told, ran, now } = since;
        let steps =
            if ran { vec![(told, Status::Runs), (Status::Runs, now)] } else { vec![(told, now)] };
        steps.into_iter().flat_map(|(from, to)| self.step(from, to)).collect()
    }

    fn step(&self, from: Status, to: Status) -> Vec<(RecordEvent, FileFormat)> {
        use RecordEvent::{Ended, Paused, Resumed, StartSucceeded};
        let (all, waiting) = (self.formats(), self.waiting_formats());
        let rest: FormatSet = all.iter().filter(|format| !waiting.contains(*format)).collect();
        let events: &[(RecordEvent, FormatSet)] = match (from, to) {
            (Status::New | Status::Ended, Status::Runs) => &[(StartSucceeded, all)],
            (Status::Runs, Status::Waits) => &[(Paused, waiting), (Ended, rest)],
            (Status::Runs, Status::Ended) => &[(Ended, all)],
            (Status::Waits, Status::Runs) => &[(Resumed, waiting), (StartSucceeded, rest)],
            (Status::Waits, Status::Ended) => &[(Ended, waiting)],
            _ => &[],
        };
        events
            .iter()
            .flat_map(|(event, formats)| formats.iter().map(|format| (*event, format)))
            .collect()
    }
}

/// What was told of a recording last, and what it did since.
#[derive(Debug, Clone, Copy)]
struct Since {
    told: Status,
    /// Whether it recorded in between, however short.
    ran: bool,
    now: Status,
}

impl CatalogState {
    /// Tells what recordings do by now, as far as it was not told. Durable if anybody is told.
    pub fn tell_statuses(&mut self) {
        // Before the desk is set nobody knows whom to tell.
        if self.notice_desk_set
            && let Err(problem) = self.try_tell_statuses()
        {
            error!(%problem, "what recordings do is told later");
        }
    }

    fn try_tell_statuses(&mut self) -> Result<(), RingError> {
        let what = "telling what recordings do";
        let untold = self.untold().map_err(RingError::catalog(what))?;
        if untold.is_empty() {
            return Ok(());
        }
        let at = self.clock.now().wall.unix;
        let notices: Vec<_> = untold
            .iter()
            .flat_map(|(told, since)| {
                let changes = told.changes(*since).into_iter();
                changes.map(|(event, format)| (told.key.clone(), told.status(event, format)))
            })
            .filter_map(|(key, what)| self.address_notice(Notice { key, at, what }))
            .collect();
        let enter = |transaction: &rusqlite::Transaction<'_>| {
            notices.iter().try_for_each(|notice| enter_notice(transaction, notice).map(drop))?;
            transaction.execute(TOLD, [])?;
            Ok(())
        };
        if notices.is_empty() {
            return self.in_transaction(what, enter);
        }
        self.durably(what, enter)?;
        self.notify_readers();
        Ok(())
    }

    /// Recordings of which something was not told.
    fn untold(&self) -> rusqlite::Result<Vec<(Told, Since)>> {
        self.recordings_with("(recording.status <> recording.told OR recording.ran = 1)", [])
    }

    fn recordings_with(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> rusqlite::Result<Vec<(Told, Since)>> {
        let mut query = self.db.prepare_cached(&format!(
            "SELECT stream.domain, stream.app, stream.stream, recording.id, recording.content,
             recording.told, recording.status, recording.ran, (SELECT protocol FROM session
             WHERE session.stream = recording.stream ORDER BY began_ms DESC LIMIT 1)
             FROM recording JOIN stream ON stream.id = recording.stream
             WHERE {condition} ORDER BY recording.id"
        ))?;
        let mut rows = query.query(parameters)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let content: String = row.get(4)?;
            // What another version of the program wrote makes nothing that is known here.
            let unknown = || RecordingContent::unknown(FormatSet::EMPTY);
            let content = serde_json::from_str(&content).unwrap_or_else(|_| unknown());
            let protocol: Option<String> = row.get(8)?;
            let pulled = protocol.as_deref() == Some("rtsp");
            let told = Told {
                key: stream_key(row, 0)?,
                id: RecordingId(unsql(row.get(3)?)),
                content,
                pulled,
            };
            let since = Since {
                told: Status::from_number(row.get(5)?),
                ran: row.get(7)?,
                now: Status::from_number(row.get(6)?),
            };
            found.push((told, since));
        }
        Ok(found)
    }

    /// Tells that the flash takes no more of a session; that is for all recordings of its stream.
    pub(in crate::ring::catalog) fn tell_failure(&mut self, session: SessionId) {
        let told = self
            .recordings_with(
                "recording.status = 1 AND recording.stream =
                 (SELECT stream FROM session WHERE id = ?1)",
                [sql(session.0)],
            )
            .map_err(RingError::catalog("reading the recordings of a stream"))
            .and_then(|recordings| {
                recordings
                    .iter()
                    .try_for_each(|(told, _)| self.post_statuses(told, RecordEvent::Error))
            });
        if let Err(problem) = told {
            error!(%problem, "a failure of the flash is not told");
        }
    }

    /// Tells that recordings could not start.
    ///
    /// # Errors
    /// The database fails.
    pub fn tell_start_failed(
        &mut self,
        key: &StreamKey,
        pulled: bool,
        starts: Vec<RecordingStart>,
    ) -> Result<(), RingError> {
        starts.into_iter().try_for_each(|RecordingStart { id, content }| {
            let told = Told { key: key.clone(), id, content, pulled };
            self.post_statuses(&told, RecordEvent::StartFailed)
        })
    }

    fn post_statuses(&mut self, told: &Told, event: RecordEvent) -> Result<(), RingError> {
        let at = self.clock.now().wall.unix;
        told.formats().iter().try_for_each(|format| {
            let (key, what) = (told.key.clone(), told.status(event, format));
            self.post_notice(Notice { key, at, what }).map(drop)
        })
    }

    /// Tells what is wrong with a recording, for each of its formats.
    ///
    /// # Errors
    /// The database fails.
    pub fn tell_record_exception(
        &mut self,
        key: &StreamKey,
        (recording, formats): (RecordingId, FormatSet),
        finding: RecordFinding,
    ) -> Result<(), RingError> {
        let at = self.clock.now().wall.unix;
        formats.iter().try_for_each(|format| {
            let what = What::RecordException(RecordException { recording, format, finding });
            self.post_notice(Notice { key: key.clone(), at, what }).map(drop)
        })
    }
}
