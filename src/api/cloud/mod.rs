//! The cloud's live-recording API: the actions, each from its parameters to its answer.

pub mod params;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::api::cloud::params::Params;
use crate::domain::service::limits::ServiceLimits;
use crate::domain::service::{Changes, Refusal, Service};
use crate::platform::clock::Clock;
use crate::ring::handle::Ring;
use crate::wire::cloud::envelope::ActionRequest;

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
}

impl CloudDesk {
    /// Answers an action, whoever asked and however.
    ///
    /// # Errors
    /// The code and words of the error answer.
    pub async fn act(&self, request: ActionRequest) -> Answer {
        let ActionRequest { action, parameters, .. } = request;
        let params = Params::new(parameters);
        let _ = params;
        Err(Refusal::new("InvalidAction", format!("there is no action {action}")))
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
