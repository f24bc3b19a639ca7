//! The stream key: (domain, app, stream), and its one text form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::domain::limits::STREAM_KEY_PART_BYTES_MAX;

/// Which stream: domain, app and stream name. Cheap to clone. No part is empty, longer than
/// [`STREAM_KEY_PART_BYTES_MAX`] or has control characters; wildcards live in rules only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(Arc<[Box<str>; 3]>);

/// Why a text is no stream key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamKeyError {
    /// Not three parts between slashes.
    #[error("`{0}` is not DOMAIN/APP/STREAM")]
    NotThreeParts(String),
    /// A part is missing.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// A part is too long.
    #[error("the {part} has {bytes} bytes, {STREAM_KEY_PART_BYTES_MAX} are allowed")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A part has a control character or a broken percent escape.
    #[error("the {0} has a control character or a broken percent escape")]
    BadCharacter(&'static str),
}

impl StreamKey {
    /// Checks the three parts and makes the key; the domain is put in lower case.
    ///
    /// # Errors
    /// A part is empty, too long or has control characters.
    pub fn new(domain: &str, app: &str, stream: &str) -> Result<Self, StreamKeyError> {
        let parts = [("domain", domain), ("app", app), ("stream", stream)];
        for (part, text) in parts {
            if text.is_empty() {
                return Err(StreamKeyError::Empty(part));
            }
            if text.len() > STREAM_KEY_PART_BYTES_MAX {
                return Err(StreamKeyError::TooLong { part, bytes: text.len() });
            }
            if text.chars().any(char::is_control) {
                return Err(StreamKeyError::BadCharacter(part));
            }
        }
        Ok(StreamKey(Arc::new([domain.to_lowercase().into_boxed_str(), app.into(), stream.into()])))
    }

    /// The push or camera domain, in lower case.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.0[0]
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.0[1]
    }

    /// The stream name.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.0[2]
    }
}

/// `domain/app/stream`, each part percent-encoded outside `[A-Za-z0-9._-]`.
impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(&percent_encode(part))?;
        }
        Ok(())
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for StreamKey {
    type Err = StreamKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let [domain, app, stream] = parts[..] else {
            return Err(StreamKeyError::NotThreeParts(text.to_owned()));
        };
        let decode = |part, text| percent_decode(text).ok_or(StreamKeyError::BadCharacter(part));
        StreamKey::new(&decode("domain", domain)?, &decode("app", app)?, &decode("stream", stream)?)
    }
}

/// Whether a text can be a domain: labels of letters, digits, `_` and `-` between single dots, or
/// an IP address. Boxes have plain names such as `cams` too.
#[must_use]
pub fn is_domain(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let label = |label: &str| !label.is_empty() && label.chars().all(plain);
    text.len() <= STREAM_KEY_PART_BYTES_MAX
        && (text.split('.').all(label) || text.parse::<IpAddr>().is_ok())
}

/// Percent-encodes everything outside `[A-Za-z0-9._-]`.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Undoes percent-encoding; `None` for a broken escape or text that is not UTF-8.
#[must_use]
pub fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for (domain, app, stream) in
            [("cams", "live", "gate"), ("A.b", "a/b", "日本 %?"), ("d", ".", "..")]
        {
            let key = StreamKey::new(domain, app, stream).expect("valid");
            let back: StreamKey = key.to_string().parse().expect("own text");
            assert_eq!(back, key);
        }
    }

    #[test]
    fn domains_are_told_from_what_is_none() {
        for good in ["cams", "Push.example.com", "10.0.0.8", "::1", "a-b_1", "日本.example"] {
            assert!(is_domain(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a/b", "*.b", "a:1", "rtmp://a", "[::1]"] {
            assert!(!is_domain(bad), "{bad}");
        }
        assert!(!is_domain(&"a".repeat(256)));
    }

    #[test]
    fn bad_keys_say_which_part() {
        assert_eq!("a/b".parse::<StreamKey>(), Err(StreamKeyError::NotThreeParts("a/b".into())));
        assert_eq!("a//c".parse::<StreamKey>(), Err(StreamKeyError::Empty("app")));
        assert_eq!("a/b/%zz".parse::<StreamKey>(), Err(StreamKeyError::BadCharacter("stream")));
        assert_eq!(StreamKey::new("a", "b\n", "c"), Err(StreamKeyError::BadCharacter("app")));
    }
}
