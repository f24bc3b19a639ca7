//! Files as they are listed, and the steps of their delivery.

use rusqlite::{OptionalExtension, Row, params};
use tracing::error;

use crate::domain::file_name::{FileNamePattern, untrusted_name};
use crate::domain::files::FileFormat;
use crate::domain::ids::{BootId, FileId, RecordingId, SessionId};
use crate::domain::sample::Codec;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{BootTime, UnixMillis};
use crate::domain::upload_order::UploadKind;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::notices::enter_notice;
use crate::ring::catalog::open::FileState;
use crate::ring::catalog::rows::{sql, unsql};

/// A file as the catalog knows it.
#[derive(Debug, Clone)]
pub struct FileRecord {
    /// Its identity.
    pub id: FileId,
    /// Whose media it holds.
    pub key: StreamKey,
    /// Its format.
    pub format: FileFormat,
    /// The recording it is of.
    pub recording: RecordingId,
    /// The task that asked for it, as callers know it.
    pub task_id: Option<String>,
    /// It holds only sound.
    pub audio_only: bool,
    /// Where it stands.
    pub state: FileState,
    /// Why it stands there, in words.
    pub why: String,
    /// Arrival of its first sample, Unix milliseconds.
    pub start_ms: i64,
    /// Arrival of its last sample, Unix milliseconds.
    pub end_ms: i64,
    /// Whether those two can be believed.
    pub trusted: bool,
    /// Arrival of its first sample since boot, in milliseconds.
    pub start_boot_ms: u64,
    /// The boot that counts from.
    pub boot_id: [u8; 16],
    /// Media time it covers, in milliseconds.
    pub duration_ms: i64,
    /// VodFileName; empty for the default.
    pub name_pattern: String,
    /// Its name; frozen at the first attempt to deliver.
    pub name: Option<String>,
    /// Bytes: as rendered once that is known, else of its media on flash.
    pub size: u64,
    /// SHA-256 as delivered, in hex.
    pub sha256: Option<String>,
    /// Where it can be had.
    pub url: Option<String>,
    /// Codecs of its tracks.
    pub tracks: Vec<String>,
    /// Tracks its format cannot hold.
    pub dropped_tracks: Vec<String>,
    /// The template that it is of.
    pub template: String,
    /// What asked for it.
    pub kind: UploadKind,
    /// Somebody wants it delivered now.
    pub urgent: bool,
    /// Its place in the queue; grows with every file that is finished.
    pub queue_number: u64,
    /// Deliveries tried.
    pub attempts: u32,
}

/// A delivery that the far side has confirmed.
#[derive(Debug, Clone, Copy)]
pub struct Confirmed<'a> {
    /// Where the file is.
    pub url: &'a str,
    /// Bytes of it.
    pub size: u64,
    /// SHA-256 of them, in hex.
    pub sha256: &'a str,
    /// The target's own id of the file, if it gives one.
    pub target_file_id: Option<&'a str>,
}

impl FileRecord {
    /// The name of the file: the frozen one, else by its times and its VodFileName.
    #[must_use]
    pub fn file_name(&self) -> String {
        if let Some(frozen) = &self.name {
            return frozen.clone();
        }
        let stream = self.key.stream();
        if self.trusted {
            let pattern = FileNamePattern::parse(&self.name_pattern).unwrap_or_default();
            return pattern.expand(stream, UnixMillis(self.start_ms), UnixMillis(self.end_ms));
        }
        let lasted = u64::try_from(self.end_ms - self.start_ms).unwrap_or(0);
        let start = BootTime(self.start_boot_ms);
        let end = BootTime(self.start_boot_ms + lasted);
        untrusted_name(stream, BootId(self.boot_id), start, end)
    }
}

/// What [`CatalogState::select`] reads, and from where.
pub(super) const COLUMNS: &str = "file.id, stream.domain, stream.app, stream.stream, file.format,
    file.recording, file.state, file.why, file.start_ms, file.end_ms, file.trusted,
    file.start_boot_ms, session.boot_id, file.duration_ms, file.name_pattern, file.name,
    coalesce(file.size, (SELECT sum(span.end - span.start) FROM span WHERE span.file = file.id)),
    file.sha256, file.url, file.tracks, file.dropped_tracks, file.priority,
    file.attempts, file.queue_number,
    (SELECT CASE json_extract(content, '$.task.family')
     WHEN 'Live' THEN CAST(json_extract(content, '$.task.id') AS TEXT)
     ELSE json_extract(content, '$.task.name') END
     FROM recording WHERE id = file.recording AND json_valid(content)),
    (SELECT json_extract(content, '$.audio_only')
     FROM recording WHERE id = file.recording AND json_valid(content)),
    (SELECT json_extract(content, '$.template')
     FROM recording WHERE id = file.recording AND json_valid(content)),
    file.urgent FROM file JOIN stream ON stream.id = file.stream
    LEFT JOIN session ON session.id = file.session";

