//! Callback templates and rules, and the log of what was told.
//!
//! An empty DomainName or AppName of a rule is a wildcard, which the cloud does not take. A URL that
//! is given empty is taken away. RecordStatusNotifyUrl is shown with the others, though the
//! contract's answer does not list it. URLs of what a box does not do (screenshots, reviews, mixing)
//! are kept, shown and never called.
//!
//! The log has one entry a notice, with what came of its last attempt: ResultCode is 0 once the
//! receiver has it, else 1. Request is the body without `t` and `sign`, which each attempt has anew.

use serde_json::{Map, Value, json};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::{Answer, CloudDesk};
use crate::domain::contract_time::{TimeForm, read_time};
use crate::domain::document::{Fields, Json};
use crate::domain::faults::{Faults, quoted};
use crate::domain::limits::STREAM_KEY_PART_BYTES_MAX;
use crate::domain::notice::Event;
use crate::domain::secret::Secret;
use crate::domain::service::Refusal;
use crate::domain::service::callbacks::{
    CallbackTemplate, CallbackTemplateFields, CallbackTemplateNumber, DESCRIPTION_BYTES_MAX,
    NAME_BYTES_MAX, UrlField,
};
use crate::domain::stream_key::percent_decode;
use crate::domain::time::UnixMillis;
use crate::ring::catalog::notices::{HISTORY_MS, HistoryQuery, NoticeRecord};

/// Longest URL and time texts, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;
/// Most levels in one request.
const LEVELS_MAX: usize = 16;
/// Longest stretch of the log in one answer, in milliseconds: a day.
const LOG_SPAN_MS: i64 = 86_400_000;
/// Entries of one page of the log.
const PAGE_MAX: i64 = 1_000;

/// Answers an action of this family.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    Some(match action {
        "CreateLiveCallbackTemplate" => create_template(desk, params).await,
        "ModifyLiveCallbackTemplate" => modify_template(desk, params).await,
        "DeleteLiveCallbackTemplate" => delete_template(desk, params).await,
        "DescribeLiveCallbackTemplate" => describe_template(desk, params),
        "DescribeLiveCallbackTemplates" => describe_templates(desk, params),
        "CreateLiveCallbackRule" => create_rule(desk, params).await,
        "DeleteLiveCallbackRule" => delete_rule(desk, params).await,
        "DescribeLiveCallbackRules" => describe_rules(desk, params),
        "DescribeCallbackRecordsList" => describe_log(desk, params).await,
        _ => return None,
    })
}

async fn create_template(desk: &CloudDesk, params: &Params) -> Answer {
    let asked = params.read(Codes::Full, |fields, faults| {
        let name = fields.required_text("TemplateName", NAME_BYTES_MAX, faults).map(str::to_owned);
        CallbackTemplateFields { name, ..read_template(fields, &UrlField::ALL, faults) }
    })?;
    let limits = desk.limits.clone();
    let number = desk
        .change(move |service, changes| service.callbacks.create_template(asked, &limits, changes))
        .await?;
    Ok(Map::from_iter([("TemplateId".to_owned(), json!(number.0))]))
}

async fn modify_template(desk: &CloudDesk, params: &Params) -> Answer {
    let (number, asked) = params.read(Codes::Full, |fields, faults| {
        let number = read_number(fields, faults);
        let name = fields.text("TemplateName", NAME_BYTES_MAX, faults).map(str::to_owned);
        // The contract's list for a change has no StreamMixNotifyUrl.
        let mut urls = UrlField::ALL.to_vec();
        urls.retain(|field| *field != UrlField::StreamMixNotifyUrl);
        (number, CallbackTemplateFields { name, ..read_template(fields, &urls, faults) })
    })?;
    desk.change(move |service, changes| service.callbacks.modify_template(number, asked, changes))
        .await?;
    Ok(Map::new())
}

async fn delete_template(desk: &CloudDesk, params: &Params) -> Answer {
    let number = params.read(Codes::Full, read_number)?;
    desk.change(move |service, changes| service.callbacks.delete_template(number, changes)).await?;
    Ok(Map::new())
}

fn describe_template(desk: &CloudDesk, params: &Params) -> Answer {
    let number = params.read(Codes::Full, read_number)?;
    let service = desk.service.load();
    let shown = shown_template(service.callbacks.template(number)?);
    Ok(Map::from_iter([("Template".to_owned(), shown)]))
}

