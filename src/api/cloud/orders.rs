//! What somebody orders of a box and the cloud does not know: RestartLiveStream, UploadMediaNow,
//! ExportLiveStream.
//!
//! - A stream is restarted at its next key frame as by new rules: its files end there and others
//!   begin, and no sample is lost. With `Reconnect` its source is cut off instead; a camera is pulled
//!   again, an encoder has to come back by itself.
//! - Files that wait are delivered before all others, in their old order: one, or all of a stream.
//! - A range of the ring becomes a file that waits to be delivered like any other: a task over the
//!   past, which is told by its number and ends by itself.

use serde_json::{Map, Value, json};

use crate::api::cloud::media::{ask, file_id};
use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::streams::{Cut, key};
use crate::api::cloud::tasks::{create, of_format};
use crate::api::cloud::{Answer, CloudDesk, utc_time};
use crate::domain::document::Fields;
use crate::domain::faults::{Faults, quoted};
use crate::domain::files::{FileFormat, UnknownFormat};
use crate::domain::service::Refusal;
use crate::domain::service::tasks::{When, Wish};
use crate::domain::stream_key::StreamKey;
use crate::domain::task::Family;
use crate::domain::template::FormatParams;
use crate::ring::RingError;
use crate::ring::catalog::queue::Urgent;

/// Longest format and file id, in bytes.
const WORD_BYTES_MAX: usize = 64;
/// A file begins at the key frame before its range: this much longer than the range it may be, in
/// seconds, and still be one file.
const KEY_BEFORE_S: i64 = 60;

/// Answers an action of this family.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    Some(match action {
        "RestartLiveStream" => restart(desk, params),
        "UploadMediaNow" => upload_now(desk, params).await,
        "ExportLiveStream" => export(desk, params).await,
        _ => return None,
    })
}

fn restart(desk: &CloudDesk, params: &Params) -> Answer {
    let (key, reconnect) = params.read(Codes::Full, |fields, faults| {
        (key(fields, faults), fields.integer("Reconnect", 0..=1, faults) == Some(1))
    })?;
    let Some(key) = key else { return Ok(Map::new()) };
    let is_live = match reconnect {
        true => desk.online.cut(&|live| *live == key, Cut::RESTARTED) > 0,
        false => desk.online.restart(&key),
    };
    if !is_live {
        let what = format!("no stream {} is live", quoted(&key.to_string()));
        return Err(Refusal::new("ResourceUnavailable.StreamNotExist", what));
    }
    Ok(Map::new())
}

/// Either `FileId`, or a stream key.
async fn upload_now(desk: &CloudDesk, params: &Params) -> Answer {
    let which = params.read(Codes::Full, |fields, faults| {
        if !fields.has("FileId") {
            return key(fields, faults).map(Urgent::Stream);
        }
        let place = fields.place_of("FileId");
        let file = file_id(fields.text("FileId", WORD_BYTES_MAX, faults)?);
        if file.is_none() {
            faults.add(place, "is no file id");
        }
        file.map(Urgent::File)
    })?;
    let Some(which) = which else { return Ok(Map::new()) };
    let asked = which.clone();
    let moved = ask(desk, move |state| state.make_urgent(&asked)).await?;
    if let (Urgent::File(id), 0) = (which, moved) {
        let file = ask(desk, move |state| match state.file(id) {
            Err(RingError::Gone(_)) => Ok(None),
            file => file.map(Some),
        });
        return Err(match file.await? {
            Some(file) => {
                let stands = file.state.name();
                let what = format!("file {id} is {stands}: it does not wait to be delivered");
                Refusal::new("FailedOperation", what)
            }
            None => Refusal::new("ResourceNotFound", format!("there is no file {id}")),
        });
    }
    Ok(Map::from_iter([("Files".to_owned(), json!(moved))]))
}

/// What a range of the ring is to become.
struct Range {
    key: StreamKey,
    from_ms: i64,
    until_ms: i64,
    format: FileFormat,
}

fn read_range(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Range> {
    let key = key(fields, faults);
    let from = utc_time::required_field(fields, "StartTime", faults);
    let until = utc_time::required_field(fields, "EndTime", faults);
    let place = fields.place_of("FileFormat");
    let format = match fields.text("FileFormat", WORD_BYTES_MAX, faults) {
        None | Some("") => Some(FileFormat::Mp4),
        Some(text) => text
            .parse()
            .map_err(|error: UnknownFormat| {
                faults.add(place, error.to_string());
            })
            .ok(),
    };
    Some(Range { key: key?, from_ms: from?.0, until_ms: until?.0, format: format? })
}

async fn export(desk: &CloudDesk, params: &Params) -> Answer {
    let asked = params.read(Codes::Full, read_range)?;
    let Some(Range { key, from_ms, until_ms, format }) = asked else { return Ok(Map::new()) };
    let bad = |what: &str| Err(Refusal::new("InvalidParameterValue", what));
    if until_ms <= from_ms {
        return bad("EndTime must be after StartTime");
    }
    if until_ms > desk.clock.now().wall.unix.0 {
        return bad("EndTime has not passed; CreateLiveRecord records what comes");
    }
    let looked_for = key.clone();
    let held = ask(desk, move |state| match state.range_spans(&looked_for, from_ms, until_ms) {
        Err(RingError::Gone(_)) => Ok(false),
        found => found.map(|_| true),
    });
    if !held.await? {
        let what = format!("the ring holds nothing of {key} in that time");
        return Err(Refusal::new("ResourceNotFound", what));
    }
    let mut own = FormatParams::of(format);
    let whole_s = ((until_ms - from_ms) / 1_000).saturating_add(KEY_BEFORE_S);
    own.interval_s = own.interval_s.map(|_| u32::try_from(whole_s).unwrap_or(u32::MAX));
    let wish = Wish {
        family: Family::Live,
        domain: key.domain().to_owned(),
        app: key.app().to_owned(),
        stream: key.stream().to_owned(),
        when: When::Window { start_ms: from_ms, end_ms: until_ms },
        mixed: false,
        audio_only: false,
        template: of_format("ExportLiveStream", format, own),
        template_id: 0,
    };
    let task = create(desk, wish).await?;
    Ok(Map::from_iter([("TaskId".to_owned(), Value::from(task.id))]))
}
