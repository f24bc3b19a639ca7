//! Waiting for conditions with a deadline.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `done` holds; fails the test when it does not hold within `within`.
#[track_caller]
pub fn wait_until(within: Duration, what: &str, mut done: impl FnMut() -> bool) {
    wait_for(within, what, || done().then_some(()));
}

/// Waits until `look` finds something; fails the test when it finds nothing within `within`.
#[track_caller]
pub fn wait_for<T>(within: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    match poll_for(within, look) {
        Some(found) => found,
        None => panic!("not within {within:?}: {what}"),
    }
}

/// Looks until `look` finds something or `within` is over.
pub fn poll_for<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        pause(POLL);
    }
}

/// Gives up the processor between two looks: a wait for a signal that nobody sends.
fn pause(time: Duration) {
    let (lock, signal) = (Mutex::new(()), Condvar::new());
    let held = lock.lock().expect("nobody else has this lock");
    drop(signal.wait_timeout(held, time));
}
