//! Event 100: what a file that was delivered is told as.

use rusqlite::params;

use crate::domain::files::FileFormat;
use crate::domain::ids::{FileId, RecordingId};
use crate::domain::notice::{Notice, RecordFile, What};
use crate::domain::sample::Codec;
use crate::domain::task::Family;
use crate::domain::time::UnixMillis;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::files::{Confirmed, stream_key};
use crate::ring::catalog::open::{FileState, RecordingContent, TaskMark};
use crate::ring::catalog::rows::{sql, unsql};

impl CatalogState {
    /// The notice of a file that is delivered as `confirmed`; `None` if it was told before or
    /// is no file any more.
    pub(in crate::ring::catalog) fn record_file_notice(
        &self,
        id: FileId,
        confirmed: Confirmed<'_>,
    ) -> rusqlite::Result<Option<Notice>> {
        let mut query = self.db.prepare_cached(
            "SELECT stream.domain, stream.app, stream.stream, file.format, file.recording,
             file.start_ms, file.end_ms, file.duration_ms, file.media_start_ms, file.tracks,
             coalesce(session.query, ''), coalesce(recording.content, '')
             FROM file JOIN stream ON stream.id = file.stream
             LEFT JOIN session ON session.id = file.session
             LEFT JOIN recording ON recording.id = file.recording
             WHERE file.id = ?1 AND file.state NOT IN (?2, ?3)",
        )?;
        let (delivered, evicted) = (FileState::Delivered as u8, FileState::Evicted as u8);
        let mut rows = query.query(params![sql(id.0), delivered, evicted])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let key = stream_key(row, 0)?;
        let format: u8 = row.get(3)?;
        let tracks: Vec<String> =
            serde_json::from_str(&row.get::<_, String>(9)?).unwrap_or_default();
        let video = [Codec::H264, Codec::H265]
            .into_iter()
            .find(|codec| tracks.iter().any(|track| track == codec.name()));
        // Content of another version of the program tells nothing.
        let content: Option<RecordingContent> =
            serde_json::from_str(&row.get::<_, String>(11)?).ok();
        let task = content.as_ref().and_then(|content| content.task.as_ref());
        let of_record_task = task.is_some_and(|task| task.family == Family::Record);
        let template = content.as_ref().map_or(0, |content| content.template_id);
        let end_ms: i64 = row.get(6)?;
        let file = RecordFile {
            file: id,
            target_file_id: confirmed.target_file_id.map(str::to_owned),
            template: (template != 0).then_some(template),
            format: FileFormat::ALL[usize::from(format).min(3)],
            task_id: task.map(shown_task).unwrap_or_default(),
            started: UnixMillis(row.get(5)?),
            ended: UnixMillis(end_ms),
            duration_ms: row.get(7)?,
            size: confirmed.size,
            stream_param: if of_record_task { None } else { Some(row.get(10)?) },
            url: confirmed.url.to_owned(),
            media_start_ms: row.get(8)?,
            video_codec: video.map(|codec| codec.name().to_owned()).unwrap_or_default(),
            recording: RecordingId(unsql(row.get(4)?)),
            resolution: self.picture_at(row.get(0)?, row.get(1)?, row.get(2)?, end_ms)?,
        };
        let what = What::RecordFile(Box::new(file));
        Ok(Some(Notice { key, at: self.clock.now().wall.unix, what }))
    }

    /// Width and height of a stream's picture at a time, as its push tells; zeros if not known.
    fn picture_at(
        &self,
        domain: String,
        app: String,
        stream: String,
        at_ms: i64,
    ) -> rusqlite::Result<(u16, u16)> {
        let mut query = self.db.prepare_cached(
            "SELECT width, height FROM push WHERE stream = ?3 AND domain = ?1 AND app = ?2
             AND began_ms <= ?4 ORDER BY began_ms DESC LIMIT 1",
        )?;
        let mut rows = query.query(params![domain, app, stream, at_ms])?;
        rows.next()?.map_or(Ok((0, 0)), |row| Ok((row.get(0)?, row.get(1)?)))
    }
}

