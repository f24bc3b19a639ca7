//! Quantities as people write them: sizes, durations, bit rates, times of day.

use std::fmt;
use std::time::Duration;

/// Bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BitRate(pub u64);

impl BitRate {
    /// Whole bytes a second, at least one.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        (self.0 / 8).max(1)
    }
}

/// A daily stretch of local time, from a minute up to but without another; it may reach over
/// midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DayWindow {
    from_minute: u16,
    to_minute: u16,
}

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;

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

/// Parses `24GiB` to bytes.
///
/// # Errors
/// Says what is expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let units = [
        ("B", 1),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    scaled(text, &units).ok_or_else(|| "is not a size like 24GiB".to_owned())
}

/// Parses `1s`, `500ms`, `12h` to a duration.
///
/// # Errors
/// Says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("min", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let millis = scaled(text, &units);
    millis.map(Duration::from_millis).ok_or_else(|| "is not a duration like 1s or 12h".to_owned())
}

/// Parses `8Mbit` to bits a second.
///
/// # Errors
/// Says what is expected.
pub fn parse_bit_rate(text: &str) -> Result<BitRate, String> {
    let units = [("bit", 1), ("kbit", 1_000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000)];
    scaled(text, &units)
        .filter(|bits| *bits > 0)
        .map(BitRate)
        .ok_or_else(|| "is not a bit rate like 8Mbit".to_owned())
}

/// A whole number and a unit, with or without a blank between.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_with_their_units() {
        assert_eq!(parse_size("24GiB"), Ok(24 << 30));
        assert_eq!(parse_size("1 MB"), Ok(1_000_000));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(parse_bit_rate("8Mbit"), Ok(BitRate(8_000_000)));
        assert_eq!(BitRate(8_000_000).bytes_per_second(), 1_000_000);
        for bad in ["", "24", "GiB", "24gib", "1.5GiB", "-1B", "24  GiB", "99999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
            assert!(parse_duration(bad).is_err(), "{bad}");
            assert!(parse_bit_rate(bad).is_err(), "{bad}");
        }
        assert!(parse_bit_rate("0bit").is_err());
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
}
