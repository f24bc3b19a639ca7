//! DescribeVodPlayInfo of the retired VOD API 2.0: files by the beginning of their name, answered
//! without an envelope: `{"code":0,"message":"","totalCount":"1","fileSet":[…]}`.

use serde_json::{Map, Value, json};

use crate::api::cloud::CloudDesk;
use crate::api::cloud::media::info::Links;
use crate::api::cloud::media::{FoundFile, page_of, search};
use crate::domain::service::Refusal;
use crate::ring::catalog::search::MediaRow;
use crate::wire::cloud::envelope::ActionRequest;

/// Files in one answer.
const PAGE_SIZE_MAX: u64 = 100;
/// See [`PAGE_SIZE_MAX`], where nothing is given.
const PAGE_SIZE_DEFAULT: u64 = 20;
/// Longest `fileName`, in characters.
const NAME_CHARS_MAX: usize = 100;
/// A parameter is missing or wrong.
const BAD_REQUEST: u16 = 4_000;
/// The box fails.
const FAILED: u16 = 6_000;
/// The file can be played.
const STATUS_NORMAL: &str = "2";

/// Answers the action, whatever comes out of it; the parameters `fileName`, `pageNo` and
/// `pageSize` count, others do not.
pub async fn describe_vod_play_info(desk: &CloudDesk, request: &ActionRequest) -> Value {
    answer(desk, request).await.unwrap_or_else(|(code, message)| {
        json!({"code": code, "message": message, "totalCount": "0", "fileSet": []})
    })
}

async fn answer(desk: &CloudDesk, request: &ActionRequest) -> Result<Value, (u16, String)> {
    let parameters = &request.parameters;
    let prefix = parameters.get("fileName").and_then(Value::as_str).unwrap_or_default();
    if prefix.is_empty() || prefix.chars().count() > NAME_CHARS_MAX {
        let what = format!("fileName must have 1 to {NAME_CHARS_MAX} characters");
        return Err((BAD_REQUEST, what));
    }
    let page = number(parameters, "pageNo", 1, u64::from(u32::MAX))?;
    let size = number(parameters, "pageSize", PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)?;
    let failed = |refusal: Refusal| (FAILED, refusal.message);
    let matches = |row: &MediaRow| row.file.file_name().starts_with(prefix);
    let mut found = search(desk, None, matches).await.map_err(failed)?;
    found.sort_unstable_by(|a, b| b.cmp(a));
    let skip = usize::try_from((page - 1).saturating_mul(size)).unwrap_or(usize::MAX);
    let wanted: Vec<FoundFile> =
        found.iter().skip(skip).take(usize::try_from(size).unwrap_or(0)).copied().collect();
    let rows = page_of(desk, &wanted).await.map_err(failed)?;
    let now = desk.clock.now().wall.unix;
    let links = Links::new(request.host.as_deref(), desk.key.as_ref(), now);
    let files: Vec<Value> = rows.iter().map(|row| file(row, &links)).collect();
    let total = found.len().to_string();
    Ok(json!({"code": 0, "message": "", "totalCount": total, "fileSet": files}))
}

fn file(row: &MediaRow, links: &Links<'_>) -> Value {
    let play = json!({"url": links.of(&row.file), "definition": 0, "vbitrate": 0, "vheight": 0,
                      "vwidth": 0});
    json!({
        "fileId": row.file.id.to_string(),
        "fileName": row.file.file_name(),
        // Whole seconds, as there were no others then.
        "duration": (row.file.duration_ms + 500) / 1_000,
        "status": STATUS_NORMAL,
        "imageUrl": "",
        "playSet": [play],
    })
}

/// A number from 1 to `max`, also written as a text.
fn number(
    parameters: &Map<String, Value>,
    name: &str,
    default: u64,
    max: u64,
) -> Result<u64, (u16, String)> {
    let read = match parameters.get(name) {
        None | Some(Value::Null) => Some(default),
        Some(Value::String(text)) if text.is_empty() => Some(default),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    let fits = read.filter(|number| (1..=max).contains(number));
    fits.ok_or_else(|| (BAD_REQUEST, format!("{name} must be a number from 1 to {max}")))
}
