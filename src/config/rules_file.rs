//! The file of rules beside the configuration, for boxes without a fleet.

use std::io;

use crate::config::control::RulesFile;
use crate::config::{ConfigFaults, read_text};
use crate::domain::faults::Faults;
use crate::domain::rule_set::{RULE_SET_BYTES_MAX, RuleSet};
use crate::platform::flash::Flash;

/// A rule set and the text it was read from, which is what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesDocument {
    /// What it says.
    pub rules: RuleSet,
    /// Its text.
    pub text: String,
}

impl RulesFile {
    /// Reads the file; `None` if it is the default one and not there.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub fn load(&self, flash: &dyn Flash) -> Result<Option<RulesDocument>, ConfigFaults> {
        let fail = |faults| Err(ConfigFaults { path: self.path.clone(), faults });
        match read_text(flash, &self.path, RULE_SET_BYTES_MAX as u64) {
            Ok(text) => match RuleSet::parse(text.as_bytes()) {
                Ok(rules) => Ok(Some(RulesDocument { rules, text })),
                Err(faults) => fail(faults),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.named => Ok(None),
            Err(error) => {
                let mut faults = Faults::new();
                faults.add("", format!("the file cannot be read: {error}"));
                fail(faults)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::platform::flash::SystemFlash;

    #[test]
    fn a_default_file_may_be_missing_and_a_named_one_may_not() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("rules.json");
        let load = |named| RulesFile { path: path.clone(), named }.load(&SystemFlash);
        assert_eq!(load(false), Ok(None));
        assert!(load(true).expect_err("missing").to_string().contains("cannot be read"));
        fs::write(&path, r#"{"revision": 3}"#).expect("written");
        let read = load(false).expect("valid").expect("there");
        assert_eq!((read.rules.revision, read.text.as_str()), (3, r#"{"revision": 3}"#));
        fs::write(&path, r#"{"revision": 0, "x": 1}"#).expect("written");
        assert_eq!(load(true).expect_err("faulty").faults.iter().count(), 2);
        fs::write(&path, vec![b' '; RULE_SET_BYTES_MAX + 1]).expect("written");
        assert!(load(true).expect_err("long").to_string().contains("1048576 at most"));
    }
}
