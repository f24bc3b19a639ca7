//! The disk of the ring, watched while the box runs. When it is gone, exchanged, or takes no writes
//! any more, the box ends and says why: its sandbox is bound to the disk that lay there when it was
//! entered. The service manager starts it again, and it records as soon as the disk is good.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::error;

use crate::app::AppError;
use crate::config::RingConfig;
use crate::domain::disk::DiskFault;
use crate::platform::mounts::is_mount_point;
use crate::platform::service_manager;
use crate::ring::RingError;
use crate::ring::disk::Disk;

/// The disk is looked at this often: twice a fragment.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why the box ends by itself, once it does; for those who say farewell.
pub(super) type Ending = Arc<OnceLock<DiskFault>>;

/// Refuses a ring whose disk the configuration names and which is not mounted.
pub(super) fn check(ring: &RingConfig) -> Result<(), AppError> {
    let mounted = |mount: &Path| is_mount_point(mount).unwrap_or(false);
    match &ring.mount {
        Some(mount) if !mounted(mount) => {
            let (path, fault) = (mount.clone(), DiskFault::Missing);
            Err(RingError::Disk { path, fault }.into())
        }
        _ => Ok(()),
    }
}

/// Waits for a fault of the disk.
pub(super) async fn watch(disk: Disk, ring: RingConfig, ending: Ending) -> DiskFault {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let look = disk.clone();
        // A look that does not come back says nothing: a card may stall for seconds.
        let Ok(Some(fault)) = tokio::task::spawn_blocking(move || look.fault()).await else {
            continue;
        };
        // Below a mount that is gone there may be a folder of the same name.
        let fault = check(&ring).map_or(DiskFault::Missing, |()| fault);
        let words = fault.words();
        error!(fault = words, "nothing can be recorded any more; the box ends to begin anew");
        let _ = ending.set(fault);
        super::watchdog::tell(service_manager::status(words));
        return fault;
    }
}
