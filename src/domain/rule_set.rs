//! Rule sets: templates, rules, sources and callbacks under one revision. A document is taken
//! whole or refused whole, with every fault and its place.
//!
//! A rule set stands on its own: its rules name its own templates, so that it means the same
//! whatever order the layers arrive in.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::address::Address;
use crate::domain::document::{Fields, Json};
use crate::domain::faults::{Faults, quoted};
use crate::domain::limits::{STREAM_KEY_PART_BYTES_MAX, STREAMS_MAX};
use crate::domain::secret::Secret;
use crate::domain::source::Source;
use crate::domain::stream_key::{StreamKey, percent_encode};
use crate::domain::template::Template;
use crate::domain::time::UnixMillis;

/// Longest rule set, in bytes.
pub const RULE_SET_BYTES_MAX: usize = 1 << 20;
/// Templates of one rule set.
pub const TEMPLATES_MAX: usize = 256;
/// Rules of one rule set.
pub const RULES_MAX: usize = 10_000;
/// Callback rules of one rule set.
pub const CALLBACKS_MAX: usize = 256;
/// Longest time over which restarts are spread, in seconds.
const WITHIN_S_MAX: i64 = 86_400;
/// Longest callback key, in letters and digits.
const CALLBACK_KEY_MAX: usize = 32;
/// The AppName of a rule that names none.
pub const APP_DEFAULT: &str = "live";

/// A checked rule set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// Grows with each change of the layer; from 1.
    pub revision: u64,
    /// How running sessions take it.
    pub apply: Apply,
    /// Templates; names are unique.
    pub templates: Vec<Arc<Template>>,
    /// Rules; patterns are unique, and each names a template above.
    pub rules: Vec<Rule>,
    /// Cameras; stream keys are unique.
    pub sources: Vec<Source>,
    /// Callbacks; (domain, app) is unique.
    pub callbacks: Vec<Callback>,
    /// For which boxes a signed document is.
    pub scope: Scope,
}

/// How running sessions take a new rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apply {
    /// At once or when the stream comes back.
    pub mode: ApplyMode,
    /// Restarts are spread over this time, in seconds.
    pub within_s: u32,
    /// Drop the pusher instead of cutting its session.
    pub disconnect: bool,
}

/// When stale sessions take a new rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyMode {
    /// They are restarted.
    Restart,
    /// They go on until the stream ends by itself.
    NextStart,
}

/// Which streams a rule is for; an empty part is a wildcard.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    domain: Box<str>,
    app: Box<str>,
    stream: Box<str>,
}

/// Binds a template to a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which streams.
    pub pattern: Pattern,
    /// Which template, by name.
    pub template: String,
}

/// Where events of some streams are posted. The stream of its pattern is a wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Which streams: domain and app.
    pub pattern: Pattern,
    /// Where to.
    pub url: Address,
    /// Key of the signature; empty for none.
    pub key: Secret,
}

/// The boxes that a signed document is for; not given in an unsigned one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// The fleet.
    pub fleet: Option<String>,
    /// One box of it.
    pub box_id: Option<String>,
    /// Not to be taken after this.
    pub expires: Option<UnixMillis>,
}

/// At once.
impl Default for Apply {
    fn default() -> Self {
        Apply { mode: ApplyMode::Restart, within_s: 0, disconnect: false }
    }
}

impl Pattern {
    /// A pattern of three parts, each empty for a wildcard. The domain is put in lower case.
    #[must_use]
    pub fn new(domain: &str, app: &str, stream: &str) -> Self {
        Pattern { domain: domain.to_lowercase().into(), app: app.into(), stream: stream.into() }
    }

    /// The domain in lower case; empty for all.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The application; empty for all.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    /// The stream name; empty for all.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Whether the pattern covers `key`.
    #[must_use]
    pub fn covers(&self, key: &StreamKey) -> bool {
        let fits = |part: &str, given: &str| part.is_empty() || part == given;
        fits(&self.domain, key.domain())
            && fits(&self.app, key.app())
            && fits(&self.stream, key.stream())
    }

    /// Which of stream, domain and app are given, in the order in which they are compared: the
    /// larger wins.
    #[must_use]
    pub fn specificity(&self) -> (bool, bool, bool) {
        (!self.stream.is_empty(), !self.domain.is_empty(), !self.app.is_empty())
    }
}

