//! The local layer: templates and rules that the API has made, each an entry of its own. Names of
//! templates and patterns of rules are unique in it.
//!
//! Where the contract is silent:
//! - A name that another template of the layer has is refused with `InvalidParameterValue`.
//! - The 51st rule is refused as the 51st template is, with `InternalError.ConfOutLimit`.
//! - A template is in use while a rule of this layer names it, also if another layer has a template
//!   of the name. Rules of other layers do not hold it: they have templates of their own.
//! - A template that gets another name takes the rules of this layer along.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::faults::quoted;
use crate::domain::ids::TemplateNumber;
use crate::domain::matching::Layer;
use crate::domain::rule_set::{Apply, Pattern, Rule, RuleSet, Scope};
use crate::domain::service::layers::{Layers, NumberedTemplate};
use crate::domain::service::limits::ServiceLimits;
use crate::domain::service::{Changes, Kind, Refusal};
use crate::domain::template::{Template, TemplateChange};
use crate::domain::time::UnixMillis;

/// The counter of [`Kind::Counter`] that grows with each change of the layer.
pub(super) const REVISION: &str = "local_revision";

/// What is stored of the local layer.
#[derive(Debug, Clone, Default)]
pub(super) struct LocalLayer {
    revision: u64,
    templates: BTreeMap<TemplateNumber, Arc<Template>>,
    rules: BTreeMap<Pattern, LocalRule>,
}

/// What a pattern of the local layer is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalRule {
    /// Name of the template.
    pub(super) template: String,
    pub(super) created: UnixMillis,
}

/// A rule as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRule {
    domain: String,
    app: String,
    stream: String,
    template: String,
    /// Unix milliseconds.
    created_ms: i64,
}

impl LocalLayer {
    pub(super) fn templates(&self) -> &BTreeMap<TemplateNumber, Arc<Template>> {
        &self.templates
    }

    pub(super) fn rules(&self) -> &BTreeMap<Pattern, LocalRule> {
        &self.rules
    }

    /// As the other layers are.
    pub(super) fn rule_set(&self) -> RuleSet {
        let rule = |(pattern, rule): (&Pattern, &LocalRule)| Rule {
            pattern: pattern.clone(),
            template: rule.template.clone(),
        };
        RuleSet {
            revision: self.revision,
            apply: Apply::default(),
            templates: self.templates.values().cloned().collect(),
            rules: self.rules.iter().map(rule).collect(),
            sources: Vec::new(),
            callbacks: Vec::new(),
            scope: Scope::default(),
        }
    }

    fn named(&self, name: &str) -> Option<TemplateNumber> {
        let mut all = self.templates.iter();
        all.find(|(_, template)| template.name == name).map(|(number, _)| *number)
    }

    fn put_template(&mut self, number: TemplateNumber, template: Template, changes: &mut Changes) {
        changes.put(Kind::Template, number.to_string(), &template);
        self.templates.insert(number, Arc::new(template));
    }

    fn put_rule(&mut self, pattern: Pattern, rule: LocalRule, changes: &mut Changes) {
        let stored = StoredRule {
            domain: pattern.domain().to_owned(),
            app: pattern.app().to_owned(),
            stream: pattern.stream().to_owned(),
            template: rule.template.clone(),
            created_ms: rule.created.0,
        };
        changes.put(Kind::Rule, pattern.to_string(), &stored);
        self.rules.insert(pattern, rule);
    }

    pub(super) fn restore_template(
        &mut self,
        key: &str,
        content: &str,
    ) -> Result<TemplateNumber, String> {
        let number = TemplateNumber(key.parse().map_err(|_| "its key is no number".to_owned())?);
        let template: Template = serde_json::from_str(content).map_err(|e| e.to_string())?;
        if self.named(&template.name).is_some() {
            return Err("its name is another template's".to_owned());
        }
        self.templates.insert(number, Arc::new(template));
        Ok(number)
    }

