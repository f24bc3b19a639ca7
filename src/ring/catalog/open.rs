//! What is being written right now: files that still grow and segments that still grow. Kept in
//! memory; rows are written when a span or segment ends. After a crash it is made again from the
//! seals in the slots that were open.

use serde::{Deserialize, Serialize};

use crate::domain::files::{FileFormat, FormatSet};
use crate::domain::ids::{FileId, FragmentSequence, RecordingId, SessionId, SlotIndex};
use crate::domain::matching::Match;
use crate::domain::stream_key::StreamKey;
use crate::domain::task::Family;
use crate::domain::template::Template;
use crate::domain::time::{BootTime, Moment, UnixMillis};
use crate::domain::upload_order::UploadKind;
use crate::ring::catalog::rows::wall_at;
use crate::ring::layout::SlotPlace;
use sha2::{Digest, Sha256};

/// A recording as it begins.
#[derive(Debug, Clone)]
pub struct RecordingStart {
    /// Its identity.
    pub id: RecordingId,
    /// What it makes, kept as JSON.
    pub content: RecordingContent,
}

/// What a recording makes and why; kept with it, whatever happens to the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingContent {
    /// Name of the template.
    pub template: String,
    /// The rule that chose it, in words.
    pub rule: String,
    /// Layer of the rule.
    pub layer: String,
    /// Revision of the rule set.
    pub revision: u64,
    /// One plan a format.
    pub files: Vec<FilePlan>,
    /// The template as it was then; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Template>,
    /// The number of the template; 0 if it has none.
    #[serde(default)]
    pub template_id: u64,
    /// The task that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskMark>,
    /// Only sound is recorded.
    #[serde(default)]
    pub audio_only: bool,
}

/// The task that a recording is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMark {
    /// Its number.
    pub id: u64,
    /// What callers know it by.
    pub name: String,
    /// Which actions made it.
    pub family: Family,
    /// It is a highlight.
    #[serde(default)]
    pub highlight: bool,
}

/// How the files of one format are kept and named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePlan {
    /// The format's name.
    pub format: String,
    /// Seconds that a file is kept; 0 is no limit.
    pub storage_time_s: u64,
    /// VodFileName; empty for the default.
    pub name_pattern: String,
}

/// The rule of a recording whose row was lost.
const LOST: &str = "recovered from the ring";

impl RecordingContent {
    /// What the rules ask for that chose a template, which has this number for callers.
    #[must_use]
    pub fn by_rule(matched: &Match, template_id: u64) -> Self {
        let template = &matched.template;
        RecordingContent {
            template: template.name.clone(),
            rule: matched.rule.to_string(),
            layer: matched.layer.to_string(),
            revision: matched.revision,
            files: file_plans(template),
            content: Some(Template::clone(template)),
            template_id,
            task: None,
            audio_only: false,
        }
    }

    /// What is known of a recording whose row was lost: its formats.
    #[must_use]
    pub fn unknown(formats: FormatSet) -> Self {
        let files = formats.iter().map(|format| FilePlan {
            format: format.name().to_owned(),
            storage_time_s: 0,
            name_pattern: String::new(),
        });
        RecordingContent {
            template: String::new(),
            rule: LOST.to_owned(),
            layer: String::new(),
            revision: 0,
            files: files.collect(),
            content: None,
            template_id: 0,
            task: None,
            audio_only: false,
        }
    }

    /// Whether its row was lost, and nothing more is known of it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.rule == LOST
    }

    /// What asked for its files.
    #[must_use]
    pub fn upload_kind(&self) -> UploadKind {
        match &self.task {
            None => UploadKind::Template,
            Some(task) if task.highlight => UploadKind::Highlight,
            Some(_) => UploadKind::Timed,
        }
    }

    /// The plan for one format.
    #[must_use]
    pub fn plan(&self, format: FileFormat) -> Option<&FilePlan> {
        self.files.iter().find(|plan| plan.format == format.name())
    }
}

/// How the files of a template's formats are kept and named.
#[must_use]
pub fn file_plans(template: &Template) -> Vec<FilePlan> {
    let plan = |format: FileFormat| {
        let params = template.params(format)?;
        Some(FilePlan {
            format: format.name().to_owned(),
            storage_time_s: u64::from(params.storage_time_s),
            name_pattern: params.vod_file_name.as_str().to_owned(),
        })
    };
    template.formats().iter().filter_map(plan).collect()
}

/// A span: fragments of one segment. Offsets are bytes in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where.
    pub place: SlotPlace,
    /// Where the segment begins.
    pub segment_offset: u64,
    /// Where the first fragment begins.
    pub start: u64,
    /// Where the last fragment ends.
    pub end: u64,
}

/// A file that still grows.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// Its identity.
    pub id: FileId,
    /// The session its newest fragment is of.
    pub session: SessionId,
    /// Sequence of its newest fragment.
    pub last_sequence: FragmentSequence,
    /// Arrival of its first sample.
    pub start: Moment,
    /// Arrival of its newest sample.
    pub end: Moment,
    /// Media of earlier sessions, in milliseconds.
    pub before_ms: i64,
    /// First media time of its newest session, in milliseconds.
    pub media_start_ms: i64,
    /// End of the newest media, in milliseconds.
    pub media_end_ms: i64,
    /// Spans that have rows.
    pub spans_stored: u32,
    /// The span that grows, if any.
    pub span: Option<Span>,
    /// What it has is from before anybody asked for it, so the seals of its fragments do not tell.
    /// What lies between that and the next live fragment is to be taken too.
    pub past: bool,
    /// Media bytes so far, as on flash.
    pub bytes: u64,
}

