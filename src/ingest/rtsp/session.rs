//! A camera's stream in the hands of the intake: from the first tracks of its connection to its end,
//! also over a change of its address, for which the next connection is opened beside the current one
//! ([`Handover`]).
//!
//! The stream is offered to the intake when its first tracks are known, not before: a camera that
//! is off makes no sessions.

use std::sync::Arc;
use std::time::Duration;

use retina::client::SessionGroup;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Step, Worth};
use super::fault::Fault;
use super::successor::{Beside, Event, Failed, Successor};
use crate::domain::fleet::trial::Failing;
use crate::domain::handover::{Handover, Output, Standing};
use crate::domain::source::Source;
use crate::ingest::admission::{Admission, LiveKey};
use crate::ingest::intake::{Arrival, EndCause, Intake, Protocol, StreamSink};
use crate::platform::clock::Clock;

/// Longest wait for the answer to TEARDOWN.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Port where the address names none.
const RTSP_PORT: u16 = 554;

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Whether the stream was taken by the intake.
    pub(super) taken: bool,
    /// Why it is over.
    pub(super) end: Result<EndCause, Fault>,
}

/// Pulls the camera until it ends, fails, or is cancelled, wherever its source moves to.
pub(super) async fn run(
    sources: &mut watch::Receiver<Source>,
    ports: &Ports,
    shutdown: &CancellationToken,
) -> Outcome {
    let source = sources.borrow_and_update().clone();
    let group = Arc::new(SessionGroup::default());
    let cancelled = CancellationToken::new();
    let mut taken = Taken { source: &source, ports, sink: None, live: None, cancelled };
    let end = pull_once(&mut taken, sources, &group, shutdown).await;
    // The session is dropped by now and says TEARDOWN on its own; let the camera hear it before
    // the next connection, or before the process ends.
    let Taken { sink, live, .. } = taken;
    let outcome = Outcome { taken: sink.is_some(), end };
    if let Some(sink) = sink {
        sink.end(match &outcome.end {
            Ok(cause) => cause.clone(),
            Err(Fault::Silent(_)) => EndCause::Silent,
            Err(fault) => EndCause::Disconnected(fault.to_string()),
        });
    }
    // The key is free once the stream has ended, not before.
    drop(live);
    if timeout(TEARDOWN_TIMEOUT, group.await_teardown()).await.is_err() {
        tracing::debug!("no answer to TEARDOWN");
    }
    outcome
}

/// Host and port of a camera, for logs and events: the rest of its address may be secret.
pub(super) fn peer(source: &Source) -> String {
    format!("{}:{}", source.url.host(), source.url.port().unwrap_or(RTSP_PORT))
}

/// What pulling needs of the box.
pub(super) struct Ports {
    /// Takes the streams.
    pub(super) intake: Arc<dyn Intake>,
    /// One publisher per stream key.
    pub(super) admission: Admission,
    /// Time of deliveries.
    pub(super) clock: Arc<dyn Clock>,
}

/// The stream in the hands of the intake, once it is.
struct Taken<'a> {
    source: &'a Source,
    ports: &'a Ports,
    sink: Option<Box<dyn StreamSink>>,
    live: Option<LiveKey>,
    /// The intake wants it to end.
    cancelled: CancellationToken,
}

impl Taken<'_> {
    /// Hands on what goes out; the stream is offered with its first tracks.
    fn hand_on(&mut self, handover: &mut Handover) -> Result<(), Fault> {
        while let Some(output) = handover.next_output() {
            let sink = match &mut self.sink {
                Some(sink) => sink,
                None => {
                    let arrival = Arrival {
                        key: self.source.key.clone(),
                        protocol: Protocol::Rtsp,
                        query: String::new(),
                        peer: peer(self.source),
                    };
                    let sink = self.ports.intake.admit(&arrival).map_err(Fault::Refused)?;
                    tracing::info!("camera delivers");
                    self.cancelled = sink.cancelled();
                    self.sink.insert(sink)
                }
            };
            match output {
                Output::Tracks(tracks, left_out) => sink.tracks(&tracks, &left_out),
                Output::Origin(track, raw) => sink.origin(track, raw),
                Output::Sample(sample) => sink.sample(sample),
            }
        }
        Ok(())
    }

    fn touch(&self, worth: Worth) {
        if let (Worth::Media, Some(live)) = (worth, &self.live) {
            live.touch(self.ports.clock.now().boot);
        }
    }
}

async fn pull_once(
    taken: &mut Taken<'_>,
    sources: &mut watch::Receiver<Source>,
    group: &Arc<SessionGroup>,
    shutdown: &CancellationToken,
) -> Result<EndCause, Fault> {
    let opened = async {
        let connection = Connection::open(taken.source.clone(), group).await?;
        // Only a camera that answers takes the key; one that is off must not keep others out.
        let admitted = taken.ports.admission.admit(&taken.source.key).await;
        Ok((connection, admitted.map_err(Fault::Refused)?))
    };
    let (connection, live) = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(EndCause::Cancelled),
        opened = opened => opened?,
        // It is elsewhere by now.
        () = moved(sources) => return Ok(EndCause::Reopened),
    };
    let replaced = live.replaced();
    taken.live = Some(live);
    let mut pull = Pull {
        taken,
        current: Some(connection),
        handover: Handover::default(),
        successor: Successor::default(),
        group,
    };
    let end = loop {
        let done = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(EndCause::Cancelled),
            () = pull.taken.cancelled.cancelled() => break Ok(EndCause::Cancelled),
            // Whatever came is handed on within the same poll, so none is lost between.
            step = current_step(&mut pull.current) => pull.take_current(step),
            event = pull.successor.event() => pull.take_successor(event),
            () = moved(sources) => pull.take_move(&sources.borrow_and_update().clone()),
            () = replaced.cancelled() => break Ok(EndCause::Replaced),
        };
        if let Some(end) = done.or_else(|| pull.settle()) {
            break end;
        }
    };
    pull.finish(end)
}

