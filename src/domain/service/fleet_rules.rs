//! The rule sets that the fleet has sent, as far as the box has taken them: one a layer, stored
//! whole, in force again after a restart before there is a link.
//!
//! Revisions only grow. The stored revision is also the counter against rollback: whatever is older
//! is refused, also when it is signed. A revision means one content; to go back, old content is sent
//! under a higher one.
//!
//! A rule set that says something else about live streams is on trial ([`Trial`]): the one before it is
//! kept until it has proved good. Where the box went back, that one is in force and kept on, until a
//! higher revision comes; the revision that failed is not taken again. Both outlive a restart; the
//! trial begins anew then. The first document for the box alone is on trial too: before it that layer
//! said nothing, and the layers below decide again. A staged rollout gives such documents to the boxes
//! that try its rules.
//!
//! [`Trial`]: crate::domain::fleet::trial::Trial

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::faults::{Fault, Faults};
use crate::domain::fleet::document::{Addressee, Document};
use crate::domain::fleet::refused::{Refused, Why};
use crate::domain::fleet::trial::Touched;
use crate::domain::rule_set::{Apply, RuleSet};
use crate::domain::service::layers::SentLayer;
use crate::domain::service::{Changes, Kind, Service};
use crate::domain::stream_key::StreamKey;
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
    good: Option<Good>,
    before: Option<Before>,
}

/// A rule set that can be in force, and its text.
#[derive(Debug, Clone)]
struct Good {
    set: Arc<RuleSet>,
    text: Arc<str>,
}

/// What was in force before a rule set that is on trial, or was gone back from.
#[derive(Debug, Clone)]
struct Before {
    /// `None`: the layer said nothing.
    good: Option<Good>,
    /// Streams that worked before and about which the new one says something else.
    touched: Arc<Touched>,
    /// Why the box went back to it; `None`: the new one is on trial.
    went_back: Option<Faults>,
}

/// A rule set that is on trial.
#[derive(Debug, Clone)]
pub struct OnTrial {
    /// Its revision.
    pub revision: u64,
    /// Over how many seconds live sessions take it.
    pub within_s: u32,
    /// Streams that worked before and about which it says something else.
    pub touched: Arc<Touched>,
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

/// What was before it, as stored.
#[derive(Serialize, Deserialize)]
struct StoredBefore {
    /// `None`: the layer said nothing.
    text: Option<String>,
    touched: Vec<String>,
    /// Those of them that are pulled from elsewhere; older versions did not store it.
    #[serde(default)]
    moved: Vec<String>,
    /// Stream and reason.
    went_back: Option<Vec<(String, String)>>,
}

impl Good {
    fn parse(text: String) -> Result<Good, Faults> {
        let set = Arc::new(RuleSet::parse(text.as_bytes())?);
        Ok(Good { set, text: text.into() })
    }
}

impl Held {
    /// What is in force of the layer.
    fn in_force(&self) -> Option<&Good> {
        match &self.before {
            Some(before) if before.went_back.is_some() => before.good.as_ref(),
            _ => self.good.as_ref(),
        }
    }

    /// What a newer one would be gone back to; `None` in it: the layer says nothing then.
    fn proved(&self) -> Option<Option<&Good>> {
        let before = self.before.as_ref().map(|before| before.good.as_ref());
        before.or(self.good.as_ref().map(Some))
    }
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
        self.0.get(&layer)?.in_force().map(|good| good.set.revision)
    }

    /// The rule set of a layer that is on trial.
    #[must_use]
    pub fn on_trial(&self, layer: SentLayer) -> Option<OnTrial> {
        let held = self.0.get(&layer)?;
        let before = held.before.as_ref().filter(|before| before.went_back.is_none())?;
        let within_s = held.good.as_ref()?.set.apply.within_s;
        Some(OnTrial { revision: held.revision, within_s, touched: before.touched.clone() })
    }

