//! The worker of the queue: keeps a few files on their way, rests after failures, never gives up.
//!
//! The queue itself is durable and lives on the shelf; the worker can be dropped and started anew
//! at any time. A target that fails rests as a whole, a file that fails rests alone: a dead link
//! is not hammered by every file, and one bad file does not hold up the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::delivery::board::Board;
use crate::delivery::error::{DeliveryError, ErrorClass, ErrorScope};
use crate::delivery::settings::DeliverySettings;
use crate::delivery::shelf::{Failure, Receipt, Shelf, ShelfError};
use crate::delivery::target::{Job, Meter, Target, blocking};
use crate::domain::ids::FileId;
use crate::domain::time::BootTime;
use crate::domain::upload_order::{Next, next};
use crate::platform::clock::Clock;
use crate::platform::planted;
use crate::platform::random::random_u64;

/// Waiting files that are looked at for one decision.
const LOOK_AHEAD: usize = 1024;
/// The queue is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Brings waiting files to a target.
pub struct Worker {
    /// The queue.
    pub shelf: Arc<dyn Shelf>,
    /// Where files go.
    pub target: Arc<dyn Target>,
    /// For rests.
    pub clock: Arc<dyn Clock>,
    /// Where everyone sees what goes on.
    pub board: Arc<Board>,
    /// Notified when a file begins to wait.
    pub wake: Arc<Notify>,
    /// How many at a time.
    pub settings: DeliverySettings,
}

/// Files on their way.
#[derive(Default)]
struct Transfers {
    tasks: JoinSet<Result<Receipt, DeliveryError>>,
    files: HashMap<Id, (FileId, Arc<Meter>)>,
}

type Finished = Result<(Id, Result<Receipt, DeliveryError>), JoinError>;

impl Worker {
    /// Works until shutdown; transfers are then dropped where they stand and go on next time.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut transfers = Transfers::default();
        loop {
            self.board.round();
            if planted::hangs("delivery") {
                std::future::pending::<()>().await;
            }
            let pause = self.set_out(&mut transfers).await;
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(finished) = transfers.tasks.join_next_with_id() => {
                    self.settle(finished, &mut transfers).await;
                }
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        transfers.tasks.shutdown().await;
    }

    /// Sends files out until enough are on their way; gives how long to wait before looking again.
    async fn set_out(&self, transfers: &mut Transfers) -> Duration {
        while transfers.tasks.len() < self.settings.parallel.max(1) {
            let now = self.clock.now().boot;
            if let Some(until) = self.board.target_rests_until(now) {
                return wait_for(until, now);
            }
            match self.choose(now).await {
                Ok(Next::File(file)) => self.start(file, transfers),
                Ok(Next::RestUntil(until)) => return wait_for(until, now),
                Ok(Next::Idle) => return LOOK_AGAIN,
                Err(error) => {
                    tracing::error!(why = error.explain(), "upload queue cannot be read");
                    return self.settings.target_rest.longest;
                }
            }
        }
        LOOK_AGAIN
    }

    async fn choose(&self, now: BootTime) -> Result<Next, DeliveryError> {
        let shelf = Arc::clone(&self.shelf);
        let mut waiting = blocking(move || shelf.waiting(LOOK_AHEAD)).await?;
        let complete = waiting.len() < LOOK_AHEAD;
        self.board.annotate(&mut waiting, complete);
        Ok(next(&waiting, now))
    }

    fn start(&self, file: FileId, transfers: &mut Transfers) {
        let meter = self.board.begin(file);
        let (shelf, target) = (Arc::clone(&self.shelf), Arc::clone(&self.target));
        let span = tracing::info_span!("deliver", %file);
        let work = transfer(file, Arc::clone(&meter), shelf, target).instrument(span);
        let id = transfers.tasks.spawn(work).id();
        transfers.files.insert(id, (file, meter));
    }

    /// Draws the consequences of a transfer that ended.
    async fn settle(&self, finished: Finished, transfers: &mut Transfers) {
        let (id, result) = match finished {
            Ok((id, result)) => (id, result),
            // A panic concerns this file only.
            Err(error) => {
                let id = error.id();
                (id, Err(DeliveryError::Shelf(ShelfError::Failed(Box::new(error)))))
            }
        };
        let Some((file, meter)) = transfers.files.remove(&id) else { return };
        match result {
            Ok(receipt) => {
                tracing::info!(%file, url = receipt.url, size = receipt.size, "delivered");
                self.board.target_works();
                self.board.count_delivery(receipt.size);
                self.board.finish(file);
            }
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
        let attempts = match (class, scope) {
            (ErrorClass::Drop | ErrorClass::Lose | ErrorClass::Quarantine, _) => 1,
            (ErrorClass::Stop, _) => {
                self.board.stop(file, &why);
                1
            }
            (ErrorClass::Retry, ErrorScope::File) => self.board.rest_file(file, &why, now, random),
            (ErrorClass::Retry, ErrorScope::Target) => {
                self.board.rest_target(file, &why, now, random)
            }
            (ErrorClass::Retry, ErrorScope::Either) => {
                self.board.rest_target(file, &why, now, random);
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
    meter: Arc<Meter>,
    shelf: Arc<dyn Shelf>,
    target: Arc<dyn Target>,
) -> Result<Receipt, DeliveryError> {
    let job = Job::open(file, meter, Arc::clone(&shelf)).await?;
    let receipt = target.deliver(&job).await?;
    let kept = receipt.clone();
    blocking(move || shelf.delivered(file, &kept)).await?;
    Ok(receipt)
}

/// The time from `now` to `until`, within reason.
fn wait_for(until: BootTime, now: BootTime) -> Duration {
    until.since(now).min(LOOK_AGAIN)
}
