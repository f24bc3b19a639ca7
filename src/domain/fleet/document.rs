//! A rule set as it arrives from the fleet: bytes of foreign origin -> a document that the box may
//! take, or why not. Whether it is newer than what the box has is judged where that is known
//! ([`crate::domain::service::fleet_rules`]).
//!
//! A signed document says for whom it is and until when, and one for a single box comes on that
//! box's own topic and names it: so what was signed for one cannot be shown to another.

use std::borrow::Cow;
use std::sync::Arc;

use crate::domain::document::Json;
use crate::domain::faults::{FaultKind, Faults};
use crate::domain::fleet::keyring::{Keyring, is_wrapped, revision_in};
use crate::domain::fleet::refused::{Refused, Why};
use crate::domain::rule_set::{RULE_SET_BYTES_MAX, RuleSet, Scope};
use crate::domain::service::layers::SentLayer;
use crate::domain::time::{ClockQuality, WallTime};

/// Who the box is to the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressee {
    /// Its fleet.
    pub fleet: String,
    /// Its own name.
    pub box_id: String,
}

/// A rule set that is for this box, well formed, and signed where it must be.
#[derive(Debug, Clone)]
pub struct Document {
    /// The layer whose rule set it is.
    pub layer: SentLayer,
    /// What it says.
    pub set: Arc<RuleSet>,
    /// Its text, without the wrapping.
    pub text: String,
}

/// What every document has to pass.
#[derive(Debug, Clone)]
pub struct Gate {
    addressee: Addressee,
    keyring: Keyring,
}

impl Gate {
    /// The gate of a box.
    #[must_use]
    pub fn new(addressee: Addressee, keyring: Keyring) -> Self {
        Gate { addressee, keyring }
    }

    /// Who the box is.
    #[must_use]
    pub fn addressee(&self) -> &Addressee {
        &self.addressee
    }

