//! How much is written between two syncs, and whose media goes first.
//!
//! Flash that takes all that comes is not held back. On flash that does not, a sync takes as long as
//! there is to write, and while it lasts every stream's lane fills up: all would lose alike. So the
//! writer takes no more than the flash has taken in a second of late, the most important streams first;
//! what is left fills the lanes of the least important, whose streams drop whole fragments.

use std::time::Duration;

/// A sync that takes longer is slow.
const SLOW: Duration = Duration::from_secs(1);
/// One that takes no longer says that flash keeps up.
const FAST: Duration = Duration::from_millis(250);
/// So many slow ones, one after the other, are no stall: a card that stalls for seconds now and then
/// keeps up all the same.
const SLOW_IN_A_ROW: u32 = 2;
/// At least this is written between two syncs, in bytes.
const BUDGET_BYTES_MIN: u64 = 256 << 10;

/// Whose media goes first; the larger is the more important.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum WritePriority {
    /// Kept in the ring, and nobody has asked for it.
    #[default]
    RingOnly = 0,
    /// Recorded by a template that a rule chose.
    Rule = 1,
    /// Somebody asked for just this: a timed task or a highlight.
    Task = 2,
}

impl WritePriority {
    /// Back from its number; unknown ones are the least important.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        [WritePriority::RingOnly, WritePriority::Rule, WritePriority::Task]
            .into_iter()
            .find(|priority| *priority as u8 == number)
            .unwrap_or_default()
    }
}

/// The pace of the writer.
#[derive(Debug, Clone, Default)]
pub struct WritePace {
    /// Bytes since the last sync.
    written: u64,
    slow_in_a_row: u32,
    /// Bytes between two syncs; `None`: as many as come.
    budget: Option<u64>,
}

impl WritePace {
    /// So many bytes were written.
    pub fn written(&mut self, bytes: u64) {
        self.written = self.written.saturating_add(bytes);
    }

    /// What was written is durable, and this is how long that took.
    pub fn synced(&mut self, took: Duration) {
        let written = std::mem::take(&mut self.written);
        self.slow_in_a_row = if took > SLOW { self.slow_in_a_row + 1 } else { 0 };
        if took <= FAST {
            self.budget = None;
        } else if self.slow_in_a_row >= SLOW_IN_A_ROW {
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
            let per_second = written.saturating_mul(1_000) / ms;
            self.budget = Some(per_second.max(BUDGET_BYTES_MIN));
        } else if let Some(budget) = &mut self.budget {
            // It came within its time: it may have a little more room.
            *budget = budget.saturating_add(*budget / 8);
        }
    }

    /// Whether nothing more is to be written before the next sync.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.budget.is_some_and(|budget| self.written >= budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(syncs: &[(u64, u64)]) -> WritePace {
        let mut pace = WritePace::default();
        for (bytes, ms) in syncs {
            pace.written(*bytes);
            pace.synced(Duration::from_millis(*ms));
        }
        pace
    }

    /// Bytes that it takes before it says no more.
    fn takes(mut pace: WritePace) -> Option<u64> {
        (0..1 << 12)
            .find(|_| {
                let spent = pace.is_spent();
                pace.written(1 << 14);
                spent
            })
            .map(|pieces| pieces << 14)
    }

    #[test]
    fn flash_that_keeps_up_and_one_that_stalls_once_are_not_held_back() {
        assert_eq!(takes(after(&[])), None);
        assert_eq!(takes(after(&[(8 << 20, 200), (8 << 20, 900)])), None);
        assert_eq!(takes(after(&[(1 << 20, 100), (1 << 20, 5_000)])), None, "a stall");
    }

    #[test]
    fn flash_that_is_too_slow_gets_what_it_took_in_a_second() {
        let slow = after(&[(4 << 20, 4_000), (4 << 20, 4_000)]);
        assert_eq!(takes(slow.clone()), Some(1 << 20));
        // However slow, something is written.
        assert_eq!(takes(after(&[(4 << 20, 60_000), (4 << 20, 60_000)])), Some(BUDGET_BYTES_MIN));
        let mut better = slow.clone();
        better.synced(Duration::from_millis(800));
        assert!(takes(better) > takes(slow.clone()), "it has room");
        let mut well = slow;
        well.synced(Duration::from_millis(100));
        assert_eq!(takes(well), None);
    }

    #[test]
    fn who_asked_for_it_goes_before_a_rule_and_a_rule_before_nobody() {
        let order = [WritePriority::RingOnly, WritePriority::Rule, WritePriority::Task];
        assert!(order.is_sorted());
        for priority in order {
            assert_eq!(WritePriority::from_number(priority as u8), priority);
        }
        assert_eq!(WritePriority::from_number(9), WritePriority::RingOnly);
    }
}
