//! Which rule decides about a stream. The most specific pattern wins: compared are "stream given",
//! then "domain given", then "app given". Among layers an entry of the same pattern or name
//! replaces the one below: local over box over fleet.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::domain::rule_set::{Callback, Pattern, RuleSet};
use crate::domain::source::Source;
use crate::domain::stream_key::StreamKey;
use crate::domain::template::Template;

/// Where a rule set comes from; the later replaces the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// The fleet's, or the file's where there is no fleet.
    Fleet,
    /// The fleet's for this one box.
    Box,
    /// What the API of the box made.
    Local,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Fleet => "fleet",
            Layer::Box => "box",
            Layer::Local => "local",
        })
    }
}

/// What the rules say about a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is recorded.
    Record(Match),
    /// The rule that matched says that it is not recorded.
    NoRecord(Match),
    /// No rule matches: it is not recorded.
    Unmatched,
}

/// The rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Its pattern.
    pub rule: Pattern,
    /// The layer of the rule.
    pub layer: Layer,
    /// The revision of that layer.
    pub revision: u64,
    /// The template, of the highest layer that has one of this name.
    pub template: Arc<Template>,
    /// The layer of the template.
    pub template_layer: Layer,
}

impl Decision {
    /// The word for reports: `record`, `norecord` or `unmatched`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Decision::Record(_) => "record",
            Decision::NoRecord(_) => "norecord",
            Decision::Unmatched => "unmatched",
        }
    }

    /// The rule that decided, if one did.
    #[must_use]
    pub fn matched(&self) -> Option<&Match> {
        match self {
            Decision::Record(matched) | Decision::NoRecord(matched) => Some(matched),
            Decision::Unmatched => None,
        }
    }

    /// The template to record with, if the stream is recorded.
    #[must_use]
    pub fn template(&self) -> Option<&Arc<Template>> {
        match self {
            Decision::Record(matched) => Some(&matched.template),
            Decision::NoRecord(_) | Decision::Unmatched => None,
        }
    }

    /// Whether both ask for the same, whatever the names of rules and templates: a session that
    /// began under one is not stale under the other.
    #[must_use]
    pub fn same_content(&self, other: &Decision) -> bool {
        match (self.template(), other.template()) {
            (Some(ours), Some(theirs)) => ours.same_content(theirs),
            (None, None) => self.word() == other.word(),
            _ => false,
        }
    }

    /// Why, in one sentence.
    #[must_use]
    pub fn reason(&self) -> String {
        let Some(matched) = self.matched() else {
            return "no rule matches this stream, so it is not recorded".to_owned();
        };
        let Match { rule, layer, revision, template, template_layer } = matched;
        let given = match rule.specificity() {
            (true, true, true) => "it names the stream, the domain and the app",
            (true, true, false) => "it names the stream and the domain",
            (true, false, true) => "it names the stream and the app",
            (true, false, false) => "it names the stream",
            (false, true, true) => "it names the domain and the app",
            (false, true, false) => "it names the domain",
            (false, false, true) => "it names the app",
            (false, false, false) => "it is for every stream",
        };
        let of_layer = if layer == template_layer {
            String::new()
        } else {
            format!(" (as the {template_layer} layer has it)")
        };
        let what = if template.formats().is_empty() {
            "has no format, so the stream is not recorded".to_owned()
        } else {
            let names: Vec<&str> = template.formats().iter().map(|format| format.name()).collect();
            format!("records {}", names.join(", "))
        };
        let name = &template.name;
        format!(
            "rule {rule} of the {layer} layer, revision {revision}, is the most specific that \
             matches: {given}; its template {name}{of_layer} {what}"
        )
    }
}

/// All layers, laid over each other. Looking up a stream costs the same whatever the number of
/// rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleTable {
    rules: HashMap<Pattern, Match>,
    /// Rules that count for nothing, as no layer has their template: layer and template.
    idle: HashMap<Pattern, (Layer, String)>,
    sources: HashMap<StreamKey, (Layer, Source)>,
    callbacks: HashMap<Pattern, Callback>,
}

