//! The rule sets of all layers laid over each other, and the numbers of their templates.
//!
//! The fleet's layer and the box's come whole, from a file or over the link, and whoever brings
//! them keeps them; stored here are only the numbers of their templates. The local layer is what
//! the API has made, stored entry by entry ([`local`]).
//!
//! A rule names its template, not the template's number, and the highest layer that has a template
//! of this name gives it. So a rule of the local layer may use a template of any layer. If the
//! layer loses the name later, the rule counts for nothing until some layer has it again
//! ([`RuleTable::idle_reason`]).

pub mod local;
mod numbers;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::domain::ids::TemplateNumber;
use crate::domain::matching::{Layer, RuleTable};
use crate::domain::rule_set::{Apply, Pattern, RuleSet};
use crate::domain::service::layers::local::LocalLayer;
use crate::domain::service::layers::numbers::Numbers;
use crate::domain::service::{Changes, Kind};
use crate::domain::template::Template;
use crate::domain::time::UnixMillis;

/// A layer whose rule set comes whole from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SentLayer {
    /// The fleet's, or the file's where there is no fleet.
    Fleet,
    /// The fleet's for this one box.
    Box,
}

impl SentLayer {
    /// What it is called where it is kept and told.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            SentLayer::Fleet => "fleet",
            SentLayer::Box => "box",
        }
    }
}

impl From<SentLayer> for Layer {
    fn from(layer: SentLayer) -> Layer {
        match layer {
            SentLayer::Fleet => Layer::Fleet,
            SentLayer::Box => Layer::Box,
        }
    }
}

/// The layers, what results from them, and the numbers of templates.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    sent: BTreeMap<SentLayer, Sent>,
    local: LocalLayer,
    local_closed: bool,
    numbers: Numbers,
    /// Another one only if it says something else.
    table: Arc<RuleTable>,
    /// How live sessions take the newest change.
    apply: Apply,
}

/// A rule set and when the box took it.
#[derive(Debug, Clone)]
struct Sent {
    set: Arc<RuleSet>,
    taken: UnixMillis,
}

/// A template and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedTemplate {
    /// Its number.
    pub number: TemplateNumber,
    /// The layer it is of.
    pub layer: Layer,
    /// What it asks for.
    pub template: Arc<Template>,
}

/// A rule as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownRule {
    /// The layer it is of.
    pub layer: Layer,
    /// Which streams.
    pub pattern: Pattern,
    /// The template that counts for it; `None`: no layer has it any more.
    pub template: Option<TemplateNumber>,
    /// When it was made. For layers that come whole: when the box took the rule set, in this life
    /// of the process.
    pub created: UnixMillis,
}

impl Layers {
    /// Takes a rule set as the whole of a layer; names that are new in the layer get numbers.
    pub fn set(&mut self, layer: SentLayer, set: RuleSet, now: UnixMillis, changes: &mut Changes) {
        self.numbers.follow(layer, &set, changes);
        self.apply = set.apply;
        self.sent.insert(layer, Sent { set: Arc::new(set), taken: now });
        self.lay();
    }

    /// Takes a layer's rule set away, at once; its names keep their numbers.
    pub(super) fn clear(&mut self, layer: SentLayer) {
        self.apply = Apply::default();
        self.sent.remove(&layer);
        self.lay();
    }

    /// Closes the local layer for the life of the process: it counts for nothing, is not shown and
    /// cannot be changed. What is stored of it stays.
    pub fn close_local(&mut self) {
        self.local_closed = true;
        self.apply = Apply::default();
        self.lay();
    }

    /// All layers laid over each other. The same `Arc` as long as it says the same.
    #[must_use]
    pub fn table(&self) -> &Arc<RuleTable> {
        &self.table
    }

    /// How live sessions take the newest change: as its rule set says, and at once where the API
    /// made it.
    #[must_use]
    pub fn apply(&self) -> Apply {
        self.apply
    }

    /// The templates of all layers in the order of their numbers.
    #[must_use]
    pub fn templates(&self) -> Vec<NumberedTemplate> {
        let mut all: Vec<NumberedTemplate> = self.each_template().collect();
        all.sort_by_key(|one| one.number);
        all
    }

