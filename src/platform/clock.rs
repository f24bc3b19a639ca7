//! The clock seam: boot time, wall time with its quality, identity of the boot.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::domain::ids::BootId;
use crate::domain::time::{BootTime, ClockQuality, Instant, UnixMillis, WallTime};
use crate::platform::planted;

/// Earlier than this the wall clock was never set: 2026-01-01T00:00:00Z, before the first release.
const WALL_FLOOR: UnixMillis = UnixMillis(1_767_225_600_000);

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// Boot and wall time now.
    fn now(&self) -> Instant;
    /// The identity of this boot.
    fn boot_id(&self) -> BootId;
}

/// The machine's own clocks: `CLOCK_BOOTTIME` and `CLOCK_REALTIME`.
#[derive(Debug)]
pub struct SystemClock {
    boot_id: BootId,
}

impl SystemClock {
    /// Reads the identity of the boot from the kernel; a kernel without one gets a random one.
    #[must_use]
    pub fn new() -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| parse_uuid(text.trim()))
            .unwrap_or_else(crate::platform::random::random_bytes);
        SystemClock { boot_id: BootId(boot_id) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
            u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000
                + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000
        });
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        let unix = UnixMillis(unix_ms.saturating_add(planted::clock_off_ms()));
        let quality =
            if unix < WALL_FLOOR { ClockQuality::Untrusted } else { ClockQuality::Trusted };
        Instant { boot: BootTime(boot), wall: WallTime { unix, quality } }
    }

    fn boot_id(&self) -> BootId {
        self.boot_id
    }
}

/// The 16 bytes of a hyphenated UUID.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let hex: Vec<u32> =
        text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let mut bytes = [0; 16];
    if hex.len() != 32 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks(2)) {
        *byte = u8::try_from(pair[0] * 16 + pair[1]).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_grows_and_the_boot_has_an_identity() {
        let clock = SystemClock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second.boot >= first.boot);
        assert_ne!(clock.boot_id(), BootId([0; 16]));
        assert_eq!(clock.boot_id(), SystemClock::new().boot_id());
    }
}