    pub(super) fn restore_rule(&mut self, key: &str, content: &str) -> Result<(), String> {
        let stored: StoredRule = serde_json::from_str(content).map_err(|e| e.to_string())?;
        let pattern = Pattern::new(&stored.domain, &stored.app, &stored.stream);
        if pattern.to_string() != key {
            return Err("its key is that of another rule".to_owned());
        }
        let created = UnixMillis(stored.created_ms);
        self.rules.insert(pattern, LocalRule { template: stored.template, created });
        Ok(())
    }

    pub(super) fn restore_revision(&mut self, content: &str) -> Result<(), String> {
        self.revision = serde_json::from_str(content).map_err(|error| error.to_string())?;
        Ok(())
    }
}

/// What the API does to the local layer.
impl Layers {
    /// Makes a template; its number.
    ///
    /// # Errors
    /// The layer is closed or full, or has the name already.
    pub fn create_template(
        &mut self,
        template: Template,
        limits: &ServiceLimits,
        changes: &mut Changes,
    ) -> Result<TemplateNumber, Refusal> {
        self.open_for_changes()?;
        self.unused_name(&template.name, None)?;
        if self.local.templates.len() >= limits.templates {
            return Err(full("templates", limits.templates));
        }
        let number = self.numbers.next(changes);
        self.local.put_template(number, template, changes);
        self.local_changed(changes);
        Ok(number)
    }

    /// Changes a template; what `change` does not give stays.
    ///
    /// # Errors
    /// There is no such template, it is another layer's, or the new name is taken.
    pub fn modify_template(
        &mut self,
        number: TemplateNumber,
        change: TemplateChange,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        self.open_for_changes()?;
        let before = self.local_template(number, "FailedOperation.NotFound")?;
        let after = Template::clone(&before).changed(change);
        self.unused_name(&after.name, Some(number))?;
        if after.name != before.name {
            let bound: Vec<(Pattern, LocalRule)> = self.rules_naming(&before.name).collect();
            for (pattern, rule) in bound {
                let rule = LocalRule { template: after.name.clone(), ..rule };
                self.local.put_rule(pattern, rule, changes);
            }
        }
        self.local.put_template(number, after, changes);
        self.local_changed(changes);
        Ok(())
    }

    /// Takes a template away.
    ///
    /// # Errors
    /// There is no such template, it is another layer's, or a rule uses it.
    pub fn delete_template(
        &mut self,
        number: TemplateNumber,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        self.open_for_changes()?;
        let template = self.local_template(number, "InternalError.ConfNotFound")?;
        if let Some((pattern, _)) = self.rules_naming(&template.name).next() {
            let what = format!("template {number} is in use by the rule {pattern}");
            return Err(Refusal::new("FailedOperation.ConfInUsed", what));
        }
        changes.delete(Kind::Template, number.to_string());
        self.local.templates.remove(&number);
        self.local_changed(changes);
        Ok(())
    }

    /// Binds a template, of whatever layer, to a pattern.
    ///
    /// # Errors
    /// The layer is closed or full, or has a rule for the pattern, or there is no such template.
    pub fn create_rule(
        &mut self,
        pattern: Pattern,
        number: TemplateNumber,
        now: UnixMillis,
        limits: &ServiceLimits,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        self.open_for_changes()?;
        let Some(NumberedTemplate { template, .. }) = self.template(number) else {
            let what = format!("there is no template {number}");
            return Err(Refusal::new("InvalidParameter.ConfNotFound", what));
        };
        if self.local.rules.contains_key(&pattern) {
            let what = format!("there is a rule for {pattern} already");
            return Err(Refusal::new("FailedOperation.RuleAlreadyExist", what));
        }
        if self.local.rules.len() >= limits.rules {
            return Err(full("rules", limits.rules));
        }
        let rule = LocalRule { template: template.name.clone(), created: now };
        self.local.put_rule(pattern, rule, changes);
        self.local_changed(changes);
        Ok(())
    }

