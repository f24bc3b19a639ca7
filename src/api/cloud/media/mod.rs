//! Files by the VOD API: SearchMedia, DescribeMediaInfos, DeleteMedia, and the older
//! [`describe_vod_play_info`].
//!
//! A file is media once it is finished, and as long as it is in the ring or was delivered: one
//! that still grows, was overwritten before it was delivered, or was deleted is not there. Its
//! `CreateTime` is the arrival of its last sample. Files of a clock that was never set have the
//! times which that clock told.
//!
//! Names are put together from patterns and times, so a search looks at every file, a page at a
//! time; the catalog thread is free for others between two pages.

mod info;
mod play_info;
mod query;

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::{Answer, CloudDesk};
use crate::domain::document::Fields;
use crate::domain::faults::FaultKind;
use crate::domain::ids::FileId;
use crate::domain::service::Refusal;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::search::{Deletion, MediaRow};

use info::{Groups, Links, media_info};
pub use play_info::describe_vod_play_info;
use query::{ELEMENTS_MAX, FOUND_MAX, Query, TEXT_BYTES_MAX, texts};

/// Files that DescribeMediaInfos tells of at once.
const DESCRIBED_MAX: usize = 20;
/// Files that one job on the catalog thread fetches by their ids.
const FETCHED_AT_ONCE: usize = 256;

/// A file that was found: when it came to be (Unix milliseconds), and which it is.
type FoundFile = (i64, FileId);

/// Answers an action of this family, for a caller that calls this machine `host`; `None` if the
/// action is another one.
pub(super) async fn answer(
    desk: &CloudDesk,
    action: &str,
    params: &Params,
    host: Option<&str>,
) -> Option<Answer> {
    Some(match action {
        "SearchMedia" => search_media(desk, params, host).await,
        "DescribeMediaInfos" => describe_media_infos(desk, params, host).await,
        "DeleteMedia" => delete_media(desk, params).await,
        _ => return None,
    })
}

/// The newest first, unless `Sort` says otherwise; with `Names` or `Text` always the newest
/// first, as no name answers better than another.
async fn search_media(desk: &CloudDesk, params: &Params, host: Option<&str>) -> Answer {
    let query = Query::read(params)?;
    let mut found = search(desk, query.files(), |row| query.matches(row)).await?;
    if query.ascending {
        found.sort_unstable();
    } else {
        found.sort_unstable_by(|a, b| b.cmp(a));
    }
    let wanted: Vec<FoundFile> =
        found.iter().skip(query.offset).take(query.limit).copied().collect();
    let rows = page_of(desk, &wanted).await?;
    let mut answer = Map::new();
    answer.insert("TotalCount".to_owned(), found.len().min(FOUND_MAX).into());
    answer.insert("MediaInfoSet".to_owned(), infos(desk, &rows, query.groups, host));
    Ok(answer)
}

async fn describe_media_infos(desk: &CloudDesk, params: &Params, host: Option<&str>) -> Answer {
    let (mut ids, filters) = params.read(Codes::Full, |fields, faults| {
        if !fields.has("FileIds") {
            faults.add_kind(FaultKind::Missing, "FileIds", "is missing");
        }
        fields.integer("SubAppId", 0..=i64::MAX, faults);
        (texts(fields, "FileIds", faults), texts(fields, "Filters", faults))
    })?;
    if ids.is_empty() {
        let code = "InvalidParameterValue.FileIdsEmpty";
        return Err(Refusal::new(code, "FileIds has no element"));
    }
    if ids.len() > DESCRIBED_MAX {
        let code = "InvalidParameterValue.FileIdsOverLimit";
        return Err(Refusal::new(code, format!("FileIds may have {DESCRIBED_MAX} elements")));
    }
    // A file that is named twice is told once.
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    let wanted: Vec<FileId> = ids.iter().filter_map(|id| file_id(id)).collect();
    let rows = ask(desk, move |state| state.media(&wanted)).await?;
    let known = |id: &String| rows.iter().any(|row| row.file.id.to_string() == *id);
    let missing: Vec<Value> =
        ids.iter().filter(|id| !known(id)).map(|id| id.as_str().into()).collect();
    let mut answer = Map::new();
    answer.insert("MediaInfoSet".to_owned(), infos(desk, &rows, Groups::of(&filters), host));
    answer.insert("NotExistFileIdSet".to_owned(), missing.into());
    Ok(answer)
}