    /// The template of a number, in whatever layer it is.
    #[must_use]
    pub fn template(&self, number: TemplateNumber) -> Option<NumberedTemplate> {
        self.each_template().find(|one| one.number == number)
    }

    /// The number of a layer's template.
    #[must_use]
    pub fn number(&self, layer: Layer, name: &str) -> Option<TemplateNumber> {
        let is = |one: &NumberedTemplate| one.layer == layer && one.template.name == name;
        self.each_template().find(is).map(|one| one.number)
    }

    /// The rules of all layers, lowest layer first, each in the order of patterns. Shown are also
    /// those that another layer's rule for the same pattern replaces.
    #[must_use]
    pub fn rules(&self) -> Vec<ShownRule> {
        // A higher layer comes later and so replaces the lower.
        let numbers: HashMap<String, TemplateNumber> =
            self.each_template().map(|one| (one.template.name.clone(), one.number)).collect();
        let shown = |layer, pattern: &Pattern, template: &String, created| ShownRule {
            layer,
            pattern: pattern.clone(),
            template: numbers.get(template).copied(),
            created,
        };
        let mut rules = Vec::new();
        for (layer, sent) in &self.sent {
            let all = sent.set.rules.iter();
            rules.extend(
                all.map(|rule| shown((*layer).into(), &rule.pattern, &rule.template, sent.taken)),
            );
        }
        if let Some(local) = self.local() {
            let all = local.rules().iter();
            rules.extend(
                all.map(|(pattern, rule)| {
                    shown(Layer::Local, pattern, &rule.template, rule.created)
                }),
            );
        }
        rules.sort_by(|a, b| (a.layer, &a.pattern).cmp(&(b.layer, &b.pattern)));
        rules
    }

    /// Every template, lowest layer first.
    fn each_template(&self) -> impl Iterator<Item = NumberedTemplate> {
        let sent = self.sent.iter().flat_map(move |(layer, sent)| {
            sent.set.templates.iter().filter_map(move |template| {
                let number = self.numbers.of(*layer, &template.name)?;
                Some(NumberedTemplate {
                    number,
                    layer: (*layer).into(),
                    template: template.clone(),
                })
            })
        });
        let local =
            self.local().into_iter().flat_map(LocalLayer::templates).map(|(number, one)| {
                NumberedTemplate { number: *number, layer: Layer::Local, template: one.clone() }
            });
        sent.chain(local)
    }

    /// The local layer, if it counts.
    fn local(&self) -> Option<&LocalLayer> {
        (!self.local_closed).then_some(&self.local)
    }

    /// Makes the table anew. It stays the same one if it says the same.
    fn lay(&mut self) {
        let local = self.local().map(LocalLayer::rule_set);
        let sent = self.sent.iter().map(|(layer, sent)| (Layer::from(*layer), &*sent.set));
        let table = RuleTable::new(sent.chain(local.as_ref().map(|set| (Layer::Local, set))));
        if table != *self.table {
            self.table = Arc::new(table);
        }
    }

