//! The rule sets that the fleet has sent, as far as the box has taken them: one a layer, stored
//! whole, in force again after a restart before there is a link.
//!
//! Revisions only grow. The stored revision is also the counter against rollback: whatever is older
//! is refused, also when it is signed. A revision means one content; to go back, old content is sent
//! under a higher one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::fleet::document::{Addressee, Document};
use crate::domain::fleet::refused::{Refused, Why};
use crate::domain::rule_set::RuleSet;
use crate::domain::service::layers::SentLayer;
use crate::domain::service::{Changes, Kind, Service};
use crate::domain::time::UnixMillis;

/// What the fleet has sent.
#[derive(Debug, Clone, Default)]
pub struct FleetRules(BTreeMap<SentLayer, Held>);

/// The document of a layer.
#[derive(Debug, Clone)]
struct Held {
    /// Whom it was sent to.
    to: Addressee,
    revision: u64,
    /// `None`: it was stored by another program, and this one cannot read it.
    set: Option<Arc<RuleSet>>,
}

/// What a document is to what the box has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is newer.
    Newer,
    /// The box has it.
    Again,
}

/// A document as stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    fleet: String,
    #[serde(rename = "box")]
    box_id: String,
    revision: u64,
    text: String,
}

impl FleetRules {
    /// The revision that the box has of a layer.
    #[must_use]
    pub fn revision(&self, layer: SentLayer) -> Option<u64> {
        self.0.get(&layer).map(|held| held.revision)
    }

    /// The revision of a layer that is in force.
    #[must_use]
    pub fn applied(&self, layer: SentLayer) -> Option<u64> {
        self.0.get(&layer).filter(|held| held.set.is_some()).map(|held| held.revision)
    }

    /// What a document is to what the box has.
    ///
    /// # Errors
    /// It is older, or other content under the same revision.
    pub fn judge(&self, document: &Document) -> Result<News, Refused> {
        let revision = document.set.revision;
        let Some(held) = self.0.get(&document.layer) else { return Ok(News::Newer) };
        let refuse = |why, what: String| Err(Refused::new(why, Some(revision), "revision", what));
        if revision < held.revision {
            return refuse(
                Why::Older,
                format!("is older than {}, which the box has", held.revision),
            );
        }
        match &held.set {
            Some(set) if revision == held.revision && *set == document.set => Ok(News::Again),
            Some(_) if revision == held.revision => {
                let what = "is the one that the box has, with other content";
                refuse(Why::OtherContent, what.to_owned())
            }
            _ => Ok(News::Newer),
        }
    }

    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let layer = named_layer(key).ok_or("is of no layer")?;
        let stored: Stored = serde_json::from_str(content).map_err(|error| error.to_string())?;
        let Stored { fleet, box_id, revision, text } = stored;
        let read = RuleSet::parse(text.as_bytes());
        let why = read.as_ref().err().map(ToString::to_string);
        let set = read.ok().map(Arc::new);
        // The revision counts in any case.
        self.0.insert(layer, Held { to: Addressee { fleet, box_id }, revision, set });
        why.map_or(Ok(()), Err)
    }
}

impl Service {
    /// Takes a document, which must be newer than what the box has ([`FleetRules::judge`]).
    pub fn take_document(
        &mut self,
        document: &Document,
        to: &Addressee,
        now: UnixMillis,
        changes: &mut Changes,
    ) {
        let (layer, set) = (document.layer, document.set.clone());
        let stored = Stored {
            fleet: to.fleet.clone(),
            box_id: to.box_id.clone(),
            revision: set.revision,
            text: document.text.clone(),
        };
        changes.put(Kind::FleetRules, layer_name(layer), &stored);
        self.layers.set(layer, RuleSet::clone(&set), now, changes);
        let held = Held { to: to.clone(), revision: set.revision, set: Some(set) };
        self.fleet_rules.0.insert(layer, held);
    }

    /// Puts in force what was taken in an earlier life of the process. What was sent to another
    /// fleet, or to a box of another name, is forgotten with its revision.
    pub fn adopt_documents(&mut self, us: &Addressee, now: UnixMillis, changes: &mut Changes) {
        let is_ours = |layer: SentLayer, to: &Addressee| match layer {
            SentLayer::Fleet => to.fleet == us.fleet,
            SentLayer::Box => to == us,
        };
        self.fleet_rules.0.retain(|layer, held| {
            let ours = is_ours(*layer, &held.to);
            if !ours {
                changes.delete(Kind::FleetRules, layer_name(*layer));
            }
            ours
        });
        for (layer, held) in &self.fleet_rules.0 {
            if let Some(set) = &held.set {
                self.layers.set(*layer, RuleSet::clone(set), now, changes);
            }
        }
    }
}

