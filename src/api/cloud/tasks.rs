//! Timed and highlight tasks: the older CreateLiveRecord family, and the CreateRecordTask family.
//!
//! Both make tasks of the same kind; the ids of one family are unknown to the other.

use serde_json::{Map, Value, json};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::{Answer, CloudDesk};
use crate::domain::contract_time::{TimeForm, read_time};
use crate::domain::document::Fields;
use crate::domain::faults::{FaultKind, Faults, quoted};
use crate::domain::files::FileFormat;
use crate::domain::ids::{TaskId, TemplateNumber};
use crate::domain::limits::STREAM_KEY_PART_BYTES_MAX;
use crate::domain::rule_set::APP_DEFAULT;
use crate::domain::service::Refusal;
use crate::domain::service::tasks::{TaskQuery, When, Wish};
use crate::domain::stream_key::{StreamKey, percent_decode};
use crate::domain::task::{Family, Task};
use crate::domain::template::{FormatParams, Template};
use crate::domain::time::Moment;
use crate::platform::random::random_u64;

/// Longest time and format texts, in bytes.
const WORD_BYTES_MAX: usize = 64;
/// Longest text of a task, in bytes, as the contract asks for.
const TASK_NAME_BYTES_MAX: usize = 128;
/// Longest StreamParam, in bytes.
const STREAM_PARAM_BYTES_MAX: usize = 1_024;
/// `record_interval` of StreamParam, in seconds.
const PARAM_INTERVAL_S: std::ops::RangeInclusive<i64> = 1_800..=7_200;
/// `storage_time` of StreamParam, in seconds.
const PARAM_STORAGE_S: std::ops::RangeInclusive<i64> = 0..=129_600_000;
/// Answers an action of this family.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    Some(match action {
        "CreateLiveRecord" => create_live(desk, params).await,
        "StopLiveRecord" => end_live(desk, params, End::Stop).await,
        "DeleteLiveRecord" => end_live(desk, params, End::Delete).await,
        "CreateRecordTask" => create_record(desk, params).await,
        "StopRecordTask" => end_record(desk, params, End::Stop).await,
        "DeleteRecordTask" => end_record(desk, params, End::Delete).await,
        "DescribeRecordTask" => describe(desk, params),
        _ => return None,
    })
}

/// What is done to a task.
#[derive(Debug, Clone, Copy)]
enum End {
    Stop,
    Delete,
}

/// CreateLiveRecord as it was read.
struct LiveRecord {
    stream: String,
    app: String,
    domain: String,
    start_ms: Option<i64>,
    end_ms: Option<i64>,
    audio_only: bool,
    highlight: bool,
    mixed: bool,
    pre_roll_s: u32,
    template: Template,
}

async fn create_live(desk: &CloudDesk, params: &Params) -> Answer {
    let asked = params.read(Codes::Full, read_live_record)?;
    let asked = asked.ok_or_else(|| Refusal::new("InvalidParameterValue", "nothing is asked"))?;
    // The first published example of a highlight sends MixStream=1 and no StartTime.
    let highlight = asked.highlight || (asked.mixed && asked.start_ms.is_none());
    let when = match (highlight, asked.start_ms, asked.end_ms) {
        (true, _, end_ms) => {
            let covers = |key: &StreamKey| {
                (asked.domain.is_empty() || asked.domain.to_lowercase() == key.domain())
                    && (asked.app.as_str(), asked.stream.as_str()) == (key.app(), key.stream())
            };
            if !desk.online.live().iter().any(|live| covers(&live.key)) {
                let what = format!("no stream {} is live", quoted(&asked.stream));
                return Err(Refusal::new("ResourceUnavailable.StreamNotExist", what));
            }
            When::Highlight { pre_roll_s: asked.pre_roll_s, end_ms }
        }
        (false, Some(start_ms), Some(end_ms)) => When::Window { start_ms, end_ms },
        (false, start, _) => {
            let missing = if start.is_none() { "StartTime" } else { "EndTime" };
            let what = format!("{missing}: is missing; a timed task needs both times");
            return Err(Refusal::new("MissingParameter", what));
        }
    };
    let wish = Wish {
        family: Family::Live,
        domain: asked.domain,
        app: asked.app,
        stream: asked.stream,
        when,
        mixed: asked.mixed && !highlight,
        audio_only: asked.audio_only,
        template: asked.template,
        template_id: 0,
    };
    let task = create(desk, wish).await?;
    Ok(Map::from_iter([("TaskId".to_owned(), json!(task.id))]))
}