impl CatalogState {
    /// All files, the oldest first; those that grow with their figures of now.
    ///
    /// # Errors
    /// The database fails.
    pub fn files(&self) -> Result<Vec<FileRecord>, RingError> {
        self.select(&format!("SELECT {COLUMNS} ORDER BY file.start_ms, file.id"), [])
    }

    /// The files after the one that began at `start_ms` with this identity, the oldest first, at
    /// most `most`: a long list page by page.
    ///
    /// # Errors
    /// The database fails.
    pub fn files_after(
        &self,
        (start_ms, id): (i64, FileId),
        most: u32,
    ) -> Result<Vec<FileRecord>, RingError> {
        let text = format!(
            "SELECT {COLUMNS} WHERE (file.start_ms, file.id) > (?1, ?2)
             ORDER BY file.start_ms, file.id LIMIT ?3"
        );
        self.select(&text, params![start_ms, sql(id.0), most])
    }

    /// One file.
    ///
    /// # Errors
    /// The database fails, or there is no such file.
    pub fn file(&self, id: FileId) -> Result<FileRecord, RingError> {
        let found = self.select(&format!("SELECT {COLUMNS} WHERE file.id = ?1"), [sql(id.0)])?;
        found.into_iter().next().ok_or_else(|| RingError::Gone(format!("file {id}")))
    }

    /// Freezes the name of a file, durably.
    ///
    /// # Errors
    /// The database fails.
    pub fn freeze_name(&mut self, id: FileId, name: &str) -> Result<(), RingError> {
        self.durably("freezing a file's name", |transaction| {
            transaction.execute("UPDATE file SET name = ?2 WHERE id = ?1", params![sql(id.0), name])
        })?;
        Ok(())
    }