fn describe_templates(desk: &CloudDesk, params: &Params) -> Answer {
    params.read(Codes::Full, |_, _| ())?;
    let service = desk.service.load();
    let shown: Vec<Value> = service.callbacks.templates().map(shown_template).collect();
    Ok(Map::from_iter([("Templates".to_owned(), Value::Array(shown))]))
}

async fn create_rule(desk: &CloudDesk, params: &Params) -> Answer {
    let ((domain, app), number) = params.read(Codes::Full, |fields, faults| {
        (read_pair(fields, faults), read_number(fields, faults))
    })?;
    let (limits, now) = (desk.limits.clone(), desk.clock.now().wall.unix);
    desk.change(move |service, changes| {
        service.callbacks.create_rule((&domain, &app), number, now, &limits, changes)
    })
    .await?;
    Ok(Map::new())
}

async fn delete_rule(desk: &CloudDesk, params: &Params) -> Answer {
    let (domain, app) = params.read(Codes::Full, read_pair)?;
    desk.change(move |service, changes| service.callbacks.delete_rule((&domain, &app), changes))
        .await?;
    Ok(Map::new())
}

fn describe_rules(desk: &CloudDesk, params: &Params) -> Answer {
    params.read(Codes::Full, |_, _| ())?;
    let service = desk.service.load();
    let shown = service.callbacks.rules().map(|rule| {
        let made = TimeForm::Beijing.show(UnixMillis(rule.made_ms));
        json!({"CreateTime": made, "UpdateTime": made, "TemplateId": rule.template.0,
            "DomainName": rule.domain, "AppName": rule.app})
    });
    Ok(Map::from_iter([("Rules".to_owned(), Value::Array(shown.collect()))]))
}

/// TemplateId.
fn read_number(fields: &mut Fields<'_>, faults: &mut Faults) -> CallbackTemplateNumber {
    let number = fields.required_integer("TemplateId", 0..=i64::MAX, faults);
    CallbackTemplateNumber(u64::try_from(number.unwrap_or(0)).unwrap_or(0))
}

/// DomainName and AppName.
fn read_pair(fields: &mut Fields<'_>, faults: &mut Faults) -> (String, String) {
    let mut part = |name: &str| {
        let part = fields.required_text(name, STREAM_KEY_PART_BYTES_MAX, faults);
        part.unwrap_or("").to_owned()
    };
    (part("DomainName"), part("AppName"))
}

/// What a request gives of a template, but for its name.
fn read_template(
    fields: &mut Fields<'_>,
    urls: &[UrlField],
    faults: &mut Faults,
) -> CallbackTemplateFields {
    let description = fields.text("Description", DESCRIPTION_BYTES_MAX, faults);
    let urls = urls
        .iter()
        .filter_map(|field| {
            let url = fields.text(field.name(), TEXT_BYTES_MAX, faults)?;
            Some((*field, url.to_owned()))
        })
        .collect();
    let key = fields.text("CallbackKey", TEXT_BYTES_MAX, faults).map(Secret::new);
    CallbackTemplateFields {
        name: None,
        description: description.map(str::to_owned),
        urls,
        key,
        levels: read_levels(fields, faults),
    }
}

/// RecordExceptionLevels; an empty list is every level, and is not the same as none given.
fn read_levels(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let name = "RecordExceptionLevels";
    let level = |value: &Json| match value {
        Json::Text(text) => Some(text.clone()),
        _ => None,
    };
    match fields.take(name)? {
        Json::List(list) if list.len() <= LEVELS_MAX => {
            let levels: Option<Vec<String>> = list.iter().map(level).collect();
            if levels.is_none() {
                faults.add(fields.place_of(name), "is no list of strings");
            }
            levels
        }
        _ => {
            faults.add(fields.place_of(name), "is no list of levels");
            None
        }
    }
}

fn shown_template(template: &CallbackTemplate) -> Value {
    let mut shown = Map::new();
    shown.insert("TemplateId".to_owned(), json!(template.number.0));
    shown.insert("TemplateName".to_owned(), json!(template.name));
    shown.insert("Description".to_owned(), json!(template.description));
    for field in UrlField::ALL {
        let url = template.urls.get(&field).map_or("", String::as_str);
        shown.insert(field.name().to_owned(), json!(url));
    }
    shown.insert("CallbackKey".to_owned(), json!(template.key().expose()));
    shown.insert("RecordExceptionLevels".to_owned(), json!(template.levels));
    Value::Object(shown)
}

