//! The API over HTTP: on `/` the actions, on `/v2/index.php` the retired VOD query.
//!
//! The order for a request: its body is read, up to a limit; with a secret its signature is proved
//! over the bytes as they came; then it is read, its version looked at and its action counted; then
//! it is answered. Every answer has the status 200, exactly the content type `application/json`,
//! and a RequestId.
//!
//! A body that its client leaves unsigned (`UNSIGNED-PAYLOAD`) is taken, as the cloud takes it:
//! only who asks for that gives up the protection, as the signature says that it was left out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use crate::api::cloud::throttle::Throttle;
use crate::api::cloud::{ACTIONS, Answer, CloudDesk, OLD_ACTIONS, known};
use crate::domain::log_pace::LogPace;
use crate::domain::service::Refusal;
use crate::domain::time::BootTime;
use crate::platform::random::random_bytes;
use crate::wire::cloud::auth_failure::AuthFailure;
use crate::wire::cloud::envelope::{self, ActionRequest, EnvelopeError};
use crate::wire::cloud::flat::FlatParameters;
use crate::wire::cloud::nonce_table::NonceTable;
use crate::wire::cloud::received::{Received, SigningStyle};
use crate::wire::cloud::tc3::{self, Tc3Policy};
use crate::wire::cloud::{AgeCheck, BODY_BYTES_MAX, Credentials, signature_v1};

/// The services, each with the version of its API.
const VERSIONS: [(&str, &str); 2] = [("live", "2018-08-01"), ("vod", "2018-07-17")];
const POLICY: Tc3Policy<'_> = Tc3Policy { services: &["live", "vod"], unsigned_payload: true };
/// A client may take this long for its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a body that is too long so many bytes are read and thrown away, so that its sender reads why.
const DISCARDED_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;
/// A longer body waits for its turn: strangers must not fill the memory.
const SMALL_BODY_BYTES: u64 = 16 << 10;
/// Long bodies at the same time.
const LONG_BODIES_MAX: usize = 4;

/// Where requests come in.
pub struct Door {
    desk: Arc<CloudDesk>,
    /// Empty: nobody is asked for a signature.
    keys: Vec<Credentials>,
    nonces: Mutex<NonceTable>,
    throttle: Mutex<Throttle>,
    long_bodies: Semaphore,
    /// The log of signatures whose age nobody looked at, and of those that were refused.
    skipped: Mutex<LogPace>,
    refused: Mutex<LogPace>,
}

/// A request that was proved and read.
struct Call {
    request: ActionRequest,
    /// Of which service, if the signature says so.
    service: Option<String>,
}

