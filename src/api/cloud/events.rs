//! What happened: DescribeEvents, an action of the box that the cloud does not have. It lists the
//! outbox from a number on, also what was told already, as long as there is room to keep it. A
//! caller goes on with `NextSeq`; another `Outbox` than before counts its numbers anew.

use serde_json::{Map, Value, json};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::{Answer, CloudDesk, utc_time};
use crate::domain::notice::{NoticeSeq, event_word};
use crate::domain::service::Refusal;
use crate::ring::catalog::notices::EventRecord;

/// Events of one answer.
const PAGE_MAX: i64 = 100;

/// Answers the action.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    if action != "DescribeEvents" {
        return None;
    }
    Some(describe(desk, params).await)
}

async fn describe(desk: &CloudDesk, params: &Params) -> Answer {
    let (from, most) = params.read(Codes::Full, |fields, faults| {
        let from = fields.integer("FromSeq", 0..=i64::MAX, faults);
        (from.unwrap_or(0), fields.integer("Limit", 1..=PAGE_MAX, faults).unwrap_or(PAGE_MAX))
    })?;
    let from = NoticeSeq(u64::try_from(from).unwrap_or(0));
    let most = u32::try_from(most).unwrap_or(1);
    let read = desk.ring.catalog.call(move |state| {
        let events = state.events_from(from, most)?;
        Ok((state.outbox_id()?, events))
    });
    let (outbox, events) = read.await.map_err(|problem| {
        tracing::error!(%problem, "the outbox cannot be read");
        Refusal::new("InternalError", "the box cannot look it up")
    })?;
    let next = events.last().map_or(from.0, |last| last.seq.0 + 1);
    Ok(Map::from_iter([
        ("Outbox".to_owned(), json!(outbox)),
        ("Events".to_owned(), events.iter().map(shown).collect()),
        ("NextSeq".to_owned(), json!(next)),
    ]))
}

fn shown(event: &EventRecord) -> Value {
    json!({
        "Seq": event.seq.0,
        "Kind": event_word(event.number),
        "Time": utc_time::show(event.at.0),
        "Receiver": event.receiver.word(),
        "Fleet": event.fleet.word(),
        "Event": serde_json::from_str::<Value>(&event.body).unwrap_or_default(),
    })
}
