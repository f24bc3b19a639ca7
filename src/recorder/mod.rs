//! Samples in, sealed fragments out: each stream key has a stage, where a programme decides which
//! recordings take its samples; fragments are cut and handed to the ring. Never waits, but for
//! opening tasks ([`tasks`]); time and randomness come in as arguments.

pub mod feed;
pub mod fragmenter;
pub mod live;
pub mod media_clock;
pub mod rules;
pub mod session;
pub mod stage;
pub mod stream;
pub mod tasks;
pub mod watch;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::error;

use crate::domain::ids::{BootId, RecordingId, TaskId};
use crate::domain::limits::{FRAGMENT_BYTES_TARGET, SAMPLE_BYTES_MAX};
use crate::domain::matching::{Decision, Match};
use crate::domain::recording::{Recording, RecordingPlan};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{Instant, Moment};
use crate::recorder::live::LiveTable;
use crate::recorder::rules::RulesInForce;
use crate::recorder::stage::Stage;
use crate::recorder::tasks::Opening;
use crate::ring::RingError;
use crate::ring::catalog::ledger::DecisionRecord;
use crate::ring::catalog::open::{RecordingContent, RecordingStart};
use crate::ring::catalog::pushes::PushId;
use crate::ring::catalog::service::ServiceInForce;
use crate::ring::catalog::take_up::Unwanted;
use crate::ring::catalog::waiting::WaitingRecording;
use crate::ring::catalog::{Catalog, CatalogState};
use crate::ring::fragment::SessionStart;
use crate::ring::handle::Ring;
use crate::ring::lane::StreamLane;
use crate::ring::live_hub::LiveSource;

/// What a session wrote last is durable by then: what is over without a session is ended this much
/// later, in milliseconds.
const SETTLED_AFTER_MS: u64 = 12_000;

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
    /// Which push or pull.
    pub push: PushId,
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
    service: ServiceInForce,
    live: Arc<LiveTable>,
    settings: RecorderSettings,
    stages: Mutex<BTreeMap<StreamKey, Arc<Mutex<Stage>>>>,
    later: Mutex<Later>,
}

/// What is to be done once everything written is durable, and what was done.
#[derive(Default)]
struct Later {
    over: Vec<(RecordingId, Moment)>,
    discarded: Vec<(Unwanted, Moment)>,
    /// Tasks whose window is not open any more, which a clock that is set may open again.
    closed: Vec<((TaskId, StreamKey), Moment)>,
    /// Tasks that are being opened, or were, by stream.
    opened: HashSet<(TaskId, StreamKey)>,
    /// Tasks whose past is not whole yet.
    unfinished: Vec<Opening>,
    last: Option<Moment>,
}

