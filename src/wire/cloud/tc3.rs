//! TC3-HMAC-SHA256: the signature of API requests, made and checked.
//!
//! ```text
//! CanonicalRequest = METHOD \n / \n query \n headers \n SignedHeaders \n hex(sha256(body))
//! headers          = for each signed header: lower(name) ":" lower(trim(value)) "\n"
//! StringToSign     = "TC3-HMAC-SHA256" \n timestamp \n scope \n hex(sha256(CanonicalRequest))
//! scope            = UTC date of timestamp / service / tc3_request
//! key              = hmac(hmac(hmac("TC3" + SecretKey, date), service), "tc3_request")
//! ```
//!
//! All of it over the bytes as received: the query is not sorted or encoded again, the body not
//! parsed. A POST is signed without a query, so one that somebody adds on the way shows. The path
//! is always `/`, so a request to another one is not believed.

use jiff::Timestamp;

use crate::domain::time::{ClockQuality, WallTime};
use crate::wire::cloud::auth_failure::AuthFailure;
use crate::wire::cloud::mac::{hex, hmac_sha256, same, sha256_hex};
use crate::wire::cloud::received::Received;
use crate::wire::cloud::{AgeCheck, BODY_BYTES_MAX, CLOCK_WINDOW_S, Credentials, QUERY_BYTES_MAX};

/// The headers that the SDKs sign; a verifier asks for them at least.
pub const SIGNED_HEADERS: [&str; 2] = ["content-type", "host"];

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const TERMINATOR: &str = "tc3_request";
/// Stands for the body where the client does not sign it.
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// Longest `Authorization`, in bytes, and most headers that it may list.
const AUTHORIZATION_BYTES_MAX: usize = 2_048;
const SIGNED_HEADERS_MAX: usize = 32;
/// Digits of a timestamp: enough for ten thousand years.
const TIMESTAMP_DIGITS_MAX: usize = 12;

/// What a verifier takes.
#[derive(Debug, Clone, Copy)]
pub struct Tc3Policy<'a> {
    /// Services that a signature may be for, such as `live` and `vod`.
    pub services: &'a [&'a str],
    /// Whether a client may leave its body unsigned. Anybody on the way can then change it, so
    /// only where the transport proves the client.
    pub unsigned_payload: bool,
}

/// A signature that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<'a> {
    /// Whose it is.
    pub secret_id: &'a str,
    /// For which service.
    pub service: &'a str,
    /// Whether its age was judged.
    pub age: AgeCheck,
}

/// The parts of an `Authorization` header.
struct Authorization<'a> {
    secret_id: &'a str,
    date: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

/// The value of `Authorization` for a request that is about to be sent, with these of its headers
/// signed (lower case, in order). `X-TC-Timestamp` must carry the same `timestamp_s`, Unix
/// seconds.
///
/// # Errors
/// A header to sign is missing or stands there twice, or the time is none of the calendar.
pub fn authorization(
    request: &Received<'_>,
    credentials: &Credentials,
    service: &str,
    signed_headers: &[&str],
    timestamp_s: i64,
) -> Result<String, AuthFailure> {
    let date = utc_date(timestamp_s)?;
    let signed = signed_headers.join(";");
    let canonical = canonical_request(request, &signed, &payload_hash(request)?)?;
    let scope = Scope { date: &date, service };
    let to_sign = scope.string_to_sign(&timestamp_s.to_string(), &canonical);
    let signature = scope.sign(credentials.secret_key.expose(), &to_sign);
    let id = &credentials.secret_id;
    Ok(format!(
        "{ALGORITHM} Credential={id}/{date}/{service}/{TERMINATOR}, SignedHeaders={signed}, \
         Signature={signature}"
    ))
}

