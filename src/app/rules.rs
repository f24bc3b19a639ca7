//! The rules in force: read from their file at the start, again on SIGHUP and when the file is
//! replaced. A file that cannot be used changes nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::app::sources::Pullers;
use crate::config::{ConfigFaults, RulesFile};
use crate::domain::matching::{Layer, RuleTable};
use crate::domain::rule_set::RuleSet;
use crate::domain::rule_set::{Apply, ApplyMode};
use crate::platform::clock::Clock;
use crate::platform::flash::Flash;
use crate::recorder::rules::RulesInForce;

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

    /// The rules as a table to decide by.
    pub(super) fn table(&self) -> RuleTable {
        // A file of rules stands where the fleet's rules would.
        RuleTable::new(self.rules.iter().map(|rules| (Layer::Fleet, rules)))
    }

    /// How live sessions take them.
    fn apply(&self) -> Apply {
        let restart = Apply { mode: ApplyMode::Restart, within_s: 0, disconnect: false };
        self.rules.as_ref().map_or(restart, |rules| rules.apply)
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

/// Keeps the rules in force and the cameras in step with the file until `shutdown`.
pub(super) async fn follow(
    mut watch: RulesWatch,
    in_force: RulesInForce,
    clock: Arc<dyn Clock>,
    mut pullers: Pullers,
    shutdown: CancellationToken,
) {
    pullers.follow(&in_force.load().table);
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            error!(%error, "SIGHUP cannot be received; rules are not read again");
            return shutdown.cancelled().await;
        }
    };
    loop {
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = hangup.recv() => watch.reload(),
            () = tokio::time::sleep(LOOK_EVERY) => {
                watch.modified().is_some_and(|now| Some(now) != watch.seen) && watch.reload()
            }
        };
        if changed {
            let since = clock.now().boot;
            let next = in_force.load().followed_by(watch.table(), watch.apply(), since);
            in_force.store(Arc::new(next));
            pullers.follow(&in_force.load().table);
        }
    }
}
