//! The wear of the card: what was written to it on which day, and when it is at its end.
//!
//! The kernel counts from when the device appeared. The account adds differences of its readings, so
//! that they add up over restarts of the program, reboots and cards that are put back. What was written
//! after the last reading before a power cut is not known to anybody.

use crate::domain::ids::BootId;
use crate::domain::time::{ClockQuality, UnixMillis, WallTime};

/// Days that are kept one by one.
pub const DAYS_KEPT: usize = 60;
/// The forecast goes by so many whole days, or as many as there are.
const DAYS_OF_RATE: usize = 7;
const DAY_MS: i64 = 86_400_000;
/// So much of the first day is taken to be over, at least: a start is not what a day is like.
const FIRST_PART_MS_MIN: u64 = 3_600_000;
const DAY_S: u64 = 86_400;
/// Written beside the media, at most (measured: `tests/bench`).
const OVERHEAD_PERCENT: u64 = 3;

/// A day of UTC, by its number since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WearDay(pub i64);

/// What the kernel has counted since the device appeared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WearReading {
    /// Which appearance of a device in this boot.
    pub appearance: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Flushes done.
    pub flushes: u64,
}

/// How worn a card says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardHealth {
    /// Of its life, at most; above 100 it is past its end.
    pub used_percent: u8,
    /// How its spare blocks stand: `normal`, `warning`, `urgent`, or `unknown`.
    pub pre_eol: &'static str,
}

impl CardHealth {
    /// From the registers of an e.MMC: life time in steps of a tenth from 1 (the last, 11, is past the
    /// end), and 1 to 3 for the spare blocks.
    #[must_use]
    pub fn from_registers(life_time: u64, pre_eol: u64) -> Self {
        let used_percent = u8::try_from(life_time.min(11) * 10).unwrap_or(u8::MAX);
        let pre_eol = match pre_eol {
            1 => "normal",
            2 => "warning",
            3 => "urgent",
            _ => "unknown",
        };
        CardHealth { used_percent, pre_eol }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Bytes.
    pub bytes: u64,
    /// Flushes.
    pub flushes: u64,
}

impl Written {
    fn add(&mut self, more: Written) {
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.flushes = self.flushes.saturating_add(more.flushes);
    }
}

/// All that was written to the disk of a ring, as far as it was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WearAccount {
    /// The last reading, and the boot it is of.
    pub last: Option<(BootId, WearReading)>,
    /// Ever.
    pub total: Written,
    /// While nobody knew the day: it counts for the day on which the clock is set.
    pub undated: Written,
    /// By day, the oldest first, the newest last.
    pub days: Vec<(WearDay, Written)>,
}

impl WearAccount {
    /// Takes a reading in.
    pub fn take(&mut self, reading: WearReading, boot_id: BootId, wall: WallTime) {
        let goes_on = |(boot, last): &(BootId, WearReading)| {
            *boot == boot_id
                && last.appearance == reading.appearance
                && last.bytes <= reading.bytes
                && last.flushes <= reading.flushes
        };
        let before =
            self.last.filter(goes_on).map_or((0, 0), |(_, last)| (last.bytes, last.flushes));
        let more = Written { bytes: reading.bytes - before.0, flushes: reading.flushes - before.1 };
        // What was written before anybody counted is of no known day.
        let is_first = self.last.is_none();
        self.last = Some((boot_id, reading));
        self.total.add(more);
        if !is_first {
            self.undated.add(more);
        }
        if wall.quality == ClockQuality::Trusted {
            let day = day_of(wall.unix);
            let undated = std::mem::take(&mut self.undated);
            self.on(day).add(undated);
        }
    }

    /// Bytes a day, the mean of the last whole days; before there is one, of what today has for the part
    /// of it that is over. `None` while nothing is known.
    #[must_use]
    pub fn bytes_per_day(&self, now: UnixMillis) -> Option<u64> {
        let today = day_of(now);
        let whole = self.days.iter().rev().filter(|(day, _)| *day < today).take(DAYS_OF_RATE);
        let (sum, oldest) =
            whole.fold((0_u64, None), |(sum, _), (day, of)| (sum + of.bytes, Some(*day)));
        if let Some(oldest) = oldest {
            // Days without a row are days on which the box was off.
            let days = u64::try_from(today.0 - oldest.0).unwrap_or(1).max(1);
            return Some(sum / days);
        }
        let (_, of_today) = self.days.last()?;
        let part_ms = u64::try_from(now.0.rem_euclid(DAY_MS)).unwrap_or(0).max(FIRST_PART_MS_MIN);
        Some(of_today.bytes.saturating_mul(DAY_MS.unsigned_abs()) / part_ms)
    }

