//! The signature of object uploads (`q-sign-algorithm=sha1`).
//!
//! ```text
//! KeyTime      = start;end
//! SignKey      = hex(hmac-sha1(SecretKey, KeyTime))
//! HttpString   = lower(method) \n path \n params \n headers \n
//! StringToSign = "sha1" \n KeyTime \n hex(sha1(HttpString)) \n
//! Signature    = hex(hmac-sha1(SignKey as text, StringToSign))
//! ```
//!
//! The path is not percent-encoded. Names are in lower case and encoded, values encoded, both
//! sorted by name. All parameters are signed, and those headers that [`is_signed`] names.

use crate::domain::time::UnixMillis;
use crate::wire::cloud::Credentials;
use crate::wire::cloud::mac::{hex, hmac_sha1, sha1_hex};

/// A signature is good from so long before it is made, in seconds: clocks differ.
const BEFORE_S: i64 = 60;
/// And so long after, in seconds.
const AFTER_S: i64 = 10_000;

/// A request that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct CosRequest<'a> {
    /// In any case.
    pub method: &'a str,
    /// With its leading `/`, not percent-encoded.
    pub path: &'a str,
    /// Parameters of the query, not encoded; one without a value has an empty one.
    pub params: &'a [(&'a str, &'a str)],
    /// All headers that will be sent, `Host` among them.
    pub headers: &'a [(&'a str, &'a str)],
}

/// From when to when a signature is good, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTime {
    /// The first second.
    pub start_s: i64,
    /// The last second.
    pub end_s: i64,
}

impl KeyTime {
    /// For a request that is sent now; as the official SDK has it.
    #[must_use]
    pub fn around(now: UnixMillis) -> Self {
        let now_s = now.0.div_euclid(1_000);
        let (start_s, end_s) = (now_s.saturating_sub(BEFORE_S), now_s.saturating_add(AFTER_S));
        KeyTime { start_s, end_s }
    }
}

impl std::fmt::Display for KeyTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{};{}", self.start_s, self.end_s)
    }
}

/// Whether a header is part of the signature.
#[must_use]
pub fn is_signed(header: &str) -> bool {
    let name = header.to_ascii_lowercase();
    matches!(name.as_str(), "content-length" | "content-type" | "content-md5" | "host")
        || name.starts_with("x-cos-")
}

/// The value of `Authorization`. A temporary token belongs among the headers, as
/// `x-cos-security-token`.
#[must_use]
pub fn authorization(
    request: &CosRequest<'_>,
    credentials: &Credentials,
    key_time: KeyTime,
) -> String {
    let headers = request.headers.iter().filter(|(name, _)| is_signed(name));
    let headers = Signed::new(headers);
    let params = Signed::new(request.params.iter());
    let http_string = http_string(request, &params, &headers);
    let key = sign_key(credentials, key_time);
    let to_sign = format!("sha1\n{key_time}\n{}\n", sha1_hex(http_string.as_bytes()));
    let signature = hex(&hmac_sha1(key.as_bytes(), to_sign.as_bytes()));
    format!(
        "q-sign-algorithm=sha1&q-ak={}&q-sign-time={key_time}&q-key-time={key_time}\
         &q-header-list={}&q-url-param-list={}&q-signature={signature}",
        credentials.secret_id, headers.names, params.names,
    )
}

fn sign_key(credentials: &Credentials, key_time: KeyTime) -> String {
    let secret = credentials.secret_key.expose().as_bytes();
    hex(&hmac_sha1(secret, key_time.to_string().as_bytes()))
}

fn http_string(request: &CosRequest<'_>, params: &Signed, headers: &Signed) -> String {
    let method = request.method.to_ascii_lowercase();
    format!("{method}\n{}\n{}\n{}\n", request.path, params.pairs, headers.pairs)
}

/// Names and values in the form that is signed.
struct Signed {
    /// `a;b`
    names: String,
    /// `a=1&b=2`
    pairs: String,
}

impl Signed {
    fn new<'a>(pairs: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Self {
        let mut encoded: Vec<(String, String)> = pairs
            .map(|(name, value)| (encode(&name.to_ascii_lowercase()), encode(value)))
            .collect();
        encoded.sort_unstable();
        let names: Vec<&str> = encoded.iter().map(|(name, _)| name.as_str()).collect();
        let pairs: Vec<String> =
            encoded.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Signed { names: names.join(";"), pairs: pairs.join("&") }
    }
}

/// Percent-encodes everything outside `[A-Za-z0-9-_.~]`.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::secret::Secret;

    fn text<'a>(case: &'a Value, name: &str) -> &'a str {
        case[name].as_str().unwrap_or_else(|| panic!("{name} in {case}"))
    }

    fn pairs(value: &Value) -> Vec<(&str, &str)> {
        let members = value.as_object().expect("pairs").iter();
        members.map(|(name, value)| (name.as_str(), value.as_str().expect("text"))).collect()
    }

    #[test]
    fn every_vector_is_made() {
        let vectors = include_str!("../../../tests/data/contracts/cos_sign.json");
        let vectors: Value = serde_json::from_str(vectors).expect("JSON");
        let cases = vectors["cases"].as_array().expect("cases");
        assert_eq!(cases.len(), 13, "the vectors are complete");
        for case in cases {
            // What is sent, the signed host, and what no signature covers.
            let mut headers = pairs(&case["sent_headers"]);
            headers.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
            headers.push(("Host", text(&case["signed_headers"], "host")));
            headers.push(("User-Agent", "edgerec"));
            let params = pairs(&case["params"]);
            let request = CosRequest {
                method: text(case, "method"),
                path: text(case, "signed_path"),
                params: &params,
                headers: &headers,
            };
            let credentials = Credentials {
                secret_id: text(case, "secret_id").to_owned(),
                secret_key: Secret::new(text(case, "secret_key")),
            };
            let key_time = KeyTime::around(UnixMillis(1_700_000_000_999));
            assert_eq!(key_time.to_string(), text(case, "key_time"));
            assert_eq!(sign_key(&credentials, key_time), text(case, "sign_key"));
            let made = authorization(&request, &credentials, key_time);
            assert_eq!(made, text(case, "authorization"), "{}", case["name"]);
            let signed = Signed::new(request.headers.iter().filter(|(name, _)| is_signed(name)));
            let http_string = http_string(&request, &Signed::new(params.iter()), &signed);
            assert_eq!(http_string, text(case, "http_string"), "{}", case["name"]);
        }
    }

    #[test]
    fn what_is_not_plain_is_encoded() {
        assert_eq!(encode("a-Z_0.~"), "a-Z_0.~");
        assert_eq!(encode("/ +é"), "%2F%20%2B%C3%A9");
        assert!(is_signed("X-Cos-Acl") && is_signed("HOST"));
        assert!(!is_signed("x-amz-date") && !is_signed("user-agent"));
    }
}
