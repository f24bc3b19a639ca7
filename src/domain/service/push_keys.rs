//! Keys of push domains: who may push to a domain, with a second key so that they can be exchanged
//! one after the other.
//!
//! A domain whose keys are turned on asks for those; any other asks for the key of the
//! configuration, if there is one. So a caller can give a domain keys of its own, and cannot open
//! what the configuration closed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::secret::Secret;
use crate::domain::service::{Changes, Kind, Refusal};

/// Domains with keys of their own.
const DOMAINS_MAX: usize = 256;

/// Keys of push domains.
#[derive(Debug, Clone, Default)]
pub struct PushKeyTable {
    /// By domain, in lower case.
    domains: BTreeMap<String, DomainKeys>,
}

/// The keys of one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainKeys {
    /// Whether they are asked for.
    pub enabled: bool,
    /// The first key; empty: the one of the configuration.
    pub master: Secret,
    /// Another one that is good too; empty: none.
    pub backup: Secret,
    /// A URL is good so long after its `txTime`, in seconds.
    pub delta_s: u32,
}

/// What is to become of a domain's keys; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushKeyEdit {
    /// Whether they are asked for.
    pub enabled: Option<bool>,
    /// The first key.
    pub master: Option<Secret>,
    /// The other key.
    pub backup: Option<Secret>,
    /// Seconds after `txTime`.
    pub delta_s: Option<u32>,
}

/// As stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    enabled: bool,
    master: String,
    backup: String,
    delta_s: u32,
}

impl PushKeyTable {
    /// The keys of a domain as it stands, with the configuration's in the place of none.
    #[must_use]
    pub fn of(&self, domain: &str, configured: &Secret) -> DomainKeys {
        let Some(own) = self.domains.get(&domain.to_lowercase()) else {
            return DomainKeys::configured(configured);
        };
        let mut keys = own.clone();
        if keys.master.is_empty() {
            keys.master = configured.clone();
        }
        keys
    }

    /// The keys that a push to the domain must be made with; `None`: it needs none.
    #[must_use]
    pub fn asked_for(&self, domain: &str, configured: &Secret) -> Option<DomainKeys> {
        let own = Some(self.of(domain, configured)).filter(|keys| keys.enabled);
        own.or_else(|| Some(DomainKeys::configured(configured)).filter(|keys| keys.enabled))
    }

    /// Changes the keys of a domain. The first key of a domain turns its authentication on unless
    /// the caller says otherwise, as it is on for a new push domain of the cloud.
    ///
    /// # Errors
    /// Keys are to be asked for and there is none, or too many domains have keys.
    pub fn edit(
        &mut self,
        domain: &str,
        edit: PushKeyEdit,
        configured: &Secret,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let domain = domain.to_lowercase();
        let known = self.domains.get(&domain).cloned();
        if known.is_none() && self.domains.len() >= DOMAINS_MAX {
            let what = format!("{DOMAINS_MAX} domains have keys already");
            return Err(Refusal::new("InvalidParameterValue", what));
        }
        let first_key = edit.master.as_ref().is_some_and(|key| !key.is_empty());
        let mut keys = known.unwrap_or_else(|| DomainKeys {
            enabled: first_key || !configured.is_empty(),
            ..DomainKeys::default()
        });
        keys.enabled = edit.enabled.unwrap_or(keys.enabled);
        keys.master = edit.master.unwrap_or(keys.master);
        keys.backup = edit.backup.unwrap_or(keys.backup);
        keys.delta_s = edit.delta_s.unwrap_or(keys.delta_s);
        if keys.enabled && keys.master.is_empty() && configured.is_empty() {
            let what = "MasterAuthKey: is needed for the authentication to be on";
            return Err(Refusal::new("InvalidParameterValue", what));
        }
        let stored = Stored {
            enabled: keys.enabled,
            master: keys.master.expose().to_owned(),
            backup: keys.backup.expose().to_owned(),
            delta_s: keys.delta_s,
        };
        changes.put(Kind::PushKey, domain.clone(), &stored);
        self.domains.insert(domain, keys);
        Ok(())
    }

    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let stored: Stored = serde_json::from_str(content).map_err(|error| error.to_string())?;
        let keys = DomainKeys {
            enabled: stored.enabled,
            master: Secret::new(&stored.master),
            backup: Secret::new(&stored.backup),
            delta_s: stored.delta_s,
        };
        self.domains.insert(key.to_owned(), keys);
        Ok(())
    }
}

