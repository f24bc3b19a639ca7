//! Takes documents one after the other, in the order in which they came. What could not be held
//! while others were at work is asked for again: the broker keeps the newest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::AsyncClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::domain::log_pace::LogPace;
use crate::domain::service::fleet_rules::News;
use crate::domain::service::layers::SentLayer;
use crate::fleet::notebook::Notebook;
use crate::fleet::port::{FleetBox, NotTaken};
use crate::fleet::topics::Topics;
use crate::fleet::until;
use crate::platform::clock::Clock;

/// Documents that were put off are asked for again after this time: whoever floods the topics must
/// not have the broker send the same again and again.
const PUT_OFF_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A document that could not be stored is asked for again after this time.
const LOST_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A storm of documents costs the flash no more than a write in this time; of those that come in
/// between the newest counts in the end.
const BETWEEN_WRITES: Duration = Duration::from_millis(200);

/// What came on a layer's topic.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) layer: SentLayer,
    pub(super) bytes: Bytes,
}

/// The task.
pub struct Keeper {
    pub(super) arriving: mpsc::Receiver<Arrived>,
    pub(super) us: Arc<dyn FleetBox>,
    pub(super) client: AsyncClient,
    pub(super) topics: Arc<Topics>,
    pub(super) notebook: Arc<Notebook>,
    pub(super) clock: Arc<dyn Clock>,
}

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was stored, which has cost the flash a write.
    Stored,
    /// Nothing changed.
    Unchanged,
    /// The flash failed; it has to come again.
    Lost,
}

impl Keeper {
    /// Takes documents until `shutdown`. One that is at work is finished first.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut put_off = 0;
        let mut ask_again: Option<Instant> = None;
        // One each, so that no layer hides what is wrong with the other.
        let mut refusals = BTreeMap::new();
        loop {
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                arrived = self.arriving.recv() => match arrived {
                    Some(arrived) => self.take(arrived, &mut refusals).await,
                    None => return,
                },
                () = until(ask_again) => {
                    ask_again = None;
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        // It fails only when the link's task is gone.
                        _ = self.client.subscribe_many(self.topics.of_rules()) => {}
                    }
                    continue;
                }
            };
            if outcome == Outcome::Lost {
                ask_again.get_or_insert_with(|| Instant::now() + LOST_AGAIN_AFTER);
            }
            let put_off_now = self.notebook.read().put_off;
            if put_off_now != put_off {
                put_off = put_off_now;
                ask_again.get_or_insert_with(|| Instant::now() + PUT_OFF_AGAIN_AFTER);
            }
            if outcome == Outcome::Stored {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(BETWEEN_WRITES) => {}
                }
            }
        }
    }

    async fn take(
        &self,
        Arrived { layer, bytes }: Arrived,
        refusals: &mut BTreeMap<SentLayer, LogPace>,
    ) -> Outcome {
        let taken = self.us.take(layer, bytes).await;
        let applied = self.us.applied(layer);
        let (outcome, refused) = match taken {
            Ok(News::Newer) => {
                info!(?layer, revision = applied, "rules of the fleet are in force");
                (Outcome::Stored, None)
            }
            Ok(News::Again) => (Outcome::Unchanged, None),
            Err(NotTaken::Refused(refused)) => {
                let pace = refusals.entry(layer).or_default();
                if let Some(held_back) = pace.take(self.clock.now().boot) {
                    let (why, revision) = (refused.why.word(), refused.revision);
                    warn!(
                        ?layer,
                        why,
                        revision,
                        held_back,
                        "rules of the fleet are refused, the old ones stay"
                    );
                    self.us.refused(layer, &refused);
                }
                (Outcome::Unchanged, Some(refused))
            }
            // Logged where the flash failed.
            Err(NotTaken::NotStored) => return Outcome::Lost,
        };
        self.notebook.note(|notes| {
            let notes = notes.layer(layer);
            notes.received = match &refused {
                Some(refused) => refused.revision.or(notes.received),
                None => self.us.received(layer),
            };
            notes.refused = refused;
        });
        outcome
    }
}
