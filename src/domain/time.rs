//! The three kinds of time: media time (ticks of a track, plain `i64` beside a timescale), boot
//! time (monotonic since the machine started, with the boot's identity) and wall time (with its
//! quality). They never mix by accident.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::domain::ids::BootId;

/// 9999-12-30T22:00:00Z, the end of the calendar; later times are shown as this.
const SHOWN_MS_MAX: i64 = 253_402_207_200_000;

/// Milliseconds since the machine booted, suspended time included. Comparable within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Time passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: BootTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Calendar time in UTC+8, as the cloud API has it; the years 1970 to 9999.
    #[must_use]
    pub fn civil(self) -> DateTime {
        let shown = Timestamp::from_millisecond(self.0.clamp(0, SHOWN_MS_MAX));
        Offset::constant(8).to_datetime(shown.expect("clamped to the years 1970 to 9999"))
    }

    /// `YYYY-MM-DD hh:mm:ss` in UTC+8.
    #[must_use]
    pub fn civil_text(self) -> String {
        self.civil().strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

/// Whether the wall clock can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClockQuality {
    /// Not set since boot: good for nothing but show.
    Untrusted,
    /// Set by the network, an RTC or an operator.
    Trusted,
}

/// A reading of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// The reading.
    pub unix: UnixMillis,
    /// How good it is.
    pub quality: ClockQuality,
}

/// Boot and wall time read at the same instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant {
    /// Monotonic part.
    pub boot: BootTime,
    /// Calendar part.
    pub wall: WallTime,
}

impl Instant {
    /// Before anything is known of time.
    pub const START: Instant = Instant {
        boot: BootTime(0),
        wall: WallTime { unix: UnixMillis(0), quality: ClockQuality::Untrusted },
    };
}

/// Wall time at boot time 0 of one boot, in Unix milliseconds: dates what was read on the clock of
/// that boot before it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootZero(pub i64);

impl BootZero {
    /// As a reading tells; `None` if its wall clock cannot be believed.
    #[must_use]
    pub fn of(at: Instant) -> Option<Self> {
        let boot_ms = i64::try_from(at.boot.0).unwrap_or(i64::MAX);
        let zero = BootZero(at.wall.unix.0.saturating_sub(boot_ms));
        (at.wall.quality == ClockQuality::Trusted).then_some(zero)
    }

    /// The instant with a wall time that can be believed: its own if it has one.
    #[must_use]
    pub fn date(self, at: Instant) -> Instant {
        if at.wall.quality == ClockQuality::Trusted {
            return at;
        }
        let boot_ms = i64::try_from(at.boot.0).unwrap_or(i64::MAX);
        let unix = UnixMillis(self.0.saturating_add(boot_ms));
        Instant { wall: WallTime { unix, quality: ClockQuality::Trusted }, ..at }
    }
}

/// An instant and the boot whose time it has: comparable with instants of other boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Instant,
    /// In which boot.
    pub boot_id: BootId,
}

impl Moment {
    /// The wall clock, if it can be believed.
    #[must_use]
    pub fn trusted_wall(&self) -> Option<UnixMillis> {
        (self.at.wall.quality == ClockQuality::Trusted).then_some(self.at.wall.unix)
    }
}

/// Converts `ticks` of `from` ticks a second to ticks of `to` a second, rounded half up, once.
#[must_use]
pub fn rescale(ticks: i64, from: u32, to: u32) -> i64 {
    if from == to {
        return ticks;
    }
    let (from, to) = (i128::from(from.max(1)), i128::from(to));
    let scaled = (i128::from(ticks) * to * 2 + from).div_euclid(from * 2);
    i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_times_are_of_utc_plus_8() {
        assert_eq!(UnixMillis(1_743_484_094_999).civil_text(), "2025-04-01 13:08:14");
        assert_eq!(UnixMillis(-1).civil_text(), "1970-01-01 08:00:00");
        assert_eq!(UnixMillis(i64::MAX).civil_text(), "9999-12-31 06:00:00");
    }

    #[test]
    fn what_was_read_before_the_clock_was_set_is_dated_by_boot_time() {
        let at = |boot_ms, unix_ms, quality| Instant {
            boot: BootTime(boot_ms),
            wall: WallTime { unix: UnixMillis(unix_ms), quality },
        };
        let early = at(500, 7, ClockQuality::Untrusted);
        assert_eq!(BootZero::of(early), None);
        let zero = BootZero::of(at(2_000, 90_000, ClockQuality::Trusted)).expect("set");
        assert_eq!(zero.date(early), at(500, 88_500, ClockQuality::Trusted));
        let stepped = at(600, 10, ClockQuality::Trusted);
        assert_eq!(zero.date(stepped), stepped, "it was believed");
    }

    #[test]
    fn rescale_rounds_half_up_on_both_sides_of_zero() {
        assert_eq!(rescale(1, 90_000, 1000), 0);
        assert_eq!(rescale(45, 90_000, 1000), 1);
        assert_eq!(rescale(-45, 90_000, 1000), 0);
        assert_eq!(rescale(-46, 90_000, 1000), -1);
        assert_eq!(rescale(1 << 40, 1000, 90_000), (1 << 40) * 90);
    }
}
