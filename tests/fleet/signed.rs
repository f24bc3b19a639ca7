//! Signed documents, made with openssl: only what one of the box's keys has signed counts.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::support::broker::Broker;
use super::support::edge_box::BoxPlan;
use super::support::operator::Operator;
use super::support::process::run_ok;
use super::support::{scratch, tool};
use super::{
    APPLIED_WITHIN, BACK_WITHIN, CLIENT, STATE, TO_ALL, TO_BOX, decided, document, hear_applied,
    mqtt,
};

/// Who signs.
pub(super) struct Signer<'a> {
    dir: &'a Path,
    name: &'a str,
}

impl<'a> Signer<'a> {
    pub(super) fn new(dir: &'a Path, name: &'a str) -> Self {
        let signer = Signer { dir, name };
        let key = signer.key();
        signer.openssl(&["genpkey", "-algorithm", "ed25519", "-out", &key]);
        signer
    }

    fn key(&self) -> String {
        self.dir.join(self.name).to_string_lossy().into_owned()
    }

    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        run_ok(Command::new(tool("openssl")).args(arguments))
    }

    /// The 32 bytes of the public key: the end of its DER form.
    pub(super) fn public(&self) -> Vec<u8> {
        let der = self.openssl(&["pkey", "-in", &self.key(), "-pubout", "-outform", "DER"]);
        der[der.len() - 32..].to_vec()
    }

    fn key_id(&self) -> String {
        let digest = Sha256::digest(self.public());
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn sign(&self, payload: &Value) -> Value {
        let file = self.dir.join("payload").to_string_lossy().into_owned();
        let payload = payload.to_string();
        fs::write(&file, &payload).expect("written");
        let key = self.key();
        let sig = self.openssl(&["pkeyutl", "-sign", "-inkey", &key, "-rawin", "-in", &file]);
        json!({"payload": STANDARD.encode(&payload), "key_id": self.key_id(),
               "sig": STANDARD.encode(sig)})
    }
}

/// A document that says what a signed one must.
fn signed_document(revision: u64, template: &str) -> Value {
    let mut document = document(revision, template);
    document["fleet"] = json!("venue");
    document["expires"] = json!("2100-01-01T00:00:00Z");
    document
}

#[test]
fn only_what_a_key_of_the_box_has_signed_counts_and_no_older_one_ever() {
    let dir = scratch("keys");
    let old = Signer::new(dir.path(), "old");
    let new = Signer::new(dir.path(), "new");
    let stranger = Signer::new(dir.path(), "stranger");
    let mut broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let keys = [&old, &new].map(|signer| STANDARD.encode(signer.public()));
    let keys = format!("rules_public_keys = {}\n", json!(keys));
    let mut edge = BoxPlan::default().mqtt(&format!("{}{keys}", mqtt(&broker))).start();

    let first = old.sign(&signed_document(10, "ten"));
    operator.send(TO_ALL, first.to_string());
    hear_applied(&operator, APPLIED_WITHIN, "fleet", 10);
    operator.send(TO_ALL, new.sign(&signed_document(11, "eleven")).to_string());
    hear_applied(&operator, APPLIED_WITHIN, "fleet", 11);

    let newer = signed_document(99, "poison");
    let with = |name: &str, value: Value| {
        let mut document = newer.clone();
        document[name] = value;
        document
    };
    let mut without_end = newer.clone();
    without_end.as_object_mut().expect("members").remove("expires");
    let mut of_another_payload = new.sign(&newer);
    of_another_payload["sig"] = first["sig"].clone();
    let refusals = [
        (TO_ALL, newer.clone(), "unsigned"),
        (TO_ALL, stranger.sign(&newer), "bad_signature"),
        (TO_ALL, of_another_payload, "bad_signature"),
        (TO_ALL, new.sign(&without_end), "malformed"),
        (TO_ALL, new.sign(&with("fleet", json!("other"))), "foreign"),
        (TO_ALL, new.sign(&with("expires", json!(1_700_000_000))), "expired"),
        (TO_BOX, new.sign(&newer), "malformed"),
        (TO_ALL, first.clone(), "older"),
    ];
    for (topic, poison, why) in refusals {
        let layer = if topic == TO_ALL { "fleet" } else { "box" };
        operator.send(topic, poison.to_string());
        let refused = |state: &Value| state["rules"][layer]["refused"]["why"] == why;
        operator.hear(APPLIED_WITHIN, STATE, why, refused);
        assert_eq!(decided(&edge).0, "eleven", "{why}");
    }
    assert_eq!(broker.connections_of(CLIENT), 1);

    // The counter is in the box, not in the broker.
    edge.kill();
    broker.kill();
    let before = operator.connections();
    broker.start_again();
    operator.back_after(before);
    operator.send(TO_ALL, first.to_string());
    operator.forget();
    edge.start_again();
    let refused = |state: &Value| state["rules"]["fleet"]["refused"]["why"] == "older";
    operator.hear(BACK_WITHIN, STATE, "older", refused);
    assert_eq!(decided(&edge).0, "eleven");
    operator.send(TO_ALL, old.sign(&signed_document(12, "twelve")).to_string());
    hear_applied(&operator, APPLIED_WITHIN, "fleet", 12);
}
