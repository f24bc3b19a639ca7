//! How the writer goes on while the flash fails. One failure may be a bad spot, and is answered with
//! another slot. With several in a row the flash itself fails: then no more slots are used up, what
//! cannot be written waits in its lanes, and the flash is tried again after a pause.

use std::time::Duration;

use crate::domain::time::BootTime;

/// So many failures in a row are no bad spot.
const MANY: u32 = 2;
/// The first pause; each failure after it doubles it.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_LONGEST: Duration = Duration::from_secs(4);

/// Failures of one kind of operation since the last one that worked.
#[derive(Debug, Default)]
pub(super) struct Failures {
    in_a_row: u32,
    last: BootTime,
}

impl Failures {
    /// One more.
    pub(super) fn failed(&mut self, now: BootTime) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = now;
    }

    /// One worked.
    pub(super) fn worked(&mut self) {
        self.in_a_row = 0;
    }

    /// Whether the flash fails, and not a spot of it.
    pub(super) fn are_many(&self) -> bool {
        self.in_a_row >= MANY
    }

    /// How long nothing is to be tried yet.
    pub(super) fn pause(&self, now: BootTime) -> Option<Duration> {
        let doublings = self.in_a_row.checked_sub(MANY)?.min(8);
        let pause = PAUSE_LONGEST.min(PAUSE_FIRST * (1 << doublings));
        pause.checked_sub(now.since(self.last)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_with_the_second_failure_in_a_row_and_grow() {
        let mut failures = Failures::default();
        failures.failed(BootTime(0));
        assert!(!failures.are_many());
        assert_eq!(failures.pause(BootTime(0)), None);
        for seconds in [1, 2, 4, 4] {
            failures.failed(BootTime(10_000));
            assert!(failures.are_many());
            assert_eq!(failures.pause(BootTime(10_000)), Some(Duration::from_secs(seconds)));
            assert_eq!(failures.pause(BootTime(10_000 + 1_000 * seconds)), None);
        }
        failures.worked();
        assert_eq!(failures.pause(BootTime(10_000)), None);
    }
}
