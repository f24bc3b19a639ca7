//! Push authentication: `txSecret` and `txTime` in the query of a push URL.
//!
//! `txSecret = hex(md5(key + StreamName + txTime))`, or SHA-256 of the same; `txTime` is when the
//! URL expires, in Unix seconds: eight characters are hexadecimal, ten are decimal. The text of
//! `txTime` is hashed as it stands in the URL. It is looked at once, when the push begins.
//!
//! What the formula cannot do: app and domain are not in it, and nothing separates its parts, so
//! who holds a right URL of the stream `cam17` whose eight digits are decimal too has one for
//! `cam`. A box whose keys go to strangers gives no stream a name that is another's plus digits.

use md5::{Digest, Md5};
use sha2::Sha256;

use crate::domain::secret::Secret;
use crate::domain::time::{ClockQuality, WallTime};
use crate::wire::cloud::AgeCheck;
use crate::wire::cloud::mac::{hex, same};

/// Hex digits of an MD5 and of a SHA-256.
const MD5_DIGITS: usize = 32;
const SHA256_DIGITS: usize = 64;

/// A push is refused. The words are for the publisher; they hold nothing of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PushRefusal {
    /// No `txTime`, or one that is no time.
    #[error("txTime is missing or not a time (18/500)")]
    TimeMissing,
    /// The URL is too old.
    #[error("txTime has passed (18/501)")]
    Expired,
    /// No `txSecret`.
    #[error("txSecret is missing (18/502)")]
    SecretMissing,
    /// Made with another key or for another stream or time.
    #[error("txSecret does not match (18/503)")]
    Mismatch,
}

impl PushRefusal {
    /// Sub-code of the disconnect code 18.
    #[must_use]
    pub fn sub_code(self) -> u16 {
        match self {
            PushRefusal::TimeMissing => 500,
            PushRefusal::Expired => 501,
            PushRefusal::SecretMissing => 502,
            PushRefusal::Mismatch => 503,
        }
    }
}

/// Who may push.
#[derive(Debug, Clone)]
pub struct PushKeys {
    /// Each of them is good, so keys can be exchanged one after the other.
    keys: Vec<Secret>,
    /// A URL is good so long after its `txTime`, in seconds.
    delta_s: u64,
}

impl PushKeys {
    /// Keys that are empty do not count: they would let everybody in.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = Secret>, delta_s: u64) -> Self {
        PushKeys { keys: keys.into_iter().filter(|key| !key.is_empty()).collect(), delta_s }
    }

    /// Whether there is no key, so that no push can be right.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a push of `stream` with this query (without `?`) is allowed. With a clock that was
    /// never set nobody can tell whether `txTime` has passed: it is not looked at, and the result
    /// says so.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, stream: &str, query: &str, now: WallTime) -> Result<AgeCheck, PushRefusal> {
        let tx_time = value_of(query, "txTime").ok_or(PushRefusal::TimeMissing)?;
        let expires_s = parse_time(tx_time).ok_or(PushRefusal::TimeMissing)?;
        let now_s = now.unix.0.div_euclid(1_000);
        let age = match now.quality {
            ClockQuality::Untrusted => AgeCheck::Skipped,
            ClockQuality::Trusted if now_s > expires_s.saturating_add_unsigned(self.delta_s) => {
                return Err(PushRefusal::Expired);
            }
            ClockQuality::Trusted => AgeCheck::Passed,
        };
        let tx_secret = value_of(query, "txSecret").ok_or(PushRefusal::SecretMissing)?;
        let given = tx_secret.to_ascii_lowercase();
        // Every key is tried, so the time does not tell which one was near.
        let mut right = false;
        for key in &self.keys {
            let expected = match given.len() {
                SHA256_DIGITS => digest::<Sha256>(key, stream, tx_time),
                _ => digest::<Md5>(key, stream, tx_time),
            };
            right |= same(expected.as_bytes(), given.as_bytes());
        }
        if right { Ok(age) } else { Err(PushRefusal::Mismatch) }
    }
}

/// The query that lets an encoder push `stream` until `expires_s`, Unix seconds: with MD5 and
/// hexadecimal time, as the console writes it.
#[must_use]
pub fn push_query(key: &Secret, stream: &str, expires_s: u32) -> String {
    let tx_time = format!("{expires_s:08X}");
    format!("txSecret={}&txTime={tx_time}", digest::<Md5>(key, stream, &tx_time))
}

fn digest<D: Digest>(key: &Secret, stream: &str, tx_time: &str) -> String {
    let digest = D::new().chain_update(key.expose()).chain_update(stream).chain_update(tx_time);
    let hex = hex(&digest.finalize());
    debug_assert!(matches!(hex.len(), MD5_DIGITS | SHA256_DIGITS));
    hex
}

/// The first value of a name, if it is not empty.
fn value_of<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(n, _)| *n == name)?;
    Some(value).filter(|value| !value.is_empty())
}

