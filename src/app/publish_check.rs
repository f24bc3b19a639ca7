//! Who may push: the key of `[rtmp]`, the clock, and the log of refusals.
//!
//! Refusals are logged at most once in [`LOG_EVERY`], with the number of those in between, so that
//! guessing does not fill the log; neither secrets nor the query are in it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use crate::domain::secret::Secret;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::ingest::rtmp::{AnyPublisher, PublishCheck};
use crate::platform::clock::Clock;
use crate::wire::cloud::AgeCheck;
use crate::wire::cloud::push_auth::{PushKeys, PushRefusal};

/// The least time between two lines of the same kind.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// A URL is good so long after its `txTime`, in seconds.
const DELTA_S: u64 = 0;

/// What `[rtmp] push_key` asks for: without a key everybody may publish.
pub(super) fn publish_check(push_key: &Secret, clock: Arc<dyn Clock>) -> Arc<dyn PublishCheck> {
    if push_key.is_empty() {
        return Arc::new(AnyPublisher);
    }
    Arc::new(KeyedPublishers {
        keys: PushKeys::new([push_key.clone()], DELTA_S),
        clock,
        refusals: Mutex::default(),
        skipped: Mutex::default(),
    })
}

/// Lets those publish whose URL was made with the key.
struct KeyedPublishers {
    keys: PushKeys,
    clock: Arc<dyn Clock>,
    refusals: Mutex<LogPace>,
    skipped: Mutex<LogPace>,
}

impl PublishCheck for KeyedPublishers {
    fn check(&self, key: &StreamKey, query: &str) -> Result<(), String> {
        let now = self.clock.now();
        match self.keys.check(key.stream(), query, now.wall) {
            Ok(AgeCheck::Passed) => Ok(()),
            Ok(AgeCheck::Skipped) => {
                if let Some(unlogged) = pace(&self.skipped, now.boot) {
                    warn!(key = %shown(key), unlogged, "publish let in without a look at txTime: the clock is not set");
                }
                Ok(())
            }
            Err(refusal) => {
                self.log(key, refusal, now.boot);
                Err(refusal.to_string())
            }
        }
    }
}

impl KeyedPublishers {
    fn log(&self, key: &StreamKey, refusal: PushRefusal, now: BootTime) {
        if let Some(unlogged) = pace(&self.refusals, now) {
            warn!(key = %shown(key), why = %refusal, unlogged, "publish refused");
        }
    }
}

/// The key for the log. A stream name in which somebody wrote `&txSecret=` for `?txSecret=` holds
/// a secret.
fn shown(key: &StreamKey) -> String {
    if key.to_string().to_ascii_lowercase().contains("txsecret") {
        return "(not shown: it holds a txSecret)".to_owned();
    }
    key.to_string()
}

/// How often a kind of line was held back, and when one was let through.
#[derive(Debug, Default)]
struct LogPace {
    last: Option<BootTime>,
    held_back: u64,
}

impl LogPace {
    /// Whether a line may be written now; says how many were held back since the last one.
    fn take(&mut self, now: BootTime) -> Option<u64> {
        if self.last.is_some_and(|last| now.since(last) < LOG_EVERY) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

fn pace(pace: &Mutex<LogPace>, now: BootTime) -> Option<u64> {
    // Two counters are never half changed.
    pace.lock().unwrap_or_else(PoisonError::into_inner).take(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::BootId;
    use crate::domain::time::{ClockQuality, Instant, UnixMillis, WallTime};
    use crate::wire::cloud::push_auth::push_query;

    const KEY: &str = "pushkeyexample0001";
    const EXPIRES_S: u32 = 1_700_003_600;

    struct FixedClock(ClockQuality, i64);

    impl Clock for FixedClock {
        fn now(&self) -> Instant {
            let wall = WallTime { unix: UnixMillis(self.1 * 1_000), quality: self.0 };
            Instant { boot: BootTime(0), wall }
        }

        fn boot_id(&self) -> BootId {
            BootId([0; 16])
        }
    }

    fn check(push_key: &str, clock: FixedClock, stream: &str, query: &str) -> Result<(), String> {
        let key = StreamKey::new("push.example.com", "live", stream).expect("a key");
        publish_check(&Secret::new(push_key), Arc::new(clock)).check(&key, query)
    }

    fn before() -> FixedClock {
        FixedClock(ClockQuality::Trusted, i64::from(EXPIRES_S))
    }

    #[test]
    fn only_a_url_made_with_the_key_is_let_in() {
        let right = push_query(&Secret::new(KEY), "cam01", EXPIRES_S);
        assert_eq!(check(KEY, before(), "cam01", &right), Ok(()));
        let refused = |clock, stream, query| check(KEY, clock, stream, query).expect_err("refused");
        assert!(refused(before(), "cam02", &right).contains("18/503"));
        assert!(refused(before(), "cam01", "").contains("18/500"));
        let late = FixedClock(ClockQuality::Trusted, i64::from(EXPIRES_S) + 1);
        assert!(refused(late, "cam01", &right).contains("18/501"));
        let never_set = FixedClock(ClockQuality::Untrusted, i64::from(EXPIRES_S) + 1);
        assert_eq!(check(KEY, never_set, "cam01", &right), Ok(()));
    }

    #[test]
    fn without_a_key_everybody_is_let_in() {
        assert_eq!(check("", before(), "cam01", ""), Ok(()));
    }

    #[test]
    fn lines_are_paced_and_the_rest_is_counted() {
        let mut pace = LogPace::default();
        let every = u64::try_from(LOG_EVERY.as_millis()).expect("small");
        assert_eq!(pace.take(BootTime(5)), Some(0));
        for now in 6..16 {
            assert_eq!(pace.take(BootTime(now)), None);
        }
        assert_eq!(pace.take(BootTime(5 + every)), Some(10));
        assert_eq!(pace.take(BootTime(5 + 2 * every)), Some(0));
    }

    #[test]
    fn a_secret_in_a_stream_name_is_not_shown() {
        let key = |stream| StreamKey::new("h", "live", stream).expect("a key");
        assert_eq!(shown(&key("cam01")), "h/live/cam01");
        assert!(!shown(&key("cam01&txSecret=abcd")).contains("abcd"));
    }
}
