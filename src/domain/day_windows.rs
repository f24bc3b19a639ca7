//! Daily stretches of local time, and when they open: also over midnight, and on the days on which
//! clocks are put forward or back. A time that the clock shows twice is inside both times; one that
//! it leaves out opens nothing, what is behind it does.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::domain::time::UnixMillis;

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;
/// A window opens within a day; twice that covers the days of changed clocks.
const SEARCH_MINUTES: i64 = 2 * 24 * 60;
/// One minute.
const MINUTE_MS: i64 = 60_000;

/// A daily stretch of local time, from a minute up to but without another; it may reach over
/// midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DayWindow {
    from_minute: u16,
    to_minute: u16,
}

impl DayWindow {
    /// Parses `22:00-06:00`; `24:00` is the end of the day.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn parse(text: &str) -> Result<DayWindow, String> {
        let times = text
            .split_once('-')
            .and_then(|(from, to)| Some((minute(from.trim())?, minute(to.trim())?)));
        match times {
            Some((from, to)) if from != to && from < DAY_MINUTES => {
                Ok(DayWindow { from_minute: from, to_minute: to })
            }
            _ => Err("is not a stretch of a day like 22:00-06:00".to_owned()),
        }
    }

    /// Whether a minute of the day (from 0, local time) is inside.
    #[must_use]
    pub fn contains(self, minute: u16) -> bool {
        if self.from_minute < self.to_minute {
            (self.from_minute..self.to_minute).contains(&minute)
        } else {
            minute >= self.from_minute || minute < self.to_minute
        }
    }
}

impl fmt::Display for DayWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from_minute, self.to_minute);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse::<u16>().ok() } else { None }
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MINUTES).then_some(total)
}

/// A time zone of the bundled database by its name, such as `Asia/Shanghai`; `None` if there is
/// no such zone.
#[must_use]
pub fn time_zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

/// The windows of a place; none is always open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayWindows {
    windows: Vec<DayWindow>,
    zone: TimeZone,
}

impl Default for DayWindows {
    fn default() -> Self {
        DayWindows { windows: Vec::new(), zone: TimeZone::UTC }
    }
}

impl DayWindows {
    /// Windows in the local time of a zone.
    #[must_use]
    pub fn new(windows: Vec<DayWindow>, zone: TimeZone) -> Self {
        DayWindows { windows, zone }
    }

    /// Whether it is open at `now`.
    #[must_use]
    pub fn is_open(&self, now: UnixMillis) -> bool {
        let local = self.local(now);
        let hour = u16::from(local.hour().unsigned_abs());
        let minute = hour * 60 + u16::from(local.minute().unsigned_abs());
        self.windows.is_empty() || self.windows.iter().any(|window| window.contains(minute))
    }

    /// The next whole minute after `now` at which it opens or closes; `None` if none comes.
    #[must_use]
    pub fn changes_at(&self, now: UnixMillis) -> Option<UnixMillis> {
        if self.windows.is_empty() {
            return None;
        }
        let is_open = self.is_open(now);
        let minute = now.0.div_euclid(MINUTE_MS);
        (1..=SEARCH_MINUTES)
            .map(|ahead| UnixMillis((minute + ahead).saturating_mul(MINUTE_MS)))
            .find(|at| self.is_open(*at) != is_open)
    }

    /// The local day of `now`.
    #[must_use]
    pub fn day(&self, now: UnixMillis) -> LocalDay {
        let date = self.local(now).date();
        LocalDay(i32::from(date.year()) * 512 + i32::from(date.day_of_year()))
    }

    /// When the local day after that of `now` begins.
    #[must_use]
    pub fn next_day(&self, now: UnixMillis) -> UnixMillis {
        let next = self.local(now).date().tomorrow();
        next.ok()
            .and_then(|date| date.to_zoned(self.zone.clone()).ok())
            .map_or(UnixMillis(i64::MAX), |at| UnixMillis(at.timestamp().as_millisecond()))
    }

    /// A time as people there read it: `2026-11-26 22:00`.
    #[must_use]
    pub fn show(&self, at: UnixMillis) -> String {
        self.local(at).strftime("%Y-%m-%d %H:%M").to_string()
    }

