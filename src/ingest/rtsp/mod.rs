//! The RTSP puller: one task per camera, which connects, hands samples on and reconnects for ever.
//!
//! A camera that refuses, stays silent or breaks the protocol costs nobody else anything: each has
//! its own connection, its own time limits and its own bounded hold, and a defect in the RTSP
//! library ends one attempt only. Delays between attempts have full jitter.

mod assembly;
mod connection;
mod fault;
mod offer;
mod session;
mod successor;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::fault::Fault;
use self::session::{Outcome, Ports};
use crate::domain::backoff::Backoff;
use crate::domain::fleet::trial::Failing;
use crate::domain::source::Source;
use crate::domain::time::BootTime;
use crate::ingest::admission::Admission;
use crate::ingest::intake::{EndCause, Intake};
use crate::platform::clock::Clock;
use crate::platform::random::random_u64;

/// Bound of the first delay before a new attempt.
const RETRY_BASE: Duration = Duration::from_secs(1);
/// Greatest bound of a delay.
const RETRY_CAP: Duration = Duration::from_secs(10);
/// A stream that lasted this long was a success: the next delay is a first one.
const STEADY: Duration = Duration::from_secs(30);
/// A camera whose connection was closed to open it anew may need so long to let go of the old session:
/// what fails until then says nothing about the new address.
const LETS_GO_WITHIN: Duration = Duration::from_secs(15);

/// Pulls a camera that stays where it is, see [`pull_following`].
pub async fn pull(
    source: Source,
    intake: Arc<dyn Intake>,
    admission: Admission,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    // Kept to the end, as a source that nobody can change any more.
    let (_sender, sources) = watch::channel(source);
    pull_following(sources, intake, admission, clock, shutdown).await;
}

/// Pulls the camera of one stream key (of its source, `on_full` is not looked at) until `shutdown`:
/// returns only then, after TEARDOWN was said. While somebody else delivers the same stream key, the
/// camera is let go and tried again later. A source that changes is opened beside the old connection,
/// which is recorded until the new one takes its place.
pub async fn pull_following(
    sources: watch::Receiver<Source>,
    intake: Arc<dyn Intake>,
    admission: Admission,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    let source = sources.borrow().clone();
    let span = tracing::info_span!("camera", stream = %source.key, peer = session::peer(&source));
    let ports = Ports { intake, admission, clock };
    pull_for_ever(sources, &ports, &shutdown).instrument(span).await;
}

async fn pull_for_ever(
    mut sources: watch::Receiver<Source>,
    ports: &Ports,
    shutdown: &CancellationToken,
) {
    let clock = ports.clock.as_ref();
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
    let mut causes = Causes::default();
    let mut closed_first: Option<BootTime> = None;
    while !shutdown.is_cancelled() {
        let began = clock.now().boot;
        let attempt = session::run(&mut sources, ports, shutdown);
        let attempt = AssertUnwindSafe(attempt).catch_unwind();
        let outcome = attempt.await.unwrap_or(Outcome { taken: false, end: Err(Fault::Panicked) });
        if shutdown.is_cancelled() {
            break;
        }
        let steady = outcome.taken && clock.now().boot.since(began) >= STEADY;
        if steady {
            backoff.reset();
        }
        if matches!(outcome.end, Ok(EndCause::Reopened)) {
            if outcome.taken {
                closed_first = Some(clock.now().boot);
            }
            continue;
        }
        let now = clock.now().boot;
        let lets_go = closed_first.is_some_and(|closed| now.since(closed) < LETS_GO_WITHIN);
        if let Err(fault) = &outcome.end
            && let Some(what) = fault.failing()
            && !steady
            && !(what == Failing::Pull && lets_go)
        {
            let key = sources.borrow().key.clone();
            ports.intake.failed(&key, what, &fault.to_string());
        }
        let delay = backoff.next_delay(random_u64());
        causes.log(&outcome, delay);
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = session::moved(&mut sources) => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
    tracing::debug!("camera is not pulled any more");
}

/// Says each cause once, until the camera delivers again.
#[derive(Debug, Default)]
struct Causes {
    last: Option<String>,
}

impl Causes {
    fn log(&mut self, outcome: &Outcome, delay: Duration) {
        if outcome.taken {
            self.last = None;
        }
        let retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let cause = match &outcome.end {
            Ok(cause) => {
                tracing::info!(%cause, retry_ms, "camera stream is over");
                return;
            }
            Err(fault) => fault.to_string(),
        };
        if self.last.as_ref() == Some(&cause) {
            tracing::debug!(cause, retry_ms, "camera cannot be pulled, still");
        } else {
            tracing::warn!(cause, retry_ms, "camera cannot be pulled");
            self.last = Some(cause);
        }
    }
}
