//! The rest: streams of the user's own may still have been on when the box was shut down. The box
//! runs once more, without listeners, until its queue is empty.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::app;
use crate::cli::demo::DemoError;
use crate::cli::demo::show::{EndSignals, Hall, LOOK};
use crate::config::Config;
use crate::platform::clock::SystemClock;
use crate::platform::flash::SystemFlash;
use crate::ring::RingError;
use crate::ring::catalog::{CatalogSettings, CatalogState};
use crate::ring::clip::Leases;
use crate::ring::identity::RingIdentity;

/// A folder that takes no file for so long takes none.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// Files in a queue that are counted.
const QUEUE_MAX: u32 = 100_000;

/// Delivers what a box that has been shut down left in its queue.
///
/// # Errors
/// The ring cannot be read, or the folder takes no more files.
pub(super) async fn deliver_rest(config: &Config, hall: &mut Hall<'_>) -> Result<(), DemoError> {
    // Files that arrived while the box was shutting down are in no queue any more.
    hall.name_arrivals()?;
    let (left, _) = queue(config)?;
    if left == 0 {
        return Ok(());
    }
    hall.progress.say(&format!("delivering {left} more files"));
    let mut config = config.clone();
    config.rtmp.listen = None;
    config.api.listen = None;
    let shutdown = CancellationToken::new();
    let watch = async {
        let watched = wait_for_arrivals(left, hall, &shutdown).await;
        shutdown.cancel();
        watched
    };
    let (ran, watched) = tokio::join!(app::run(config.clone(), shutdown.clone(), |_| {}), watch);
    ran?;
    watched?;
    match queue(&config)? {
        (0, _) => Ok(()),
        (files, why) => Err(DemoError::Undelivered { files, why }),
    }
}

/// Waits until so many files have arrived, or none come any more.
async fn wait_for_arrivals(
    mut left: usize,
    hall: &mut Hall<'_>,
    shutdown: &CancellationToken,
) -> Result<(), DemoError> {
    let mut signals = EndSignals::catch()?;
    let mut look = interval(LOOK);
    let mut last = Instant::now();
    while left > 0 && last.elapsed() < STALLED_AFTER {
        tokio::select! {
            _ = look.tick() => {}
            () = signals.next() => return Err(DemoError::Interrupted),
            () = shutdown.cancelled() => return Ok(()),
        }
        let arrived = hall.name_arrivals()?.len();
        left = left.saturating_sub(arrived);
        if arrived > 0 {
            last = Instant::now();
        }
    }
    Ok(())
}

/// How many files a box that is down has left in its queue, and why the first of them waits.
fn queue(config: &Config) -> Result<(usize, String), RingError> {
    let path: &Path = &config.ring.path;
    let identity = Arc::new(RingIdentity::read(&SystemFlash, path)?);
    let settings = CatalogSettings { on_full: config.ring.on_full, delivers: true };
    let clock = Arc::new(SystemClock::new());
    let state = CatalogState::open(path, identity, clock, settings, Arc::new(Leases::default()))?;
    let left = state.waiting_in_order(QUEUE_MAX)?;
    let why = match left.first() {
        Some(first) => state.file(first.file)?.why,
        None => String::new(),
    };
    Ok((left.len(), why))
}
