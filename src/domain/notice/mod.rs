//! Notices: what the box tells receivers over HTTP. One notice is one event of the cloud API's
//! notifications; its body has exactly the documented members, and `edgerec` with our own
//! sequence number, an id that is the same however often the event is told, the box, and the outbox
//! that numbers it. A fleet hears some of them too, and of what only the box knows ([`BoxEvent`]).

mod body;
pub mod box_event;
mod kind;

use crate::domain::files::FileFormat;
use crate::domain::ids::{FileId, RecordingId, SessionId};
use crate::domain::record_watch::RecordFinding;
use crate::domain::stream_key::StreamKey;
use crate::domain::stream_watch::StreamReport;
use crate::domain::time::UnixMillis;

pub use body::{Origin, without_push_secret};
pub use box_event::BoxEvent;
pub use kind::{EventKind, event_word};

/// The kinds of events, by their number (`event_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Event {
    /// A push (or pull) ends.
    PushEnd = 0,
    /// A push (or pull) begins.
    PushBegin = 1,
    /// A recorded file can be had.
    RecordFile = 100,
    /// The incoming stream is abnormal.
    PushException = 321,
    /// A recording starts, pauses, resumes, fails or ends.
    RecordStatus = 332,
    /// A recording is abnormal.
    RecordException = 341,
}

impl Event {
    /// Every kind.
    pub const ALL: [Event; 6] = [
        Event::PushEnd,
        Event::PushBegin,
        Event::RecordFile,
        Event::PushException,
        Event::RecordStatus,
        Event::RecordException,
    ];

    /// `event_type`.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Back from `event_type`.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Event> {
        Event::ALL.into_iter().find(|event| event.number() == number)
    }
}

/// The place of a notice among all of the box: grows by one from each to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NoticeSeq(pub u64);

/// Something that happened and is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// To which stream.
    pub key: StreamKey,
    /// When.
    pub at: UnixMillis,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A push begins.
    PushBegin(PushBegin),
    /// A push ends.
    PushEnd(PushEnd),
    /// A recorded file can be had.
    RecordFile(Box<RecordFile>),
    /// A recording is in another state.
    RecordStatus(RecordStatus),
    /// The incoming stream was abnormal in one report interval.
    PushException(Box<PushException>),
    /// A recording is abnormal.
    RecordException(RecordException),
}

/// Who pushes, as far as bodies tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushFacts {
    /// The push: the same in its begin and its end.
    pub sequence: SessionId,
    /// Address of the box that the push came to, without port; empty if not known.
    pub node: String,
    /// Address of the pusher (of the camera for a pull), without port.
    pub user_ip: String,
    /// Query of the push URL, without `?`.
    pub stream_param: String,
}

/// Event 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushBegin {
    /// Who.
    pub push: PushFacts,
    /// Picture width, 0 while not known.
    pub width: u16,
    /// Picture height, 0 while not known.
    pub height: u16,
}

/// Event 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushEnd {
    /// Who.
    pub push: PushFacts,
    /// How long it lasted, in milliseconds.
    pub duration_ms: u64,
    /// Why it ended: a disconnect code of the contract (`callbacks.md` section 4).
    pub errcode: u32,
    /// The same in words.
    pub errmsg: String,
    /// Picture width, 0 if not known.
    pub width: u16,
    /// Picture height, 0 if not known.
    pub height: u16,
}

/// Why a push ended: the contract's groups (`callbacks.md` section 4), one code each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum PushEndCause {
    /// Not known.
    Unknown = 0,
    /// The client closed the connection.
    ClientClosed = 1,
    /// What came is no proper RTMP.
    Malformed = 6,
    /// A frame is too large.
    FrameTooLarge = 7,
    /// No data for too long.
    Silent = 8,
    /// The box ended it: shutdown, or rules that close the connection.
    Internal = 10,
    /// The network broke.
    Network = 12,
    /// Dropped by request, forbidden, or replaced by a newer push of the same stream.
    Dropped = 21,
}

impl PushEndCause {
    /// `errcode` and `errmsg`.
    #[must_use]
    pub fn told(self) -> (u32, String) {
        (self as u32, self.text().to_owned())
    }