impl DomainKeys {
    /// What a domain without keys of its own has.
    fn configured(key: &Secret) -> Self {
        DomainKeys { enabled: !key.is_empty(), master: key.clone(), ..DomainKeys::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::service::Service;

    fn keys(enabled: bool, master: &str, backup: &str, delta_s: u32) -> DomainKeys {
        let (master, backup) = (Secret::new(master), Secret::new(backup));
        DomainKeys { enabled, master, backup, delta_s }
    }

    fn master(key: &str) -> PushKeyEdit {
        PushKeyEdit { master: Some(Secret::new(key)), ..PushKeyEdit::default() }
    }

    fn edit(
        table: &mut PushKeyTable,
        edit: PushKeyEdit,
        configured: &Secret,
    ) -> Result<(), Refusal> {
        let mut changes = Changes::new();
        let edited = table.edit("Push.example.com", edit, configured, &mut changes);
        assert_eq!(edited.is_err(), changes.is_empty());
        // What is stored gives the same table again.
        let mut back = Service { push_keys: table.clone(), ..Service::default() };
        for change in changes.iter() {
            let content = change.content.as_deref().expect("put");
            back.restore(change.kind, &change.key, content).expect("readable");
        }
        assert_eq!(back.push_keys.domains, table.domains);
        edited
    }

    #[test]
    fn keys_are_exchanged_one_after_the_other() {
        let (mut table, none) = (PushKeyTable::default(), Secret::default());
        let asked = |table: &PushKeyTable| table.asked_for("PUSH.example.com", &none);
        assert_eq!(asked(&table), None);
        edit(&mut table, master("old"), &none).expect("made");
        assert_eq!(asked(&table), Some(keys(true, "old", "", 0)), "the first key turns it on");
        let backup = PushKeyEdit { backup: Some(Secret::new("new")), ..PushKeyEdit::default() };
        edit(&mut table, backup, &none).expect("changed");
        assert_eq!(asked(&table), Some(keys(true, "old", "new", 0)));
        let last =
            PushKeyEdit { backup: Some(Secret::default()), delta_s: Some(60), ..master("new") };
        edit(&mut table, last, &none).expect("changed");
        assert_eq!(asked(&table), Some(keys(true, "new", "", 60)));
        let off = PushKeyEdit { enabled: Some(false), ..PushKeyEdit::default() };
        edit(&mut table, off, &none).expect("turned off");
        assert_eq!(asked(&table), None);
        assert_eq!(table.of("push.example.com", &none), keys(false, "new", "", 60));
        assert_eq!(table.asked_for("other", &none), None);
    }

    #[test]
    fn the_configured_key_stands_behind_every_domain() {
        let (mut table, configured) = (PushKeyTable::default(), Secret::new("box"));
        let asked = |table: &PushKeyTable| table.asked_for("push.example.com", &configured);
        assert_eq!(asked(&table), Some(keys(true, "box", "", 0)));
        let delta = PushKeyEdit { delta_s: Some(9), ..PushKeyEdit::default() };
        edit(&mut table, delta, &configured).expect("made");
        assert_eq!(asked(&table), Some(keys(true, "box", "", 9)));
        edit(&mut table, master("own"), &configured).expect("changed");
        assert_eq!(asked(&table), Some(keys(true, "own", "", 9)), "its own key wins");
        let off = PushKeyEdit { enabled: Some(false), ..PushKeyEdit::default() };
        edit(&mut table, off, &configured).expect("turned off");
        assert_eq!(asked(&table), Some(keys(true, "box", "", 0)), "nobody opens what is closed");
    }

    #[test]
    fn authentication_without_a_key_is_refused() {
        let (mut table, none) = (PushKeyTable::default(), Secret::default());
        let on = PushKeyEdit { enabled: Some(true), ..PushKeyEdit::default() };
        let refusal = edit(&mut table, on, &none).expect_err("no key");
        assert_eq!(refusal.code, "InvalidParameterValue");
        edit(&mut table, master("k"), &none).expect("made");
        assert!(edit(&mut table, master(""), &none).is_err());
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut table, none) = (PushKeyTable::default(), Secret::default());
        for number in 0..DOMAINS_MAX {
            let domain = format!("d{number}");
            table.edit(&domain, master("k"), &none, &mut Changes::new()).expect("room");
        }
        assert!(table.edit("more", master("k"), &none, &mut Changes::new()).is_err());
        table.edit("d0", master("k2"), &none, &mut Changes::new()).expect("known");
    }
}
