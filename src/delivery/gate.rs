//! Whether uploads may run now, looked at again and again: the plan is pure, this is what it is
//! asked with. Keeps the day's account of what has gone out.

use std::sync::Arc;

use crate::delivery::error::DeliveryError;
use crate::delivery::shelf::Shelf;
use crate::delivery::target::blocking;
use crate::delivery::valve::Valve;
use crate::domain::time::ClockQuality;
use crate::domain::upload_plan::{DayAccount, Outlook, Situation, UploadPlan};
use crate::platform::clock::Clock;
use crate::platform::links::Links;

/// The account is kept whenever so many bytes more have gone out.
const KEPT_EVERY_BYTES: u64 = 4 << 20;

/// Says what may set out.
pub(super) struct Gate {
    plan: UploadPlan,
    clock: Arc<dyn Clock>,
    links: Arc<dyn Links>,
    valve: Arc<Valve>,
    shelf: Arc<dyn Shelf>,
    account: DayAccount,
    /// What the valve had let out when the account was last brought up to date.
    counted: u64,
    kept: DayAccount,
}

impl Gate {
    /// A gate that goes on with the account that the shelf has.
    pub(super) async fn open(
        plan: UploadPlan,
        clock: Arc<dyn Clock>,
        links: Arc<dyn Links>,
        valve: Arc<Valve>,
        shelf: Arc<dyn Shelf>,
    ) -> Self {
        let keeper = Arc::clone(&shelf);
        let account = match blocking(move || keeper.day_account()).await {
            Ok(account) => account,
            Err(error) => {
                tracing::warn!(why = error.explain(), "what has gone out today is not known");
                DayAccount { day: None, bytes: 0, since: clock.now().boot }
            }
        };
        let counted = valve.passed();
        Gate { plan, clock, links, valve, shelf, account, counted, kept: account }
    }

    /// What holds now.
    pub(super) async fn look(&mut self) -> Outlook {
        let now = self.clock.now();
        let wall = (now.wall.quality == ClockQuality::Trusted).then_some(now.wall.unix);
        let passed = self.valve.passed();
        self.account.add(self.plan.day(wall), now.boot, passed - self.counted);
        self.counted = passed;
        if self.plan.daily_bytes.is_some() {
            let more = self.account.bytes.saturating_sub(self.kept.bytes);
            if self.account.day != self.kept.day || more >= KEPT_EVERY_BYTES {
                self.keep().await;
            }
        }
        let metered = !self.plan.metered_links.is_empty();
        let link = if metered { self.links.outgoing() } else { None };
        self.plan.outlook(&Situation { wall, spent_bytes: self.account.bytes, link })
    }

    /// Keeps the account if it changed.
    pub(super) async fn keep(&mut self) {
        if self.plan.daily_bytes.is_none() || self.account == self.kept {
            return;
        }
        let (shelf, account) = (Arc::clone(&self.shelf), self.account);
        let kept: Result<(), DeliveryError> =
            blocking(move || shelf.keep_day_account(&account)).await;
        match kept {
            Ok(()) => self.kept = account,
            Err(error) => {
                tracing::warn!(why = error.explain(), "what has gone out today is not kept");
            }
        }
    }
}
