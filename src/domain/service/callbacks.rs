//! Callback templates and rules of the local layer, and where the events of a stream go.
//!
//! A rule binds a template to (domain, app), each a wildcard if empty; the most specific rule
//! decides, "domain given" before "app given". It decides alone: an event for which its template
//! has no URL is not told, whatever the rule sets or the configuration say.
//!
//! A box takes no screenshots, reviews nothing and mixes nothing: the URLs for that are kept and
//! shown as they were given, and never called.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::address::Address;
use crate::domain::faults::quoted;
use crate::domain::notice::Event;
use crate::domain::record_watch::Level;
use crate::domain::secret::Secret;
use crate::domain::service::limits::ServiceLimits;
use crate::domain::service::{Changes, Kind, Refusal, Service};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;

/// The key under which the last number of a callback template is stored.
pub(super) const COUNTER: &str = "callback_template";
/// Numbers of templates begin after this.
const NUMBER_BASE: u64 = 1_000;
/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 1_024;
/// Longest key, in letters and digits.
pub const KEY_MAX: usize = 32;

/// The URLs of a callback template, by the names of their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UrlField {
    /// Event 1.
    StreamBeginNotifyUrl,
    /// Event 0.
    StreamEndNotifyUrl,
    /// Event 100.
    RecordNotifyUrl,
    /// Event 332.
    RecordStatusNotifyUrl,
    /// Screenshots; never called.
    SnapshotNotifyUrl,
    /// Review of pictures; never called.
    PornCensorshipNotifyUrl,
    /// Mixing; never called, as in the cloud.
    StreamMixNotifyUrl,
    /// Event 321.
    PushExceptionNotifyUrl,
    /// Review of sound; never called.
    AudioAuditNotifyUrl,
    /// Event 341.
    RecordExceptionNotifyUrl,
}

impl UrlField {
    /// Every field.
    pub const ALL: [UrlField; 10] = [
        UrlField::StreamBeginNotifyUrl,
        UrlField::StreamEndNotifyUrl,
        UrlField::RecordNotifyUrl,
        UrlField::RecordStatusNotifyUrl,
        UrlField::SnapshotNotifyUrl,
        UrlField::PornCensorshipNotifyUrl,
        UrlField::StreamMixNotifyUrl,
        UrlField::PushExceptionNotifyUrl,
        UrlField::AudioAuditNotifyUrl,
        UrlField::RecordExceptionNotifyUrl,
    ];

    /// Its name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            UrlField::StreamBeginNotifyUrl => "StreamBeginNotifyUrl",
            UrlField::StreamEndNotifyUrl => "StreamEndNotifyUrl",
            UrlField::RecordNotifyUrl => "RecordNotifyUrl",
            UrlField::RecordStatusNotifyUrl => "RecordStatusNotifyUrl",
            UrlField::SnapshotNotifyUrl => "SnapshotNotifyUrl",
            UrlField::PornCensorshipNotifyUrl => "PornCensorshipNotifyUrl",
            UrlField::StreamMixNotifyUrl => "StreamMixNotifyUrl",
            UrlField::PushExceptionNotifyUrl => "PushExceptionNotifyUrl",
            UrlField::AudioAuditNotifyUrl => "AudioAuditNotifyUrl",
            UrlField::RecordExceptionNotifyUrl => "RecordExceptionNotifyUrl",
        }
    }

    /// The field for the URL of an event.
    #[must_use]
    pub fn of(event: Event) -> UrlField {
        match event {
            Event::PushBegin => UrlField::StreamBeginNotifyUrl,
            Event::PushEnd => UrlField::StreamEndNotifyUrl,
            Event::RecordFile => UrlField::RecordNotifyUrl,
            Event::RecordStatus => UrlField::RecordStatusNotifyUrl,
            Event::PushException => UrlField::PushExceptionNotifyUrl,
            Event::RecordException => UrlField::RecordExceptionNotifyUrl,
        }
    }
}

/// The number of a callback template, unique on the box and never given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallbackTemplateNumber(pub u64);

