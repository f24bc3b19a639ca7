//! A worker on a shelf, as the tests start it.

use std::sync::Arc;
use std::time::Duration;

use edgerec::delivery::board::{Board, Standing};
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
use edgerec::platform::net::SystemNet;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::fake_vod::{FakeVod, SECRET_ID, SECRET_KEY};
use crate::support::memory_shelf::{DEADLINE, MemoryShelf};

/// A worker under way.
pub struct Running {
    pub board: Arc<Board>,
    pub wake: Arc<Notify>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts a worker.
    pub fn start(shelf: &Arc<MemoryShelf>, target: Arc<dyn Target>) -> Self {
        let short = |ms, longest_ms| Rest {
            first: Duration::from_millis(ms),
            longest: Duration::from_millis(longest_ms),
        };
        let settings = DeliverySettings {
            parallel: 2,
            target_rest: short(20, 200),
            file_rest: short(20, 200),
        };
        let board = Arc::new(Board::new(&settings));
        let wake = Arc::new(Notify::new());
        let worker = Worker {
            shelf: shelf.clone(),
            target,
            clock: Arc::new(SystemClock::new()),
            board: Arc::clone(&board),
            wake: Arc::clone(&wake),
            settings,
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(worker.run(shutdown.clone()));
        Running { board, wake, shutdown, task }
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
        match self.board.standing(file, SystemClock::new().now().boot) {
            Standing::Queued { why } => why,
            Standing::Uploading { bytes } => format!("uploading, {bytes} bytes"),
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
