//! When a live session takes new rules: at once, spread over a time, or when the stream comes back
//! by itself.

use crate::domain::rule_set::{Apply, ApplyMode};
use crate::domain::time::BootTime;

/// From when on a stale session is restarted, at its next key frame; `None`: it is not. New rules
/// came at `since`; `spread` is any number that differs from stream to stream and stays the same
/// for one, so that restarts lie evenly over `within_s`.
#[must_use]
pub fn restart_at(apply: &Apply, since: BootTime, spread: u64) -> Option<BootTime> {
    match apply.mode {
        ApplyMode::NextStart => None,
        ApplyMode::Restart => {
            let within_ms = u64::from(apply.within_s) * 1_000;
            Some(BootTime(since.0.saturating_add(spread % (within_ms + 1))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(mode: ApplyMode, within_s: u32) -> Apply {
        Apply { mode, within_s, disconnect: false }
    }

    #[test]
    fn restarts_are_spread_over_the_time_given_and_next_start_is_none() {
        let since = BootTime(5_000);
        assert_eq!(restart_at(&apply(ApplyMode::Restart, 0), since, 77), Some(since));
        assert_eq!(restart_at(&apply(ApplyMode::NextStart, 0), since, 77), None);
        let times: Vec<u64> = (0..1_000)
            .filter_map(|stream| restart_at(&apply(ApplyMode::Restart, 10), since, stream * 7_919))
            .map(|at| at.0)
            .collect();
        assert!(times.iter().all(|at| (5_000..=15_000).contains(at)));
        assert!(times.iter().any(|at| *at < 7_000) && times.iter().any(|at| *at > 13_000));
    }
}
