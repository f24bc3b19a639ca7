//! Recordings that wait for their stream to come back (FlowContinueDuration).
//!
//! While a recording is paused its HLS file stays open; its other files are finished. A stream
//! that returns in time, under a template of the same content, goes on with it: HLS joins with a
//! discontinuity, other formats begin a new file of the same recording.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::ids::RecordingId;
use crate::domain::matching::Decision;
use crate::domain::recording::Recording;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;

/// What a session wrote last is durable by then: an expired recording is ended this much later.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// A recording without a stream.
#[derive(Debug)]
pub struct Paused {
    /// The recording, with its clips as they stand.
    pub recording: Recording,
    /// What the rules said when it began.
    pub decision: Decision,
    /// Until when the stream may come back.
    pub until: BootTime,
}

/// All paused recordings; one a stream.
#[derive(Debug, Default)]
pub struct PausedTable(Mutex<HashMap<StreamKey, Paused>>);

/// What becomes of a paused recording when its stream comes back.
#[derive(Debug, Default)]
pub struct Return {
    /// It goes on.
    pub continued: Option<Recording>,
    /// It is over: it came too late, or under another template.
    pub over: Option<RecordingId>,
}

impl PausedTable {
    /// Pauses a recording; tells which one of the same stream is over by that.
    pub fn pause(&self, key: StreamKey, paused: Paused) -> Option<RecordingId> {
        self.table().insert(key, paused).map(|older| older.recording.plan().id)
    }

    /// The stream is back: decides about what was paused.
    pub fn take(&self, key: &StreamKey, decision: &Decision, now: BootTime) -> Return {
        match self.table().remove(key) {
            None => Return::default(),
            Some(paused) if now <= paused.until && paused.decision.same_content(decision) => {
                Return { continued: Some(paused.recording), over: None }
            }
            Some(paused) => Return { continued: None, over: Some(paused.recording.plan().id) },
        }
    }

    /// Removes and tells the recordings whose stream did not come back.
    pub fn expire(&self, now: BootTime) -> Vec<RecordingId> {
        let mut table = self.table();
        let gone = |paused: &Paused| now.since(paused.until) > SETTLED_AFTER;
        let keys: Vec<StreamKey> =
            table.iter().filter(|(_, paused)| gone(paused)).map(|(key, _)| key.clone()).collect();
        keys.iter()
            .filter_map(|key| table.remove(key))
            .map(|paused| paused.recording.plan().id)
            .collect()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<StreamKey, Paused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