impl OpenFile {
    /// Media time it covers, in milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> i64 {
        self.before_ms + self.media_end_ms - self.media_start_ms
    }

    /// Arrival of its newest sample, Unix milliseconds: by boot time from its beginning, so that a clock
    /// which steps makes it neither longer nor shorter. Over a reboot by both clocks, if they can be
    /// believed; else it ends as early as it can have.
    #[must_use]
    pub fn end_ms(&self) -> i64 {
        let start_ms = self.start.at.wall.unix.0;
        if self.start.boot_id == self.end.boot_id {
            return wall_at(self.start.at, self.end.at.boot);
        }
        match (self.start.trusted_wall(), self.end.trusted_wall()) {
            (Some(start), Some(end)) => end.max(start).0,
            _ => start_ms.saturating_add(self.duration_ms().max(0)),
        }
    }
}

/// The clocks at the end of a stretch that began at `start`, as a row tells it.
pub(super) fn end_of(start: Moment, end_ms: i64) -> Moment {
    let lasted = u64::try_from(end_ms.saturating_sub(start.at.wall.unix.0)).unwrap_or(0);
    moved(start, BootTime(start.at.boot.0.saturating_add(lasted)))
}

/// Another time of the same boot, by the clocks of `from`.
pub(super) fn moved(from: Moment, to: BootTime) -> Moment {
    let mut at = from.at;
    (at.wall.unix, at.boot) = (UnixMillis(wall_at(from.at, to)), to);
    Moment { at, ..from }
}

/// A segment that still grows.
#[derive(Debug, Clone)]
pub struct OpenSegment {
    /// Where.
    pub place: SlotPlace,
    /// The session.
    pub session: SessionId,
    /// Where it begins.
    pub start: u64,
    /// Where its first fragment begins.
    pub media: u64,
    /// Where its newest fragment ends.
    pub end: u64,
    /// Sequence of its first fragment.
    pub first_sequence: FragmentSequence,
    /// Arrival of its first sample.
    pub first: Moment,
    /// Arrival of its newest sample.
    pub last: BootTime,
    /// End of its newest media, in milliseconds.
    pub media_end_ms: i64,
}

impl OpenSegment {
    /// Arrival of its first sample, Unix milliseconds.
    #[must_use]
    pub fn first_ms(&self) -> i64 {
        self.first.at.wall.unix.0
    }

    /// Arrival of its newest sample, Unix milliseconds: by boot time from its first, whatever the wall
    /// clock did in between.
    #[must_use]
    pub fn last_ms(&self) -> i64 {
        wall_at(self.first.at, self.last)
    }
}

/// The identity of a file: a hash of what it is made of, the same after any loss of the catalog.
#[must_use]
pub fn file_id(
    key: &StreamKey,
    session: SessionId,
    recording: RecordingId,
    first: FragmentSequence,
    format: FileFormat,
) -> FileId {
    let mut hash = Sha256::new();
    hash.update(key.to_string().as_bytes());
    hash.update(session.0.to_be_bytes());
    hash.update(recording.0.to_be_bytes());
    hash.update(first.0.to_be_bytes());
    hash.update([format as u8]);
    let digest = hash.finalize();
    let bits = u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
    FileId(bits >> 1)
}

/// Numbers of the `slot.state` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotState {
    /// Never used, or given up.
    Spare = 0,
    /// Promised to the writer.
    Reserved = 1,
    /// Being written.
    Open = 2,
    /// Full.
    Closed = 3,
    /// The flash failed there.
    Failed = 4,
    /// The catalog was lost: what it holds is not known yet, so it is not written to.
    Unread = 5,
}

/// Numbers of the `file.state` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FileState {
    /// Grows.
    Recording = 0,
    /// Finished, no target to go to.
    Waiting = 1,
    /// Finished, to be delivered.
    Queued = 2,
    /// On its way.
    Uploading = 3,
    /// The far side has it, size and checksum confirmed.
    Delivered = 4,
    /// Will not be delivered.
    Failed = 5,
    /// Gone from the ring before it was delivered.
    Evicted = 6,
}

impl FileState {
    /// The word of `edgerec ls`.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["recording", "waiting", "queued", "uploading", "delivered", "failed", "evicted"]
            [self as usize]
    }

    /// Back from the column.
    #[must_use]
    pub fn from_number(number: u8) -> FileState {
        use FileState::{Delivered, Evicted, Failed, Queued, Recording, Uploading, Waiting};
        [Recording, Waiting, Queued, Uploading, Delivered, Failed, Evicted]
            .into_iter()
            .find(|state| *state as u8 == number)
            .unwrap_or(Failed)
    }
}

/// The slot a span or segment lies in, for lookups.
impl Span {
    /// The slot.
    #[must_use]
    pub fn slot(&self) -> SlotIndex {
        self.place.slot
    }
}
