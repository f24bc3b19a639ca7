//! Which part of a file a request asks for: one byte range, or all of it.
//!
//! # Specification
//! RFC 9110, sections 13 and 14. More than one range, and anything that is no range of bytes, is
//! answered with the whole file, as it allows.

use axum::http::{HeaderMap, HeaderName, header};

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Bytes `from..until`; never empty.
    Range {
        /// First byte.
        from: u64,
        /// The byte behind the last.
        until: u64,
    },
    /// Nothing: the range begins behind the end.
    OutOfReach,
}

impl Part {
    /// What `headers` ask of something of `len` bytes whose strong tag is `etag`.
    #[must_use]
    pub fn asked(headers: &HeaderMap, len: u64, etag: &str) -> Part {
        let Some(range) = single(headers, header::RANGE) else { return Part::Whole };
        // A date or a weak tag proves nothing: the whole file is then sent.
        if headers.contains_key(header::IF_RANGE) && single(headers, header::IF_RANGE) != Some(etag)
        {
            return Part::Whole;
        }
        Part::parse(range, len)
    }

    fn parse(range: &str, len: u64) -> Part {
        let Some((unit, range)) = range.split_once('=') else { return Part::Whole };
        let Some((first, last)) = range.trim().split_once('-') else { return Part::Whole };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Part::Whole;
        }
        let (from, until) = match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(len)),
            (Some(first), None) if last.is_empty() => (first, len),
            (None, Some(last)) if first.is_empty() => (len.saturating_sub(last), len),
            _ => return Part::Whole,
        };
        if from < until { Part::Range { from, until } } else { Part::OutOfReach }
    }
}

/// The only header of a name, if it is plain text.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(value)
}

/// Digits alone; a number too large for us is still a number.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whether `headers` say that the asker already has what `etag` stands for.
#[must_use]
pub fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(
        |list| {
            let mut tags = list.split(',').map(str::trim);
            tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
        },
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a value");
        pairs.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    fn asked(range: &str, len: u64) -> Part {
        Part::asked(&headers(&[(header::RANGE, range)]), len, "\"a\"")
    }

    #[test]
    fn one_range_is_cut_to_the_file_and_everything_else_is_the_whole() {
        let range = |from, until| Part::Range { from, until };
        for (text, expected) in [
            ("bytes=0-0", range(0, 1)),
            ("bytes=0-", range(0, 100)),
            ("Bytes = 10-19", range(10, 20)),
            ("bytes=90-1000", range(90, 100)),
            ("bytes=99-99999999999999999999999999", range(99, 100)),
            ("bytes=-1", range(99, 100)),
            ("bytes=-1000", range(0, 100)),
            ("bytes=-18446744073709551616", range(0, 100)),
            ("bytes=100-", Part::OutOfReach),
            ("bytes=100-200", Part::OutOfReach),
            ("bytes=99999999999999999999999999-", Part::OutOfReach),
            ("bytes=-0", Part::OutOfReach),
            ("bytes=20-10", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=1--2", Part::Whole),
            ("seconds=0-1", Part::Whole),
        ] {
            assert_eq!(asked(text, 100), expected, "{text}");
        }
        assert_eq!(Part::asked(&HeaderMap::new(), 100, "\"a\""), Part::Whole);
        assert_eq!(asked("bytes=0-0", 0), Part::OutOfReach);
    }

    #[test]
    fn a_range_of_something_else_is_not_given() {
        let range = (header::RANGE, "bytes=1-2");
        let asked = |if_range: &str| {
            Part::asked(&headers(&[range.clone(), (header::IF_RANGE, if_range)]), 9, "\"a\"")
        };
        assert_eq!(asked("\"a\""), Part::Range { from: 1, until: 3 });
        for other in ["\"b\"", "W/\"a\"", "a", "Mon, 23 Nov 2026 07:00:00 GMT"] {
            assert_eq!(asked(other), Part::Whole, "{other}");
        }
    }

    #[test]
    fn what_the_asker_has_is_recognised() {
        let known = |value: &str| is_known(&headers(&[(header::IF_NONE_MATCH, value)]), "\"a\"");
        assert!(known("\"a\"") && known("*") && known("\"b\", W/\"a\""));
        assert!(!known("\"b\"") && !known("") && !known("a"));
    }

    proptest! {
        #[test]
        fn every_range_lies_inside(text in "(bytes=)?[0-9-]{0,24}", len in any::<u64>()) {
            if let Part::Range { from, until } = asked(&text, len) {
                prop_assert!(from < until && until <= len);
            }
        }
    }
}
