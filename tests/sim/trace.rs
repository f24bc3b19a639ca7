//! What a world went through: a digest over everything, counts, and the last lines for whoever has
//! to find out.

use std::collections::{BTreeMap, VecDeque};

use sha2::{Digest, Sha256};

/// Lines that are kept for a failure.
const LINES_MAX: usize = 60;

#[derive(Default)]
pub struct Trace {
    digest: Sha256,
    last: VecDeque<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// Something happened.
    pub fn event(&mut self, at_ms: u64, kind: &'static str, what: &str) {
        let line = format!("{at_ms} {kind} {what}");
        self.digest.update(line.as_bytes());
        self.digest.update(b"\n");
        if self.last.len() == LINES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line);
        self.count(kind, 1);
    }

    pub fn count(&mut self, kind: &'static str, more: u64) {
        *self.counts.entry(kind).or_default() += more;
    }

    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The digest of all lines, in hex.
    pub fn digest(&self) -> String {
        self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn last_lines(&self) -> String {
        self.last.iter().map(|line| format!("{line}\n")).collect()
    }
}