/// A callback template.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackTemplate {
    /// Its number.
    pub number: CallbackTemplateNumber,
    /// Its name; several templates may have the same.
    pub name: String,
    /// What somebody wrote about it.
    pub description: String,
    /// Where to, as written; not given is not told.
    pub urls: BTreeMap<UrlField, String>,
    /// RecordExceptionLevels, by name; empty is every level.
    pub levels: Vec<String>,
    key: String,
}

impl CallbackTemplate {
    /// The key of the signature; empty for none.
    #[must_use]
    pub fn key(&self) -> Secret {
        Secret::new(&self.key)
    }
}

/// Without key and addresses: those may hold secrets.
impl fmt::Debug for CallbackTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallbackTemplate({}, {:?})", self.number.0, self.name)
    }
}

/// A callback rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackRule {
    /// The domain, in lower case; empty is any.
    pub domain: String,
    /// The app; empty is any.
    pub app: String,
    /// The template.
    pub template: CallbackTemplateNumber,
    /// When it was made, Unix milliseconds.
    pub made_ms: i64,
}

/// What a request gives of a callback template; `None` is not given.
#[derive(Clone, Default)]
pub struct CallbackTemplateFields {
    /// TemplateName.
    pub name: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// The URLs that are given; an empty one takes the URL away.
    pub urls: Vec<(UrlField, String)>,
    /// CallbackKey.
    pub key: Option<Secret>,
    /// RecordExceptionLevels.
    pub levels: Option<Vec<String>>,
}

/// Where an event goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The receiver.
    pub url: Address,
    /// The key of the signature; empty for none.
    pub key: Secret,
    /// The levels of event 341 that are told.
    pub levels: Vec<Level>,
}

impl Destination {
    /// A receiver of everything.
    #[must_use]
    pub fn of_all(url: Address, key: Secret) -> Self {
        Destination { url, key, levels: Level::ALL.to_vec() }
    }
}

/// Callback templates and rules of the local layer.
#[derive(Debug, Clone, Default)]
pub struct CallbackDesk {
    templates: BTreeMap<CallbackTemplateNumber, CallbackTemplate>,
    rules: BTreeMap<(String, String), CallbackRule>,
    last_number: u64,
}

/// Where an event of a stream goes, if anywhere: by the callback rules of the API, else by the
/// callbacks of the rule sets (one URL for all events), else to `default` (`[callback]` of the
/// configuration).
#[must_use]
pub fn destination(
    service: &Service,
    default: Option<&Destination>,
    key: &StreamKey,
    event: Event,
) -> Option<Destination> {
    if let Some(template) = service.callbacks.template_of(key) {
        // What was taken once is an address; a later version may be stricter.
        let url = template.urls.get(&UrlField::of(event))?;
        let url = Address::parse(url, &["http", "https"]).ok()?;
        let named = template.levels.iter().filter_map(|name| Level::from_name(name));
        let levels: Vec<Level> = named.collect();
        let levels = if levels.is_empty() { Level::ALL.to_vec() } else { levels };
        return Some(Destination { url, key: template.key(), levels });
    }
    let of_rule_sets = service.layers.table().callback(key);
    of_rule_sets
        .map(|callback| Destination::of_all(callback.url.clone(), callback.key.clone()))
        .or_else(|| default.cloned())
}

impl CallbackDesk {
    /// Makes a template.
    ///
    /// # Errors
    /// A value that is not allowed, no URL, or too many templates.
    pub fn create_template(
        &mut self,
        fields: CallbackTemplateFields,
        limits: &ServiceLimits,
        changes: &mut Changes,
    ) -> Result<CallbackTemplateNumber, Refusal> {
        if self.templates.len() >= limits.callback_templates {
            let most = limits.callback_templates;
            let message = format!("there are {most} callback templates already");
            return Err(Refusal::new("InternalError.ConfOutLimit", message));
        }
        let number = CallbackTemplateNumber(self.last_number.max(NUMBER_BASE) + 1);
        let mut template = CallbackTemplate {
            number,
            name: String::new(),
            description: String::new(),
            urls: BTreeMap::new(),
            levels: Vec::new(),
            key: String::new(),
        };
        take_fields(&mut template, fields)?;
        self.last_number = number.0;
        changes.put(Kind::Counter, COUNTER, &self.last_number);
        self.keep(template, changes);
        Ok(number)
    }

