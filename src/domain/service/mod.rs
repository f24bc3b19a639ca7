//! What callers of the API have set: rules of the local layer, callbacks, tasks, push keys, bans and
//! mixes; and the rule sets that the fleet has sent. Pure: each change is checked against the limits, made, and told as entries to be stored;
//! the caller stores them durably before it answers. Read back, the entries give the same state.

pub mod callbacks;
pub mod drops;
pub mod fleet_commands;
pub mod fleet_rules;
pub mod forbids;
pub mod layers;
pub mod limits;
pub mod mixes;
pub mod push_keys;
pub mod tasks;

use crate::domain::service::callbacks::CallbackDesk;
use crate::domain::service::drops::Drops;
use crate::domain::service::fleet_commands::FleetCommands;
use crate::domain::service::fleet_rules::FleetRules;
use crate::domain::service::forbids::Forbids;
use crate::domain::service::layers::Layers;
use crate::domain::service::mixes::Mixes;
use crate::domain::service::push_keys::PushKeyTable;
use crate::domain::service::tasks::Tasks;

/// The state.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// Grows with each change in the life of the process.
    pub number: u64,
    /// Rule sets of all layers, and the numbers of their templates.
    pub layers: Layers,
    /// What the fleet has sent of them.
    pub fleet_rules: FleetRules,
    /// Commands of the fleet that were done, by their tokens.
    pub fleet_commands: FleetCommands,
    /// Pushers that were dropped for new rules.
    pub drops: Drops,
    /// Callback templates and rules.
    pub callbacks: CallbackDesk,
    /// Timed and highlight tasks.
    pub tasks: Tasks,
    /// Keys of push domains.
    pub push_keys: PushKeyTable,
    /// Streams that may not be pushed.
    pub forbids: Forbids,
    /// What external mixers make of streams.
    pub mixes: Mixes,
}

/// A change that is not made, as the cloud API says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// One of the API's error codes.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into() }
    }
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The last number given out; the key says of what.
    Counter,
    /// The number of a template, by layer and name.
    TemplateNumber,
    /// A template of the local layer.
    Template,
    /// A rule of the local layer.
    Rule,
    /// A rule set that the fleet has sent, by its layer.
    FleetRules,
    /// The rule set before one that is on trial or was gone back from, by its layer.
    FleetRulesBefore,
    /// A command of the fleet, by its token.
    FleetCommand,
    /// A pusher that was dropped for new rules, by its stream.
    Drop,
    /// A callback template.
    CallbackTemplate,
    /// A callback rule.
    CallbackRule,
    /// A task.
    Task,
    /// Keys of a push domain.
    PushKey,
    /// A ban.
    Forbid,
    /// A mix.
    Mix,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 14] = [
        Kind::Counter,
        Kind::TemplateNumber,
        Kind::Template,
        Kind::Rule,
        Kind::FleetRules,
        Kind::FleetRulesBefore,
        Kind::FleetCommand,
        Kind::Drop,
        Kind::CallbackTemplate,
        Kind::CallbackRule,
        Kind::Task,
        Kind::PushKey,
        Kind::Forbid,
        Kind::Mix,
    ];

    /// The word it is stored under.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::TemplateNumber => "template_number",
            Kind::Template => "template",
            Kind::Rule => "rule",
            Kind::FleetRules => "fleet_rules",
            Kind::FleetRulesBefore => "fleet_rules_before",
            Kind::FleetCommand => "fleet_command",
            Kind::Drop => "drop",
            Kind::CallbackTemplate => "callback_template",
            Kind::CallbackRule => "callback_rule",
            Kind::Task => "task",
            Kind::PushKey => "push_key",
            Kind::Forbid => "forbid",
            Kind::Mix => "mix",
        }
    }
}

/// One change of what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of what.
    pub kind: Kind,
    /// Which one of the kind.
    pub key: String,
    /// What it is now, as JSON; `None`: it is gone.
    pub content: Option<String>,
}

/// Changes that belong together: all are stored or none.
#[derive(Debug, Default)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// No change yet.
    #[must_use]
    pub fn new() -> Self {
        Changes::default()
    }

    /// An entry is new or other than before.
    pub fn put(&mut self, kind: Kind, key: impl Into<String>, content: &impl serde::Serialize) {
        let content = serde_json::to_string(content).expect("plain fields");
        self.0.push(Change { kind, key: key.into(), content: Some(content) });
    }

    /// An entry is gone.
    pub fn delete(&mut self, kind: Kind, key: impl Into<String>) {
        self.0.push(Change { kind, key: key.into(), content: None });
    }

    /// In the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.0.iter()
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Service {
    /// Takes in an entry that was stored once.
    ///
    /// # Errors
    /// Its content is none of this program's; the entry then counts for nothing.
    pub fn restore(&mut self, kind: Kind, key: &str, content: &str) -> Result<(), String> {
        match kind {
            Kind::Counter if key == callbacks::COUNTER => {
                self.callbacks.restore(kind, key, content)
            }
            Kind::Counter | Kind::TemplateNumber | Kind::Template | Kind::Rule => {
                self.layers.restore(kind, key, content)
            }
            Kind::CallbackTemplate | Kind::CallbackRule => {
                self.callbacks.restore(kind, key, content)
            }
            Kind::FleetRules => self.fleet_rules.restore(key, content),
            Kind::FleetRulesBefore => self.fleet_rules.restore_before(key, content),
            Kind::FleetCommand => self.fleet_commands.restore(key, content),
            Kind::Drop => self.drops.restore(key, content),
            Kind::Task => self.tasks.restore(key, content),
            Kind::PushKey => self.push_keys.restore(key, content),
            Kind::Forbid => self.forbids.restore(key, content),
            Kind::Mix => self.mixes.restore(key, content),
        }
    }
}
