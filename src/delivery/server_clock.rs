//! A service's clock as far as we know it: requests are signed by it, nothing else follows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hyper::header::{DATE, HeaderMap};

use crate::domain::time::UnixMillis;
use crate::platform::clock::Clock;

/// The service's clock is believed over ours if they differ by at least this, in milliseconds.
const SKEW_MS_MIN: i64 = 5 * 60 * 1000;

/// Our clock and how far the service's is from it.
pub(super) struct ServerClock {
    clock: Arc<dyn Clock>,
    /// The service's clock minus ours, in milliseconds.
    skew_ms: AtomicI64,
}

impl ServerClock {
    /// A service's clock, believed to be ours until it says otherwise.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        ServerClock { clock, skew_ms: AtomicI64::new(0) }
    }

    /// The service's time as far as we know it.
    pub(super) fn now(&self) -> UnixMillis {
        let ours_ms = self.clock.now().wall.unix.0;
        UnixMillis(ours_ms.saturating_add(self.skew_ms.load(Ordering::Relaxed)))
    }

    /// After a refusal: takes over the service's clock if ours is far from it. Tells whether
    /// another try makes sense for that.
    pub(super) fn adopt(&self, headers: &HeaderMap) -> bool {
        let Some(theirs_ms) = headers
            .get(DATE)
            .and_then(|date| date.to_str().ok())
            .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
            .map(|date| date.timestamp().as_millisecond())
        else {
            return false;
        };
        if theirs_ms.abs_diff(self.now().0) < SKEW_MS_MIN.unsigned_abs() {
            return false;
        }
        let ours_ms = self.clock.now().wall.unix.0;
        self.skew_ms.store(theirs_ms.saturating_sub(ours_ms), Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;
    use crate::domain::ids::BootId;
    use crate::domain::time::{BootTime, ClockQuality, Instant, WallTime};

    struct FixedClock;

    impl Clock for FixedClock {
        fn now(&self) -> Instant {
            let wall = WallTime { unix: UnixMillis(0), quality: ClockQuality::Trusted };
            Instant { boot: BootTime(0), wall }
        }

        fn boot_id(&self) -> BootId {
            BootId([1; 16])
        }
    }

    #[test]
    fn the_service_clock_is_taken_over_once_and_only_if_far_off() {
        let clock = ServerClock::new(Arc::new(FixedClock));
        let mut headers = HeaderMap::new();
        assert!(!clock.adopt(&headers));
        headers.insert(DATE, HeaderValue::from_static("Thu, 01 Jan 1970 00:04:00 GMT"));
        assert!(!clock.adopt(&headers));
        headers.insert(DATE, HeaderValue::from_static("Mon, 21 Sep 2026 14:13:20 GMT"));
        assert!(clock.adopt(&headers));
        assert!(!clock.adopt(&headers), "a second refusal has another reason");
        assert_eq!(clock.now(), UnixMillis(1_790_000_000_000));
    }
}
