//! A document that is not taken, and why: said to the fleet, field by field.

use serde_json::{Value, json};

use crate::domain::faults::Faults;

/// Why, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Nothing is in it. That deletes nothing.
    Empty,
    /// It is no rule set, or not one that can be used.
    Malformed,
    /// The box takes only signed documents.
    Unsigned,
    /// No key of the box has signed it.
    BadSignature,
    /// It is for another fleet or box.
    Foreign,
    /// It may not be taken any more.
    Expired,
    /// The box has a newer one.
    Older,
    /// The box has another one under the same revision.
    OtherContent,
    /// It was taken, streams that worked failed under it, and the box went back.
    StreamsFail,
}

impl Why {
    /// The word of reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Why::Empty => "empty",
            Why::Malformed => "malformed",
            Why::Unsigned => "unsigned",
            Why::BadSignature => "bad_signature",
            Why::Foreign => "foreign",
            Why::Expired => "expired",
            Why::Older => "older",
            Why::OtherContent => "other_content",
            Why::StreamsFail => "streams_fail",
        }
    }
}

/// A document that changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {faults}", why.word())]
pub struct Refused {
    /// In one word.
    pub why: Why,
    /// The revision that it claims, if that can be read.
    pub revision: Option<u64>,
    /// Everything that is wrong, each with its place.
    pub faults: Faults,
}

impl Refused {
    /// A refusal with one reason.
    #[must_use]
    pub fn new(why: Why, revision: Option<u64>, place: &str, what: impl Into<String>) -> Self {
        let mut faults = Faults::new();
        faults.add(place, what);
        Refused { why, revision, faults }
    }

    /// As the fleet is told: at most `reasons_max` reasons, and how many more there are.
    #[must_use]
    pub fn told(&self, reasons_max: usize) -> Value {
        let told = self.faults.iter().take(reasons_max);
        let reasons: Vec<Value> =
            told.map(|fault| json!({"place": fault.place, "what": fault.what})).collect();
        let more = self.faults.iter().count() + self.faults.left_out() - reasons.len();
        json!({
            "why": self.why.word(),
            "revision": self.revision,
            "reasons": reasons,
            "more": more,
        })
    }
}