/// Proves that one of `keys` signed this request, and when.
///
/// # Errors
/// Why it is not believed.
pub fn verify<'a>(
    request: &Received<'a>,
    keys: &[Credentials],
    policy: Tc3Policy<'_>,
    now: WallTime,
) -> Result<Verified<'a>, AuthFailure> {
    if request.body.len() > BODY_BYTES_MAX || request.query.len() > QUERY_BYTES_MAX {
        return Err(super::envelope::EnvelopeError::TooLong.into());
    }
    if request.path != "/" {
        return Err(AuthFailure::InvalidAuthorization("this signature is for the path / only"));
    }
    let header = request.header("authorization")?;
    let given = Authorization::parse(header.unwrap_or_default())?;
    let timestamp = request.header("x-tc-timestamp")?.unwrap_or_default().trim();
    let timestamp_s = parse_timestamp(timestamp)?;
    if given.date != utc_date(timestamp_s)? {
        return Err(AuthFailure::InvalidAuthorization("the date is not that of X-TC-Timestamp"));
    }
    if !policy.services.contains(&given.service) {
        return Err(AuthFailure::InvalidAuthorization("the signature is for another service"));
    }
    let unsigned = request.header("x-tc-content-sha256")? == Some(UNSIGNED_PAYLOAD);
    if unsigned && !policy.unsigned_payload {
        return Err(AuthFailure::InvalidAuthorization("the body must be signed"));
    }
    let key = keys
        .iter()
        .find(|key| key.secret_id == given.secret_id)
        .ok_or(AuthFailure::SecretIdNotFound)?;
    let age = check_age(timestamp_s, now)?;
    let canonical = canonical_request(request, given.signed_headers, &payload_hash(request)?)?;
    let scope = Scope { date: given.date, service: given.service };
    let expected =
        scope.sign(key.secret_key.expose(), &scope.string_to_sign(timestamp, &canonical));
    if !same(expected.as_bytes(), given.signature.as_bytes()) {
        return Err(AuthFailure::SignatureFailure);
    }
    Ok(Verified { secret_id: given.secret_id, service: given.service, age })
}

/// Whether something signed at `timestamp_s` (Unix seconds) is near enough to now.
pub(super) fn check_age(timestamp_s: i64, now: WallTime) -> Result<AgeCheck, AuthFailure> {
    if now.quality == ClockQuality::Untrusted {
        return Ok(AgeCheck::Skipped);
    }
    let off_by_s = now.unix.0.div_euclid(1_000).abs_diff(timestamp_s);
    if off_by_s > CLOCK_WINDOW_S {
        return Err(AuthFailure::SignatureExpire { off_by_s });
    }
    Ok(AgeCheck::Passed)
}

/// Unix seconds in plain decimal.
pub(super) fn parse_timestamp(text: &str) -> Result<i64, AuthFailure> {
    let plain = text.len() <= TIMESTAMP_DIGITS_MAX && text.bytes().all(|b| b.is_ascii_digit());
    let seconds = plain.then(|| text.parse().ok()).flatten();
    seconds.ok_or(AuthFailure::InvalidAuthorization("the timestamp is not in Unix seconds"))
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Result<Self, AuthFailure> {
        if text.is_empty() {
            return Err(AuthFailure::InvalidAuthorization("there is no Authorization"));
        }
        let malformed = || AuthFailure::InvalidAuthorization("Authorization is malformed");
        if text.len() > AUTHORIZATION_BYTES_MAX {
            return Err(malformed());
        }
        let (algorithm, rest) = text.split_once(' ').ok_or_else(malformed)?;
        if algorithm != ALGORITHM {
            return Err(AuthFailure::InvalidAuthorization("only TC3-HMAC-SHA256 is understood"));
        }
        let mut parts = rest.splitn(4, ',');
        let mut part = |name: &str| {
            let text = parts.next()?.trim();
            text.strip_prefix(name)?.strip_prefix('=')
        };
        let credential = part("Credential").ok_or_else(malformed)?;
        let signed_headers = part("SignedHeaders").ok_or_else(malformed)?;
        let signature = part("Signature").ok_or_else(malformed)?;
        let mut scope = credential.rsplitn(4, '/');
        let (terminator, service, date, secret_id) =
            (scope.next(), scope.next(), scope.next(), scope.next());
        let (Some(TERMINATOR), Some(service), Some(date), Some(secret_id), None) =
            (terminator, service, date, secret_id, parts.next())
        else {
            return Err(malformed());
        };
        let names: Vec<&str> = signed_headers.split(';').take(SIGNED_HEADERS_MAX + 1).collect();
        if names.len() > SIGNED_HEADERS_MAX
            || names.iter().any(|name| name.bytes().any(|b| b.is_ascii_uppercase()))
        {
            return Err(malformed());
        }
        if !SIGNED_HEADERS.iter().all(|name| names.contains(name)) {
            return Err(AuthFailure::InvalidAuthorization("content-type and host must be signed"));
        }
        Ok(Authorization { secret_id, date, service, signed_headers, signature })
    }
}

