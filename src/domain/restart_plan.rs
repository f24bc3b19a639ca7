//! When a live session takes new rules: at once, spread over a time, or when the stream comes back
//! by itself.

use crate::domain::rule_set::{Apply, ApplyMode};
use crate::domain::time::BootTime;

/// A stream is restarted for new rules no more often than once in this time, in milliseconds.
pub const RESTARTS_APART_MS: u64 = 5_000;

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

/// As [`restart_at`], for a session of which a restart may be `planned` already, and whose stream was
/// restarted for rules at `last`. Later rules do not put off what is planned, so that a storm of them
/// cannot keep a session from taking any; and restarts of one stream lie [`RESTARTS_APART_MS`] apart,
/// so that a storm is taken by few.
#[must_use]
pub fn next_restart(
    apply: &Apply,
    since: BootTime,
    spread: u64,
    planned: Option<BootTime>,
    last: Option<BootTime>,
) -> Option<BootTime> {
    let asked = restart_at(apply, since, spread)?;
    let at = planned.map_or(asked, |planned| planned.min(asked));
    let free = last.map_or(at, |last| BootTime(last.0.saturating_add(RESTARTS_APART_MS)));
    Some(at.max(free))
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

    #[test]
    fn a_storm_of_rules_neither_puts_a_restart_off_nor_makes_many() {
        // A document every 10 ms for a minute, and a key frame every second.
        for (mode_within_s, most) in [(0, 13), (7, 13)] {
            let apply = apply(ApplyMode::Restart, mode_within_s);
            let (mut planned, mut last, mut restarts) = (None, None, Vec::new());
            for ms in (0..60_000).step_by(10) {
                planned = next_restart(&apply, BootTime(ms), 3_300, planned, last);
                if ms % 1_000 == 0 && planned.is_some_and(|at| at <= BootTime(ms)) {
                    restarts.push(ms);
                    (planned, last) = (None, Some(BootTime(ms)));
                }
            }
            assert!((6..=most).contains(&restarts.len()), "{restarts:?}");
            assert!(restarts.windows(2).all(|two| two[1] - two[0] >= RESTARTS_APART_MS));
        }
        let first = next_restart(&apply(ApplyMode::Restart, 0), BootTime(77), 1, None, None);
        assert_eq!(first, Some(BootTime(77)), "the first one waits for nothing");
        let none = apply(ApplyMode::NextStart, 0);
        assert_eq!(next_restart(&none, BootTime(77), 1, first, None), None);
    }
}