    pub(super) fn restore(&mut self, kind: Kind, key: &str, content: &str) -> Result<(), String> {
        match kind {
            Kind::Template => {
                let number = self.local.restore_template(key, content)?;
                self.numbers.was_given(number);
            }
            Kind::Rule => self.local.restore_rule(key, content)?,
            Kind::Counter if key == local::REVISION => self.local.restore_revision(content)?,
            _ => self.numbers.restore(kind, key, content)?,
        }
        self.lay();
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::rule_set::ApplyMode;
    use crate::domain::service::Service;

    pub(super) const NOW: UnixMillis = UnixMillis(1_743_484_094_000);

    pub(super) fn set(value: &Value) -> RuleSet {
        RuleSet::parse(value.to_string().as_bytes()).expect("valid")
    }

    /// A rule set with templates of these names, each for the stream of its name.
    pub(super) fn set_of(revision: u64, names: &[&str]) -> RuleSet {
        let template = |name: &&str| json!({"TemplateName": name, "FlvParam": {"Enable": 1}});
        let rule =
            |name: &&str| json!({"DomainName": "", "StreamName": name, "TemplateName": name});
        set(&json!({"revision": revision,
            "templates": names.iter().map(template).collect::<Vec<_>>(),
            "rules": names.iter().map(rule).collect::<Vec<_>>()}))
    }

    /// What would be read back after `changes` had been stored over `entries`.
    pub(super) fn stored(
        entries: &mut BTreeMap<(Kind, String), String>,
        changes: &Changes,
    ) -> Layers {
        for change in changes.iter() {
            let key = (change.kind, change.key.clone());
            match &change.content {
                Some(content) => entries.insert(key, content.clone()),
                None => entries.remove(&key),
            };
        }
        let mut service = Service::default();
        for ((kind, key), content) in entries.iter() {
            service.restore(*kind, key, content).expect("own form");
        }
        service.layers
    }

    fn numbers(layers: &Layers) -> Vec<(String, u64)> {
        let name = |one: &NumberedTemplate| format!("{}/{}", one.layer, one.template.name);
        layers.templates().iter().map(|one| (name(one), one.number.0)).collect()
    }

    fn named(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    #[test]
    fn names_get_numbers_once_and_keep_them_over_a_restart() {
        let (mut layers, mut entries) = (Layers::default(), BTreeMap::new());
        let mut changes = Changes::new();
        layers.set(SentLayer::Fleet, set_of(1, &["a", "b"]), NOW, &mut changes);
        layers.set(SentLayer::Box, set_of(1, &["a"]), NOW, &mut changes);
        let expected = named(&[("fleet/a", 1_000), ("fleet/b", 1_001), ("box/a", 1_002)]);
        assert_eq!(numbers(&layers), expected);
        let mut again = stored(&mut entries, &changes);
        assert!(again.templates().is_empty(), "documents are kept elsewhere");
        let mut changes = Changes::new();
        again.set(SentLayer::Box, set_of(1, &["a"]), NOW, &mut changes);
        again.set(SentLayer::Fleet, set_of(2, &["b", "a"]), NOW, &mut changes);
        assert_eq!(numbers(&again), expected);
        assert!(changes.is_empty(), "nothing new to store: {changes:?}");
        // A name that goes and comes back is the same one: callers hold on to its number.
        again.set(SentLayer::Fleet, set_of(3, &["c"]), NOW, &mut changes);
        again.set(SentLayer::Fleet, set_of(4, &["a", "c"]), NOW, &mut changes);
        let expected = named(&[("fleet/a", 1_000), ("box/a", 1_002), ("fleet/c", 1_003)]);
        assert_eq!(numbers(&again), expected);
    }

    #[test]
    fn the_table_is_another_one_only_if_it_says_something_else() {
        let mut layers = Layers::default();
        let mut changes = Changes::new();
        layers.set(SentLayer::Fleet, set_of(1, &["a"]), NOW, &mut changes);
        let first = layers.table().clone();
        layers.set(SentLayer::Fleet, set_of(1, &["a"]), NOW, &mut changes);
        assert!(Arc::ptr_eq(&first, layers.table()));
        let mut next = set_of(2, &["a"]);
        next.apply.mode = ApplyMode::NextStart;
        layers.set(SentLayer::Fleet, next, NOW, &mut changes);
        assert!(!Arc::ptr_eq(&first, layers.table()));
        assert_eq!(layers.apply().mode, ApplyMode::NextStart);
    }

    #[test]
    fn rules_are_shown_with_the_template_that_counts() {
        let mut layers = Layers::default();
        let mut changes = Changes::new();
        layers.set(SentLayer::Fleet, set_of(1, &["a", "b"]), NOW, &mut changes);
        layers.set(SentLayer::Box, set_of(1, &["b"]), NOW, &mut changes);
        let shown: Vec<String> = layers
            .rules()
            .iter()
            .map(|rule| format!("{} {} {:?}", rule.layer, rule.pattern, rule.template.map(|n| n.0)))
            .collect();
        assert_eq!(
            shown,
            ["fleet */live/a Some(1000)", "fleet */live/b Some(1002)", "box */live/b Some(1002)"]
        );
        assert!(layers.rules().iter().all(|rule| rule.created == NOW));
    }
}
