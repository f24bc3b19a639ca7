//! A feeder of a stream key: a push or pull on its way to the stage of the key. A mixer feeds the
//! stage of one of its inputs from its first key frame on, beside the original, until its mix is
//! cancelled; the original goes on at its next key frame.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::domain::ids::BootId;
use crate::domain::sample::{Sample, Track, TrackId};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{Instant, Moment};
use crate::recorder::feed::Feed;
use crate::recorder::session::SessionFault;
use crate::recorder::stage::Stage;
use crate::recorder::{Beginning, Full, Recorder};

/// A stream from its arrival to its end.
pub struct LiveStream {
    recorder: Arc<Recorder>,
    stage: Arc<Mutex<Stage>>,
    key: StreamKey,
    boot_id: BootId,
    feed: Feed,
    /// The mix whose mixer this is.
    mix: Option<String>,
}

impl LiveStream {
    /// A stream that begins.
    ///
    /// # Errors
    /// As many streams are recorded as the box can.
    pub fn begin(
        recorder: Arc<Recorder>,
        beginning: Beginning,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<Self, Full> {
        let Beginning { key, push, protocol, query, now, boot_id } = beginning;
        let mix = recorder.mixer_of(&key, &query);
        let stage = recorder.stage(&key);
        let feed = Feed {
            id: push,
            protocol,
            query,
            tracks: Vec::new(),
            origins: Vec::new(),
            script_data: Bytes::new(),
        };
        if mix.is_none() {
            let now = Moment { at: now, boot_id };
            lock(&stage).arrive(&recorder, &feed, now, random)?;
        }
        Ok(LiveStream { recorder, stage, key, boot_id, feed, mix })
    }

    /// The full set of tracks, before the first sample and whenever it changes.
    pub fn tracks(&mut self, tracks: &[Track]) {
        self.feed.tracks = tracks.to_vec();
        self.if_feeding(|stage| stage.tracks(tracks));
    }

    /// Raw time of the source at media time 0 of a track.
    pub fn origin(&mut self, track: TrackId, raw: i64) {
        self.feed.origins.retain(|(known, _)| *known != track);
        self.feed.origins.push((track, raw));
        self.if_feeding(|stage| stage.origin(track, raw));
    }

    /// Script data as the encoder sent it.
    pub fn script_data(&mut self, body: Bytes) {
        self.feed.script_data = body.clone();
        self.if_feeding(|stage| stage.script_data(body));
    }

    /// Takes a sample that arrived at `now`; `random` is for the identities of a new session.
    ///
    /// # Errors
    /// The stream cannot or shall not go on; the caller ends it.
    pub fn sample(
        &mut self,
        sample: Sample,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<(), SessionFault> {
        let now = Moment { at: now, boot_id: self.boot_id };
        if let Some(mix) = &self.mix
            && !self.recorder.is_mixer_of(&self.key, mix)
        {
            return Err(SessionFault::MixCancelled);
        }
        let mut stage = lock(&self.stage);
        let feeds = stage.feeder() == Some(self.feed.id);
        if !feeds {
            // A mixer takes over from whoever feeds; the original only from nobody.
            let free = self.mix.is_some() || stage.feeder().is_none();
            if !free || !self.feed.can_begin_with(&sample) {
                return Ok(());
            }
            let began = stage.feed_by(&self.recorder, &self.feed, now, random);
            began.map_err(|_| SessionFault::NoRoom)?;
        }
        stage.sample(&self.recorder, &self.feed, sample, now, random)
    }

    /// The stream is over.
    pub fn end(self, cause: &str, now: Instant) {
        let now = Moment { at: now, boot_id: self.boot_id };
        lock(&self.stage).leave(&self.recorder, self.feed.id, cause, now);
    }

    /// The stream is over because its camera is opened anew; what it misses meanwhile is a gap of that
    /// cause.
    pub fn end_to_reopen(self, cause: &str, now: Instant) {
        let now = Moment { at: now, boot_id: self.boot_id };
        lock(&self.stage).reopen(&self.recorder, self.feed.id, cause, now);
    }

    fn if_feeding(&self, tell: impl FnOnce(&mut Stage)) {
        let mut stage = lock(&self.stage);
        if stage.feeder() == Some(self.feed.id) {
            tell(&mut stage);
        }
    }
}

/// A stream whose task panicked still leaves its stage.
impl Drop for LiveStream {
    fn drop(&mut self) {
        let last = self.recorder.last_moment(self.boot_id);
        let cause = "the stream's task ended without a word";
        lock(&self.stage).leave(&self.recorder, self.feed.id, cause, last);
    }
}

/// A panic between two samples leaves a stage that is whole.
pub(super) fn lock(stage: &Mutex<Stage>) -> std::sync::MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}
