//! What the ring did since the program started, for metrics: atomics that the writer thread and
//! the streams count up where things happen. Nobody waits for anybody.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counters of the ring; all but the age of the last sync only grow.
#[derive(Debug)]
pub struct RingMeters {
    began: Instant,
    fragments_written: AtomicU64,
    media_bytes_written: AtomicU64,
    fragments_dropped: AtomicU64,
    syncs: AtomicU64,
    sync_failures: AtomicU64,
    /// Milliseconds from `began` to the last good sync.
    synced_ms: AtomicU64,
    /// Rounds of the writer thread.
    rounds: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingReading {
    /// Fragments that were written to slots.
    pub fragments_written: u64,
    /// Bytes of those fragments.
    pub media_bytes_written: u64,
    /// Fragments that were dropped: a full lane, or no slot.
    pub fragments_dropped: u64,
    /// Group syncs that made something durable.
    pub syncs: u64,
    /// Group syncs that failed.
    pub sync_failures: u64,
    /// Time since the last good sync, or since the start before the first.
    pub sync_age: Duration,
}

impl Default for RingMeters {
    fn default() -> Self {
        RingMeters {
            began: Instant::now(),
            fragments_written: AtomicU64::new(0),
            media_bytes_written: AtomicU64::new(0),
            fragments_dropped: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_failures: AtomicU64::new(0),
            synced_ms: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
        }
    }
}

impl RingMeters {
    /// The writer thread begins a round.
    pub fn round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// Rounds of the writer thread: it makes one whenever it is woken.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// The counters now.
    #[must_use]
    pub fn read(&self) -> RingReading {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let synced = Duration::from_millis(of(&self.synced_ms));
        RingReading {
            fragments_written: of(&self.fragments_written),
            media_bytes_written: of(&self.media_bytes_written),
            fragments_dropped: of(&self.fragments_dropped),
            syncs: of(&self.syncs),
            sync_failures: of(&self.sync_failures),
            sync_age: self.began.elapsed().saturating_sub(synced),
        }
    }

    pub(super) fn fragment_written(&self, media_bytes: u64) {
        self.fragments_written.fetch_add(1, Ordering::Relaxed);
        self.media_bytes_written.fetch_add(media_bytes, Ordering::Relaxed);
    }

    pub(super) fn fragment_dropped(&self) {
        self.fragments_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a group sync by how it went.
    pub(super) fn count_sync(&self, synced: io::Result<()>) -> io::Result<()> {
        if synced.is_err() {
            self.sync_failures.fetch_add(1, Ordering::Relaxed);
            return synced;
        }
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.synced_ms.store(ms, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_counted_and_a_sync_makes_the_age_young() {
        let meters = RingMeters::default();
        meters.fragment_written(10);
        meters.fragment_written(5);
        meters.fragment_dropped();
        let failed = meters.count_sync(Err(io::ErrorKind::Other.into()));
        assert!(failed.is_err());
        let before = meters.read();
        assert_eq!((before.fragments_written, before.media_bytes_written), (2, 15));
        assert_eq!((before.fragments_dropped, before.syncs, before.sync_failures), (1, 0, 1));
        meters.count_sync(Ok(())).expect("as it went");
        assert_eq!((meters.read().syncs, meters.read().sync_failures), (1, 1));
        assert!(meters.read().sync_age <= meters.began.elapsed());
    }
}
