//! The operator's side of [`keyring`](crate::domain::fleet::keyring): signs what boxes check.

use ::ring::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::domain::fleet::keyring::RulesKey;

/// A private key that documents are signed with.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// From PKCS#8 in DER, as `openssl genpkey -algorithm ed25519` makes it; `None`: it is no such
    /// key.
    #[must_use]
    pub fn from_pkcs8(der: &[u8]) -> Option<Signer> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Signer)
    }

    /// The key that boxes are to have.
    #[must_use]
    pub fn public_key(&self) -> RulesKey {
        RulesKey::from_bytes(self.0.public_key().as_ref().try_into().expect("a key has 32 bytes"))
    }

    /// A payload in the signed wrapping.
    #[must_use]
    pub fn wrap(&self, payload: &str) -> String {
        let sig = STANDARD.encode(self.0.sign(payload.as_bytes()));
        let (key_id, payload) = (self.public_key().id(), STANDARD.encode(payload));
        json!({"payload": payload, "key_id": key_id, "sig": sig}).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fleet::keyring::Keyring;

    #[test]
    fn boxes_take_what_is_signed_and_only_a_key_signs() {
        // RFC 8410, 10.3.
        let der = STANDARD
            .decode("MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC")
            .expect("base64");
        let signer = Signer::from_pkcs8(&der).expect("a key");
        let keyring = Keyring::new(vec![signer.public_key()]);
        let wrapped = signer.wrap(r#"{"revision": 7}"#);
        assert_eq!(keyring.unwrap(wrapped.as_bytes()), Ok(br#"{"revision": 7}"#.to_vec()));
        let public = STANDARD.encode(signer.public_key().as_bytes());
        assert_eq!(public, "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=", "RFC 8410, 10.1");
        assert!(Signer::from_pkcs8(&der[1..]).is_none());
    }
}