    /// Changes a template; what is not given stays. Notices that wait go to where it says now.
    ///
    /// # Errors
    /// There is none of this number, a value is not allowed, or no URL is left.
    pub fn modify_template(
        &mut self,
        number: CallbackTemplateNumber,
        fields: CallbackTemplateFields,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let mut template = self.template(number)?.clone();
        take_fields(&mut template, fields)?;
        self.keep(template, changes);
        Ok(())
    }

    /// Takes a template away.
    ///
    /// # Errors
    /// There is none of this number, or a rule binds it.
    pub fn delete_template(
        &mut self,
        number: CallbackTemplateNumber,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        self.template(number)?;
        if self.rules.values().any(|rule| rule.template == number) {
            let message = format!("a rule binds the callback template {}", number.0);
            return Err(Refusal::new("FailedOperation.ConfInUsed", message));
        }
        self.templates.remove(&number);
        changes.delete(Kind::CallbackTemplate, number.0.to_string());
        Ok(())
    }

    /// One template.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn template(&self, number: CallbackTemplateNumber) -> Result<&CallbackTemplate, Refusal> {
        self.templates.get(&number).ok_or_else(|| {
            let message = format!("there is no callback template {}", number.0);
            Refusal::new("FailedOperation.NotFound", message)
        })
    }

    /// All templates, by number.
    pub fn templates(&self) -> impl Iterator<Item = &CallbackTemplate> {
        self.templates.values()
    }

    /// Binds a template to a domain and an app, each any if empty. There are as many callback
    /// rules as there may be recording rules.
    ///
    /// # Errors
    /// There is no such template, the pair is bound already, or there are too many rules.
    pub fn create_rule(
        &mut self,
        (domain, app): (&str, &str),
        template: CallbackTemplateNumber,
        made: UnixMillis,
        limits: &ServiceLimits,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        if !self.templates.contains_key(&template) {
            let message = format!("there is no callback template {}", template.0);
            return Err(Refusal::new("InvalidParameter.ConfNotFound", message));
        }
        let pair = (domain.to_lowercase(), app.to_owned());
        if self.rules.contains_key(&pair) {
            let message = "this domain and app have a callback rule already";
            return Err(Refusal::new("FailedOperation.RuleAlreadyExist", message));
        }
        if self.rules.len() >= limits.rules {
            let message = format!("there are {} callback rules already", limits.rules);
            return Err(Refusal::new("InternalError.ConfOutLimit", message));
        }
        let (domain, app) = pair.clone();
        let rule = CallbackRule { domain, app, template, made_ms: made.0 };
        changes.put(Kind::CallbackRule, rule_key(&pair), &rule);
        self.rules.insert(pair, rule);
        Ok(())
    }

    /// Takes a rule away.
    ///
    /// # Errors
    /// There is none for exactly this pair.
    pub fn delete_rule(
        &mut self,
        (domain, app): (&str, &str),
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let pair = (domain.to_lowercase(), app.to_owned());
        if self.rules.remove(&pair).is_none() {
            let message = "this domain and app have no callback rule";
            return Err(Refusal::new("FailedOperation.NotFound", message));
        }
        changes.delete(Kind::CallbackRule, rule_key(&pair));
        Ok(())
    }

    /// All rules, by domain and app.
    pub fn rules(&self) -> impl Iterator<Item = &CallbackRule> {
        self.rules.values()
    }

    /// The template of the most specific rule that covers a stream.
    fn template_of(&self, key: &StreamKey) -> Option<&CallbackTemplate> {
        let (domain, app) = (key.domain(), key.app());
        let rule = [(domain, app), (domain, ""), ("", app), ("", "")]
            .into_iter()
            .find_map(|(domain, app)| self.rules.get(&(domain.to_owned(), app.to_owned())))?;
        self.templates.get(&rule.template)
    }

    fn keep(&mut self, template: CallbackTemplate, changes: &mut Changes) {
        changes.put(Kind::CallbackTemplate, template.number.0.to_string(), &template);
        self.templates.insert(template.number, template);
    }

    pub(super) fn restore(&mut self, kind: Kind, key: &str, content: &str) -> Result<(), String> {
        let what = |error: serde_json::Error| error.to_string();
        match kind {
            Kind::CallbackTemplate => {
                let template: CallbackTemplate = serde_json::from_str(content).map_err(what)?;
                // The counter's own entry may be lost; a number is never given out again.
                self.last_number = self.last_number.max(template.number.0);
                self.templates.insert(template.number, template);
            }
            Kind::CallbackRule => {
                let rule: CallbackRule = serde_json::from_str(content).map_err(what)?;
                self.rules.insert((rule.domain.clone(), rule.app.clone()), rule);
            }
            _ if key == COUNTER => {
                let last: u64 = serde_json::from_str(content).map_err(what)?;
                self.last_number = self.last_number.max(last);
            }
            _ => return Err("is not about callbacks".to_owned()),
        }
        Ok(())
    }
}

