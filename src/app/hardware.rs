//! The board that the box runs on: its ring lies on the board's data partition, its LED shows how it
//! is.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::AppError;
use crate::config::{Hardware, RingConfig};
use crate::domain::status_light::{STEPS_PER_SECOND, Wellness, is_lit};
use crate::platform::board::Led;
use crate::platform::mounts::is_mount_point;
use crate::recorder::live::LiveTable;
use crate::ring::handle::Ring;

/// A loss is shown for so many steps of the light.
const TROUBLE_STEPS: u64 = 10 * STEPS_PER_SECOND;

/// Refuses a ring that would be on another disk than the board's data partition, such as the one of
/// the system while the data partition is not mounted.
pub(super) fn check(hardware: &Hardware, ring: &RingConfig) -> Result<(), AppError> {
    let mount = &hardware.data_mount;
    let refused = |what: &str| {
        let what = format!("{} keeps its ring on {}, {what}", hardware.name, mount.display());
        Err(AppError::Board(what))
    };
    if !ring.path.starts_with(mount) {
        return refused(&format!("and [ring] path is {}", ring.path.display()));
    }
    match is_mount_point(mount) {
        Ok(true) => {}
        Ok(false) => return refused("which is not mounted"),
        Err(error) => return refused(&format!("which cannot be looked at: {error}")),
    }
    let watchdog = hardware.watchdog.as_ref().map_or("none".into(), |path| path.to_string_lossy());
    let rtc = hardware.rtc.as_ref().map_or("none".into(), |path| path.to_string_lossy());
    let power_fail = hardware.power_fail.as_deref().unwrap_or("none");
    info!(board = %hardware.name, %watchdog, %rtc, power_fail, "on a board");
    Ok(())
}

/// The thermal zones that are told.
pub(super) fn zones(hardware: Option<&Hardware>) -> Vec<String> {
    hardware.map(|board| board.thermal_zones.clone()).unwrap_or_default()
}

/// Shows on the LED, if there is one, how the box is, until `shutdown`; then it is off.
pub(super) async fn shine(
    hardware: Option<Hardware>,
    ring: Arc<Ring>,
    live: Arc<LiveTable>,
    shutdown: CancellationToken,
) {
    let Some(folder) = hardware.and_then(|board| board.status_led) else { return };
    let led = match Led::take(&folder) {
        Ok(led) => led,
        Err(error) => return warn!(led = %folder.display(), %error, "no status light"),
    };
    let mut steps = tokio::time::interval(Duration::from_secs(1) / STEPS_PER_SECOND as u32);
    steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut step, mut shown, mut lost, mut trouble_until) = (0_u64, None, 0, 0);
    loop {
        tokio::select! {
            _ = steps.tick() => {}
            () = shutdown.cancelled() => break,
        }
        let read = ring.lanes.meters.read();
        let now_lost = read.fragments_dropped + read.sync_failures;
        if now_lost != lost {
            (lost, trouble_until) = (now_lost, step + TROUBLE_STEPS);
        }
        let recording = live.count_by_decision().get("record").is_some_and(|count| *count > 0);
        let wellness = match (step < trouble_until, recording) {
            (true, _) => Wellness::Trouble,
            (false, true) => Wellness::Recording,
            (false, false) => Wellness::Waiting,
        };
        let lit = is_lit(wellness, step);
        // Written only when it changes: sysfs is not free.
        if shown != Some(lit) && led.set(lit).is_ok() {
            shown = Some(lit);
        }
        step += 1;
    }
    // Nobody is there any more to say how the box is.
    let _ = led.set(false);
}
