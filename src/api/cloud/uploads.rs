//! The queue of uploads: DescribeUploads, an action of the box that the cloud does not have. Files
//! come in the order of the queue, each with why it waits, or how it goes. `Offset` and `Limit` are
//! as in the cloud's lists.

use serde_json::{Map, Value, json};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::{Answer, CloudDesk};
use crate::api::report::FileRow;
use crate::domain::service::Refusal;
use crate::ring::RingError;
use crate::ring::catalog::files::FileRecord;

/// Most files in an answer.
const LIMIT_MAX: i64 = 100;
/// Files in an answer, if nothing is said.
const LIMIT: i64 = 20;
/// Nothing behind this is shown.
const OFFSET_MAX: i64 = 100_000;

/// Answers the action.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    if action != "DescribeUploads" {
        return None;
    }
    Some(describe(desk, params).await)
}

async fn describe(desk: &CloudDesk, params: &Params) -> Answer {
    let (offset, limit) = params.read(Codes::Full, |fields, faults| {
        let offset = fields.integer("Offset", 0..=OFFSET_MAX, faults).unwrap_or(0);
        let limit = fields.integer("Limit", 1..=LIMIT_MAX, faults).unwrap_or(LIMIT);
        (offset.unsigned_abs(), limit.unsigned_abs())
    })?;
    let call = desk.ring.catalog.call(move |state| {
        let most = u32::try_from(offset + limit).unwrap_or(u32::MAX);
        let waiting = state.waiting_in_order(most)?;
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        let shown = waiting.iter().skip(skipped).map(|file| state.file(file.file));
        let shown = shown.collect::<Result<Vec<FileRecord>, RingError>>()?;
        Ok((state.figures()?.queued(), shown))
    });
    let (total, files) = call.await.map_err(|problem| {
        tracing::error!(%problem, "the queue cannot be shown");
        Refusal::new("InternalError", "the box cannot look it up")
    })?;
    let shown: Vec<Value> = files
        .iter()
        .map(|record| upload(FileRow::new(record, desk.known.transfer(record))))
        .collect();
    Ok(Map::from_iter([
        ("TotalCount".to_owned(), json!(total)),
        ("UploadSet".to_owned(), json!(shown)),
    ]))
}

fn upload(row: FileRow) -> Value {
    json!({
        "FileId": row.file_id,
        "DomainName": row.domain,
        "AppName": row.app,
        "StreamName": row.stream,
        "Format": row.format,
        "State": row.state,
        "Why": row.why,
        "Size": row.size,
        "SentBytes": row.progress_bytes,
        "BytesPerSecond": row.bytes_per_s,
        "SecondsLeft": row.left_s,
    })
}
