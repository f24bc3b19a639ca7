//! From what a publisher says (`tcUrl`, `app`, stream name) to the parts of a stream key.
//!
//! Domain: host of `tcUrl` in lower case without port; `?vhost=` in `tcUrl`, app or stream name
//! overrides it. App: path of `tcUrl` between the first `/` and `?`; the `app` value when there is
//! no `tcUrl`. Stream: the publish name up to `?`. Query: behind the `?` of the publish name,
//! verbatim; behind that of `tcUrl` or app if the name has none.

use crate::domain::stream_key::{StreamKey, StreamKeyError, percent_decode};

/// What a publish asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishUrl {
    /// Which stream.
    pub key: StreamKey,
    /// The query string without `?`, verbatim; empty if none.
    pub query: String,
}

impl PublishUrl {
    /// Puts the parts together.
    ///
    /// # Errors
    /// A part is missing, too long or has control characters.
    pub fn new(tc_url: &str, app: &str, name: &str) -> Result<Self, StreamKeyError> {
        let (name, name_query) = split_query(name);
        let (app, app_query) = split_query(app);
        let rest = tc_url.split_once("://").map_or("", |(_, rest)| rest);
        let (rest, url_query) = split_query(rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let query = [name_query, url_query, app_query]
            .into_iter()
            .find(|query| !query.is_empty())
            .unwrap_or_default();
        let app = if path.is_empty() { app } else { path };
        let vhost = [name_query, url_query, app_query].into_iter().find_map(vhost);
        let domain = match &vhost {
            Some(vhost) => vhost.as_str(),
            None => host(authority),
        };
        let key = StreamKey::new(domain, app.trim_matches('/'), name)?;
        Ok(PublishUrl { key, query: query.to_owned() })
    }
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

/// The host of an authority: without user, port and the brackets of IPv6.
fn host(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(inside) = host.strip_prefix('[') {
        return inside.split(']').next().unwrap_or(inside);
    }
    host.split(':').next().unwrap_or(host)
}

/// The domain that a query names.
fn vhost(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("vhost="))?;
    percent_decode(value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(tc_url: &str, app: &str, name: &str) -> (String, String, String, String) {
        let url = PublishUrl::new(tc_url, app, name).expect("a key");
        let part = |text: &str| text.to_owned();
        let key = &url.key;
        (part(key.domain()), part(key.app()), part(key.stream()), url.query)
    }

    #[test]
    fn the_parts_come_from_where_the_contract_says() {
        let cases = [
            ("rtmp://Push.Example.com:1935/live", "live", "s1", "push.example.com/live/s1?"),
            ("rtmp://h/live", "live", "s?txSecret=ab&txTime=5", "h/live/s?txSecret=ab&txTime=5"),
            ("rtmp://h/live?k=1", "live?k=1", "s", "h/live/s?k=1"),
            ("rtmp://h/a/b", "a", "s", "h/a/b/s?"),
            ("rtmp://h/live/", "live/", "s", "h/live/s?"),
            ("rtmp://[::1]:1935/live", "live", "s", "::1/live/s?"),
            (
                "rtmp://10.0.0.1/live",
                "live",
                "s?vhost=V.example&x=%2f",
                "v.example/live/s?vhost=V.example&x=%2f",
            ),
            ("rtmp://10.0.0.1/live?vhost=v", "live?vhost=v", "s", "v/live/s?vhost=v"),
            ("rtmp://10.0.0.1", "live?vhost=v", "s", "v/live/s?vhost=v"),
            ("rtmp://user:pw@h:1/live", "live", "a/b", "h/live/a/b?"),
        ];
        for (tc_url, app, name, expected) in cases {
            let (domain, app, stream, query) = parts(tc_url, app, name);
            assert_eq!(format!("{domain}/{app}/{stream}?{query}"), expected, "{tc_url} {name}");
        }
    }

    #[test]
    fn missing_parts_are_refused() {
        let error = |tc_url, app, name| PublishUrl::new(tc_url, app, name).expect_err("no key");
        assert_eq!(error("rtmp://h/", "", "s"), StreamKeyError::Empty("app"));
        assert_eq!(error("rtmp://h/live", "live", "?a=b"), StreamKeyError::Empty("stream"));
        assert_eq!(error("", "live", "s"), StreamKeyError::Empty("domain"));
        assert_eq!(error("rtmp://h/live", "live", "a\nb"), StreamKeyError::BadCharacter("stream"));
    }
}
