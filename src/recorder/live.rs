//! The streams that are live now, and what was decided about them when they began.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ids::SessionId;
use crate::domain::matching::Decision;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{BootTime, Instant};

/// A stream that is live.
#[derive(Debug, Clone)]
pub struct LiveSession {
    /// Its session.
    pub session: SessionId,
    /// When it began.
    pub began: Instant,
    /// What the rules said then.
    pub decision: Decision,
    /// It is restarted for other rules at the first key frame from then on.
    pub restart: Option<BootTime>,
}

/// All streams that are live.
#[derive(Debug, Default)]
pub struct LiveTable(Mutex<BTreeMap<StreamKey, Row>>);

/// A session, and whether somebody has asked for its end.
#[derive(Debug)]
struct Row {
    live: LiveSession,
    /// A restart is asked for; its entry reads it.
    restart: Arc<AtomicBool>,
    /// What came of it; its entry counts.
    bytes: Arc<AtomicU64>,
}

impl LiveTable {
    /// Has the session of a stream restarted at its next key frame, as new rules would; `false`: it
    /// is not live.
    pub fn ask_restart(&self, key: &StreamKey) -> bool {
        let asked = self.table().get(key).map(|row| row.restart.store(true, Ordering::Relaxed));
        asked.is_some()
    }

    /// Removes a session, unless a newer one of the same key has taken its place.
    pub fn leave(&self, key: &StreamKey, session: SessionId) {
        let mut table = self.table();
        if table.get(key).is_some_and(|row| row.live.session == session) {
            table.remove(key);
        }
    }

    /// The live session of a stream.
    #[must_use]
    pub fn get(&self, key: &StreamKey) -> Option<LiveSession> {
        self.table().get(key).map(|row| row.live.clone())
    }

    /// Every live stream.
    #[must_use]
    pub fn keys(&self) -> Vec<StreamKey> {
        self.table().keys().cloned().collect()
    }

    /// Every live stream, when its session began, and the bytes that came of it since, recorded or not.
    #[must_use]
    pub fn incoming(&self) -> Vec<(StreamKey, BootTime, u64)> {
        let of = |(key, row): (&StreamKey, &Row)| {
            (key.clone(), row.live.began.boot, row.bytes.load(Ordering::Relaxed))
        };
        self.table().iter().map(of).collect()
    }

    /// When a session is restarted has changed.
    fn plan(&self, key: &StreamKey, session: SessionId, restart: Option<BootTime>) {
        if let Some(row) = self.table().get_mut(key).filter(|row| row.live.session == session) {
            row.live.restart = restart;
        }
    }

    /// How many are live.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().len()
    }

    /// How many are live, by the word of their decision.
    #[must_use]
    pub fn count_by_decision(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for row in self.table().values() {
            *counts.entry(row.live.decision.word()).or_default() += 1;
        }
        counts
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<StreamKey, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a session out of the table when dropped.
#[derive(Debug)]
pub struct LiveEntry {
    table: Arc<LiveTable>,
    key: StreamKey,
    session: SessionId,
    decision: Decision,
    restart: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
}

impl LiveEntry {
    /// So many more bytes of media came.
    pub fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether somebody has asked for a restart of the session.
    #[must_use]
    pub fn is_restart_asked(&self) -> bool {
        self.restart.load(Ordering::Relaxed)
    }

    /// What the rules said when the session began.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// Tells when the session is restarted for other rules.
    pub fn plan(&self, restart: Option<BootTime>) {
        self.table.plan(&self.key, self.session, restart);
    }

    /// How many streams are live, this one included.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.table.count().max(1)
    }

    /// Enters a session for as long as the entry lives.
    #[must_use]
    pub fn new(table: Arc<LiveTable>, key: StreamKey, session: LiveSession) -> Self {
        let (id, decision) = (session.session, session.decision.clone());
        let restart = Arc::new(AtomicBool::new(false));
        let bytes = Arc::new(AtomicU64::new(0));
        let row = Row { live: session, restart: restart.clone(), bytes: bytes.clone() };
        table.table().insert(key.clone(), row);
        LiveEntry { table, key, session: id, decision, restart, bytes }
    }
}

impl Drop for LiveEntry {
    fn drop(&mut self) {
        self.table.leave(&self.key, self.session);
    }
}
