//! The recordings of one stream key: which there are, which take the samples of the live session,
//! which wait for the stream, and which are over. Pure: the recorder feeds it what happens, and does
//! what it answers.
//!
//! Rules
//! 1. A session is recorded by the template that the rules chose at its start, and by every open
//!    task. A restart for new rules exchanges the template's recording at a boundary; tasks run on.
//! 2. When the stream ends, the template's recording waits if its template says so (splice); a task's
//!    recording waits as long as its task is open, its clips end with the stream (HLS waits as the
//!    template of the task says).
//! 3. A stream that comes back in time, under a template of the same content, goes on with the
//!    recording that waits: HLS joins, other formats begin a new file. A mixer that takes over a
//!    stream, or gives it back, goes on the same way, whatever the template says.
//! 4. A recording that is over never takes a sample again.
//! 5. A sample is kept if a recording takes it, or the ring keeps everything; never of a stream that
//!    is not to be recorded, but for its tasks.

use std::sync::Arc;

use crate::domain::files::{FileFormat, FormatSet};
use crate::domain::ids::{RecordingId, TaskId};
use crate::domain::limits::RECORDINGS_PER_STREAM_MAX;
use crate::domain::matching::Decision;
use crate::domain::recording::{Boundary, Recording};
use crate::domain::splice::Pause;
use crate::domain::template::Template;
use crate::domain::time::Moment;
use crate::domain::write_pace::WritePriority;

/// A recording that is handed over waits for the other feeder so long, in seconds.
const HANDED_OVER_S: u32 = 60;

/// The recordings of one stream.
#[derive(Debug, Default)]
pub struct Programme {
    entries: Vec<Entry>,
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    decision: Decision,
    /// Samples that no recording takes are kept all the same.
    keeps_all: bool,
}

#[derive(Debug)]
struct Entry {
    recording: Recording,
    why: Why,
    /// It takes the samples of the live session.
    on: bool,
    /// The next boundary is the first of the session for it.
    fresh: bool,
    /// Since when its stream is away.
    paused: Option<Pause>,
    /// Bytes of the growing clip of each format.
    clip_bytes: [u64; 4],
}

impl Entry {
    fn new(recording: Recording, why: Why, on: bool) -> Self {
        Entry { recording, why, on, fresh: true, paused: None, clip_bytes: [0; 4] }
    }

    /// Formats whose clip has at least so many bytes.
    fn full(&self, share_bytes: u64) -> FormatSet {
        let full = |format: &FileFormat| self.clip_bytes[*format as usize] >= share_bytes;
        FileFormat::ALL.into_iter().filter(full).collect()
    }
}

/// What asked for a recording.
#[derive(Debug, Clone)]
pub enum Why {
    /// The template that the rules chose.
    Template(Arc<Template>),
    /// A task.
    Task {
        /// Which.
        id: TaskId,
        /// How long its HLS clip waits for the stream, in seconds.
        flow_continue_s: u32,
        /// When it was opened.
        opened: Moment,
    },
}

impl Why {
    fn flow_continue_s(&self) -> u32 {
        match self {
            Why::Template(template) => template.flow_continue_s,
            Why::Task { flow_continue_s, .. } => *flow_continue_s,
        }
    }

    fn is_task(&self) -> bool {
        matches!(self, Why::Task { .. })
    }
}

/// What comes of a session that begins, or takes new rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// A recording by the template is wanted: to be given with [`Programme::add_template`].
    pub wants_template: bool,
    /// Recordings that go on with this session.
    pub resumed: Vec<RecordingId>,
    /// Recordings that are over.
    pub over: Vec<RecordingId>,
}

/// What comes of a session that ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Recordings that are over.
    pub over: Vec<RecordingId>,
    /// Recordings that wait for the stream; their HLS clips stay open.
    pub paused: Vec<(RecordingId, Pause)>,
    /// Recordings that wait, and all their clips end.
    pub interrupted: Vec<RecordingId>,
}

/// What happens at a boundary.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The sample after it is kept.
    pub kept: bool,
    /// A recording takes it.
    pub recorded: bool,
    /// Recordings of which formats begin a clip with it.
    pub begins: Vec<(RecordingId, FormatSet)>,
    /// Something begins although no key frame came for too long.
    pub without_key: bool,
}