    /// What the box has of a layer and went back from, and why.
    #[must_use]
    pub fn went_back(&self, layer: SentLayer) -> Option<Refused> {
        let held = self.0.get(&layer)?;
        let faults = held.before.as_ref()?.went_back.clone()?;
        Some(Refused { why: Why::StreamsFail, revision: Some(held.revision), faults })
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
        match &held.good {
            Some(good) if revision == held.revision && good.set == document.set => Ok(News::Again),
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
        let read = Good::parse(text);
        let why = read.as_ref().err().map(ToString::to_string);
        // The revision counts in any case.
        let to = Addressee { fleet, box_id };
        self.0.insert(layer, Held { to, revision, good: read.ok(), before: None });
        why.map_or(Ok(()), Err)
    }

    /// Comes after what it was before.
    pub(super) fn restore_before(&mut self, key: &str, content: &str) -> Result<(), String> {
        let layer = named_layer(key).ok_or("is of no layer")?;
        let stored: StoredBefore =
            serde_json::from_str(content).map_err(|error| error.to_string())?;
        let good = stored.text.map(Good::parse).transpose();
        let good = good.map_err(|faults| faults.to_string())?;
        let keys = |keys: &[String]| keys.iter().filter_map(|key| key.parse().ok()).collect();
        let touched = Touched { any: keys(&stored.touched), moved: keys(&stored.moved) };
        let went_back = stored.went_back.map(|reasons| {
            let mut faults = Faults::new();
            reasons.into_iter().for_each(|(place, what)| faults.add(place, what));
            faults
        });
        let held = self.0.get_mut(&layer).ok_or("is before nothing")?;
        held.before = Some(Before { good, touched: Arc::new(touched), went_back });
        Ok(())
    }
}

impl Service {
    /// Takes a document, which must be newer than what the box has ([`FleetRules::judge`]). It is on
    /// trial if it says something else about one of the streams that work now (`working`), and the
    /// box has something to go back to: for its own layer that may be nothing.
    pub fn take_document(
        &mut self,
        document: &Document,
        to: &Addressee,
        working: &[StreamKey],
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
        changes.put(Kind::FleetRules, layer.word(), &stored);
        let old = self.layers.table().clone();
        self.layers.set(layer, RuleSet::clone(&set), now, changes);
        let mut touched = Touched::between(&old, self.layers.table(), working);
        let held = self.fleet_rules.0.get(&layer);
        // What fails under a rule set on trial is not live now, and worked all the same.
        let on_trial = self.fleet_rules.on_trial(layer);
        if let Some(trial) = on_trial {
            touched.extend(&trial.touched);
        }
        let nothing = (layer == SentLayer::Box).then_some(None);
        let proved = held.map_or(nothing, Held::proved).filter(|_| !touched.any.is_empty());
        let before = proved.map(|good| Before {
            good: good.cloned(),
            touched: Arc::new(touched),
            went_back: None,
        });
        match &before {
            Some(before) => before.store(layer, changes),
            None if held.is_some_and(|held| held.before.is_some()) => {
                changes.delete(Kind::FleetRulesBefore, layer.word());
            }
            None => {}
        }
        let (revision, text) = (set.revision, stored.text.into());
        let held = Held { to: to.clone(), revision, good: Some(Good { set, text }), before };
        self.fleet_rules.0.insert(layer, held);
    }

    /// The rule set on trial has proved good. Nothing happens if it is another one by now.
    pub fn keep_rules(&mut self, layer: SentLayer, revision: u64, changes: &mut Changes) {
        if self.fleet_rules.on_trial(layer).is_some_and(|trial| trial.revision == revision)
            && let Some(held) = self.fleet_rules.0.get_mut(&layer)
        {
            held.before = None;
            changes.delete(Kind::FleetRulesBefore, layer.word());
        }
    }

