//! How often one kind of line may be logged: what strangers can cause must not fill the log.

use std::time::Duration;

use crate::domain::time::BootTime;

/// The least time between two lines of the same kind.
pub const LOG_EVERY: Duration = Duration::from_secs(10);

/// How often a kind of line was held back, and when one was let through.
#[derive(Debug, Default)]
pub struct LogPace {
    last: Option<BootTime>,
    held_back: u64,
}

impl LogPace {
    /// Whether a line may be written now; says how many were held back since the last one.
    pub fn take(&mut self, now: BootTime) -> Option<u64> {
        if self.last.is_some_and(|last| now.since(last) < LOG_EVERY) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