/// A task as the actions of its family show it.
pub(super) fn shown_task(task: &TaskMark) -> String {
    match task.family {
        Family::Live => task.id.to_string(),
        Family::Record => task.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::files::FormatSet;
    use crate::ring::catalog::notices::tests::open;

    /// Enters a finished file of a recording by this task.
    fn enter(state: &CatalogState, id: u64, template_id: u64, task: Option<TaskMark>) {
        let unknown = RecordingContent::unknown(FormatSet::EMPTY.with(FileFormat::Flv));
        let content = RecordingContent { template_id, task, ..unknown };
        let content = serde_json::to_string(&content).expect("plain fields");
        state
            .db
            .execute_batch(
                "INSERT OR IGNORE INTO stream VALUES (1, 'd', 'live', 'cam');
                 INSERT OR IGNORE INTO session (id, stream, boot_id, began_boot_ms, began_ms,
                     trusted, protocol, query) VALUES (5, 1, x'01', 0, 0, 1, 'rtmp', 'room=7');",
            )
            .expect("entered");
        state
            .db
            .execute(
                "INSERT INTO recording (id, stream, session, content) VALUES (?1, 1, 5, ?2)",
                params![sql(id), content],
            )
            .expect("entered");
        state
            .db
            .execute(
                "INSERT INTO file (id, recording, stream, session, format, state, first_sequence,
                     start_boot_ms, start_ms, trusted, end_ms, media_start_ms, duration_ms,
                     storage_s, name_pattern, tracks)
                 VALUES (?1, ?1, 1, 5, 0, 2, 0, 0, 4316, 1, 64618, 80, 60040, 0, '',
                     '[\"aac\",\"hevc\"]')",
                params![sql(id)],
            )
            .expect("entered");
    }

    /// Every body, in the order of telling.
    fn bodies(state: &CatalogState) -> Vec<Value> {
        let mut query = state.db.prepare("SELECT body FROM notice ORDER BY seq").expect("asked");
        let rows = query.query_map([], |row| row.get::<_, String>(0)).expect("asked");
        rows.map(|body| serde_json::from_str(&body.expect("read")).expect("JSON")).collect()
    }

    #[test]
    fn a_delivered_file_is_told_once_as_what_asked_for_it_has_it() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path());
        let mark =
            |family| Some(TaskMark { id: 42, name: "opaque".into(), family, highlight: false });
        enter(&state, 11, 1_001, None);
        enter(&state, 12, 0, mark(Family::Live));
        enter(&state, 13, 0, mark(Family::Record));
        enter(&state, 14, 0, None);
        let push = "INSERT INTO push (id, domain, app, stream, boot_id, began_boot_ms, began_ms,
            trusted, peer, query, width, height)
            VALUES (9, 'd', 'live', 'cam', x'01', 0, 4000, 1, '', '', 640, 360)";
        state.db.execute(push, []).expect("entered");
        state.set_state(FileId(14), FileState::Evicted, "", 0).expect("kept");
        let target_file_id = Some("3270000000000000013");
        let here = Confirmed { url: "http://h/f", size: 1_000, sha256: "00", target_file_id: None };
        for id in [11, 11, 12, 14, 99] {
            state.delivered(FileId(id), here).expect("entered");
        }
        state.delivered(FileId(13), Confirmed { target_file_id, ..here }).expect("entered");
        let told = bodies(&state);
        let facts = |name: &str| -> Vec<Value> { told.iter().map(|b| b[name].clone()).collect() };
        assert_eq!(facts("file_id"), ["11", "12", "3270000000000000013"]);
        assert_eq!(facts("record_file_id"), ["11", "12", "13"]);
        assert_eq!(facts("record_temp_id"), ["1001", "", ""]);
        assert_eq!(facts("task_id"), ["", "42", "opaque"]);
        assert_eq!(facts("stream_param"), [json!("room=7"), json!("room=7"), Value::Null]);
        assert_eq!(
            (&told[0]["start_time"], &told[0]["start_time_usec"]),
            (&4.into(), &316_000.into())
        );
        assert_eq!((&told[0]["duration"], &told[0]["file_size"]), (&60.into(), &1_000.into()));
        let extended: Value =
            serde_json::from_str(told[0]["callback_ext"].as_str().expect("text")).expect("JSON");
        let expected = json!({"video_codec": "hevc", "session_id": "11", "resolution": "640x360"});
        assert_eq!(extended, expected);
    }
}
