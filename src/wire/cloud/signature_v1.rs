//! The older signature of API requests, in a parameter of the query or the form; made and checked.
//!
//! `METHOD + Host + path + "?" + k=v joined by &` in byte order of the names, values not encoded,
//! under HMAC-SHA1 or HMAC-SHA256, in base64.
//!
//! As values are not encoded, a value with `&` in it signs like two parameters. What was overheard
//! cannot be sent again split otherwise, as its nonce is in the [`NonceTable`]; what was held back
//! on the way can. TC3 has no such gap.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::time::Instant;
use crate::wire::cloud::auth_failure::AuthFailure;
use crate::wire::cloud::flat::FlatParameters;
use crate::wire::cloud::mac::{hmac_sha1, hmac_sha256, same};
use crate::wire::cloud::nonce_table::NonceTable;
use crate::wire::cloud::received::Received;
use crate::wire::cloud::{AgeCheck, Credentials, tc3};

/// Digits of a nonce: SDKs send up to 63 bits.
const NONCE_DIGITS_MAX: usize = 20;

/// Which digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `HmacSHA1`, the default.
    HmacSha1,
    /// `HmacSHA256`
    HmacSha256,
}

/// A signature that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub secret_id: String,
    /// Whether its age was judged.
    pub age: AgeCheck,
}

impl Method {
    /// From the parameter `SignatureMethod`; absent is HMAC-SHA1.
    fn parse(text: Option<&str>) -> Result<Self, AuthFailure> {
        match text {
            None | Some("HmacSHA1") => Ok(Method::HmacSha1),
            Some("HmacSHA256") => Ok(Method::HmacSha256),
            Some(_) => Err(AuthFailure::InvalidAuthorization("the SignatureMethod is not known")),
        }
    }

    fn sign(self, secret_key: &str, string_to_sign: &str) -> String {
        let (key, message) = (secret_key.as_bytes(), string_to_sign.as_bytes());
        match self {
            Method::HmacSha1 => STANDARD.encode(hmac_sha1(key, message)),
            Method::HmacSha256 => STANDARD.encode(hmac_sha256(key, message)),
        }
    }
}

/// The value of `Signature` for a request with these parameters (in any order, a `Signature` among
/// them is left out). It is to be percent-encoded when it is sent.
#[must_use]
pub fn signature<'a>(
    method: Method,
    secret_key: &crate::domain::secret::Secret,
    place: Place<'_>,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    method.sign(secret_key.expose(), &place.string_to_sign(parameters))
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The `Host` header, with its port if it has one.
    pub host: &'a str,
    /// The path, such as `/`.
    pub path: &'a str,
}

impl Place<'_> {
    fn string_to_sign<'a>(
        &self,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> String {
        let mut parameters: Vec<_> =
            parameters.into_iter().filter(|(name, _)| *name != "Signature").collect();
        parameters.sort_unstable();
        let mut text = format!("{}{}{}?", self.method, self.host, self.path);
        for (index, (name, value)) in parameters.into_iter().enumerate() {
            text.extend([if index == 0 { "" } else { "&" }, name, "=", value]);
        }
        text
    }
}

/// Proves that one of `keys` signed this request, when, and that it came for the first time.
///
/// # Errors
/// Why it is not believed.
pub fn verify(
    request: &Received<'_>,
    keys: &[Credentials],
    nonces: &mut NonceTable,
    now: Instant,
) -> Result<Verified, AuthFailure> {
    let parameters = FlatParameters::read(request)?;
    if !request.has_form()? && !request.body.is_empty() {
        return Err(AuthFailure::InvalidAuthorization("this signature does not cover the body"));
    }
    let missing = AuthFailure::InvalidAuthorization;
    let given = parameters.get("Signature").ok_or(missing("there is no Signature"))?;
    let secret_id = parameters.get("SecretId").ok_or(missing("there is no SecretId"))?;
    let timestamp = parameters.get("Timestamp").ok_or(missing("there is no Timestamp"))?;
    let timestamp_s = tc3::parse_timestamp(timestamp)?;
    let nonce = parse_nonce(parameters.get("Nonce").ok_or(missing("there is no Nonce"))?)?;
    let method = Method::parse(parameters.get("SignatureMethod"))?;
    let host = request.header("host")?.ok_or(missing("there is no Host"))?;
    let key =
        keys.iter().find(|key| key.secret_id == secret_id).ok_or(AuthFailure::SecretIdNotFound)?;
    let age = tc3::check_age(timestamp_s, now.wall)?;
    let place = Place { method: request.method, host, path: request.path };
    let expected = signature(method, &key.secret_key, place, parameters.iter());
    if !same(expected.as_bytes(), given.as_bytes()) {
        return Err(AuthFailure::SignatureFailure);
    }
    nonces.admit(timestamp_s, nonce, now.boot)?;
    Ok(Verified { secret_id: secret_id.to_owned(), age })
}