    /// Opens what came on a layer's topic. While the clock was never set, nothing is expired.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn open(&self, layer: SentLayer, bytes: &[u8], now: WallTime) -> Result<Document, Refused> {
        if bytes.is_empty() {
            let what = "is empty, which deletes nothing: send other rules under a higher revision";
            return Err(Refused::new(Why::Empty, None, "", what));
        }
        let payload = self.payload(bytes)?;
        let set = RuleSet::parse(&payload).map_err(|faults| self.malformed(&payload, faults))?;
        self.check_scope(layer, &set.scope, now)
            .map_err(|refused| Refused { revision: Some(set.revision), ..refused })?;
        let text = String::from_utf8(payload.into_owned()).expect("JSON that was parsed is UTF-8");
        Ok(Document { layer, set: Arc::new(set), text })
    }

    fn malformed(&self, payload: &[u8], faults: Faults) -> Refused {
        let json = Json::parse(payload, RULE_SET_BYTES_MAX).ok();
        if self.keyring.is_empty() && json.as_ref().is_some_and(is_wrapped) {
            let what = "is signed, and the box has no rules_public_keys to check it with";
            return Refused::new(Why::Malformed, None, "", what);
        }
        Refused { why: Why::Malformed, revision: json.as_ref().and_then(revision_in), faults }
    }

    /// What was sent is for this box and may still be taken. What is signed has to say so.
    pub(super) fn check_scope(
        &self,
        layer: SentLayer,
        scope: &Scope,
        now: WallTime,
    ) -> Result<(), Refused> {
        let Addressee { fleet, box_id } = &self.addressee;
        let refuse = |why, faults| Err(Refused { why, revision: None, faults });
        let mut foreign = Faults::new();
        if scope.fleet.as_ref().is_some_and(|given| given != fleet) {
            foreign.add("fleet", "is another fleet");
        }
        match (layer, &scope.box_id) {
            (SentLayer::Fleet, Some(_)) => foreign.add("box", "is given, and it came to all boxes"),
            (SentLayer::Box, Some(given)) if given != box_id => {
                foreign.add("box", "is another box");
            }
            _ => {}
        }
        if !foreign.is_empty() {
            return refuse(Why::Foreign, foreign);
        }
        let mut missing = Faults::new();
        let needed = [
            ("fleet", scope.fleet.is_none()),
            ("box", layer == SentLayer::Box && scope.box_id.is_none()),
            ("expires", scope.expires.is_none()),
        ];
        for (place, _) in needed.iter().filter(|(_, missing)| self.is_signed() && *missing) {
            missing.add_kind(FaultKind::Missing, *place, "is missing in what is signed");
        }
        if !missing.is_empty() {
            return refuse(Why::Malformed, missing);
        }
        match scope.expires {
            Some(expires) if now.quality == ClockQuality::Trusted && now.unix > expires => {
                Err(Refused::new(Why::Expired, None, "expires", "is over"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the box takes only what is signed.
    pub(super) fn is_signed(&self) -> bool {
        !self.keyring.is_empty()
    }

    /// What a message says, out of its wrapping where the box asks for one.
    pub(super) fn payload<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, Refused> {
        if self.is_signed() {
            self.keyring.unwrap(bytes).map(Cow::Owned)
        } else {
            Ok(Cow::Borrowed(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::fleet::keyring::tests::{pair, public, wrapped};
    use crate::domain::time::UnixMillis;

    const NOW: WallTime =
        WallTime { unix: UnixMillis(1_800_000_000_000), quality: ClockQuality::Trusted };

    fn gate(keys: &[u8]) -> Gate {
        let addressee = Addressee { fleet: "venue".into(), box_id: "box-01".into() };
        Gate::new(addressee, Keyring::new(keys.iter().map(|n| public(&pair(*n))).collect()))
    }

    fn set_of(scope: &Value) -> String {
        let mut set = json!({"revision": 3, "templates": [], "rules": []});
        for (name, value) in scope.as_object().expect("members") {
            set[name] = value.clone();
        }
        set.to_string()
    }

    fn why(gate: &Gate, layer: SentLayer, text: &str) -> Option<(Why, Option<u64>)> {
        let refused = gate.open(layer, text.as_bytes(), NOW).err()?;
        Some((refused.why, refused.revision))
    }

    #[test]
    fn an_unsigned_document_need_not_say_for_whom_it_is() {
        let gate = gate(&[]);
        for layer in [SentLayer::Fleet, SentLayer::Box] {
            assert_eq!(why(&gate, layer, &set_of(&json!({}))), None);
            let foreign = set_of(&json!({"fleet": "other"}));
            assert_eq!(why(&gate, layer, &foreign), Some((Why::Foreign, Some(3))));
        }
        let ours = set_of(&json!({"fleet": "venue", "box": "box-01"}));
        assert_eq!(why(&gate, SentLayer::Box, &ours), None);
        assert_eq!(why(&gate, SentLayer::Fleet, &ours), Some((Why::Foreign, Some(3))));
        let of_another = set_of(&json!({"box": "box-02"}));
        assert_eq!(why(&gate, SentLayer::Box, &of_another), Some((Why::Foreign, Some(3))));
    }

    #[test]
    fn a_signed_document_has_to_say_for_whom_it_is_and_until_when() {
        let gate = gate(&[1]);
        let signed = |scope: &Value| wrapped(&pair(1), &set_of(scope));
        let whole = json!({"fleet": "venue", "box": "box-01", "expires": 1_800_000_001});
        assert_eq!(why(&gate, SentLayer::Box, &signed(&whole)), None);
        for member in ["fleet", "box", "expires"] {
            let mut less = whole.clone();
            less.as_object_mut().expect("members").remove(member);
            let refused = gate.open(SentLayer::Box, signed(&less).as_bytes(), NOW);
            let refused = refused.expect_err("says less than it must");
            assert_eq!(refused.why, Why::Malformed);
            assert!(refused.faults.to_string().starts_with(member), "{refused}");
        }
        let to_all = json!({"fleet": "venue", "expires": 1_800_000_001});
        assert_eq!(why(&gate, SentLayer::Fleet, &signed(&to_all)), None);
    }

    #[test]
    fn what_is_over_is_refused_once_the_clock_is_set() {
        let gate = gate(&[]);
        let over = set_of(&json!({"expires": 1_799_999_999}));
        assert_eq!(why(&gate, SentLayer::Fleet, &over), Some((Why::Expired, Some(3))));
        let unset = WallTime { quality: ClockQuality::Untrusted, ..NOW };
        assert!(gate.open(SentLayer::Fleet, over.as_bytes(), unset).is_ok());
    }

    #[test]
    fn nonsense_is_refused_with_its_revision_where_it_has_one() {
        let gate = gate(&[]);
        let cases = [
            ("", Why::Empty, None),
            ("{", Why::Malformed, None),
            (r#"{"revision": 9, "surprise": 1}"#, Why::Malformed, Some(9)),
            (r#"{"revision": 9, "revision": 9}"#, Why::Malformed, None),
            (&"[".repeat(1 << 20), Why::Malformed, None),
        ];
        for (text, expected, revision) in cases {
            let found = why(&gate, SentLayer::Fleet, text);
            assert_eq!(found, Some((expected, revision)), "{:.40}", text);
        }
        let signed = gate.open(SentLayer::Fleet, wrapped(&pair(1), "{}").as_bytes(), NOW);
        assert!(signed.expect_err("no key").to_string().contains("rules_public_keys"));
    }
}
