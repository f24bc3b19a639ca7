//! Tasks: opened when their window opens, first with what the ring has of it already, then with what
//! comes; ended by the stage they are on. And what else is due as time passes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tracing::{error, info};

use crate::domain::matching::Decision;
use crate::domain::programme::Why;
use crate::domain::recording::{Recording, RecordingPlan};
use crate::domain::stream_key::StreamKey;
use crate::domain::task::{Standing, Task};
use crate::domain::time::{ClockQuality, Moment};
use crate::recorder::stage::Stage;
use crate::recorder::stream::lock;
use crate::recorder::{Recorder, SETTLED_AFTER_MS, locked};
use crate::ring::RingError;
use crate::ring::catalog::open::{RecordingContent, RecordingStart, TaskMark, file_plans};
use crate::ring::past::{PastEnd, PastFrom};

/// A task that is to be opened on a stream.
#[derive(Debug, Clone)]
pub struct Opening {
    task: Arc<Task>,
    key: StreamKey,
    /// What it has of the past already.
    begun: Option<PastEnd>,
}

impl Recorder {
    /// Time passes: to be called each second or so, and when the API has set something. Gives the
    /// tasks that are to be opened now, which may block ([`open`](Self::open)).
    #[must_use]
    pub fn tick(&self, now: Moment) -> Vec<Opening> {
        locked(&self.later).last = Some(now);
        self.end_what_is_settled(now);
        let sources = self.sources_due();
        for key in &sources {
            drop(self.stage(key));
        }
        let stages: Vec<(StreamKey, Arc<Mutex<Stage>>)> =
            locked(&self.stages).iter().map(|(key, stage)| (key.clone(), stage.clone())).collect();
        for (key, stage) in &stages {
            lock(stage).tick(self, now, sources.contains(key));
        }
        let mut openings = std::mem::take(&mut locked(&self.later).unfinished);
        openings.extend(self.openings(now, &stages));
        drop(stages);
        // A stage that somebody holds is not idle, whatever it looks like.
        locked(&self.stages).retain(|key, stage| {
            Arc::strong_count(stage) > 1 || sources.contains(key) || !lock(stage).is_idle()
        });
        openings
    }

    /// Opens a task on a stream: with what the ring has of its window, then with what comes. Blocks
    /// on flash. Where media is on its way to the ring and no session carries it on, and where the
    /// stream has as many recordings as it can, the opening waits and comes again with a later
    /// [`tick`](Self::tick); so it does if the ring fails.
    pub fn open(&self, opening: Opening, now: Moment) {
        let (key, id) = (opening.key.clone(), opening.task.id());
        match self.open_on(opening, now) {
            Ok(None) => {}
            Ok(Some(unfinished)) => locked(&self.later).unfinished.push(unfinished),
            Err(problem) => {
                error!(stream = %key, task = %id, %problem, "a task could not be opened");
                locked(&self.later).opened.remove(&(id, key));
            }
        }
    }

    /// Gives the opening back if it is to come again.
    fn open_on(&self, opening: Opening, now: Moment) -> Result<Option<Opening>, RingError> {
        let Opening { task, key, begun } = opening;
        let start = self.start_of(&task, &key);
        let id = start.id;
        let until = self.ring.catalog.call_blocking(move |state| state.recorded_until(id))?;
        if begun.is_none() && task.is_of_the_past() && until.is_some() {
            // An attempt that failed half way may have left it open.
            self.end_later(vec![id], now);
            return Ok(None);
        }
        let stage = self.stage(&key);
        let (live, ended, has_room) = {
            let stage = lock(&stage);
            let live = stage.session().map(|(session, _)| session);
            (live, stage.just_ended(), stage.programme().has_room())
        };
        if !has_room && task.standing(now) == Standing::Open {
            return Ok(Some(Opening { task, key, begun }));
        }
        if let Some(ended) = ended
            && !self.ring.catalog.call_blocking(move |state| state.is_ended(ended))?
        {
            return Ok(Some(Opening { task, key, begun }));
        }
        // What was recorded while nobody knew the time may lie before the window.
        let of_window = until.filter(|until| *until >= task.start_ms);
        let begin = of_window.map_or(PastFrom::KeyBefore(task.start_ms), PastFrom::After);
        let (recording, from) = match begun {
            Some(PastEnd { recording, last }) => (recording, last.map_or(begin, PastFrom::Behind)),
            None => {
                info!(stream = %key, task = %task.id(), recording = %id, "task begins");
                let hls_clip_max_s = self.settings.hls_clip_max_s;
                let mut plan = RecordingPlan::of_template(id, &task.template, hls_clip_max_s);
                plan.audio_only = task.audio_only;
                (Recording::new(plan), begin)
            }
        };
        let past = self.ring.record_past(&key, &start, recording, from, task.end_ms, live)?;
        if task.is_of_the_past() {
            match is_settled(&task, now) {
                Some(true) => {
                    self.post("a task could not be ended", move |state| state.end_recordings(&[id]))
                }
                _ => self.end_later(vec![id], now),
            }
            return Ok(None);
        }
        let mut stage = lock(&stage);
        if task.standing(now) != Standing::Open {
            self.end_later(vec![id], now);
            self.reopens_later(task.id(), &key, now);
            return Ok(None);
        }
        let changed = stage.session().map(|(session, _)| session) != live;
        if changed || (past.last.is_none() && stage.is_young(now)) {
            return Ok(Some(Opening { task, key, begun: Some(past) }));
        }
        if past.last.is_none() {
            self.enter_start(&key, start);
        }
        let flow_continue_s = task.template.flow_continue_s;
        let why = Why::Task { id: task.id(), flow_continue_s, opened: now };
        let last = past.last.map(|last| (last.session, last.sequence));
        stage.open_task(past.recording, why, last);
        Ok(None)
    }

