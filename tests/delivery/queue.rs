//! The worker itself, with a target that does as it is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgerec::delivery::error::{DeliveryError, ErrorClass};
use edgerec::delivery::settings::DeliverySettings;
use edgerec::delivery::shelf::Receipt;
use edgerec::delivery::target::{DeliveryFuture, Job, Target};
use edgerec::domain::ids::FileId;
use edgerec::domain::upload_order::UploadKind;
use tokio::sync::{Semaphore, watch};

use crate::bench::Running;
use crate::support::memory_shelf::{DEADLINE, MadeUp, MemoryShelf};

/// Takes a file when a permit is there; refuses, breaks off or panics on the files named.
struct Gate {
    permits: Semaphore,
    began: watch::Sender<Vec<FileId>>,
    bad: Mutex<BTreeSet<FileId>>,
    resets: Mutex<BTreeSet<FileId>>,
    panics: Mutex<BTreeSet<FileId>>,
}

impl Gate {
    fn new(permits: usize) -> Arc<Self> {
        let (bad, resets, panics) = Default::default();
        let permits = Semaphore::new(permits);
        Arc::new(Gate { permits, began: Default::default(), bad, resets, panics })
    }

    async fn until_began(&self, count: usize) -> Vec<FileId> {
        let mut began = self.began.subscribe();
        let found = tokio::time::timeout(DEADLINE, began.wait_for(|began| began.len() >= count));
        let mut began = found.await.expect("in time").expect("lives").clone();
        // Files that set out at the same time may pass each other on the way to the target.
        began.sort();
        began
    }
}

impl Target for Gate {
    fn name(&self) -> &str {
        "gate"
    }

    fn deliver<'a>(&'a self, job: &'a Job) -> DeliveryFuture<'a> {
        Box::pin(async move {
            let file = job.plan.file_id;
            self.began.send_modify(|began| began.push(file));
            assert!(!self.panics.lock().expect("free").remove(&file), "a planted panic");
            if self.bad.lock().expect("free").contains(&file) {
                let (status, code) = (400, "EntityTooLarge".to_owned());
                let message = String::new();
                return Err(DeliveryError::Refused { status, code, message, wait: None });
            }
            if self.resets.lock().expect("free").contains(&file) {
                job.meter.add(100);
                let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                return Err(DeliveryError::Unreachable(Box::new(reset)));
            }
            self.permits.acquire().await.expect("open").forget();
            let sha256 = String::new();
            Ok(Receipt { url: "gate:".into(), size: 0, sha256, target_file_id: None })
        })
    }
}

#[tokio::test]
async fn two_at_a_time_oldest_first_and_a_new_file_wakes_it() {
    let shelf = MemoryShelf::new();
    let files: Vec<_> = (1..=4).map(|n| shelf.put(n, MadeUp::single(n, 1))).collect();
    let gate = Gate::new(0);
    let running = Running::start(&shelf, gate.clone());
    assert_eq!(gate.until_began(2).await, files[..2]);
    assert_eq!(running.why(files[1]), "uploading, 0 bytes");
    assert_eq!(running.why(files[2]), "waiting for its turn");
    gate.permits.add_permits(1);
    assert_eq!(gate.until_began(3).await, files[..3]);
    gate.permits.add_permits(3);
    for file in files {
        shelf.delivered(file).await;
    }
    let late = shelf.put(5, MadeUp::single(5, 1));
    gate.permits.add_permits(1);
    running.wake.notify_one();
    shelf.delivered(late).await;
    running.kill().await;
}

#[tokio::test]
async fn a_file_that_the_target_never_takes_does_not_hold_up_the_others() {
    let shelf = MemoryShelf::new();
    let files: Vec<_> = (1..=8).map(|n| shelf.put(n, MadeUp::single(n, 1))).collect();
    let gate = Gate::new(100);
    gate.bad.lock().expect("free").insert(files[0]);
    gate.resets.lock().expect("free").insert(files[1]);
    let running = Running::start(&shelf, gate.clone());
    for file in &files[2..] {
        shelf.delivered(*file).await;
    }
    let fate = shelf.until("tried for ever", files[0], |fate| fate.failures.len() >= 4).await;
    assert!(fate.failures.iter().all(|failure| failure.class == ErrorClass::Retry));
    let attempts: Vec<u32> = fate.failures.iter().map(|failure| failure.attempts).collect();
    assert_eq!(attempts[..4], [1, 2, 3, 4]);
    running.kill().await;
}

#[tokio::test]
async fn a_more_pressing_file_sets_out_when_its_rest_ends_also_if_every_place_is_taken() {
    let shelf = MemoryShelf::new();
    let files: Vec<_> = (1..=3).map(|n| shelf.put(n, MadeUp::single(n, 1))).collect();
    shelf.ask(files[2], UploadKind::Highlight, false);
    let gate = Gate::new(0);
    gate.bad.lock().expect("free").insert(files[2]);
    let settings = DeliverySettings { parallel: 1, ..Running::settings() };
    let running = Running::start_with(&shelf, gate.clone(), settings);
    // Its rests are of some milliseconds; the queue is looked at anyway each minute.
    let tried = shelf.until("three tries", files[2], |fate| fate.failures.len() >= 3);
    tokio::time::timeout(Duration::from_secs(45), tried).await.expect("without waiting a minute");
    assert_eq!(running.why(files[0]), "uploading, 0 bytes");
    running.kill().await;
}

#[tokio::test]
async fn a_panic_costs_one_attempt_of_one_file() {
    let shelf = MemoryShelf::new();
    let files: Vec<_> = (1..=2).map(|n| shelf.put(n, MadeUp::single(n, 1))).collect();
    let gate = Gate::new(100);
    gate.panics.lock().expect("free").insert(files[0]);
    let running = Running::start(&shelf, gate.clone());
    for file in &files {
        shelf.delivered(*file).await;
    }
    assert_eq!(shelf.fate(files[0]).failures.len(), 1);
    running.kill().await;
}

#[tokio::test]
async fn shutdown_ends_the_worker_and_what_it_does() {
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 1));
    let gate = Gate::new(0);
    let running = Running::start(&shelf, gate.clone());
    gate.until_began(1).await;
    running.shut_down().await;
    gate.permits.add_permits(1);
    assert_eq!(gate.permits.available_permits(), 1, "nobody is left to take it");
    assert!(shelf.fate(file).receipt.is_none());
    assert!(shelf.fate(file).failures.is_empty());
}
