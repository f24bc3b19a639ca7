//! How fast something goes: the mean of the last whole seconds.

/// Seconds that the mean is of.
const SECONDS: usize = 10;

/// Counts by the second. Seconds are counted from when it began.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    counts: [u64; SECONDS + 1],
    /// The second of the newest count.
    newest: u64,
}

impl Rate {
    /// So many more in this second; a second before the newest counts for the newest.
    pub fn add(&mut self, second: u64, count: u64) {
        self.go_on_to(second);
        let place = self.place(self.newest);
        self.counts[place] = self.counts[place].saturating_add(count);
    }

    /// The mean of the last whole seconds before this one, in counts a second; `None` in the first.
    pub fn per_second(&mut self, second: u64) -> Option<u64> {
        self.go_on_to(second);
        let whole = self.newest.min(SECONDS as u64);
        let sum: u64 = (1..=whole).map(|back| self.counts[self.place(self.newest - back)]).sum();
        (whole > 0).then(|| sum / whole)
    }

    fn go_on_to(&mut self, second: u64) {
        let passed = second.saturating_sub(self.newest).min(self.counts.len() as u64);
        let from = second.saturating_sub(passed);
        for later in from + 1..=second {
            let place = self.place(later);
            self.counts[place] = 0;
        }
        self.newest = self.newest.max(second);
    }

    fn place(&self, second: u64) -> usize {
        usize::try_from(second % self.counts.len() as u64).unwrap_or(0)
    }
}

/// How long the rest takes at this rate, in seconds; `None` if it does not move.
#[must_use]
pub fn seconds_left(left: u64, per_second: u64) -> Option<u64> {
    (per_second > 0).then(|| left.div_ceil(per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_the_last_whole_seconds() {
        let mut rate = Rate::default();
        rate.add(0, 500);
        assert_eq!(rate.per_second(0), None, "the first second is not over");
        assert_eq!(rate.per_second(1), Some(500));
        rate.add(1, 100);
        assert_eq!(rate.per_second(2), Some(300));
        rate.add(2, 900);
        assert_eq!(rate.per_second(2), Some(300), "this second is not over");
        assert_eq!(rate.per_second(5), Some(300), "what stood still counts");
        assert_eq!(rate.per_second(11), Some(100), "ten seconds: 100 and 900");
        assert_eq!(rate.per_second(100), Some(0));
        rate.add(100, 10);
        assert_eq!(rate.per_second(101), Some(1));
        rate.add(50, 10);
        assert_eq!(rate.per_second(102), Some(2), "a step back loses nothing");
        assert_eq!((seconds_left(10, 3), seconds_left(10, 0)), (Some(4), None));
    }
}