fn parse_nonce(text: &str) -> Result<u64, AuthFailure> {
    let plain = text.len() <= NONCE_DIGITS_MAX && text.bytes().all(|b| b.is_ascii_digit());
    let nonce = plain.then(|| text.parse().ok()).flatten();
    nonce.ok_or(AuthFailure::InvalidAuthorization("the Nonce is not a number"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::secret::Secret;
    use crate::domain::time::{BootTime, ClockQuality, UnixMillis, WallTime};
    use crate::wire::cloud::envelope::ActionRequest;
    use crate::wire::cloud::received::SigningStyle;

    const FORM: &str = "application/x-www-form-urlencoded";

    /// The cases of both files of vectors, each with what goes over the wire.
    fn cases() -> Vec<(Value, String)> {
        let files = [
            include_str!("../../../tests/data/contracts/api_v1_signature.json"),
            include_str!("../../../tests/data/contracts/vod_v2_signature.json"),
        ];
        let mut cases = Vec::new();
        for file in files {
            let vectors: Value = serde_json::from_str(file).expect("JSON");
            for case in vectors["cases"].as_array().expect("cases") {
                let url = case["url"].as_str().and_then(|url| url.split_once('?'));
                let encoded = case["encoded"].as_str().or(url.map(|(_, query)| query));
                cases.push((case.clone(), encoded.expect("the wire form").to_owned()));
            }
        }
        assert_eq!(cases.len(), 6, "the vectors are complete");
        cases
    }

    fn text<'a>(case: &'a Value, name: &str) -> &'a str {
        case[name].as_str().unwrap_or_else(|| panic!("{name} in {case}"))
    }

    fn keys(case: &Value) -> [Credentials; 1] {
        let (id, key) = (text(case, "secret_id"), text(case, "secret_key"));
        [Credentials { secret_id: id.to_owned(), secret_key: Secret::new(key) }]
    }

    fn at(unix_s: i64, quality: ClockQuality) -> Instant {
        let wall = WallTime { unix: UnixMillis(unix_s * 1_000), quality };
        Instant { boot: BootTime(5_000), wall }
    }

    /// The request of a case; the old VOD cases are GETs.
    fn with_request<T>(case: &Value, encoded: &str, body: impl FnOnce(&Received<'_>) -> T) -> T {
        let method = case["method"].as_str().unwrap_or("GET");
        let headers = [("Host", text(case, "host")), ("Content-Type", FORM)];
        let (query, form) = if method == "GET" { (encoded, "") } else { ("", encoded) };
        let path = text(case, "path");
        body(&Received { method, path, query, headers: &headers, body: form.as_bytes() })
    }

    fn verified(case: &Value, encoded: &str, now: Instant) -> Result<Verified, AuthFailure> {
        with_request(case, encoded, |request| {
            verify(request, &keys(case), &mut NonceTable::new(), now)
        })
    }

    #[test]
    fn every_vector_is_made_and_believed() {
        for (case, encoded) in cases() {
            let parameters = case["params"].as_object().expect("parameters").iter();
            let parameters = parameters.map(|(k, v)| (k.as_str(), v.as_str().expect("text")));
            let place = Place {
                method: case["method"].as_str().unwrap_or("GET"),
                host: text(&case, "host"),
                path: text(&case, "path"),
            };
            assert_eq!(place.string_to_sign(parameters.clone()), text(&case, "string_to_sign"));
            let method = Method::parse(case["signature_method"].as_str()).expect("known");
            let made = signature(method, &keys(&case)[0].secret_key, place, parameters);
            assert_eq!(made, text(&case, "signature"));

            for off_s in [-300, 0, 300] {
                let now = at(1_700_000_000 + off_s, ClockQuality::Trusted);
                let verified = verified(&case, &encoded, now).expect("right");
                assert_eq!(verified.secret_id, "AKIDEXAMPLE");
                assert_eq!(verified.age, AgeCheck::Passed);
            }
            with_request(&case, &encoded, |request| {
                assert_eq!(request.style(), Ok(SigningStyle::V1));
                let action = ActionRequest::read(request).expect("a request");
                assert_eq!(action.action, case["params"]["Action"]);
                assert!(!action.parameters.contains_key("Signature"));
                assert!(!action.parameters.contains_key("RequestClient"));
            });
        }
    }

    #[test]
    fn a_changed_request_is_not_believed() {
        let now = at(1_700_000_000, ClockQuality::Trusted);
        let code =
            |case: &Value, encoded: &str| verified(case, encoded, now).expect_err("changed").code();
        let failed = "AuthFailure.SignatureFailure";
        let invalid = "AuthFailure.InvalidAuthorization";
        for (case, encoded) in cases() {
            assert_eq!(code(&case, &format!("{encoded}&x=1")), failed);
            assert_eq!(code(&case, &encoded.replace("Nonce=1", "Nonce=2")), failed);
            assert_eq!(code(&case, &encoded.replace("Timestamp=17", "Timestamp=x")), invalid);
            assert_eq!(code(&case, &encoded.replace("Nonce=1", "Nonce=-1")), invalid);
            assert_eq!(code(&case, &encoded.replace("HmacSHA", "HmacMD")), invalid);
            assert_eq!(code(&case, &encoded.replace("Signature=", "S=")), invalid);
            assert_eq!(
                code(&case, &encoded.replace("=AKID", "=OTHER")),
                "AuthFailure.SecretIdNotFound"
            );
            let mut elsewhere = case.clone();
            elsewhere["host"] = "other.example.com".into();
            assert_eq!(code(&elsewhere, &encoded), failed);
            let mut otherwise = case.clone();
            otherwise["secret_key"] = "OTHER".into();
            assert_eq!(code(&otherwise, &encoded), failed);
        }
    }

    #[test]
    fn what_the_signature_does_not_cover_is_refused() {
        let (case, encoded) = cases().swap_remove(1);
        let now = at(1_700_000_000, ClockQuality::Trusted);
        let headers = [("Host", text(&case, "host")), ("Content-Type", "application/json")];
        for method in ["GET", "POST"] {
            let request =
                Received { method, path: "/", query: &encoded, headers: &headers, body: b"{}" };
            let verified = verify(&request, &keys(&case), &mut NonceTable::new(), now);
            let code = verified.expect_err("a body").code();
            assert_eq!(code, "AuthFailure.InvalidAuthorization");
        }
    }

    #[test]
    fn age_and_replay() {
        let (case, encoded) = cases().swap_remove(0);
        let late = verified(&case, &encoded, at(1_700_000_301, ClockQuality::Trusted));
        assert_eq!(late, Err(AuthFailure::SignatureExpire { off_by_s: 301 }));
        let skipped = verified(&case, &encoded, at(0, ClockQuality::Untrusted));
        assert_eq!(skipped.expect("right").age, AgeCheck::Skipped);

        let now = at(1_700_000_000, ClockQuality::Trusted);
        let mut nonces = NonceTable::new();
        with_request(&case, &encoded, |request| {
            let other = Credentials { secret_key: Secret::new("OTHER"), ..keys(&case)[0].clone() };
            let forged = verify(request, &[other], &mut nonces, now);
            assert_eq!(forged, Err(AuthFailure::SignatureFailure));
            assert!(
                verify(request, &keys(&case), &mut nonces, now).is_ok(),
                "a forgery used it up"
            );
            let again = verify(request, &keys(&case), &mut nonces, now);
            assert_eq!(again, Err(AuthFailure::Replayed));
        });
    }
}
