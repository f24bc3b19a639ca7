//! The stage of one stream key: its programme of recordings, the session that carries its media to
//! the ring, and who feeds it. Everything that happens to the key goes through here, one thing after
//! the other; nothing here waits.

mod gaps;
mod restarts;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::info;

use crate::domain::due::{DueWatch, Missing};
use crate::domain::ids::{FragmentSequence, RecordingId, SessionId, TaskId};
use crate::domain::matching::Decision;
use crate::domain::programme::{Begun, Closed, Ended, Ending, Programme, Why};
use crate::domain::recording::Recording;
use crate::domain::sample::{Sample, Track, TrackId};
use crate::domain::stream_key::StreamKey;
use crate::domain::task::Standing;
use crate::domain::time::{BootTime, Instant, Moment};
use crate::recorder::feed::Feed;
use crate::recorder::live::{LiveEntry, LiveSession};
use crate::recorder::session::{RecordedSession, SessionFault, SessionParts};
use crate::recorder::stage::restarts::Restarts;
use crate::recorder::watch::StageWatch;
use crate::recorder::{Full, Recorder, SETTLED_AFTER_MS};
use crate::ring::catalog::open::RecordingStart;
use crate::ring::catalog::pushes::PushId;
use crate::ring::catalog::take_up::Unwanted;
use crate::ring::fragment::SessionStart;

/// Tasks are looked at again after this, whatever their windows say: clocks step.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The stage of one stream key.
pub struct Stage {
    key: StreamKey,
    programme: Programme,
    session: Option<RecordedSession>,
    /// Recordings that begin with the next session.
    starts: Vec<RecordingStart>,
    entry: Option<LiveEntry>,
    /// Whose samples count.
    feeder: Option<PushId>,
    /// The publisher beside which a mixer may feed.
    original: Option<PushId>,
    restarts: Restarts,
    /// Number of what the API has set that was looked at last.
    service_seen: u64,
    look_at: BootTime,
    due: DueWatch,
    watch: StageWatch,
    /// When the last sample was kept.
    kept: Option<Instant>,
    /// Since when its camera is being opened anew.
    reopens: Option<BootTime>,
    /// No lane was free.
    full: bool,
    /// The session that ended last, until everything of it is durable for sure.
    ended: Option<(SessionId, BootTime)>,
}

impl Stage {
    /// An empty stage.
    #[must_use]
    pub fn new(key: StreamKey) -> Self {
        Stage {
            key,
            programme: Programme::default(),
            session: None,
            starts: Vec::new(),
            entry: None,
            feeder: None,
            original: None,
            restarts: Restarts::default(),
            service_seen: u64::MAX,
            look_at: BootTime(0),
            due: DueWatch::default(),
            watch: StageWatch::default(),
            kept: None,
            reopens: None,
            full: false,
            ended: None,
        }
    }

    /// Its programme.
    #[must_use]
    pub fn programme(&self) -> &Programme {
        &self.programme
    }

    /// For what waits since before a restart of the box.
    pub fn programme_mut(&mut self) -> &mut Programme {
        &mut self.programme
    }

