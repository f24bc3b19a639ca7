//! What the service manager is told and asks for: `sd_notify(3)`, `sd_watchdog_enabled(3)`. Where
//! there is none, nothing is told.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// How often the service manager wants to hear that all is well; `None`: it does not ask.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// The service is up.
///
/// # Errors
/// The service manager cannot be reached.
pub fn ready() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready])
}

/// All is well.
///
/// # Errors
/// As [`ready`].
pub fn alive() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Watchdog])
}

/// The service ends.
///
/// # Errors
/// As [`ready`].
pub fn stopping() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Stopping])
}

/// How the service is, in words, for whoever asks the service manager.
///
/// # Errors
/// As [`ready`].
pub fn status(words: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Status(words)])
}
