//! Times of the actions that control streams: `YYYY-MM-DDThh:mm:ssZ`, UTC (contract, section 9.1).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::domain::document::Fields;
use crate::domain::faults::Faults;
use crate::domain::time::UnixMillis;

/// Longest text of a time, in bytes.
const TIME_BYTES_MAX: usize = 64;

/// Reads a time. Without a zone it is UTC too; another zone may be given.
#[must_use]
pub fn parse(text: &str) -> Option<UnixMillis> {
    let zoned = || text.parse::<Timestamp>().ok();
    let plain = || Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    let time = zoned().or_else(plain)?;
    Some(UnixMillis(time.as_millisecond()))
}

/// Writes a time, to the second.
#[must_use]
pub fn show(unix_ms: i64) -> String {
    let time = Timestamp::from_second(unix_ms.div_euclid(1_000)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A member that is a time.
pub fn field(fields: &mut Fields<'_>, name: &str, faults: &mut Faults) -> Option<UnixMillis> {
    let place = fields.place_of(name);
    let time = parse(fields.text(name, TIME_BYTES_MAX, faults)?);
    if time.is_none() {
        faults.add(place, "is not a time like 2018-11-29T19:00:00Z");
    }
    time
}

/// A time that must be there.
pub fn required_field(
    fields: &mut Fields<'_>,
    name: &str,
    faults: &mut Faults,
) -> Option<UnixMillis> {
    let place = fields.place_of(name);
    let time = parse(fields.required_text(name, TIME_BYTES_MAX, faults)?);
    if time.is_none() {
        faults.add(place, "is not a time like 2018-11-29T19:00:00Z");
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        let unix = Some(UnixMillis(1_543_518_000_000));
        for text in ["2018-11-29T19:00:00Z", "2018-11-30T03:00:00+08:00", "2018-11-29T19:00:00"] {
            assert_eq!(parse(text), unix, "{text}");
        }
        assert_eq!(show(1_543_518_000_999), "2018-11-29T19:00:00Z");
        for text in ["", "now", "2018-13-01T00:00:00Z", "1543518000"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
