//! Whether the box gets on: the service manager hears that all is well only while each part makes
//! its rounds. A part that hangs is named in the log, and the service manager starts the box anew.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::delivery::board::Board;
use crate::domain::time::BootTime;
use crate::platform::clock::Clock;
use crate::platform::planted;
use crate::platform::service_manager;
use crate::ring::handle::Ring;

/// Looks within one interval of the service manager.
const LOOKS: u32 = 4;

/// How often a task without rounds shows that it can be woken.
const BEAT: Duration = Duration::from_secs(1);

/// A part of the box that makes rounds.
pub(super) struct Part {
    name: &'static str,
    /// How many it has made.
    rounds: Box<dyn Fn() -> u64 + Send>,
    /// Has it make one even if it has nothing to do.
    nudge: Box<dyn Fn() + Send>,
    seen: (u64, BootTime),
}

impl Part {
    /// A part by the number of its rounds, and what wakes it.
    pub(super) fn new(
        name: &'static str,
        rounds: impl Fn() -> u64 + Send + 'static,
        nudge: impl Fn() + Send + 'static,
    ) -> Part {
        let seen = (0, BootTime(0));
        Part { name, rounds: Box::new(rounds), nudge: Box::new(nudge), seen }
    }

    /// The writer thread, the catalog thread and the delivery worker.
    pub(super) fn of_ring(ring: &Arc<Ring>, board: Option<Arc<Board>>) -> Vec<Part> {
        let (meters, lanes) = (ring.lanes.clone(), ring.lanes.clone());
        let mut parts =
            vec![Part::new("writer", move || meters.meters.rounds(), move || lanes.wake())];
        let answered = Arc::new(AtomicU64::new(0));
        let (counted, catalog) = (answered.clone(), ring.catalog.clone());
        let ask = move || {
            let answered = answered.clone();
            catalog.post(move |_| {
                answered.fetch_add(1, Ordering::Relaxed);
            });
        };
        parts.push(Part::new("catalog", move || counted.load(Ordering::Relaxed), ask));
        if let Some(board) = board {
            let wake = ring.catalog.news();
            parts.push(Part::new("delivery", move || board.rounds(), move || wake.notify_one()));
        }
        parts
    }

    /// Looks at it, and wakes it; gives how long it has stood still.
    fn look(&mut self, now: BootTime) -> Duration {
        let rounds = (self.rounds)();
        if rounds != self.seen.0 {
            self.seen = (rounds, now);
        }
        (self.nudge)();
        now.since(self.seen.1)
    }
}

/// The pulse of a task that has no rounds: it may wait for hours, but it must be possible to wake it.
/// One that blocks its thread has none.
pub(super) struct Pulse {
    name: &'static str,
    beats: Arc<AtomicU64>,
}

impl Pulse {
    pub(super) fn new(name: &'static str) -> Self {
        Pulse { name, beats: Arc::default() }
    }

    /// The task as a part.
    pub(super) fn part(&self) -> Part {
        let beats = self.beats.clone();
        Part::new(self.name, move || beats.load(Ordering::Relaxed), || {})
    }

    /// Runs the task to its end.
    pub(super) async fn through<T>(self, task: impl Future<Output = T>) -> T {
        let mut task = pin!(task);
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                ended = &mut task => return ended,
                _ = beat.tick() => {}
            }
            self.beats.fetch_add(1, Ordering::Relaxed);
            if planted::hangs(self.name) {
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

/// Says it if the service manager could not be told something.
pub(super) fn tell(told: io::Result<()>) {
    if let Err(problem) = told {
        warn!(%problem, "the service manager cannot be told how the box is");
    }
}

/// Tells the service manager that all is well, as long as it is and until `shutdown`. Does nothing
/// where nobody asks.
pub(super) async fn watch(
    mut parts: Vec<Part>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    let Some(interval) = service_manager::watchdog() else { return };
    let began = clock.now().boot;
    parts.iter_mut().for_each(|part| part.seen.1 = began);
    let mut looks = tokio::time::interval(interval / LOOKS);
    let mut told = Vec::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = looks.tick() => {}
        }
        let now = clock.now().boot;
        let hangs: Vec<&str> = parts
            .iter_mut()
            .filter_map(|part| (part.look(now) > interval / 2).then_some(part.name))
            .collect();
        if hangs.is_empty() {
            tell(service_manager::alive());
        } else if hangs != told {
            error!(parts = hangs.join(", "), "a part of the box hangs; the watchdog is not fed");
        }
        told = hangs;
    }
}
