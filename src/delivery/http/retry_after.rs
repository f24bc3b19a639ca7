//! `Retry-After`: how long a server wants to be left alone.
//!
//! # Specification
//! RFC 9110, 10.2.3: seconds, or a date, which is compared with the server's own `Date`.

use std::time::Duration;

use hyper::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use jiff::Timestamp;

/// More than this no server is believed: a mistake there must not cost a day.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// How long the answer asks to wait, at most ten minutes; `None` if it does not.
pub(in crate::delivery) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let ahead =
                date(headers, &RETRY_AFTER)?.as_second() - date(headers, &DATE)?.as_second();
            u64::try_from(ahead).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn seconds_and_dates_up_to_ten_minutes() {
        let after = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            headers.insert(DATE, HeaderValue::from_static("Mon, 21 Sep 2026 14:13:20 GMT"));
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(after("7"), Some(7));
        assert_eq!(after("Mon, 21 Sep 2026 14:14:00 GMT"), Some(40));
        assert_eq!(after("Mon, 21 Sep 2020 14:14:00 GMT"), Some(0));
        assert_eq!(after("99999999999999"), Some(600));
        for nothing in ["", "-1", "soon", "1e9"] {
            assert_eq!(after(nothing), None, "{nothing:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
