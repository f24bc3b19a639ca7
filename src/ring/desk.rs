//! The writer's desk: what the rest of the box hands the writer thread beside media.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::ids::{SlotGeneration, SlotIndex};

/// A slot whose new life is reserved, durably, in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadySlot {
    /// Which slot.
    pub slot: SlotIndex,
    /// The life it begins.
    pub generation: SlotGeneration,
}

/// What the rest of the box shares with the writer thread.
#[derive(Default)]
pub struct WriterDesk {
    state: Mutex<DeskState>,
}

#[derive(Default)]
pub(super) struct DeskState {
    pub(super) ready: VecDeque<ReadySlot>,
    pub(super) asked: bool,
    /// The last answer: no slot may be reused.
    pub(super) refused: bool,
    pub(super) stop: bool,
}

impl WriterDesk {
    /// Slots that were reserved before the thread began.
    pub fn supply(&self, slots: Vec<ReadySlot>) {
        self.state().ready.extend(slots);
    }

    /// The catalog's answer to the thread's asking; none means that no slot may be reused.
    pub(super) fn answer(&self, slots: Vec<ReadySlot>) {
        let mut state = self.state();
        state.refused = slots.is_empty();
        state.asked = false;
        state.ready.extend(slots);
    }

    /// Asks the thread to write what it has, sync, and end.
    pub fn stop(&self) {
        self.state().stop = true;
    }

    pub(super) fn state(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