/// What a derived key is good for.
struct Scope<'a> {
    date: &'a str,
    service: &'a str,
}

impl Scope<'_> {
    fn string_to_sign(&self, timestamp: &str, canonical_request: &str) -> String {
        let (date, service) = (self.date, self.service);
        let hash = sha256_hex(canonical_request.as_bytes());
        format!("{ALGORITHM}\n{timestamp}\n{date}/{service}/{TERMINATOR}\n{hash}")
    }

    fn sign(&self, secret_key: &str, string_to_sign: &str) -> String {
        let of_date = hmac_sha256(format!("TC3{secret_key}").as_bytes(), self.date.as_bytes());
        let of_service = hmac_sha256(&of_date, self.service.as_bytes());
        let signing = hmac_sha256(&of_service, TERMINATOR.as_bytes());
        hex(&hmac_sha256(&signing, string_to_sign.as_bytes()))
    }
}

fn payload_hash(request: &Received<'_>) -> Result<String, AuthFailure> {
    let unsigned = request.header("x-tc-content-sha256")? == Some(UNSIGNED_PAYLOAD);
    Ok(sha256_hex(if unsigned { UNSIGNED_PAYLOAD.as_bytes() } else { request.body }))
}

fn canonical_request(
    request: &Received<'_>,
    signed_headers: &str,
    payload_hash: &str,
) -> Result<String, AuthFailure> {
    let mut headers = String::new();
    for name in signed_headers.split(';') {
        let value = request
            .header(name)?
            .ok_or(AuthFailure::InvalidAuthorization("a signed header is not there"))?;
        headers.extend([name, ":", &value.trim().to_lowercase(), "\n"]);
    }
    let Received { method, query, .. } = request;
    Ok(format!("{method}\n/\n{query}\n{headers}\n{signed_headers}\n{payload_hash}"))
}

