//! Rule sets as an operator has them: read from a file, numbered, signed, and found again on the
//! broker.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cli::fleet::{Fleet, Signing, signer};
use crate::cli::outcome::Failure;
use crate::domain::fleet::overlay::content;
use crate::domain::fleet::signing::Signer;
use crate::domain::rule_set::RuleSet;
use crate::fleet::operator::DOCUMENT_BYTES_MAX;

/// The rule set of a file, whole and right.
///
/// # Errors
/// It cannot be read, or has faults.
pub(super) fn read(path: &Path) -> Result<Value, Failure> {
    let shown = path.display();
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::failed(format!("{shown} cannot be read: {error}")))?;
    RuleSet::parse(&bytes)
        .map_err(|faults| Failure::Configuration(format!("{shown} cannot be used:\n{faults}")))?;
    Ok(serde_json::from_slice(&bytes).expect("a rule set is JSON"))
}

/// The rule set that the broker keeps on a topic, without its wrapping; `None`: nothing.
///
/// # Errors
/// What is there is no rule set.
pub(super) fn unwrapped(topic: &str, kept: &[u8]) -> Result<Option<Value>, Failure> {
    if kept.is_empty() {
        return Ok(None);
    }
    let unreadable = || Failure::failed(format!("{topic}: what is there is no rule set"));
    let said: Value = serde_json::from_slice(kept).map_err(|_| unreadable())?;
    let Some(wrapped) = said["payload"].as_str() else { return Ok(Some(said)) };
    let payload = STANDARD.decode(wrapped).map_err(|_| unreadable())?;
    serde_json::from_slice(&payload).map(Some).map_err(|_| unreadable())
}

/// Whether what the broker keeps is signed.
pub(super) fn is_signed(kept: &[u8]) -> bool {
    serde_json::from_slice(kept).is_ok_and(|said: Value| said["payload"].is_string())
}

/// The revision that a rule set has; 0 for none.
pub(super) fn revision(set: &Value) -> u64 {
    set["revision"].as_u64().unwrap_or(0)
}

/// What is there before a rule set is published.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct There<'a> {
    /// What the broker keeps.
    pub(super) set: Option<&'a Value>,
    /// The newest revision that a box holds, whatever the broker has lost; 0 for none.
    pub(super) held: u64,
}

/// The revision to publish under; `None`: the same is there already. What gets a signature is never
/// the same: one that is there may be about to expire, or of another key.
///
/// # Errors
/// What is wanted is older than what is there.
pub(super) fn revision_for(
    wanted: &Value,
    there: There<'_>,
    signs: bool,
) -> Result<Option<u64>, Failure> {
    let given = revision(wanted);
    let published = there.set.map(revision);
    let newest = published.unwrap_or(0).max(there.held);
    if given < newest {
        let what = format!(
            "revision {given} is older than {newest}, which is published or held by a box; to go \
             back to old content give it a revision from {newest} on"
        );
        return Err(Failure::failed(what));
    }
    let same = published == Some(newest) && there.set.map(content) == Some(content(wanted));
    match (given > newest, same && !signs) {
        (true, _) => Ok(Some(given)),
        (false, true) => Ok(None),
        (false, false) => Ok(Some(newest.saturating_add(1))),
    }
}

/// Makes documents of rule sets, signed where there is a key.
pub(super) struct Press<'a> {
    fleet: &'a Fleet<'a>,
    signer: Option<Signer>,
    lasts: Duration,
}

impl<'a> Press<'a> {
    /// As the operator wants them signed.
    ///
    /// # Errors
    /// The key cannot be used.
    pub(super) fn new(fleet: &'a Fleet<'a>, signing: &Signing) -> Result<Self, Failure> {
        let signer = signing.sign_key.as_deref().map(signer).transpose()?;
        let lasts = Duration::from_secs(u64::from(signing.valid_days) * 86_400);
        Ok(Press { fleet, signer, lasts })
    }

    /// The text of a rule set under a revision, for all boxes or one.
    ///
    /// # Errors
    /// Boxes do not take so much.
    pub(super) fn text(
        &self,
        set: &Value,
        revision: u64,
        box_id: Option<&str>,
    ) -> Result<String, Failure> {
        let mut set = set.clone();
        set["revision"] = json!(revision);
        let text = match &self.signer {
            None => set.to_string(),
            Some(signer) => {
                self.fleet.address(&mut set, box_id, self.lasts);
                signer.wrap(&set.to_string())
            }
        };
        if text.len() > DOCUMENT_BYTES_MAX {
            let whose = box_id.map_or_else(String::new, |id| format!("for {id}: "));
            let what =
                format!("{whose}it has {} bytes, boxes take {DOCUMENT_BYTES_MAX}", text.len());
            return Err(Failure::failed(what));
        }
        Ok(text)
    }

    /// Whether documents are signed.
    pub(super) fn signs(&self) -> bool {
        self.signer.is_some()
    }

    /// By whom it is signed, in words; empty for nobody.
    pub(super) fn by(&self) -> String {
        let by = |signer: &Signer| format!(", signed by {}", signer.public_key().id());
        self.signer.as_ref().map_or_else(String::new, by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_grow_with_the_content_and_never_go_back() {
        let set = |revision: u64, rules: u64| json!({"revision": revision, "rules": rules});
        let signed = json!({"revision": 7, "rules": 1, "fleet": "v", "expires": "t"});
        let at = |wanted: &Value, there: Option<&Value>, held: u64, signs: bool| {
            revision_for(wanted, There { set: there, held }, signs)
        };
        let of = |wanted: &Value, there: &Value| at(wanted, Some(there), 0, false);
        assert_eq!(at(&set(3, 1), None, 0, false), Ok(Some(3)));
        assert_eq!(of(&set(8, 1), &set(7, 1)), Ok(Some(8)));
        assert_eq!(of(&set(7, 2), &set(7, 1)), Ok(Some(8)));
        assert_eq!(of(&set(7, 1), &set(7, 1)), Ok(None));
        assert_eq!(of(&set(7, 1), &signed), Ok(None));
        let refused = of(&set(6, 1), &set(7, 1)).expect_err("older");
        assert!(refused.text().is_some_and(|text| text.contains("6 is older than 7")));
        // What the broker has lost counts as well.
        assert_eq!(at(&set(7, 1), Some(&set(7, 1)), 7, false), Ok(None));
        assert_eq!(at(&set(8, 1), Some(&set(7, 1)), 8, false), Ok(Some(9)));
        assert_eq!(at(&set(8, 1), None, 8, false), Ok(Some(9)));
        assert!(at(&set(7, 1), None, 8, false).is_err());
        // A signature is made anew.
        assert_eq!(at(&set(7, 1), Some(&signed), 7, true), Ok(Some(8)));
        assert_eq!(at(&set(8, 1), Some(&signed), 7, true), Ok(Some(8)));
    }

    #[test]
    fn what_the_broker_keeps_is_read_with_and_without_its_wrapping() {
        let plain = br#"{"revision": 7}"#;
        let wrapped = json!({"payload": STANDARD.encode(plain), "key_id": "k", "sig": "s"});
        let set = Ok(Some(json!({"revision": 7})));
        assert_eq!(unwrapped("t", plain), set);
        assert_eq!(unwrapped("t", wrapped.to_string().as_bytes()), set);
        assert!(is_signed(wrapped.to_string().as_bytes()) && !is_signed(plain) && !is_signed(b"{"));
        assert_eq!(unwrapped("t", b""), Ok(None));
        assert!(unwrapped("t", b"{").is_err());
    }
}
