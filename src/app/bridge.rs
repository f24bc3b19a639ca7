//! Between ingest and recorder, which do not know each other: brings time, randomness and
//! cancellation to the recorder's sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::app::online::{Online, OnlineEntry};
use crate::app::trials::Trials;
use crate::domain::fleet::trial::Failing;
use crate::domain::notice::PushEndCause;
use crate::domain::sample::{Sample, Shape, Track, TrackId};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::Moment;
use crate::ingest::intake::{Arrival, EndCause, Intake, Protocol, Refusal, StreamSink};
use crate::platform::clock::Clock;
use crate::platform::planted;
use crate::platform::random::random_u64;
use crate::recorder::session::SessionFault;
use crate::recorder::stream::LiveStream;
use crate::recorder::{Beginning, Recorder};
use crate::ring::catalog::pushes::PushEnd;

/// Gives the streams of ingest to the recorder.
pub struct RecorderIntake {
    recorder: Arc<Recorder>,
    clock: Arc<dyn Clock>,
    online: Arc<Online>,
    trials: Arc<Trials>,
    shutdown: CancellationToken,
    rounds: AtomicU64,
}

impl RecorderIntake {
    /// An intake over a recorder; streams are told to end at `shutdown`, and when they are cut.
    #[must_use]
    pub(super) fn new(
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        online: Arc<Online>,
        trials: Arc<Trials>,
        shutdown: CancellationToken,
    ) -> Self {
        let rounds = AtomicU64::new(0);
        RecorderIntake { recorder: Arc::new(recorder), clock, online, trials, shutdown, rounds }
    }
}

impl RecorderIntake {
    /// Tells the recorder the time each second, and whenever it is woken, until `shutdown`; opens the
    /// tasks whose window has opened.
    pub async fn keep_time(self: Arc<Self>, wake: Arc<Notify>, shutdown: CancellationToken) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = second.tick() => {}
                () = wake.notified() => {}
            }
            self.rounds.fetch_add(1, Ordering::Relaxed);
            if planted::hangs("recorder") {
                std::future::pending::<()>().await;
            }
            self.trials.tick();
            let now = self.now();
            for opening in self.recorder.tick(now) {
                let recorder = self.recorder.clone();
                // Looks through the seals of the ring; the next second can wait for it.
                let opened = tokio::task::spawn_blocking(move || recorder.open(opening, now));
                drop(opened.await);
            }
        }
    }

    /// How often the recorder was told the time: one that waits for a stream is not told again.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    fn now(&self) -> Moment {
        Moment { at: self.clock.now(), boot_id: self.clock.boot_id() }
    }
}

impl Intake for RecorderIntake {
    fn place(&self, key: &StreamKey, query: &str) -> StreamKey {
        // No stream has a name with a `?` in it, so nobody else's place is this one.
        let beside = self.recorder.mixer_of(key, query).and_then(|mix| {
            StreamKey::new(key.domain(), key.app(), &format!("{}?mix={mix}", key.stream())).ok()
        });
        beside.unwrap_or_else(|| key.clone())
    }

    fn admit(&self, arrival: &Arrival) -> Result<Box<dyn StreamSink>, Refusal> {
        if self.shutdown.is_cancelled() {
            return Err(Refusal::Unavailable("it is shutting down".to_owned()));
        }
        let cancelled = self.shutdown.child_token();
        let mut online = self.online.enter(arrival, cancelled.clone());
        if let Some(cut) = online.was_cut() {
            return Err(Refusal::Unavailable(cut.cause.to_owned()));
        }
        let beginning = Beginning {
            key: arrival.key.clone(),
            push: online.id(),
            protocol: match arrival.protocol {
                Protocol::Rtmp => "rtmp",
                Protocol::Rtsp => "rtsp",
            },
            query: arrival.query.clone(),
            now: self.clock.now(),
            boot_id: self.clock.boot_id(),
        };
        let stream = LiveStream::begin(self.recorder.clone(), beginning, &mut random_u64)
            .map_err(|_| Refusal::Full)?;
        online.taken(arrival);
        let (clock, failed) = (self.clock.clone(), (self.trials.clone(), arrival.key.clone()));
        Ok(Box::new(RecorderSink { stream, picture: (0, 0), clock, cancelled, online, failed }))
    }

    fn failed(&self, key: &StreamKey, what: Failing, why: &str) {
        self.trials.failed(key, what, why);
    }
}

struct RecorderSink {
    stream: LiveStream,
    /// Width and height of its picture; zeros without one.
    picture: (u32, u32),
    clock: Arc<dyn Clock>,
    cancelled: CancellationToken,
    online: OnlineEntry,
    /// Who is told if it fails, and of which stream.
    failed: (Arc<Trials>, StreamKey),
}

impl StreamSink for RecorderSink {
    fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    fn tracks(&mut self, tracks: &[Track], left_out: &[String]) {
        for what in left_out {
            warn!(%what, "a track is left out");
        }
        for track in tracks {
            if let Shape::Video { width, height } = track.shape {
                self.picture = (width.into(), height.into());
            }
        }
        self.stream.tracks(tracks);
    }

    fn origin(&mut self, track: TrackId, raw: i64) {
        self.stream.origin(track, raw);
    }

    fn script_data(&mut self, body: Bytes) {
        self.stream.script_data(body);
    }

    fn sample(&mut self, sample: Sample) {
        if let Err(fault) = self.stream.sample(sample, self.clock.now(), &mut random_u64)
            && !self.cancelled.is_cancelled()
        {
            warn!(%fault, "the stream is ended");
            if matches!(fault, SessionFault::ChangesAllTheTime | SessionFault::NoRoom) {
                let (trials, key) = &self.failed;
                trials.failed(key, Failing::Recording, &fault.to_string());
            }
            self.cancelled.cancel();
        }
    }

    fn end(self: Box<Self>, cause: EndCause) {
        let told = cause.to_string();
        let in_words = self.online.was_cut().map_or(told, |cut| cut.cause.to_owned());
        match cause {
            EndCause::Reopened => self.stream.end_to_reopen(&in_words, self.clock.now()),
            _ => self.stream.end(&in_words, self.clock.now()),
        }
        let (errcode, cause) = end_cause(&cause).told();
        let (width, height) = self.picture;
        self.online.ended(PushEnd { cause, errcode, width, height });
    }
}

/// Why a push ended, as receivers are told.
fn end_cause(cause: &EndCause) -> PushEndCause {
    match cause {
        EndCause::Finished => PushEndCause::ClientClosed,
        EndCause::Disconnected(_) => PushEndCause::Network,
        EndCause::Silent => PushEndCause::Silent,
        EndCause::Replaced => PushEndCause::Dropped,
        EndCause::Cancelled | EndCause::Reopened => PushEndCause::Internal,
        EndCause::Faulty(_) => PushEndCause::Malformed,
    }
}
