//! Which nonces came already, so that a request that was overheard cannot be sent again.
//!
//! A nonce is remembered for twice the clock window after it came, by boot time: by then its
//! timestamp is too old whatever it was. It enters only after its signature was proved, so only
//! those who have the key can fill the table; when it is full, requests are refused rather than
//! nonces forgotten. On a clock that was never set the table is all there is, and a request can be
//! sent again after ten minutes.

use std::collections::{HashSet, VecDeque};

use crate::domain::time::BootTime;
use crate::wire::cloud::CLOCK_WINDOW_S;
use crate::wire::cloud::auth_failure::AuthFailure;

/// Nonces that are remembered: seven requests a second.
pub const NONCES_MAX: usize = 4_096;
/// How long, in milliseconds: a second more than the timestamp can stay good.
const REMEMBERED_MS: u64 = (2 * CLOCK_WINDOW_S + 1) * 1_000;

/// The nonces of the last ten minutes.
#[derive(Debug, Default)]
pub struct NonceTable {
    known: HashSet<(i64, u64)>,
    by_age: VecDeque<(BootTime, (i64, u64))>,
}

impl NonceTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        NonceTable::default()
    }

    /// Takes in the nonce of a request that was proved to be signed at `timestamp_s`, Unix
    /// seconds.
    ///
    /// # Errors
    /// It came already, or the table is full.
    pub fn admit(
        &mut self,
        timestamp_s: i64,
        nonce: u64,
        now: BootTime,
    ) -> Result<(), AuthFailure> {
        while let Some((came, entry)) = self.by_age.front()
            && now.0.saturating_sub(came.0) > REMEMBERED_MS
        {
            self.known.remove(entry);
            self.by_age.pop_front();
        }
        let entry = (timestamp_s, nonce);
        if self.known.contains(&entry) {
            return Err(AuthFailure::Replayed);
        }
        if self.by_age.len() == NONCES_MAX {
            return Err(AuthFailure::TooMany);
        }
        self.known.insert(entry);
        self.by_age.push_back((now, entry));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_in_its_second() {
        let mut table = NonceTable::new();
        assert_eq!(table.admit(100, 7, BootTime(0)), Ok(()));
        assert_eq!(table.admit(100, 7, BootTime(1)), Err(AuthFailure::Replayed));
        assert_eq!(table.admit(101, 7, BootTime(1)), Ok(()));
        assert_eq!(table.admit(100, 8, BootTime(1)), Ok(()));
        assert_eq!(table.admit(100, 7, BootTime(REMEMBERED_MS)), Err(AuthFailure::Replayed));
        assert_eq!(table.admit(100, 7, BootTime(REMEMBERED_MS + 1)), Ok(()));
    }

    #[test]
    fn a_full_table_refuses_until_it_has_room() {
        let mut table = NonceTable::new();
        for nonce in 0..NONCES_MAX as u64 {
            assert_eq!(table.admit(100, nonce, BootTime(nonce)), Ok(()));
        }
        let late = BootTime(NONCES_MAX as u64);
        assert_eq!(table.admit(100, u64::MAX, late), Err(AuthFailure::TooMany));
        assert_eq!(table.admit(100, 0, late), Err(AuthFailure::Replayed));
        assert_eq!(table.admit(900, u64::MAX, BootTime(REMEMBERED_MS + 2)), Ok(()));
        assert_eq!(table.known.len(), table.by_age.len());
        assert_eq!(table.known.len(), NONCES_MAX - 1);
    }
}
