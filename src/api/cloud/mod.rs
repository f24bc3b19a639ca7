//! The cloud's live-recording API: the actions, each from its parameters to its answer.

mod callbacks;
mod events;
mod explain;
pub mod http;
pub mod media;
mod mixes;
mod orders;
pub mod params;
mod push_keys;
mod push_lists;
mod rules;
pub mod streams;
mod tasks;
mod templates;
pub mod throttle;
mod uploads;
pub mod utc_time;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::api::cloud::params::Params;
use crate::api::cloud::streams::LiveStreams;
use crate::api::control::BoxKnowledge;
use crate::domain::secret::Secret;
use crate::domain::service::limits::ServiceLimits;
use crate::domain::service::{Changes, Refusal, Service};
use crate::platform::clock::Clock;
use crate::ring::catalog::service::ServiceInForce;
use crate::ring::handle::Ring;
use crate::wire::cloud::envelope::ActionRequest;

/// Every action that the box answers on `/`.
pub const ACTIONS: [&str; 44] = [
    "CancelCommonMixStream",
    "CreateCommonMixStream",
    "CreateLiveCallbackRule",
    "CreateLiveCallbackTemplate",
    "CreateLiveRecord",
    "CreateLiveRecordRule",
    "CreateLiveRecordTemplate",
    "CreateRecordTask",
    "DeleteLiveCallbackRule",
    "DeleteLiveCallbackTemplate",
    "DeleteLiveRecord",
    "DeleteLiveRecordRule",
    "DeleteLiveRecordTemplate",
    "DeleteMedia",
    "DeleteRecordTask",
    "DescribeCallbackRecordsList",
    "DescribeEvents",
    "DescribeLiveCallbackRules",
    "DescribeLiveCallbackTemplate",
    "DescribeLiveCallbackTemplates",
    "DescribeLivePushAuthKey",
    "DescribeLiveRecordRules",
    "DescribeLiveRecordTemplate",
    "DescribeLiveRecordTemplates",
    "DescribeLiveStreamEventList",
    "DescribeLiveStreamOnlineList",
    "DescribeLiveStreamPublishedList",
    "DescribeLiveStreamState",
    "DescribeMediaInfos",
    "DescribeRecordTask",
    "DescribeUploads",
    "DropLiveStream",
    "ExplainLiveStream",
    "ExportLiveStream",
    "ForbidLiveStream",
    "ModifyLiveCallbackTemplate",
    "ModifyLivePushAuthKey",
    "ModifyLiveRecordTemplate",
    "RestartLiveStream",
    "ResumeLiveStream",
    "SearchMedia",
    "StopLiveRecord",
    "StopRecordTask",
    "UploadMediaNow",
];
/// The one that is answered on `/v2/index.php`.
const OLD_ACTIONS: [&str; 1] = ["DescribeVodPlayInfo"];

/// The members of an answer, or why there is none.
pub type Answer = Result<Map<String, Value>, Refusal>;

/// What answers actions.
pub struct CloudDesk {
    /// The files, and where what callers set is kept.
    pub ring: Arc<Ring>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How much callers may ask for.
    pub limits: ServiceLimits,
    /// What callers have set, as it is in force.
    pub service: ServiceInForce,
    /// Where uploads stand.
    pub known: Arc<dyn BoxKnowledge>,
    /// The streams that are live.
    pub online: Arc<dyn LiveStreams>,
    /// Key of push domains that have none of their own; empty: none.
    pub push_key: Secret,
    /// What addresses of files are signed with, if they need to be.
    pub key: Option<Secret>,
}

impl CloudDesk {
    /// Answers an action, whoever asked and however.
    ///
    /// # Errors
    /// The code and words of the error answer.
    pub async fn act(&self, request: ActionRequest) -> Answer {
        let ActionRequest { action, parameters, host, .. } = request;
        // Asked of the list also where nobody counts, so that no family has an action beside it.
        let action = known(&ACTIONS, &action)?;
        let params = Params::new(parameters);
        if let Some(answer) = media::answer(self, action, &params, host.as_deref()).await {
            return answer;
        }
        macro_rules! ask {
            ($($family:ident),*) => {
                $(if let Some(answer) = $family::answer(self, action, &params).await {
                    return answer;
                })*
            };
        }
        ask!(templates, rules, tasks, streams, push_lists, push_keys, mixes, callbacks, explain);
        ask!(events, orders, uploads);
        Err(no_action(action))
    }

    /// Answers the retired VOD query: `code` and `message` among the members.
    ///
    /// # Errors
    /// The code and words of the error answer.
    pub async fn old_vod_query(&self, request: ActionRequest) -> Answer {
        known(&OLD_ACTIONS, &request.action)?;
        match media::describe_vod_play_info(self, &request).await {
            Value::Object(members) => Ok(members),
            _ => Err(Refusal::new("InternalError", "no answer was made")),
        }
    }

    /// Makes a change of what callers have set; durable and in force when this returns.
    ///
    /// # Errors
    /// The refusal, or `InternalError` if the flash fails.
    pub async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Service, &mut Changes) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let changed = self.ring.catalog.call(|state| state.change_service(change)).await;
        changed.unwrap_or_else(|problem| {
            tracing::error!(%problem, "what the API has set could not be stored");
            Err(Refusal::new("InternalError", "the box cannot store it"))
        })
    }
}

/// The action of this name among `actions`.
fn known(actions: &[&'static str], name: &str) -> Result<&'static str, Refusal> {
    actions.iter().find(|action| **action == name).copied().ok_or_else(|| no_action(name))
}

fn no_action(name: &str) -> Refusal {
    Refusal::new("InvalidAction", format!("there is no action {name}"))
}