impl Recorder {
    /// A recorder that decides by `rules` and by what the API has set, and enters sessions into
    /// `live`. Recordings that wait since before a restart are taken up.
    ///
    /// # Errors
    /// The catalog is gone.
    pub fn new(
        ring: Arc<Ring>,
        rules: RulesInForce,
        live: Arc<LiveTable>,
        settings: RecorderSettings,
    ) -> Result<Self, RingError> {
        let (service, waiting) =
            ring.catalog.call_blocking(|state| Ok((state.service(), state.take_waiting())))?;
        let recorder = Recorder {
            ring,
            rules,
            service,
            live,
            settings,
            stages: Mutex::default(),
            later: Mutex::default(),
        };
        waiting.into_iter().for_each(|waiting| recorder.take_up(waiting));
        Ok(recorder)
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &RulesInForce {
        &self.rules
    }

    /// What callers of the API have set.
    #[must_use]
    pub fn service(&self) -> &ServiceInForce {
        &self.service
    }

    /// The stage of a stream key.
    #[must_use]
    pub fn stage(&self, key: &StreamKey) -> Arc<Mutex<Stage>> {
        let mut stages = locked(&self.stages);
        let stage = stages
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Mutex::new(Stage::new(key.clone()))));
        stage.clone()
    }

    /// The mix of which a publisher with this query may be the mixer; it then feeds `key` beside
    /// another publisher.
    #[must_use]
    pub fn mixer_of(&self, key: &StreamKey, query: &str) -> Option<String> {
        let mix = crate::domain::service::mixes::mix_of_query(query)?;
        self.is_mixer_of(key, mix).then(|| mix.to_owned())
    }

    /// Whether a mix has the stream as its output and one of its inputs.
    #[must_use]
    pub fn is_mixer_of(&self, key: &StreamKey, mix: &str) -> bool {
        self.service.load().mixes.taking(mix, key.stream()).is_some()
    }

    /// When time last passed.
    pub(super) fn last_moment(&self, boot_id: BootId) -> Moment {
        let began = || Moment { at: crate::domain::time::Instant::START, boot_id };
        locked(&self.later).last.unwrap_or_else(began)
    }

    fn take_up(&self, waiting: WaitingRecording) {
        let WaitingRecording { id, key, content, pause, hls_ms } = waiting;
        let Some(template) = content.content else { return };
        let plan = RecordingPlan::of_template(id, &template, self.settings.hls_clip_max_s);
        let recording = Recording::resumed(plan, hls_ms);
        let stage = self.stage(&key);
        stream::lock(&stage).programme_mut().add_paused(recording, Arc::new(template), pause);
    }

    fn settings(&self) -> RecorderSettings {
        self.settings
    }

    fn live(&self) -> Arc<LiveTable> {
        self.live.clone()
    }

    fn catalog(&self) -> &Catalog {
        &self.ring.catalog
    }

    fn open_lane(&self) -> Result<StreamLane, Full> {
        self.ring.lanes.open().ok_or(Full)
    }

    fn watched(&self, key: &StreamKey) -> LiveSource {
        self.ring.live.begin(key.clone())
    }

    /// A recording by the template that the rules chose.
    fn by_template(&self, matched: &Match, id: RecordingId) -> (Recording, RecordingStart) {
        let template = &matched.template;
        let plan = RecordingPlan::of_template(id, template, self.settings.hls_clip_max_s);
        let number = self.service().load().layers.number(matched.template_layer, &template.name);
        let content = RecordingContent::by_rule(matched, number.map_or(0, |number| number.0));
        (Recording::new(plan), RecordingStart { id, content })
    }

    fn enter_session(&self, session: Arc<SessionStart>, starts: Vec<RecordingStart>) {
        self.post("a session could not be entered", move |state| {
            state.begin_session(&session, &starts)
        });
    }

    fn enter_recordings(&self, session: Arc<SessionStart>, starts: Vec<RecordingStart>) {
        if !starts.is_empty() {
            self.enter_session(session, starts);
        }
    }

    /// Says that recordings could not start, for want of a lane.
    fn tell_start_failed(&self, key: &StreamKey, protocol: &str, starts: Vec<RecordingStart>) {
        let (key, pulled) = (key.clone(), protocol == "rtsp");
        self.post("a recording that could not start is not told", move |state| {
            state.tell_start_failed(&key, pulled, starts)
        });
    }

    fn interrupt(&self, recordings: Vec<RecordingId>) {
        if !recordings.is_empty() {
            self.post("recordings could not be interrupted", move |state| {
                state.interrupt_recordings(&recordings)
            });
        }
    }

    /// Recordings are over that no session tells of; they are ended once all of them is durable.
    fn end_later(&self, recordings: Vec<RecordingId>, now: Moment) {
        locked(&self.later).over.extend(recordings.into_iter().map(|recording| (recording, now)));
    }

    /// What was recorded is not wanted: the window of its task turned out to be elsewhere.
    fn discard_later(&self, unwanted: Unwanted, now: Moment) {
        locked(&self.later).discarded.push((unwanted, now));
    }

    /// The window of a task on a stream is not open any more. Once what it recorded is durable, it may be
    /// opened again: it may lie ahead, or be open by a clock that is set once more.
    fn reopens_later(&self, task: TaskId, key: &StreamKey, now: Moment) {
        locked(&self.later).closed.push(((task, key.clone()), now));
    }

    fn is_forbidden(&self, key: &StreamKey, now: Moment) -> bool {
        self.service().load().forbids.holding(key, now.at.wall).is_some()
    }

    /// The pusher of a stream is dropped so that it comes back under new rules.
    fn note_dropped(&self, key: &StreamKey, now: Moment) {
        let key = key.clone();
        self.post("that a pusher was dropped is not remembered", move |state| {
            let dropped = state.change_service(|service, changes| {
                service.drops.dropped(&key, now, changes);
                Ok(())
            })?;
            dropped.expect("remembering is not refused");
            Ok(())
        });
    }

    /// A stream is there: its pusher may have been dropped.
    fn note_returned(&self, key: &StreamKey, now: Moment) {
        let key = key.clone();
        self.post("that a pusher came back is not remembered", move |state| {
            if !state.service().load().drops.stayed_away(&key) {
                return Ok(());
            }
            let returned = state.change_service(|service, changes| {
                service.drops.returned(&key, now, changes);
                Ok(())
            })?;
            returned.expect("forgetting is not refused");
            Ok(())
        });
    }

    fn enter_decision(&self, key: &StreamKey, decision: Option<&Decision>, now: Moment) {
        let decision = decision.map(DecisionRecord::from);
        let key = key.clone();
        self.post("a decision could not be kept", move |state| {
            state.enter_decision(&key, decision.as_ref(), now)
        });
    }

    fn post(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut CatalogState) -> Result<(), RingError> + Send + 'static,
    ) {
        self.ring.catalog.post(move |state| {
            if let Err(problem) = job(state) {
                error!(%problem, "{what}");
            }
        });
    }
}

/// Nothing panics while it holds one of the recorder's locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
