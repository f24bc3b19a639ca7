//! One puller a configured camera, started and ended as the rules say.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::bridge::RecorderIntake;
use crate::domain::matching::RuleTable;
use crate::domain::source::Source;
use crate::domain::stream_key::StreamKey;
use crate::ingest::admission::Admission;
use crate::ingest::rtsp::pull;
use crate::platform::clock::Clock;

/// The pullers at work.
pub(super) struct Pullers {
    intake: Arc<RecorderIntake>,
    admission: Admission,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    running: HashMap<StreamKey, (Source, CancellationToken)>,
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

    /// Ends pullers of sources that are gone or changed, and starts those that are missing.
    pub(super) fn follow(&mut self, rules: &RuleTable) {
        let wanted: HashMap<&StreamKey, &Source> =
            rules.sources().into_iter().map(|(_, source)| (&source.key, source)).collect();
        self.running.retain(|key, (source, ended)| {
            let stays = wanted.get(key).is_some_and(|wanted| *wanted == source);
            if !stays {
                ended.cancel();
            }
            stays
        });
        for (key, source) in wanted {
            if !self.running.contains_key(key) {
                self.running.insert(key.clone(), (source.clone(), self.start(source)));
            }
        }
    }

    fn start(&self, source: &Source) -> CancellationToken {
        let ended = self.shutdown.child_token();
        self.tasks.spawn(pull(
            source.clone(),
            self.intake.clone(),
            self.admission.clone(),
            self.clock.clone(),
            ended.clone(),
        ));
        ended
    }
}
