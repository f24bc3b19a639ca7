//! Between ingest and recorder, which do not know each other: brings time, randomness and
//! cancellation to the recorder's sessions.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::domain::sample::{Sample, Track, TrackId};
use crate::ingest::intake::{Arrival, EndCause, Intake, Protocol, Refusal, StreamSink};
use crate::platform::clock::Clock;
use crate::platform::random::random_u64;
use crate::recorder::session::RecordedSession;
use crate::recorder::{Beginning, Recorder, Session};

/// Gives the streams of ingest to the recorder.
pub struct RecorderIntake {
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
}

impl RecorderIntake {
    /// An intake over a recorder; streams are told to end at `shutdown`.
    #[must_use]
    pub fn new(recorder: Recorder, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> Self {
        RecorderIntake { recorder, clock, shutdown }
    }
}

impl Intake for RecorderIntake {
    fn admit(&self, arrival: &Arrival) -> Result<Box<dyn StreamSink>, Refusal> {
        if self.shutdown.is_cancelled() {
            return Err(Refusal::Unavailable("it is shutting down".to_owned()));
        }
        let beginning = Beginning {
            key: arrival.key.clone(),
            protocol: match arrival.protocol {
                Protocol::Rtmp => "rtmp",
                Protocol::Rtsp => "rtsp",
            },
            query: arrival.query.clone(),
            now: self.clock.now(),
            boot_id: self.clock.boot_id(),
        };
        let session = self.recorder.begin(beginning, &mut random_u64).map_err(|_| Refusal::Full)?;
        let cancelled = self.shutdown.child_token();
        Ok(match session {
            Session::Recorded(session) => {
                Box::new(RecordedSink { session, clock: self.clock.clone(), cancelled })
            }
            Session::Unrecorded(entry) => Box::new(UnrecordedSink { _entry: entry, cancelled }),
        })
    }
}

struct RecordedSink {
    session: Box<RecordedSession>,
    clock: Arc<dyn Clock>,
    cancelled: CancellationToken,
}

impl StreamSink for RecordedSink {
    fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    fn tracks(&mut self, tracks: &[Track], left_out: &[String]) {
        for what in left_out {
            warn!(%what, "a track is left out");
        }
        self.session.tracks(tracks);
    }

    fn origin(&mut self, track: TrackId, raw: i64) {
        self.session.origin(track, raw);
    }

    fn script_data(&mut self, body: Bytes) {
        self.session.script_data(body);
    }

    fn sample(&mut self, sample: Sample) {
        if let Err(fault) = self.session.sample(sample, self.clock.now())
            && !self.cancelled.is_cancelled()
        {
            warn!(%fault, "the stream is ended");
            self.cancelled.cancel();
        }
    }

    fn end(self: Box<Self>, cause: EndCause) {
        self.session.end(&cause.to_string(), self.clock.now());
    }
}

struct UnrecordedSink {
    _entry: crate::recorder::live::LiveEntry,
    cancelled: CancellationToken,
}

impl StreamSink for UnrecordedSink {
    fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    fn tracks(&mut self, _: &[Track], _: &[String]) {}

    fn script_data(&mut self, _: Bytes) {}

    fn sample(&mut self, _: Sample) {}

    fn end(self: Box<Self>, cause: EndCause) {
        info!(%cause, "session ends");
    }
}