fn layer_name(layer: SentLayer) -> &'static str {
    match layer {
        SentLayer::Fleet => "fleet",
        SentLayer::Box => "box",
    }
}

fn named_layer(name: &str) -> Option<SentLayer> {
    [SentLayer::Fleet, SentLayer::Box].into_iter().find(|layer| layer_name(*layer) == name)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::fleet::document::Gate;
    use crate::domain::fleet::keyring::Keyring;
    use crate::domain::fleet::keyring::tests::{pair, public, wrapped};
    use crate::domain::matching::RuleTable;
    use crate::domain::time::{ClockQuality, WallTime};

    const NOW: WallTime =
        WallTime { unix: UnixMillis(1_800_000_000_000), quality: ClockQuality::Trusted };
    const LAYERS: [SentLayer; 2] = [SentLayer::Fleet, SentLayer::Box];

    fn us() -> Addressee {
        Addressee { fleet: "venue".into(), box_id: "box-01".into() }
    }

    fn gate() -> Gate {
        Gate::new(us(), Keyring::new(vec![public(&pair(1)), public(&pair(2))]))
    }

    /// A box of which only what is stored outlives a restart.
    #[derive(Default)]
    struct Rig {
        service: Service,
        entries: BTreeMap<(Kind, String), String>,
    }

    impl Rig {
        fn store(&mut self, changes: &Changes) {
            for change in changes.iter() {
                let key = (change.kind, change.key.clone());
                match &change.content {
                    Some(content) => self.entries.insert(key, content.clone()),
                    None => self.entries.remove(&key),
                };
            }
        }

        fn deliver(&mut self, layer: SentLayer, text: &str) -> Result<News, Refused> {
            self.take(&gate().open(layer, text.as_bytes(), NOW)?)
        }

        fn take(&mut self, document: &Document) -> Result<News, Refused> {
            let news = self.service.fleet_rules.judge(document)?;
            if news == News::Newer {
                let mut changes = Changes::new();
                self.service.take_document(document, &us(), NOW.unix, &mut changes);
                self.store(&changes);
            }
            Ok(news)
        }

        fn restart(&mut self, us: &Addressee) {
            let mut service = Service::default();
            for ((kind, key), content) in &self.entries {
                // What cannot be read counts for nothing.
                let _ = service.restore(*kind, key, content);
            }
            let mut changes = Changes::new();
            service.adopt_documents(us, NOW.unix, &mut changes);
            self.service = service;
            self.store(&changes);
        }

        fn table(&self) -> RuleTable {
            RuleTable::clone(self.service.layers.table())
        }

        fn revisions(&self) -> [Option<u64>; 2] {
            LAYERS.map(|layer| self.service.fleet_rules.revision(layer))
        }
    }

    /// The payload of a revision; each has a content of its own.
    fn payload(layer: SentLayer, revision: u64, other: &str, expires: u64) -> String {
        let name = format!("{layer:?}-{revision}{other}");
        let mut set = json!({"revision": revision, "fleet": "venue", "expires": expires,
            "templates": [{"TemplateName": name, "FlvParam": {"Enable": 1}}],
            "rules": [{"DomainName": "", "StreamName": "s", "TemplateName": name}]});
        if layer == SentLayer::Box {
            set["box"] = json!("box-01");
        }
        set.to_string()
    }

    fn good(layer: SentLayer, revision: u64) -> String {
        // Both keys sign: as in the time of a rotation.
        let key = pair(if revision.is_multiple_of(2) { 1 } else { 2 });
        wrapped(&key, &payload(layer, revision, "", 1_900_000_000))
    }

    const NEWEST: u64 = 8;

    /// For each layer what is made of the good documents, then of what nobody may take.
    static OPENED: LazyLock<[Vec<Result<Document, Refused>>; 2]> = LazyLock::new(|| {
        LAYERS.map(|layer| {
            let mut texts: Vec<String> = (1..=NEWEST).map(|n| good(layer, n)).collect();
            let newer = payload(layer, 99, "", 1_900_000_000);
            let foreign = newer.replace("venue", "other");
            texts.extend([
                String::new(),
                "[".repeat(10_000),
                newer.clone(),
                wrapped(&pair(3), &newer),
                wrapped(&pair(1), &foreign),
                wrapped(&pair(1), &payload(layer, 99, "", 1_700_000_000)),
                wrapped(&pair(1), &newer.replacen('{', "{\"revision\": 98,", 1)),
            ]);
            texts.iter().map(|text| gate().open(layer, text.as_bytes(), NOW)).collect()
        })
    });

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Deliver { layer: usize, text: usize },
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let texts = OPENED[0].len();
        prop_oneof![
            9 => (0..2_usize, 0..texts).prop_map(|(layer, text)| Step::Deliver { layer, text }),
            1 => Just(Step::Restart),
        ]
    }

    /// Any deliveries in any order, the newest of each layer among them: the broker keeps those.
    fn schedule() -> impl Strategy<Value = Vec<Step>> {
        let newest = usize::try_from(NEWEST).expect("small") - 1;
        proptest::collection::vec(step(), 18..30)
            .prop_map(move |mut steps| {
                steps.extend([0, 1].map(|layer| Step::Deliver { layer, text: newest }));
                steps
            })
            .prop_shuffle()
    }

    proptest! {
        // More than 10,000 deliveries.
        #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
        #[test]
        fn however_documents_are_delivered_one_state_comes_of_it(steps in schedule()) {
            let mut expected = Rig::default();
            for layer in LAYERS {
                prop_assert_eq!(expected.deliver(layer, &good(layer, NEWEST)), Ok(News::Newer));
            }
            let mut rig = Rig::default();
            for step in steps {
                let before = rig.revisions();
                match step {
                    Step::Restart => {
                        let table = rig.table();
                        rig.restart(&us());
                        prop_assert_eq!(rig.table(), table, "a restart changes nothing");
                        prop_assert_eq!(rig.revisions(), before);
                    }
                    Step::Deliver { layer, text } => {
                        let opened = OPENED[layer][text].clone();
                        let taken = opened.and_then(|document| rig.take(&document));
                        let bad = text >= usize::try_from(NEWEST).expect("small");
                        prop_assert!(!bad || taken.is_err(), "{:?}", taken);
                        let grown = rig.revisions().iter().zip(before).all(|(now, was)| *now >= was);
                        prop_assert!(grown, "revisions only grow");
                        prop_assert!(taken.is_ok() || rig.revisions() == before);
                    }
                }
            }
            prop_assert_eq!(rig.revisions(), [Some(NEWEST); 2]);
            prop_assert_eq!(rig.table(), expected.table());
        }
    }

    #[test]
    fn what_the_box_has_is_taken_once_and_nothing_else_under_its_revision() {
        let mut rig = Rig::default();
        let layer = SentLayer::Fleet;
        assert_eq!(rig.deliver(layer, &good(layer, 5)), Ok(News::Newer));
        assert_eq!(rig.deliver(layer, &good(layer, 5)), Ok(News::Again));
        let signed_anew = wrapped(&pair(1), &payload(layer, 5, "", 1_900_000_000));
        assert_eq!(rig.deliver(layer, &signed_anew), Ok(News::Again), "by another of our keys");
        let other = wrapped(&pair(1), &payload(layer, 5, "x", 1_900_000_000));
        let why = |refused: Refused| (refused.why, refused.revision);
        let found = rig.deliver(layer, &other).map_err(why);
        assert_eq!(found, Err((Why::OtherContent, Some(5))));
        let found = rig.deliver(layer, &good(layer, 4)).map_err(why);
        assert_eq!(found, Err((Why::Older, Some(4))), "signed, and older all the same");
    }

    #[test]
    fn what_was_for_another_fleet_or_box_is_forgotten() {
        let mut rig = Rig::default();
        for layer in LAYERS {
            assert_eq!(rig.deliver(layer, &good(layer, 5)), Ok(News::Newer));
        }
        rig.restart(&Addressee { box_id: "box-02".into(), ..us() });
        assert_eq!(rig.revisions(), [Some(5), None], "the fleet is the same");
        rig.restart(&Addressee { fleet: "other".into(), ..us() });
        assert_eq!(rig.revisions(), [None; 2]);
        assert_eq!(rig.table(), RuleTable::default());
        rig.restart(&us());
        assert_eq!(rig.revisions(), [None; 2], "it is not in the store any more");
    }

    #[test]
    fn a_set_that_this_program_cannot_read_keeps_its_revision_and_may_come_again() {
        let mut rig = Rig::default();
        let layer = SentLayer::Fleet;
        assert_eq!(rig.deliver(layer, &good(layer, 5)), Ok(News::Newer));
        let entry = rig.entries.get_mut(&(Kind::FleetRules, "fleet".to_owned())).expect("stored");
        *entry = entry.replacen("\\\"rules\\\"", "\\\"not known yet\\\"", 1);
        rig.restart(&us());
        assert_eq!(rig.revisions(), [Some(5), None]);
        assert_eq!(rig.table(), RuleTable::default());
        assert!(rig.deliver(layer, &good(layer, 4)).is_err(), "older");
        assert_eq!(rig.deliver(layer, &good(layer, 5)), Ok(News::Newer));
    }
}