    /// Takes the rule for exactly this pattern away.
    ///
    /// # Errors
    /// There is no such rule, or only another layer has it.
    pub fn delete_rule(&mut self, pattern: &Pattern, changes: &mut Changes) -> Result<(), Refusal> {
        self.open_for_changes()?;
        if self.local.rules.remove(pattern).is_none() {
            let sent = self
                .sent
                .iter()
                .find(|(_, sent)| sent.set.rules.iter().any(|rule| rule.pattern == *pattern));
            return Err(match sent {
                Some((layer, _)) => not_local(&format!("the rule {pattern}"), (*layer).into()),
                None => {
                    let what = format!("there is no rule for {pattern}");
                    Refusal::new("FailedOperation.NotFound", what)
                }
            });
        }
        changes.delete(Kind::Rule, pattern.to_string());
        self.local_changed(changes);
        Ok(())
    }

    /// Puts a change of the local layer in force.
    fn local_changed(&mut self, changes: &mut Changes) {
        self.local.revision += 1;
        changes.put(Kind::Counter, REVISION, &self.local.revision);
        self.apply = Apply::default();
        self.lay();
    }

    fn open_for_changes(&self) -> Result<(), Refusal> {
        if self.local_closed {
            let what = "edgerec.toml, [rules] allow_local, leaves rules to the fleet";
            return Err(Refusal::new("UnsupportedOperation", what));
        }
        Ok(())
    }

    /// The template of a number in the local layer; `unknown` is the code where no layer has it.
    fn local_template(
        &self,
        number: TemplateNumber,
        unknown: &'static str,
    ) -> Result<Arc<Template>, Refusal> {
        match self.template(number) {
            Some(one) if one.layer == Layer::Local => Ok(one.template),
            Some(one) => Err(not_local(&format!("template {number}"), one.layer)),
            None => Err(Refusal::new(unknown, format!("there is no template {number}"))),
        }
    }

    /// A name that no template of the local layer has, but for one.
    fn unused_name(&self, name: &str, own: Option<TemplateNumber>) -> Result<(), Refusal> {
        match self.local.named(name) {
            Some(other) if Some(other) != own => {
                let what = format!("TemplateName: {} is the name of {other}", quoted(name));
                Err(Refusal::new("InvalidParameterValue", what))
            }
            _ => Ok(()),
        }
    }

    fn rules_naming(&self, template: &str) -> impl Iterator<Item = (Pattern, LocalRule)> {
        let all = self.local.rules.iter().filter(move |(_, rule)| rule.template == template);
        all.map(|(pattern, rule)| (pattern.clone(), rule.clone()))
    }
}

fn full(what: &str, max: usize) -> Refusal {
    Refusal::new("InternalError.ConfOutLimit", format!("there are {max} {what}, as many as may be"))
}