/// Deletes a file. With `DeleteParts` only if the original is among them: a box has no other
/// parts, so without it there is nothing to delete. What was delivered stays where it is: a box
/// takes nothing away from a target.
async fn delete_media(desk: &CloudDesk, params: &Params) -> Answer {
    let (id, parts) = params.read(Codes::Full, |fields, faults| {
        let id = fields.required_text("FileId", TEXT_BYTES_MAX, faults).map(str::to_owned);
        fields.integer("SubAppId", 0..=i64::MAX, faults);
        let mut parts = Vec::new();
        for (place, part) in fields.list("DeleteParts", ELEMENTS_MAX, faults) {
            let Some(part) = Fields::open(part, place, faults) else { continue };
            let mut part = part.null_is_absent();
            let kind = part.required_text("Type", TEXT_BYTES_MAX, faults);
            part.integer("Definition", 0..=i64::MAX, faults);
            parts.extend(kind.map(str::to_owned));
            part.finish(faults);
        }
        (id.unwrap_or_default(), parts)
    })?;
    let unknown = || Refusal::new("ResourceNotFound", format!("there is no file {id}"));
    let file = file_id(&id).ok_or_else(unknown)?;
    if !parts.is_empty() && !parts.iter().any(|part| part == "OriginalFiles") {
        let what = "a file of the box has no part but OriginalFiles";
        return Err(Refusal::new("ResourceNotFound", what));
    }
    match ask(desk, move |state| state.delete_file(file)).await? {
        Deletion::Done => Ok(Map::new()),
        Deletion::Unknown => Err(unknown()),
        Deletion::Growing => {
            let what = format!("file {id} is still being recorded");
            Err(Refusal::new("FailedOperation", what))
        }
    }
}

/// Every file that `matches`, in the order in which they began; of `only`, if that is given.
async fn search(
    desk: &CloudDesk,
    only: Option<Vec<FileId>>,
    matches: impl Fn(&MediaRow) -> bool,
) -> Result<Vec<FoundFile>, Refusal> {
    let found = |row: &MediaRow| (row.created_ms(), row.file.id);
    if let Some(ids) = only {
        let rows = ask(desk, move |state| state.media(&ids)).await?;
        let mut files: Vec<FoundFile> = rows.iter().filter(|r| matches(r)).map(found).collect();
        files.sort_unstable();
        files.dedup();
        return Ok(files);
    }
    let mut files = Vec::new();
    let mut after = (i64::MIN, FileId(0));
    loop {
        let rows = ask(desk, move |state| state.media_after(after)).await?;
        let Some(last) = rows.last() else { return Ok(files) };
        after = (last.file.start_ms, last.file.id);
        files.extend(rows.iter().filter(|row| matches(row)).map(found));
    }
}

/// What the catalog says of files that were found, in their order. One that is gone since is left
/// out.
async fn page_of(desk: &CloudDesk, wanted: &[FoundFile]) -> Result<Vec<MediaRow>, Refusal> {
    let mut rows = Vec::with_capacity(wanted.len());
    for part in wanted.chunks(FETCHED_AT_ONCE) {
        let ids: Vec<FileId> = part.iter().map(|(_, id)| *id).collect();
        rows.extend(ask(desk, move |state| state.media(&ids)).await?);
    }
    Ok(rows)
}

fn infos(desk: &CloudDesk, rows: &[MediaRow], groups: Groups, host: Option<&str>) -> Value {
    let links = Links::new(host, desk.key.as_ref(), desk.clock.now().wall.unix);
    rows.iter().map(|row| media_info(row, groups, &links)).collect()
}

/// A file id as the box writes it.
pub(super) fn file_id(text: &str) -> Option<FileId> {
    let id = text.parse().ok().map(FileId)?;
    (id.to_string() == text).then_some(id)
}

/// Asks the catalog.
pub(super) async fn ask<T: Send + 'static>(
    desk: &CloudDesk,
    job: impl FnOnce(&mut CatalogState) -> Result<T, RingError> + Send + 'static,
) -> Result<T, Refusal> {
    desk.ring.catalog.call(job).await.map_err(|problem| {
        tracing::error!(%problem, "the catalog cannot be asked");
        Refusal::new("InternalError", "the box cannot look it up")
    })
}
