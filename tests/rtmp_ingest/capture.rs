//! The listener with an intake that keeps everything it is given.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use edgerec::domain::ids::BootId;
use edgerec::domain::sample::{Sample, Track};
use edgerec::domain::stream_key::StreamKey;
use edgerec::domain::time::Instant;
use edgerec::ingest::admission::Admission;
use edgerec::ingest::intake::{Arrival, EndCause, Intake, Refusal, StreamSink};
use edgerec::ingest::rtmp::{PublishCheck, RtmpListener};
use edgerec::platform::clock::{Clock, SystemClock};
use edgerec::platform::net::SystemNet;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::reference::Packet;

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// A call of the sink.
#[derive(Debug, Clone)]
pub enum Happened {
    Tracks(Vec<Track>, Vec<String>),
    ScriptData(Bytes),
    Sample(Sample),
    End(EndCause),
}

/// What one publish delivered.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    pub happened: Vec<Happened>,
    cancel: CancellationToken,
}

impl Stream {
    pub fn packets(&self) -> Vec<Packet> {
        let mut announced = false;
        let mut packets = Vec::new();
        for what in &self.happened {
            match what {
                Happened::Tracks(..) => announced = true,
                Happened::Sample(sample) => {
                    assert!(announced, "no sample before its track");
                    let Sample { track, dts, pts, key, data } = sample;
                    packets.push(Packet::new(track.0, *dts, *pts, *key, data));
                }
                _ => {}
            }
        }
        packets
    }

    fn last_set(&self) -> (Vec<Track>, Vec<String>) {
        let set = |what: &Happened| match what {
            Happened::Tracks(tracks, left_out) => Some((tracks.clone(), left_out.clone())),
            _ => None,
        };
        self.happened.iter().rev().find_map(set).expect("tracks were announced")
    }

    pub fn tracks(&self) -> Vec<Track> {
        self.last_set().0
    }

    pub fn left_out(&self) -> Vec<String> {
        self.last_set().1
    }

    pub fn script_data(&self) -> Bytes {
        let script = |what: &Happened| match what {
            Happened::ScriptData(body) => Some(body.clone()),
            _ => None,
        };
        self.happened.iter().find_map(script).unwrap_or_default()
    }

    pub fn end(&self) -> Option<EndCause> {
        match self.happened.last() {
            Some(Happened::End(cause)) => Some(cause.clone()),
            _ => None,
        }
    }

    fn has_sample(&self) -> bool {
        self.happened.iter().any(|what| matches!(what, Happened::Sample(_)))
    }
}

/// Streams by name, in the order they came.
#[derive(Default)]
struct Capture {
    streams: Mutex<HashMap<String, Vec<Stream>>>,
    refusal: Mutex<Option<Refusal>>,
    changed: Notify,
}

struct CaptureSink {
    capture: Arc<Capture>,
    name: String,
    nth: usize,
    cancel: CancellationToken,
}

impl CaptureSink {
    fn push(&self, what: Happened) {
        let mut streams = self.capture.streams.lock().expect("no panic inside");
        streams.get_mut(&self.name).expect("admitted")[self.nth].happened.push(what);
        drop(streams);
        self.capture.changed.notify_waiters();
    }
}

impl StreamSink for CaptureSink {
    fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    fn tracks(&mut self, tracks: &[Track], left_out: &[String]) {
        self.push(Happened::Tracks(tracks.to_vec(), left_out.to_vec()));
    }

    fn script_data(&mut self, body: Bytes) {
        self.push(Happened::ScriptData(body));
    }

    fn sample(&mut self, sample: Sample) {
        assert_ne!(self.name, "panic", "a planted panic");
        self.push(Happened::Sample(sample));
    }

    fn end(self: Box<Self>, cause: EndCause) {
        self.push(Happened::End(cause));
    }
}

struct CaptureIntake(Arc<Capture>);

