//! The gap ledger's part of a stage: what is due and not recorded, and why.

use std::time::Duration;

use tracing::{error, warn};

use crate::domain::due::{GapEntry, Missing};
use crate::domain::ids::BootId;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::Moment;
use crate::recorder::Recorder;
use crate::recorder::session::RecordedSession;
use crate::recorder::stage::Stage;
use crate::ring::catalog::Catalog;
use crate::ring::catalog::pushes::PushId;

/// Without media for this long a live stream is not being recorded.
const SILENT: Duration = Duration::from_secs(3);
/// A camera that was closed to be opened anew delivers within this; else it does not deliver at all.
const REOPENS_WITHIN: Duration = Duration::from_secs(15);

impl Stage {
    /// Why something that is due is not recorded; `None`: all is well.
    pub(super) fn missing(
        &self,
        recorder: &Recorder,
        now: Moment,
        is_source: bool,
    ) -> Option<Missing> {
        if !self.programme.is_live() {
            return match () {
                () if !is_source && !self.programme.waits() && !self.programme.is_due() => None,
                () if recorder.is_forbidden(&self.key, now) => Some(Missing::Forbidden),
                () if is_source && self.reopens(now) => Some(Missing::Reopened),
                () if is_source => Some(Missing::Camera),
                () if self.programme.waits() => Some(Missing::Interrupted),
                () => Some(Missing::NotLive),
            };
        }
        if !self.programme.is_due() {
            return None;
        }
        let kept = self.session.as_ref().and_then(RecordedSession::last_kept);
        match kept {
            None if self.full => Some(Missing::Full),
            None => Some(Missing::NoKeyFrame),
            Some(kept) => (now.at.boot.since(kept.boot) > SILENT).then_some(Missing::NoMedia),
        }
    }

    /// Something is missing, or nothing is.
    pub(super) fn watch_gap(&mut self, missing: Option<Missing>, recorder: &Recorder, now: Moment) {
        let (key, catalog) = (&self.key, recorder.catalog());
        let mut enter = |entry| enter_gap(catalog, key, now.boot_id, entry);
        match missing {
            Some(cause) => {
                let from = self.kept.filter(|_| !self.due.is_missing()).unwrap_or(now.at);
                self.due.missing(from, cause, now.at, &mut enter);
            }
            None => self.due.over(now.at, &mut enter),
        }
    }

    /// A feeder is gone to come back at once. Where what it fed was recorded, the gap begins.
    pub fn reopen(&mut self, recorder: &Recorder, feed: PushId, cause: &str, now: Moment) {
        let was_due = self.feeder() == Some(feed) && self.programme.is_due();
        self.leave(recorder, feed, cause, now);
        if was_due {
            self.reopens = Some(now.at.boot);
            self.watch_gap(Some(Missing::Reopened), recorder, now);
        }
    }

    fn reopens(&self, now: Moment) -> bool {
        self.reopens.is_some_and(|since| now.at.boot.since(since) < REOPENS_WITHIN)
    }

    /// A sample is kept: nothing is missing.
    pub(super) fn media_kept(&mut self, recorder: &Recorder, kept: Moment) {
        (self.kept, self.reopens) = (Some(kept.at), None);
        if self.due.is_missing() {
            let (key, catalog) = (&self.key, recorder.catalog());
            let mut enter = |entry| enter_gap(catalog, key, kept.boot_id, entry);
            self.due.over(kept.at, &mut enter);
        }
    }
}

fn enter_gap(catalog: &Catalog, key: &StreamKey, boot_id: BootId, entry: GapEntry) {
    if let GapEntry::Begins { cause, .. } = entry {
        warn!(stream = %key, cause = cause.words(), "what is due is not recorded");
    }
    let key = key.clone();
    catalog.post(move |state| {
        if let Err(problem) = state.enter_watched_gap(&key, boot_id, entry) {
            error!(%problem, "a gap could not be entered into the ledger");
        }
    });
}
