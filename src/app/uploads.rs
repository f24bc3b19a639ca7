//! Uploads as configured: what they are asked with and shown by, and their start.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{BitRate, Config, UploadConfig};
use crate::delivery::board::Board;
use crate::delivery::ring_shelf::RingShelf;
use crate::delivery::settings::DeliverySettings;
use crate::delivery::target::Target;
use crate::delivery::worker::Worker;
use crate::domain::day_windows::{DayWindows, time_zone};
use crate::domain::upload_plan::UploadPlan;
use crate::platform::clock::Clock;
use crate::platform::links::SystemLinks;
use crate::ring::handle::Ring;

/// Uploads before they start.
pub(super) struct Uploads {
    /// Tells where each file stands.
    pub(super) board: Arc<Board>,
    settings: DeliverySettings,
    target: Arc<dyn Target>,
}

impl Uploads {
    /// The uploads to a target; `None` without `[upload]`.
    pub(super) fn of(config: &Config, target: Arc<dyn Target>) -> Option<Self> {
        let upload = config.upload.as_ref()?;
        let settings = settings(upload, &config.identity.timezone);
        Some(Uploads { board: Arc::new(Board::new(&settings)), settings, target })
    }

    /// Starts to bring finished files to the target.
    pub(super) fn start(
        self,
        ring: &Arc<Ring>,
        clock: &Arc<dyn Clock>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) {
        let Uploads { board, settings, target } = self;
        let order = settings.plan.order;
        ring.catalog.post(move |state| state.set_upload_order(order));
        let worker = Worker {
            shelf: Arc::new(RingShelf::new(ring.clone())),
            target,
            clock: clock.clone(),
            links: Arc::new(SystemLinks),
            board,
            wake: ring.catalog.news(),
            settings,
        };
        tasks.spawn(worker.run(shutdown));
    }
}

/// How delivery works, by what is configured; windows are in the local time of the box.
fn settings(upload: &UploadConfig, timezone: &str) -> DeliverySettings {
    let plan = upload.plan.clone();
    let zone = time_zone(timezone).expect("the configuration has a time zone that there is");
    DeliverySettings {
        parallel: plan.parallel,
        cap_bytes_per_s: plan.bandwidth.map(BitRate::bytes_per_second),
        plan: UploadPlan {
            order: plan.order,
            windows: DayWindows::new(plan.windows, zone),
            daily_bytes: plan.daily_bytes,
            metered_links: plan.metered_links,
            metered_templates: plan.metered_templates,
        },
        ..DeliverySettings::default()
    }
}
