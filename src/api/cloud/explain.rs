//! Why a stream is recorded or not: ExplainLiveStream, an action of the box that the cloud does not
//! have. `Time` asks about another time than now; the answer has the members of `edgerec explain`.

use serde_json::{Map, Value};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::streams::key;
use crate::api::cloud::{Answer, CloudDesk, utc_time};
use crate::api::explain::explain;
use crate::domain::service::Refusal;

/// Answers the action.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    if action != "ExplainLiveStream" {
        return None;
    }
    Some(explain_stream(desk, params).await)
}

async fn explain_stream(desk: &CloudDesk, params: &Params) -> Answer {
    let (key, at) = params.read(Codes::Full, |fields, faults| {
        (key(fields, faults), utc_time::field(fields, "Time", faults))
    })?;
    let Some(key) = key else { return Ok(Map::new()) };
    let presence = desk.online.decision(&key).into();
    let call = desk.ring.catalog.call(move |state| explain(state, presence, &key, at));
    let report = call.await.map_err(|problem| {
        tracing::error!(%problem, "nothing can be explained");
        Refusal::new("InternalError", "the box cannot look it up")
    })?;
    let members = [
        ("Stream", report.stream.into()),
        ("Decision", report.decision.into()),
        ("Rule", report.rule.into()),
        ("Template", report.template.into()),
        ("Layer", report.layer.into()),
        ("Revision", report.revision.into()),
        ("Tasks", report.tasks.into()),
        ("Stale", report.stale.into()),
        ("Reason", report.reason.into()),
    ];
    Ok(members.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect())
}
