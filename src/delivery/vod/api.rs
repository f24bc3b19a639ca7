//! The platform's API: a signed POST an action. An answer is believed only in the API's own
//! envelope; a captive portal's page is none.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use serde_json::Value;
use url::{Position, Url};

use crate::delivery::error::{DeliveryError, clean};
use crate::delivery::http::{HttpClient, RequestBody, retry_after};
use crate::delivery::server_clock::ServerClock;
use crate::wire::cloud::received::Received;
use crate::wire::cloud::{Credentials, tc3};

const SERVICE: &str = "vod";
const VERSION: &str = "2018-07-17";
const JSON: &str = "application/json";
/// Longest code or message that is kept, in characters.
const WORDS_CHARS_MAX: usize = 200;
/// What the API says of a request that is signed too long before or after its own time.
const SIGNED_ELSEWHEN: &str = "AuthFailure.SignatureExpire";

/// The API, as one account calls it.
pub(super) struct VodApi {
    pub(super) http: Arc<HttpClient>,
    pub(super) endpoint: Url,
    pub(super) credentials: Credentials,
    pub(super) clock: Arc<ServerClock>,
}

impl VodApi {
    /// What an action answers. A refusal that is about our clock is tried once more by theirs.
    ///
    /// # Errors
    /// No connection, no answer of the API, or a refusal.
    pub(super) async fn call(
        &self,
        action: &'static str,
        parameters: &Value,
    ) -> Result<Value, DeliveryError> {
        match self.call_once(action, parameters).await {
            Err((_, true)) => self.call_once(action, parameters).await.map_err(|(error, _)| error),
            result => result.map_err(|(error, _)| error),
        }
    }

    /// One request; with an error, whether our clock was to blame and was corrected.
    async fn call_once(
        &self,
        action: &'static str,
        parameters: &Value,
    ) -> Result<Value, (DeliveryError, bool)> {
        let lost = |error| (error, false);
        let request = self.request(action, parameters.to_string()).map_err(lost)?;
        let answer = self.http.send(request).await.map_err(lost)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = self.http.text(answer).await.map_err(lost)?;
        let told: Option<Value> = serde_json::from_str(&text).ok();
        let response = told.and_then(|mut told| told.get_mut("Response").map(Value::take));
        let Some(response) = response.filter(Value::is_object) else {
            return Err(lost(if status.is_success() {
                DeliveryError::NoSense(format!("no answer of the API to {action}"))
            } else {
                refused(status.as_u16(), retry_after(&headers), &Value::Null)
            }));
        };
        match response.get("Error") {
            None if status.is_success() => Ok(response),
            error => {
                let error =
                    refused(status.as_u16(), retry_after(&headers), error.unwrap_or(&Value::Null));
                let adopted = is_code(&error, SIGNED_ELSEWHEN) && self.clock.adopt(&headers);
                Err((error, adopted))
            }
        }
    }

    fn request(&self, action: &str, body: String) -> Result<Request<RequestBody>, DeliveryError> {
        let wrong = || DeliveryError::Settings("endpoint and key make no request".to_owned());
        let host = &self.endpoint[Position::BeforeHost..Position::AfterPort];
        let timestamp_s = self.clock.now().0.div_euclid(1_000);
        let signed = Received {
            method: "POST",
            path: "/",
            query: "",
            headers: &[("content-type", JSON), ("host", host)],
            body: body.as_bytes(),
        };
        let authorization = tc3::authorization(
            &signed,
            &self.credentials,
            SERVICE,
            &tc3::SIGNED_HEADERS,
            timestamp_s,
        );
        Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.as_str())
            .header(HOST, host)
            .header(CONTENT_TYPE, JSON)
            .header("X-TC-Action", action)
            .header("X-TC-Version", VERSION)
            .header("X-TC-Timestamp", timestamp_s)
            .header(AUTHORIZATION, authorization.map_err(|_| wrong())?)
            .body(RequestBody::whole(body))
            .map_err(|_| wrong())
    }
}

/// The text of a member of an answer.
///
/// # Errors
/// There is none.
pub(super) fn text<'a>(answer: &'a Value, member: &str) -> Result<&'a str, DeliveryError> {
    answer[member]
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| DeliveryError::NoSense(format!("an answer without {member}")))
}

/// Whether an error is a refusal with this code.
pub(super) fn is_code(error: &DeliveryError, wanted: &str) -> bool {
    matches!(error, DeliveryError::Refused { code, .. } if code == wanted)
}

fn refused(status: u16, wait: Option<Duration>, error: &Value) -> DeliveryError {
    let words = |member: &str, or: &str| {
        clean(error[member].as_str().filter(|text| !text.is_empty()).unwrap_or(or), WORDS_CHARS_MAX)
    };
    DeliveryError::Refused {
        status,
        code: words("Code", "Unspecified"),
        message: words("Message", "no reason given"),
        wait,
    }
}
