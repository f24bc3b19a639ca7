//! Quantities as people write them: sizes, durations, bit rates.

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
}
