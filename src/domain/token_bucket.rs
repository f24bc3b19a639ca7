//! A cap on a rate: a bucket that tokens drip into, one a byte.
//!
//! Whoever finds the bucket not empty takes a piece at once and may leave it in debt; then nobody
//! takes anything until it is paid off. So in any stretch of time at most the rate times the stretch
//! goes, plus what the bucket holds, plus one piece.

use std::time::Duration;

/// What the bucket holds at most, as time at its rate.
const HOLDS: Duration = Duration::from_millis(100);
/// The largest piece, as time at the rate; small enough that a shared link stays quick.
const PIECE: Duration = Duration::from_millis(50);
/// The smallest piece, in bytes.
const PIECE_BYTES_MIN: u64 = 512;
/// The largest piece, in bytes.
const PIECE_BYTES_MAX: u64 = 64 << 10;
/// Of a cap, bodies take so many parts of a hundred: heads, handshakes and control traffic have
/// the rest.
const BODY_PERCENT: u64 = 95;

/// A bucket.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    bytes_per_s: u64,
    /// Nanoseconds at the rate that are still free; below zero is debt.
    free_ns: i128,
    seen: Duration,
}

impl TokenBucket {
    /// A full bucket for a cap of `cap_bytes_per_s` on everything that goes out.
    #[must_use]
    pub fn for_cap(cap_bytes_per_s: u64) -> Self {
        let bytes_per_s = (cap_bytes_per_s.saturating_mul(BODY_PERCENT) / 100).max(1);
        TokenBucket { bytes_per_s, free_ns: nanos(HOLDS), seen: Duration::ZERO }
    }

    /// Takes a piece of at most `wanted` bytes at `now`, a time that never goes back; gives how
    /// many bytes may go, not 0 unless none were wanted.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn take(&mut self, now: Duration, wanted: u64) -> Result<u64, Duration> {
        let passed = now.saturating_sub(self.seen);
        self.seen = self.seen.max(now);
        self.free_ns = (self.free_ns + nanos(passed)).min(nanos(HOLDS));
        if self.free_ns <= 0 {
            let debt = u64::try_from(1 - self.free_ns).unwrap_or(u64::MAX);
            return Err(Duration::from_nanos(debt));
        }
        let piece_ms = u64::try_from(PIECE.as_millis()).unwrap_or(1);
        let piece = (self.bytes_per_s.saturating_mul(piece_ms) / 1_000)
            .clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        let taken = wanted.min(piece);
        self.free_ns -= i128::from(taken) * 1_000_000_000 / i128::from(self.bytes_per_s);
        Ok(taken)
    }
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_idle_bucket_saves_up_no_burst() {
        let mut bucket = TokenBucket::for_cap(1_000_000);
        let mut sent = 0;
        let later = Duration::from_secs(3_600);
        while let Ok(taken) = bucket.take(later, 1 << 20) {
            sent += taken;
        }
        assert!((95_000..=142_500).contains(&sent), "a tenth of a second and a piece: {sent}");
    }

    proptest! {
        /// Several that ask at any times, for pieces of any size: in no 10 s more than 105 % of
        /// the cap, and no less than most of it over all while somebody always wants.
        #[test]
        fn no_stretch_of_ten_seconds_has_more_than_the_cap(
            cap in 8_000u64..20_000_000,
            late_us in prop::collection::vec(0u64..20_000, 1..40),
            idle_s in 0u64..30,
        ) {
            let mut bucket = TokenBucket::for_cap(cap);
            let mut now = Duration::from_secs(idle_s);
            let began = now;
            let mut gone: Vec<(Duration, u64)> = Vec::new();
            for late in late_us.iter().cycle().take(3_000) {
                match bucket.take(now, 64 << 10) {
                    Ok(taken) => gone.push((now, taken)),
                    Err(wait) => now += wait + Duration::from_micros(*late),
                }
            }
            let mut from = 0;
            let mut sum = 0;
            for (at, taken) in &gone {
                sum += taken;
                while gone[from].0 + Duration::from_secs(10) <= *at {
                    sum -= gone[from].1;
                    from += 1;
                }
                prop_assert!(sum * 100 <= cap * 10 * 105, "{sum} in 10 s of {cap} a second");
            }
            let all: u64 = gone.iter().map(|(_, taken)| taken).sum();
            let seconds = (now - began).as_secs_f64();
            if seconds > 5.0 {
                prop_assert!(all as f64 >= 0.7 * cap as f64 * seconds, "{all} in {seconds} s");
            }
        }
    }
}
