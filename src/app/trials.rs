//! Rule sets of the fleet on trial: told of what fails, has the box go back to the rules before, or
//! keep the new ones when their time is over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{error, info, warn};

use crate::domain::faults::Faults;
use crate::domain::fleet::refused::{Refused, Why};
use crate::domain::fleet::trial::{Failing, Trial};
use crate::domain::notice::BoxEvent;
use crate::domain::notice::box_event::BoxNews;
use crate::domain::service::layers::SentLayer;
use crate::domain::service::{Changes, Service};
use crate::domain::stream_key::StreamKey;
use crate::platform::clock::Clock;
use crate::ring::RingError;
use crate::ring::catalog::{Catalog, CatalogState};

/// The trials under way. The catalog thread takes the lock too, so nobody posts to it with the lock.
pub(super) struct Trials {
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    open: Mutex<BTreeMap<SentLayer, Trial>>,
}

impl Trials {
    /// Those that the last run left open begin anew; each change of the rules is followed from now on.
    ///
    /// # Errors
    /// The catalog is gone.
    pub(super) async fn open(
        catalog: Catalog,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, RingError> {
        let trials = Arc::new(Trials { catalog, clock, open: Mutex::default() });
        let followed = trials.clone();
        let watch = move |state: &mut CatalogState| {
            state.watch_service(Box::new(move |service| followed.follow(service)));
            Ok(())
        };
        trials.catalog.call(watch).await?;
        Ok(trials)
    }

    fn follow(&self, service: &Service) {
        let mut open = self.trials();
        for layer in [SentLayer::Fleet, SentLayer::Box] {
            let Some(rules) = service.fleet_rules.on_trial(layer) else {
                open.remove(&layer);
                continue;
            };
            if open.get(&layer).is_none_or(|trial| trial.revision() != rules.revision) {
                info!(?layer, revision = rules.revision, "rules of the fleet are on trial");
                let now = self.clock.now().boot;
                let trial = Trial::new(rules.revision, rules.touched, rules.within_s, now);
                open.insert(layer, trial);
            }
        }
    }

    /// A session of a stream failed, or could not begin.
    pub(super) fn failed(&self, key: &StreamKey, what: Failing, why: &str) {
        let now = self.clock.now().boot;
        let judge = |(layer, trial): (&SentLayer, &mut Trial)| {
            let reasons = trial.failed(key, what, why, now)?;
            Some((*layer, trial.revision(), reasons))
        };
        let back: Vec<(SentLayer, u64, Faults)> =
            self.trials().iter_mut().filter_map(judge).collect();
        for (layer, revision, reasons) in back {
            self.go_back(layer, revision, reasons);
        }
    }

    /// Time passes: to be called each second or so.
    pub(super) fn tick(&self) {
        let now = self.clock.now().boot;
        let over: Vec<(SentLayer, u64)> = self
            .trials()
            .extract_if(.., |_, trial| trial.is_over(now))
            .map(|(layer, trial)| (layer, trial.revision()))
            .collect();
        for (layer, revision) in over {
            info!(?layer, revision, "rules of the fleet have proved good");
            self.post(move |state| {
                let kept = state.change_service(|service, changes| {
                    service.keep_rules(layer, revision, changes);
                    Ok(())
                })?;
                kept.expect("keeping is not refused");
                Ok(())
            });
        }
    }

    fn go_back(&self, layer: SentLayer, revision: u64, reasons: Faults) {
        warn!(?layer, revision, %reasons, "streams fail under new rules, the ones before are in force");
        self.post(move |state| {
            let now = state.now().at.wall.unix;
            let (why, faults) = (Why::StreamsFail, reasons.clone());
            let refused = Refused { why, revision: Some(revision), faults };
            let event = BoxEvent { at: now, what: BoxNews::Refused { layer, refused } };
            let go_back = |service: &mut Service, changes: &mut Changes| {
                service.go_back(layer, revision, reasons, now, changes);
                Ok(())
            };
            let back = state.change_service_and_tell(go_back, Some(event))?;
            back.expect("going back is not refused");
            Ok(())
        });
    }

    /// A failed write changes nothing: what goes on failing asks again, and so does the next start.
    fn post(&self, job: impl FnOnce(&mut CatalogState) -> Result<(), RingError> + Send + 'static) {
        self.catalog.post(move |state| {
            if let Err(problem) = job(state) {
                error!(%problem, "the end of a trial could not be stored");
            }
        });
    }

    /// Nothing panics while it holds the lock.
    fn trials(&self) -> MutexGuard<'_, BTreeMap<SentLayer, Trial>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
