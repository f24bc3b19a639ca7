//! Times as the cloud API writes them in texts: `YYYY-MM-DD hh:mm:ss` in UTC+8, or ISO 8601.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::domain::time::UnixMillis;

/// The end of the calendar; later times are shown as this.
const SHOWN_MS_MAX: i64 = 253_402_207_200_000;

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeForm {
    /// `2026-11-25 20:00:00`, UTC+8.
    Beijing,
    /// `2026-11-25T12:00:00Z`.
    Utc,
}

impl TimeForm {
    /// Writes a time, to the second.
    #[must_use]
    pub fn show(self, time: UnixMillis) -> String {
        let shown = Timestamp::from_millisecond(time.0.clamp(0, SHOWN_MS_MAX))
            .expect("clamped to the years 1970 to 9999");
        match self {
            TimeForm::Beijing => {
                Offset::constant(8).to_datetime(shown).strftime("%Y-%m-%d %H:%M:%S").to_string()
            }
            TimeForm::Utc => {
                Offset::UTC.to_datetime(shown).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
            }
        }
    }
}

/// Reads a time in either form; ISO 8601 needs `Z` or an offset. Tells the form, for the answer.
#[must_use]
pub fn read_time(text: &str) -> Option<(UnixMillis, TimeForm)> {
    if text.contains(['T', 't']) {
        let time: Timestamp = text.parse().ok()?;
        return Some((UnixMillis(time.as_millisecond()), TimeForm::Utc));
    }
    let civil = DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    let time = Offset::constant(8).to_timestamp(civil).ok()?;
    Some((UnixMillis(time.as_millisecond()), TimeForm::Beijing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_written() {
        let time = UnixMillis(1_700_000_000_000);
        for (text, form) in
            [("2023-11-15 06:13:20", TimeForm::Beijing), ("2023-11-14T22:13:20Z", TimeForm::Utc)]
        {
            assert_eq!(read_time(text), Some((time, form)));
            assert_eq!(form.show(time), text);
        }
        assert_eq!(read_time("2023-11-15T06:13:20+08:00"), Some((time, TimeForm::Utc)));
        for bad in ["", "2023-11-15", "2023-11-15T06:13:20", "2023-13-01 00:00:00", "soon"] {
            assert_eq!(read_time(bad), None, "{bad}");
        }
        assert_eq!(TimeForm::Utc.show(UnixMillis(i64::MAX)), "9999-12-30T22:00:00Z");
    }
}
