//! How a command ends: its exit code and what is said about it.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Environment variable with the log filter, like `info,edgerec::ingest=debug`.
const LOG_VARIABLE: &str = "EDGEREC_LOG";

/// A command that did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It failed.
    Failed(String),
    /// What was asked makes no sense.
    Usage(String),
    /// The configuration cannot be used.
    Configuration(String),
    /// Everything is said already; the exit code.
    Said(u8),
    /// Nobody reads the output any more.
    Unread,
}

impl Failure {
    /// Exit code of a command that failed.
    pub const FAILED: u8 = 1;
    /// Exit code of a command that was not understood.
    pub const USAGE: u8 = 2;
    /// Exit code of a bad configuration.
    pub const CONFIGURATION: u8 = 64;

    /// It failed, for a reason in words.
    pub fn failed(what: impl Display) -> Self {
        Failure::Failed(what.to_string())
    }

    /// It failed with an error; its causes are told too.
    pub fn of(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Failure::Failed(text)
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => Failure::FAILED,
            Failure::Usage(_) => Failure::USAGE,
            Failure::Configuration(_) => Failure::CONFIGURATION,
            Failure::Said(code) => *code,
            Failure::Unread => 0,
        }
    }

    /// What is to be said on stderr.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Failure::Failed(text) | Failure::Usage(text) | Failure::Configuration(text) => {
                Some(text)
            }
            Failure::Said(_) | Failure::Unread => None,
        }
    }
}

/// Prints a line of a report.
///
/// # Errors
/// Nobody reads it, or it cannot be written.
pub fn print(out: &mut dyn Write, line: impl Display) -> Result<(), Failure> {
    written(writeln!(out, "{line}"))
}

/// Prints a report as one line of JSON.
///
/// # Errors
/// As [`print`].
pub fn print_json(out: &mut dyn Write, report: &impl Serialize) -> Result<(), Failure> {
    print(out, serde_json::to_string(report).expect("reports have plain fields"))
}

/// What became of writing to stdout.
///
/// # Errors
/// Nobody reads it, or it cannot be written.
pub fn written(done: io::Result<()>) -> Result<(), Failure> {
    match done {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Unread),
        Err(error) => Err(Failure::failed(format!("the output cannot be written: {error}"))),
    }
}

/// Says something beside the report.
pub fn note(text: impl Display) {
    // Nothing can be done about a terminal that is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Text from outside on one line of a terminal: control characters are escaped.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// Bytes for people, in binary units.
#[must_use]
pub fn bytes_for_people(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Logs to stderr: for the service from `info` on, for other commands only what the environment
/// asks for.
///
/// # Errors
/// The filter in the environment is none.
pub fn start_log(service: bool) -> Result<(), Failure> {
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(text) => text.parse::<Targets>().map_err(|error| {
            Failure::Configuration(format!("{LOG_VARIABLE} is no log filter: {error}"))
        })?,
        Err(_) if service => Targets::new().with_default(tracing::Level::INFO),
        Err(_) => return Ok(()),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    // Only a second call could find a subscriber in place.
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_down_to_tenths() {
        let shown = |bytes| bytes_for_people(bytes);
        assert_eq!(shown(1_023), "1023 B");
        assert_eq!(shown(1_024), "1.0 KiB");
        assert_eq!(shown(16 << 20), "16.0 MiB");
        assert_eq!(shown(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb日"), "a\\u{1b}[2J\\nb日");
    }
}
