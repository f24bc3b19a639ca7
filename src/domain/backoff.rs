//! Retry delays with full jitter: uniform between zero and an exponentially growing, capped bound,
//! so that many boxes that lost the same peer do not come back at the same moment.

use std::time::Duration;

/// Counts attempts in a row that failed and says how long to wait before the next.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// The first delay is at most `base`; each failure doubles the bound up to `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Backoff { base, cap, failures: 0 }
    }

    /// The delay after one more failure. `random` is uniform over all `u64`.
    pub fn next_delay(&mut self, random: u64) -> Duration {
        let bound = self.base.saturating_mul(1 << self.failures.min(20)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        let scaled = (u128::from(random) * (u128::from(nanos) + 1)) >> 64;
        Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
    }

    /// After a success: the next failure starts from the base again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_doubles_up_to_the_cap_and_jitter_is_full() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let bounds: Vec<u64> = (0..6).map(|_| backoff.next_delay(u64::MAX).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.next_delay(0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next_delay(u64::MAX / 2 + 1), Duration::from_millis(500));
    }
}