fn read_live_record(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<LiveRecord> {
    let stream = read_stream(fields, faults);
    let app = fields.text("AppName", STREAM_KEY_PART_BYTES_MAX, faults).unwrap_or(APP_DEFAULT);
    let domain = fields.text("DomainName", STREAM_KEY_PART_BYTES_MAX, faults).unwrap_or("");
    let start_ms = read_moment(fields, "StartTime", faults);
    let end_ms = read_moment(fields, "EndTime", faults);
    let place = fields.place_of("RecordType");
    let audio_only = match fields.text("RecordType", WORD_BYTES_MAX, faults) {
        None | Some("") => false,
        Some(kind) if kind.eq_ignore_ascii_case("video") => false,
        Some(kind) if kind.eq_ignore_ascii_case("audio") => true,
        Some(other) => {
            faults.add(place, format!("{} is neither `video` nor `audio`", quoted(other)));
            false
        }
    };
    let place = fields.place_of("FileFormat");
    let format = match fields.text("FileFormat", WORD_BYTES_MAX, faults) {
        None | Some("") => Some(FileFormat::Flv),
        Some(text) if text.eq_ignore_ascii_case("mp3") => {
            let what = "MP3 is not supported: it would need transcoding";
            faults.add_kind(FaultKind::Unsupported, place, what);
            None
        }
        Some(text) => text
            .parse()
            .map_err(|error: crate::domain::files::UnknownFormat| {
                faults.add(place, error.to_string());
            })
            .ok(),
    };
    let highlight = fields.integer("Highlight", 0..=1, faults) == Some(1);
    let mixed = fields.integer("MixStream", 0..=1, faults) == Some(1);
    let pre_roll_s = fields.integer("PreRollSeconds", 0..=86_400, faults).unwrap_or(0);
    let params = read_stream_param(fields, faults);
    let mut own = FormatParams::of(format?);
    own.storage_time_s = params.storage_s;
    if own.interval_s.is_some() {
        own.interval_s = Some(params.interval_s);
    }
    Some(LiveRecord {
        stream: stream?.to_owned(),
        app: app.to_owned(),
        domain: domain.to_owned(),
        start_ms,
        end_ms,
        audio_only,
        highlight,
        mixed,
        pre_roll_s: u32::try_from(pre_roll_s).expect("in range"),
        template: of_format("CreateLiveRecord", format?, own),
    })
}

/// A template of one format.
pub(super) fn of_format(name: &str, format: FileFormat, params: FormatParams) -> Template {
    let mut template = Template { name: name.to_owned(), ..Template::default() };
    let place = match format {
        FileFormat::Flv => &mut template.flv,
        FileFormat::Hls => &mut template.hls,
        FileFormat::Mp4 => &mut template.mp4,
        FileFormat::Aac => &mut template.aac,
    };
    *place = Some(params);
    template
}

/// What StreamParam says; its defaults where it says nothing.
struct StreamParam {
    interval_s: u32,
    storage_s: u32,
}

/// A query string of its own; members that nobody knows are let be, as in push URLs.
fn read_stream_param(fields: &mut Fields<'_>, faults: &mut Faults) -> StreamParam {
    let mut read = StreamParam { interval_s: 1_800, storage_s: 0 };
    let place = fields.place_of("StreamParam");
    let text = fields.text("StreamParam", STREAM_PARAM_BYTES_MAX, faults).unwrap_or("");
    let decoded = percent_decode(text).unwrap_or_else(|| text.to_owned());
    for (name, value) in decoded.split('&').filter_map(|pair| pair.split_once('=')) {
        let (range, into) = match name {
            "record_interval" => (PARAM_INTERVAL_S, &mut read.interval_s),
            "storage_time" => (PARAM_STORAGE_S, &mut read.storage_s),
            _ => continue,
        };
        match value.parse::<i64>().ok().filter(|number| range.contains(number)) {
            Some(number) => *into = u32::try_from(number).expect("in range"),
            None => {
                let what = format!("{name} is not a number of {}..={}", range.start(), range.end());
                faults.add(&place, what);
            }
        }
    }
    read
}

/// `YYYY-MM-DD hh:mm:ss` in UTC+8, which callers may have percent-encoded once more; a form or query
/// has turned a `+` into a blank already.
fn read_moment(fields: &mut Fields<'_>, name: &str, faults: &mut Faults) -> Option<i64> {
    let place = fields.place_of(name);
    let text = fields.text(name, WORD_BYTES_MAX, faults).filter(|text| !text.is_empty())?;
    let plain = match text.contains(['%', '+']) {
        true => percent_decode(&text.replace('+', " ")).unwrap_or_default(),
        false => text.to_owned(),
    };
    match read_time(&plain) {
        Some((time, TimeForm::Beijing)) => Some(time.0),
        _ => {
            let what = format!("{} is no time like 2026-11-25 20:00:00", quoted(text));
            faults.add(place, what);
            None
        }
    }
}

fn read_stream<'a>(fields: &mut Fields<'a>, faults: &mut Faults) -> Option<&'a str> {
    let place = fields.place_of("StreamName");
    let stream = fields.required_text("StreamName", STREAM_KEY_PART_BYTES_MAX, faults)?;
    if stream.is_empty() {
        faults.add(place, "is empty");
        return None;
    }
    Some(stream)
}