    /// Streams fail under the rule set on trial: the one before it is in force again, at once. Nothing
    /// happens if it is another one by now.
    pub fn go_back(
        &mut self,
        layer: SentLayer,
        revision: u64,
        reasons: Faults,
        now: UnixMillis,
        changes: &mut Changes,
    ) {
        if self.fleet_rules.on_trial(layer).is_none_or(|trial| trial.revision != revision) {
            return;
        }
        let held = self.fleet_rules.0.get_mut(&layer);
        let Some(before) = held.and_then(|held| held.before.as_mut()) else { return };
        before.went_back = Some(reasons);
        before.store(layer, changes);
        let Some(good) = &before.good else { return self.layers.clear(layer) };
        let set = RuleSet { apply: Apply::default(), ..RuleSet::clone(&good.set) };
        self.layers.set(layer, set, now, changes);
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
                changes.delete(Kind::FleetRules, layer.word());
                changes.delete(Kind::FleetRulesBefore, layer.word());
            }
            ours
        });
        for (layer, held) in &self.fleet_rules.0 {
            if let Some(good) = held.in_force() {
                self.layers.set(*layer, RuleSet::clone(&good.set), now, changes);
            }
        }
    }
}

impl Before {
    fn store(&self, layer: SentLayer, changes: &mut Changes) {
        let pair = |fault: &Fault| (fault.place.clone(), fault.what.clone());
        let stored = StoredBefore {
            text: self.good.as_ref().map(|good| good.text.as_ref().to_owned()),
            touched: self.touched.any.iter().map(ToString::to_string).collect(),
            moved: self.touched.moved.iter().map(ToString::to_string).collect(),
            went_back: self.went_back.as_ref().map(|faults| faults.iter().map(pair).collect()),
        };
        changes.put(Kind::FleetRulesBefore, layer.word(), &stored);
    }
}

