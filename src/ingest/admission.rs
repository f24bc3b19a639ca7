//! Who may publish a stream key: one at a time. A second publisher is refused while the first
//! delivers; one that fell silent gives way.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::domain::limits::{PUBLISHER_ALIVE_MS, STREAMS_MAX};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::ingest::intake::Refusal;
use crate::platform::clock::Clock;

/// How long a publisher that gives way may take to end.
const GIVE_WAY_MAX: Duration = Duration::from_secs(3);

/// The table of live stream keys; clones share it.
#[derive(Clone)]
pub struct Admission {
    table: Arc<Mutex<HashMap<StreamKey, Live>>>,
    clock: Arc<dyn Clock>,
    give_way_max: Duration,
}

/// A publisher in the table.
#[derive(Clone)]
struct Live {
    /// Boot time of the last delivery, in milliseconds.
    delivered_ms: Arc<AtomicU64>,
    /// Tells the publisher to give way.
    replaced: CancellationToken,
    /// Cancelled when the key is free.
    freed: CancellationToken,
}

/// The right to publish a key, until it is dropped.
pub struct LiveKey {
    key: StreamKey,
    live: Live,
    table: Arc<Mutex<HashMap<StreamKey, Live>>>,
}

impl Admission {
    /// An empty table.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Admission { table: Arc::default(), clock, give_way_max: GIVE_WAY_MAX }
    }

    /// Gives the key to a publisher. If another one holds it and delivered nothing for
    /// [`PUBLISHER_ALIVE_MS`], that one is told to give way and waited for, a few seconds at most.
    ///
    /// # Errors
    /// The key is live, or as many streams as the box takes are.
    pub async fn admit(&self, key: &StreamKey) -> Result<LiveKey, Refusal> {
        let Some(other) = self.try_admit(key)? else { return self.enter(key) };
        other.replaced.cancel();
        if timeout(self.give_way_max, other.freed.cancelled()).await.is_err() {
            return Err(Refusal::AlreadyPublishing);
        }
        self.enter(key)
    }

    /// Stream keys that are live.
    #[must_use]
    pub fn live_count(&self) -> usize {
        lock(&self.table).len()
    }

    /// The publisher that must give way first, if there is one.
    fn try_admit(&self, key: &StreamKey) -> Result<Option<Live>, Refusal> {
        let table = lock(&self.table);
        let Some(live) = table.get(key) else { return Ok(None) };
        let delivered = BootTime(live.delivered_ms.load(Ordering::Relaxed));
        let silent = self.clock.now().boot.since(delivered);
        // A publisher that already gives way does so for somebody else.
        if silent < Duration::from_millis(PUBLISHER_ALIVE_MS) || live.replaced.is_cancelled() {
            return Err(Refusal::AlreadyPublishing);
        }
        Ok(Some(live.clone()))
    }

    fn enter(&self, key: &StreamKey) -> Result<LiveKey, Refusal> {
        let mut table = lock(&self.table);
        if table.contains_key(key) {
            return Err(Refusal::AlreadyPublishing);
        }
        if table.len() >= STREAMS_MAX {
            return Err(Refusal::Full);
        }
        let live = Live {
            delivered_ms: Arc::new(AtomicU64::new(self.clock.now().boot.0)),
            replaced: CancellationToken::new(),
            freed: CancellationToken::new(),
        };
        table.insert(key.clone(), live.clone());
        Ok(LiveKey { key: key.clone(), live, table: Arc::clone(&self.table) })
    }
}

impl LiveKey {
    /// The publisher delivered bytes.
    pub fn touch(&self, now: BootTime) {
        self.live.delivered_ms.store(now.0, Ordering::Relaxed);
    }

    /// Cancelled when the publisher must give way: it ends its stream and drops this.
    #[must_use]
    pub fn replaced(&self) -> CancellationToken {
        self.live.replaced.clone()
    }

    /// Which key.
    #[must_use]
    pub fn key(&self) -> &StreamKey {
        &self.key
    }
}

impl Drop for LiveKey {
    fn drop(&mut self) {
        lock(&self.table).remove(&self.key);
        self.live.freed.cancel();
    }
}

impl fmt::Debug for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveKey({})", self.key)
    }
}

/// Nothing panics while it holds the lock, so a poisoned table is a whole one.
fn lock(table: &Mutex<HashMap<StreamKey, Live>>) -> MutexGuard<'_, HashMap<StreamKey, Live>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::BootId;
    use crate::domain::time::{ClockQuality, Instant, UnixMillis, WallTime};

    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn now(&self) -> Instant {
            let wall = WallTime { unix: UnixMillis(0), quality: ClockQuality::Untrusted };
            Instant { boot: BootTime(self.0.load(Ordering::Relaxed)), wall }
        }

        fn boot_id(&self) -> BootId {
            BootId([0; 16])
        }
    }

    fn setup() -> (Arc<HandClock>, Admission, StreamKey) {
        let clock = Arc::new(HandClock(AtomicU64::new(1_000_000)));
        let admission = Admission::new(clock.clone());
        (clock, admission, StreamKey::new("d", "a", "s").expect("valid"))
    }

    #[tokio::test]
    async fn a_delivering_publisher_keeps_its_key_and_frees_it() {
        let (clock, admission, key) = setup();
        let first = admission.admit(&key).await.expect("free");
        clock.0.fetch_add(5_000, Ordering::Relaxed);
        first.touch(clock.now().boot);
        clock.0.fetch_add(PUBLISHER_ALIVE_MS - 1, Ordering::Relaxed);
        assert_eq!(admission.admit(&key).await.err(), Some(Refusal::AlreadyPublishing));
        assert!(!first.replaced().is_cancelled());
        drop(first);
        assert_eq!(admission.live_count(), 0);
        admission.admit(&key).await.expect("free again");
    }

    #[tokio::test]
    async fn a_silent_publisher_is_told_and_waited_for() {
        let (clock, admission, key) = setup();
        let first = admission.admit(&key).await.expect("free");
        clock.0.fetch_add(PUBLISHER_ALIVE_MS, Ordering::Relaxed);
        let second = admission.admit(&key);
        let give_way = async {
            first.replaced().cancelled().await;
            assert_eq!(admission.admit(&key).await.err(), Some(Refusal::AlreadyPublishing));
            drop(first);
        };
        let (second, ()) = tokio::join!(second, give_way);
        second.expect("the first gave way");
    }

    #[tokio::test]
    async fn one_that_does_not_give_way_is_not_waited_for_long() {
        let (clock, mut admission, key) = setup();
        admission.give_way_max = Duration::from_millis(1);
        let _first = admission.admit(&key).await.expect("free");
        clock.0.fetch_add(PUBLISHER_ALIVE_MS, Ordering::Relaxed);
        assert_eq!(admission.admit(&key).await.err(), Some(Refusal::AlreadyPublishing));
    }

    #[tokio::test]
    async fn the_box_takes_only_so_many_streams() {
        let (_, admission, key) = setup();
        let mut held = Vec::new();
        for number in 0..STREAMS_MAX {
            let key = StreamKey::new("d", "a", &number.to_string()).expect("valid");
            held.push(admission.admit(&key).await.expect("room"));
        }
        assert_eq!(admission.admit(&key).await.err(), Some(Refusal::Full));
        held.pop();
        admission.admit(&key).await.expect("room again");
    }
}