pub(super) async fn create(desk: &CloudDesk, wish: Wish) -> Result<std::sync::Arc<Task>, Refusal> {
    let (limits, now, random) = (desk.limits.clone(), moment(desk), random_u64());
    desk.change(move |service, changes| service.tasks.create(wish, &limits, now, random, changes))
        .await
}

fn moment(desk: &CloudDesk) -> Moment {
    Moment { at: desk.clock.now(), boot_id: desk.clock.boot_id() }
}

async fn end(desk: &CloudDesk, task: TaskId, family: Family, how: End) -> Answer {
    let now = moment(desk);
    desk.change(move |service, changes| match how {
        End::Stop => service.tasks.stop(task, family, now, changes),
        End::Delete => service.tasks.delete(task, family, now, changes),
    })
    .await?;
    Ok(Map::new())
}

async fn end_live(desk: &CloudDesk, params: &Params, how: End) -> Answer {
    let read = params.read(Codes::Full, |fields, faults| {
        let stream = read_stream(fields, faults);
        let id = fields.required_integer("TaskId", 0..=i64::MAX, faults);
        Some((stream?.to_owned(), id?.unsigned_abs()))
    })?;
    let (stream, id) = read.ok_or_else(unknown_task)?;
    let service = desk.service.load();
    let task = service.tasks.get(TaskId(id), Family::Live);
    if task.is_none_or(|task| task.stream != stream) {
        return Err(unknown_task());
    }
    end(desk, TaskId(id), Family::Live, how).await
}

fn unknown_task() -> Refusal {
    Refusal::new("ResourceNotFound.TaskId", "the stream has no such task")
}