/// Waits until the source is another one.
pub(super) async fn moved(sources: &mut watch::Receiver<Source>) {
    if sources.changed().await.is_err() {
        // Nobody can change it any more.
        std::future::pending().await
    }
}

async fn current_step(current: &mut Option<Connection>) -> Step {
    match current {
        Some(connection) => connection.step().await,
        None => std::future::pending().await,
    }
}

/// How a pull ends; `None`: it goes on.
type Done = Option<Result<EndCause, Fault>>;

/// A stream, the connection that brings it, and the one that is to take its place.
struct Pull<'a, 'b> {
    taken: &'a mut Taken<'b>,
    /// `None`: it has ended, and the successor is about to take its place.
    current: Option<Connection>,
    handover: Handover,
    successor: Successor,
    group: &'a Arc<SessionGroup>,
}

impl Pull<'_, '_> {
    fn take_current(&mut self, step: Step) -> Done {
        let connection = self.current.as_mut()?;
        let now = self.taken.ports.clock.now().boot;
        match step {
            Step::Took(worth) => {
                self.taken.touch(worth);
                while let Some(output) = connection.next_output() {
                    self.handover.current(output, now);
                }
                None
            }
            Step::Over(end) if self.successor.beside().is_none() => Some(end),
            Step::Over(end) => {
                tracing::info!(?end, "the camera ended the old connection");
                connection.finish();
                while let Some(output) = connection.next_output() {
                    self.handover.current(output, now);
                }
                self.current = None;
                self.handover.current_ended(now);
                None
            }
        }
    }

    fn take_successor(&mut self, event: Event) -> Done {
        let now = self.taken.ports.clock.now().boot;
        match event {
            Event::Opened(Ok(())) => self.handover.begin(now),
            Event::Opened(Err(fault)) => return self.successor_failed(fault),
            Event::Retry => self.successor.retry(self.group),
            Event::Tick => self.handover.tick(now),
            Event::Step(Step::Over(end)) => {
                self.handover.abandon();
                if self.current.is_none() {
                    return Some(end);
                }
                return self.successor_failed(end.err().unwrap_or(Fault::LeftBehind));
            }
            Event::Step(Step::Took(worth)) => {
                self.taken.touch(worth);
                if let Some(zero) = self.current.as_ref().and_then(Connection::clock_at_zero) {
                    self.handover.current_clock(zero);
                }
                let Beside { connection, .. } = self.successor.beside()?;
                if let Some(zero) = connection.clock_at_zero() {
                    self.handover.next_clock(zero);
                }
                while let Some(output) = connection.next_output() {
                    self.handover.next(output, now);
                }
            }
        }
        None
    }

    /// The rules name another source for the stream.
    fn take_move(&mut self, source: &Source) -> Done {
        if self.taken.sink.is_none() {
            // Nothing is recorded that could be lost.
            return Some(Ok(EndCause::Reopened));
        }
        let current = self.current.as_ref().map(Connection::source);
        if current.is_some_and(|current| current.is_reached_as(source)) {
            self.handover.abandon();
            self.successor = Successor::default();
        } else if !self.successor.leads_to(source) {
            tracing::info!(peer = peer(source), "camera is opened anew beside its old connection");
            self.handover.abandon();
            self.successor = Successor::open(source.clone(), self.group);
        }
        None
    }

    fn successor_failed(&mut self, fault: Fault) -> Done {
        let Some(current) = self.current.as_ref().map(Connection::source) else {
            return Some(Err(fault));
        };
        let failed = self.successor.failed(&fault, current);
        if failed == Failed::ByItself {
            let what = fault.failing().unwrap_or(Failing::Pull);
            self.taken.ports.intake.failed(&current.key, what, &fault.to_string());
        }
        if failed == Failed::CloseFirst {
            tracing::warn!(%fault, "camera cannot be opened beside its old connection, which is closed first");
            return Some(Ok(EndCause::Reopened));
        }
        tracing::warn!(%fault, "camera cannot be opened anew yet, its old connection goes on");
        None
    }

    /// Hands on what goes out, and changes places if that is due.
    fn settle(&mut self) -> Done {
        if let Err(refused) = self.taken.hand_on(&mut self.handover) {
            return Some(Err(refused));
        }
        match self.handover.standing() {
            Standing::Switched => {
                self.handover.promote();
                let next = self.successor.take()?;
                tracing::info!(
                    peer = peer(next.source()),
                    "camera goes on over its new connection"
                );
                // The old one says TEARDOWN on its own.
                self.current = Some(next);
                None
            }
            Standing::GaveUp if self.successor.beside().is_some() => {
                self.successor_failed(Fault::LeftBehind)
            }
            _ => None,
        }
    }

    fn finish(mut self, end: Result<EndCause, Fault>) -> Result<EndCause, Fault> {
        // Held frames of a stream that nobody took are worth a stream only if it ended by itself.
        let given_up = matches!(
            end,
            Ok(EndCause::Cancelled | EndCause::Replaced | EndCause::Reopened)
                | Err(Fault::Refused(_))
        );
        let now = self.taken.ports.clock.now().boot;
        self.handover.abandon();
        if let Some(connection) = &mut self.current {
            connection.finish();
            while let Some(output) = connection.next_output() {
                self.handover.current(output, now);
            }
        }
        let handed = match self.taken.sink.is_none() && given_up {
            true => Ok(()),
            false => self.taken.hand_on(&mut self.handover),
        };
        let cause = end?;
        handed.map(|()| cause)
    }
}
