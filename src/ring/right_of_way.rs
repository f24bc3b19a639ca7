//! The writer goes first: who reads media from flash waits while the writer makes media durable.
//!
//! On flash that is just fast enough to record, a reader that takes all it can get would make the
//! writer late until fragments are dropped. Readers say what they are about to read, and wait once
//! for each piece; a writer that never gets ready (a card that stalls) only slows them down. What
//! is small is counted together: on slow flash the writer is at work most of the time, and a reader
//! that waited for it before each of the many heads of a long clip would get nowhere.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Readers together wait once for so many bytes.
pub const PIECE_BYTES: usize = 256 << 10;
/// A reader waits at most this long for the writer, each time.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Who may use the flash.
#[derive(Debug, Default)]
pub struct RightOfWay {
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the writer is at work.
    taken: bool,
    /// What was read since a reader last looked whether it is.
    read_bytes: usize,
}

/// Held while the writer is at work.
#[derive(Debug)]
pub struct Taken<'a>(&'a RightOfWay);

impl RightOfWay {
    /// For the writer: readers wait until what is given is dropped.
    #[must_use]
    pub fn take(&self) -> Taken<'_> {
        self.state().taken = true;
        Taken(self)
    }

    /// For readers, before reading `bytes`, at most a piece: waits while the writer is at work if
    /// a piece was read since a reader last waited. Blocks.
    pub fn give_way(&self, bytes: usize) {
        let mut state = self.state();
        state.read_bytes += bytes;
        if state.read_bytes < PIECE_BYTES {
            return;
        }
        state.read_bytes = 0;
        if state.taken {
            let waited = self.free.wait_timeout_while(state, WAIT_MAX, |state| state.taken);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.state().taken = false;
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
        way.give_way(PIECE_BYTES);
        let taken = way.take();
        let (went_on, reader) = mpsc::channel();
        let of_reader = way.clone();
        let thread = std::thread::spawn(move || {
            of_reader.give_way(PIECE_BYTES);
            went_on.send(()).expect("somebody waits");
        });
        assert!(reader.recv_timeout(Duration::from_millis(50)).is_err(), "the writer is at work");
        drop(taken);
        reader.recv_timeout(Duration::from_secs(30)).expect("it goes on");
        thread.join().expect("it ended well");
    }
    #[test]
    fn what_is_small_is_looked_at_once_a_piece() {
        let way = RightOfWay::default();
        let heads = PIECE_BYTES / 4096;
        let looks = (0..4 * heads).filter(|_| {
            way.give_way(4096);
            way.state().read_bytes == 0
        });
        assert_eq!(looks.count(), 4);
    }
}
