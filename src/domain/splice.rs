//! How long a stream has been away, also over a reboot.
//!
//! Within one boot that is the difference of boot time. Over a reboot it is the difference of wall
//! time if both readings can be believed, else the time for which the machine ran since: a reboot
//! alone never makes a stream late.

use serde::{Deserialize, Serialize};

use crate::domain::ids::BootId;
use crate::domain::time::{BootTime, ClockQuality, Instant, Moment, UnixMillis, WallTime};

/// Since when a recording waits for its stream. Kept with the recording, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    boot_id: [u8; 16],
    boot_ms: u64,
    unix_ms: i64,
    trusted: bool,
    /// How long it may wait, in seconds.
    window_s: u32,
}

impl Pause {
    /// A pause that begins now and may last `window_s` seconds.
    #[must_use]
    pub fn new(now: Moment, window_s: u32) -> Self {
        Pause {
            boot_id: now.boot_id.0,
            boot_ms: now.at.boot.0,
            unix_ms: now.at.wall.unix.0,
            trusted: now.at.wall.quality == ClockQuality::Trusted,
            window_s,
        }
    }

    /// When it began.
    #[must_use]
    pub fn since(&self) -> Moment {
        let quality = if self.trusted { ClockQuality::Trusted } else { ClockQuality::Untrusted };
        let wall = WallTime { unix: UnixMillis(self.unix_ms), quality };
        let at = Instant { boot: BootTime(self.boot_ms), wall };
        Moment { at, boot_id: BootId(self.boot_id) }
    }

    /// How long it lasts by now, in milliseconds.
    #[must_use]
    pub fn elapsed_ms(&self, now: Moment) -> u64 {
        let since = self.since();
        if since.boot_id == now.boot_id {
            return now.at.boot.0.saturating_sub(since.at.boot.0);
        }
        let by_wall = match (since.trusted_wall(), now.trusted_wall()) {
            // A clock that went back says nothing.
            (Some(since), Some(now)) => u64::try_from(now.0.saturating_sub(since.0)).ok(),
            _ => None,
        };
        by_wall.unwrap_or(now.at.boot.0)
    }

    /// Whether the stream comes too late by now.
    #[must_use]
    pub fn is_over(&self, now: Moment) -> bool {
        self.elapsed_ms(now) > u64::from(self.window_s) * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUSTED: ClockQuality = ClockQuality::Trusted;
    const UNTRUSTED: ClockQuality = ClockQuality::Untrusted;

    fn moment(boot: u8, boot_s: u64, unix_s: i64, quality: ClockQuality) -> Moment {
        let wall = WallTime { unix: UnixMillis(unix_s * 1_000), quality };
        let at = Instant { boot: BootTime(boot_s * 1_000), wall };
        Moment { at, boot_id: BootId([boot; 16]) }
    }

    #[test]
    fn within_a_boot_the_wall_clock_does_not_matter() {
        let pause = Pause::new(moment(1, 100, 0, UNTRUSTED), 60);
        assert!(!pause.is_over(moment(1, 160, 2_000_000_000, TRUSTED)));
        assert!(pause.is_over(moment(1, 161, -5, UNTRUSTED)));
    }

    #[test]
    fn over_a_reboot_a_trusted_clock_tells_also_the_time_without_power() {
        let pause = Pause::new(moment(1, 9_000, 1_000_000, TRUSTED), 60);
        assert!(!pause.is_over(moment(2, 20, 1_000_060, TRUSTED)));
        assert!(pause.is_over(moment(2, 20, 1_000_061, TRUSTED)));
    }

    #[test]
    fn over_a_reboot_without_a_clock_only_powered_time_counts() {
        let pause = Pause::new(moment(1, 9_000, 1_000_000, TRUSTED), 60);
        for (unix_s, quality) in [(40, UNTRUSTED), (999_000, TRUSTED)] {
            assert!(!pause.is_over(moment(2, 60, unix_s, quality)), "{unix_s}");
            assert!(pause.is_over(moment(2, 61, unix_s, quality)), "{unix_s}");
        }
        let dark = Pause::new(moment(1, 9_000, 40, UNTRUSTED), 60);
        assert_eq!(dark.elapsed_ms(moment(2, 7, 1_000_000, TRUSTED)), 7_000);
    }

    #[test]
    fn it_is_read_back_as_it_was_kept() {
        let pause = Pause::new(moment(3, 5, 1_700_000_000, TRUSTED), 300);
        let text = serde_json::to_string(&pause).expect("plain fields");
        assert_eq!(serde_json::from_str::<Pause>(&text).expect("as written"), pause);
        assert_eq!(pause.since(), moment(3, 5, 1_700_000_000, TRUSTED));
    }
}
