//! One puller a configured camera, started and ended as the rules say.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::bridge::RecorderIntake;
use crate::domain::matching::RuleTable;
use crate::domain::source::Source;
use crate::domain::stream_key::StreamKey;
use crate::ingest::admission::Admission;
use crate::ingest::rtsp::pull_following;
use crate::platform::clock::Clock;

/// The pullers at work.
pub(super) struct Pullers {
    intake: Arc<RecorderIntake>,
    admission: Admission,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    running: HashMap<StreamKey, (watch::Sender<Source>, CancellationToken)>,
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

    /// Ends pullers of sources that are gone, tells those that are elsewhere by now where, and starts
    /// those that are missing.
    pub(super) fn follow(&mut self, rules: &RuleTable) {
        let wanted: HashMap<&StreamKey, &Source> =
            rules.sources().into_iter().map(|(_, source)| (&source.key, source)).collect();
        self.running.retain(|key, (source, ended)| {
            let Some(wanted) = wanted.get(key) else {
                ended.cancel();
                return false;
            };
            source.send_if_modified(|source| {
                let moved = !source.is_reached_as(wanted);
                if moved {
                    *source = Source::clone(wanted);
                }
                moved
            });
            true
        });
        for (key, source) in wanted {
            if !self.running.contains_key(key) {
                self.running.insert(key.clone(), self.start(source));
            }
        }
    }

    fn start(&self, source: &Source) -> (watch::Sender<Source>, CancellationToken) {
        let ended = self.shutdown.child_token();
        let (moves, sources) = watch::channel(source.clone());
        self.tasks.spawn(pull_following(
            sources,
            self.intake.clone(),
            self.admission.clone(),
            self.clock.clone(),
            ended.clone(),
        ));
        (moves, ended)
    }
}
