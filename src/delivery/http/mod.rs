//! An HTTP client that cannot be led astray or kept waiting: no redirects, no cookies, no
//! proxies; answers are capped and every wait has an end.
//!
//! Limits: a connection (name lookup included) must stand within `connect`; while a body goes
//! out or comes in, at least `window_bytes_min` must move in every `window`; after the body is
//! out, the answer's head must come within `answer`. Media goes out only after the server has
//! given leave (see `leave.rs`). Heads are capped at 64 KiB and 100 headers.

mod body;
mod connector;
mod leave;
mod retry_after;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, EXPECT, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

pub use self::body::{RangeRead, RequestBody, read_range};
use self::connector::{NetConnector, tls_config};
pub(in crate::delivery) use self::retry_after::retry_after;
use crate::delivery::error::DeliveryError;
use crate::platform::net::Net;

/// The largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The longest text that an answer may be, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// A connection that is not used for this long is closed.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// How long the client waits.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// For a connection.
    pub connect: Duration,
    /// For an answer after the whole request is out.
    pub answer: Duration,
    /// The window in which [`window_bytes_min`](Self::window_bytes_min) must move.
    pub window: Duration,
    /// Bytes that must move in a window, or all that is left.
    pub window_bytes_min: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            window: Duration::from_secs(60),
            window_bytes_min: 32 << 10,
        }
    }
}

/// The client. Connections are kept for the next request to the same host.
pub struct HttpClient {
    client: Client<HttpsConnector<NetConnector>, RequestBody>,
    limits: HttpLimits,
    /// Servers are asked before media is sent to them.
    asks: AtomicBool,
}

impl HttpClient {
    /// A client over `net`. `extra_roots` are trusted besides the public certificate authorities.
    ///
    /// # Errors
    /// An extra root is no certificate.
    pub fn new(
        net: Arc<dyn Net>,
        limits: HttpLimits,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, DeliveryError> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(extra_roots)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(NetConnector::new(net, limits.connect, limits.window));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(2)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Ok(HttpClient { client, limits, asks: AtomicBool::new(true) })
    }

    /// Sends a request and waits for the head of the answer; redirects are answers like others.
    ///
    /// # Errors
    /// No connection, or one that broke or is too slow.
    pub async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, DeliveryError> {
        self.send_within(request, self.limits.answer).await
    }

    /// As [`send`](Self::send), with another time for the answer.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_within(
        &self,
        mut request: Request<RequestBody>,
        answer: Duration,
    ) -> Result<Response<Incoming>, DeliveryError> {
        let len = request.body().len();
        let taken = request.body().taken();
        let headers = request.headers_mut();
        // hyper leaves it out for an empty body, and some stores then answer 411.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
        headers.insert(USER_AGENT, HeaderValue::from_static("edgerec"));
        let asks = self.asks.load(Ordering::Relaxed);
        if let Some(voice) = request.body_mut().asks_for_leave(asks) {
            request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    voice.go();
                }
            });
        }
        let response = tokio::select! {
            response = self.client.request(request) => {
                response.map_err(|error| DeliveryError::Unreachable(innermost(error)))?
            }
            error = self.watch(&taken, len, answer) => return Err(error),
        };
        if response.status() == StatusCode::EXPECTATION_FAILED {
            // Somebody on the way cannot do it; nothing is asked any more.
            self.asks.store(false, Ordering::Relaxed);
        }
        Ok(response)
    }

    /// Ends when the body goes out too slowly or the answer does not come.
    async fn watch(&self, taken: &AtomicU64, len: u64, answer: Duration) -> DeliveryError {
        let window = self.limits.window;
        loop {
            let before = taken.load(Ordering::Relaxed);
            if before >= len {
                tokio::time::sleep(answer).await;
                return DeliveryError::TooSlow { what: "no answer", waited: answer };
            }
            tokio::time::sleep(window).await;
            let after = taken.load(Ordering::Relaxed);
            if after < len && after - before < self.limits.window_bytes_min {
                return DeliveryError::TooSlow { what: "hardly takes any data", waited: window };
            }
        }
    }

    /// The whole text of an answer.
    ///
    /// # Errors
    /// The connection broke, is too slow, or the text is longer than 64 KiB.
    pub async fn text(&self, response: Response<Incoming>) -> Result<String, DeliveryError> {
        self.text_within(response, self.limits.answer).await
    }

    /// As [`text`](Self::text), with another time for the whole text.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub async fn text_within(
        &self,
        response: Response<Incoming>,
        limit: Duration,
    ) -> Result<String, DeliveryError> {
        let mut body = response.into_body();
        let read = async {
            let mut text = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| DeliveryError::Unreachable(innermost(error)))?;
                text.extend_from_slice(frame.data_ref().map_or(&[], |bytes| &bytes[..]));
                if text.len() > TEXT_BYTES_MAX {
                    let what = format!("longer than {TEXT_BYTES_MAX} bytes");
                    return Err(DeliveryError::NoSense(what));
                }
            }
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        let too_slow = DeliveryError::TooSlow { what: "no end of the answer", waited: limit };
        timeout(limit, read).await.unwrap_or(Err(too_slow))
    }

    /// Hands the body of an answer to `take`, piece by piece.
    ///
    /// # Errors
    /// The connection broke or is too slow, or `take` refuses.
    pub async fn drain(
        &self,
        response: Response<Incoming>,
        mut take: impl FnMut(&[u8]) -> Result<(), DeliveryError>,
    ) -> Result<(), DeliveryError> {
        let window = self.limits.window;
        let too_slow = || DeliveryError::TooSlow { what: "hardly gives any data", waited: window };
        let mut body = response.into_body();
        let mut in_window: u64 = 0;
        let mut window_end = tokio::time::Instant::now() + window;
        loop {
            // A frame that takes longer than a window is too slow by itself.
            let frame = match timeout(window, body.frame()).await {
                Err(_) => return Err(too_slow()),
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(DeliveryError::Unreachable(innermost(error))),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Some(bytes) = frame.data_ref() {
                in_window += bytes.len() as u64;
                take(bytes)?;
            }
            let now = tokio::time::Instant::now();
            if now >= window_end {
                if in_window < self.limits.window_bytes_min {
                    return Err(too_slow());
                }
                (in_window, window_end) = (0, now + window);
            }
        }
    }
}

/// The first cause of an error: the layers above it only say that there is one.
fn innermost(
    error: impl std::error::Error + Send + Sync + 'static,
) -> Box<dyn std::error::Error + Send + Sync> {
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    // Causes are borrowed from the error; what is kept of them is their text.
    let text = match cause.downcast_ref::<std::io::Error>() {
        Some(io) if io.raw_os_error().is_some() => io.kind().to_string(),
        _ => cause.to_string(),
    };
    text.into()
}
