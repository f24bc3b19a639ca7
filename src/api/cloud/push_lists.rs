//! The pushes that were: DescribeLiveStreamPublishedList, DescribeLiveStreamEventList.
//!
//! A push is listed when it was live at some time of the window. One that is still live has an
//! empty StreamEndTime and a Duration up to now. Pushes that were refused are not kept, so that
//! IsFilter, which leaves out those that failed to begin, changes nothing. An absent AppName stands
//! for all.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::streams::Page;
use crate::api::cloud::{Answer, CloudDesk, utc_time};
use crate::domain::document::Fields;
use crate::domain::faults::Faults;
use crate::domain::limits::STREAM_KEY_PART_BYTES_MAX;
use crate::domain::service::Refusal;
use crate::domain::time::{ClockQuality, UnixMillis};
use crate::ring::catalog::pushes::{PushFilter, PushRecord};

/// The longest window: a month.
const SPAN_MAX_MS: i64 = 31 * 86_400_000;
/// How long ago it may begin: two months.
const AGE_MAX_MS: i64 = 62 * 86_400_000;
/// Rows that can be reached.
const ROWS_MAX: u64 = 10_000;

/// Answers an action of this family.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    match action {
        "DescribeLiveStreamPublishedList" => Some(published(desk, params).await),
        "DescribeLiveStreamEventList" => Some(events(desk, params).await),
        _ => None,
    }
}

async fn published(desk: &CloudDesk, params: &Params) -> Answer {
    let now = desk.clock.now().wall;
    let (filter, page) = params.read(Codes::Full, |fields, faults| {
        let mut filter = window(fields, faults);
        let domain = fields.required_text("DomainName", STREAM_KEY_PART_BYTES_MAX, faults);
        filter.domain = given(domain).map(|domain| domain.to_lowercase());
        filter.app = given(fields.text("AppName", STREAM_KEY_PART_BYTES_MAX, faults));
        filter.name_part = given(fields.text("StreamName", STREAM_KEY_PART_BYTES_MAX, faults));
        (filter, Page::read(fields, 10..=100, faults))
    })?;
    check_age(&filter, now.unix, now.quality)?;
    list(desk, "PublishInfo", filter, page).await
}

async fn events(desk: &CloudDesk, params: &Params) -> Answer {
    let now = desk.clock.now().wall;
    let (filter, page) = params.read(Codes::Full, |fields, faults| {
        let mut filter = window(fields, faults);
        let mut part = |name| given(fields.text(name, STREAM_KEY_PART_BYTES_MAX, faults));
        filter.domain = part("DomainName").map(|domain| domain.to_lowercase());
        filter.app = part("AppName");
        let name = part("StreamName");
        let mut flag = |name| fields.integer(name, 0..=1, faults) == Some(1);
        let (_, strict, ascending) = (flag("IsFilter"), flag("IsStrict"), flag("IsAsc"));
        filter.ascending = ascending;
        if strict {
            filter.name = name;
        } else {
            filter.name_part = name;
        }
        (filter, Page::read(fields, 1..=100, faults))
    })?;
    check_age(&filter, now.unix, now.quality)?;
    list(desk, "EventList", filter, page).await
}

fn given(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The time of a list.
fn window(fields: &mut Fields<'_>, faults: &mut Faults) -> PushFilter {
    let from = utc_time::required_field(fields, "StartTime", faults);
    let until = utc_time::required_field(fields, "EndTime", faults);
    if let (Some(from), Some(until)) = (from, until) {
        if until <= from {
            faults.add("EndTime", "is not after StartTime");
        } else if until.0 - from.0 > SPAN_MAX_MS {
            faults.add("EndTime", "is more than a month after StartTime");
        }
    }
    let ms = |time: Option<UnixMillis>| time.map_or(0, |time| time.0);
    PushFilter {
        from_ms: ms(from),
        until_ms: ms(until),
        domain: None,
        app: None,
        name_part: None,
        name: None,
        ascending: false,
    }
}

/// A clock that was never set cannot tell how old the window is.
fn check_age(filter: &PushFilter, now: UnixMillis, clock: ClockQuality) -> Result<(), Refusal> {
    if clock == ClockQuality::Trusted && filter.from_ms < now.0.saturating_sub(AGE_MAX_MS) {
        let what = "StartTime: is more than two months ago";
        return Err(Refusal::new("InvalidParameterValue", what));
    }
    Ok(())
}

async fn list(desk: &CloudDesk, name: &str, filter: PushFilter, page: Page) -> Answer {
    let offset = page.offset();
    let limit = page.size.min(ROWS_MAX.saturating_sub(offset));
    let limit = u32::try_from(limit).expect("at most a page");
    let read = desk.ring.catalog.call(move |state| state.pushes(&filter, offset, limit)).await;
    let (rows, total) = read.map_err(|problem| {
        tracing::error!(%problem, "the pushes cannot be listed");
        Refusal::new("InternalError", "the box cannot read its list")
    })?;
    let now_ms = desk.clock.now().wall.unix.0;
    let rows = rows.iter().map(|row| describe(row, now_ms)).collect();
    let mut members = page.members(total);
    members.insert(name.to_owned(), Value::Array(rows));
    Ok(members)
}

fn describe(push: &PushRecord, now_ms: i64) -> Value {
    let end = &push.end;
    let last_ms = push.ended_ms.unwrap_or(now_ms);
    let resolution = match (end.width, end.height) {
        (0, _) | (_, 0) => String::new(),
        (width, height) => format!("{width}x{height}"),
    };
    json!({
        "StreamName": push.key.stream(),
        "AppName": push.key.app(),
        "DomainName": push.key.domain(),
        "StreamStartTime": utc_time::show(push.began_ms),
        "StreamEndTime": push.ended_ms.map(utc_time::show).unwrap_or_default(),
        "StopReason": end.cause,
        "Duration": last_ms.saturating_sub(push.began_ms).max(0) / 1_000,
        "ClientIp": ip(&push.peer),
        "Resolution": resolution,
    })
}

/// The address without its port.
fn ip(peer: &str) -> String {
    match peer.parse::<SocketAddr>() {
        Ok(address) => address.ip().to_string(),
        Err(_) => peer.rsplit_once(':').map_or(peer, |(host, _)| host).to_owned(),
    }
}