/// A task's recording that is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which recording.
    pub recording: RecordingId,
    /// It took samples of the live session until now.
    pub was_on: bool,
    /// When its task was opened.
    pub opened: Moment,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The stream is gone; it may come back.
    Gone,
    /// Another feeder of the same stream goes on at once.
    HandedOver,
}

impl Programme {
    /// Whether nothing is live and nothing waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.live.is_none()
    }

    /// Whether a session is live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// What the rules said when the live session began.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        self.live.as_ref().map(|live| &live.decision)
    }

    /// How important what comes now is, by the most important of what records it.
    #[must_use]
    pub fn write_priority(&self) -> WritePriority {
        let of = |entry: &Entry| match entry.why.is_task() {
            true => WritePriority::Task,
            false => WritePriority::Rule,
        };
        self.entries.iter().filter(|entry| entry.on).map(of).max().unwrap_or_default()
    }

    /// Whether samples of the live session have to go to the ring.
    #[must_use]
    pub fn wants_media(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.keeps_all)
            || self.entries.iter().any(|entry| entry.on)
    }

    /// Whether a recording of the live session or a task asks for the stream.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.entries.iter().any(|entry| entry.on || entry.why.is_task())
    }

    /// Whether a recording waits for the stream to come back.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.entries.iter().any(|entry| entry.paused.is_some())
    }

    /// Tasks that are open on the stream.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> {
        self.entries.iter().filter_map(|entry| match entry.why {
            Why::Task { id, .. } => Some(id),
            Why::Template(_) => None,
        })
    }

    /// Recordings that take the samples of the live session.
    pub fn on(&self) -> impl Iterator<Item = &Recording> {
        self.entries.iter().filter(|entry| entry.on).map(|entry| &entry.recording)
    }

    /// Whether a recording is on, or waits.
    #[must_use]
    pub fn has(&self, recording: RecordingId) -> bool {
        self.entries.iter().any(|entry| entry.recording.plan().id == recording)
    }

    /// A session begins.
    pub fn begin(&mut self, decision: Decision, keep_all: bool, now: Moment) -> Begun {
        let mut begun = Begun::default();
        let template = decision.template().cloned();
        self.entries.retain_mut(|entry| {
            let goes_on = match (&entry.why, &template) {
                (Why::Task { .. }, _) => true,
                (Why::Template(before), Some(now)) => before.same_content(now),
                (Why::Template(_), None) => false,
            };
            let late = entry.paused.is_some_and(|pause| pause.is_over(now));
            let id = entry.recording.plan().id;
            if late && entry.why.is_task() {
                entry.recording.interrupt();
            } else if late || !goes_on {
                begun.over.push(id);
                return false;
            }
            (entry.on, entry.fresh, entry.paused) = (true, true, None);
            begun.resumed.push(id);
            true
        });
        let has_template = self.entries.iter().any(|entry| !entry.why.is_task());
        begun.wants_template = template.is_some() && !has_template;
        let keeps_all = keep_all && !matches!(decision, Decision::NoRecord(_));
        self.live = Some(Live { decision, keeps_all });
        begun
    }

    /// The live session takes new rules, at a boundary where decoding can start. Tasks run on.
    pub fn restart(&mut self, decision: Decision, keep_all: bool) -> Begun {
        let over = self.entries.extract_if(.., |entry| !entry.why.is_task());
        let over = over.map(|entry| entry.recording.plan().id).collect();
        let wants_template = decision.template().is_some();
        let keeps_all = keep_all && !matches!(decision, Decision::NoRecord(_));
        self.live = Some(Live { decision, keeps_all });
        Begun { wants_template, resumed: Vec::new(), over }
    }

    /// The recording by the template that the rules chose begins.
    pub fn add_template(&mut self, recording: Recording, template: Arc<Template>) {
        let why = Why::Template(template);
        self.entries.push(Entry::new(recording, why, self.live.is_some()));
    }

    /// A recording by a template that waited when the box went down is taken up again.
    pub fn add_paused(&mut self, recording: Recording, template: Arc<Template>, pause: Pause) {
        let entry = Entry::new(recording, Why::Template(template), false);
        self.entries.push(Entry { paused: Some(pause), ..entry });
    }

    /// Whether one more task can be opened: the template's recording, and one that is exchanged for
    /// it, always find room beside them.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.entries.len() + 2 < RECORDINGS_PER_STREAM_MAX
    }

    /// A task's recording begins. With `joins` what it has already runs up to the next sample of the
    /// live session without a gap; else it begins, or goes on, where a clip can begin.
    pub fn open_task(&mut self, recording: Recording, why: Why, joins: bool) {
        let entry = Entry::new(recording, why, self.live.is_some());
        self.entries.push(Entry { fresh: !joins, ..entry });
    }

    /// A task's window is past, or it was stopped.
    pub fn close_task(&mut self, task: TaskId) -> Option<Closed> {
        let is_it = |entry: &Entry| matches!(entry.why, Why::Task { id, .. } if id == task);
        let at = self.entries.iter().position(is_it)?;
        let entry = self.entries.remove(at);
        let Why::Task { opened, .. } = entry.why else { return None };
        Some(Closed { recording: entry.recording.plan().id, was_on: entry.on, opened })
    }

    /// So many bytes of media were kept.
    pub fn count_bytes(&mut self, bytes: u64) {
        for entry in self.entries.iter_mut().filter(|entry| entry.on) {
            entry.clip_bytes.iter_mut().for_each(|clip| *clip += bytes);
        }
    }

    /// The next boundary of the live session; they come in order. A clip of `share_bytes` pins its
    /// whole share of the ring.
    pub fn step(&mut self, boundary: &Boundary, share_bytes: u64) -> Steps {
        let keeps_all = self.live.as_ref().is_some_and(|live| live.keeps_all);
        let mut steps = Steps { kept: keeps_all, ..Steps::default() };
        for entry in self.entries.iter_mut().filter(|entry| entry.on) {
            let first = std::mem::take(&mut entry.fresh);
            let full = if boundary.key { entry.full(share_bytes) } else { FormatSet::EMPTY };
            let step = entry.recording.step(&Boundary { first, full, ..*boundary });
            step.begins.iter().for_each(|format| entry.clip_bytes[format as usize] = 0);
            steps.recorded |= step.recorded;
            steps.without_key |= step.without_key;
            if !step.begins.is_empty() {
                steps.begins.push((entry.recording.plan().id, step.begins));
            }
        }
        steps.kept |= steps.recorded;
        steps
    }

    /// The live session ends.
    pub fn end(&mut self, ending: Ending, now: Moment) -> Ended {
        self.live = None;
        let mut ended = Ended::default();
        self.entries.retain_mut(|entry| {
            if !entry.on {
                return true;
            }
            entry.on = false;
            let id = entry.recording.plan().id;
            let window_s = match ending {
                Ending::Gone => entry.why.flow_continue_s(),
                Ending::HandedOver => entry.why.flow_continue_s().max(HANDED_OVER_S),
            };
            // Without anything to go on with there is nothing to wait for.
            if window_s > 0 && entry.recording.has_begun() {
                let pause = Pause::new(now, window_s);
                entry.paused = Some(pause);
                ended.paused.push((id, pause));
                return true;
            }
            if entry.why.is_task() {
                entry.recording.interrupt();
                ended.interrupted.push(id);
                return true;
            }
            ended.over.push(id);
            false
        });
        ended
    }

    /// Time passes while no session is live: recordings whose stream did not come back. Of tasks
    /// only the clips are over.
    pub fn expire(&mut self, now: Moment) -> Ended {
        let mut ended = Ended::default();
        if self.live.is_some() {
            return ended;
        }
        self.entries.retain_mut(|entry| {
            if !entry.paused.is_some_and(|pause| pause.is_over(now)) {
                return true;
            }
            let id = entry.recording.plan().id;
            if entry.why.is_task() {
                entry.paused = None;
                entry.recording.interrupt();
                ended.interrupted.push(id);
                return true;
            }
            ended.over.push(id);
            false
        });
        ended
    }
}
