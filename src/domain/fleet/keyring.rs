//! The keys that may sign documents, and the signed wrapping:
//! `{"payload": "<base64>", "key_id": "…", "sig": "<base64 Ed25519 over the payload bytes>"}`.
//!
//! A key's id is the first 16 hex digits of the SHA-256 of its 32 bytes, so that nobody has to give
//! ids. To change keys without a gap a box has the old and the new one for a while.

use std::fmt;

use ::ring::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::domain::document::{Fields, Json};
use crate::domain::faults::Faults;
use crate::domain::fleet::refused::{Refused, Why};
use crate::domain::rule_set::RULE_SET_BYTES_MAX;

/// Bytes of a public key.
const KEY_BYTES: usize = 32;
/// Longest key id that is read, in bytes.
const KEY_ID_BYTES_MAX: usize = 64;
/// Longest signature that is read, in characters.
const SIGNATURE_TEXT_MAX: usize = 128;

/// A public key that documents may be signed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RulesKey([u8; KEY_BYTES]);

impl RulesKey {
    /// Reads a key in base64; `None`: it is not 32 bytes.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(RulesKey)
    }

    /// From its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        RulesKey(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What documents call it.
    #[must_use]
    pub fn id(&self) -> String {
        let digest = Sha256::digest(self.0);
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

/// By its id.
impl fmt::Debug for RulesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RulesKey({})", self.id())
    }
}

/// The keys of a box; none asks for no signature.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Vec<RulesKey>);

impl Keyring {
    /// Of these keys.
    #[must_use]
    pub fn new(keys: Vec<RulesKey>) -> Self {
        Keyring(keys)
    }

    /// Whether no signature is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The payload of a wrapped message that one of the keys has signed.
    ///
    /// # Errors
    /// It is not wrapped, or not signed by one of the keys.
    pub fn unwrap(&self, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut faults = Faults::new();
        let malformed = |faults| Refused { why: Why::Malformed, revision: None, faults };
        let json = Json::parse(bytes, RULE_SET_BYTES_MAX).map_err(|fault| {
            let mut faults = Faults::new();
            faults.add(fault.place, fault.what);
            malformed(faults)
        })?;
        if !is_wrapped(&json) {
            let what = "is not signed, and the box takes only what one of its keys has signed";
            return Err(Refused::new(Why::Unsigned, revision_in(&json), "", what));
        }
        let Some(mut fields) = Fields::open(&json, "", &mut faults) else {
            return Err(malformed(faults));
        };
        let payload = read_base64(&mut fields, "payload", RULE_SET_BYTES_MAX, &mut faults);
        let key_id = fields.required_text("key_id", KEY_ID_BYTES_MAX, &mut faults);
        let signature = read_base64(&mut fields, "sig", SIGNATURE_TEXT_MAX, &mut faults);
        fields.finish(&mut faults);
        let (Some(payload), Some(key_id), Some(signature), true) =
            (payload, key_id, signature, faults.is_empty())
        else {
            return Err(malformed(faults));
        };
        let Some(key) = self.0.iter().find(|key| key.id() == key_id) else {
            return Err(Refused::new(Why::BadSignature, None, "key_id", "is no key of the box"));
        };
        if !key.has_signed(&payload, &signature) {
            let what = "is not the signature of the payload by this key";
            return Err(Refused::new(Why::BadSignature, None, "sig", what));
        }
        Ok(payload)
    }
}

/// Whether a document has the members of the wrapping.
#[must_use]
pub fn is_wrapped(json: &Json) -> bool {
    let Json::Object(members) = json else { return false };
    ["payload", "sig"].iter().all(|name| members.iter().any(|(member, _)| member == name))
}

/// The revision of a document that need not be right otherwise.
#[must_use]
pub fn revision_in(json: &Json) -> Option<u64> {
    let Json::Object(members) = json else { return None };
    let mut given = members.iter().filter(|(name, _)| name == "revision");
    match (given.next(), given.next()) {
        (Some((_, Json::Number(number))), None) => number.as_u64(),
        _ => None,
    }
}

