//! The worker of the queue: keeps a few files on their way, rests after failures, never gives up.
//!
//! The queue itself is durable and lives on the shelf; the worker can be dropped and started anew
//! at any time. A target that fails rests as a whole, a file that fails rests alone: a dead link
//! is not hammered by every file, and one bad file does not hold up the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::delivery::board::Board;
use crate::delivery::error::{DeliveryError, ErrorClass, ErrorScope};
use crate::delivery::gate::Gate;
use crate::delivery::settings::DeliverySettings;
use crate::delivery::shelf::{Failure, Receipt, Shelf, ShelfError, Wanted};
use crate::delivery::target::{Job, Meter, Target, blocking};
use crate::delivery::valve::Valve;
use crate::domain::ids::FileId;
use crate::domain::time::BootTime;
use crate::domain::upload_order::{Next, UploadOrder, Urgency, WaitingFile, next};
use crate::domain::upload_plan::{Admitted, Outlook};
use crate::platform::clock::Clock;
use crate::platform::links::Links;
use crate::platform::planted;
use crate::platform::random::random_u64;

/// Waiting files that are looked at for one decision.
const LOOK_AHEAD: usize = 1024;
/// The queue is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// As [`LOOK_AGAIN`], where anything but failures can hold a file up: clocks step and links change.
const LOOK_AGAIN_LIMITED: Duration = Duration::from_secs(10);
/// As [`LOOK_AGAIN`], where that could stop what is on its way.
const LOOK_AGAIN_MOVING: Duration = Duration::from_secs(1);

/// Brings waiting files to a target.
pub struct Worker {
    /// The queue.
    pub shelf: Arc<dyn Shelf>,
    /// Where files go.
    pub target: Arc<dyn Target>,
    /// For rests, and windows of the day.
    pub clock: Arc<dyn Clock>,
    /// Which link costs money.
    pub links: Arc<dyn Links>,
    /// Where everyone sees what goes on.
    pub board: Arc<Board>,
    /// Notified when a file begins to wait.
    pub wake: Arc<Notify>,
    /// How many at a time, when and in which order.
    pub settings: DeliverySettings,
}

/// Files on their way.
struct Transfers {
    tasks: JoinSet<Result<Receipt, DeliveryError>>,
    files: HashMap<Id, Moving>,
    valve: Arc<Valve>,
    /// What held when they were last looked at.
    outlook: Outlook,
    /// What was told to stop is cut off then.
    cut_at: Option<BootTime>,
    /// While every place is taken, nothing in the queue becomes more pressing before this, unless
    /// something happens.
    quiet_until: Option<BootTime>,
}

impl Transfers {
    /// How pressing what is on its way is by now: a person may have asked for it since it set out.
    fn note_urgency(&mut self, order: &UploadOrder, waiting: &[WaitingFile]) {
        for moving in self.files.values_mut() {
            if let Some(file) = waiting.iter().find(|waiting| waiting.file == moving.file) {
                moving.urgency = order.urgency(file);
            }
        }
    }
}

/// A file on its way.
struct Moving {
    file: FileId,
    meter: Arc<Meter>,
    urgency: Urgency,
    cut: AbortHandle,
    /// It was told to stop.
    stopping: bool,
}

type Finished = Result<(Id, Result<Receipt, DeliveryError>), JoinError>;

