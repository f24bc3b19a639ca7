//! A clock that stands still until it is told to go on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::ids::BootId;
use crate::domain::time::{BootTime, ClockQuality, Instant, UnixMillis, WallTime};
use crate::platform::clock::Clock;

/// The clock of a simulated box, and the true time that its wall clock may be away from.
#[derive(Debug)]
pub struct SimClock(Mutex<State>);

#[derive(Debug, Clone, Copy)]
struct State {
    /// Since the world began, in milliseconds; runs on while the box is off.
    true_ms: u64,
    booted_at_ms: u64,
    boot_id: BootId,
    /// Wall time at the true time 0, as the box believes it.
    wall_at_start_ms: i64,
    quality: ClockQuality,
}

impl SimClock {
    /// A clock of a box that boots as the world begins, with this wall time.
    #[must_use]
    pub fn new(boot_id: BootId, wall: WallTime) -> Self {
        SimClock(Mutex::new(State {
            true_ms: 0,
            booted_at_ms: 0,
            boot_id,
            wall_at_start_ms: wall.unix.0,
            quality: wall.quality,
        }))
    }

    /// Milliseconds since the world began.
    #[must_use]
    pub fn true_ms(&self) -> u64 {
        self.state().true_ms
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        self.state().true_ms += u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    }

    /// Time passes up to this many milliseconds since the world began, if it is not later already.
    pub fn advance_to(&self, true_ms: u64) {
        let mut state = self.state();
        state.true_ms = state.true_ms.max(true_ms);
    }

    /// The wall clock is set.
    pub fn set_wall(&self, wall: WallTime) {
        let mut state = self.state();
        state.wall_at_start_ms = wall.unix.0 - state.true_ms.cast_signed();
        state.quality = wall.quality;
    }

    /// The box boots now.
    pub fn boot(&self, boot_id: BootId) {
        let mut state = self.state();
        (state.booted_at_ms, state.boot_id) = (state.true_ms, boot_id);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        let state = *self.state();
        let unix = UnixMillis(state.wall_at_start_ms + state.true_ms.cast_signed());
        Instant {
            boot: BootTime(state.true_ms - state.booted_at_ms),
            wall: WallTime { unix, quality: state.quality },
        }
    }

    fn boot_id(&self) -> BootId {
        self.state().boot_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_begins_anew_and_wall_time_runs_on() {
        let wall = |unix| WallTime { unix: UnixMillis(unix), quality: ClockQuality::Trusted };
        let clock = SimClock::new(BootId([1; 16]), wall(5_000));
        clock.advance(Duration::from_millis(300));
        clock.boot(BootId([2; 16]));
        clock.advance_to(400);
        clock.advance_to(10);
        assert_eq!(clock.now(), Instant { boot: BootTime(100), wall: wall(5_400) });
        assert_eq!((clock.boot_id(), clock.true_ms()), (BootId([2; 16]), 400));
        clock.set_wall(wall(7));
        clock.advance(Duration::from_millis(3));
        assert_eq!(clock.now().wall, wall(10));
    }
}