    fn on(&mut self, day: WearDay) -> &mut Written {
        // A clock that was set back finds its day again, or makes one in its place.
        let place = match self.days.binary_search_by_key(&day, |(day, _)| *day) {
            Ok(place) => place,
            Err(place) => {
                self.days.insert(place, (day, Written::default()));
                if self.days.len() > DAYS_KEPT && place > 0 {
                    self.days.remove(0);
                    place - 1
                } else {
                    place
                }
            }
        };
        &mut self.days[place].1
    }
}

/// Days until the card is at its end at so many bytes a day; `None` if nothing is written. What the
/// card says of itself counts where it is worse than what was counted: it knows its own amplification,
/// and what it went through before it came here.
#[must_use]
pub fn days_left(
    endurance_bytes: u64,
    total_bytes: u64,
    health: Option<CardHealth>,
    bytes_per_day: u64,
) -> Option<u64> {
    // A step of the register is begun, not over.
    let told_percent = health.map_or(0, |health| u64::from(health.used_percent.saturating_sub(10)));
    let told = endurance_bytes / 100 * told_percent.min(100);
    let left = endurance_bytes.saturating_sub(total_bytes.max(told));
    left.checked_div(bytes_per_day)
}

/// Bytes a day that come to the card of so many a second of media: with seals, padding and catalog.
#[must_use]
pub fn by_rules_per_day(media_per_second: u64) -> u64 {
    media_per_second.saturating_mul(DAY_S) / 100 * (100 + OVERHEAD_PERCENT)
}

/// What is told of the wear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WearFigures {
    /// Written to the whole device since it is counted, by whomever.
    pub total: Written,
    /// Of that on the newest day.
    pub today: Written,
    /// What the card says of itself.
    pub health: Option<CardHealth>,
    /// Days until its end as it was written of late; `None` if that or its endurance is not known.
    pub days_left: Option<u64>,
    /// Days until its end if the streams that are live go on under the rules in force.
    pub days_left_by_rules: Option<u64>,
    /// One of both is before the time that is wanted of the card.
    pub warning: bool,
}

impl WearFigures {
    /// Of an account; `endurance` is what the card is good for in bytes, and the days that are wanted of
    /// it. While the clock is not set nothing is known of days.
    #[must_use]
    pub fn new(
        account: &WearAccount,
        health: Option<CardHealth>,
        wall: WallTime,
        by_rules_per_day: u64,
        endurance: Option<(u64, u64)>,
    ) -> Self {
        let trusted = wall.quality == ClockQuality::Trusted;
        let of_late = account.bytes_per_day(wall.unix).filter(|_| trusted);
        let left =
            |per_day: Option<u64>| days_left(endurance?.0, account.total.bytes, health, per_day?);
        let (late, by_rules) = (left(of_late), left(Some(by_rules_per_day)));
        let early = |days: Option<u64>| {
            days.zip(endurance).is_some_and(|(days, (_, wanted))| days < wanted)
        };
        let today = account.days.last().map_or(account.undated, |(_, of)| *of);
        WearFigures {
            total: account.total,
            today,
            health,
            days_left: late,
            days_left_by_rules: by_rules,
            warning: early(late) || early(by_rules),
        }
    }
}