impl Worker {
    /// Works until shutdown; transfers are then dropped where they stand and go on next time.
    pub async fn run(self, shutdown: CancellationToken) {
        let valve = Arc::new(Valve::new(self.settings.cap_bytes_per_s));
        let (plan, shelf) = (self.settings.plan.clone(), Arc::clone(&self.shelf));
        let (clock, links) = (Arc::clone(&self.clock), Arc::clone(&self.links));
        let mut gate = Gate::open(plan, clock, links, Arc::clone(&valve), shelf).await;
        let (tasks, files, outlook) = (JoinSet::new(), HashMap::new(), Outlook::open());
        let mut transfers =
            Transfers { tasks, files, valve, outlook, cut_at: None, quiet_until: None };
        loop {
            self.board.round();
            if planted::hangs("delivery") {
                std::future::pending::<()>().await;
            }
            self.heed(gate.look().await, &mut transfers).await;
            let pause = self.set_out(&mut transfers).await.min(self.patience(&transfers));
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(finished) = transfers.tasks.join_next_with_id() => {
                    transfers.quiet_until = None;
                    self.settle(finished, &mut transfers).await;
                }
                () = self.wake.notified() => transfers.quiet_until = None,
                () = tokio::time::sleep(pause) => {}
            }
        }
        transfers.tasks.shutdown().await;
        gate.look().await;
        gate.keep().await;
    }

    /// Stops what may no longer be on its way: first with a word, later for good. What stops
    /// although it may go on is chosen again at once.
    async fn heed(&self, outlook: Outlook, transfers: &mut Transfers) {
        let now = self.clock.now().boot;
        if outlook.admitted != transfers.outlook.admitted {
            transfers.quiet_until = None;
            if !outlook.why.is_empty() {
                tracing::info!(why = outlook.why, "uploads are held up");
            }
            if outlook.admitted != Admitted::Everything {
                self.look_for_urgent(transfers).await;
                for moving in transfers.files.values_mut().filter(|moving| !moving.urgency.urgent) {
                    moving.meter.hold_up();
                    moving.stopping = true;
                }
                transfers.cut_at = Some(later(now, self.settings.stop_grace));
            } else {
                transfers.cut_at = None;
            }
        }
        self.board.hold(&outlook);
        transfers.outlook = outlook;
        if transfers.cut_at.is_some_and(|at| at <= now) {
            transfers.cut_at = None;
            self.look_for_urgent(transfers).await;
            let stopping = transfers.files.values().filter(|moving| moving.stopping);
            let cut = stopping.filter(|moving| !moving.urgency.urgent);
            cut.for_each(|moving| moving.cut.abort());
        }
    }

    /// Looks which of what is on its way a person wants at once by now.
    async fn look_for_urgent(&self, transfers: &mut Transfers) {
        if transfers.files.is_empty() {
            return;
        }
        let (shelf, order) = (Arc::clone(&self.shelf), self.settings.plan.order);
        let wanted = Wanted { order, admitted: Admitted::Nothing };
        match blocking(move || shelf.waiting(&wanted, LOOK_AHEAD)).await {
            Ok(urgent) => transfers.note_urgency(&order, &urgent),
            Err(error) => {
                tracing::error!(why = error.explain(), "upload queue cannot be read");
            }
        }
    }

    /// How long the outlook is good for.
    fn patience(&self, transfers: &Transfers) -> Duration {
        if !self.settings.plan.is_limited() {
            return LOOK_AGAIN;
        }
        let now = self.clock.now();
        let ms = transfers.outlook.changes_at.map(|at| at.0.saturating_sub(now.wall.unix.0));
        let change =
            ms.map_or(LOOK_AGAIN, |ms| Duration::from_millis(u64::try_from(ms).unwrap_or(1)));
        let cut = transfers.cut_at.map_or(LOOK_AGAIN, |at| wait_for(at, now.boot));
        let again = if transfers.files.is_empty() { LOOK_AGAIN_LIMITED } else { LOOK_AGAIN_MOVING };
        again.min(change).min(cut).max(Duration::from_millis(1))
    }

    /// Sends files out until enough are on their way; gives how long to wait before looking again.
    /// With every place taken the queue is read only if something happened.
    async fn set_out(&self, transfers: &mut Transfers) -> Duration {
        let now = self.clock.now().boot;
        let full = transfers.files.len() >= self.places();
        if let Some(until) = transfers.quiet_until.filter(|until| full && *until > now) {
            return wait_for(until, now);
        }
        let pause = self.fill_places(transfers).await;
        transfers.quiet_until = Some(later(self.clock.now().boot, pause));
        pause
    }

    /// The queue is read once for all that set out.
    async fn fill_places(&self, transfers: &mut Transfers) -> Duration {
        let now = self.clock.now().boot;
        if let Some(until) = self.board.target_rests_until(now) {
            return wait_for(until, now);
        }
        if transfers.files.len() > self.places() {
            return LOOK_AGAIN;
        }
        let order = self.settings.plan.order;
        let mut waiting = match self.read_queue(transfers, now).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::error!(why = error.explain(), "upload queue cannot be read");
                return self.settings.target_rest.longest;
            }
        };
        while transfers.files.len() <= self.places() {
            if transfers.files.len() == self.places() {
                // The last place is for what cannot wait for those under way.
                let most = transfers.files.values().map(|moving| moving.urgency).max();
                waiting.retain(|file| most.is_some_and(|most| order.urgency(file) > most));
            }
            match next(&order, &waiting, now) {
                Next::File(file) => {
                    self.start(file.file, order.urgency(&file), transfers);
                    waiting.retain(|other| other.file != file.file);
                }
                Next::RestUntil(until) => return wait_for(until, now),
                Next::Idle => return LOOK_AGAIN,
            }
        }
        LOOK_AGAIN
    }

    /// Files that may be on their way at the same time; one more may that is more pressing.
    fn places(&self) -> usize {
        self.settings.parallel.max(1)
    }

    /// What may set out, now or when its rest is over.
    async fn read_queue(
        &self,
        transfers: &mut Transfers,
        now: BootTime,
    ) -> Result<Vec<WaitingFile>, DeliveryError> {
        let shelf = Arc::clone(&self.shelf);
        let order = self.settings.plan.order;
        let admitted = transfers.outlook.admitted.clone();
        let everything = admitted == Admitted::Everything;
        let wanted = Wanted { order, admitted };
        let mut waiting = blocking(move || shelf.waiting(&wanted, LOOK_AHEAD)).await?;
        let complete = everything && waiting.len() < LOOK_AHEAD;
        transfers.note_urgency(&order, &waiting);
        self.board.annotate(&mut waiting, complete, now);
        Ok(waiting)
    }

    fn start(&self, file: FileId, urgency: Urgency, transfers: &mut Transfers) {
        let meter = self.board.begin(file);
        let (shelf, target) = (Arc::clone(&self.shelf), Arc::clone(&self.target));
        let span = tracing::info_span!("deliver", %file);
        let doubtful = self.board.is_doubtful(file);
        let ways = (Arc::clone(&meter), Arc::clone(&transfers.valve), doubtful);
        let work = transfer(file, ways, shelf, target).instrument(span);
        let cut = transfers.tasks.spawn(work);
        let id = cut.id();
        let moving = Moving { file, meter, urgency, cut, stopping: false };
        transfers.files.insert(id, moving);
    }

    /// Draws the consequences of a transfer that ended.
    async fn settle(&self, finished: Finished, transfers: &mut Transfers) {
        let (id, result) = match finished {
            Ok((id, result)) => (id, result),
            Err(error) if error.is_cancelled() => {
                let Some(Moving { file, meter, .. }) = transfers.files.remove(&error.id()) else {
                    return;
                };
                // Cut off in the middle: what it was about may have arrived.
                if meter.moved() > 0 {
                    self.board.doubt(file, self.clock.now().boot);
                }
                return self.board.put_back(file);
            }
            // A panic concerns this file only.
            Err(error) => {
                let id = error.id();
                (id, Err(DeliveryError::Shelf(ShelfError::Failed(Box::new(error)))))
            }
        };
        let Some(Moving { file, meter, .. }) = transfers.files.remove(&id) else { return };
        match result {
            Ok(receipt) => {
                tracing::info!(%file, url = receipt.url, size = receipt.size, "delivered");
                self.board.target_works();
                self.board.count_delivery(receipt.size);
                self.board.finish(file);
            }
            Err(DeliveryError::HeldUp) => self.board.put_back(file),
            Err(error) => self.settle_failure(file, &meter, &error).await,
        }
    }

    async fn settle_failure(&self, file: FileId, meter: &Meter, error: &DeliveryError) {
        let (class, why) = (error.class(), error.explain());
        self.board.count_failure();
        if meter.advanced() {
            self.board.progressed(file);
        }
        // What breaks off on the way may be about the file: a proxy that resets what it finds too
        // large. The others then go first the next time.
        let scope = match error.scope() {
            ErrorScope::Target if meter.moved() > 0 => ErrorScope::Either,
            scope => scope,
        };
        let (now, random) = (self.clock.now().boot, random_u64());
        if meter.moved() > 0 && error.leaves_doubt() {
            self.board.doubt(file, now);
        }
        let attempts = match (class, scope) {
            (ErrorClass::Drop | ErrorClass::Lose | ErrorClass::Quarantine, _) => 1,
            (ErrorClass::Stop, _) => {
                self.board.stop(file, &why);
                1
            }
            (ErrorClass::Retry, ErrorScope::File) => self.board.rest_file(file, &why, now, random),
            (ErrorClass::Retry, ErrorScope::Target) => {
                self.board.rest_target(file, &why, now, (random, error.wait()))
            }
            (ErrorClass::Retry, ErrorScope::Either) => {
                self.board.rest_target(file, &why, now, (random, error.wait()));
                self.board.rest_file(file, &why, now, random)
            }
        };
        tracing::warn!(%file, ?class, attempts, why, "not delivered");
        let (shelf, failure) = (Arc::clone(&self.shelf), Failure { class, attempts, why });
        let noted = blocking(move || shelf.failed(file, &failure)).await;
        match (noted, class) {
            (Ok(()), ErrorClass::Drop | ErrorClass::Lose | ErrorClass::Quarantine) => {
                self.board.finish(file);
            }
            (Ok(()), ErrorClass::Retry | ErrorClass::Stop) => {}
            (Err(error), _) => {
                tracing::error!(%file, why = error.explain(), "failure could not be noted");
                self.board.rest_file(file, &error.explain(), now, random);
            }
        }
    }
}

/// One file from the shelf to the target and into the books.
async fn transfer(
    file: FileId,
    ways: (Arc<Meter>, Arc<Valve>, bool),
    shelf: Arc<dyn Shelf>,
    target: Arc<dyn Target>,
) -> Result<Receipt, DeliveryError> {
    let job = Job::open(file, ways, Arc::clone(&shelf)).await?;
    let receipt = target.deliver(&job).await?;
    let kept = receipt.clone();
    blocking(move || shelf.delivered(file, &kept)).await?;
    Ok(receipt)
}

/// The time from `now` to `until`, within reason.
fn wait_for(until: BootTime, now: BootTime) -> Duration {
    until.since(now).min(LOOK_AGAIN)
}

/// A time after another.
fn later(from: BootTime, after: Duration) -> BootTime {
    BootTime(from.0.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
}