fn not_local(what: &str, layer: Layer) -> Refusal {
    let what = format!("{what} is of the {layer} layer; the API changes only the local one");
    Refusal::new("UnsupportedOperation", what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::files::FileFormat;
    use crate::domain::matching::Decision;
    use crate::domain::rule_set::ApplyMode;
    use crate::domain::service::layers::SentLayer;
    use crate::domain::service::layers::tests::{NOW, set_of, stored};
    use crate::domain::stream_key::StreamKey;
    use crate::domain::template::FormatParams;

    fn template(name: &str) -> Template {
        let hls = Some(FormatParams::of(FileFormat::Hls));
        Template { hls, ..Template::without_formats(name) }
    }

    fn pattern(stream: &str) -> Pattern {
        Pattern::new("Cams", "live", stream)
    }

    /// Layers under test: every change is also stored, and what is stored is read back and
    /// compared after each.
    #[derive(Default)]
    struct Desk {
        layers: Layers,
        limits: ServiceLimits,
        entries: BTreeMap<(Kind, String), String>,
    }

    impl Desk {
        fn with_fleet(names: &[&str]) -> Desk {
            let mut desk = Desk::default();
            let fleet = set_of(7, names);
            desk.act(|layers, _, changes| {
                layers.set(SentLayer::Fleet, fleet, NOW, changes);
                Ok(())
            })
            .expect("taken");
            desk
        }

        /// Acts as the catalog does: on a copy, which a refusal drops.
        fn act<T>(
            &mut self,
            act: impl FnOnce(&mut Layers, &ServiceLimits, &mut Changes) -> Result<T, Refusal>,
        ) -> Result<T, &'static str> {
            let (mut next, mut changes) = (self.layers.clone(), Changes::new());
            let value = act(&mut next, &self.limits, &mut changes).map_err(|no| no.code)?;
            self.layers = next;
            let read = stored(&mut self.entries, &changes);
            assert_eq!(read.local.rule_set(), self.layers.local.rule_set());
            assert_eq!(read.local.templates, self.layers.local.templates);
            assert_eq!(read.local.rules, self.layers.local.rules);
            Ok(value)
        }

        fn create(&mut self, name: &str) -> Result<TemplateNumber, &'static str> {
            let template = template(name);
            self.act(|layers, limits, changes| layers.create_template(template, limits, changes))
        }

        fn modify(&mut self, number: u64, change: TemplateChange) -> Result<(), &'static str> {
            self.act(|layers, _, changes| {
                layers.modify_template(TemplateNumber(number), change, changes)
            })
        }

        fn rename(&mut self, number: u64, name: &str) -> Result<(), &'static str> {
            self.modify(number, TemplateChange { name: Some(name.into()), ..Default::default() })
        }

        fn delete(&mut self, number: u64) -> Result<(), &'static str> {
            self.act(|layers, _, changes| layers.delete_template(TemplateNumber(number), changes))
        }

        fn bind(&mut self, stream: &str, number: u64) -> Result<(), &'static str> {
            self.act(|layers, limits, changes| {
                let number = TemplateNumber(number);
                layers.create_rule(pattern(stream), number, NOW, limits, changes)
            })
        }

        fn unbind(&mut self, pattern: &Pattern) -> Result<(), &'static str> {
            self.act(|layers, _, changes| layers.delete_rule(pattern, changes))
        }

        fn decide(&self, stream: &str) -> Decision {
            let key = StreamKey::new("cams", "live", stream).expect("key");
            self.layers.table().resolve(&key)
        }

        fn template_of(&self, stream: &str) -> Option<String> {
            Some(self.decide(stream).template()?.name.clone())
        }
    }

    #[test]
    fn what_is_made_decides_at_once_and_is_there_after_a_restart() {
        let mut desk = Desk::default();
        assert_eq!(desk.create("mine"), Ok(TemplateNumber(1_000)));
        assert_eq!(desk.decide("gate"), Decision::Unmatched);
        assert_eq!(desk.bind("gate", 1_000), Ok(()));
        let decision = desk.decide("gate");
        let matched = decision.matched().expect("matched");
        assert_eq!((matched.layer, matched.revision), (Layer::Local, 2));
        assert_eq!(desk.layers.apply().mode, ApplyMode::Restart);
        let [rule] = &desk.layers.rules()[..] else { panic!("one rule") };
        assert_eq!(rule.pattern.to_string(), "cams/live/gate");
        assert_eq!((rule.template, rule.created), (Some(TemplateNumber(1_000)), NOW));
        assert_eq!(desk.unbind(&pattern("gate")), Ok(()));
        assert_eq!(desk.decide("gate"), Decision::Unmatched);
    }

    #[test]
    fn numbers_are_never_given_twice() {
        let mut desk = Desk::default();
        assert_eq!(desk.create("a"), Ok(TemplateNumber(1_000)));
        assert_eq!(desk.delete(1_000), Ok(()));
        desk.layers = stored(&mut desk.entries, &Changes::new());
        assert_eq!(desk.create("a"), Ok(TemplateNumber(1_001)), "also not after a restart");
        desk.entries.remove(&(Kind::Counter, "template".to_owned()));
        desk.layers = stored(&mut desk.entries, &Changes::new());
        assert_eq!(desk.create("b"), Ok(TemplateNumber(1_002)), "nor if the counter is lost");
    }

    #[test]
    fn names_and_patterns_are_unique_in_the_layer_and_unknown_numbers_are_told() {
        let mut desk = Desk::with_fleet(&["venue"]);
        assert_eq!(desk.create("venue"), Ok(TemplateNumber(1_001)), "other layers do not count");
        assert_eq!(desk.create("venue"), Err("InvalidParameterValue"));
        assert_eq!(desk.create("b"), Ok(TemplateNumber(1_002)));
        assert_eq!(desk.rename(1_002, "venue"), Err("InvalidParameterValue"));
        assert_eq!(desk.rename(1_002, "b"), Ok(()), "its own name");
        assert_eq!(desk.rename(7, "c"), Err("FailedOperation.NotFound"));
        assert_eq!(desk.delete(7), Err("InternalError.ConfNotFound"));
        assert_eq!(desk.bind("gate", 7), Err("InvalidParameter.ConfNotFound"));
        assert_eq!(desk.bind("gate", 1_002), Ok(()));
        assert_eq!(desk.bind("gate", 1_001), Err("FailedOperation.RuleAlreadyExist"));
        let other_app = Pattern::new("cams", "", "gate");
        assert_eq!(desk.unbind(&other_app), Err("FailedOperation.NotFound"), "exactly the three");
    }

    #[test]
    fn a_template_in_use_stays_and_takes_its_rules_along_when_renamed() {
        let mut desk = Desk::with_fleet(&["venue"]);
        desk.create("mine").expect("made");
        desk.bind("gate", 1_001).expect("bound");
        assert_eq!(desk.delete(1_001), Err("FailedOperation.ConfInUsed"));
        desk.rename(1_001, "ours").expect("renamed");
        assert_eq!(desk.template_of("gate").as_deref(), Some("ours"));
        assert_eq!(desk.delete(1_001), Err("FailedOperation.ConfInUsed"));
        desk.unbind(&pattern("gate")).expect("unbound");
        assert_eq!(desk.delete(1_001), Ok(()));
        // A rule of the fleet has a template of its own to fall back to.
        let number = desk.create("venue").expect("made").0;
        assert_eq!(desk.decide("venue").matched().expect("matched").template_layer, Layer::Local);
        assert_eq!(desk.delete(number), Ok(()));
        assert_eq!(desk.decide("venue").matched().expect("matched").template_layer, Layer::Fleet);
    }

    #[test]
    fn a_change_of_a_template_is_in_force_at_once() {
        let mut desk = Desk::default();
        desk.create("mine").expect("made");
        desk.bind("gate", 1_000).expect("bound");
        let off = TemplateChange { formats: vec![(FileFormat::Hls, None)], ..Default::default() };
        desk.modify(1_000, off).expect("changed");
        assert_eq!(desk.decide("gate").word(), "norecord");
    }

    #[test]
    fn the_quotas_hold() {
        let limits = ServiceLimits { templates: 2, rules: 2, ..ServiceLimits::default() };
        let mut desk = Desk { limits, ..Desk::default() };
        desk.create("a").expect("made");
        desk.create("b").expect("made");
        assert_eq!(desk.create("c"), Err("InternalError.ConfOutLimit"));
        desk.bind("1", 1_000).expect("bound");
        desk.bind("2", 1_000).expect("bound");
        assert_eq!(desk.bind("3", 1_000), Err("InternalError.ConfOutLimit"));
        desk.unbind(&pattern("1")).expect("unbound");
        desk.bind("3", 1_000).expect("bound");
        desk.delete(1_001).expect("deleted");
        desk.create("c").expect("made");
    }

    #[test]
    fn other_layers_can_be_used_and_replaced_but_not_changed() {
        let mut desk = Desk::with_fleet(&["venue"]);
        assert_eq!(desk.rename(1_000, "x"), Err("UnsupportedOperation"));
        assert_eq!(desk.delete(1_000), Err("UnsupportedOperation"));
        let fleets = Pattern::new("", "live", "venue");
        assert_eq!(desk.unbind(&fleets), Err("UnsupportedOperation"));
        assert_eq!(desk.bind("gate", 1_000), Ok(()), "its template can be used");
        let decision = desk.decide("gate");
        let matched = decision.matched().expect("matched");
        assert_eq!((matched.layer, matched.template_layer), (Layer::Local, Layer::Fleet));
        desk.act(|layers, limits, changes| {
            layers.create_rule(fleets.clone(), TemplateNumber(1_000), NOW, limits, changes)
        })
        .expect("replaces the fleet's");
        assert_eq!(desk.decide("venue").matched().expect("matched").layer, Layer::Local);
        assert_eq!(desk.unbind(&fleets), Ok(()));
        assert_eq!(desk.decide("venue").matched().expect("matched").layer, Layer::Fleet);
    }

    #[test]
    fn a_rule_whose_template_another_layer_has_lost_counts_for_nothing_until_it_is_back() {
        let mut desk = Desk::with_fleet(&["venue"]);
        desk.bind("gate", 1_000).expect("bound");
        let send = |desk: &mut Desk, names: &[&str]| {
            let fleet = set_of(8, names);
            desk.act(|layers, _, changes| {
                layers.set(SentLayer::Fleet, fleet, NOW, changes);
                Ok(())
            })
            .expect("taken");
        };
        send(&mut desk, &["other"]);
        assert_eq!(desk.decide("gate"), Decision::Unmatched);
        let key = StreamKey::new("cams", "live", "gate").expect("key");
        let reason = desk.layers.table().idle_reason(&key).expect("said");
        assert!(reason.contains("template venue"), "{reason}");
        let local = desk.layers.rules().into_iter().find(|rule| rule.layer == Layer::Local);
        assert_eq!(local.expect("still shown").template, None);
        send(&mut desk, &["venue"]);
        assert_eq!(desk.template_of("gate").as_deref(), Some("venue"));
    }

    #[test]
    fn a_closed_layer_counts_for_nothing_and_is_kept() {
        let mut desk = Desk::with_fleet(&["gate"]);
        desk.create("mine").expect("made");
        desk.bind("yard", 1_001).expect("bound");
        let open = desk.layers.clone();
        desk.layers.close_local();
        assert_eq!(desk.decide("yard"), Decision::Unmatched);
        assert_eq!((desk.layers.templates().len(), desk.layers.rules().len()), (1, 1));
        for answer in [
            desk.create("x").map(|_| ()),
            desk.rename(1_001, "x"),
            desk.delete(1_001),
            desk.bind("x", 1_000),
            desk.unbind(&pattern("yard")),
        ] {
            assert_eq!(answer, Err("UnsupportedOperation"));
        }
        let again = stored(&mut desk.entries, &Changes::new());
        assert_eq!(again.local.rules, open.local.rules);
    }

    #[test]
    fn entries_that_cannot_be_read_change_nothing() {
        let mut layers = Layers::default();
        let good = serde_json::to_string(&template("a")).expect("JSON");
        layers.restore(Kind::Template, "1000", &good).expect("own form");
        for (kind, key, content) in [
            (Kind::Template, "x", good.as_str()),
            (Kind::Template, "1001", "{}"),
            (Kind::Template, "1002", good.as_str()),
            (Kind::Rule, "cams/live/gate", "{}"),
            (
                Kind::Rule,
                "cams/live/gate",
                r#"{"domain":"d","app":"","stream":"","template":"a","created_ms":0}"#,
            ),
            (Kind::Counter, REVISION, "x"),
        ] {
            layers.restore(kind, key, content).expect_err(key);
        }
        assert_eq!(layers.templates().len(), 1);
        assert!(layers.rules().is_empty());
    }
}
