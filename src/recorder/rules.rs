//! The rules in force, as the recorder looks at them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::domain::matching::RuleTable;
use crate::domain::rule_set::{Apply, ApplyMode};
use crate::domain::time::BootTime;

/// Rules and when they came.
#[derive(Debug)]
pub struct Rules {
    /// What they say.
    pub table: RuleTable,
    /// How live sessions take them.
    pub apply: Apply,
    /// Since when they are in force.
    pub since: BootTime,
    /// Grows with each change in the life of the process.
    pub number: u64,
}

/// The rules in force, swapped whole.
pub type RulesInForce = Arc<ArcSwap<Rules>>;

impl Rules {
    /// The first rules of a process.
    #[must_use]
    pub fn first(table: RuleTable) -> Self {
        let apply = Apply { mode: ApplyMode::NextStart, within_s: 0, disconnect: false };
        Rules { table, apply, since: BootTime(0), number: 0 }
    }

    /// The rules that follow these.
    #[must_use]
    pub fn followed_by(&self, table: RuleTable, apply: Apply, since: BootTime) -> Self {
        Rules { table, apply, since, number: self.number + 1 }
    }
}