impl Intake for CaptureIntake {
    fn admit(&self, arrival: &Arrival) -> Result<Box<dyn StreamSink>, Refusal> {
        if let Some(refusal) = self.0.refusal.lock().expect("no panic inside").clone() {
            return Err(refusal);
        }
        assert_eq!((arrival.key.domain(), arrival.key.app()), ("127.0.0.1", "live"));
        let name = arrival.key.stream().to_owned();
        let mut streams = self.0.streams.lock().expect("no panic inside");
        let of_name = streams.entry(name.clone()).or_default();
        let cancel = CancellationToken::new();
        of_name.push(Stream { happened: Vec::new(), cancel: cancel.clone() });
        let nth = of_name.len() - 1;
        let capture = Arc::clone(&self.0);
        Ok(Box::new(CaptureSink { capture, name, nth, cancel }))
    }
}

/// The system's clock, which can be moved on.
pub struct MovableClock {
    system: SystemClock,
    moved_ms: AtomicU64,
}

impl MovableClock {
    pub fn advance_ms(&self, ms: u64) {
        self.moved_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for MovableClock {
    fn now(&self) -> Instant {
        let mut now = self.system.now();
        now.boot.0 += self.moved_ms.load(Ordering::SeqCst);
        now
    }

    fn boot_id(&self) -> BootId {
        self.system.boot_id()
    }
}

/// Denies queries that ask for it.
struct DenyOnRequest;

impl PublishCheck for DenyOnRequest {
    fn check(&self, _: &StreamKey, query: &str) -> Result<(), String> {
        if query == "deny" { Err("as asked".to_owned()) } else { Ok(()) }
    }
}

/// A listener under test.
pub struct Server {
    pub addr: SocketAddr,
    pub clock: Arc<MovableClock>,
    capture: Arc<Capture>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Server {
    pub async fn start() -> Server {
        let capture = Arc::new(Capture::default());
        let clock =
            Arc::new(MovableClock { system: SystemClock::new(), moved_ms: AtomicU64::new(0) });
        let admission = Admission::new(clock.clone());
        let intake = Arc::new(CaptureIntake(Arc::clone(&capture)));
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = RtmpListener::bind(
            &SystemNet,
            any,
            clock.clone(),
            intake,
            admission,
            Arc::new(DenyOnRequest),
        )
        .await
        .expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(listener.run(tasks.clone(), shutdown.clone()));
        Server { addr, clock, capture, tasks, shutdown }
    }

    pub fn tc_url(&self) -> String {
        format!("rtmp://{}/live", self.addr)
    }

    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.tc_url())
    }

    pub fn refuse(&self, refusal: Option<Refusal>) {
        *self.capture.refusal.lock().expect("no panic inside") = refusal;
    }

    pub fn cancel(&self, name: &str) {
        self.stream(name, 0).cancel.cancel();
    }

    /// The nth stream of a name, as it is now.
    pub fn stream(&self, name: &str, nth: usize) -> Stream {
        let streams = self.capture.streams.lock().expect("no panic inside");
        streams.get(name).and_then(|streams| streams.get(nth)).cloned().unwrap_or_default()
    }

    async fn wait(&self, name: &str, nth: usize, done: impl Fn(&Stream) -> bool) -> Stream {
        let wait = async {
            loop {
                let changed = self.capture.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let stream = self.stream(name, nth);
                if done(&stream) {
                    return stream;
                }
                changed.await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("in time")
    }

    pub async fn ended(&self, name: &str) -> Stream {
        self.ended_nth(name, 0).await
    }

    pub async fn ended_nth(&self, name: &str, nth: usize) -> Stream {
        self.wait(name, nth, |stream| stream.end().is_some()).await
    }

    /// Waits for the first sample.
    pub async fn samples(&self, name: &str, nth: usize) -> Stream {
        self.wait(name, nth, Stream::has_sample).await
    }

    /// Shuts down; every task must end.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(DEADLINE, self.tasks.wait()).await.expect("all tasks end");
    }
}
