//! Recordings that wait for their stream over a restart of the box.

use rusqlite::params;

use crate::domain::files::FileFormat;
use crate::domain::ids::RecordingId;
use crate::domain::splice::Pause;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::Moment;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::files::stream_key;
use crate::ring::catalog::notices::Status;
use crate::ring::catalog::open::RecordingContent;
use crate::ring::catalog::rows::{sql, unsql};

/// A recording whose HLS file goes on if its stream comes back in time.
#[derive(Debug, Clone)]
pub struct WaitingRecording {
    /// Which.
    pub id: RecordingId,
    /// Of which stream.
    pub key: StreamKey,
    /// What it makes.
    pub content: RecordingContent,
    /// Since when it waits.
    pub pause: Pause,
    /// Media in its HLS file, in milliseconds.
    pub hls_ms: i64,
}

impl CatalogState {
    /// Hands out the recordings that wait since the box was started.
    pub fn take_waiting(&mut self) -> Vec<WaitingRecording> {
        std::mem::take(&mut self.waiting)
    }

    /// The recordings by templates that were at work or waiting when the box went down, and are not
    /// too late by now. Their HLS files are taken up.
    pub(super) fn recordings_that_wait(
        &mut self,
        now: Moment,
    ) -> Result<Vec<WaitingRecording>, RingError> {
        let rows = self.unended_recordings();
        let rows = rows.map_err(RingError::catalog("finding recordings that wait"))?;
        let mut waiting = Vec::new();
        for (id, key, content, paused) in rows {
            let Some(template) = content.content.as_ref().filter(|_| content.task.is_none()) else {
                continue;
            };
            let window_s = template.flow_continue_s;
            if window_s == 0 || content.plan(FileFormat::Hls).is_none() {
                continue;
            }
            let mut there = false;
            self.enter_past(|entry| {
                there = entry.take_up_paused(id)?;
                Ok(())
            })?;
            let open = self.open_files.get(&(id, FileFormat::Hls)).filter(|_| there);
            let Some(open) = open.cloned() else { continue };
            let pause = match paused {
                Some(pause) => pause,
                None => Pause::new(open.end, window_s),
            };
            if pause.is_over(now) {
                continue;
            }
            let hls_ms = open.duration_ms();
            waiting.push(WaitingRecording { id, key, content, pause, hls_ms });
        }
        let stored: Vec<(i64, String)> = waiting
            .iter()
            .map(|one| (sql(one.id.0), serde_json::to_string(&one.pause).expect("plain fields")))
            .collect();
        self.durably("keeping recordings that wait", |transaction| {
            for (id, pause) in &stored {
                transaction.execute(
                    "UPDATE recording SET paused = ?2, ran = ran OR status = 0, status = ?3 WHERE id = ?1",
                    params![id, pause, Status::Waits as u8],
                )?;
            }
            Ok(())
        })?;
        Ok(waiting)
    }

    #[expect(clippy::type_complexity, reason = "the columns of one query")]
    fn unended_recordings(
        &self,
    ) -> rusqlite::Result<Vec<(RecordingId, StreamKey, RecordingContent, Option<Pause>)>> {
        let mut query = self.db.prepare_cached(
            "SELECT recording.id, recording.content, recording.paused, stream.domain, stream.app,
             stream.stream FROM recording JOIN stream ON stream.id = recording.stream
             WHERE recording.ended = 0",
        )?;
        let mut rows = query.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let content: String = row.get(1)?;
            let paused: Option<String> = row.get(2)?;
            // What another version of the program wrote is finished, not gone on with.
            let Ok(content) = serde_json::from_str(&content) else { continue };
            let paused = paused.and_then(|text| serde_json::from_str(&text).ok());
            found.push((RecordingId(unsql(row.get(0)?)), stream_key(row, 3)?, content, paused));
        }
        Ok(found)
    }
}
