//! What the fleet's tasks tell each other about the link and about documents, for the state.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::fleet::refused::Refused;
use crate::domain::service::layers::SentLayer;

/// The notes, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Notebook {
    notes: Mutex<Notes>,
    /// Told of each note that the fleet should see.
    pub(super) news: Notify,
}

/// What is noted.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    pub(super) fleet: LayerNotes,
    pub(super) of_box: LayerNotes,
    /// Connections of this process.
    pub(super) connections: u64,
    /// How often somebody with our name took the connection over.
    pub(super) taken_over: u64,
    /// Why the last connection was lost, or the last attempt failed.
    pub(super) last_loss: Option<String>,
    /// Whether the broker refused to let us listen.
    pub(super) denied: bool,
    /// Documents that were left with the broker because others were at work.
    pub(super) put_off: u64,
}

/// What is noted of a layer.
#[derive(Debug, Clone, Default)]
pub(super) struct LayerNotes {
    /// The revision that came last, taken or not.
    pub(super) received: Option<u64>,
    /// Why the one that came last was not taken.
    pub(super) refused: Option<Refused>,
}

impl Notes {
    pub(super) fn layer(&mut self, layer: SentLayer) -> &mut LayerNotes {
        match layer {
            SentLayer::Fleet => &mut self.fleet,
            SentLayer::Box => &mut self.of_box,
        }
    }
}

impl Notebook {
    /// Makes a note that the fleet should see.
    pub(super) fn note(&self, make: impl FnOnce(&mut Notes)) {
        make(&mut self.notes());
        self.news.notify_one();
    }

    /// All notes.
    pub(super) fn read(&self) -> Notes {
        self.notes().clone()
    }

    /// Nothing panics while it holds the lock.
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