impl Door {
    /// Lets in whoever has the key; without one everybody (the listener then serves this machine
    /// only).
    #[must_use]
    pub fn new(desk: Arc<CloudDesk>, key: Option<Credentials>) -> Arc<Self> {
        Arc::new(Door {
            desk,
            keys: key.into_iter().collect(),
            nonces: Mutex::default(),
            throttle: Mutex::default(),
            long_bodies: Semaphore::new(LONG_BODIES_MAX),
            skipped: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// The routes `/` and `/v2/index.php`.
    pub fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(act).post(act))
            .route("/v2/index.php", get(old_vod).post(old_vod))
            .with_state(self)
    }

    /// Proves and reads a request; `None` if it is no call of the API.
    fn read(&self, request: &Received<'_>) -> Result<Option<Call>, Refusal> {
        if !may_be_call(request)? {
            return Ok(None);
        }
        let style = request.style().map_err(unreadable)?;
        if style == SigningStyle::Unsigned
            && ActionRequest::read(request) == Err(EnvelopeError::NoAction)
        {
            return Ok(None);
        }
        let service = if self.keys.is_empty() { None } else { self.prove(request, style)? };
        let request = ActionRequest::read(request).map_err(unreadable)?;
        Ok(Some(Call { request, service }))
    }

    /// Proves the signature; tells for which service it is, if it says so.
    fn prove(
        &self,
        request: &Received<'_>,
        style: SigningStyle,
    ) -> Result<Option<String>, Refusal> {
        if has_token(request).map_err(unreadable)? {
            let what = "the box knows no temporary keys, so no Token";
            return Err(Refusal::new("AuthFailure.TokenFailure", what));
        }
        let now = self.desk.clock.now();
        let proved = match style {
            SigningStyle::Tc3 => tc3::verify(request, &self.keys, POLICY, now.wall)
                .map(|proved| (proved.age, Some(proved.service.to_owned()))),
            SigningStyle::V1 => {
                let mut nonces = lock(&self.nonces);
                signature_v1::verify(request, &self.keys, &mut nonces, now)
                    .map(|proved| (proved.age, None))
            }
            SigningStyle::Unsigned => {
                Err(AuthFailure::InvalidAuthorization("the request is not signed"))
            }
        };
        match proved {
            Ok((age, service)) => {
                self.log_age(age, now.boot);
                Ok(service)
            }
            Err(failure) => {
                if let Some(unlogged) = lock(&self.refused).take(now.boot) {
                    warn!(why = %failure, unlogged, "a call of the API is refused");
                }
                Err(Refusal::new(failure.code(), failure.to_string()))
            }
        }
    }

    fn log_age(&self, age: AgeCheck, now: BootTime) {
        if age == AgeCheck::Skipped
            && let Some(unlogged) = lock(&self.skipped).take(now)
        {
            warn!(unlogged, "calls of the API are let in whatever their age: the clock is not set");
        }
    }

    /// Answers a call.
    async fn answer(&self, call: Call) -> Answer {
        check_version(&call)?;
        self.admit(&ACTIONS, &call.request.action)?;
        self.desk.act(call.request).await
    }

    /// Counts a request of one of these actions.
    fn admit(&self, actions: &[&'static str], name: &str) -> Result<(), Refusal> {
        let action = known(actions, name)?;
        let now = self.desk.clock.now().boot;
        lock(&self.throttle).admit(action, &self.desk.limits, now)
    }

    /// The body, if it is not too long and comes in time.
    async fn read_body(&self, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
        let long = match headers.get(header::CONTENT_LENGTH) {
            Some(len) => len.to_str().ok().and_then(|len| len.parse::<u64>().ok()),
            // In chunks: it may become long.
            None if headers.contains_key(header::TRANSFER_ENCODING) => None,
            None => Some(0),
        };
        let long = long.is_none_or(|len| len > SMALL_BODY_BYTES);
        let read = async {
            let _turn = if long { self.long_bodies.acquire().await.ok() } else { None };
            gather(body).await
        };
        let late = || Refusal::new("InvalidParameter", "the body did not come in time");
        timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Reads a body to its end.
async fn gather(mut body: Body) -> Result<Vec<u8>, Refusal> {
    let (mut bytes, mut len) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::new("InvalidParameter", "the body breaks off"))?;
        let Some(data) = frame.data_ref() else { continue };
        len += data.len();
        if len <= BODY_BYTES_MAX {
            bytes.extend_from_slice(data);
        } else if len > DISCARDED_BYTES_MAX {
            break;
        } else {
            bytes = Vec::new();
        }
    }
    if len > BODY_BYTES_MAX { Err(unreadable(EnvelopeError::TooLong)) } else { Ok(bytes) }
}

/// Whether a request can be a call at all: a GET that names no action is somebody with a browser.
fn may_be_call(request: &Received<'_>) -> Result<bool, Refusal> {
    let named = request.header("x-tc-action").map_err(unreadable)?.is_some();
    let in_query = request.query.split('&').any(|pair| pair.starts_with("Action="));
    Ok(named || in_query || request.method == "POST")
}

/// Whether a request shows a token of temporary keys.
fn has_token(request: &Received<'_>) -> Result<bool, EnvelopeError> {
    let given = |token: Option<&str>| token.is_some_and(|token| !token.is_empty());
    // With TC3 a parameter of that name would be the action's.
    let in_parameters =
        request.style()? != SigningStyle::Tc3 && given(FlatParameters::read(request)?.get("Token"));
    Ok(given(request.header("x-tc-token")?) || in_parameters)
}

/// The version belongs to the service that the signature is for. Only the older signature, and who
/// is not asked for one, may leave it out.
fn check_version(call: &Call) -> Result<(), Refusal> {
    let Some(version) = call.request.version.as_deref() else {
        let absent = || Err(Refusal::new("MissingParameter", "X-TC-Version: is missing"));
        return if call.service.is_some() { absent() } else { Ok(()) };
    };
    let service = call.service.as_deref();
    let known =
        VERSIONS.iter().any(|(of, known)| *known == version && service.is_none_or(|s| s == *of));
    if known {
        return Ok(());
    }
    let versions = VERSIONS.map(|(service, version)| format!("{service} has {version}")).join(", ");
    Err(Refusal::new("NoSuchVersion", format!("there is no version {version}: {versions}")))
}

fn unreadable(error: EnvelopeError) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}

/// Reads, proves and answers a request; `None` if it is none of the API's.
async fn take<F: Future<Output = Answer>>(
    door: &Door,
    request: Request,
    answer: impl FnOnce(Call) -> F,
) -> Option<Answer> {
    let (parts, body) = request.into_parts();
    let body = match door.read_body(&parts.headers, body).await {
        Ok(body) => body,
        Err(refusal) => return Some(Err(refusal)),
    };
    let headers: Vec<(&str, &str)> = parts
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let received = Received {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &headers,
        body: &body,
    };
    match door.read(&received) {
        Ok(Some(call)) => Some(answer(call).await),
        Ok(None) => None,
        Err(refusal) => Some(Err(refusal)),
    }
}

async fn act(State(door): State<Arc<Door>>, request: Request) -> Response {
    let Some(answer) = take(&door, request, |call| door.answer(call)).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let id = envelope::request_id(random_bytes());
    json_response(match answer {
        Ok(members) => envelope::answer(members, &id),
        Err(refusal) => envelope::error_answer(refusal.code, &refusal.message, &id),
    })
}

/// The retired query answers without an envelope, with numbers for codes.
async fn old_vod(State(door): State<Arc<Door>>, request: Request) -> Response {
    let answer = take(&door, request, async |call| {
        door.admit(&OLD_ACTIONS, &call.request.action)?;
        door.desk.old_vod_query(call.request).await
    });
    let Some(answer) = answer.await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut members = Map::new();
    match answer {
        Ok(found) => members = found,
        Err(refusal) => {
            members.insert("code".to_owned(), json!(old_code(refusal.code)));
            members.insert("message".to_owned(), json!(refusal.to_string()));
        }
    }
    json_response(Value::Object(members).to_string().into_bytes())
}

/// The number that the retired API had for a code.
fn old_code(code: &str) -> u32 {
    match code.split('.').next().unwrap_or_default() {
        "AuthFailure" => 4_100,
        "RequestLimitExceeded" => 4_400,
        "InternalError" => 6_000,
        _ => 4_000,
    }
}

fn json_response(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    let kind = HeaderValue::from_static(envelope::ANSWER_CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
