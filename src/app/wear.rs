//! Keeps the account of what is written to the card, and forecasts its end: at the rate at which it was
//! written of late, and at the one that the rules in force come to with the streams that are live.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Endurance, RingConfig};
use crate::domain::flow::Flow;
use crate::domain::matching::Decision;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::domain::wear::{CardHealth, WearAccount, WearFigures, by_rules_per_day};
use crate::platform::block_device::BlockDevice;
use crate::platform::clock::Clock;
use crate::recorder::live::LiveTable;
use crate::recorder::rules::RulesInForce;
use crate::ring::catalog::Catalog;

/// The wear is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Every so many looks the account is kept, which is written: a power cut loses no more of it.
const LOOKS_PER_ENTRY: u32 = 6;

/// What is told of the wear; empty while nothing is known.
#[derive(Clone, Default)]
pub(super) struct WearShown(Arc<Mutex<Option<WearFigures>>>);

impl WearShown {
    pub(super) fn read(&self) -> Option<WearFigures> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, figures: WearFigures) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(figures);
    }
}

/// What the watch stands on.
pub(super) struct WearParts {
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    live: Arc<LiveTable>,
    rules: RulesInForce,
    ring: RingConfig,
    shown: WearShown,
}

/// What came of a stream up to a time.
struct Incoming {
    session_bytes: u64,
    flow: Flow,
}

/// Says it once, until it is no longer so; gives whether it is so.
fn warn_of(figures: &WearFigures, warned: bool) -> bool {
    if figures.warning && !warned {
        warn!(
            days_left = figures.days_left,
            days_left_by_rules = figures.days_left_by_rules,
            "the card will be worn out before its time; record less, or take one of more endurance"
        );
    }
    figures.warning
}

impl WearParts {
    pub(super) fn new(
        catalog: &Catalog,
        clock: &Arc<dyn Clock>,
        (live, rules, ring): (Arc<LiveTable>, RulesInForce, RingConfig),
        shown: &WearShown,
    ) -> Self {
        let (catalog, clock, shown) = (catalog.clone(), clock.clone(), shown.clone());
        WearParts { catalog, clock, live, rules, ring, shown }
    }

    /// Looks until `shutdown`, and a last time then.
    pub(super) async fn watch(self, shutdown: CancellationToken) {
        let device = match BlockDevice::under(&self.ring.path) {
            Ok(device) => device,
            Err(error) => return info!(%error, "the wear of the disk is not counted"),
        };
        let mut incoming = HashMap::new();
        let (mut warned, mut looked, mut kept) = (false, 0_u32, WearAccount::default());
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                _ = looks.tick() => false,
                () = shutdown.cancelled() => true,
            };
            self.measure(&mut incoming);
            let health = device.health();
            // A disk that is gone is told by those who watch it.
            let Ok(reading) = device.read() else { return };
            if last || looked.is_multiple_of(LOOKS_PER_ENTRY) {
                match self.catalog.call(move |state| state.enter_wear(reading)).await {
                    Ok(account) => kept = account,
                    Err(problem) => warn!(%problem, "the wear of the disk is counted later"),
                }
            }
            looked = looked.wrapping_add(1);
            let mut account = kept.clone();
            account.take(reading, self.clock.boot_id(), self.clock.now().wall);
            let figures = self.figures(&account, health, &mut incoming);
            warned = warn_of(&figures, warned);
            self.shown.show(figures);
            if last {
                return;
            }
        }
    }

    /// What came of each live stream since the last look, recorded or not.
    fn measure(&self, incoming: &mut HashMap<StreamKey, Incoming>) {
        let now = self.clock.now().boot;
        for (key, began, bytes) in self.live.incoming() {
            let known = incoming
                .entry(key)
                .or_insert_with(|| Incoming { session_bytes: 0, flow: Flow::new(began) });
            // A new session counts from nothing.
            let before = if bytes < known.session_bytes { 0 } else { known.session_bytes };
            known.session_bytes = bytes;
            known.flow.add(now, bytes - before);
        }
        incoming.retain(|_, known| !known.flow.is_dry(now));
    }

    fn figures(
        &self,
        account: &WearAccount,
        health: Option<CardHealth>,
        incoming: &mut HashMap<StreamKey, Incoming>,
    ) -> WearFigures {
        let now = self.clock.now();
        let by_rules = by_rules_per_day(self.wanted_per_second(incoming, now.boot));
        let endurance =
            self.ring.endurance.map(|Endurance { bytes, warn_days }| (bytes, warn_days));
        WearFigures::new(account, health, now.wall, by_rules, endurance)
    }

    /// Bytes a second of the streams that are live and that the rules in force have kept.
    fn wanted_per_second(&self, incoming: &mut HashMap<StreamKey, Incoming>, now: BootTime) -> u64 {
        let rules = self.rules.load();
        let wanted = |key: &StreamKey| match rules.table.resolve(key) {
            Decision::Record(_) => true,
            Decision::NoRecord(_) => false,
            Decision::Unmatched => self.ring.keep_all,
        };
        let rates = incoming.iter_mut().filter(|(key, _)| wanted(key));
        rates.filter_map(|(_, known)| known.flow.per_second(now)).sum()
    }
}
