//! What is shown once, or round after round until nobody reads it any more.

use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::cli::outcome::{Failure, written};

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows a round, and with `more` each second another one.
///
/// # Errors
/// A round fails, or nobody reads it.
pub fn rounds(
    more: bool,
    out: &mut dyn Write,
    mut show: impl FnMut(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        show(out)?;
        written(out.flush())?;
        if !more {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}
