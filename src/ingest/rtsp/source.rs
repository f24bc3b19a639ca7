//! A camera to pull: which stream it is, where it is, how media comes.

use std::fmt;

use retina::client::Credentials;
use url::Url;

use crate::domain::stream_key::{StreamKey, percent_decode};

/// Port of RTSP when the address names none.
const RTSP_PORT: u16 = 554;

/// How the camera sends media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// Inside the RTSP connection: nothing is lost or reordered.
    #[default]
    Tcp,
    /// RTP over UDP: for a LAN; a packet that comes late counts as lost.
    Udp,
}

/// A camera's address cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Another scheme than `rtsp`.
    #[error("the scheme is `{0}`; only rtsp can be pulled")]
    Scheme(String),
    /// No host.
    #[error("the address has no host")]
    NoHost,
    /// User or password cannot be decoded.
    #[error("the user or password has a broken percent escape")]
    Credentials,
}

/// A camera that the box pulls. Its address may hold a user, a password and secrets in path or
/// query, so only host and port are ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    key: StreamKey,
    /// Without user and password.
    url: Url,
    credentials: Option<Credentials>,
    transport: Transport,
}

impl Source {
    /// Checks the address (`rtsp://[user[:password]@]host[:port]/path`).
    ///
    /// # Errors
    /// Another scheme, no host, or a user or password that cannot be decoded.
    pub fn new(key: StreamKey, url: &Url, transport: Transport) -> Result<Self, SourceError> {
        if url.scheme() != "rtsp" {
            return Err(SourceError::Scheme(url.scheme().to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(SourceError::NoHost);
        }
        let decode = |text| percent_decode(text).ok_or(SourceError::Credentials);
        let credentials = if url.username().is_empty() && url.password().is_none() {
            None
        } else {
            let username = decode(url.username())?;
            let password = decode(url.password().unwrap_or_default())?;
            Some(Credentials { username, password })
        };
        let mut bare = url.clone();
        let cleared = bare.set_username("").and_then(|()| bare.set_password(None));
        cleared.map_err(|()| SourceError::NoHost)?;
        bare.set_fragment(None);
        Ok(Source { key, url: bare, credentials, transport })
    }

    /// Which stream the camera's media is.
    #[must_use]
    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// How media comes.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Host and port, for logs and events.
    #[must_use]
    pub fn peer(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        format!("{host}:{}", self.url.port().unwrap_or(RTSP_PORT))
    }

    /// The address without user and password. May still hold secrets.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// User and password, if the address has them.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        self.credentials.clone()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("key", &self.key)
            .field("peer", &self.peer())
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str) -> Result<Source, SourceError> {
        let key = StreamKey::new("cams", "live", "gate").expect("valid");
        Source::new(key, &Url::parse(url).expect("a URL"), Transport::Tcp)
    }

    #[test]
    fn credentials_leave_the_address_and_are_never_shown() {
        let source = source("rtsp://ad%40min:p%3Ass%2F@10.0.0.8/main?token=canary").expect("fine");
        assert_eq!(source.url().as_str(), "rtsp://10.0.0.8/main?token=canary");
        let credentials = source.credentials().expect("given");
        assert_eq!(
            (credentials.username.as_str(), credentials.password.as_str()),
            ("ad@min", "p:ss/")
        );
        assert_eq!(source.peer(), "10.0.0.8:554");
        let shown = format!("{source:?}");
        for secret in ["canary", "p:ss", "p%3A", "ad@min", "main"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn only_rtsp_with_a_host_is_pulled() {
        for url in ["http://169.254.169.254/", "rtsps://cam/", "file:///etc/passwd"] {
            assert!(matches!(source(url), Err(SourceError::Scheme(_))), "{url}");
        }
        assert_eq!(source("rtsp:/main"), Err(SourceError::NoHost));
        assert_eq!(source("rtsp://a:%zz@cam/"), Err(SourceError::Credentials));
        assert_eq!(source("rtsp://[fe80::1]:8554/x").expect("fine").peer(), "[fe80::1]:8554");
    }
}
