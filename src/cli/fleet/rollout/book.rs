//! What a rollout remembers, in a file beside the rule set: written before the broker is told, so that
//! whoever comes after an interruption can go on with it or take it back.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::outcome::Failure;
use crate::platform::flash::{SystemFlash, replace_file};

/// A rollout under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Book {
    /// The fleet that it is for.
    pub(super) fleet: String,
    /// What all boxes are to have, and the revision that was given for it.
    pub(super) wanted: Value,
    /// Whether boxes get it signed.
    pub(super) signed: bool,
    /// What was published for all of them before.
    pub(super) before: Option<Value>,
    /// Boxes that get it first, group after group.
    pub(super) groups: Vec<Vec<Member>>,
    /// Other boxes that are online; they get it with all.
    pub(super) rest: Vec<Member>,
    /// How far it is.
    pub(super) stage: Stage,
}

/// How far a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// A group, counted from 0, gets it.
    Group(usize),
    /// All get it.
    All,
    /// All have it; the boxes that were first get their own rules back.
    Clearing,
    /// It is taken back: what this many groups have, and what all have if that was published.
    Back {
        /// Groups that may have it.
        groups: usize,
        /// All may have it.
        all: bool,
    },
}

/// A box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    /// Its name.
    pub(super) id: String,
    /// What was published for it alone before.
    pub(super) own: Option<Value>,
    /// Its streams that were live when it got the rules.
    pub(super) live: Vec<String>,
}

impl Book {
    /// Groups that have the rules, or may have.
    pub(super) fn reached(&self) -> usize {
        match self.stage {
            Stage::Group(current) => (current + 1).min(self.groups.len()),
            Stage::All | Stage::Clearing => self.groups.len(),
            Stage::Back { groups, .. } => groups,
        }
    }
}

/// Where it is kept.
pub(super) struct BookFile(PathBuf);

impl BookFile {
    /// Beside the rule set of this file.
    pub(super) fn beside(rules: &Path) -> Self {
        let mut name = rules.as_os_str().to_owned();
        name.push(".rollout");
        BookFile(name.into())
    }

    /// What is there, if anything.
    pub(super) fn load(&self) -> Result<Option<Book>, Failure> {
        let bytes = match std::fs::read(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| self.failed("cannot be read", &error))?,
        };
        let book = serde_json::from_slice(&bytes);
        book.map(Some).map_err(|error| self.failed("is no record of a rollout", &error.into()))
    }

    /// Keeps it durably.
    pub(super) fn save(&self, book: &Book) -> Result<(), Failure> {
        let text = serde_json::to_vec(book).expect("plain fields");
        replace_file(&SystemFlash, &self.0, &text)
            .map_err(|error| self.failed("cannot be written", &error))
    }

    /// The rollout is over.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        std::fs::remove_file(&self.0).map_err(|error| self.failed("cannot be removed", &error))
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> Failure {
        Failure::failed(format!("{} {what}: {error}", self.0.display()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_found_again_and_gone_when_it_is_over() {
        let dir = tempfile::tempdir().expect("scratch");
        let file = BookFile::beside(&dir.path().join("rules.json"));
        assert_eq!(file.load(), Ok(None));
        let member = Member { id: "box-01".into(), own: None, live: vec!["d/live/cam".into()] };
        let mut book = Book {
            fleet: "venue".into(),
            wanted: json!({"revision": 7}),
            signed: false,
            before: None,
            groups: vec![vec![member]],
            rest: Vec::new(),
            stage: Stage::Group(0),
        };
        for stage in [Stage::Group(0), Stage::All, Stage::Back { groups: 1, all: true }] {
            book.stage = stage;
            file.save(&book).expect("written");
            assert_eq!(file.load(), Ok(Some(book.clone())));
            assert_eq!(book.reached(), 1);
        }
        file.remove().expect("removed");
        assert_eq!(file.load(), Ok(None));
        std::fs::write(dir.path().join("rules.json.rollout"), "{}").expect("written");
        assert!(file.load().is_err());
    }
}
