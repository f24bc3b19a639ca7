//! When the box may knock at the broker again: full jitter, and never more than
//! [`ATTEMPTS_PER_MINUTE_MAX`] attempts in any minute (brokers ban who comes more often).
//!
//! A box that has lost a standing connection was probably not alone: it takes its time from the
//! whole of [`SPREAD`], and from up to [`LONGEST`] each time that it finds nobody. So, however long the
//! broker was away, of a fleet less than two in a hundred come in any one second, and all are back
//! within three minutes (the tests have 10,000 boxes come back). One that never had a connection,
//! because its modem still dials, begins with shorter waits.

use std::time::Duration;

use heapless::Deque;

use crate::domain::backoff::Backoff;
use crate::domain::time::BootTime;

/// Attempts in any minute.
pub const ATTEMPTS_PER_MINUTE_MAX: usize = 6;
/// Boxes that lost the same broker come back over this time.
const SPREAD: Duration = Duration::from_secs(100);
/// The longest wait after attempts that failed.
const LONGEST: Duration = Duration::from_secs(170);
/// The longest first wait of a box that had no connection yet.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(5);
/// The longest first wait of a box whose connection was taken over.
const TAKEN_OVER_WAIT: Duration = Duration::from_secs(120);
/// The longest wait of a box whose connection is taken over again and again.
const TAKEN_OVER_WAIT_MAX: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

/// The attempts of a process.
#[derive(Debug)]
pub struct Attempts {
    /// When the newest began, oldest first.
    recent: Deque<BootTime, ATTEMPTS_PER_MINUTE_MAX>,
    backoff: Backoff,
    /// Grows for the life of the process: two boxes of one name do not become one by themselves.
    taken_over: Option<Backoff>,
    /// The next wait is for a connection that was taken over.
    was_taken_over: bool,
}

impl Default for Attempts {
    fn default() -> Self {
        let backoff = Backoff::new(FIRST_WAIT_MAX, LONGEST);
        Attempts { recent: Deque::new(), backoff, taken_over: None, was_taken_over: false }
    }
}

impl Attempts {
    /// An attempt begins.
    pub fn begin(&mut self, now: BootTime) {
        if self.recent.is_full() {
            self.recent.pop_front();
        }
        self.recent.push_back(now).expect("there is room: the oldest has gone");
    }

    /// The attempt came through: what is lost now is a standing connection.
    pub fn connected(&mut self) {
        self.backoff = Backoff::new(SPREAD, LONGEST);
    }

    /// The connection was lost to another box of the same name: each time the wait may be longer, so
    /// that the two do not chase each other.
    pub fn taken_over(&mut self) {
        self.taken_over.get_or_insert_with(|| Backoff::new(TAKEN_OVER_WAIT, TAKEN_OVER_WAIT_MAX));
        self.was_taken_over = true;
    }

    /// How long to wait for the next attempt after one that failed, or a connection that was lost.
    /// `random` is uniform over all `u64`.
    pub fn wait(&mut self, now: BootTime, random: u64) -> Duration {
        let by = match &mut self.taken_over {
            Some(by) if std::mem::take(&mut self.was_taken_over) => by,
            _ => &mut self.backoff,
        };
        let jitter = by.next_delay(random);
        let oldest = self.recent.front().filter(|_| self.recent.is_full());
        let allowed = oldest.map_or(Duration::ZERO, |at| MINUTE.saturating_sub(now.since(*at)));
        jitter.max(allowed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// When attempts begin that each fail at once.
    fn begun(mut attempts: Attempts, randoms: &[u64]) -> Vec<u64> {
        let mut now = 0;
        let mut times = Vec::new();
        for random in randoms {
            attempts.begin(BootTime(now));
            times.push(now);
            let wait = attempts.wait(BootTime(now), *random);
            now += u64::try_from(wait.as_millis()).expect("short");
        }
        times
    }

    proptest! {
        #[test]
        fn no_minute_has_more_attempts_than_allowed(
            randoms in proptest::collection::vec(any::<u64>(), 40), was_connected: bool,
        ) {
            let mut attempts = Attempts::default();
            if was_connected {
                attempts.connected();
            }
            let times = begun(attempts, &randoms);
            for window in times.windows(ATTEMPTS_PER_MINUTE_MAX + 1) {
                prop_assert!(window[ATTEMPTS_PER_MINUTE_MAX] - window[0] >= 60_000, "{:?}", window);
            }
        }
    }

    #[test]
    fn chance_cannot_shorten_the_minute() {
        let times = begun(Attempts::default(), &[0; 14]);
        assert_eq!(times[..8], [0, 0, 0, 0, 0, 0, 60_000, 60_000]);
    }

    #[test]
    fn two_boxes_of_one_name_chase_each_other_ever_more_slowly() {
        let mut attempts = Attempts::default();
        let mut longest = |taken_over: bool| {
            attempts.connected();
            if taken_over {
                attempts.taken_over();
            }
            attempts.wait(BootTime(0), u64::MAX).as_secs()
        };
        let waits = [true, true, true, true, false, true].map(&mut longest);
        assert_eq!(waits, [120, 240, 480, 600, 100, 600], "a broker that is gone is another thing");
    }

    /// The same numbers each time (splitmix64).
    struct Chance(u64);

    impl Chance {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }
    }

    /// A fleet loses its broker, which is away for so many seconds: the most boxes that come in any
    /// second from then on, and how many seconds it takes until all are back.
    fn herd(boxes: u64, away_s: u64) -> (u64, u64) {
        const LOST_MS: u64 = 1_000_000_000;
        let (mut seconds, mut last_s) = (vec![0_u64; 1_000], 0);
        for number in 0..boxes {
            let mut chance = Chance(number);
            let mut attempts = Attempts::default();
            attempts.begin(BootTime(0));
            attempts.connected();
            let mut now_ms = LOST_MS;
            let back_s = loop {
                let wait = attempts.wait(BootTime(now_ms), chance.next());
                now_ms += u64::try_from(wait.as_millis()).expect("short");
                attempts.begin(BootTime(now_ms));
                // Whoever comes too early is refused at once.
                if let Some(back_ms) = (now_ms - LOST_MS).checked_sub(away_s * 1_000) {
                    break back_ms / 1_000;
                }
            };
            seconds[usize::try_from(back_s).expect("short")] += 1;
            last_s = last_s.max(back_s);
        }
        (seconds.into_iter().max().expect("some"), last_s)
    }

    #[test]
    fn a_fleet_that_lost_its_broker_comes_back_evenly_however_long_that_was_away() {
        const BOXES: u64 = 10_000;
        for away_s in [0, 2, 5, 15, 30, 60, 75, 90, 99, 120, 200, 600, 3_600] {
            let (peak, last_s) = herd(BOXES, away_s);
            assert!(peak <= BOXES * 2 / 100, "after {away_s} s: {peak} of {BOXES} in a second");
            assert!(last_s <= 180, "after {away_s} s: the last came {last_s} s later");
        }
    }
}