    /// `errmsg`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            PushEndCause::Unknown => "unknown",
            PushEndCause::ClientClosed => "client closed the push",
            PushEndCause::Malformed => "malformed RTMP",
            PushEndCause::FrameTooLarge => "frame too large",
            PushEndCause::Silent => "no data for too long",
            PushEndCause::Internal => "closed by the box",
            PushEndCause::Network => "the network broke",
            PushEndCause::Dropped => "dropped by request",
        }
    }
}

/// Event 100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFile {
    /// The file on the box.
    pub file: FileId,
    /// The target's own id of it; `None`: the decimal form of the file on the box.
    pub target_file_id: Option<String>,
    /// The number of the template; `None` for a task without one.
    pub template: Option<u64>,
    /// Its format.
    pub format: FileFormat,
    /// The task that made it; empty for none.
    pub task_id: String,
    /// When writing of it started.
    pub started: UnixMillis,
    /// When writing of it ended.
    pub ended: UnixMillis,
    /// How much media it has, in milliseconds.
    pub duration_ms: i64,
    /// Bytes.
    pub size: u64,
    /// Query of the push URL; `None` for what CreateRecordTask recorded.
    pub stream_param: Option<String>,
    /// Where it can be had.
    pub url: String,
    /// Media time of its first sample, in milliseconds.
    pub media_start_ms: i64,
    /// Name of the video codec; empty without video.
    pub video_codec: String,
    /// The recording it is of.
    pub recording: RecordingId,
    /// Width and height of its picture; zeros if not known.
    pub resolution: (u16, u16),
}

/// `record_event` of event 332.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordEvent {
    /// It started.
    StartSucceeded,
    /// It could not start.
    StartFailed,
    /// The stream is gone; it waits for it.
    Paused,
    /// The stream is back in time.
    Resumed,
    /// It fails.
    Error,
    /// It is over.
    Ended,
}

impl RecordEvent {
    /// The word of the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RecordEvent::StartSucceeded => "record_start_succeeded",
            RecordEvent::StartFailed => "record_start_failed",
            RecordEvent::Paused => "record_paused",
            RecordEvent::Resumed => "record_resumed",
            RecordEvent::Error => "record_error",
            RecordEvent::Ended => "record_ended",
        }
    }
}

/// Event 332.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordStatus {
    /// What happened.
    pub event: RecordEvent,
    /// The recording.
    pub recording: RecordingId,
    /// The format that it happened to.
    pub format: FileFormat,
    /// Whether a task asked for the recording, not a rule.
    pub by_task: bool,
    /// Whether the stream is pulled, not pushed.
    pub pulled: bool,
    /// The task; empty for none.
    pub task_id: String,
}

/// Event 321.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushException {
    /// Who.
    pub push: PushFacts,
    /// What was seen in one report interval.
    pub report: StreamReport,
}

/// Event 341.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordException {
    /// The recording.
    pub recording: RecordingId,
    /// The format.
    pub format: FileFormat,
    /// What was seen.
    pub finding: RecordFinding,
}

impl Notice {
    /// Its kind.
    #[must_use]
    pub fn event(&self) -> Event {
        match self.what {
            What::PushBegin(_) => Event::PushBegin,
            What::PushEnd(_) => Event::PushEnd,
            What::RecordFile(_) => Event::RecordFile,
            What::RecordStatus(_) => Event::RecordStatus,
            What::PushException(_) => Event::PushException,
            What::RecordException(_) => Event::RecordException,
        }
    }

    /// The same however often this event is told; entered twice, it is told once.
    #[must_use]
    pub fn id(&self) -> String {
        let (number, at) = (self.event().number(), self.at.0);
        match &self.what {
            What::PushBegin(begin) => format!("{number}-{}", begin.push.sequence),
            What::PushEnd(end) => format!("{number}-{}", end.push.sequence),
            What::RecordFile(file) => format!("{number}-{}", file.file),
            What::RecordStatus(status) => {
                let (recording, event) = (status.recording, status.event.name());
                format!("{number}-{recording}-{}-{event}-{at}", status.format)
            }
            What::PushException(exception) => format!("{number}-{}-{at}", exception.push.sequence),
            What::RecordException(exception) => {
                let (recording, kind) = (exception.recording, exception.finding.kind.number());
                format!("{number}-{recording}-{}-{kind}-{at}", exception.format)
            }
        }
    }
}