/// `YYYY-MM-DD`
fn utc_date(timestamp_s: i64) -> Result<String, AuthFailure> {
    let time = Timestamp::from_second(timestamp_s).ok().filter(|_| timestamp_s >= 0);
    let time = time.ok_or(AuthFailure::InvalidAuthorization("the timestamp is no time"))?;
    Ok(time.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::domain::secret::Secret;
    use crate::domain::time::UnixMillis;
    use crate::wire::cloud::envelope::ActionRequest;

    const POLICY: Tc3Policy<'_> = Tc3Policy { services: &["live", "vod"], unsigned_payload: true };

    fn cases() -> Vec<Value> {
        let vectors = include_str!("../../../tests/data/contracts/tc3.json");
        let vectors: Value = serde_json::from_str(vectors).expect("JSON");
        let cases = vectors["cases"].as_array().expect("cases").clone();
        assert!(cases.len() >= 12, "the vectors are complete");
        cases
    }

    fn text<'a>(case: &'a Value, name: &str) -> &'a str {
        case[name].as_str().unwrap_or_else(|| panic!("{name} in {}", case["name"]))
    }

    fn keys(case: &Value) -> [Credentials; 1] {
        let (id, key) = (text(case, "secret_id"), text(case, "secret_key"));
        [Credentials { secret_id: id.to_owned(), secret_key: Secret::new(key) }]
    }

    fn at(unix_s: i64, quality: ClockQuality) -> WallTime {
        WallTime { unix: UnixMillis(unix_s * 1_000 + 999), quality }
    }

    /// The headers of a case, in the case of an HTTP server's choice.
    fn headers(case: &Value) -> Vec<(&str, &str)> {
        let mut headers = vec![
            ("HOST", text(case, "host")),
            ("content-Type", text(case, "content_type")),
            ("authorization", text(case, "authorization")),
        ];
        let more = case["x_tc_headers"].as_object().expect("headers");
        headers.extend(more.iter().map(|(k, v)| (k.as_str(), v.as_str().expect("text"))));
        headers
    }

    fn received<'a>(case: &'a Value, headers: &'a [(&'a str, &'a str)]) -> Received<'a> {
        Received {
            method: text(case, "method"),
            path: text(case, "path"),
            query: text(case, "query"),
            headers,
            body: text(case, "body").as_bytes(),
        }
    }

    #[test]
    fn every_vector_is_made_and_believed() {
        for case in cases() {
            let name = text(&case, "name");
            let headers = headers(&case);
            let request = received(&case, &headers);
            let timestamp_s = case["timestamp"].as_i64().expect("a number");
            let signed = Authorization::parse(text(&case, "authorization")).expect(name);

            let payload = payload_hash(&request).expect(name);
            assert_eq!(payload, text(&case, "payload_sha256"), "{name}");
            let canonical =
                canonical_request(&request, signed.signed_headers, &payload).expect(name);
            assert_eq!(canonical, text(&case, "canonical_request"), "{name}");
            let scope = Scope { date: signed.date, service: signed.service };
            assert_eq!(utc_date(timestamp_s).expect(name), text(&case, "utc_date"));
            let to_sign = scope.string_to_sign(&timestamp_s.to_string(), &canonical);
            assert_eq!(to_sign, text(&case, "string_to_sign"), "{name}");

            let names: Vec<&str> = signed.signed_headers.split(';').collect();
            let service = text(&case, "service");
            let made = authorization(&request, &keys(&case)[0], service, &names, timestamp_s);
            assert_eq!(made.expect(name), text(&case, "authorization"), "{name}");

            for off_s in [-300, 0, 300] {
                let now = at(timestamp_s + off_s, ClockQuality::Trusted);
                let verified = verify(&request, &keys(&case), POLICY, now).expect(name);
                assert_eq!(verified.secret_id, "AKIDEXAMPLE");
                assert_eq!(verified.age, AgeCheck::Passed);
            }
            let action = ActionRequest::read(&request).expect(name);
            assert_eq!(action.action, text(&case["x_tc_headers"], "X-TC-Action"));
        }
    }

    #[test]
    fn a_changed_request_is_not_believed() {
        for case in cases() {
            let name = text(&case, "name");
            let now = at(1_700_000_000, ClockQuality::Trusted);
            let headers = headers(&case);
            let request = received(&case, &headers);
            let refused =
                |request: &Received<'_>| verify(request, &keys(&case), POLICY, now).map(drop);
            let failed = Err(AuthFailure::SignatureFailure);

            let query = format!("{}&x=1", request.query);
            assert_eq!(refused(&Received { query: &query, ..request }), failed, "{name}");
            let method = if request.method == "GET" { "POST" } else { "GET" };
            assert_eq!(refused(&Received { method, ..request }), failed, "{name}");
            if name != "live_unsigned_payload" {
                let body = [request.body, b" "].concat();
                assert_eq!(refused(&Received { body: &body, ..request }), failed, "{name}");
            }
            let elsewhere = refused(&Received { path: "/v2/index.php", ..request });
            let code = elsewhere.expect_err("another path").code();
            assert_eq!(code, "AuthFailure.InvalidAuthorization", "{name}");
            let mut headers = headers.clone();
            headers[0].1 = "other.example.com";
            assert_eq!(refused(&Received { headers: &headers, ..request }), failed, "{name}");
            let other = Credentials { secret_key: Secret::new("OTHER"), ..keys(&case)[0].clone() };
            assert_eq!(verify(&request, &[other], POLICY, now).map(drop), failed, "{name}");
        }
    }

    #[test]
    fn a_signed_header_counts() {
        let cases = cases();
        let case = cases.iter().find(|case| case["name"] == "three_signed_headers").expect("there");
        let mut headers = headers(case);
        let action = headers.iter().position(|(name, _)| *name == "X-TC-Action").expect("there");
        headers[action].1 = "DeleteLiveRecordTemplate";
        let now = at(1_700_000_000, ClockQuality::Trusted);
        let verified = verify(&received(case, &headers), &keys(case), POLICY, now);
        assert_eq!(verified, Err(AuthFailure::SignatureFailure));
        headers.remove(action);
        let verified = verify(&received(case, &headers), &keys(case), POLICY, now);
        let missing = AuthFailure::InvalidAuthorization("a signed header is not there");
        assert_eq!(verified, Err(missing));
    }

    #[test]
    fn age_is_judged_by_a_clock_that_was_set() {
        let case = &cases()[0];
        let headers = headers(case);
        let request = received(case, &headers);
        for off_s in [-301, 301] {
            let now = at(1_700_000_000 + off_s, ClockQuality::Trusted);
            let failure = verify(&request, &keys(case), POLICY, now).expect_err("too far");
            assert_eq!(failure, AuthFailure::SignatureExpire { off_by_s: 301 });
            assert_eq!(failure.code(), "AuthFailure.SignatureExpire");
        }
        let verified = verify(&request, &keys(case), POLICY, at(0, ClockQuality::Untrusted));
        assert_eq!(verified.expect("right").age, AgeCheck::Skipped);
    }

    /// What the first vector's headers give when one of them is replaced.
    fn with_header(name: &str, value: &str) -> Result<(), AuthFailure> {
        let case = &cases()[0];
        let mut headers = headers(case);
        headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        headers.push((name, value));
        let now = at(1_700_000_000, ClockQuality::Trusted);
        let policy = Tc3Policy { services: &["live"], unsigned_payload: false };
        verify(&received(case, &headers), &keys(case), policy, now).map(drop)
    }

    #[test]
    fn malformed_authorizations_have_their_code() {
        let right = text(&cases()[0], "authorization").to_owned();
        assert_eq!(with_header("Authorization", &right), Ok(()));
        let changed = |from: &str, to: &str| {
            assert!(right.contains(from));
            with_header("Authorization", &right.replace(from, to)).expect_err(to).code()
        };
        let invalid = "AuthFailure.InvalidAuthorization";
        for (from, to) in [
            ("TC3-HMAC-SHA256 ", ""),
            ("TC3-HMAC-SHA256", "AWS4-HMAC-SHA256"),
            ("Credential=", "Credentials="),
            ("/tc3_request", ""),
            ("/tc3_request", "/aws4_request"),
            ("2023-11-14", "2023-11-15"),
            ("/live/", "/vod/"),
            ("content-type;host", "host"),
            ("content-type;host", "content-type;host;x-none"),
            ("content-type;host", "Content-Type;host"),
            (", Signature=", ", Signature=0, Signature="),
            ("content-type;host", &["content-type;host"; 20].join(";")),
            ("content-type;host", &"x".repeat(5_000)),
        ] {
            assert_eq!(changed(from, to), invalid, "{to}");
        }
        assert_eq!(changed("AKIDEXAMPLE", "AKIDOTHER"), "AuthFailure.SecretIdNotFound");
        assert_eq!(changed("Signature=a", "Signature=b"), "AuthFailure.SignatureFailure");
        assert_eq!(changed("Signature=a", "Signature="), "AuthFailure.SignatureFailure");
        let code = |name, value| with_header(name, value).expect_err(name).code();
        assert_eq!(code("Authorization", ""), invalid);
        assert_eq!(code("X-TC-Timestamp", "1700000000.0"), invalid);
        assert_eq!(code("X-TC-Timestamp", "-1"), invalid);
        assert_eq!(code("X-TC-Timestamp", "999999999999"), invalid);
        assert_eq!(code("X-TC-Timestamp", "1700000001"), "AuthFailure.SignatureFailure");
        assert_eq!(code("X-TC-Content-SHA256", UNSIGNED_PAYLOAD), invalid);
    }

    proptest! {
        #[test]
        fn any_authorization_gives_an_answer(
            value in "(TC3-HMAC-SHA256 )?[A-Za-z=/;, 0-9-]{0,120}", timestamp in "[0-9 -]{0,14}",
        ) {
            prop_assert!(with_header("Authorization", &value).is_err());
            let _ = with_header("X-TC-Timestamp", &timestamp);
        }
    }
}
