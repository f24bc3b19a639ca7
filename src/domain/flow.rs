//! How much of something comes in the long run: the mean of the last hour.

use crate::domain::time::BootTime;

/// Milliseconds of a step.
const STEP_MS: u64 = 60_000;
/// Steps that the mean is of.
const STEPS: usize = 60;
/// Before this much was seen there is no mean, in milliseconds.
const SEEN_MS_MIN: u64 = 10_000;

/// Counts by the minute of boot time.
#[derive(Debug, Clone)]
pub struct Flow {
    began: BootTime,
    counts: [u64; STEPS],
    /// The step of the newest count.
    newest: u64,
}

impl Flow {
    /// Nothing came yet.
    #[must_use]
    pub fn new(began: BootTime) -> Self {
        Flow { began, counts: [0; STEPS], newest: began.0 / STEP_MS }
    }

    /// So much more; a time before the newest counts for the newest.
    pub fn add(&mut self, at: BootTime, count: u64) {
        self.go_on_to(at);
        let place = place(self.newest);
        self.counts[place] = self.counts[place].saturating_add(count);
    }

    /// The mean a second; `None` as long as too little was seen.
    pub fn per_second(&mut self, now: BootTime) -> Option<u64> {
        self.go_on_to(now);
        let oldest = (self.newest + 1).saturating_sub(STEPS as u64) * STEP_MS;
        let seen_ms = now.0.saturating_sub(self.began.0.max(oldest));
        let sum = self.counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        (seen_ms >= SEEN_MS_MIN).then(|| sum.saturating_mul(1_000) / seen_ms)
    }

    /// Whether nothing came for as long as is looked back.
    #[must_use]
    pub fn is_dry(&self, now: BootTime) -> bool {
        now.0 / STEP_MS >= self.newest + STEPS as u64
    }

    fn go_on_to(&mut self, at: BootTime) {
        let step = at.0 / STEP_MS;
        let passed = step.saturating_sub(self.newest).min(STEPS as u64);
        for later in step.saturating_sub(passed) + 1..=step {
            self.counts[place(later)] = 0;
        }
        self.newest = self.newest.max(step);
    }
}

fn place(step: u64) -> usize {
    usize::try_from(step % STEPS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_what_was_seen_of_the_last_hour() {
        let at = |s: u64| BootTime(s * 1_000);
        let mut flow = Flow::new(at(1_000));
        flow.add(at(1_001), 500);
        assert_eq!(flow.per_second(at(1_009)), None, "too little was seen");
        assert_eq!(flow.per_second(at(1_010)), Some(50));
        flow.add(at(1_050), 500);
        flow.add(at(1_020), 0);
        assert_eq!(flow.per_second(at(1_100)), Some(10), "a step back loses nothing");
        // Of a long time only the last 60 begun minutes count.
        (0..600).for_each(|minute| flow.add(at(1_100 + minute * 60), 6_000));
        assert!((98..=102).contains(&flow.per_second(at(37_100)).expect("seen")));
        assert!(!flow.is_dry(at(37_100)) && flow.is_dry(at(37_100 + 3_700)));
        assert_eq!(flow.per_second(at(37_100 + 3_700)), Some(0));
    }
}
