//! What is asked of a file where it is delivered to.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use tracing::info;

use crate::domain::files::FileFormat;
use crate::domain::ids::FileId;
use crate::domain::matching::Decision;
use crate::domain::media_terms::MediaTerms;
use crate::domain::time::UnixMillis;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::file_check::change_files;
use crate::ring::catalog::files::stream_key;
use crate::ring::catalog::open::RecordingContent;
use crate::ring::catalog::rows::{sql, unsql};

/// How long after its start a box waits for the rules that say what a file was recorded for.
const RULES_WAIT: Duration = Duration::from_secs(600);

impl CatalogState {
    /// Gives a file whose recording's row was lost what the rules of today ask for its stream: its
    /// name and sub-application are what a target is asked for, to find it. Whatever a task asked
    /// for is lost. `false`: no rules are there yet, and they may come.
    ///
    /// # Errors
    /// The database fails.
    pub fn adopt_terms(&mut self, id: FileId) -> Result<bool, RingError> {
        let what = "asking the rules about a file";
        let found = self
            .db
            .prepare_cached(
                "SELECT recording.content, recording.id, stream.domain, stream.app, stream.stream
                 FROM file JOIN recording ON recording.id = file.recording
                 JOIN stream ON stream.id = file.stream WHERE file.id = ?1",
            )
            .and_then(|mut query| {
                let read = |row: &Row<'_>| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, stream_key(row, 2)?))
                };
                query.query_row([sql(id.0)], read).optional()
            })
            .map_err(RingError::catalog(what))?;
        let Some((content, recording, key)) = found else { return Ok(true) };
        let content: Option<RecordingContent> = serde_json::from_str(&content).ok();
        let Some(lost) = content.filter(RecordingContent::is_unknown) else { return Ok(true) };
        let service = self.service.load_full();
        let table = service.layers.table();
        if table.is_empty() {
            return Ok(self.clock.now().boot.since(self.opened) >= RULES_WAIT);
        }
        let Decision::Record(matched) = table.resolve(&key) else { return Ok(true) };
        let number = service.layers.number(matched.template_layer, &matched.template.name);
        let content = RecordingContent::by_rule(&matched, number.map_or(0, |number| number.0));
        let asks_for = |format: &str| content.files.iter().any(|plan| plan.format == format);
        if !lost.files.iter().all(|plan| asks_for(&plan.format)) {
            return Ok(true);
        }
        info!(stream = %key, rule = content.rule, "what was recorded is taken to be by this rule");
        self.durably(what, |transaction| put_under(transaction, recording, &content))?;
        Ok(true)
    }

    /// What is asked of a file that is called `name`.
    ///
    /// # Errors
    /// The database fails, or there is no such file.
    pub fn media_terms(&self, id: FileId, name: String) -> Result<MediaTerms, RingError> {
        let (format, storage_s, end_ms, trusted, content) = self
            .db
            .prepare_cached(
                "SELECT file.format, file.storage_s, file.end_ms, file.trusted,
                 coalesce(recording.content, '') FROM file
                 LEFT JOIN recording ON recording.id = file.recording WHERE file.id = ?1",
            )
            .and_then(|mut query| query.query_row([sql(id.0)], asked).optional())
            .map_err(RingError::catalog("reading what is asked of a file"))?
            .ok_or_else(|| RingError::Gone(format!("file {id}")))?;
        let terms = MediaTerms {
            name,
            ended: trusted.then_some(UnixMillis(end_ms)),
            storage_time_s: unsql(storage_s),
            ..MediaTerms::default()
        };
        // Content of another version of the program, or of a row that was lost, asks for nothing.
        let content: Option<RecordingContent> = serde_json::from_str(&content).ok();
        let template = content.and_then(|content| content.content);
        let format = FileFormat::ALL[usize::from(format).min(3)];
        Ok(match template.as_ref().and_then(|template| template.params(format)) {
            Some(params) => terms.with_params(params),
            None => terms,
        })
    }
}

/// Gives a recording its content, and its files that have no name yet what that says of them.
fn put_under(
    transaction: &Transaction<'_>,
    recording: i64,
    content: &RecordingContent,
) -> rusqlite::Result<()> {
    let files: Vec<FileId> = transaction
        .prepare_cached("SELECT id FROM file WHERE recording = ?1")?
        .query_map([recording], |row| Ok(FileId(unsql(row.get(0)?))))?
        .collect::<rusqlite::Result<_>>()?;
    change_files(transaction, &files, || {
        let text = serde_json::to_string(content).expect("plain fields");
        transaction
            .execute("UPDATE recording SET content = ?2 WHERE id = ?1", params![recording, text])?;
        for format in FileFormat::ALL {
            let Some(plan) = content.plan(format) else { continue };
            transaction.execute(
                "UPDATE file SET name_pattern = ?3, storage_s = ?4
                 WHERE recording = ?1 AND format = ?2 AND name IS NULL",
                params![recording, format as u8, plan.name_pattern, sql(plan.storage_time_s)],
            )?;
        }
        Ok(())
    })
}

/// Format, StorageTime, end, whether that can be believed, and the recording's content.
fn asked(row: &Row<'_>) -> rusqlite::Result<(u8, i64, i64, bool, String)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::files::FormatSet;
    use crate::ring::catalog::notices::tests::open_unset;

    #[test]
    fn a_file_whose_row_was_lost_waits_for_the_rules() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open_unset(dir.path());
        let lost = RecordingContent::unknown(FormatSet::EMPTY.with(FileFormat::Flv));
        let known = RecordingContent { rule: "task 1".into(), ..lost.clone() };
        state
            .db
            .execute(
                "INSERT INTO stream (id, domain, app, stream) VALUES (1, 'd', 'live', 's')",
                [],
            )
            .expect("entered");
        for (id, content) in [(1, lost), (2, known)] {
            let content = serde_json::to_string(&content).expect("plain fields");
            let row = "INSERT INTO recording (id, stream, session, content) VALUES (?1, 1, 1, ?2)";
            state.db.execute(row, params![id, content]).expect("entered");
            let row = "INSERT INTO file (id, recording, stream, session, format, state,
                first_sequence, start_boot_ms, start_ms, trusted, end_ms, media_start_ms,
                duration_ms, storage_s, name_pattern)
                VALUES (?1, ?1, 1, 1, 0, 2, 0, 0, 0, 1, 0, 0, 500, 0, '')";
            state.db.execute(row, params![id]).expect("entered");
        }
        let adopted = [1, 2, 3].map(|id| state.adopt_terms(FileId(id)).expect("asked"));
        assert_eq!(adopted, [false, true, true], "only what is lost waits");
    }
}