    fn local(&self, at: UnixMillis) -> DateTime {
        let at = Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH);
        self.zone.to_datetime(at)
    }
}

/// A day of a local calendar; later days are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalDay(pub i32);

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(texts: &[&str], zone: &str) -> DayWindows {
        let parse = |text: &&str| DayWindow::parse(text).expect("valid");
        DayWindows::new(texts.iter().map(parse).collect(), time_zone(zone).expect("bundled"))
    }

    fn utc(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().expect("a time").as_millisecond())
    }

    #[test]
    fn windows_reach_over_midnight() {
        let night = DayWindow::parse("22:00-06:00").expect("valid");
        assert!(night.contains(22 * 60) && night.contains(0) && night.contains(6 * 60 - 1));
        assert!(!night.contains(6 * 60) && !night.contains(12 * 60));
        let noon = DayWindow::parse("11:30 - 24:00").expect("valid");
        assert!(noon.contains(690) && noon.contains(1439) && !noon.contains(689));
        assert_eq!(noon.to_string(), "11:30-24:00");
        for bad in ["", "22:00", "6:00-7:00", "10:00-10:00", "25:00-26:00", "10:60-11:00"] {
            assert!(DayWindow::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn they_open_and_close_by_local_time() {
        let shanghai = windows(&["22:00-06:00"], "Asia/Shanghai");
        let noon = utc("2026-03-01T04:00:00.5Z");
        assert!(!shanghai.is_open(noon));
        assert_eq!(shanghai.changes_at(noon), Some(utc("2026-03-01T14:00:00Z")));
        assert_eq!(shanghai.show(utc("2026-03-01T14:00:00Z")), "2026-03-01 22:00");
        let night = utc("2026-03-01T16:30:00Z");
        assert!(shanghai.is_open(night));
        assert_eq!(shanghai.changes_at(night), Some(utc("2026-03-01T22:00:00Z")));
        // Two that touch are one.
        let two = windows(&["22:00-24:00", "00:00-06:00"], "Asia/Shanghai");
        assert_eq!(two.changes_at(night), Some(utc("2026-03-01T22:00:00Z")));
        let all_day = windows(&["00:00-24:00"], "Asia/Shanghai");
        assert!(all_day.is_open(noon) && all_day.changes_at(noon).is_none());
        let none = windows(&[], "Asia/Shanghai");
        assert!(none.is_open(noon) && none.changes_at(noon).is_none());
    }

    #[test]
    fn days_on_which_clocks_change_lose_and_double_no_window() {
        // 2026-03-29: 02:00 becomes 03:00; a window from 02:30 opens when its time is left out.
        let berlin = windows(&["02:30-05:00"], "Europe/Berlin");
        let before = utc("2026-03-29T00:00:00Z");
        assert_eq!(berlin.changes_at(before), Some(utc("2026-03-29T01:00:00Z")));
        assert_eq!(
            berlin.changes_at(utc("2026-03-29T01:30:00Z")),
            Some(utc("2026-03-29T03:00:00Z"))
        );
        // 2026-10-25: 03:00 becomes 02:00; the hour that comes twice is inside twice.
        let berlin = windows(&["02:00-03:00"], "Europe/Berlin");
        let before = utc("2026-10-24T23:00:00Z");
        assert_eq!(berlin.changes_at(before), Some(utc("2026-10-25T00:00:00Z")));
        assert_eq!(
            berlin.changes_at(utc("2026-10-25T00:10:00Z")),
            Some(utc("2026-10-25T02:00:00Z"))
        );
    }

    #[test]
    fn days_are_those_of_the_place() {
        let berlin = windows(&[], "Europe/Berlin");
        let late = utc("2026-03-28T22:59:00Z");
        assert_eq!(berlin.next_day(late), utc("2026-03-28T23:00:00Z"));
        assert!(berlin.day(utc("2026-03-28T23:00:00Z")) > berlin.day(late));
        // The day after has 23 hours.
        assert_eq!(berlin.next_day(utc("2026-03-28T23:00:00Z")), utc("2026-03-29T22:00:00Z"));
        assert!(berlin.day(utc("2027-01-01T00:00:00Z")) > berlin.day(utc("2026-12-31T00:00:00Z")));
        assert!(time_zone("Asia/Shanghay").is_none());
    }
}