/// `domain/app/stream`, each part percent-encoded, `*` for a wildcard.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |part: &str| if part.is_empty() { "*".into() } else { percent_encode(part) };
        write!(f, "{}/{}/{}", shown(&self.domain), shown(&self.app), shown(&self.stream))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl RuleSet {
    /// Parses a document of at most [`RULE_SET_BYTES_MAX`].
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<RuleSet, Faults> {
        let mut faults = Faults::new();
        let read = match Json::parse(bytes, RULE_SET_BYTES_MAX) {
            Ok(json) => Fields::open(&json, "", &mut faults)
                .and_then(|fields| RuleSet::read(fields, &mut faults)),
            Err(fault) => {
                faults.add(fault.place, fault.what);
                None
            }
        };
        match read {
            Some(rule_set) if faults.is_empty() => Ok(rule_set),
            _ => Err(faults),
        }
    }

    /// The template called `name`.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<&Arc<Template>> {
        self.templates.iter().find(|template| template.name == name)
    }

    fn read(mut fields: Fields<'_>, faults: &mut Faults) -> Option<RuleSet> {
        let place = fields.place_of("revision");
        let revision_given = fields.take("revision");
        let revision = match revision_given {
            Some(Json::Number(number)) => {
                number.as_i64().and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)
            }
            _ => None,
        };
        if revision.is_none() {
            let what = if revision_given.is_some() {
                "is not a whole number from 1"
            } else {
                "is missing"
            };
            faults.add(place, what);
        }
        let apply = read_apply(&mut fields, faults);
        let templates = read_templates(&mut fields, faults);
        let rules = read_rules(&mut fields, &templates.names, faults);
        let sources = read_sources(&mut fields, faults);
        let callbacks = read_callbacks(&mut fields, faults);
        let scope = read_scope(&mut fields, faults);
        fields.finish(faults);
        let templates = templates.read;
        Some(RuleSet { revision: revision?, apply, templates, rules, sources, callbacks, scope })
    }
}

fn read_apply(fields: &mut Fields<'_>, faults: &mut Faults) -> Apply {
    let mut apply = Apply::default();
    let Some(mut given) = fields.object("apply", faults) else { return apply };
    let place = given.place_of("mode");
    match given.text("mode", 64, faults) {
        None | Some("restart") => {}
        Some("next_start") => apply.mode = ApplyMode::NextStart,
        Some(other) => {
            faults.add(place, format!("{} is neither `restart` nor `next_start`", quoted(other)));
        }
    }
    if let Some(within) = given.integer("within_s", 0..=WITHIN_S_MAX, faults) {
        apply.within_s = u32::try_from(within).expect("in range");
    }
    apply.disconnect = given.flag("disconnect", faults).unwrap_or(false);
    given.finish(faults);
    apply
}

/// Templates, and the names of all that were given: a rule that names a faulty template is not
/// at fault itself.
struct Templates {
    read: Vec<Arc<Template>>,
    names: HashSet<String>,
}

fn read_templates(fields: &mut Fields<'_>, faults: &mut Faults) -> Templates {
    let mut templates = Templates { read: Vec::new(), names: HashSet::new() };
    for (place, value) in fields.list("templates", TEMPLATES_MAX, faults) {
        let Some(fields) = Fields::open(value, &place, faults) else { continue };
        let Some(template) = Template::read(fields, faults) else { continue };
        if templates.names.insert(template.name.clone()) {
            templates.read.push(Arc::new(template));
        } else {
            let what = format!("{} is the name of another template", quoted(&template.name));
            faults.add(format!("{place}.TemplateName"), what);
        }
    }
    templates
}

fn read_rules(fields: &mut Fields<'_>, names: &HashSet<String>, faults: &mut Faults) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut patterns = HashSet::new();
    for (place, value) in fields.list("rules", RULES_MAX, faults) {
        let Some(mut rule) = Fields::open(value, &place, faults) else { continue };
        let domain = rule.required_text("DomainName", STREAM_KEY_PART_BYTES_MAX, faults);
        let app = read_app(&mut rule, faults);
        let stream = rule.text("StreamName", STREAM_KEY_PART_BYTES_MAX, faults).unwrap_or("");
        let pattern = Pattern::new(domain.unwrap_or(""), app, stream);
        let template_place = rule.place_of("TemplateName");
        let template = rule.required_text("TemplateName", usize::MAX, faults);
        rule.finish(faults);
        if let Some(template) = template.filter(|name| !names.contains(*name)) {
            let what = format!("no template is called {}", quoted(template));
            faults.add(template_place, what);
        }
        if domain.is_some() && !patterns.insert(pattern.clone()) {
            faults.add(place, format!("another rule is for {pattern} already"));
        } else if let Some(template) = template {
            rules.push(Rule { pattern, template: template.to_owned() });
        }
    }
    rules
}

/// "Not given" and "empty" are two things: the first is `live`, the second a wildcard.
fn read_app<'a>(fields: &mut Fields<'a>, faults: &mut Faults) -> &'a str {
    fields.text("AppName", STREAM_KEY_PART_BYTES_MAX, faults).unwrap_or(APP_DEFAULT)
}

