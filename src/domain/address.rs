//! Addresses of cameras and servers, which may carry credentials, and their form without them.

use std::fmt;

use url::Url;

use crate::domain::secret::Secret;
use crate::domain::stream_key::percent_decode;

/// Longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 2_048;

/// A URL with a host. Displays and debugs without credentials, query and whatever in its path
/// looks like a password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(Url);

/// Why a text is no address. Never repeats the text: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Too long.
    #[error("has more than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
    /// No URL.
    #[error("is not a URL: {0}")]
    NotUrl(url::ParseError),
    /// Control characters or blanks.
    #[error("has a blank or a control character")]
    BadCharacter,
    /// Another scheme.
    #[error("begins with `{found}:`, allowed is {allowed}")]
    Scheme {
        /// The scheme of the text.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// No host.
    #[error("names no host")]
    NoHost,
    /// Port 0.
    #[error("has port 0")]
    NoPort,
    /// A part after `#`.
    #[error("has a part after `#`")]
    Fragment,
}

impl Address {
    /// Parses a URL whose scheme is one of `schemes`.
    ///
    /// # Errors
    /// The text is not such a URL.
    pub fn parse(text: &str, schemes: &[&str]) -> Result<Self, AddressError> {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(AddressError::BadCharacter);
        }
        let url = Url::parse(text).map_err(AddressError::NotUrl)?;
        if !schemes.contains(&url.scheme()) {
            return Err(AddressError::Scheme {
                found: url.scheme().chars().take(16).collect(),
                allowed: schemes.iter().map(|s| format!("{s}://")).collect::<Vec<_>>().join(" or "),
            });
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(AddressError::NoHost);
        }
        if url.port() == Some(0) {
            return Err(AddressError::NoPort);
        }
        if url.fragment().is_some() {
            return Err(AddressError::Fragment);
        }
        Ok(Address(url))
    }

    /// The URL to connect to, without user name and password.
    #[must_use]
    pub fn without_credentials(&self) -> Url {
        let mut url = self.0.clone();
        // Both fail for URLs without a host only, and there is one.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url
    }

    /// Scheme, host and port: what one server is.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// User name and password, percent-decoded, if a user name is given.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, Secret)> {
        let decode = |text: &str| percent_decode(text).unwrap_or_else(|| text.to_owned());
        let user = decode(self.0.username());
        let password = decode(self.0.password().unwrap_or_default());
        (!user.is_empty()).then(|| (user, Secret::new(&password)))
    }

    /// The whole URL with its secrets, for storing and connecting.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// The host, IPv6 addresses in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The port, if the URL names one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.port()
    }
}

/// Without credentials; some cameras take them in the query or in the path, so those go too.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        if !self.0.username().is_empty() || self.0.password().is_some() {
            f.write_str("***@")?;
        }
        f.write_str(self.host())?;
        if let Some(port) = self.port() {
            write!(f, ":{port}")?;
        }
        let path = self.0.path();
        f.write_str(if path.contains(['=', '@']) { "/***" } else { path })?;
        f.write_str(if self.0.query().is_some() { "?***" } else { "" })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtsp(text: &str) -> Result<Address, AddressError> {
        Address::parse(text, &["rtsp"])
    }

    #[test]
    fn credentials_are_split_off_and_never_shown() {
        let address =
            rtsp("rtsp://ad%40min:can%3Aary@10.0.0.8:8554/main?token=canary").expect("ok");
        assert_eq!(address.to_string(), "rtsp://***@10.0.0.8:8554/main?***");
        assert!(!format!("{address:?}").contains("can"));
        let (user, password) = address.credentials().expect("given");
        assert_eq!((user.as_str(), password.expose()), ("ad@min", "can:ary"));
        let open = address.without_credentials();
        assert_eq!(open.as_str(), "rtsp://10.0.0.8:8554/main?token=canary");
        let xm = rtsp("rtsp://10.0.0.9/user=admin&password=canary&channel=1").expect("ok");
        assert_eq!(xm.to_string(), "rtsp://10.0.0.9/***");
        assert_eq!(xm.credentials(), None);
        assert_eq!(rtsp("rtsp://[::1]:554/a").expect("ok").host(), "[::1]");
    }

    #[test]
    fn what_is_no_camera_is_refused_without_repeating_it() {
        for (text, what) in [
            ("http://169.254.169.254/canary", "begins with `http:`, allowed is rtsp://"),
            ("file:///etc/passwd", "begins with `file:`, allowed is rtsp://"),
            ("rtsp:///main", "names no host"),
            ("rtsp:main", "names no host"),
            ("rtsp://cam:0/main", "has port 0"),
            ("rtsp://cam/ma in", "has a blank or a control character"),
            ("rtsp://cam/\n", "has a blank or a control character"),
            ("rtsp://cam/main#x", "has a part after `#`"),
            ("canary", "is not a URL: relative URL without a base"),
        ] {
            assert_eq!(rtsp(text).expect_err(text).to_string(), what, "{text}");
        }
        let long = format!("rtsp://cam/{}", "x".repeat(3000));
        assert_eq!(rtsp(&long), Err(AddressError::TooLong));
    }
}
