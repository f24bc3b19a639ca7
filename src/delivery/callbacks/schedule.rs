//! When a notice that nobody took is tried again, and when no more. Pure.

use std::time::Duration;

/// When it is tried again: as the contract has it (`callbacks.md` section 1), and then on, because
/// a box is offline for longer than a cloud.
///
/// Time is counted in attempts, not by a clock: a box that was off tries as often as one that was
/// on, and a wall clock that moves changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Between the attempts of the contract, and before the first after them.
    pub interval: Duration,
    /// How often the contract repeats.
    pub repeats: u32,
    /// The bound of later delays doubles up to this.
    pub longest: Duration,
    /// Later delays together, on average; then it is given up.
    pub total: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            interval: Duration::from_secs(60),
            repeats: 12,
            longest: Duration::from_secs(3_600),
            total: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Schedule {
    /// The delay after `failed` attempts that failed; `None`: it is given up. Later delays are
    /// between half of their bound and the bound; `random` is uniform over all `u64`.
    #[must_use]
    pub fn delay(&self, failed: u32, random: u64) -> Option<Duration> {
        let Some(later) = failed.checked_sub(self.repeats).filter(|later| *later > 0) else {
            return Some(self.interval);
        };
        let mut spent = Duration::ZERO;
        for earlier in 1..later {
            spent += self.bound(earlier) * 3 / 4;
            if spent >= self.total {
                return None;
            }
        }
        let half_ns = u64::try_from(self.bound(later).as_nanos() / 2).unwrap_or(u64::MAX);
        let part = (u128::from(random) * (u128::from(half_ns) + 1)) >> 64;
        let part = u64::try_from(part).unwrap_or(half_ns);
        Some(Duration::from_nanos(half_ns) + Duration::from_nanos(part))
    }

    /// Whether the contract would try no more.
    #[must_use]
    pub fn is_over_for_the_contract(&self, failed: u32) -> bool {
        failed > self.repeats
    }

    /// The bound of the `later`th delay after those of the contract, from 1.
    fn bound(&self, later: u32) -> Duration {
        self.interval.saturating_mul(1 << later.min(20)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_comes_first_then_seven_days() {
        let schedule = Schedule::default();
        for failed in 1..=12 {
            assert_eq!(schedule.delay(failed, u64::MAX), Some(Duration::from_mins(1)));
            assert!(!schedule.is_over_for_the_contract(failed));
        }
        let bounds = (13..20).filter_map(|failed| schedule.delay(failed, u64::MAX));
        let minutes: Vec<u64> = bounds.map(|delay| delay.as_secs() / 60).collect();
        assert_eq!(minutes, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(schedule.delay(13, 0), Some(Duration::from_mins(1)));
        assert!(schedule.is_over_for_the_contract(13));
        let on_average = u64::MAX / 2;
        let mut all = Duration::ZERO;
        let mut attempts = 1;
        while let Some(delay) = schedule.delay(attempts, on_average) {
            (all, attempts) = (all + delay, attempts + 1);
        }
        let days = all.as_secs_f64() / 86_400.0;
        assert!((7.0..7.2).contains(&days), "{days} days, {attempts} attempts");
        assert_eq!(schedule.delay(u32::MAX, 0), None);
    }
}