fn read_sources(fields: &mut Fields<'_>, faults: &mut Faults) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut keys = HashSet::new();
    for (place, value) in fields.list("sources", STREAMS_MAX, faults) {
        let Some(fields) = Fields::open(value, &place, faults) else { continue };
        let Some(source) = Source::read(fields, faults) else { continue };
        if keys.insert(source.key.clone()) {
            sources.push(source);
        } else {
            faults.add(place, format!("another source is {} already", source.key));
        }
    }
    sources
}

fn read_callbacks(fields: &mut Fields<'_>, faults: &mut Faults) -> Vec<Callback> {
    let mut callbacks = Vec::new();
    let mut patterns = HashSet::new();
    for (place, value) in fields.list("callbacks", CALLBACKS_MAX, faults) {
        let Some(mut callback) = Fields::open(value, &place, faults) else { continue };
        let domain = callback.required_text("DomainName", STREAM_KEY_PART_BYTES_MAX, faults);
        let app = read_app(&mut callback, faults);
        let pattern = Pattern::new(domain.unwrap_or(""), app, "");
        let url_place = callback.place_of("Url");
        let url = callback.required_text("Url", usize::MAX, faults).and_then(|text| {
            Address::parse(text, &["http", "https"])
                .map_err(|error| faults.add(url_place, error.to_string()))
                .ok()
        });
        let key_place = callback.place_of("Key");
        let key = callback.text("Key", usize::MAX, faults).unwrap_or("");
        if key.len() > CALLBACK_KEY_MAX || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let what = format!("is not at most {CALLBACK_KEY_MAX} letters and digits");
            faults.add(key_place, what);
        }
        callback.finish(faults);
        if domain.is_some() && !patterns.insert(pattern.clone()) {
            faults.add(place, format!("another callback is for {pattern} already"));
        } else if let Some(url) = url {
            callbacks.push(Callback { pattern, url, key: Secret::new(key) });
        }
    }
    callbacks
}

/// Reads for which boxes a document or command is.
pub(in crate::domain) fn read_scope(fields: &mut Fields<'_>, faults: &mut Faults) -> Scope {
    let mut name = |member: &str| {
        let text = fields.text(member, STREAM_KEY_PART_BYTES_MAX, faults)?;
        Some(text.to_owned())
    };
    let (fleet, box_id) = (name("fleet"), name("box"));
    let place = fields.place_of("expires");
    let given = fields.take("expires");
    let expires = given.and_then(read_time);
    // What is given and not understood must not count as "never".
    if given.is_some() && expires.is_none() {
        faults.add(place, "is neither seconds since 1970 nor a time like 2026-01-31T00:00:00Z");
    }
    Scope { fleet, box_id, expires }
}