async fn create_record(desk: &CloudDesk, params: &Params) -> Answer {
    let now_s = moment(desk).at.wall.unix.0.div_euclid(1_000);
    let read = params.read(Codes::Plain, |fields, faults| {
        let stream = read_stream(fields, faults);
        let mut part = |name: &str| {
            let text = fields.required_text(name, STREAM_KEY_PART_BYTES_MAX, faults)?;
            if text.is_empty() && name == "AppName" {
                faults.add(fields.place_of(name), "is empty");
            }
            Some(text.to_owned())
        };
        let (domain, app) = (part("DomainName"), part("AppName"));
        let end_s = fields.required_integer("EndTime", 0..=MAX_S, faults);
        let start_s = fields.integer("StartTime", 0..=MAX_S, faults).unwrap_or(now_s);
        let mixed = fields.integer("StreamType", 0..=1, faults) == Some(1);
        let template = fields.integer("TemplateId", 0..=i64::MAX, faults).unwrap_or(0);
        // Undefined in the contract, and empty in its samples: nothing is made of it.
        fields.text("Extension", STREAM_PARAM_BYTES_MAX, faults);
        Some((stream?.to_owned(), domain?, app?, start_s, end_s?, mixed, template.unsigned_abs()))
    })?;
    let (stream, domain, app, start_s, end_s, mixed, template_id) =
        read.ok_or_else(|| Refusal::new("InvalidParameter", "nothing is asked"))?;
    // An unknown template does not fail: the task records HLS, kept for ever.
    let named = desk.service.load().layers.template(TemplateNumber(template_id));
    let named = named.filter(|named| !named.template.formats().is_empty());
    let template_id = if named.is_some() { template_id } else { 0 };
    let template = named.map(|named| Template::clone(&named.template)).unwrap_or_else(|| {
        of_format("CreateRecordTask", FileFormat::Hls, FormatParams::of(FileFormat::Hls))
    });
    let when = When::Window { start_ms: start_s * 1_000, end_ms: end_s * 1_000 };
    let audio_only = false;
    let family = Family::Record;
    let wish = Wish { family, domain, app, stream, when, mixed, audio_only, template, template_id };
    let task = create(desk, wish).await?;
    Ok(Map::from_iter([("TaskId".to_owned(), json!(task.name))]))
}

/// The year 9999, in Unix seconds.
const MAX_S: i64 = 253_402_207_200;

async fn end_record(desk: &CloudDesk, params: &Params, how: End) -> Answer {
    let name = params.read(Codes::Plain, |fields, faults| {
        fields.required_text("TaskId", TASK_NAME_BYTES_MAX, faults).map(ToOwned::to_owned)
    })?;
    let service = desk.service.load();
    let task = name.as_deref().and_then(|name| service.tasks.named(name));
    let task = task.ok_or_else(|| Refusal::new("InvalidParameter", "there is no such task"))?;
    end(desk, task.id(), Family::Record, how).await
}

fn describe(desk: &CloudDesk, params: &Params) -> Answer {
    let query = params.read(Codes::Plain, |fields, faults| {
        let mut time =
            |name: &str| fields.required_integer(name, 0..=MAX_S, faults).map(i64::unsigned_abs);
        let (start_s, end_s) = (time("StartTime"), time("EndTime"));
        let mut part = |name: &str| {
            let text = fields.text(name, STREAM_KEY_PART_BYTES_MAX, faults)?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        let (stream, domain, app) = (part("StreamName"), part("DomainName"), part("AppName"));
        let place = fields.place_of("ScrollToken");
        let after = match fields.text("ScrollToken", TASK_NAME_BYTES_MAX, faults) {
            None | Some("") => 0,
            Some(token) => token.parse().unwrap_or_else(|_| {
                faults.add(place, "is none that was given out");
                0
            }),
        };
        let domain = domain.map(|domain| domain.to_lowercase());
        Some(TaskQuery { start_s: start_s?, end_s: end_s?, domain, app, stream, after })
    })?;
    let query = query.ok_or_else(|| Refusal::new("InvalidParameter", "nothing is asked"))?;
    let (page, more) = desk.service.load().tasks.list(&query, moment(desk))?;
    let token = page.last().filter(|_| more).map_or(String::new(), |task| task.id.to_string());
    let list: Vec<Value> = page.iter().map(|task| shown(task)).collect();
    Ok(Map::from_iter([
        ("ScrollToken".to_owned(), json!(token)),
        ("TaskList".to_owned(), Value::Array(list)),
    ]))
}

/// The contract's RecordTask.
fn shown(task: &Task) -> Value {
    let seconds = |ms: i64| ms.div_euclid(1_000);
    json!({
        "TaskId": task.name,
        "DomainName": task.domain,
        "AppName": task.app,
        "StreamName": task.stream,
        "StartTime": seconds(task.start_ms),
        "EndTime": seconds(task.end_ms),
        "TemplateId": task.template_id,
        "Stopped": task.stopped_ms.map_or(0, seconds),
    })
}
