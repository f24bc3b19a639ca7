//! What can go wrong on the way to a target, and what it means for the file and for the queue.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::delivery::cause::Cause;
use crate::delivery::path::ObjectPathError;
use crate::delivery::shelf::ShelfError;
use crate::media::clip::ClipError;
use crate::media::render::RenderError;

/// A cause of any type.
pub type BoxedError = Box<dyn StdError + Send + Sync>;

/// What policy does about an error; it reads nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Try again later, for ever.
    Retry,
    /// The file can never be delivered and there is nothing to keep.
    Drop,
    /// The file will never be delivered although its media is there: a loss for the ledger.
    Lose,
    /// The file is damaged: set it aside for a person to look at. A loss for the ledger, too.
    Quarantine,
    /// Nothing can be delivered before the settings are changed.
    Stop,
}

/// Whom an error concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorScope {
    /// This file only; others go on.
    File,
    /// The target: every other file would meet the same.
    Target,
    /// One or the other: both rest, so that neither a bad file nor a bad target is hammered.
    Either,
}

/// A file was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// No connection, or it broke.
    #[error("no link to the target")]
    Unreachable(#[source] BoxedError),
    /// The target is too slow or silent.
    #[error("target too slow: {what} (waited {waited:?})")]
    TooSlow {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// The target said no.
    #[error("{}target answered {status} {code}: {message}", Cause::of(*.status, code).hint())]
    Refused {
        /// HTTP status.
        status: u16,
        /// The service's own code, or what stands for it.
        code: String,
        /// What the service says, shortened and without control characters.
        message: String,
        /// How long it wants to be left alone, if it says so.
        wait: Option<Duration>,
    },
    /// The target said something that is no answer.
    #[error("target's answer makes no sense: {0}")]
    NoSense(String),
    /// What is stored is not what was sent.
    #[error("stored object is not what was sent: {0}")]
    Corrupt(String),
    /// A file system operation failed.
    #[error("{what} {} failed", path.display())]
    Folder {
        /// Which operation.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// Too little room in the folder.
    #[error("no room: {needed_bytes} bytes needed, {free_bytes} free")]
    NoRoom {
        /// Bytes of the object.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// A folder on the way is a link that leads out of the target.
    #[error("{} leads out of the target folder", .0.display())]
    LeadsOut(PathBuf),
    /// The clip cannot be rendered.
    #[error("file cannot be rendered")]
    Render(#[source] RenderError),
    /// An object of the rendering has no usable name.
    #[error("object has no usable name")]
    Name(#[source] ObjectPathError),
    /// The catalog or the ring failed.
    #[error("the box itself failed")]
    Shelf(#[source] ShelfError),
    /// The settings cannot work.
    #[error("target settings: {0}")]
    Settings(String),
    /// What was begun at the target cannot be gone on with: another begins under the same
    /// identity.
    #[error("the upload is no longer good: {0}")]
    SessionOver(String),
    /// The file's StorageTime was over before it could be sent.
    #[error("StorageTime was over before it could be sent")]
    Expired,
    /// Uploads are held up for now: the transfer stopped at a good place and goes on later.
    #[error("held up")]
    HeldUp,
    /// The box shuts down or the transfer was given up.
    #[error("transfer given up")]
    Cancelled,
}

impl DeliveryError {
    /// What policy does about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            DeliveryError::Render(error) | DeliveryError::Shelf(ShelfError::Render(error)) => {
                render_class(error)
            }
            DeliveryError::Shelf(ShelfError::Gone) | DeliveryError::Name(_) => ErrorClass::Drop,
            DeliveryError::Expired => ErrorClass::Lose,
            DeliveryError::Shelf(ShelfError::Damaged(_)) => ErrorClass::Quarantine,
            DeliveryError::Settings(_) => ErrorClass::Stop,
            _ => ErrorClass::Retry,
        }
    }

    /// Whom it concerns.
    #[must_use]
    pub fn scope(&self) -> ErrorScope {
        match self {
            DeliveryError::Render(_)
            | DeliveryError::Name(_)
            | DeliveryError::Shelf(_)
            | DeliveryError::Corrupt(_)
            | DeliveryError::LeadsOut(_)
            | DeliveryError::SessionOver(_)
            | DeliveryError::Expired
            | DeliveryError::NoRoom { .. } => ErrorScope::File,
            DeliveryError::Unreachable(_)
            | DeliveryError::TooSlow { .. }
            | DeliveryError::Settings(_)
            | DeliveryError::HeldUp
            | DeliveryError::Cancelled => ErrorScope::Target,
            DeliveryError::Refused { status, code, .. } => Cause::of(*status, code).scope(),
            DeliveryError::NoSense(_) | DeliveryError::Folder { .. } => ErrorScope::Either,
        }
    }

    /// Whether what was sent may have arrived all the same: the answer was lost, or was none.
    #[must_use]
    pub fn leaves_doubt(&self) -> bool {
        match self {
            DeliveryError::Refused { status, .. } => *status >= 500,
            DeliveryError::Unreachable(_)
            | DeliveryError::TooSlow { .. }
            | DeliveryError::NoSense(_) => true,
            _ => false,
        }
    }

    /// How long the target wants to be left alone, if it says so.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        match self {
            DeliveryError::Refused { wait, .. } => *wait,
            _ => None,
        }
    }

    /// The error and its causes in one line, for people. Causes that say the same are left out.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !text.ends_with(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            cause = error.source();
        }
        clean(&text, EXPLANATION_CHARS_MAX)
    }
}

/// Longest explanation, in characters.
const EXPLANATION_CHARS_MAX: usize = 400;

impl From<ShelfError> for DeliveryError {
    fn from(error: ShelfError) -> Self {
        DeliveryError::Shelf(error)
    }
}

impl From<ObjectPathError> for DeliveryError {
    fn from(error: ObjectPathError) -> Self {
        DeliveryError::Name(error)
    }
}

fn render_class(error: &RenderError) -> ErrorClass {
    match error {
        RenderError::NothingToHold { .. } => ErrorClass::Drop,
        RenderError::Clip(ClipError::Damaged { .. }) => ErrorClass::Quarantine,
        RenderError::Clip(ClipError::Read { .. }) => ErrorClass::Retry,
    }
}

/// Text from outside made fit for logs: no control characters, at most `chars_max` characters.
#[must_use]
pub fn clean(text: &str, chars_max: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanation_follows_the_causes_and_has_no_control_characters() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = DeliveryError::Unreachable(Box::new(refused));
        assert_eq!(error.explain(), "no link to the target: connection refused");
        let error = DeliveryError::NoSense("a\x1b[31m\nb".into());
        assert_eq!(error.explain(), "target's answer makes no sense: a [31m b");
    }

    #[test]
    fn damage_is_quarantined_and_a_flash_error_is_not() {
        let damaged = ClipError::Damaged { fragment: 1, what: "crc" };
        let error = DeliveryError::Render(damaged.into());
        assert_eq!((error.class(), error.scope()), (ErrorClass::Quarantine, ErrorScope::File));
        let read = ClipError::Read { fragment: 1, source: io::Error::other("eio") };
        assert_eq!(DeliveryError::Render(read.into()).class(), ErrorClass::Retry);
        assert_eq!(DeliveryError::Shelf(ShelfError::Gone).class(), ErrorClass::Drop);
    }
}
