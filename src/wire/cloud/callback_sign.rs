//! `t` and `sign` of callbacks: `sign = hex(md5(key + t))`. Nothing else of the body is covered.
//!
//! Both are made anew for every attempt, so that a retry is not too late for a receiver that looks
//! at `t`. Without a key a callback has neither.

use md5::{Digest, Md5};

use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::wire::cloud::mac::{hex, same};

/// A callback may be taken so long after it was sent, in seconds.
pub const CALLBACK_LIFE_S: i64 = 600;

/// The two members that prove who sent a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackSign {
    /// Until when it is good, Unix seconds.
    pub t: i64,
    /// Lower-case hex.
    pub sign: String,
}

impl CallbackSign {
    /// For an attempt at `now`; `None` without a key.
    #[must_use]
    pub fn new(key: &Secret, now: UnixMillis) -> Option<Self> {
        if key.is_empty() {
            return None;
        }
        let t = now.0.div_euclid(1_000).saturating_add(CALLBACK_LIFE_S);
        Some(CallbackSign { t, sign: digest(key, t) })
    }

    /// What a receiver checks: made with this key, and still good at `now`.
    #[must_use]
    pub fn is_good(&self, key: &Secret, now: UnixMillis) -> bool {
        let made = same(digest(key, self.t).as_bytes(), self.sign.as_bytes());
        made && now.0.div_euclid(1_000) <= self.t
    }
}

fn digest(key: &Secret, t: i64) -> String {
    hex(&Md5::new().chain_update(key.expose()).chain_update(t.to_string()).finalize())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        let vectors = include_str!("../../../tests/data/contracts/callbacks.json");
        serde_json::from_str(vectors).expect("JSON")
    }

    #[test]
    fn every_vector_is_made_and_taken() {
        let vectors = vectors();
        let key = vectors["callback_key"].as_str().expect("text");
        let signed = vectors["sign_vectors"].as_array().expect("vectors").iter();
        let examples = vectors["examples"].as_object().expect("examples").values();
        let mut count = 0;
        for case in signed.chain(examples) {
            let key = Secret::new(case["key"].as_str().unwrap_or(key));
            let t = case["t"].as_i64().expect("a number");
            let sign = case["sign"].as_str().expect("text").to_owned();
            let sent = UnixMillis((t - CALLBACK_LIFE_S) * 1_000 + 999);
            let expected = CallbackSign { t, sign };
            assert_eq!(CallbackSign::new(&key, sent), Some(expected.clone()));
            assert!(expected.is_good(&key, UnixMillis(t * 1_000 + 999)));
            assert!(!expected.is_good(&key, UnixMillis((t + 1) * 1_000)));
            assert!(!expected.is_good(&Secret::new("other"), sent));
            assert!(!CallbackSign { t: t + 1, ..expected }.is_good(&key, sent));
            count += 1;
        }
        assert_eq!(count, 9);
    }

    #[test]
    fn without_a_key_nothing_is_signed() {
        assert_eq!(CallbackSign::new(&Secret::default(), UnixMillis(0)), None);
    }
}
