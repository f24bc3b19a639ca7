//! Whoever does the jobs of the catalog: nobody, until the simulation says so, or somebody waits.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ring::catalog::{CatalogState, Job, JobQueue};

/// Jobs that wait, and the state that they are about.
#[derive(Default)]
pub struct SteppedJobs {
    waiting: Mutex<VecDeque<Job>>,
    state: Mutex<Option<CatalogState>>,
}

impl SteppedJobs {
    /// The state that jobs are done on from now on.
    pub fn own(&self, state: CatalogState) {
        *self.state() = Some(state);
    }

    /// How many jobs wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// Does the first `most` jobs; gives how many there were.
    pub fn step(&self, most: usize) -> usize {
        (0..most).take_while(|_| self.step_once()).count()
    }

    /// How many transactions were durable when they returned.
    #[must_use]
    pub fn promises(&self) -> u64 {
        self.state().as_ref().map_or(0, CatalogState::promises)
    }

    /// Gives the state away; what waits is never done.
    #[must_use]
    pub fn take_state(&self) -> Option<CatalogState> {
        let state = self.state().take();
        self.queue().clear();
        state
    }

    fn step_once(&self) -> bool {
        let job = self.queue().pop_front();
        let Some(job) = job else { return false };
        if let Some(state) = self.state().as_mut() {
            state.take(job);
        }
        true
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, Option<CatalogState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobQueue for SteppedJobs {
    fn post(&self, job: Job) -> bool {
        self.queue().push_back(job);
        true
    }

    fn is_waited_for(&self) {
        self.step(usize::MAX);
    }
}
