//! A live stream on one connection: one session after the other. New rules end a stale session and
//! begin the next at a key frame, on the same connection, so that no sample is lost.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use crate::domain::ids::BootId;
use crate::domain::restart_plan::restart_at;
use crate::domain::sample::{Sample, Track, TrackId};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{BootTime, Instant};
use crate::recorder::session::SessionFault;
use crate::recorder::{Beginning, Full, Recorder, Session};
use crate::ring::layout::stream_hash;

/// A stream from its arrival to its end.
pub struct LiveStream {
    recorder: Arc<Recorder>,
    key: StreamKey,
    protocol: &'static str,
    query: String,
    boot_id: BootId,
    session: Session,
    /// Number of the rules that were looked at last.
    rules_seen: u64,
    restart: Option<Restart>,
    tracks: Vec<Track>,
    origins: Vec<(TrackId, i64)>,
    script_data: Bytes,
}

/// A restart that is due.
#[derive(Debug, Clone, Copy)]
struct Restart {
    at: BootTime,
    /// The connection is closed instead: the source is to come back by itself.
    disconnect: bool,
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
        let (key, query) = (beginning.key.clone(), beginning.query.clone());
        let (protocol, boot_id) = (beginning.protocol, beginning.boot_id);
        let rules_seen = recorder.rules().load().number;
        let session = recorder.begin(beginning, random)?;
        Ok(LiveStream {
            recorder,
            key,
            protocol,
            query,
            boot_id,
            session,
            rules_seen,
            restart: None,
            tracks: Vec::new(),
            origins: Vec::new(),
            script_data: Bytes::new(),
        })
    }

    /// The full set of tracks, before the first sample and whenever it changes.
    pub fn tracks(&mut self, tracks: &[Track]) {
        self.tracks = tracks.to_vec();
        if let Session::Recorded(session) = &mut self.session {
            session.tracks(tracks);
        }
    }

    /// Raw time of the source at media time 0 of a track.
    pub fn origin(&mut self, track: TrackId, raw: i64) {
        self.origins.retain(|(known, _)| *known != track);
        self.origins.push((track, raw));
        if let Session::Recorded(session) = &mut self.session {
            session.origin(track, raw);
        }
    }

    /// Script data as the encoder sent it.
    pub fn script_data(&mut self, body: Bytes) {
        self.script_data = body.clone();
        if let Session::Recorded(session) = &mut self.session {
            session.script_data(body);
        }
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
        self.look_at_rules();
        if let Some(restart) = self.restart
            && now.boot >= restart.at
            && self.can_begin_with(&sample)
        {
            if restart.disconnect {
                return Err(SessionFault::DroppedForRules);
            }
            self.restart(now, random);
        }
        match &mut self.session {
            Session::Recorded(session) => session.sample(sample, now),
            Session::Unrecorded(_) => Ok(()),
        }
    }

    /// The stream is over.
    pub fn end(self, cause: &str, now: Instant) {
        match self.session {
            Session::Recorded(session) => session.end(cause, now),
            Session::Unrecorded(_) => info!(%cause, "session ends"),
        }
    }

    /// Plans a restart where rules came that decide otherwise.
    fn look_at_rules(&mut self) {
        let rules = self.recorder.rules().load();
        if rules.number == self.rules_seen {
            return;
        }
        self.rules_seen = rules.number;
        let decision = rules.table.resolve(&self.key);
        let stale = match &self.session {
            Session::Recorded(session) => !session.decision().same_content(&decision),
            Session::Unrecorded(entry) => !entry.decision().same_content(&decision),
        };
        let at = restart_at(&rules.apply, rules.since, stream_hash(&self.key)).filter(|_| stale);
        self.restart = at.map(|at| Restart { at, disconnect: rules.apply.disconnect });
    }

    fn can_begin_with(&self, sample: &Sample) -> bool {
        let has_video = self.tracks.iter().any(Track::is_video);
        let of_video =
            || self.tracks.iter().any(|track| track.id == sample.track && track.is_video());
        sample.key && (!has_video || of_video())
    }

    /// Ends the session and begins the next under the rules in force, at this sample.
    fn restart(&mut self, now: Instant, random: &mut dyn FnMut() -> u64) {
        let beginning = Beginning {
            key: self.key.clone(),
            protocol: self.protocol,
            query: self.query.clone(),
            now,
            boot_id: self.boot_id,
        };
        let mut next = match self.recorder.begin(beginning, random) {
            Ok(next) => next,
            Err(Full) => {
                warn!("no room for a new session beside the old one, the old one goes on");
                return;
            }
        };
        self.restart = None;
        if let Session::Recorded(session) = &mut next {
            session.tracks(&self.tracks);
            for (track, raw) in &self.origins {
                session.origin(*track, *raw);
            }
            session.script_data(self.script_data.clone());
        }
        match std::mem::replace(&mut self.session, next) {
            Session::Recorded(session) => session.end_for_good("restarted to take new rules", now),
            Session::Unrecorded(_) => {}
        }
    }
}
