//! Timers of a runtime whose clock is paused: time passes as soon as nobody has anything to do.

use std::time::Duration;

/// So much simulated time passes, and everybody's timers with it.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