    /// Keeps which tracks the format of a file cannot hold.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_dropped_tracks(&mut self, id: FileId, dropped: &[String]) -> Result<(), RingError> {
        let dropped = serde_json::to_string(dropped).expect("plain text");
        self.db
            .execute(
                "UPDATE file SET dropped_tracks = ?2 WHERE id = ?1",
                params![sql(id.0), dropped],
            )
            .map_err(RingError::catalog("keeping dropped tracks"))?;
        Ok(())
    }

    /// Where the delivery of a file stands, in the target's own words.
    ///
    /// # Errors
    /// The database fails.
    pub fn progress(&self, id: FileId) -> Result<Option<String>, RingError> {
        self.db
            .prepare_cached("SELECT content FROM progress WHERE file = ?1")
            .and_then(|mut query| query.query_row([sql(id.0)], |row| row.get(0)).optional())
            .map_err(RingError::catalog("reading progress"))
    }

    /// Keeps where the delivery of a file stands, durably.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_progress(&mut self, id: FileId, content: &str) -> Result<(), RingError> {
        self.durably("keeping progress", |transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO progress (file, content) VALUES (?1, ?2)",
                params![sql(id.0), content],
            )
        })?;
        Ok(())
    }

    /// Says where a file stands and why.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_state(
        &mut self,
        id: FileId,
        state: FileState,
        why: &str,
        attempts: u32,
    ) -> Result<(), RingError> {
        self.db
            .prepare_cached(
                "UPDATE file SET state = ?2, why = ?3, attempts = ?4 WHERE id = ?1 AND state <> 6",
            )
            .and_then(|mut update| update.execute(params![sql(id.0), state as u8, why, attempts]))
            .map_err(RingError::catalog("keeping a file's state"))?;
        Ok(())
    }

    /// A file will never be delivered: that is a loss, and entered as one. Durable.
    ///
    /// # Errors
    /// The database fails.
    pub fn give_up(&mut self, id: FileId, why: &str, attempts: u32) -> Result<(), RingError> {
        let now_ms = self.clock.now().wall.unix.0;
        self.durably("giving a file up", |transaction| {
            transaction.execute(
                "INSERT INTO loss (file, at_ms, media_ms, reason)
                 SELECT id, ?2, duration_ms, ?3 FROM file WHERE id = ?1 AND state NOT IN (4, 5, 6)
                 AND NOT EXISTS (SELECT 1 FROM loss WHERE loss.file = file.id)",
                params![sql(id.0), now_ms, why],
            )?;
            transaction.execute(
                "UPDATE file SET state = ?2, why = ?3, attempts = ?4 WHERE id = ?1 AND state <> 6",
                params![sql(id.0), FileState::Failed as u8, why, attempts],
            )?;
            transaction.execute("DELETE FROM progress WHERE file = ?1", params![sql(id.0)])
        })?;
        self.tell_ledgers();
        Ok(())
    }

    /// A file is delivered: the far side has confirmed size and checksum. Durable, together with
    /// the notice that tells it.
    ///
    /// # Errors
    /// The database fails.
    pub fn delivered(&mut self, id: FileId, confirmed: Confirmed<'_>) -> Result<(), RingError> {
        let told = self
            .record_file_notice(id, confirmed)
            .map_err(RingError::catalog("reading what to tell of a file"))?;
        let notice = told.and_then(|notice| self.address_notice(notice));
        let Confirmed { url, size, sha256, target_file_id } = confirmed;
        let delivered = FileState::Delivered as u8;
        self.durably("entering a delivery", |transaction| {
            transaction.execute(
                "UPDATE file SET state = ?2, why = '', url = ?3, size = ?4, sha256 = ?5,
                 target_file_id = ?6 WHERE id = ?1 AND state <> 6",
                params![sql(id.0), delivered, url, sql(size), sha256, target_file_id],
            )?;
            transaction.execute("DELETE FROM progress WHERE file = ?1", params![sql(id.0)])?;
            notice.iter().try_for_each(|notice| enter_notice(transaction, notice).map(drop))
        })?;
        self.notify_readers();
        Ok(())
    }

    /// The stream of a session.
    pub(super) fn stream_of(&self, session: SessionId) -> rusqlite::Result<Option<StreamKey>> {
        self.db
            .prepare_cached(
                "SELECT stream.domain, stream.app, stream.stream FROM stream
                 JOIN session ON session.stream = stream.id WHERE session.id = ?1",
            )?
            .query_row([sql(session.0)], |row| stream_key(row, 0))
            .optional()
    }

    /// Reads files by a query that begins with [`COLUMNS`].
    pub(super) fn select(
        &self,
        text: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<FileRecord>, RingError> {
        let what = "listing files";
        let mut query = self.db.prepare_cached(text).map_err(RingError::catalog(what))?;
        let mut records = Vec::new();
        for read in query.query_map(parameters, record).map_err(RingError::catalog(what))? {
            match read.map_err(RingError::catalog(what)) {
                Ok(record) => records.push(record),
                // One bad row hides no other.
                Err(problem) if problem.is_bad_row() => {
                    error!(cause = ?std::error::Error::source(&problem), "a file's row is damaged");
                }
                Err(problem) => return Err(problem),
            }
        }
        for record in records.iter_mut().filter(|record| record.state == FileState::Recording) {
            let mut growing = self.open_files.values();
            if let Some(open) = growing.find(|open| open.id == record.id) {
                record.end_ms = open.end_ms();
                record.duration_ms = open.duration_ms();
                record.size = open.bytes;
            }
        }
        Ok(records)
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<FileRecord> {
    let texts = |at: usize| -> rusqlite::Result<Vec<String>> {
        Ok(serde_json::from_str(&row.get::<_, String>(at)?).unwrap_or_default())
    };
    let format: u8 = row.get(4)?;
    let audio_only = row.get::<_, Option<bool>>(25)?.unwrap_or(false);
    let mut tracks = texts(19)?;
    if audio_only {
        // What came in with the sound is not in the file.
        tracks.retain(|name| !Codec::from_name(name).is_some_and(Codec::is_video));
    }
    Ok(FileRecord {
        id: FileId(unsql(row.get(0)?)),
        key: stream_key(row, 1)?,
        format: FileFormat::ALL[usize::from(format).min(3)],
        recording: RecordingId(unsql(row.get(5)?)),
        state: FileState::from_number(row.get(6)?),
        why: row.get(7)?,
        start_ms: row.get(8)?,
        end_ms: row.get(9)?,
        trusted: row.get(10)?,
        start_boot_ms: unsql(row.get(11)?),
        boot_id: row.get::<_, Option<[u8; 16]>>(12)?.unwrap_or_default(),
        duration_ms: row.get(13)?,
        name_pattern: row.get(14)?,
        name: row.get(15)?,
        size: unsql(row.get::<_, Option<i64>>(16)?.unwrap_or(0)),
        sha256: row.get(17)?,
        url: row.get(18)?,
        tracks,
        dropped_tracks: texts(20)?,
        kind: UploadKind::from_number(row.get(21)?),
        template: row.get::<_, Option<String>>(26)?.unwrap_or_default(),
        urgent: row.get(27)?,
        attempts: row.get(22)?,
        queue_number: unsql(row.get(23)?),
        task_id: row.get(24)?,
        audio_only,
    })
}

pub(super) fn stream_key(row: &Row<'_>, at: usize) -> rusqlite::Result<StreamKey> {
    let part = |index: usize| row.get::<_, String>(at + index);
    StreamKey::new(&part(0)?, &part(1)?, &part(2)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error))
    })
}
