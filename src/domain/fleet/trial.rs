//! The trial of a rule set that was taken while streams were live: where streams that worked before
//! fail under it again and again, the box goes back to the rules before it.
//!
//! Only streams count about which the rule set says something else than the rules before it: a camera
//! that loses power at the same time is no reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::faults::Faults;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;

/// So many sessions that fail are reason to go back.
pub const FAILURES_MAX: usize = 3;
/// They lie within this time, in milliseconds; so long a rule set is on trial once all streams have
/// taken it.
pub const TRIAL_MS: u64 = 120_000;

/// The trial of one rule set.
#[derive(Debug, Clone)]
pub struct Trial {
    revision: u64,
    touched: Arc<BTreeSet<StreamKey>>,
    ends: BootTime,
    failures: Vec<Failure>,
}

#[derive(Debug, Clone)]
struct Failure {
    at: BootTime,
    key: StreamKey,
    why: String,
}

impl Trial {
    /// The trial of a revision that came into force at `now`, and that live sessions take within
    /// `within_s` seconds; `touched` are the streams that worked and about which it says something
    /// else.
    #[must_use]
    pub fn new(
        revision: u64,
        touched: Arc<BTreeSet<StreamKey>>,
        within_s: u32,
        now: BootTime,
    ) -> Self {
        let lasts_ms = u64::from(within_s) * 1_000 + TRIAL_MS;
        let ends = BootTime(now.0.saturating_add(lasts_ms));
        Trial { revision, touched, ends, failures: Vec::new() }
    }

    /// Which revision is on trial.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A session of a stream failed, or could not begin. Gives the reasons, each at its stream, if the
    /// box is to go back.
    pub fn failed(&mut self, key: &StreamKey, why: &str, now: BootTime) -> Option<Faults> {
        if self.is_over(now) || !self.touched.contains(key) {
            return None;
        }
        self.failures.retain(|failure| now.since(failure.at).as_millis() < u128::from(TRIAL_MS));
        self.failures.push(Failure { at: now, key: key.clone(), why: why.to_owned() });
        if self.failures.len() < FAILURES_MAX {
            return None;
        }
        let mut reasons = Faults::new();
        for failure in std::mem::take(&mut self.failures) {
            reasons.add(failure.key.to_string(), failure.why);
        }
        Some(reasons)
    }

    /// Whether the rule set has proved good.
    #[must_use]
    pub fn is_over(&self, now: BootTime) -> bool {
        now > self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> StreamKey {
        StreamKey::new("cams", "live", name).expect("a key")
    }

    fn trial(within_s: u32) -> Trial {
        Trial::new(7, Arc::new([key("a"), key("b")].into()), within_s, BootTime(1_000))
    }

    #[test]
    fn three_failures_of_streams_that_worked_are_reason_to_go_back() {
        let mut trial = trial(0);
        let mut failed = |name: &str, ms| trial.failed(&key(name), "no answer", BootTime(ms));
        assert_eq!(failed("a", 2_000), None);
        assert_eq!(failed("c", 3_000), None, "nothing was changed about it");
        assert_eq!(failed("a", 4_000), None);
        let reasons = failed("b", 5_000).expect("the third");
        let told = "cams/live/a: no answer\ncams/live/a: no answer\ncams/live/b: no answer";
        assert_eq!(reasons.to_string(), told);
    }

    #[test]
    fn failures_that_lie_apart_are_none_and_a_trial_ends() {
        let mut trial = trial(300);
        let mut failed = |ms| trial.failed(&key("a"), "no answer", BootTime(ms)).is_some();
        assert!(!failed(2_000) && !failed(62_000) && !failed(122_000), "the first is too old");
        assert!(failed(123_000));
        assert!(!trial.is_over(BootTime(421_000)) && trial.is_over(BootTime(421_001)));
        for ms in 421_001..421_010 {
            assert_eq!(trial.failed(&key("a"), "no answer", BootTime(ms)), None);
        }
    }
}
