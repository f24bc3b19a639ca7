//! Samples in, sealed fragments out: decides by the rules in force what becomes of a stream,
//! drives the recording machine, cuts fragments, and hands them to the ring. Never waits; time and
//! randomness come in as arguments.

pub mod fragmenter;
pub mod live;
pub mod media_clock;
pub mod paused;
pub mod rules;
pub mod session;
pub mod stream;

use std::sync::Arc;

use tracing::{error, info};

use crate::domain::ids::{BootId, RecordingId, SessionId};
use crate::domain::limits::{FRAGMENT_BYTES_TARGET, SAMPLE_BYTES_MAX};
use crate::domain::matching::{Decision, Match};
use crate::domain::recording::{Recording, RecordingPlan};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{BootTime, Instant};
use crate::recorder::live::{LiveEntry, LiveSession, LiveTable};
use crate::recorder::paused::PausedTable;
use crate::recorder::rules::RulesInForce;
use crate::recorder::session::{RecordedSession, SessionParts};
use crate::ring::catalog::open::{FilePlan, RecordingContent, RecordingStart};
use crate::ring::fragment::SessionStart;
use crate::ring::handle::Ring;

/// How streams are recorded, whatever the rules say.
#[derive(Debug, Clone, Copy)]
pub struct RecorderSettings {
    /// Streams that no rule matches are kept in the ring.
    pub keep_all: bool,
    /// Longest HLS file, in seconds.
    pub hls_clip_max_s: u32,
    /// A fragment is closed before it grows over this, in bytes.
    pub fragment_bytes_target: usize,
    /// A larger sample is dropped, in bytes.
    pub sample_bytes_max: usize,
    /// What the growing clips of one format may pin in the ring, all streams together, in bytes.
    pub clips_bytes_max: u64,
}

impl RecorderSettings {
    /// Settings for slots of this size: half a slot at most is one sample and a quarter one
    /// fragment of several, so that a fragment always fits.
    #[must_use]
    pub fn for_slots(slot_bytes: u64, keep_all: bool, hls_clip_max_s: u32) -> Self {
        let slot_bytes = usize::try_from(slot_bytes).unwrap_or(usize::MAX);
        RecorderSettings {
            keep_all,
            hls_clip_max_s,
            fragment_bytes_target: FRAGMENT_BYTES_TARGET.min(slot_bytes / 4),
            sample_bytes_max: SAMPLE_BYTES_MAX.min(slot_bytes / 2),
            clips_bytes_max: u64::MAX,
        }
    }
}

/// A stream that begins.
#[derive(Debug)]
pub struct Beginning {
    /// Which stream.
    pub key: StreamKey,
    /// How it comes (`rtmp`, `rtsp`).
    pub protocol: &'static str,
    /// Query string of the push URL; may hold secrets.
    pub query: String,
    /// When.
    pub now: Instant,
    /// In which boot.
    pub boot_id: BootId,
}

/// As many streams are recorded as the box can.
#[derive(Debug, thiserror::Error)]
#[error("the box records as many streams as it can")]
pub struct Full;

/// Records streams into a ring.
pub struct Recorder {
    ring: Arc<Ring>,
    rules: RulesInForce,
    live: Arc<LiveTable>,
    paused: Arc<PausedTable>,
    settings: RecorderSettings,
}

/// What becomes of a stream.
pub enum Session {
    /// It goes to the ring.
    Recorded(Box<RecordedSession>),
    /// Nothing asks to keep it: its media ends here, no byte of it reaches flash.
    Unrecorded(LiveEntry),
}

impl Recorder {
    /// A recorder that decides by `rules` and enters sessions into `live`.
    #[must_use]
    pub fn new(
        ring: Arc<Ring>,
        rules: RulesInForce,
        live: Arc<LiveTable>,
        settings: RecorderSettings,
    ) -> Self {
        Recorder { ring, rules, live, paused: Arc::default(), settings }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &RulesInForce {
        &self.rules
    }

    /// Begins a session under the rules in force now; they stay its rules to its end. `random`
    /// gives uniform numbers for identities.
    ///
    /// # Errors
    /// As many streams are recorded as the box can.
    pub fn begin(
        &self,
        beginning: Beginning,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<Session, Full> {
        let Beginning { key, protocol, query, now, boot_id } = beginning;
        let decision = self.rules.load().table.resolve(&key);
        let id = SessionId(random() >> 1);
        info!(stream = %key, session = %id, decision = decision.word(), "session begins");
        let live = LiveSession { session: id, began: now, decision: decision.clone() };
        let enter = || LiveEntry::new(self.live.clone(), key.clone(), live);
        let (recordings, starts): (Vec<_>, Vec<_>) = match &decision {
            Decision::Record(matched) => match self.returned(&key, &decision, now) {
                Some(continued) => (vec![continued], Vec::new()),
                None => {
                    let one = self.recording(matched, RecordingId(random() >> 1));
                    std::iter::once(one).unzip()
                }
            },
            Decision::Unmatched if self.settings.keep_all => Default::default(),
            Decision::Unmatched | Decision::NoRecord(_) => {
                return Ok(Session::Unrecorded(enter()));
            }
        };
        let Some(lane) = self.ring.lanes.open() else {
            for recording in &recordings {
                self.paused.give_up(recording.plan().id, now.boot);
            }
            return Err(Full);
        };
        let entry = enter();
        let session = Arc::new(SessionStart { id, key, boot_id, began: now, protocol, query });
        let (catalog, stored) = (self.ring.catalog.clone(), session.clone());
        catalog.post(move |state| {
            if let Err(error) = state.begin_session(&stored, &starts) {
                error!(%error, "a session could not be entered into the catalog");
            }
        });
        Ok(Session::Recorded(Box::new(RecordedSession::new(SessionParts {
            session,
            recordings,
            lane,
            catalog,
            entry,
            paused: self.paused.clone(),
            settings: self.settings,
        }))))
    }

    /// Ends recordings whose stream did not come back in time. To be called each second or so.
    pub fn tick(&self, now: BootTime) {
        self.end_recordings(self.paused.expire(now));
    }

    /// The recording that goes on now that its stream is back.
    fn returned(&self, key: &StreamKey, decision: &Decision, now: Instant) -> Option<Recording> {
        let continued = self.paused.take(key, decision, now.boot);
        if let Some(recording) = &continued {
            info!(recording = %recording.plan().id, "the recording goes on");
        }
        continued
    }

    fn end_recordings(&self, recordings: Vec<RecordingId>) {
        if recordings.is_empty() {
            return;
        }
        self.ring.catalog.post(move |state| {
            if let Err(error) = state.end_recordings(&recordings) {
                error!(%error, "recordings could not be ended in the catalog");
            }
        });
    }

    fn recording(&self, matched: &Match, id: RecordingId) -> (Recording, RecordingStart) {
        let template = &matched.template;
        let plan = RecordingPlan::of_template(id, template, self.settings.hls_clip_max_s);
        let files = template.formats().iter().filter_map(|format| {
            let params = template.params(format)?;
            Some(FilePlan {
                format: format.name().to_owned(),
                storage_time_s: u64::from(params.storage_time_s),
                name_pattern: params.vod_file_name.as_str().to_owned(),
            })
        });
        let content = RecordingContent {
            template: template.name.clone(),
            rule: matched.rule.to_string(),
            layer: matched.layer.to_string(),
            revision: matched.revision,
            files: files.collect(),
        };
        (Recording::new(plan), RecordingStart { id, content })
    }
}