    /// Whether nothing happens on it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.programme.is_idle()
            && self.feeder.is_none()
            && self.original.is_none()
            && !self.due.is_missing()
            && self.ended.is_none()
    }

    /// The session that has just ended, of which something may not be durable yet.
    #[must_use]
    pub fn just_ended(&self) -> Option<SessionId> {
        self.ended.map(|(session, _)| session)
    }

    /// Who feeds it.
    #[must_use]
    pub fn feeder(&self) -> Option<PushId> {
        self.feeder
    }

    /// Whether the live session is so young that perhaps nothing of it is durable yet.
    #[must_use]
    pub fn is_young(&self, now: Moment) -> bool {
        self.session.as_ref().is_some_and(|session| {
            now.at.boot.0 < session.start().began.boot.0.saturating_add(SETTLED_AFTER_MS)
        })
    }

    /// The session on its way to the ring, and from which fragment on nothing is missing in it.
    #[must_use]
    pub fn session(&self) -> Option<(SessionId, FragmentSequence)> {
        self.session.as_ref().map(|session| (session.id(), session.whole_since()))
    }

    /// The publisher of the key is there; its stream begins.
    ///
    /// # Errors
    /// As many streams are recorded as the box can.
    pub fn arrive(
        &mut self,
        recorder: &Recorder,
        feed: &Feed,
        now: Moment,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<(), Full> {
        self.original = Some(feed.id);
        let begun = self.feed_by(recorder, feed, now, random);
        match begun {
            Ok(()) => recorder.note_returned(&self.key, now),
            Err(Full) => self.original = None,
        }
        begun
    }

    /// A feeder's samples count from here on.
    ///
    /// # Errors
    /// As many streams are recorded as the box can.
    pub fn feed_by(
        &mut self,
        recorder: &Recorder,
        feed: &Feed,
        now: Moment,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<(), Full> {
        if self.programme.is_live() {
            self.finish("another feeder took over", Ending::HandedOver, recorder, now);
        }
        self.feeder = Some(feed.id);
        self.watch.begin();
        let rules = recorder.rules().load_full();
        self.restarts.begin(rules.number);
        let decision = rules.table.resolve(&self.key);
        let id = SessionId(random() >> 1);
        info!(stream = %self.key, session = %id, decision = decision.word(), "session begins");
        let begun = self.programme.begin(decision.clone(), recorder.settings().keep_all, now);
        self.enter_live(recorder, id, &decision, now);
        self.take_begun(recorder, begun, &decision, now, random);
        if !self.programme.wants_media() {
            return Ok(());
        }
        self.open_session(recorder, feed, id, now).inspect_err(|_| {
            recorder.tell_start_failed(&self.key, feed.protocol, self.starts.clone());
            self.finish("no lane is free", Ending::Gone, recorder, now);
            (self.feeder, self.entry) = (None, None);
        })
    }

    /// A feeder is gone.
    pub fn leave(&mut self, recorder: &Recorder, feed: PushId, cause: &str, now: Moment) {
        if self.original == Some(feed) {
            self.original = None;
        }
        if self.feeder != Some(feed) {
            return;
        }
        self.watch.end(&self.programme, self.feeder.take(), recorder.catalog());
        let ending = if self.original.is_some() { Ending::HandedOver } else { Ending::Gone };
        self.finish(cause, ending, recorder, now);
        if self.original.is_none() {
            self.entry = None;
            recorder.enter_decision(&self.key, None, now);
        }
    }

    /// Takes a sample of the feeder.
    ///
    /// # Errors
    /// The stream cannot or shall not go on; the caller ends it.
    pub fn sample(
        &mut self,
        recorder: &Recorder,
        feed: &Feed,
        sample: Sample,
        now: Moment,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<(), SessionFault> {
        self.entry.iter().for_each(|entry| entry.count(sample.data.len()));
        self.watch.sample(&self.programme, &feed.tracks, &sample, now.at);
        self.look_at_rules(recorder);
        self.look_at_tasks(recorder, now);
        let can_begin = feed.can_begin_with(&sample);
        self.take_restart_order(now);
        let drop = can_begin && self.restart_if_due(recorder, feed, now, random);
        let taken = self.take(recorder, feed, sample, now, random);
        // What comes until the connection is closed is recorded, this sample included.
        if drop { Err(SessionFault::DroppedForRules) } else { taken }
    }

    fn take(
        &mut self,
        recorder: &Recorder,
        feed: &Feed,
        sample: Sample,
        now: Moment,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<(), SessionFault> {
        let begins = self.session.is_none() && self.programme.wants_media();
        if begins && feed.can_begin_with(&sample) {
            let id = SessionId(random() >> 1);
            let full = self.open_session(recorder, feed, id, now).is_err();
            if full && !self.full {
                recorder.tell_start_failed(&self.key, feed.protocol, self.starts.clone());
            }
            self.full = full;
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        if !self.programme.wants_media() {
            self.close_session("nothing asks for it any more", Ended::default(), now);
            return Ok(());
        }
        let taken = session.sample(&mut self.programme, sample, now.at);
        self.watch.dropped(session.dropped_fragments());
        if let Some(kept) = session.last_kept() {
            self.media_kept(recorder, Moment { at: kept, ..now });
        }
        taken
    }

    /// The feeder's tracks changed.
    pub fn tracks(&mut self, tracks: &[Track]) {
        self.watch.tracks_changed();
        if let Some(session) = &mut self.session {
            session.tracks(&mut self.programme, tracks);
        }
    }

    /// Raw time of the feeder at media time 0 of a track.
    pub fn origin(&mut self, track: TrackId, raw: i64) {
        if let Some(session) = &mut self.session {
            session.origin(track, raw);
        }
    }

    /// Script data as the feeder sent it.
    pub fn script_data(&mut self, body: Bytes) {
        if let Some(session) = &mut self.session {
            session.script_data(body);
        }
    }

    /// A task's recording begins: `past` is the last fragment that it has already.
    pub fn open_task(
        &mut self,
        recording: Recording,
        why: Why,
        past: Option<(SessionId, FragmentSequence)>,
    ) {
        if let Some(session) = &mut self.session {
            session.cut(&mut self.programme);
        }
        let joins = past.zip(self.session()).is_some_and(|((of, last), (live, whole_since))| {
            of == live && FragmentSequence(last.0 + 1) >= whole_since
        });
        self.programme.open_task(recording, why, joins);
    }

    /// Time passes.
    pub fn tick(&mut self, recorder: &Recorder, now: Moment, is_source: bool) {
        self.look_at_rules(recorder);
        self.look_at_tasks(recorder, now);
        let settled = |(_, at): &(SessionId, BootTime)| now.at.boot.0 > at.0 + SETTLED_AFTER_MS;
        self.ended = self.ended.filter(|ended| !settled(ended));
        if let Some(session) = &mut self.session {
            session.tick(&mut self.programme, now.at.boot);
        }
        let expired = self.programme.expire(now);
        recorder.end_later(expired.over, now);
        recorder.interrupt(expired.interrupted);
        let missing = self.missing(recorder, now, is_source);
        if missing == Some(Missing::Camera) && self.due.cause() != missing {
            self.watch.pull_failed();
        }
        let of = (&self.key, self.feeder);
        self.watch.tick(&self.programme, of, recorder.catalog(), now.at);
        self.watch_gap(missing, recorder, now);
    }

    /// Ends the recordings of tasks whose window is past.
    fn look_at_tasks(&mut self, recorder: &Recorder, now: Moment) {
        let service = recorder.service().load();
        if service.number == self.service_seen && now.at.boot < self.look_at {
            return;
        }
        self.service_seen = service.number;
        let mut next_ms = LOOK_EVERY.as_millis() as u64;
        let mut over: Vec<TaskId> = Vec::new();
        for id in self.programme.tasks() {
            match service.tasks.any(id).map(|task| (task, task.standing(now))) {
                Some((task, Standing::Open)) => {
                    next_ms = next_ms.min(task.changes_in_ms(now).unwrap_or(next_ms));
                }
                _ => over.push(id),
            }
        }
        self.look_at = BootTime(now.at.boot.0.saturating_add(next_ms));
        let closed: Vec<(TaskId, Closed)> =
            over.into_iter().filter_map(|id| Some((id, self.programme.close_task(id)?))).collect();
        for (id, closed) in closed {
            info!(stream = %self.key, task = %id, recording = %closed.recording, "task ends");
            match service.tasks.any(id) {
                Some(task) if recorder.is_elsewhere(task, closed.opened, now) => {
                    let (start_ms, end_ms) = (task.start_ms, task.end_ms);
                    let unwanted = Unwanted { recording: closed.recording, start_ms, end_ms };
                    recorder.discard_later(unwanted, now);
                }
                _ => {}
            }
            recorder.reopens_later(id, &self.key, now);
            self.end_recordings(recorder, &[closed.recording], now);
        }
    }

    /// Recordings are over while their stream may go on.
    fn end_recordings(&mut self, recorder: &Recorder, over: &[RecordingId], now: Moment) {
        if over.is_empty() {
            return;
        }
        match &mut self.session {
            Some(session) => session.end_recordings(&mut self.programme, over),
            None => recorder.end_later(over.to_vec(), now),
        }
    }

    fn enter_live(
        &mut self,
        recorder: &Recorder,
        session: SessionId,
        decision: &Decision,
        now: Moment,
    ) {
        let decision_now = decision.clone();
        let live = LiveSession { session, began: now.at, decision: decision_now, restart: None };
        // The new entry takes the place of the old one before that leaves.
        self.entry = Some(LiveEntry::new(recorder.live(), self.key.clone(), live));
        recorder.enter_decision(&self.key, Some(decision), now);
    }

    fn take_begun(
        &mut self,
        recorder: &Recorder,
        begun: Begun,
        decision: &Decision,
        now: Moment,
        random: &mut dyn FnMut() -> u64,
    ) {
        self.end_recordings(recorder, &begun.over, now);
        if let (true, Some(matched)) = (begun.wants_template, decision.matched()) {
            let id = RecordingId(random() >> 1);
            let (recording, start) = recorder.by_template(matched, id);
            self.programme.add_template(recording, Arc::clone(&matched.template));
            self.starts.push(start);
        }
    }

    fn open_session(
        &mut self,
        recorder: &Recorder,
        feed: &Feed,
        id: SessionId,
        now: Moment,
    ) -> Result<(), Full> {
        let lane = recorder.open_lane()?;
        let start = Arc::new(SessionStart {
            id,
            key: self.key.clone(),
            boot_id: now.boot_id,
            began: now.at,
            protocol: feed.protocol,
            query: feed.query.clone(),
        });
        recorder.enter_session(start.clone(), std::mem::take(&mut self.starts));
        let mut session = RecordedSession::new(SessionParts {
            session: start,
            lane,
            watched: recorder.watched(&self.key),
            catalog: recorder.catalog().clone(),
            live: recorder.live(),
            settings: recorder.settings(),
        });
        session.tracks(&mut self.programme, &feed.tracks);
        feed.origins.iter().for_each(|(track, raw)| session.origin(*track, *raw));
        session.script_data(feed.script_data.clone());
        self.session = Some(session);
        Ok(())
    }

    /// The live session ends, and what it fed waits or is over.
    fn finish(&mut self, cause: &str, ending: Ending, recorder: &Recorder, now: Moment) {
        if let Some(session) = &mut self.session {
            session.flush(&mut self.programme, now.at);
        }
        let ended = self.programme.end(ending, now);
        self.starts.clear();
        if self.session.is_none() {
            info!(stream = %self.key, %cause, "session ends");
            recorder.end_later(ended.over, now);
            return;
        }
        self.close_session(cause, ended, now);
    }

    fn close_session(&mut self, cause: &str, ended: Ended, now: Moment) {
        if let Some(session) = self.session.take() {
            self.ended = Some((session.id(), now.at.boot));
            session.end(&mut self.programme, cause, ended, now.at);
        }
    }
}
