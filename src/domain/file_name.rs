//! Names of files: VodFileName patterns and what they expand to. Times are UTC+8, as the cloud
//! API has them.

use std::fmt;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use crate::domain::faults::quoted;
use crate::domain::ids::BootId;
use crate::domain::time::{BootTime, UnixMillis};

/// Used where a template names no pattern.
pub const DEFAULT_PATTERN: &str = "{StreamID}_{StartYear}-{StartMonth}-{StartDay}-{StartHour}-\
     {StartMinute}-{StartSecond}_{EndYear}-{EndMonth}-{EndDay}-{EndHour}-{EndMinute}-{EndSecond}";

/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 255;

/// A checked VodFileName pattern. Equal if the text is.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileNamePattern {
    text: String,
    pieces: Vec<Piece>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileNameError {
    /// Too long.
    #[error("has {0} bytes, {PATTERN_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// A control character.
    #[error("has a control character")]
    BadCharacter,
    /// A brace without its partner.
    #[error("has a `{0}` without its partner")]
    StrayBrace(char),
    /// Something else between braces.
    #[error("{} is not a placeholder", quoted(.0))]
    UnknownPlaceholder(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Piece {
    Literal(String),
    StreamId,
    Time(Edge, Unit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Edge {
    Start,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

impl FileNamePattern {
    /// Checks a pattern; the empty one is [`DEFAULT_PATTERN`].
    ///
    /// # Errors
    /// Too long, a control character, a stray brace or an unknown placeholder.
    pub fn parse(text: &str) -> Result<Self, FileNameError> {
        let text = if text.is_empty() { DEFAULT_PATTERN } else { text };
        if text.len() > PATTERN_BYTES_MAX {
            return Err(FileNameError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(FileNameError::BadCharacter);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            if at > 0 {
                pieces.push(Piece::Literal(rest[..at].to_owned()));
            }
            let inside = rest[at..].strip_prefix('{').ok_or(FileNameError::StrayBrace('}'))?;
            let (name, after) = inside.split_once('}').ok_or(FileNameError::StrayBrace('{'))?;
            let piece = Piece::placeholder(name);
            pieces.push(
                piece.ok_or_else(|| FileNameError::UnknownPlaceholder(format!("{{{name}}}")))?,
            );
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(FileNamePattern { text: text.to_owned(), pieces })
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern as callers give it: empty for the default.
    #[must_use]
    pub fn given(&self) -> &str {
        if self.text == DEFAULT_PATTERN { "" } else { &self.text }
    }

    /// The name of a file of `stream` that holds media from `start` to `end`. Not yet a path: what
    /// stores it must encode it.
    #[must_use]
    pub fn expand(&self, stream: &str, start: UnixMillis, end: UnixMillis) -> String {
        let (start, end) = (start.civil(), end.civil());
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.clone(),
                Piece::StreamId => stream.to_owned(),
                Piece::Time(Edge::Start, unit) => unit.of(start),
                Piece::Time(Edge::End, unit) => unit.of(end),
            })
            .collect()
    }
}

/// The name of a file whose wall time was never known: the boot and the times since boot.
#[must_use]
pub fn untrusted_name(stream: &str, boot: BootId, start: BootTime, end: BootTime) -> String {
    let boot8: String = boot.to_string().chars().take(8).collect();
    format!("{stream}_boot-{boot8}_{}_{}", start.0, end.0)
}

impl Piece {
    fn placeholder(name: &str) -> Option<Piece> {
        if name == "StreamID" {
            return Some(Piece::StreamId);
        }
        let (edge, unit) = match name.strip_prefix("Start") {
            Some(unit) => (Edge::Start, unit),
            None => (Edge::End, name.strip_prefix("End")?),
        };
        let unit = match unit {
            "Year" => Unit::Year,
            "Month" => Unit::Month,
            "Day" => Unit::Day,
            "Hour" => Unit::Hour,
            "Minute" => Unit::Minute,
            "Second" => Unit::Second,
            "Millisecond" => Unit::Millisecond,
            _ => return None,
        };
        Some(Piece::Time(edge, unit))
    }
}

impl Unit {
    fn of(self, time: DateTime) -> String {
        match self {
            Unit::Year => format!("{:04}", time.year()),
            Unit::Month => format!("{:02}", time.month()),
            Unit::Day => format!("{:02}", time.day()),
            Unit::Hour => format!("{:02}", time.hour()),
            Unit::Minute => format!("{:02}", time.minute()),
            Unit::Second => format!("{:02}", time.second()),
            Unit::Millisecond => format!("{:03}", time.millisecond()),
        }
    }
}

impl TryFrom<String> for FileNamePattern {
    type Error = FileNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        FileNamePattern::parse(&text)
    }
}

impl From<FileNamePattern> for String {
    fn from(pattern: FileNamePattern) -> String {
        pattern.text
    }
}

impl Default for FileNamePattern {
    fn default() -> Self {
        FileNamePattern::parse("").expect("the default pattern is one")
    }
}

impl fmt::Debug for FileNamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileNamePattern({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/data/vod_file_name.json")).expect("JSON")
    }

    #[test]
    fn contract_cases() {
        let vectors = vectors();
        assert_eq!(vectors["default_pattern"], DEFAULT_PATTERN);
        let cases = vectors["cases"].as_array().expect("cases");
        assert!(!cases.is_empty());
        for case in cases {
            let text = |name: &str| case[name].as_str().expect("text");
            let time = |name: &str| UnixMillis(case[name].as_i64().expect("number"));
            let pattern = FileNamePattern::parse(text("pattern")).expect("valid");
            let name =
                pattern.expand(text("stream_id"), time("start_unix_ms"), time("end_unix_ms"));
            assert_eq!(name, text("name"));
        }
        for name in vectors["placeholders"].as_array().expect("names") {
            let pattern = format!("a{{{}}}b", name.as_str().expect("text"));
            FileNamePattern::parse(&pattern).expect("known placeholder");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        let error = |text: &str| FileNamePattern::parse(text).expect_err("bad").to_string();
        assert_eq!(error("{StreamId}"), "`{StreamId}` is not a placeholder");
        assert_eq!(error("{}"), "`{}` is not a placeholder");
        assert_eq!(error("{{StreamID}}"), "`{{StreamID}` is not a placeholder");
        assert_eq!(error("a}"), "has a `}` without its partner");
        assert_eq!(error("{StreamID"), "has a `{` without its partner");
        assert_eq!(error("a\nb"), "has a control character");
        assert_eq!(error(&"x".repeat(256)), "has 256 bytes, 255 are allowed");
    }

    #[test]
    fn untrusted_clock_names_boot_and_times_since_boot() {
        let boot = BootId([0x3f, 0x9a, 0x01, 0xbc, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let name = untrusted_name("gate", boot, BootTime(1200), BootTime(61_200));
        assert_eq!(name, "gate_boot-3f9a01bc_1200_61200");
    }

    #[test]
    fn a_stream_name_with_braces_is_not_expanded_again() {
        let pattern = FileNamePattern::parse("{StreamID}").expect("valid");
        let name = pattern.expand("{StartYear}/../x", UnixMillis(0), UnixMillis(0));
        assert_eq!(name, "{StartYear}/../x");
    }

    proptest! {
        #[test]
        fn no_text_and_no_time_panics(text in ".{0,80}", start: i64, end: i64) {
            if let Ok(pattern) = FileNamePattern::parse(&text) {
                let _ = pattern.expand("s", UnixMillis(start), UnixMillis(end));
                let json = serde_json::to_string(&pattern).expect("text");
                let back: FileNamePattern = serde_json::from_str(&json).expect("own text");
                prop_assert_eq!(back, pattern);
            }
        }
    }
}