/// How the entry of a rule is called: neither part has control characters.
fn rule_key((domain, app): &(String, String)) -> String {
    format!("{domain}\n{app}")
}

/// Puts what a request gives into a template.
fn take_fields(
    template: &mut CallbackTemplate,
    fields: CallbackTemplateFields,
) -> Result<(), Refusal> {
    let wrong = |message: String| Refusal::new("InvalidParameterValue", message);
    if let Some(name) = fields.name {
        if name.is_empty() || !is_plain(&name) {
            return Err(wrong(format!("TemplateName: {} is no name", quoted(&name))));
        }
        template.name = name;
    }
    if let Some(description) = fields.description {
        if !is_plain(&description) {
            let shown = quoted(&description);
            let allowed = "only letters, digits, `_` and `-` are allowed";
            return Err(wrong(format!("Description: {shown}: {allowed}")));
        }
        template.description = description;
    }
    for (field, url) in fields.urls {
        if url.is_empty() {
            template.urls.remove(&field);
            continue;
        }
        check_url(&url).map_err(|why| {
            let message = format!("{} {why}", field.name());
            Refusal::new("InvalidParameter.UrlNotSafe", message)
        })?;
        template.urls.insert(field, url);
    }
    if let Some(key) = fields.key {
        let key = key.expose();
        if key.len() > KEY_MAX || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let message = format!("CallbackKey: is not at most {KEY_MAX} letters and digits");
            return Err(wrong(message));
        }
        key.clone_into(&mut template.key);
    }
    if let Some(levels) = fields.levels {
        if let Some(odd) = levels.iter().find(|name| Level::from_name(name).is_none()) {
            let message = format!("RecordExceptionLevels: {} is no level", quoted(odd));
            return Err(wrong(message));
        }
        template.levels = levels;
    }
    if template.urls.is_empty() {
        return Err(wrong("at least one URL must be given".to_owned()));
    }
    Ok(())
}

/// A URL that the box will call: the network is the owner's own, so any host is allowed.
fn check_url(url: &str) -> Result<(), String> {
    let address = Address::parse(url, &["http", "https"]).map_err(|error| error.to_string())?;
    if address.credentials().is_some() {
        return Err("has a user name: credentials do not belong in the address".to_owned());
    }
    Ok(())
}

