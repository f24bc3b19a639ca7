//! The reports: one shape each, for the control socket and for `--json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::matching::Decision;
use crate::domain::notice::event_word;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;
use crate::ring::catalog::files::FileRecord;
use crate::ring::catalog::ledger::DecisionRecord;
use crate::ring::catalog::notices::{EventRecord, Reader};
use crate::ring::catalog::open::{FileState, RecordingContent};

/// One file, as `ls` shows it. Identities are decimal digits; times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// Which file.
    pub file_id: String,
    /// The push or camera domain.
    pub domain: String,
    /// The application.
    pub app: String,
    /// The stream name.
    pub stream: String,
    /// `flv`, `hls`, `mp4` or `aac`.
    pub format: String,
    /// The recording it is of.
    pub recording: String,
    /// The task that asked for it, if one did.
    pub task_id: Option<String>,
    /// Arrival of its first sample.
    pub start_ms: i64,
    /// Arrival of its last sample.
    pub end_ms: i64,
    /// Media time it covers, in milliseconds.
    pub duration_ms: i64,
    /// Bytes: as rendered once that is known, else of its media on flash.
    pub size: u64,
    /// As delivered, in hex.
    pub sha256: Option<String>,
    /// Where it stands.
    pub state: String,
    /// Why it stands there.
    pub why: String,
    /// Bytes that the target has.
    pub progress_bytes: u64,
    /// Bytes a second of late, while it is on its way and there is something to go by.
    #[serde(default)]
    pub bytes_per_s: Option<u64>,
    /// Seconds that the rest takes at this rate.
    #[serde(default)]
    pub left_s: Option<u64>,
    /// Where it can be had.
    pub url: Option<String>,
    /// Codecs of its tracks.
    pub tracks: Vec<String>,
    /// Tracks that its format cannot hold.
    pub dropped_tracks: Vec<String>,
}

impl FileRow {
    /// From the catalog, with where its delivery stands, if it is queued.
    #[must_use]
    pub fn new(record: &FileRecord, transfer: Option<Transfer>) -> Self {
        // A file that is being sent is still in the queue for the catalog.
        let moving = match &transfer {
            Some(Transfer::Moving(moving)) => Some(*moving),
            _ => None,
        };
        let (state, why, progress_bytes) = match transfer {
            Some(Transfer::Moving(moving)) => (FileState::Uploading, String::new(), moving.bytes),
            Some(Transfer::Waiting { why }) => (record.state, why, 0),
            None if record.state == FileState::Delivered => {
                (record.state, record.why.clone(), record.size)
            }
            None => (record.state, record.why.clone(), 0),
        };
        FileRow {
            file_id: record.id.to_string(),
            domain: record.key.domain().to_owned(),
            app: record.key.app().to_owned(),
            stream: record.key.stream().to_owned(),
            format: record.format.name().to_owned(),
            recording: record.recording.to_string(),
            task_id: record.task_id.clone(),
            start_ms: record.start_ms,
            end_ms: record.end_ms,
            duration_ms: record.duration_ms,
            size: record.size,
            sha256: record.sha256.clone(),
            state: state.name().to_owned(),
            why,
            progress_bytes,
            bytes_per_s: moving.and_then(|moving| moving.bytes_per_s),
            left_s: moving.and_then(|moving| moving.left_s),
            url: record.url.clone(),
            tracks: record.tracks.clone(),
            dropped_tracks: record.dropped_tracks.clone(),
        }
    }
}

/// One event of the outbox, as `events` shows it. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRow {
    /// Its number: grows by one from each to the next.
    pub seq: u64,
    /// Its kind, as topics have it.
    pub kind: String,
    /// When it happened.
    pub time_ms: i64,
    /// The stream key, if it is of a stream.
    pub stream: Option<String>,
    /// `waits`, `told` or `given_up`; null without a receiver of its notices.
    pub receiver: Option<String>,
    /// `waits` or `told`; null without a fleet.
    pub fleet: Option<String>,
    /// What it says.
    pub event: Value,
}