impl RuleTable {
    /// Lays the rule sets over each other, whatever order they come in.
    #[must_use]
    pub fn new<'a>(layers: impl IntoIterator<Item = (Layer, &'a RuleSet)>) -> Self {
        let mut layers: Vec<(Layer, &RuleSet)> = layers.into_iter().collect();
        layers.sort_by_key(|(layer, _)| *layer);
        let mut templates: HashMap<&str, (Layer, &Arc<Template>)> = HashMap::new();
        for (layer, set) in &layers {
            for template in &set.templates {
                templates.insert(&template.name, (*layer, template));
            }
        }
        let mut table = RuleTable::default();
        for (layer, set) in &layers {
            for rule in &set.rules {
                // A checked rule set has the templates that its rules name; a rule of the local
                // layer may name one of another layer, which may lose it.
                let Some((template_layer, template)) = templates.get(rule.template.as_str()) else {
                    table.idle.insert(rule.pattern.clone(), (*layer, rule.template.clone()));
                    continue;
                };
                table.idle.remove(&rule.pattern);
                let matched = Match {
                    rule: rule.pattern.clone(),
                    layer: *layer,
                    revision: set.revision,
                    template: Arc::clone(template),
                    template_layer: *template_layer,
                };
                table.rules.insert(rule.pattern.clone(), matched);
            }
            for source in &set.sources {
                table.sources.insert(source.key.clone(), (*layer, source.clone()));
            }
            for callback in &set.callbacks {
                table.callbacks.insert(callback.pattern.clone(), callback.clone());
            }
        }
        table
    }

    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules say about `key`.
    #[must_use]
    pub fn resolve(&self, key: &StreamKey) -> Decision {
        let matched = candidates(key).into_iter().find_map(|pattern| self.rules.get(&pattern));
        match matched {
            None => Decision::Unmatched,
            Some(matched) if matched.template.formats().is_empty() => {
                Decision::NoRecord(matched.clone())
            }
            Some(matched) => Decision::Record(matched.clone()),
        }
    }

    /// Says that a rule would decide about `key` if some layer still had its template.
    #[must_use]
    pub fn idle_reason(&self, key: &StreamKey) -> Option<String> {
        let first = candidates(key)
            .into_iter()
            .find(|pattern| self.idle.contains_key(pattern) || self.rules.contains_key(pattern))?;
        let (layer, template) = self.idle.get(&first)?;
        Some(format!(
            "rule {first} of the {layer} layer counts for nothing, as no layer has its template \
             {template} any more"
        ))
    }

    /// Where the events of `key` are posted: "domain given" wins over "app given".
    #[must_use]
    pub fn callback(&self, key: &StreamKey) -> Option<&Callback> {
        candidates(key).into_iter().find_map(|pattern| self.callbacks.get(&pattern))
    }

    /// The camera of a stream.
    #[must_use]
    pub fn source(&self, key: &StreamKey) -> Option<&Source> {
        self.sources.get(key).map(|(_, source)| source)
    }

    /// Whether a live stream has something to take from `next`: it is to be recorded otherwise, or
    /// pulled from elsewhere.
    #[must_use]
    pub fn differs(&self, next: &RuleTable, key: &StreamKey) -> bool {
        self.moves(next, key) || !self.resolve(key).same_content(&next.resolve(key))
    }

    /// Whether `next` has a live stream pulled from elsewhere, or with other credentials.
    #[must_use]
    pub fn moves(&self, next: &RuleTable, key: &StreamKey) -> bool {
        let goes_on = |next| self.source(key).is_some_and(|before| before.is_reached_as(next));
        next.source(key).is_some_and(|next| !goes_on(next))
    }

    /// The cameras to pull, in the order of their keys, each with its layer.
    #[must_use]
    pub fn sources(&self) -> Vec<(Layer, &Source)> {
        let mut sources: Vec<(Layer, &Source)> =
            self.sources.values().map(|(layer, source)| (*layer, source)).collect();
        sources.sort_by(|a, b| a.1.key.cmp(&b.1.key));
        sources
    }
}

