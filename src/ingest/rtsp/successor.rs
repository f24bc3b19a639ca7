//! The connection that is to take the place of another: opened beside it, again and again if it fails,
//! until there is a reason to close the old one first.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use retina::client::SessionGroup;
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, Step};
use super::fault::Fault;
use super::{RETRY_BASE, RETRY_CAP};
use crate::domain::backoff::Backoff;
use crate::domain::source::Source;
use crate::platform::random::random_u64;

/// After so many attempts the old connection is closed first, whatever the reason. Rules of the fleet
/// under which a camera fails are gone back from before that.
const ATTEMPTS_MAX: u32 = 6;
/// After so many where the camera is the same machine, and so can be expected to answer.
const ATTEMPTS_SAME_PLACE_MAX: u32 = 2;
/// A handover is told the time so often.
const TICK: Duration = Duration::from_millis(200);
/// Status of an address that the camera does not know.
const NOT_FOUND: u16 = 404;
/// Status of a camera that shows itself to nobody more: "not enough bandwidth" and "service unavailable"
/// (RFC 2326, 11.3.10 and HTTP's).
const NO_MORE: [u16; 2] = [453, 503];

type Opening = Pin<Box<dyn Future<Output = Result<Connection, Fault>> + Send>>;

/// The successor, if there is to be one.
#[derive(Default)]
pub(super) struct Successor(Option<Attempts>);

struct Attempts {
    source: Source,
    backoff: Backoff,
    phase: Phase,
}

enum Phase {
    Opening(Opening),
    Waiting(Instant),
    Beside(Box<Beside>),
}

/// What an attempt that failed says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// The old connection must be closed first.
    CloseFirst,
    /// Perhaps only that one connection is too many: there is another attempt later.
    Beside,
    /// The new address or its credentials do not work: there is another attempt later.
    ByItself,
}

/// A connection beside another.
pub(super) struct Beside {
    pub(super) connection: Connection,
    tick_at: Instant,
}

/// What happened to it.
#[derive(Debug)]
pub(super) enum Event {
    /// The camera sends, or it cannot be opened.
    Opened(Result<(), Fault>),
    /// It is time for another attempt.
    Retry,
    /// Something happened on the connection.
    Step(Step),
    /// Time passes.
    Tick,
}

impl Successor {
    /// Begins to open a connection.
    pub(super) fn open(source: Source, group: &Arc<SessionGroup>) -> Self {
        let phase = Phase::Opening(opening(&source, group));
        let backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
        Successor(Some(Attempts { source, backoff, phase }))
    }

    /// Whether it is to lead to this source.
    pub(super) fn leads_to(&self, source: &Source) -> bool {
        self.0.as_ref().is_some_and(|attempts| attempts.source.is_reached_as(source))
    }

    /// The connection, if it stands.
    pub(super) fn beside(&mut self) -> Option<&mut Beside> {
        match &mut self.0.as_mut()?.phase {
            Phase::Beside(beside) => Some(beside),
            Phase::Opening(_) | Phase::Waiting(_) => None,
        }
    }

    /// The connection becomes the only one.
    pub(super) fn take(&mut self) -> Option<Connection> {
        match self.0.take()?.phase {
            Phase::Beside(beside) => Some(beside.connection),
            Phase::Opening(_) | Phase::Waiting(_) => None,
        }
    }

    /// An attempt failed, beside the old connection to `current`.
    pub(super) fn failed(&mut self, fault: &Fault, current: &Source) -> Failed {
        let Some(attempts) = &mut self.0 else { return Failed::Beside };
        let delay = attempts.backoff.next_delay(random_u64());
        attempts.phase = Phase::Waiting(Instant::now() + delay);
        let place = |source: &Source| (source.url.host().to_owned(), source.url.port());
        let same_place = place(&attempts.source) == place(current);
        let failures = attempts.backoff.failures();
        let allowed = match fault {
            // The address or password is wrong; nothing says that one connection is too many.
            Fault::Unauthorized | Fault::Status { status: NOT_FOUND, .. } => ATTEMPTS_MAX,
            // The same camera under another name may say so too.
            Fault::Status { status, .. } if NO_MORE.contains(status) => 1,
            Fault::Status { .. } if same_place => 1,
            _ if same_place => ATTEMPTS_SAME_PLACE_MAX,
            _ => ATTEMPTS_MAX,
        };
        match allowed {
            _ if failures >= allowed => Failed::CloseFirst,
            ATTEMPTS_MAX => Failed::ByItself,
            _ => Failed::Beside,
        }
    }

    /// Begins another attempt.
    pub(super) fn retry(&mut self, group: &Arc<SessionGroup>) {
        if let Some(attempts) = &mut self.0 {
            attempts.phase = Phase::Opening(opening(&attempts.source, group));
        }
    }

    /// Waits for what happens next; for ever if there is no successor. Nothing is lost if the wait is
    /// given up.
    pub(super) async fn event(&mut self) -> Event {
        let Some(attempts) = &mut self.0 else { return std::future::pending().await };
        match &mut attempts.phase {
            Phase::Opening(opening) => match opening.await {
                Ok(connection) => {
                    let tick_at = Instant::now() + TICK;
                    attempts.phase = Phase::Beside(Box::new(Beside { connection, tick_at }));
                    Event::Opened(Ok(()))
                }
                Err(fault) => Event::Opened(Err(fault)),
            },
            Phase::Waiting(until) => {
                sleep_until(*until).await;
                Event::Retry
            }
            Phase::Beside(beside) => tokio::select! {
                biased;
                step = beside.connection.step() => Event::Step(step),
                () = sleep_until(beside.tick_at) => {
                    beside.tick_at = Instant::now() + TICK;
                    Event::Tick
                }
            },
        }
    }
}

fn opening(source: &Source, group: &Arc<SessionGroup>) -> Opening {
    let (source, group) = (source.clone(), group.clone());
    Box::pin(async move { Connection::open(source, &group).await })
}
