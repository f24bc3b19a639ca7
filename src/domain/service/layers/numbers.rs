//! The numbers of templates: unique on the box, never given twice. A name of a layer that comes
//! whole keeps its number also while the layer does not have it, because callers hold on to it; only
//! so many names are remembered.

use std::collections::{BTreeMap, HashSet};

use crate::domain::ids::TemplateNumber;
use crate::domain::rule_set::{RuleSet, TEMPLATES_MAX};
use crate::domain::service::layers::SentLayer;
use crate::domain::service::{Changes, Kind};

/// The first number that is given.
const FIRST: u64 = 1_000;
/// Names of one layer whose numbers are remembered.
const NAMES_MAX: usize = 1_024;
const _: () = assert!(TEMPLATES_MAX < NAMES_MAX);
/// The counter of [`Kind::Counter`].
const COUNTER: &str = "template";

/// Which template has which number, and the last one given.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    last: u64,
    /// Templates of the layers that come whole.
    sent: BTreeMap<(SentLayer, String), TemplateNumber>,
}

impl Default for Numbers {
    fn default() -> Self {
        Numbers { last: FIRST - 1, sent: BTreeMap::new() }
    }
}

impl Numbers {
    /// A number that nobody ever had.
    pub(super) fn next(&mut self, changes: &mut Changes) -> TemplateNumber {
        self.last += 1;
        changes.put(Kind::Counter, COUNTER, &self.last);
        TemplateNumber(self.last)
    }

    /// The number of a template of a layer that comes whole.
    pub(super) fn of(&self, layer: SentLayer, name: &str) -> Option<TemplateNumber> {
        self.sent.get(&(layer, name.to_owned())).copied()
    }

    /// Gives numbers to the names that are new in a layer, and forgets the oldest of those that it
    /// has not any more where there are too many.
    pub(super) fn follow(&mut self, layer: SentLayer, set: &RuleSet, changes: &mut Changes) {
        for template in &set.templates {
            if self.of(layer, &template.name).is_none() {
                let number = self.next(changes);
                changes.put(Kind::TemplateNumber, key(layer, &template.name), &number.0);
                self.sent.insert((layer, template.name.clone()), number);
            }
        }
        let names: HashSet<&str> = set.templates.iter().map(|one| one.name.as_str()).collect();
        let remembered = self.sent.iter().filter(|((of, _), _)| *of == layer);
        let too_many = remembered.clone().count().saturating_sub(NAMES_MAX);
        let mut gone: Vec<(TemplateNumber, String)> = remembered
            .filter(|((_, name), _)| !names.contains(name.as_str()))
            .map(|((_, name), number)| (*number, name.clone()))
            .collect();
        gone.sort();
        for (_, name) in gone.into_iter().take(too_many) {
            changes.delete(Kind::TemplateNumber, key(layer, &name));
            self.sent.remove(&(layer, name));
        }
    }

    /// A number was given once.
    pub(super) fn was_given(&mut self, number: TemplateNumber) {
        self.last = self.last.max(number.0);
    }

    pub(super) fn restore(&mut self, kind: Kind, key: &str, content: &str) -> Result<(), String> {
        let number: u64 = serde_json::from_str(content).map_err(|error| error.to_string())?;
        match (kind, key.split_once('/')) {
            (Kind::Counter, None) if key == COUNTER => {}
            (Kind::TemplateNumber, Some((layer, name))) => {
                let layer = match layer {
                    "fleet" => SentLayer::Fleet,
                    "box" => SentLayer::Box,
                    _ => return Err("no such layer".to_owned()),
                };
                self.sent.insert((layer, name.to_owned()), TemplateNumber(number));
            }
            _ => return Err("no counter of templates".to_owned()),
        }
        self.was_given(TemplateNumber(number));
        Ok(())
    }
}

/// The key of a name's entry. Names have no slash.
fn key(layer: SentLayer, name: &str) -> String {
    match layer {
        SentLayer::Fleet => format!("fleet/{name}"),
        SentLayer::Box => format!("box/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::service::layers::tests::set_of;

    #[test]
    fn only_so_many_names_are_remembered_and_no_number_is_given_twice() {
        let mut numbers = Numbers::default();
        let mut changes = Changes::new();
        let layer = SentLayer::Fleet;
        for round in 0..=NAMES_MAX as u64 {
            numbers.follow(layer, &set_of(round + 1, &[&format!("n{round}")]), &mut changes);
        }
        assert_eq!(numbers.sent.len(), NAMES_MAX);
        assert_eq!(numbers.of(layer, "n0"), None, "the oldest is forgotten");
        assert_eq!(numbers.of(layer, "n1"), Some(TemplateNumber(FIRST + 1)));
        numbers.follow(layer, &set_of(9_999, &["n0"]), &mut changes);
        let expected = TemplateNumber(FIRST + NAMES_MAX as u64 + 1);
        assert_eq!(numbers.of(layer, "n0"), Some(expected));
    }

    #[test]
    fn foreign_entries_are_refused() {
        let mut numbers = Numbers::default();
        for (kind, key, content) in [
            (Kind::Counter, "other", "5000"),
            (Kind::Counter, COUNTER, "\"x\""),
            (Kind::TemplateNumber, "local/a", "5000"),
            (Kind::TemplateNumber, "a", "5000"),
        ] {
            numbers.restore(kind, key, content).expect_err(key);
        }
        assert_eq!(numbers.next(&mut Changes::new()), TemplateNumber(FIRST));
    }
}