/// What is asked of the log.
struct LogPage {
    query: HistoryQuery,
    form: TimeForm,
    number: u64,
    size: u32,
    /// A kind that the box never tells.
    nothing: bool,
}

async fn describe_log(desk: &CloudDesk, params: &Params) -> Answer {
    let now = desk.clock.now().wall.unix;
    let page = params.read(Codes::Full, |fields, faults| read_log(fields, now, faults))?;
    let page = page.ok_or_else(|| Refusal::new("InvalidParameterValue", "nothing is asked"))?;
    let LogPage { query, form, number, size, nothing } = page;
    let found = desk.ring.catalog.call(move |state| state.notice_history(&query)).await;
    let found = found.map_err(|problem| {
        tracing::error!(%problem, "the log of notices cannot be read");
        Refusal::new("FailedOperation", "the box cannot read it")
    })?;
    let records = if nothing { Vec::new() } else { found.records };
    let total = if nothing { 0 } else { found.total };
    let shown = records.iter().map(|record| shown_record(record, form));
    Ok(Map::from_iter([
        ("DataInfoList".to_owned(), Value::Array(shown.collect())),
        ("PageNum".to_owned(), json!(number)),
        ("PageSize".to_owned(), json!(size)),
        ("TotalNum".to_owned(), json!(total)),
        ("TotalPage".to_owned(), json!(total.div_ceil(size))),
    ]))
}

fn read_log(fields: &mut Fields<'_>, now: UnixMillis, faults: &mut Faults) -> Option<LogPage> {
    let from = read_moment(fields, "StartTime", faults);
    let until = read_moment(fields, "EndTime", faults);
    let stream = fields.required_text("StreamName", STREAM_KEY_PART_BYTES_MAX, faults);
    let number = fields.required_integer("PageNum", 1..=i64::from(u32::MAX), faults);
    let size = fields.required_integer("PageSize", 1..=PAGE_MAX, faults);
    let event = fields.integer("EventType", 0..=i64::from(u16::MAX), faults);
    let result = fields.integer("ResultCode", 0..=i64::MAX, faults);
    let ((from, form), (until, _)) = (from?, until?);
    if until.0 < from.0 || until.0 - from.0 > LOG_SPAN_MS {
        faults.add(fields.place_of("EndTime"), "is not within a day after StartTime");
    }
    if from.0 < now.0.saturating_sub(HISTORY_MS) {
        faults.add(fields.place_of("StartTime"), "is more than 14 days ago");
    }
    let number = u64::try_from(number?).unwrap_or(1);
    let size = u32::try_from(size?).unwrap_or(1);
    let kind = event.map(|event| u16::try_from(event).ok().and_then(Event::from_number));
    let query = HistoryQuery {
        stream: stream?.to_owned(),
        from,
        // A time is told to the second.
        until: UnixMillis(until.0.saturating_add(999)),
        event: kind.flatten(),
        taken: result.map(|code| code == 0),
        skip: (number - 1) * u64::from(size),
        most: size,
    };
    Some(LogPage { query, form, number, size, nothing: kind == Some(None) })
}

/// A time in either form of the contract, which callers may have percent-encoded once more; a form
/// or query has turned a `+` into a blank already.
fn read_moment(
    fields: &mut Fields<'_>,
    name: &str,
    faults: &mut Faults,
) -> Option<(UnixMillis, TimeForm)> {
    let place = fields.place_of(name);
    let text = fields.required_text(name, TEXT_BYTES_MAX, faults)?;
    let plain = if text.contains('%') {
        percent_decode(&text.replace('+', " ")).unwrap_or_default()
    } else {
        text.to_owned()
    };
    let time = read_time(&plain);
    if time.is_none() {
        let what = "is no time like 2026-11-25 20:00:00 or 2026-11-25T12:00:00Z";
        faults.add(place, format!("{} {what}", quoted(text)));
    }
    time
}

fn shown_record(record: &NoticeRecord, form: TimeForm) -> Value {
    json!({
        "EventTime": form.show(record.at),
        "EventType": record.event_number,
        "Request": record.body,
        "Response": record.answer,
        "ResponseTime": form.show(record.answered),
        "ResultCode": u8::from(!record.taken),
        "StreamId": record.stream,
    })
}