fn read_base64(
    fields: &mut Fields<'_>,
    name: &str,
    text_max: usize,
    faults: &mut Faults,
) -> Option<Vec<u8>> {
    let place = fields.place_of(name);
    let text = fields.required_text(name, text_max, faults)?;
    let decoded = STANDARD.decode(text);
    if decoded.is_err() {
        faults.add(place, "is not base64");
    }
    decoded.ok()
}

#[cfg(test)]
pub(in crate::domain) mod tests {
    use ::ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    /// A key pair that is the same for the same number.
    pub(in crate::domain) fn pair(number: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[number; 32]).expect("a seed of 32 bytes")
    }

    pub(in crate::domain) fn public(pair: &Ed25519KeyPair) -> RulesKey {
        RulesKey(pair.public_key().as_ref().try_into().expect("32 bytes"))
    }

    /// A payload in its wrapping.
    pub(in crate::domain) fn wrapped(pair: &Ed25519KeyPair, payload: &str) -> String {
        let sig = STANDARD.encode(pair.sign(payload.as_bytes()));
        let payload = STANDARD.encode(payload);
        json!({"payload": payload, "key_id": public(pair).id(), "sig": sig}).to_string()
    }

    #[test]
    fn the_signature_of_rfc_8032_is_taken_and_its_key_has_its_id() {
        // RFC 8032, 7.1, TEST 2: the message is the single byte 0x72, `r`.
        let key = RulesKey::from_base64("PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=");
        let key = key.expect("32 bytes");
        let sig = "kqAJqfDUyrhyDoILX2QlQKKye1QWUD+Ps3YiI+vbadoIWsHkPhWZbkWPNhPQ8R2MOHsurrQwKu6wDSkW\
                   ErsMAA==";
        let text = json!({"payload": "cg==", "key_id": key.id(), "sig": sig}).to_string();
        assert_eq!(Keyring::new(vec![key]).unwrap(text.as_bytes()), Ok(b"r".to_vec()));
        assert_eq!(key.id().len(), 16);
    }

    #[test]
    fn any_key_of_the_box_may_sign_and_no_other() {
        let keyring = Keyring::new(vec![public(&pair(1)), public(&pair(2))]);
        for number in [1, 2] {
            let text = wrapped(&pair(number), "{}");
            assert_eq!(keyring.unwrap(text.as_bytes()), Ok(b"{}".to_vec()));
        }
        let of_a_stranger = wrapped(&pair(3), "{}");
        let changed = wrapped(&pair(1), "{}").replace("e30=", "e30K");
        let under_another_name =
            of_a_stranger.replace(&public(&pair(3)).id(), &public(&pair(1)).id());
        for text in [of_a_stranger, changed, under_another_name] {
            let refused = keyring.unwrap(text.as_bytes()).expect_err("not signed by us");
            assert_eq!(refused.why, Why::BadSignature, "{text}");
        }
    }

    #[test]
    fn what_is_not_wrapped_is_unsigned_and_a_torn_wrapping_is_malformed() {
        let keyring = Keyring::new(vec![public(&pair(1))]);
        let refused = keyring.unwrap(br#"{"revision": 7}"#).expect_err("unsigned");
        assert_eq!((refused.why, refused.revision), (Why::Unsigned, Some(7)));
        let sig = STANDARD.encode(pair(1).sign(b""));
        let twice = format!(r#"{{"payload": "", "payload": "", "key_id": "x", "sig": "{sig}"}}"#);
        for text in [
            "{",
            &twice,
            r#"{"payload": "?", "sig": "", "key_id": "x"}"#,
            r#"{"payload": "", "sig": ""}"#,
        ] {
            let refused = keyring.unwrap(text.as_bytes()).expect_err("torn");
            assert_eq!(refused.why, Why::Malformed, "{text}");
        }
    }
}