/// The eight patterns that cover a stream, the one that wins first.
fn candidates(key: &StreamKey) -> [Pattern; 8] {
    std::array::from_fn(|index| {
        let part = |bit: usize, text| if index & bit == 0 { text } else { "" };
        Pattern::new(part(2, key.domain()), part(1, key.app()), part(4, key.stream()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::rule_set::Rule;

    fn set(value: &Value) -> RuleSet {
        RuleSet::parse(value.to_string().as_bytes()).expect("valid")
    }

    fn key(text: &str) -> StreamKey {
        text.parse().expect("key")
    }

    #[test]
    fn contract_cases() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/data/rule_priority.json"))
                .expect("JSON");
        let tests = vectors["tests"].as_array().expect("tests");
        assert!(!tests.is_empty());
        for test in tests {
            let ids = test["rules"].as_array().expect("ids");
            // Each rule's template carries the rule's id as its name.
            let templates: Vec<Value> = ids
                .iter()
                .map(|id| json!({"TemplateName": id, "FlvParam": {"Enable": 1}}))
                .collect();
            let rules: Vec<Value> = vectors["rules"]
                .as_array()
                .expect("rules")
                .iter()
                .filter(|rule| ids.contains(&rule["id"]))
                .map(|rule| {
                    json!({"DomainName": rule["DomainName"], "AppName": rule["AppName"],
                           "StreamName": rule["StreamName"], "TemplateName": rule["id"]})
                })
                .collect();
            let set = set(&json!({"revision": 1, "templates": templates, "rules": rules}));
            let part = |name: &str| test[name].as_str().expect("text");
            let key =
                StreamKey::new(part("domain"), part("app"), part("stream")).expect("valid key");
            let decision = RuleTable::new([(Layer::Fleet, &set)]).resolve(&key);
            let rule = decision.template().map(|template| template.name.as_str());
            assert_eq!(rule, test["expect_rule"].as_str(), "{}", test["basis"]);
        }
    }

    #[test]
    fn a_norecord_rule_hides_what_is_less_specific() {
        let set = set(&json!({"revision": 7,
            "templates": [{"TemplateName": "never"},
                          {"TemplateName": "all", "HlsParam": {"Enable": 1}}],
            "rules": [{"DomainName": "", "StreamName": "secret", "AppName": "",
                       "TemplateName": "never"},
                      {"DomainName": "cams", "AppName": "", "TemplateName": "all"}]}));
        let table = RuleTable::new([(Layer::Fleet, &set)]);
        let hidden = table.resolve(&key("cams/live/secret"));
        assert_eq!(hidden.word(), "norecord");
        assert_eq!(hidden.template(), None);
        assert_eq!(
            hidden.reason(),
            "rule */*/secret of the fleet layer, revision 7, is the most specific that matches: \
             it names the stream; its template never has no format, so the stream is not recorded"
        );
        assert_eq!(table.resolve(&key("cams/live/gate")).word(), "record");
        assert_eq!(table.resolve(&key("other/live/gate")), Decision::Unmatched);
    }

    #[test]
    fn a_higher_layer_replaces_same_patterns_and_names() {
        let template =
            |name: &str, format: &str| json!({"TemplateName": name, format: {"Enable": 1}});
        let rule = |domain: &str, stream: &str, template: &str| json!({"DomainName": domain, "StreamName": stream, "TemplateName": template});
        let camera = |url: &str| json!({"DomainName": "cams", "AppName": "live", "StreamName": "gate", "Url": url});
        let hook = |domain: &str, app: &str, url: &str| json!({"DomainName": domain, "AppName": app, "Url": url});
        let fleet = set(&json!({"revision": 1, "templates": [template("t", "FlvParam")],
            "rules": [rule("", "", "t"), rule("cams", "gate", "t")],
            "sources": [camera("rtsp://old/")],
            "callbacks": [hook("", "live", "http://app/"), hook("cams", "", "http://domain/")]}));
        let on_box = set(&json!({"revision": 2, "templates": [template("t", "HlsParam")],
            "sources": [camera("rtsp://new/")],
            "callbacks": [hook("", "live", "http://box-app/")]}));
        let local = set(&json!({"revision": 3, "templates": [template("mine", "Mp4Param")],
            "rules": [rule("", "", "mine")]}));
        let table =
            RuleTable::new([(Layer::Local, &local), (Layer::Fleet, &fleet), (Layer::Box, &on_box)]);
        let gate = table.resolve(&key("cams/live/gate"));
        let matched = gate.matched().expect("matched");
        assert_eq!((matched.layer, matched.revision), (Layer::Fleet, 1));
        assert_eq!(matched.template_layer, Layer::Box);
        assert!(gate.reason().ends_with("template t (as the box layer has it) records hls"));
        let other = table.resolve(&key("cams/live/yard"));
        let matched = other.matched().expect("matched");
        assert_eq!((matched.layer, matched.template.name.as_str()), (Layer::Local, "mine"));
        let [(Layer::Box, source)] = table.sources()[..] else { panic!("one source, of the box") };
        assert_eq!(source.url.expose(), "rtsp://new/");
        let url = |text: &str| table.callback(&key(text)).map(|callback| callback.url.expose());
        assert_eq!(url("cams/live/gate"), Some("http://domain/"));
        assert_eq!(url("other/live/gate"), Some("http://box-app/"));
        assert_eq!(url("other/app/gate"), None);
    }

    #[test]
    fn a_rule_without_its_template_counts_for_nothing_and_says_so() {
        let fleet = set(&json!({"revision": 1,
            "templates": [{"TemplateName": "venue", "HlsParam": {"Enable": 1}}],
            "rules": [{"DomainName": "", "AppName": "", "TemplateName": "venue"},
                      {"DomainName": "cams", "StreamName": "yard", "TemplateName": "venue"}]}));
        let rule = |stream: &str, template: &str| Rule {
            pattern: Pattern::new("cams", "live", stream),
            template: template.to_owned(),
        };
        let mut local = RuleSet { templates: Vec::new(), ..fleet.clone() };
        local.rules = vec![rule("gate", "venue"), rule("yard", "gone"), rule("", "gone")];
        let table = RuleTable::new([(Layer::Fleet, &fleet), (Layer::Local, &local)]);
        let layer = |text: &str| table.resolve(&key(text)).matched().expect("matched").layer;
        assert_eq!(layer("cams/live/gate"), Layer::Local);
        assert_eq!(layer("cams/live/yard"), Layer::Fleet, "the rule it replaced counts again");
        assert_eq!(layer("cams/live/hall"), Layer::Fleet, "and so do less specific ones");
        let reason = |text: &str| table.idle_reason(&key(text));
        assert_eq!(reason("cams/live/gate"), None, "a more specific rule decides");
        assert_eq!(
            reason("cams/live/yard").expect("said"),
            "rule cams/live/yard of the local layer counts for nothing, as no layer has its \
             template gone any more"
        );
        assert!(reason("cams/live/hall").expect("said").starts_with("rule cams/live/* of"));
        assert_eq!(reason("other/live/hall"), None);
    }

    proptest! {
        /// The eight look-ups agree with the plain definition: of all that cover the stream, the
        /// one with the largest (stream given, domain given, app given).
        #[test]
        fn look_up_agrees_with_the_definition(
            patterns in proptest::collection::hash_set(("[ab]?", "[ab]?", "[ab]?"), 0..27),
            parts in ("[ab]", "[ab]", "[ab]"),
        ) {
            let rules: Vec<Value> = patterns
                .iter()
                .map(|(domain, app, stream)| {
                    json!({"DomainName": domain, "AppName": app, "StreamName": stream,
                           "TemplateName": "t"})
                })
                .collect();
            let set = set(&json!({"revision": 1, "rules": rules,
                "templates": [{"TemplateName": "t", "FlvParam": {"Enable": 1}}]}));
            let key = StreamKey::new(&parts.0, &parts.1, &parts.2).expect("valid");
            let expected = set
                .rules
                .iter()
                .map(|rule| &rule.pattern)
                .filter(|pattern| pattern.covers(&key))
                .max_by_key(|pattern| pattern.specificity());
            let decision = RuleTable::new([(Layer::Fleet, &set)]).resolve(&key);
            prop_assert_eq!(decision.matched().map(|matched| &matched.rule), expected);
        }
    }
}