/// Unix seconds from eight hexadecimal or ten decimal digits.
fn parse_time(text: &str) -> Option<i64> {
    match text.len() {
        8 if text.bytes().all(|b| b.is_ascii_hexdigit()) => i64::from_str_radix(text, 16).ok(),
        10 if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::domain::time::UnixMillis;

    fn vectors() -> Value {
        let vectors = include_str!("../../../tests/data/contracts/push_auth.json");
        serde_json::from_str(vectors).expect("JSON")
    }

    fn text<'a>(case: &'a Value, name: &str) -> &'a str {
        case[name].as_str().unwrap_or_else(|| panic!("{name} in {case}"))
    }

    fn at(unix_s: i64) -> WallTime {
        WallTime { unix: UnixMillis(unix_s * 1_000 + 999), quality: ClockQuality::Trusted }
    }

    fn keys(key: &str) -> PushKeys {
        PushKeys::new([Secret::new(key)], 0)
    }

    #[test]
    fn every_vector_is_let_in_until_its_time() {
        let vectors = vectors();
        let cases = vectors["cases"].as_array().expect("cases");
        assert_eq!(cases.len(), 6, "the vectors are complete");
        for case in cases {
            let keys = keys(text(case, "key"));
            let stream = text(case, "stream_name");
            let unix_s = case["unix_time"].as_i64().expect("a number");
            assert_eq!(parse_time(text(case, "tx_time")), Some(unix_s));
            for secret in [text(case, "tx_secret_md5"), text(case, "tx_secret_sha256")] {
                let query = format!("txSecret={secret}&txTime={}", text(case, "tx_time"));
                let check = |query: &str, now_s| keys.check(stream, query, at(now_s));
                assert_eq!(check(&query, unix_s - 1), Ok(AgeCheck::Passed), "{query}");
                assert_eq!(check(&query, unix_s), Ok(AgeCheck::Passed), "{query}");
                assert_eq!(check(&query, unix_s + 1), Err(PushRefusal::Expired), "{query}");
                let upper = query.replace(secret, &secret.to_uppercase());
                assert_eq!(check(&upper, unix_s), Ok(AgeCheck::Passed), "{upper}");
                let cut = query.replace(secret, &secret[1..]);
                assert_eq!(check(&cut, unix_s), Err(PushRefusal::Mismatch), "{cut}");
                let behind = format!("custom=1&{query}&txSecret=0");
                assert_eq!(check(&behind, unix_s), Ok(AgeCheck::Passed), "{behind}");
            }
            let url = text(case, "url").split_once('?').expect("a query").1;
            assert_eq!(keys.check(stream, url, at(unix_s)), Ok(AgeCheck::Passed));
        }
    }

    #[test]
    fn published_examples_are_right() {
        for case in vectors()["published_examples"].as_array().expect("cases") {
            let (secret, time) = (text(case, "tx_secret"), text(case, "tx_time"));
            let query = format!("txSecret={secret}&txTime={time}");
            let checked = keys(text(case, "key")).check(text(case, "stream_name"), &query, at(0));
            assert_eq!(checked, Ok(AgeCheck::Passed));
        }
    }

    #[test]
    fn every_decision_of_the_vectors() {
        let vectors = vectors();
        let cases = vectors["verification"].as_array().expect("cases");
        assert_eq!(cases.len(), 10, "the vectors are complete");
        for case in cases {
            let keys = [text(case, "master_key"), text(case, "backup_key")].map(Secret::new);
            let keys = PushKeys::new(keys, case["auth_delta"].as_u64().expect("a number"));
            let pair = |field, name| case[field].as_str().map(|value| format!("{name}={value}"));
            let pairs = [pair("tx_secret", "txSecret"), pair("tx_time", "txTime")];
            let query = pairs.into_iter().flatten().collect::<Vec<_>>().join("&");
            let now_s = case["now"].as_i64().expect("a number");
            let checked = keys.check(text(case, "stream_name"), &query, at(now_s));
            let code = checked.err().map(|refusal| format!("18/{}", refusal.sub_code()));
            assert_eq!(code.as_deref(), case["cloud_error_code"].as_str(), "{case}");
            assert_eq!(checked.is_ok(), case["expect"] == "accept", "{case}");
            if let Err(refusal) = checked {
                assert!(refusal.to_string().contains(&code.expect("a code")));
            }
        }
    }

    #[test]
    fn a_clock_that_was_never_set_judges_no_time() {
        let keys = keys("pushkeyexample0001");
        let now = WallTime { unix: UnixMillis(i64::MAX), quality: ClockQuality::Untrusted };
        let right = "txSecret=3d81f458d3ed8defedd0d7899d0e2d46&txTime=6553FF10";
        assert_eq!(keys.check("cam01", right, now), Ok(AgeCheck::Skipped));
        assert_eq!(keys.check("cam02", right, now), Err(PushRefusal::Mismatch));
        let no_time = "txSecret=3d81f458d3ed8defedd0d7899d0e2d46";
        assert_eq!(keys.check("cam01", no_time, now), Err(PushRefusal::TimeMissing));
    }

    #[test]
    fn a_time_has_eight_or_ten_digits() {
        for text in ["", "6553FF1", "6553FF100", "6553FF1G", "+553FF10", "170000360F", "+700003600"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(parse_time("FFFFffff"), Some(i64::from(u32::MAX)));
    }

    #[test]
    fn without_a_key_nothing_is_right() {
        let keys = PushKeys::new([Secret::default()], 0);
        assert!(keys.is_empty());
        let query = push_query(&Secret::default(), "cam01", 0x6553_FF10);
        assert_eq!(keys.check("cam01", &query, at(0)), Err(PushRefusal::Mismatch));
    }

    #[test]
    fn a_made_query_is_right() {
        let query = push_query(&Secret::new("pushkeyexample0001"), "cam01", 0x6553_FF10);
        assert_eq!(query, "txSecret=3d81f458d3ed8defedd0d7899d0e2d46&txTime=6553FF10");
    }

    proptest! {
        #[test]
        fn a_guess_is_refused(query in "(txSecret=[0-9a-f]{0,66}&?)?(txTime=[0-9A-F]{0,11})?.{0,9}") {
            prop_assert!(keys("pushkeyexample0001").check("cam01", &query, at(0)).is_err());
        }
    }
}