    /// Whether the window of a task turned out to have nothing of what was recorded for it while
    /// nobody knew the time.
    pub(super) fn is_elsewhere(&self, task: &Task, opened: Moment, now: Moment) -> bool {
        let blind = opened.at.wall.quality == ClockQuality::Untrusted;
        let (true, Some(wall), None) = (blind, now.trusted_wall(), task.stopped_ms) else {
            return false;
        };
        let lasted_ms = now.at.boot.since(opened.at.boot).as_millis();
        let lasted_ms = i64::try_from(lasted_ms).unwrap_or(i64::MAX);
        opened.boot_id == now.boot_id && !task.covers(wall.0.saturating_sub(lasted_ms), wall.0)
    }

    /// Cameras that the rules want recorded.
    fn sources_due(&self) -> HashSet<StreamKey> {
        let rules = self.rules.load();
        let due =
            rules.table.sources().into_iter().filter(|(_, source)| {
                matches!(rules.table.resolve(&source.key), Decision::Record(_))
            });
        due.map(|(_, source)| source.key.clone()).collect()
    }

    /// Tasks whose window is open, on the streams that they are not open on yet.
    fn openings(&self, now: Moment, stages: &[(StreamKey, Arc<Mutex<Stage>>)]) -> Vec<Opening> {
        let service = self.service.load();
        let mut openings = Vec::new();
        for task in service.tasks.iter() {
            let is_open = task.standing(now) == Standing::Open;
            let past = task.is_of_the_past() && is_settled(task, now) != Some(false);
            if !is_open && !past {
                continue;
            }
            let mut keys: Vec<StreamKey> = stages
                .iter()
                .map(|(key, _)| key)
                .filter(|key| task.covers_key(key))
                .cloned()
                .collect();
            if let Ok(key) = StreamKey::new(&task.domain, &task.app, &task.stream)
                && !keys.contains(&key)
            {
                keys.push(key);
            }
            if task.mixed {
                keys.retain(|key| service.mixes.makes(key.stream()));
            }
            for key in keys {
                if task.deleted && !is_on(stages, &key, task) {
                    continue;
                }
                if locked(&self.later).opened.insert((task.id(), key.clone())) {
                    openings.push(Opening { task: task.clone(), key, begun: None });
                }
            }
        }
        let known = |id| service.tasks.any(id).is_some();
        locked(&self.later).opened.retain(|(id, _)| known(*id));
        openings
    }

    fn start_of(&self, task: &Task, key: &StreamKey) -> RecordingStart {
        let content = RecordingContent {
            template: task.template.name.clone(),
            rule: format!("task {}", task.id),
            layer: String::new(),
            revision: 0,
            files: file_plans(&task.template),
            content: Some(task.template.clone()),
            template_id: task.template_id,
            task: Some(TaskMark {
                id: task.id,
                name: task.name.clone(),
                family: task.family,
                highlight: task.highlight,
            }),
            audio_only: task.audio_only,
        };
        RecordingStart { id: task.recording_of(key), content }
    }

    fn enter_start(&self, key: &StreamKey, start: RecordingStart) {
        let key = key.clone();
        self.post("a task's recording could not be entered", move |state| {
            state.enter_recording(&key, &start)
        });
    }

    /// Ends recordings that are over, once everything of them is durable.
    fn end_what_is_settled(&self, now: Moment) {
        let mut later = locked(&self.later);
        let over = take_settled(&mut later.over, now);
        let discarded = take_settled(&mut later.discarded, now);
        for closed in take_settled(&mut later.closed, now) {
            later.opened.remove(&closed);
        }
        drop(later);
        if !over.is_empty() {
            self.post("recordings could not be ended", move |state| state.end_recordings(&over));
        }
        if !discarded.is_empty() {
            self.post("recordings could not be discarded", move |state| {
                state.discard_recordings(&discarded)
            });
        }
    }
}

/// What is on a list since long enough for everything of then to be durable.
fn take_settled<T>(list: &mut Vec<(T, Moment)>, now: Moment) -> Vec<T> {
    let settled = |since: &Moment| now.at.boot.0.saturating_sub(since.at.boot.0) > SETTLED_AFTER_MS;
    list.extract_if(.., |(_, since)| settled(since)).map(|(one, _)| one).collect()
}

/// Whether all that came in a task's window is durable, or lost; before that what came last may be on
/// its way to the ring. `None`: nobody knows the time.
fn is_settled(task: &Task, now: Moment) -> Option<bool> {
    let settled_ms = task.end_ms.saturating_add(SETTLED_AFTER_MS.cast_signed());
    now.trusted_wall().map(|wall| wall.0 >= settled_ms)
}

fn is_on(stages: &[(StreamKey, Arc<Mutex<Stage>>)], key: &StreamKey, task: &Task) -> bool {
    let stage = stages.iter().find(|(of, _)| of == key).map(|(_, stage)| stage);
    stage.is_some_and(|stage| lock(stage).programme().tasks().any(|id| id == task.id()))
}