/// Seconds since 1970, or RFC 3339.
fn read_time(json: &Json) -> Option<UnixMillis> {
    match json {
        Json::Number(seconds) => seconds.as_i64()?.checked_mul(1_000).map(UnixMillis),
        Json::Text(text) => {
            text.parse().ok().map(|time: Timestamp| UnixMillis(time.as_millisecond()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::source::Transport;

    const EXAMPLE: &str = r#"{ "revision": 41, "apply": {"mode": "restart", "within_s": 0},
      "templates": [ {"TemplateName": "venue", "HlsParam": {"Enable": 1},
                      "HlsSpecialParam": {"FlowContinueDuration": 300}} ],
      "rules":     [ {"DomainName": "", "AppName": "live", "StreamName": "",
                      "TemplateName": "venue"} ],
      "sources":   [ {"DomainName": "cams", "AppName": "live", "StreamName": "gate",
                      "Url": "rtsp://admin:canary@10.0.0.8/main", "Transport": "udp",
                      "OnFull": "keep_undelivered"} ],
      "callbacks": [ {"DomainName": "", "AppName": "", "Url": "https://a.example/hook",
                      "Key": "Canary1"} ] }"#;

    fn faults_of(text: &str) -> String {
        RuleSet::parse(text.as_bytes()).expect_err("faulty").to_string()
    }

    #[test]
    fn example_of_the_design() {
        let set = RuleSet::parse(EXAMPLE.as_bytes()).expect("valid");
        assert_eq!(set.revision, 41);
        assert_eq!(set.apply.mode, ApplyMode::Restart);
        assert_eq!(set.template("venue").expect("there").flow_continue_s, 300);
        assert_eq!(set.rules[0].pattern.to_string(), "*/live/*");
        assert_eq!(set.sources[0].key.to_string(), "cams/live/gate");
        assert_eq!(set.sources[0].transport, Transport::Udp);
        assert_eq!(set.callbacks[0].key.expose(), "Canary1");
        let debug = format!("{set:?}").to_lowercase();
        assert!(!debug.contains("canary"), "{debug}");
    }

    #[test]
    fn absent_app_is_live_and_empty_is_a_wildcard() {
        let set = RuleSet::parse(
            br#"{"revision": 1, "templates": [{"TemplateName": "t"}],
            "rules": [{"DomainName": "A.b", "TemplateName": "t"},
                      {"DomainName": "A.b", "AppName": "", "TemplateName": "t"}]}"#,
        )
        .expect("valid");
        let shown: Vec<String> = set.rules.iter().map(|rule| rule.pattern.to_string()).collect();
        assert_eq!(shown, ["a.b/live/*", "a.b/*/*"]);
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        let faults = faults_of(
            r#"{"revision": 0, "surprise": 1, "apply": {"mode": "later", "within_s": -1},
            "templates": [{"TemplateName": "a"}, {"TemplateName": "a"},
                          {"TemplateName": "b", "FlvParam": {"RecordInterval": 5}}, 7],
            "rules": [{"DomainName": "", "TemplateName": "b"},
                      {"DomainName": "", "AppName": "live", "TemplateName": "a"},
                      {"DomainName": "d", "TemplateName": "nope"}, {"TemplateName": "a"}],
            "sources": [{"DomainName": "c", "AppName": "live", "StreamName": "",
                         "Url": "rtsp://h/"},
                        {"DomainName": "c", "AppName": "live", "StreamName": "s",
                         "Url": "http://user:canary@h/", "Transport": "quic"}],
            "callbacks": [{"DomainName": "d", "AppName": "a", "Url": "ftp://h/", "Key": "k-1"}],
            "expires": "soon"}"#,
        );
        assert_eq!(
            faults,
            "revision: is not a whole number from 1\n\
             apply.mode: `later` is neither `restart` nor `next_start`\n\
             apply.within_s: -1 is outside 0..=86400\n\
             templates[1].TemplateName: `a` is the name of another template\n\
             templates[2].FlvParam.RecordInterval: 5 is outside 60..=43200\n\
             templates[3]: is a number, an object is expected\n\
             rules[1]: another rule is for */live/* already\n\
             rules[2].TemplateName: no template is called `nope`\n\
             rules[3].DomainName: is missing\n\
             sources[0].StreamName: is empty; a source is one stream\n\
             sources[1].Url: begins with `http:`, allowed is rtsp://\n\
             sources[1].Transport: `quic` is neither `tcp` nor `udp`\n\
             callbacks[0].Url: begins with `ftp:`, allowed is http:// or https://\n\
             callbacks[0].Key: is not at most 32 letters and digits\n\
             expires: is neither seconds since 1970 nor a time like 2026-01-31T00:00:00Z\n\
             surprise: is not a known field"
        );
    }

    #[test]
    fn documents_that_are_none_are_refused() {
        for (bytes, what) in [
            (&b""[..], "is not valid JSON"),
            (b"\xef\xbb\xbf{}", "is not valid JSON"),
            (b"[]", "is an array, an object is expected"),
            (b"{}", "revision: is missing"),
            (br#"{"revision": NaN}"#, "is not valid JSON"),
            (br#"{"revision": "1"}"#, "revision: is not a whole number from 1"),
            (br#"{"revision": 1, "revision": 2}"#, "revision: is given twice"),
            (br#"{"revision": 1, "rules": {}}"#, "rules: is an object, an array is expected"),
        ] {
            let faults = RuleSet::parse(bytes).expect_err("refused").to_string();
            assert!(faults.starts_with(what), "{faults}");
        }
        let long = vec![b' '; RULE_SET_BYTES_MAX + 1];
        assert!(RuleSet::parse(&long).is_err());
        let many = vec![r#"{"TemplateName": ""}"#; TEMPLATES_MAX + 1].join(",");
        let faults = faults_of(&format!(r#"{{"revision": 1, "templates": [{many}]}}"#));
        assert_eq!(faults, "templates: has 257 elements, 256 are allowed");
    }

    #[test]
    fn scope_of_a_signed_document() {
        let parse = |expires: &str| {
            let text =
                format!(r#"{{"revision": 1, "fleet": "f", "box": "b", "expires": {expires}}}"#);
            RuleSet::parse(text.as_bytes()).expect("valid").scope
        };
        let expected = Scope {
            fleet: Some("f".into()),
            box_id: Some("b".into()),
            expires: Some(UnixMillis(1_767_225_600_000)),
        };
        assert_eq!(parse("1767225600"), expected);
        assert_eq!(parse("\"2026-01-01T08:00:00+08:00\""), expected);
    }

    proptest! {
        #[test]
        fn mutated_documents_never_panic(at in 0..EXAMPLE.len(), byte: u8, cut in 0..EXAMPLE.len()) {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = RuleSet::parse(&bytes);
            let _ = RuleSet::parse(&bytes[..cut]);
        }
    }
}
