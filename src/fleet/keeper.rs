//! Takes documents one after the other, in the order in which they came. What could not be held
//! while others were at work is asked for again: the broker keeps the newest.

use std::sync::Arc;

use bytes::Bytes;
use rumqttc::v5::AsyncClient;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::domain::service::fleet_rules::News;
use crate::domain::service::layers::SentLayer;
use crate::fleet::notebook::Notebook;
use crate::fleet::port::{FleetBox, NotTaken};
use crate::fleet::topics::Topics;

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
}

impl Keeper {
    /// Takes documents until `shutdown`. One that is at work is finished first.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut put_off = 0;
        loop {
            let arrived = tokio::select! {
                () = shutdown.cancelled() => return,
                arrived = self.arriving.recv() => arrived,
            };
            let Some(arrived) = arrived else { return };
            self.take(arrived).await;
            let put_off_now = self.notebook.read().put_off;
            if self.arriving.is_empty() && put_off_now != put_off {
                put_off = put_off_now;
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    // It fails only when the link's task is gone.
                    _ = self.client.subscribe_many(self.topics.of_rules()) => {}
                }
            }
        }
    }

    async fn take(&self, Arrived { layer, bytes }: Arrived) {
        let taken = self.us.take(layer, bytes).await;
        match &taken {
            Ok(News::Newer) => {
                let revision = self.us.applied(layer);
                info!(?layer, revision, "rules of the fleet are in force");
            }
            Ok(News::Again) => {}
            Err(NotTaken::Refused(refused)) => {
                warn!(
                    ?layer,
                    why = refused.why.word(),
                    revision = refused.revision,
                    "rules of the fleet are refused, the old ones stay"
                );
            }
            // Logged where the flash failed.
            Err(NotTaken::NotStored) => return,
        }
        let applied = self.us.applied(layer);
        self.notebook.note(|notes| {
            let notes = notes.layer(layer);
            match taken {
                Ok(_) => (notes.received, notes.refused) = (applied, None),
                Err(NotTaken::Refused(refused)) => {
                    notes.received = refused.revision.or(notes.received);
                    notes.refused = Some(refused);
                }
                Err(NotTaken::NotStored) => {}
            }
        });
    }
}
