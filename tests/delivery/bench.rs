//! A worker on a shelf, as the tests start it.

use std::sync::Arc;
use std::time::Duration;

use edgerec::delivery::board::{Asked, Board, Standing};
use edgerec::delivery::open_target;
use edgerec::delivery::settings::{
    DeliverySettings, Rest, S3Settings, TargetSettings, VodSettings,
};
use edgerec::delivery::target::Target;
use edgerec::delivery::worker::Worker;
use edgerec::domain::ids::FileId;
use edgerec::domain::secret::Secret;
use edgerec::platform::clock::{Clock, SystemClock};
use edgerec::platform::flash::SystemFlash;
use edgerec::platform::links::{Links, SystemLinks};
use edgerec::platform::net::SystemNet;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::fake_vod::{FakeVod, SECRET_ID, SECRET_KEY};
use crate::support::memory_shelf::{DEADLINE, MemoryShelf, TEMPLATE};

/// Between two looks at what a test waits for.
const LOOK: Duration = Duration::from_millis(10);

/// A worker under way.
pub struct Running {
    pub board: Arc<Board>,
    pub wake: Arc<Notify>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// What a worker knows of the world.
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub links: Arc<dyn Links>,
}

impl Default for World {
    fn default() -> Self {
        World { clock: Arc::new(SystemClock::new()), links: Arc::new(SystemLinks) }
    }
}

impl Running {
    /// Settings with rests that a test can wait for.
    pub fn settings() -> DeliverySettings {
        let short = |ms, longest_ms| Rest {
            first: Duration::from_millis(ms),
            longest: Duration::from_millis(longest_ms),
        };
        DeliverySettings {
            target_rest: short(20, 200),
            file_rest: short(20, 200),
            ..DeliverySettings::default()
        }
    }

    /// Starts a worker.
    pub fn start(shelf: &Arc<MemoryShelf>, target: Arc<dyn Target>) -> Self {
        Running::start_with(shelf, target, Running::settings())
    }

    /// Starts a worker with other settings.
    pub fn start_with(
        shelf: &Arc<MemoryShelf>,
        target: Arc<dyn Target>,
        settings: DeliverySettings,
    ) -> Self {
        Running::start_in(&World::default(), shelf, target, settings)
    }

    /// Starts a worker in a world of the test's own.
    pub fn start_in(
        world: &World,
        shelf: &Arc<MemoryShelf>,
        target: Arc<dyn Target>,
        settings: DeliverySettings,
    ) -> Self {
        let board = Arc::new(Board::new(&settings));
        let wake = Arc::new(Notify::new());
        let worker = Worker {
            shelf: shelf.clone(),
            target,
            clock: Arc::clone(&world.clock),
            links: Arc::clone(&world.links),
            board: Arc::clone(&board),
            wake: Arc::clone(&wake),
            settings,
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(worker.run(shutdown.clone()));
        Running { board, wake, shutdown, task }
    }

    /// Waits until something holds, looking again and again.
    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let look = async {
            while !holds() {
                tokio::task::yield_now().await;
                let _ = tokio::time::timeout(LOOK, std::future::pending::<()>()).await;
            }
        };
        tokio::time::timeout(DEADLINE, look).await.unwrap_or_else(|_| panic!("in time: {what}"));
    }

    /// Waits until a file waits for this reason.
    pub async fn until_why(&self, file: FileId, why: &str) {
        self.until(why, || self.why(file) == why).await;
    }

    /// Starts a worker that delivers to a bucket.
    pub fn start_s3(shelf: &Arc<MemoryShelf>, settings: &S3Settings) -> Self {
        Running::start(shelf, s3_target(settings, Arc::new(SystemClock::new())))
    }

    /// Starts a worker that delivers to the stand-in for the VOD platform.
    pub fn start_vod(shelf: &Arc<MemoryShelf>, vod: &FakeVod) -> Self {
        Running::start(shelf, vod_target(vod, Arc::new(SystemClock::new())))
    }

    /// Ends the worker where it stands, as a kill would.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Ends the worker in order.
    pub async fn shut_down(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.task).await;
        ended.expect("in time").expect("no panic");
    }

    /// Why a file is not delivered yet.
    pub fn why(&self, file: FileId) -> String {
        let asked = Asked { file, template: TEMPLATE, urgent: false };
        match self.board.standing(&asked, SystemClock::new().now().boot) {
            Standing::Queued { why } => why,
            Standing::Uploading(going) => format!("uploading, {} bytes", going.bytes),
        }
    }
}

/// A bucket as target.
pub fn s3_target(settings: &S3Settings, clock: Arc<dyn Clock>) -> Arc<dyn Target> {
    let settings = TargetSettings::S3(settings.clone());
    let (flash, net) = (Arc::new(SystemFlash), Arc::new(SystemNet));
    open_target(&settings, flash, net, clock, &[]).expect("good settings")
}

/// The stand-in for the VOD platform as target.
pub fn vod_target(vod: &FakeVod, clock: Arc<dyn Clock>) -> Arc<dyn Target> {
    let address = format!("http://127.0.0.1:{}", vod.port);
    let settings = TargetSettings::TencentVod(VodSettings {
        endpoint: Some(address.clone()),
        storage_endpoint: Some(address),
        storage_region: None,
        sub_app_id: Some(1_500_000_001),
        secret_id: SECRET_ID.into(),
        secret_key: Secret::new(SECRET_KEY),
    });
    let (flash, net) = (Arc::new(SystemFlash), Arc::new(SystemNet));
    open_target(&settings, flash, net, clock, &[]).expect("good settings")
}
