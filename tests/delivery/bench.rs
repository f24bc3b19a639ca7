//! A worker on a shelf, as the tests start it.

use std::sync::Arc;
use std::time::Duration;

use edgerec::delivery::board::{Board, Standing};
use edgerec::delivery::http::HttpLimits;
use edgerec::delivery::s3::S3Target;
use edgerec::delivery::settings::{DeliverySettings, Rest, S3Settings};
use edgerec::delivery::target::Target;
use edgerec::delivery::worker::Worker;
use edgerec::domain::ids::FileId;
use edgerec::platform::clock::{Clock, SystemClock};
use edgerec::platform::net::SystemNet;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::memory_shelf::MemoryShelf;

/// A worker under way.
pub struct Running {
    pub board: Arc<Board>,
    pub wake: Arc<Notify>,
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
        let task = tokio::spawn(worker.run(Default::default()));
        Running { board, wake, task }
    }

    /// Starts a worker that delivers to a bucket.
    pub fn start_s3(shelf: &Arc<MemoryShelf>, settings: &S3Settings) -> Self {
        Running::start(shelf, s3_target(settings, Arc::new(SystemClock::new())))
    }

    /// Ends the worker where it stands, as a kill would.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
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
    let net = Arc::new(SystemNet);
    let target = S3Target::new(settings, net, clock, HttpLimits::default(), &[]);
    Arc::new(target.expect("good settings"))
}
