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
pub struct PausedTable(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    paused: HashMap<StreamKey, Paused>,
    /// Recordings that nobody continues, and since when.
    over: Vec<(RecordingId, BootTime)>,
}

impl PausedTable {
    /// Pauses a recording at `now`; an older one of the same stream is over by that.
    pub fn pause(&self, key: StreamKey, paused: Paused, now: BootTime) {
        let mut table = self.table();
        if let Some(older) = table.paused.insert(key, paused) {
            table.over.push((older.recording.plan().id, now));
        }
    }

    /// The stream is back: gives the recording that goes on. One that came too late, or under
    /// another template, is over.
    pub fn take(&self, key: &StreamKey, decision: &Decision, now: BootTime) -> Option<Recording> {
        let mut table = self.table();
        let paused = table.paused.remove(key)?;
        if now <= paused.until && paused.decision.same_content(decision) {
            return Some(paused.recording);
        }
        table.over.push((paused.recording.plan().id, now));
        None
    }

    /// A recording that was taken is not continued after all.
    pub fn give_up(&self, recording: RecordingId, now: BootTime) {
        self.table().over.push((recording, now));
    }

    /// Removes and tells the recordings that are over and of which everything is durable by now.
    pub fn expire(&self, now: BootTime) -> Vec<RecordingId> {
        let mut table = self.table();
        let settled = |since: BootTime| now.since(since) > SETTLED_AFTER;
        let gone: Vec<StreamKey> = table
            .paused
            .iter()
            .filter(|(_, paused)| settled(paused.until))
            .map(|(key, _)| key.clone())
            .collect();
        let mut over: Vec<RecordingId> = gone
            .iter()
            .filter_map(|key| table.paused.remove(key))
            .map(|paused| paused.recording.plan().id)
            .collect();
        over.extend(table.over.extract_if(.., |(_, since)| settled(*since)).map(|(id, _)| id));
        over
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
