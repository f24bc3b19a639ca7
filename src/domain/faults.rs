//! What is wrong with a document that a person or a fleet wrote: all of it at once, each fault
//! with its place, so that one round of corrections is enough.

use std::fmt;

/// Faults that are kept; of more only the count is.
const FAULTS_MAX: usize = 64;
/// Characters of foreign text that a fault repeats.
const QUOTED_CHARS_MAX: usize = 64;

/// What kind of wrong, for those who answer with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FaultKind {
    /// A value that is not allowed.
    #[default]
    Value,
    /// Something that must be there is not.
    Missing,
    /// Something that nobody knows.
    Unknown,
    /// Something that the box does not do.
    Unsupported,
    /// A VodFileName that is no pattern.
    VodFileName,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind.
    pub kind: FaultKind,
    /// Where, like `templates[2].FlvParam.RecordInterval`; empty for the whole document.
    pub place: String,
    /// What, in words.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Everything that is wrong with one document, in the order it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    kept: Vec<Fault>,
    left_out: usize,
}

impl Faults {
    /// No fault yet.
    #[must_use]
    pub fn new() -> Self {
        Faults::default()
    }

    /// Adds one about a value.
    pub fn add(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.add_kind(FaultKind::Value, place, what);
    }

    /// Adds one of a kind.
    pub fn add_kind(&mut self, kind: FaultKind, place: impl Into<String>, what: impl Into<String>) {
        if self.kept.len() < FAULTS_MAX {
            self.kept.push(Fault { kind, place: place.into(), what: what.into() });
        } else {
            self.left_out += 1;
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The faults that were kept (the first 64).
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.kept.iter()
    }

    /// How many more there were.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// `value` if nothing is wrong.
    ///
    /// # Errors
    /// The faults, if there is one.
    pub fn into_result<T>(self, value: T) -> Result<T, Faults> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

/// One fault a line.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.kept.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        if self.left_out > 0 {
            write!(f, "\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Foreign text as a fault repeats it: in back quotes, shortened, control characters escaped.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (index, c) in text.chars().enumerate() {
        if index == QUOTED_CHARS_MAX {
            out.push('…');
            break;
        }
        if c.is_control() || is_direction_mark(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

/// Characters that turn the reading direction, with which a log line can be made to lie.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_bounded_and_counted() {
        let mut faults = Faults::new();
        for index in 0..70 {
            faults.add(format!("a[{index}]"), "is wrong");
        }
        assert_eq!(faults.iter().count(), 64);
        assert_eq!(faults.left_out(), 6);
        assert!(faults.to_string().ends_with("a[63]: is wrong\nand 6 more"));
        assert!(faults.into_result(()).is_err());
        assert_eq!(Faults::new().into_result(1), Ok(1));
    }

    #[test]
    fn foreign_text_stays_on_its_line_and_short() {
        assert_eq!(quoted("a\nb\u{1b}[31m\u{202e}"), "`a\\u{a}b\\u{1b}[31m\\u{202e}`");
        assert_eq!(quoted(&"x".repeat(1000)).chars().count(), 64 + 3);
    }
}