fn named_layer(name: &str) -> Option<SentLayer> {
    [SentLayer::Fleet, SentLayer::Box].into_iter().find(|layer| layer.word() == name)
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
                let working = [key()];
                self.service.take_document(document, &us(), &working, NOW.unix, &mut changes);
                self.store(&changes);
            }
            Ok(news)
        }

        /// The trial of a layer's newest ends.
        fn end_trial(&mut self, layer: SentLayer, good: bool) {
            let Some(trial) = self.service.fleet_rules.on_trial(layer) else { return };
            let (mut changes, mut reasons) = (Changes::new(), Faults::new());
            reasons.add("d/live/s", "no answer");
            match good {
                true => self.service.keep_rules(layer, trial.revision, &mut changes),
                false => {
                    let (revision, now) = (trial.revision, NOW.unix);
                    self.service.go_back(layer, revision, reasons, now, &mut changes);
                }
            }
            self.store(&changes);
        }

        fn applied(&self, layer: SentLayer) -> Option<u64> {
            self.service.fleet_rules.applied(layer)
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
        let params = json!({"Enable": 1, "RecordInterval": 600 + revision});
        let mut set = json!({"revision": revision, "fleet": "venue", "expires": expires,
            "templates": [{"TemplateName": name, "FlvParam": params}],
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

    fn key() -> StreamKey {
        StreamKey::new("d", "live", "s").expect("a key")
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Deliver { layer: usize, text: usize },
        EndTrial { layer: usize, good: bool },
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let texts = OPENED[0].len();
        prop_oneof![
            9 => (0..2_usize, 0..texts).prop_map(|(layer, text)| Step::Deliver { layer, text }),
            2 => (0..2_usize, any::<bool>()).prop_map(|(layer, good)| Step::EndTrial { layer, good }),
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
                    Step::EndTrial { layer, good } => {
                        rig.end_trial(LAYERS[layer], good);
                        prop_assert_eq!(rig.revisions(), before, "what was received stays");
                        let (applied, received) = (rig.applied(LAYERS[layer]), before[layer]);
                        prop_assert!(applied <= received);
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
            if LAYERS.iter().all(|layer| rig.service.fleet_rules.went_back(*layer).is_none()) {
                prop_assert_eq!(rig.table(), expected.table());
            }
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

    #[test]
    fn the_box_goes_back_to_what_proved_good_and_takes_the_next_one() {
        let mut rig = Rig::default();
        let layer = SentLayer::Fleet;
        rig.deliver(layer, &good(layer, 1)).expect("newer");
        assert!(
            rig.service.fleet_rules.on_trial(layer).is_none(),
            "there is nothing to go back to"
        );
        rig.deliver(layer, &good(layer, 2)).expect("newer");
        rig.end_trial(layer, true);
        let proved = rig.table();
        rig.deliver(layer, &good(layer, 3)).expect("newer");
        rig.restart(&us());
        assert_eq!(rig.applied(layer), Some(3), "it is on trial over a restart");
        rig.deliver(layer, &good(layer, 4)).expect("newer, before the trial is over");
        rig.restart(&us());
        rig.end_trial(layer, false);
        assert_eq!((rig.applied(layer), rig.revisions()[0]), (Some(2), Some(4)));
        assert_eq!(rig.table(), proved);
        rig.restart(&us());
        assert_eq!((rig.applied(layer), rig.table()), (Some(2), proved));
        let told = rig.service.fleet_rules.went_back(layer).expect("it went back");
        assert_eq!((told.why, told.revision), (Why::StreamsFail, Some(4)));
        assert_eq!(told.faults.to_string(), "d/live/s: no answer");
        assert_eq!(rig.deliver(layer, &good(layer, 4)), Ok(News::Again), "it is not tried again");
        assert_eq!(rig.applied(layer), Some(2));
        assert_eq!(rig.deliver(layer, &good(layer, 5)), Ok(News::Newer));
        assert_eq!(rig.applied(layer), Some(5));
        assert!(rig.service.fleet_rules.went_back(layer).is_none());
        rig.end_trial(layer, true);
        rig.restart(&us());
        assert_eq!(rig.applied(layer), Some(5));
        assert!(!rig.entries.contains_key(&(Kind::FleetRulesBefore, "fleet".to_owned())));
    }

    /// As a box that tries a rollout's rules has it.
    #[test]
    fn from_its_first_own_document_the_box_goes_back_to_the_layers_below() {
        let mut rig = Rig::default();
        rig.deliver(SentLayer::Fleet, &good(SentLayer::Fleet, 8)).expect("newer");
        let (layer, below) = (SentLayer::Box, rig.table());
        for revision in [1, 2] {
            rig.deliver(layer, &good(layer, revision)).expect("newer");
            rig.restart(&us());
            assert_eq!(rig.applied(layer), Some(revision));
            assert!(rig.service.fleet_rules.on_trial(layer).is_some(), "over a restart too");
            rig.end_trial(layer, false);
            for _ in 0..2 {
                assert_eq!((rig.applied(layer), rig.revisions()[1]), (None, Some(revision)));
                assert_eq!(rig.table(), below);
                let told = rig.service.fleet_rules.went_back(layer).expect("it went back");
                assert_eq!((told.why, told.revision), (Why::StreamsFail, Some(revision)));
                assert_eq!(rig.deliver(layer, &good(layer, revision)), Ok(News::Again));
                rig.restart(&us());
            }
        }
        rig.deliver(layer, &good(layer, 3)).expect("newer");
        rig.end_trial(layer, true);
        rig.deliver(layer, &good(layer, 4)).expect("newer");
        rig.end_trial(layer, false);
        assert_eq!(rig.applied(layer), Some(3), "by now it has proved one");
    }

    #[test]
    fn a_rule_set_that_says_the_same_about_what_works_is_not_on_trial() {
        let mut rig = Rig::default();
        let layer = SentLayer::Fleet;
        rig.deliver(layer, &good(layer, 1)).expect("newer");
        let same = payload(layer, 2, "", 1_900_000_000).replace("602", "601");
        rig.deliver(layer, &wrapped(&pair(1), &same)).expect("newer");
        assert!(rig.service.fleet_rules.on_trial(layer).is_none());
    }
}
