//! One attempt to tell a notice.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use rustls::pki_types::CertificateDer;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::delivery::error::{DeliveryError, clean};
use crate::delivery::http::{HttpClient, HttpLimits, RequestBody};
use crate::platform::clock::Clock;
use crate::platform::net::Net;
use crate::ring::catalog::notices::WaitingNotice;
use crate::wire::cloud::callback_sign::CallbackSign;

/// Characters of an answer that are kept.
const ANSWER_CHARS_MAX: usize = 200;
/// The text after the head of an answer must come within this.
const ANSWER_TEXT_WITHIN: Duration = Duration::from_secs(2);

/// What an attempt gave; the text is fit for logs.
pub(super) enum Outcome {
    /// Status 200; what the receiver said.
    Taken(String),
    /// Another status.
    Refused(String),
    /// No answer in time.
    NoAnswer(String),
}

/// Makes attempts.
pub(super) struct Teller {
    http: HttpClient,
    clock: Arc<dyn Clock>,
    time_limit: Duration,
}

impl Teller {
    pub(super) fn new(
        net: Arc<dyn Net>,
        clock: Arc<dyn Clock>,
        time_limit: Duration,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, DeliveryError> {
        // The limit of the whole attempt is the one that counts.
        let limits =
            HttpLimits { connect: time_limit, answer: time_limit, ..HttpLimits::default() };
        let http = HttpClient::new(net, limits, extra_roots)?;
        Ok(Teller { http, clock, time_limit })
    }

    /// Tells a notice once.
    pub(super) async fn tell(&self, notice: &WaitingNotice) -> Outcome {
        let request = Request::builder()
            .method(Method::POST)
            .uri(notice.url.without_credentials().as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(RequestBody::whole(self.signed(notice)));
        let request = match request {
            Ok(request) => request,
            Err(problem) => return Outcome::NoAnswer(problem.to_string()),
        };
        let answer = match timeout(self.time_limit, self.http.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(problem)) => return Outcome::NoAnswer(problem.explain()),
            Err(_) => return Outcome::NoAnswer(format!("no answer within {:?}", self.time_limit)),
        };
        let status = answer.status();
        // The status is the news; a text that cannot be read takes nothing from it.
        let text = self.http.text_within(answer, ANSWER_TEXT_WITHIN).await.unwrap_or_default();
        let text = clean(&text, ANSWER_CHARS_MAX);
        if status == StatusCode::OK {
            return Outcome::Taken(text);
        }
        Outcome::Refused(format!("status {}: {text}", status.as_u16()))
    }

    /// The body with `t` and `sign` as of now, if there is a key.
    fn signed(&self, notice: &WaitingNotice) -> String {
        let Some(sign) = CallbackSign::new(&notice.sign_key, self.clock.now().wall.unix) else {
            return notice.body.clone();
        };
        let Ok(mut body) = serde_json::from_str::<Map<String, Value>>(&notice.body) else {
            return notice.body.clone();
        };
        body.insert("t".to_owned(), sign.t.into());
        body.insert("sign".to_owned(), sign.sign.into());
        Value::Object(body).to_string()
    }
}
