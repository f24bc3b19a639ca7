//! One puller a configured camera, started and ended as the rules say. One that is elsewhere by now goes
//! there when its recording would take new rules: spread over `within_s`, or when its pull ends.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::bridge::RecorderIntake;
use crate::domain::restart_plan::next_restart;
use crate::domain::source::Source;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::ingest::admission::Admission;
use crate::ingest::rtsp::pull_following;
use crate::platform::clock::Clock;
use crate::recorder::rules::Rules;
use crate::ring::layout::stream_hash;

/// The pullers at work.
pub(super) struct Pullers {
    intake: Arc<RecorderIntake>,
    admission: Admission,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    running: HashMap<StreamKey, Puller>,
}

/// A puller at work.
struct Puller {
    /// Where it pulls from; an attempt reads it when it begins.
    source: watch::Sender<Source>,
    /// The source changed, and a pull under way was not told.
    owed: bool,
    /// When it is told.
    tell_at: Option<BootTime>,
    ended: CancellationToken,
}

impl Puller {
    /// The rules have its camera at `wanted`.
    fn follow(&mut self, wanted: &Source, rules: &Rules) {
        self.source.send_if_modified(|source| {
            self.owed |= !source.is_reached_as(wanted);
            *source = wanted.clone();
            // Told in its time.
            false
        });
        if self.owed {
            let (spread, planned) = (stream_hash(&wanted.key), self.tell_at);
            self.tell_at = next_restart(&rules.apply, rules.since, spread, planned, None);
        }
    }

    fn tick(&mut self, now: BootTime) {
        if self.tell_at.take_if(|at| now >= *at).is_some() {
            self.owed = false;
            self.source.send_modify(|_| {});
        }
    }
}

impl Pullers {
    /// No puller yet.
    pub(super) fn new(
        intake: Arc<RecorderIntake>,
        admission: Admission,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Pullers { intake, admission, clock, tasks, shutdown, running: HashMap::new() }
    }

    /// Ends pullers of sources that are gone, plans when those that are elsewhere by now are told, and
    /// starts those that are missing.
    pub(super) fn follow(&mut self, rules: &Rules) {
        let wanted: HashMap<&StreamKey, &Source> =
            rules.table.sources().into_iter().map(|(_, source)| (&source.key, source)).collect();
        self.running.retain(|key, puller| {
            let Some(wanted) = wanted.get(key) else {
                puller.ended.cancel();
                return false;
            };
            puller.follow(wanted, rules);
            true
        });
        for (key, source) in wanted {
            if !self.running.contains_key(key) {
                self.running.insert(key.clone(), self.start(source));
            }
        }
    }

    /// Tells those whose time has come; to be called each second or so.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now().boot;
        self.running.values_mut().for_each(|puller| puller.tick(now));
    }

    fn start(&self, source: &Source) -> Puller {
        let ended = self.shutdown.child_token();
        let (moves, sources) = watch::channel(source.clone());
        self.tasks.spawn(pull_following(
            sources,
            self.intake.clone(),
            self.admission.clone(),
            self.clock.clone(),
            ended.clone(),
        ));
        Puller { source: moves, owed: false, tell_at: None, ended }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::address::Address;
    use crate::domain::matching::RuleTable;
    use crate::domain::rule_set::{Apply, ApplyMode};
    use crate::domain::source::Transport;

    fn at(path: &str) -> Source {
        let url = Address::parse(&format!("rtsp://10.0.0.8/{path}"), &["rtsp"]).expect("valid");
        let key = StreamKey::new("cams", "live", "gate").expect("valid");
        Source { key, url, transport: Transport::Tcp, on_full: None }
    }

    fn puller() -> (Puller, watch::Receiver<Source>) {
        let (source, pull) = watch::channel(at("main"));
        (Puller { source, owed: false, tell_at: None, ended: CancellationToken::new() }, pull)
    }

    fn rules(mode: ApplyMode, within_s: u32, since_ms: u64) -> Rules {
        let apply = Apply { mode, within_s, disconnect: false };
        Rules::first(RuleTable::default()).followed_by(
            RuleTable::default(),
            apply,
            BootTime(since_ms),
        )
    }

    /// Whether a pull under way is told by `ms`.
    fn told(puller: &mut Puller, pull: &mut watch::Receiver<Source>, ms: u64) -> bool {
        puller.tick(BootTime(ms));
        let told = pull.has_changed().expect("the puller is there");
        pull.mark_unchanged();
        told
    }

    #[test]
    fn a_camera_that_moves_is_told_in_its_time_and_once() {
        let (mut puller, mut pull) = puller();
        puller.follow(&at("main"), &rules(ApplyMode::Restart, 0, 1_000));
        assert!(!told(&mut puller, &mut pull, 1_000), "it stays where it is");
        let spread = rules(ApplyMode::Restart, 600, 2_000);
        puller.follow(&at("sub"), &spread);
        let due = 2_000 + stream_hash(&at("sub").key) % 600_001;
        assert!(due > 2_000 && !told(&mut puller, &mut pull, due - 1));
        assert!(pull.borrow().is_reached_as(&at("sub")), "a pull that begins by itself goes there");
        assert!(told(&mut puller, &mut pull, due));
        assert!(!told(&mut puller, &mut pull, due + 1_000_000));
    }

    #[test]
    fn next_start_waits_for_the_end_of_the_pull_until_other_rules_come() {
        let (mut puller, mut pull) = puller();
        puller.follow(&at("sub"), &rules(ApplyMode::NextStart, 0, 1_000));
        assert!(!told(&mut puller, &mut pull, u64::MAX));
        assert!(pull.borrow().is_reached_as(&at("sub")));
        // As a session that is stale is restarted by them.
        puller.follow(&at("sub"), &rules(ApplyMode::Restart, 0, 2_000));
        assert!(told(&mut puller, &mut pull, 2_000));
    }
}
