//! The test camera as a process (`camera.py`), its account of what it sent, and an intake that
//! keeps what it is given.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgerec::domain::address::Address;
use edgerec::domain::sample::{Sample, Track, TrackId};
use edgerec::domain::source::{Source, Transport};
use edgerec::domain::stream_key::StreamKey;
use edgerec::ingest::intake::{Arrival, EndCause, Intake, Refusal, StreamSink};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// User and password that the camera knows.
pub const USER: &str = "admin";
/// The password, with characters that an address must escape.
pub const PASSWORD: &str = "p@ss:/word";

/// A running camera; ends when dropped.
pub struct Camera {
    child: Child,
    pub port: u16,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Camera {
    /// Starts a camera on any free port; its streams with an end last `seconds`.
    pub fn start(seconds: u32) -> Camera {
        Camera::start_on(0, seconds)
    }

    /// Starts a camera on a port.
    pub fn start_on(port: u16, seconds: u32) -> Camera {
        let (port, seconds) = (port.to_string(), seconds.to_string());
        let arguments = ["--user", USER, "--password", PASSWORD];
        Camera::run(
            "camera.py",
            &[&arguments[..], &["--port", &port, "--seconds", &seconds]].concat(),
        )
    }

    /// Starts a camera that shows one encoder on two addresses (`twin_camera.py`), to so many at a
    /// time; 0 for any number.
    pub fn twin(sessions_max: u32) -> Camera {
        Camera::run("twin_camera.py", &["--sessions-max", &sessions_max.to_string()])
    }

    fn run(script: &str, arguments: &[&str]) -> Camera {
        let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory");
        let log = dir.path().join("camera.jsonl");
        let mut child = Command::new("/usr/bin/python3")
            .arg(support.join(script))
            .args(arguments)
            .arg("--log")
            .arg(&log)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with GStreamer's RTSP server is installed");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("the camera speaks");
        let port = line.trim().strip_prefix("port ").and_then(|port| port.parse().ok());
        Camera { child, port: port.expect("the camera says its port"), log, _dir: dir }
    }

    /// The address of a mount with the right user and password.
    pub fn url(&self, mount: &str) -> url::Url {
        let mut url =
            url::Url::parse(&format!("rtsp://127.0.0.1:{}{mount}", self.port)).expect("an address");
        url.set_username(USER).expect("has a host");
        url.set_password(Some("p%40ss%3A%2Fword")).expect("has a host");
        url
    }

    /// Stops or continues the process as it stands.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// What the camera says it did on a mount, so far.
    pub fn account(&self, mount: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).expect("the account");
        // It is being written: the last line may not be whole yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .filter(|entry| entry["mount"] == mount)
            .collect()
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A source as a rule set would name it.
pub fn source(key: StreamKey, url: &url::Url, transport: Transport) -> Source {
    let url = Address::parse(url.as_str(), &["rtsp"]).expect("a camera address");
    Source { key, url, transport, on_full: None }
}

/// What a sink was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Tracks(Vec<Track>, Vec<String>),
    Origin(TrackId, i64),
    Sample(Sample),
    End(EndCause),
}

/// A stream as the intake saw it.
#[derive(Debug, Clone)]
pub struct Stream {
    pub arrival: Arrival,
    pub events: Vec<Event>,
    pub cancelled: CancellationToken,
}

impl Stream {
    pub fn samples(&self, track: TrackId) -> Vec<&Sample> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Sample(sample) if sample.track == track => Some(sample),
                _ => None,
            })
            .collect()
    }

    pub fn sample_count(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Sample(_))).count()
    }

    /// The tracks announced last and what was left out.
    pub fn tracks(&self) -> (&[Track], &[String]) {
        self.events
            .iter()
            .rev()
            .find_map(|event| match event {
                Event::Tracks(tracks, left_out) => Some((&tracks[..], &left_out[..])),
                _ => None,
            })
            .expect("tracks were announced")
    }

    pub fn origin(&self, track: TrackId) -> i64 {
        self.events
            .iter()
            .find_map(|event| match event {
                Event::Origin(id, raw) if *id == track => Some(*raw),
                _ => None,
            })
            .expect("an origin was told")
    }

    pub fn end(&self) -> Option<&EndCause> {
        match self.events.last() {
            Some(Event::End(cause)) => Some(cause),
            _ => None,
        }
    }
}

/// Keeps what it is given; waits can be told what for.
#[derive(Clone)]
pub struct Capture {
    streams: Arc<Mutex<Vec<Stream>>>,
    changed: watch::Sender<()>,
}

impl Capture {
    pub fn new() -> Arc<Capture> {
        Arc::new(Capture { streams: Arc::default(), changed: watch::Sender::new(()) })
    }

    /// Waits until the streams so far are as wanted, and gives them; fails after `limit`.
    pub async fn wait(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&[Stream]) -> bool,
    ) -> Vec<Stream> {
        let deadline = Instant::now() + limit;
        let mut changed = self.changed.subscribe();
        loop {
            let streams = self.streams();
            if wanted(&streams) {
                return streams;
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                let seen: Vec<_> = streams
                    .iter()
                    .map(|stream| (&stream.arrival.key, stream.sample_count(), stream.end()))
                    .collect();
                panic!("{what} did not come within {limit:?}; seen: {seen:?}");
            }
        }
    }

    pub fn streams(&self) -> Vec<Stream> {
        self.streams.lock().expect("not poisoned").clone()
    }

    fn push(&self, stream: usize, event: Event) {
        self.streams.lock().expect("not poisoned")[stream].events.push(event);
        self.changed.send_replace(());
    }
}

impl Intake for Capture {
    fn admit(&self, arrival: &Arrival) -> Result<Box<dyn StreamSink>, Refusal> {
        let mut streams = self.streams.lock().expect("not poisoned");
        let cancelled = CancellationToken::new();
        streams.push(Stream {
            arrival: arrival.clone(),
            events: Vec::new(),
            cancelled: cancelled.clone(),
        });
        Ok(Box::new(Sink { capture: self.clone(), stream: streams.len() - 1, cancelled }))
    }
}

struct Sink {
    capture: Capture,
    stream: usize,
    cancelled: CancellationToken,
}

impl StreamSink for Sink {
    fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    fn tracks(&mut self, tracks: &[Track], left_out: &[String]) {
        self.capture.push(self.stream, Event::Tracks(tracks.to_vec(), left_out.to_vec()));
    }

    fn origin(&mut self, track: TrackId, raw: i64) {
        self.capture.push(self.stream, Event::Origin(track, raw));
    }

    fn script_data(&mut self, _body: bytes::Bytes) {
        panic!("RTSP has no script data");
    }

    fn sample(&mut self, sample: Sample) {
        self.capture.push(self.stream, Event::Sample(sample));
    }

    fn end(self: Box<Self>, cause: EndCause) {
        self.capture.push(self.stream, Event::End(cause));
    }
}
