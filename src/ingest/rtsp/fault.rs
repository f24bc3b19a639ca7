//! Why a camera cannot be pulled, in words that hold no secret.

use std::fmt;
use std::time::Duration;

use crate::domain::fleet::trial::Failing;
use crate::ingest::intake::Refusal;

/// Characters of the RTSP library's words that are repeated.
const WORDS_CHARS_MAX: usize = 200;
/// Status of a request without valid credentials.
const UNAUTHORIZED: u16 = 401;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// TCP connection and DESCRIBE.
    Describe,
    /// SETUP of a track.
    Setup,
    /// PLAY.
    Play,
    /// Receiving media.
    Receive,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Describe => "DESCRIBE",
            Stage::Setup => "SETUP",
            Stage::Play => "PLAY",
            Stage::Receive => "receiving",
        })
    }
}

/// A camera cannot be pulled, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The camera does not answer.
    #[error("no answer to {stage} for {} s", .waited.as_secs())]
    NoAnswer {
        /// What was asked.
        stage: Stage,
        /// How long was waited.
        waited: Duration,
    },
    /// User or password are wrong or missing.
    #[error("the camera refuses the user or password")]
    Unauthorized,
    /// The camera answered with another status than success.
    #[error("the camera answered {stage} with status {status}")]
    Status {
        /// What was asked.
        stage: Stage,
        /// The status.
        status: u16,
    },
    /// Connection or protocol failed.
    #[error("{stage} failed: {words}")]
    Rtsp {
        /// What was being done.
        stage: Stage,
        /// What the RTSP library says.
        words: String,
    },
    /// Nothing the camera offers can be carried.
    #[error("the camera has no track that can be carried (it has {})", .0.join(", "))]
    NoTrack(Vec<String>),
    /// Media stopped.
    #[error("no media for {} s", .0.as_secs())]
    Silent(Duration),
    /// The box does not take the stream.
    #[error("not taken: {0}")]
    Refused(Refusal),
    /// A connection beside another did not bring what that one brought.
    #[error("the new connection stays behind the old one")]
    LeftBehind,
    /// A defect in the RTSP library.
    #[error("the RTSP library gave up")]
    Panicked,
}

impl Fault {
    /// What fails; `None`: somebody else delivers the stream, or the box ends.
    pub(super) fn failing(&self) -> Option<Failing> {
        match self {
            Fault::Refused(Refusal::AlreadyPublishing | Refusal::Unavailable(_)) => None,
            Fault::Refused(Refusal::Full) => Some(Failing::Recording),
            _ => Some(Failing::Pull),
        }
    }

    /// From what the RTSP library says.
    pub(super) fn from_rtsp(stage: Stage, error: &retina::Error) -> Self {
        match error.status_code() {
            Some(UNAUTHORIZED) => Fault::Unauthorized,
            // An error in a successful answer is one of its content.
            Some(status) if !(200..300).contains(&status) => Fault::Status { stage, status },
            _ => Fault::Rtsp { stage, words: harmless(&error.to_string()) },
        }
    }
}

/// The first line, shortened, without addresses (they may hold secrets) and control characters.
fn harmless(words: &str) -> String {
    let line = words.lines().next().unwrap_or_default();
    let kept: Vec<&str> = line
        .split_whitespace()
        .map(|word| if word.contains("://") { "(address)" } else { word })
        .collect();
    kept.join(" ").chars().filter(|c| !c.is_control()).take(WORDS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_further_lines_are_not_repeated() {
        let words = "response at rtsp://cam/token=canary has\x1b[2J type x\n\nconn: 1.2.3.4";
        assert_eq!(harmless(words), "response at (address) has[2J type x");
        assert_eq!(harmless(&"x".repeat(1_000)).len(), WORDS_CHARS_MAX);
    }
}
