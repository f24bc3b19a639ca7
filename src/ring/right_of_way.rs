//! The writer goes first: who reads media from flash waits while the writer makes media durable.
//!
//! On flash that is just fast enough to record, a reader that takes all it can get would make the
//! writer late until fragments are dropped. Readers work in pieces and ask before each; a writer
//! that never gets ready (a card that stalls) only slows them down.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A reader waits at most this long for the writer before each piece.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Who may use the flash.
#[derive(Debug, Default)]
pub struct RightOfWay {
    taken: Mutex<bool>,
    free: Condvar,
}

/// Held while the writer is at work.
#[derive(Debug)]
pub struct Taken<'a>(&'a RightOfWay);

impl RightOfWay {
    /// For the writer: readers wait until what is given is dropped.
    #[must_use]
    pub fn take(&self) -> Taken<'_> {
        *self.taken() = true;
        Taken(self)
    }

    /// For readers, before each piece: waits while the writer is at work. Blocks.
    pub fn give_way(&self) {
        let taken = self.taken();
        if *taken {
            let waited = self.free.wait_timeout_while(taken, WAIT_MAX, |taken| *taken);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn taken(&self) -> MutexGuard<'_, bool> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.0.taken() = false;
        self.0.free.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_reader_goes_on_when_the_writer_is_done() {
        let way = Arc::new(RightOfWay::default());
        way.give_way();
        let taken = way.take();
        let (went_on, reader) = mpsc::channel();
        let of_reader = way.clone();
        let thread = std::thread::spawn(move || {
            of_reader.give_way();
            went_on.send(()).expect("somebody waits");
        });
        assert!(reader.recv_timeout(Duration::from_millis(50)).is_err(), "the writer is at work");
        drop(taken);
        reader.recv_timeout(Duration::from_secs(30)).expect("it goes on");
        thread.join().expect("it ended well");
    }
}
