//! The trial of a rule set that was taken while streams were live: where streams that worked before
//! fail under it again and again, the box goes back to the rules before it.
//!
//! Only streams count about which the rule set says something else than the rules before it, and of
//! them only what the rules can have caused: a camera that cannot be pulled counts where its address or
//! credentials changed. One that loses power at the same time is no reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::faults::Faults;
use crate::domain::matching::RuleTable;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;

/// So many sessions that fail are reason to go back.
pub const FAILURES_MAX: usize = 3;
/// They lie within this time, in milliseconds; so long a rule set is on trial once all streams have
/// taken it.
pub const TRIAL_MS: u64 = 120_000;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// The camera cannot be pulled, or breaks off early.
    Pull,
    /// The box cannot record what comes.
    Recording,
}

/// Streams that worked and about which a rule set says something else than the rules before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// All of them.
    pub any: BTreeSet<StreamKey>,
    /// Those that are pulled from elsewhere, or with other credentials.
    pub moved: BTreeSet<StreamKey>,
}

impl Touched {
    /// Those of the `working` streams about which `new` says something else than `old`.
    #[must_use]
    pub fn between(old: &RuleTable, new: &RuleTable, working: &[StreamKey]) -> Self {
        let of = |differs: fn(&RuleTable, &RuleTable, &StreamKey) -> bool| {
            working.iter().filter(|key| differs(old, new, key)).cloned().collect()
        };
        Touched { any: of(RuleTable::differs), moved: of(RuleTable::moves) }
    }

    /// Those of another rule set too.
    pub fn extend(&mut self, other: &Touched) {
        self.any.extend(other.any.iter().cloned());
        self.moved.extend(other.moved.iter().cloned());
    }

    fn counts(&self, key: &StreamKey, what: Failing) -> bool {
        match what {
            Failing::Pull => self.moved.contains(key),
            Failing::Recording => self.any.contains(key),
        }
    }
}

/// The trial of one rule set.
#[derive(Debug, Clone)]
pub struct Trial {
    revision: u64,
    touched: Arc<Touched>,
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
    pub fn new(revision: u64, touched: Arc<Touched>, within_s: u32, now: BootTime) -> Self {
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
    pub fn failed(
        &mut self,
        key: &StreamKey,
        what: Failing,
        why: &str,
        now: BootTime,
    ) -> Option<Faults> {
        if self.is_over(now) || !self.touched.counts(key, what) {
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

    /// The streams a and b are pulled from elsewhere, c is only recorded otherwise.
    fn trial(within_s: u32) -> Trial {
        let any = [key("a"), key("b"), key("c")].into();
        let touched = Touched { any, moved: [key("a"), key("b")].into() };
        Trial::new(7, Arc::new(touched), within_s, BootTime(1_000))
    }

    #[test]
    fn three_failures_of_streams_that_worked_are_reason_to_go_back() {
        let mut trial = trial(0);
        let mut failed =
            |name: &str, ms| trial.failed(&key(name), Failing::Pull, "no answer", BootTime(ms));
        assert_eq!(failed("a", 2_000), None);
        assert_eq!(failed("d", 3_000), None, "nothing was changed about it");
        assert_eq!(failed("a", 4_000), None);
        let reasons = failed("b", 5_000).expect("the third");
        let told = "cams/live/a: no answer\ncams/live/a: no answer\ncams/live/b: no answer";
        assert_eq!(reasons.to_string(), told);
    }

    #[test]
    fn failures_that_lie_apart_are_none_and_a_trial_ends() {
        let mut trial = trial(300);
        let mut failed =
            |ms| trial.failed(&key("a"), Failing::Pull, "no answer", BootTime(ms)).is_some();
        assert!(!failed(2_000) && !failed(62_000) && !failed(122_000), "the first is too old");
        assert!(failed(123_000));
        assert!(!trial.is_over(BootTime(421_000)) && trial.is_over(BootTime(421_001)));
        for ms in 421_001..421_010 {
            assert_eq!(trial.failed(&key("a"), Failing::Pull, "no answer", BootTime(ms)), None);
        }
    }

    #[test]
    fn a_camera_that_stays_where_it_was_cannot_be_kept_from_delivering_by_rules() {
        let mut trial = trial(600);
        let mut failed = |what, ms| trial.failed(&key("c"), what, "why", BootTime(ms)).is_some();
        for ms in 2_000..2_010 {
            assert!(!failed(Failing::Pull, ms), "it has lost power");
        }
        assert!(!failed(Failing::Recording, 3_000) && !failed(Failing::Recording, 3_001));
        assert!(failed(Failing::Recording, 3_002), "it is recorded otherwise, and that fails");
    }
}
