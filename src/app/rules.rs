//! The rules in force: the file of rules is the lowest layer, read at the start, again on SIGHUP and
//! when it is replaced; what the API makes lies above it. A file that cannot be used changes nothing.
//! A box of a fleet has no file, and begins with what the fleet has sent in an earlier life.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::app::sources::Pullers;
use crate::config::{ConfigFaults, RulesFile};
use crate::domain::fleet::document::Addressee;
use crate::domain::matching::RuleTable;
use crate::domain::rule_set::RuleSet;
use crate::domain::service::layers::SentLayer;
use crate::platform::clock::Clock;
use crate::platform::flash::Flash;
use crate::recorder::rules::{Rules, RulesInForce};
use crate::ring::RingError;
use crate::ring::catalog::Catalog;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The file of rules and what was read from it.
pub(super) struct RulesWatch {
    flash: Arc<dyn Flash>,
    file: Option<RulesFile>,
    rules: Option<RuleSet>,
    seen: Option<SystemTime>,
}

impl RulesWatch {
    /// Reads the rules; without a file there are none.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub(super) fn open(
        flash: Arc<dyn Flash>,
        file: Option<RulesFile>,
    ) -> Result<Self, ConfigFaults> {
        let mut watch = RulesWatch { flash, file, rules: None, seen: None };
        watch.seen = watch.modified();
        watch.rules = watch.load()?;
        Ok(watch)
    }

    fn load(&self) -> Result<Option<RuleSet>, ConfigFaults> {
        let Some(file) = &self.file else { return Ok(None) };
        Ok(file.load(&*self.flash)?.map(|document| document.rules))
    }

    fn modified(&self) -> Option<SystemTime> {
        self.flash.modified(&self.file.as_ref()?.path).ok()
    }

    /// Reads the file again; tells whether other rules are in force now.
    fn reload(&mut self) -> bool {
        self.seen = self.modified();
        match self.load() {
            Err(faults) => {
                error!(%faults, "the rules are refused, the old ones stay");
                false
            }
            Ok(None) => {
                warn!("the file of rules is gone, the old rules stay");
                false
            }
            Ok(rules) if rules == self.rules => false,
            Ok(rules) => {
                let revision = rules.as_ref().map(|rules| rules.revision);
                info!(?revision, "new rules");
                self.rules = rules;
                true
            }
        }
    }
}

/// Puts the rules of the file or of the fleet `us` is in, and what the API has made, in force, and has
/// them follow every change from then on. `changed` is told of each.
///
/// # Errors
/// The catalog fails.
pub(super) async fn in_force(
    watch: &RulesWatch,
    us: Option<Addressee>,
    allow_local: bool,
    catalog: &Catalog,
    clock: &Arc<dyn Clock>,
    changed: Arc<Notify>,
) -> Result<RulesInForce, RingError> {
    if !allow_local {
        let close = |state: &mut crate::ring::catalog::CatalogState| {
            state.change_service(|service, _| {
                service.layers.close_local();
                Ok(())
            })
        };
        // Nothing is refused here.
        let _ = catalog.call(close).await?;
    }
    if let Some(rules) = &watch.rules {
        hand_in(rules.clone(), catalog, clock).await?;
    }
    if let Some(us) = us {
        let now = clock.now().wall.unix;
        let adopt = move |state: &mut crate::ring::catalog::CatalogState| {
            state.change_service(|service, changes| {
                service.adopt_documents(&us, now, changes);
                Ok(())
            })
        };
        // Nothing is refused here.
        let _ = catalog.call(adopt).await?;
    }
    let clock = clock.clone();
    catalog
        .call(move |state| {
            let table = state.service().load().layers.table().clone();
            let in_force: RulesInForce =
                Arc::new(ArcSwap::from_pointee(Rules::first(RuleTable::clone(&table))));
            let (followed, last) = (in_force.clone(), Mutex::new(table));
            state.watch_service(Box::new(move |service| {
                let table = service.layers.table();
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if Arc::ptr_eq(&last, table) {
                    return;
                }
                *last = table.clone();
                let (apply, since) = (service.layers.apply(), clock.now().boot);
                let next = followed.load().followed_by(RuleTable::clone(table), apply, since);
                followed.store(Arc::new(next));
                changed.notify_one();
            }));
            Ok(in_force)
        })
        .await
}

/// Takes a rule set as the lowest layer.
async fn hand_in(
    rules: RuleSet,
    catalog: &Catalog,
    clock: &Arc<dyn Clock>,
) -> Result<(), RingError> {
    let now = clock.now().wall.unix;
    let change = move |state: &mut crate::ring::catalog::CatalogState| {
        state.change_service(|service, changes| {
            service.layers.set(SentLayer::Fleet, rules, now, changes);
            Ok(())
        })
    };
    // A checked rule set is not refused.
    catalog.call(change).await.map(drop)
}

/// Keeps the rules in step with the file, and the cameras with the rules, until `shutdown`.
pub(super) async fn follow(
    mut watch: RulesWatch,
    in_force: RulesInForce,
    changed: Arc<Notify>,
    (catalog, clock): (Catalog, Arc<dyn Clock>),
    mut pullers: Pullers,
    shutdown: CancellationToken,
) {
    pullers.follow(&in_force.load());
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            error!(%error, "SIGHUP cannot be received; rules are not read again");
            return shutdown.cancelled().await;
        }
    };
    loop {
        pullers.tick();
        let reloaded = tokio::select! {
            () = shutdown.cancelled() => return,
            () = changed.notified() => {
                pullers.follow(&in_force.load());
                false
            }
            _ = hangup.recv() => watch.reload(),
            () = tokio::time::sleep(LOOK_EVERY) => {
                watch.modified().is_some_and(|now| Some(now) != watch.seen) && watch.reload()
            }
        };
        if let Some(rules) = watch.rules.clone().filter(|_| reloaded)
            && let Err(problem) = hand_in(rules, &catalog, &clock).await
        {
            error!(%problem, "the rules could not be put in force, the old ones stay");
        }
    }
}