impl EventRow {
    /// From the catalog.
    #[must_use]
    pub fn new(record: &EventRecord) -> Self {
        let word = |reader: Reader| reader.word().map(str::to_owned);
        EventRow {
            seq: record.seq.0,
            kind: event_word(record.number).to_owned(),
            time_ms: record.at.0,
            stream: Some(record.stream.clone()).filter(|stream| !stream.is_empty()),
            receiver: word(record.receiver),
            fleet: word(record.fleet),
            event: serde_json::from_str(&record.body).unwrap_or_default(),
        }
    }
}

/// Where the delivery of a queued file stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// On its way.
    Moving(Moving),
    /// Not on its way.
    Waiting {
        /// Why, for people.
        why: String,
    },
}

/// How a file on its way goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moving {
    /// Bytes that the target has.
    pub bytes: u64,
    /// Bytes a second of late.
    pub bytes_per_s: Option<u64>,
    /// Seconds that the rest takes at this rate.
    pub left_s: Option<u64>,
}

/// What is decided about a stream, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainReport {
    /// The stream key.
    pub stream: String,
    /// `record`, `norecord` or `unmatched`.
    pub decision: String,
    /// Pattern of the rule that decided.
    pub rule: Option<String>,
    /// Name of its template.
    pub template: Option<String>,
    /// Layer of the rule.
    pub layer: Option<String>,
    /// Revision of the layer.
    pub revision: Option<u64>,
    /// Tasks that record the stream.
    pub tasks: Vec<String>,
    /// Bytes a second that the stream writes to flash, the mean of the last hour; null if it does not,
    /// or without a running box.
    #[serde(default)]
    pub bytes_per_s: Option<u64>,
    /// Seconds that the ring keeps at this rate what is written now.
    #[serde(default)]
    pub keeps_s: Option<u64>,
    /// The session runs under rules that have changed since.
    pub stale: bool,
    /// All of it in one sentence.
    pub reason: String,
}

impl ExplainReport {
    /// What was decided, without more.
    #[must_use]
    pub fn new(key: &StreamKey, record: DecisionRecord) -> Self {
        let DecisionRecord { decision, rule, template, layer, revision, reason } = record;
        let (stream, tasks) = (key.to_string(), Vec::new());
        ExplainReport {
            stream,
            decision,
            rule,
            template,
            layer,
            revision,
            tasks,
            bytes_per_s: None,
            keeps_s: None,
            stale: false,
            reason,
        }
    }

    /// What was in force for the session that ran at a time, as its recordings tell.
    #[must_use]
    pub fn of_recordings(key: &StreamKey, at: UnixMillis, recordings: &[RecordingContent]) -> Self {
        let Some(content) = recordings.first() else {
            let what = "the stream was kept in the ring only, no recording was made of it";
            return ExplainReport::of_no_rule(key, format!("at {}: {what}", at.0));
        };
        let formats: Vec<&str> = content.files.iter().map(|plan| plan.format.as_str()).collect();
        let reason = format!(
            "the session of that time was recorded by rule {} of the {} layer, revision {}: \
             template {} made {}",
            content.rule,
            content.layer,
            content.revision,
            content.template,
            formats.join(", ")
        );
        let record = DecisionRecord {
            decision: "record".to_owned(),
            rule: Some(content.rule.clone()),
            template: Some(content.template.clone()),
            layer: Some(content.layer.clone()),
            revision: Some(content.revision),
            reason,
        };
        ExplainReport::new(key, record)
    }

    /// No rule had anything to do with it.
    #[must_use]
    pub fn of_no_rule(key: &StreamKey, reason: String) -> Self {
        ExplainReport::new(key, DecisionRecord { reason, ..(&Decision::Unmatched).into() })
    }
}

/// What an export consists of, before its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportHeader {
    /// `flv`, `hls`, `mp4` or `aac`.
    pub format: String,
    /// Its objects in order; a single one without a name for all formats but HLS.
    pub objects: Vec<ExportObject>,
    /// Tracks that the format cannot hold.
    pub dropped_tracks: Vec<String>,
}

/// One object of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportObject {
    /// Its name beside the others; empty for a file that is one object.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}
