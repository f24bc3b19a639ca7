//! A stage takes new rules: a live session that they decide otherwise about is restarted at a key
//! frame, or its pusher is dropped to come back under them.

use tracing::info;

use crate::domain::ids::SessionId;
use crate::domain::restart_plan::next_restart;
use crate::domain::time::{BootTime, Moment};
use crate::recorder::Recorder;
use crate::recorder::feed::Feed;
use crate::recorder::live::LiveEntry;
use crate::recorder::stage::Stage;
use crate::ring::layout::stream_hash;

/// What a stage knows of restarts.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// Number of the rules that were looked at last.
    rules_seen: u64,
    due: Option<Restart>,
    /// When the stream was restarted or dropped last.
    last: Option<BootTime>,
}

/// A restart that is due.
#[derive(Debug, Clone, Copy)]
struct Restart {
    at: BootTime,
    /// The connection is closed instead: the source is to come back by itself.
    disconnect: bool,
}

impl Restarts {
    /// A session begins under the rules of this number.
    pub(super) fn begin(&mut self, rules: u64) {
        (self.rules_seen, self.due) = (rules, None);
    }
}

impl Stage {
    /// Plans a restart where rules came that decide otherwise.
    pub(super) fn look_at_rules(&mut self, recorder: &Recorder) {
        let rules = recorder.rules().load();
        if rules.number == self.restarts.rules_seen {
            return;
        }
        self.restarts.rules_seen = rules.number;
        let decision = rules.table.resolve(&self.key);
        let stale = self.programme.decision().is_some_and(|before| !before.same_content(&decision));
        let (planned, last) = (self.restarts.due.map(|due| due.at), self.restarts.last);
        let spread = stream_hash(&self.key);
        let at = next_restart(&rules.apply, rules.since, spread, planned, last);
        let at = at.filter(|_| stale);
        self.restarts.due = at.map(|at| Restart { at, disconnect: rules.apply.disconnect });
        if let Some(entry) = &self.entry {
            entry.plan(at);
        }
    }

    /// Restarts the session before a sample with which decoding can begin, if that is due. Tells
    /// whether its pusher is to be dropped instead.
    pub(super) fn restart_if_due(
        &mut self,
        recorder: &Recorder,
        feed: &Feed,
        now: Moment,
        random: &mut dyn FnMut() -> u64,
    ) -> bool {
        let due = self.restarts.due.take_if(|due| now.at.boot >= due.at);
        let Some(Restart { disconnect, .. }) = due else { return false };
        self.restarts.last = Some(now.at.boot);
        // A camera that is pulled has no say in when it comes back, and a mixer beside the publisher is
        // not what the key waits for.
        let is_pushed = feed.protocol == "rtmp" && self.original == Some(feed.id);
        let stayed_away = recorder.service().load().drops.stayed_away(&self.key);
        if disconnect && is_pushed && !stayed_away {
            recorder.note_dropped(&self.key, now);
            return true;
        }
        if disconnect && stayed_away {
            info!(stream = %self.key, "not dropped, as it did not come back the last time");
        }
        self.restart(recorder, now, random);
        false
    }

    /// Somebody asked for a restart: it is due at once.
    pub(super) fn take_restart_order(&mut self, now: Moment) {
        if self.entry.as_ref().is_some_and(LiveEntry::is_restart_asked) {
            let disconnect = self.restarts.due.is_some_and(|planned| planned.disconnect);
            self.restarts.due = Some(Restart { at: now.at.boot, disconnect });
        }
    }

    /// The live session takes the rules in force, with the sample that comes next.
    fn restart(&mut self, recorder: &Recorder, now: Moment, random: &mut dyn FnMut() -> u64) {
        let decision = recorder.rules().load().table.resolve(&self.key);
        info!(stream = %self.key, decision = decision.word(), "restarted under the rules in force");
        if let Some(session) = &mut self.session {
            session.cut(&mut self.programme);
        }
        let begun = self.programme.restart(decision.clone(), recorder.settings().keep_all);
        self.enter_live(recorder, SessionId(random() >> 1), &decision, now);
        self.take_begun(recorder, begun, &decision, now, random);
        let starts = std::mem::take(&mut self.starts);
        match &self.session {
            Some(session) => recorder.enter_recordings(session.start(), starts),
            None => self.starts = starts,
        }
    }
}