/// Letters of any script, digits, `_` and `-`.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rule_set::RuleSet;
    use crate::domain::service::layers::SentLayer;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    /// A service and everything that was stored of it.
    #[derive(Default)]
    struct Box {
        service: Service,
        stored: BTreeMap<(Kind, String), String>,
    }

    impl Box {
        fn change<T>(
            &mut self,
            change: impl FnOnce(&mut CallbackDesk, &mut Changes) -> Result<T, Refusal>,
        ) -> Result<T, &'static str> {
            let mut changes = Changes::new();
            let mut next = self.service.clone();
            let done = change(&mut next.callbacks, &mut changes).map_err(|refusal| refusal.code)?;
            self.service = next;
            for change in changes.iter() {
                let key = (change.kind, change.key.clone());
                match &change.content {
                    Some(content) => self.stored.insert(key, content.clone()),
                    None => self.stored.remove(&key),
                };
            }
            Ok(done)
        }

        fn create(&mut self, fields: CallbackTemplateFields) -> Result<u64, &'static str> {
            let limits = ServiceLimits { callback_templates: 3, ..ServiceLimits::default() };
            self.change(|desk, changes| desk.create_template(fields, &limits, changes))
                .map(|number| number.0)
        }

        fn modify(&mut self, n: u64, fields: CallbackTemplateFields) -> Result<(), &'static str> {
            let number = CallbackTemplateNumber(n);
            self.change(|desk, changes| desk.modify_template(number, fields, changes))
        }

        fn bind(&mut self, domain: &str, app: &str, number: u64) -> Result<(), &'static str> {
            let limits = ServiceLimits { rules: 4, ..ServiceLimits::default() };
            let number = CallbackTemplateNumber(number);
            self.change(|desk, changes| {
                desk.create_rule((domain, app), number, NOW, &limits, changes)
            })
        }

        fn url(&self, key: &str, event: Event) -> Option<String> {
            let key = key.parse().expect("key");
            destination(&self.service, None, &key, event).map(|d| d.url.expose().to_owned())
        }

        /// The same, read back from what was stored.
        fn restarted(&self) -> Box {
            let mut service = Service::default();
            for ((kind, key), content) in &self.stored {
                service.restore(*kind, key, content).expect("our own");
            }
            Box { service, stored: self.stored.clone() }
        }
    }

    fn fields(urls: &[(UrlField, &str)]) -> CallbackTemplateFields {
        CallbackTemplateFields {
            name: Some("hooks".into()),
            urls: urls.iter().map(|(field, url)| (*field, (*url).to_owned())).collect(),
            ..CallbackTemplateFields::default()
        }
    }

    fn hook(url: &str) -> CallbackTemplateFields {
        fields(&[(UrlField::RecordNotifyUrl, url)])
    }

    #[test]
    fn the_most_specific_rule_decides_alone() {
        let mut on_box = Box::default();
        for (url, domain, app) in
            [("http://any/", "", ""), ("http://app/", "", "live"), ("http://dom/", "Cams", "")]
        {
            let number = on_box.create(hook(url)).expect("made");
            on_box.bind(domain, app, number).expect("bound");
        }
        let on_box = on_box.restarted();
        let file = |key| on_box.url(key, Event::RecordFile);
        assert_eq!(file("cams/live/a").as_deref(), Some("http://dom/"));
        assert_eq!(file("other/live/a").as_deref(), Some("http://app/"));
        assert_eq!(file("other/vod/a").as_deref(), Some("http://any/"));
        let key: StreamKey = "cams/live/a".parse().expect("key");
        let all = |url: &str| {
            let url = Address::parse(url, &["http"]).expect("url");
            Destination::of_all(url, Secret::new("K"))
        };
        let default = all("http://default/");
        let of = |event| destination(&on_box.service, Some(&default), &key, event);
        assert_eq!(of(Event::PushBegin), None, "the rule decides alone");
        let mut service = Service::default();
        let of = |service: &Service, default| destination(service, default, &key, Event::PushEnd);
        assert_eq!(of(&service, None), None);
        assert_eq!(of(&service, Some(&default)), Some(default.clone()));
        let document = br#"{"revision": 1, "callbacks": [{"DomainName": "cams", "AppName": "",
            "Url": "http://sets/", "Key": "K"}]}"#;
        let sets = RuleSet::parse(document).expect("valid");
        service.layers.set(SentLayer::Fleet, sets, NOW, &mut Changes::new());
        assert_eq!(of(&service, Some(&default)), Some(all("http://sets/")));
    }

    #[test]
    fn what_is_not_allowed_is_refused_with_its_code() {
        let mut on_box = Box::default();
        let good = "http://10.0.0.7:8000/hook?token=a";
        assert_eq!(on_box.create(fields(&[])), Err("InvalidParameterValue"));
        for url in ["ftp://h/", "http://", "hook", "http://u:p@h/", "http://h/#x"] {
            assert_eq!(on_box.create(hook(url)), Err("InvalidParameter.UrlNotSafe"), "{url}");
        }
        let odd = |change: fn(&mut CallbackTemplateFields)| {
            let mut fields = hook(good);
            change(&mut fields);
            fields
        };
        for wrong in [
            odd(|fields| fields.name = Some(String::new())),
            odd(|fields| fields.name = Some("a b".into())),
            odd(|fields| fields.description = Some("a.b".into())),
            odd(|fields| fields.key = Some(Secret::new("with-dash"))),
            odd(|fields| fields.key = Some(Secret::new(&"k".repeat(33)))),
            odd(|fields| fields.levels = Some(vec!["alarm".into()])),
        ] {
            assert_eq!(on_box.create(wrong), Err("InvalidParameterValue"));
        }
        assert_eq!(on_box.stored.len(), 0);
        assert_eq!(on_box.bind("d", "a", 1_001), Err("InvalidParameter.ConfNotFound"));
        assert_eq!(on_box.create(hook(good)), Ok(1_001));
        assert_eq!(on_box.bind("d", "a", 1_001), Ok(()));
        assert_eq!(on_box.bind("D", "a", 1_001), Err("FailedOperation.RuleAlreadyExist"));
        let number = CallbackTemplateNumber(1_001);
        let delete =
            |desk: &mut CallbackDesk, changes: &mut Changes| desk.delete_template(number, changes);
        assert_eq!(on_box.change(delete), Err("FailedOperation.ConfInUsed"));
        assert_eq!(on_box.modify(7, hook(good)), Err("FailedOperation.NotFound"));
        let unbind = |app: &'static str| {
            move |desk: &mut CallbackDesk, changes: &mut Changes| {
                desk.delete_rule(("d", app), changes)
            }
        };
        assert_eq!(on_box.change(unbind("")), Err("FailedOperation.NotFound"));
        assert_eq!(on_box.change(unbind("a")), Ok(()));
        assert_eq!(on_box.change(delete), Ok(()));
        assert_eq!(on_box.change(delete), Err("FailedOperation.NotFound"));
    }

    #[test]
    fn quotas_hold_and_numbers_are_never_given_out_again() {
        let mut on_box = Box::default();
        for number in 1_001..=1_003 {
            assert_eq!(on_box.create(hook("http://h/")), Ok(number));
        }
        assert_eq!(on_box.create(hook("http://h/")), Err("InternalError.ConfOutLimit"));
        for app in ["a", "b", "c", "d"] {
            on_box.bind("d", app, 1_001).expect("bound");
        }
        assert_eq!(on_box.bind("d", "e", 1_001), Err("InternalError.ConfOutLimit"));
        let number = CallbackTemplateNumber(1_003);
        on_box.change(|desk, changes| desk.delete_template(number, changes)).expect("gone");
        assert_eq!(on_box.restarted().create(hook("http://h/")), Ok(1_004));
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let mut on_box = Box::default();
        let mut full = fields(&[
            (UrlField::StreamBeginNotifyUrl, "http://begin/"),
            (UrlField::RecordExceptionNotifyUrl, "http://odd"),
        ]);
        full.key = Some(Secret::new("Canary1"));
        full.levels = Some(vec!["error".into()]);
        let number = on_box.create(full).expect("made");
        on_box.bind("", "", number).expect("bound");
        let change = CallbackTemplateFields {
            urls: vec![(UrlField::StreamBeginNotifyUrl, String::new())],
            ..CallbackTemplateFields::default()
        };
        on_box.modify(number, change).expect("changed");
        let on_box = on_box.restarted();
        assert_eq!(on_box.url("d/a/s", Event::PushBegin), None);
        let key = "d/a/s".parse().expect("key");
        let to = destination(&on_box.service, None, &key, Event::RecordException);
        let to = to.expect("there is one");
        assert_eq!((to.url.expose(), to.key.expose()), ("http://odd/", "Canary1"));
        assert_eq!(to.levels, [Level::Error]);
        let mut on_box = on_box;
        let none = CallbackTemplateFields {
            urls: vec![(UrlField::RecordExceptionNotifyUrl, String::new())],
            ..CallbackTemplateFields::default()
        };
        assert_eq!(on_box.modify(number, none), Err("InvalidParameterValue"));
        assert!(!format!("{:?}", on_box.service.callbacks).contains("Canary"));
    }

    #[test]
    fn what_was_stored_by_somebody_else_is_told() {
        let mut desk = CallbackDesk::default();
        assert!(desk.restore(Kind::CallbackTemplate, "1", "{}").is_err());
        assert!(desk.restore(Kind::Task, "1", "{}").is_err());
    }
}