/// The day of a wall time.
#[must_use]
pub fn day_of(wall: UnixMillis) -> WearDay {
    WearDay(wall.0.div_euclid(DAY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId([1; 16]);
    const DAY: i64 = 20_000;

    fn reading(appearance: u64, bytes: u64) -> WearReading {
        WearReading { appearance, bytes, flushes: bytes / 10 }
    }

    fn at(day: i64, ms: i64) -> WallTime {
        WallTime { unix: UnixMillis(day * DAY_MS + ms), quality: ClockQuality::Trusted }
    }

    fn unset() -> WallTime {
        WallTime { unix: UnixMillis(5_000), quality: ClockQuality::Untrusted }
    }

    #[test]
    fn differences_add_up_over_restarts_reboots_and_cards_that_are_put_back() {
        let mut account = WearAccount::default();
        account.take(reading(1, 100), BOOT, at(DAY, 0));
        account.take(reading(1, 150), BOOT, at(DAY, 1));
        // The program was away, the kernel went on counting.
        account = account.clone();
        account.take(reading(1, 400), BOOT, at(DAY, 2));
        assert_eq!(account.total, Written { bytes: 400, flushes: 40 });
        // Put in anew, it counts from nothing; a reboot too, even if it has more by now.
        account.take(reading(2, 30), BOOT, at(DAY, 3));
        account.take(reading(2, 500), BootId([2; 16]), at(DAY + 1, 0));
        assert_eq!(account.total.bytes, 930);
        let days: Vec<u64> = account.days.iter().map(|(_, of)| of.bytes).collect();
        assert_eq!(days, [330, 500]);
    }

    #[test]
    fn what_is_written_before_the_clock_is_set_counts_for_the_day_it_is_set_on() {
        let mut account = WearAccount::default();
        account.take(reading(1, 0), BOOT, unset());
        account.take(reading(1, 100), BOOT, unset());
        assert_eq!((account.undated.bytes, account.days.len()), (100, 0));
        account.take(reading(1, 150), BOOT, at(DAY, 0));
        assert_eq!(account.days, [(WearDay(DAY), Written { bytes: 150, flushes: 15 })]);
        // A clock that steps back a year loses nothing and moves nothing.
        account.take(reading(1, 170), BOOT, at(DAY - 365, 0));
        account.take(reading(1, 180), BOOT, at(DAY, 9));
        let days: Vec<(i64, u64)> =
            account.days.iter().map(|(day, of)| (day.0, of.bytes)).collect();
        assert_eq!(days, [(DAY - 365, 20), (DAY, 160)]);
        assert_eq!((account.total.bytes, account.undated.bytes), (180, 0));
    }

    #[test]
    fn old_days_go_and_what_was_ever_written_stays() {
        let mut account = WearAccount::default();
        for day in 0..200_i64 {
            account.take(reading(1, (day.unsigned_abs() + 1) * 10), BOOT, at(DAY + day, 0));
        }
        assert_eq!((account.days.len(), account.total.bytes), (DAYS_KEPT, 2_000));
        assert_eq!(account.days.last().map(|(day, _)| *day), Some(WearDay(DAY + 199)));
        assert_eq!(account.bytes_per_day(at(DAY + 200, 0).unix), Some(10));
        // Switched off for a week, it writes less a day.
        assert_eq!(account.bytes_per_day(at(DAY + 207, 0).unix), Some(5));
    }

    #[test]
    fn the_first_day_is_taken_for_a_whole_one() {
        let mut account = WearAccount::default();
        assert_eq!(account.bytes_per_day(at(DAY, 0).unix), None);
        account.take(reading(1, 0), BOOT, at(DAY, 0));
        account.take(reading(1, 300), BOOT, at(DAY, DAY_MS / 4));
        assert_eq!(account.bytes_per_day(at(DAY, DAY_MS / 4).unix), Some(1_200));
    }

    #[test]
    fn it_is_warned_of_what_the_rules_come_to_before_it_is_written() {
        let mut account = WearAccount::default();
        account.take(reading(1, 0), BOOT, at(DAY, 0));
        account.take(reading(1, 1_000), BOOT, at(DAY, DAY_MS / 2));
        account.take(reading(1, 1_000), BOOT, at(DAY + 1, 0));
        let wall = at(DAY + 1, 0);
        let figures =
            |by_rules, endurance| WearFigures::new(&account, None, wall, by_rules, endurance);
        let quiet = figures(500, Some((101_000, 100)));
        assert_eq!((quiet.days_left, quiet.days_left_by_rules), (Some(100), Some(200)));
        assert!(!quiet.warning);
        let loud = figures(2_000, Some((101_000, 100)));
        assert_eq!((loud.days_left, loud.days_left_by_rules), (Some(100), Some(50)));
        assert!(loud.warning);
        assert!(figures(500, Some((101_000, 101))).warning, "as it was written of late");
        let unknown = figures(2_000, None);
        assert_eq!((unknown.days_left, unknown.warning), (None, false));
        assert_eq!(by_rules_per_day(1_000), 88_992_000);
    }

    #[test]
    fn the_end_comes_by_what_was_counted_or_by_what_the_card_says() {
        assert_eq!(days_left(1_000, 100, None, 9), Some(100));
        assert_eq!(days_left(1_000, 5_000, None, 9), Some(0));
        assert_eq!(days_left(1_000, 100, None, 0), None);
        let said = |step| Some(CardHealth::from_registers(step, 1));
        assert_eq!(days_left(1_000, 100, said(1), 9), Some(100), "it says less");
        assert_eq!(days_left(1_000, 100, said(6), 10), Some(50), "half of it is gone");
        assert_eq!(days_left(1_000, 100, said(11), 10), Some(0));
        assert_eq!(CardHealth::from_registers(3, 9).pre_eol, "unknown");
    }
}
