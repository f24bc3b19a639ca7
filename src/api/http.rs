//! The HTTP interface: who may connect, and whether the box is well (`/healthz`). What else it
//! serves comes as routes. Who takes nothing of an answer for a while is given up.
//!
//! Without a secret it is for programs of this machine alone: a request whose `Host` is no
//! loopback name (DNS rebinding), or whose `Origin` is another one (a web page), is refused.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

use crate::api::impatient::Impatient;
use crate::platform::net::{Listener, Net};

/// A client may take this long for the head of a request; also the longest idle time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client may take nothing of its answer for this long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Connections at the same time; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// A listener out of descriptors waits this long before it accepts again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An error answer in JSON that nobody keeps; told when to come back, if that helps.
pub fn refusal(status: StatusCode, why: &str, retry_after_s: Option<u16>) -> Response {
    let mut response = (status, Json(json!({"error": why}))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_after_s {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Programs of this machine; no secret is configured.
    Loopback,
    /// Whoever knows the secret.
    Signed,
}

/// A bound listener.
pub struct HttpServer {
    listener: Box<dyn Listener>,
    access: Access,
}

impl HttpServer {
    /// Binds `addr`; nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(net: &dyn Net, addr: SocketAddr, access: Access) -> io::Result<Self> {
        Ok(HttpServer { listener: net.listen(addr).await?, access })
    }

    /// The address as bound.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers with `routes` until `shutdown`; connections are tasks of `tasks`.
    pub async fn run(self, routes: Router, tasks: TaskTracker, shutdown: CancellationToken) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let router = router(self.access, routes);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    error!(%error, "no HTTP connections can be accepted");
                    tokio::select! {
                        () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                        () = shutdown.cancelled() => return,
                    }
                }
            };
            let Ok(permit) = connections.clone().try_acquire_owned() else {
                debug!("closed: too many HTTP connections");
                continue;
            };
            let service = TowerToHyperService::new(router.clone());
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(Impatient::new(stream, WRITE_TIMEOUT)), service);
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                let _permit = permit;
                tokio::select! {
                    ended = connection => {
                        if let Err(error) = ended {
                            debug!(%error, "an HTTP connection broke");
                        }
                    }
                    () = shutdown.cancelled() => {}
                }
            });
        }
    }
}

fn router(access: Access, routes: Router) -> Router {
    routes
        .route("/healthz", get(healthz))
        .layer(middleware::from_fn_with_state(access, refuse_strangers))
}

async fn healthz() -> Json<serde_json::Value> {
    Json(json!({"status": "ok"}))
}

async fn refuse_strangers(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access == Access::Loopback
        && let Err(why) = check_loopback(request.uri().authority(), request.headers())
    {
        return (StatusCode::FORBIDDEN, Json(json!({"error": why}))).into_response();
    }
    next.run(request).await
}

/// Whether a request was meant for this machine by a program of this machine.
fn check_loopback(target: Option<&Authority>, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err("one Host is needed");
    };
    let host = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    let host = host.filter(is_loopback).ok_or("the Host is not this machine")?;
    if target.is_some_and(|target| *target != host) {
        return Err("the Host is not the target");
    }
    let own_origin = format!("http://{host}");
    let foreign = headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| !origin.as_bytes().eq_ignore_ascii_case(own_origin.as_bytes()));
    if foreign { Err("the Origin is foreign") } else { Ok(()) }
}

fn is_loopback(host: &Authority) -> bool {
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let own = name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    own && !host.as_str().contains('@')
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::platform::net::SystemNet;

    async fn served(access: Access) -> (SocketAddr, CancellationToken) {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = HttpServer::bind(&SystemNet, addr, access).await.expect("bound");
        let (bound, shutdown) = (server.local_addr().expect("bound"), CancellationToken::new());
        tokio::spawn(server.run(Router::new(), TaskTracker::new(), shutdown.clone()));
        (bound, shutdown)
    }

    async fn ask(addr: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("connects");
        let request = format!("{head}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn only_this_machine_is_answered_without_a_secret() {
        let (addr, shutdown) = served(Access::Loopback).await;
        let health = |rest: String| async move {
            ask(addr, &format!("GET /healthz HTTP/1.1\r\n{rest}")).await
        };
        let well = health(format!("Host: {addr}\r\n")).await;
        assert!(well.starts_with("HTTP/1.1 200") && well.ends_with(r#"{"status":"ok"}"#), "{well}");
        for good in ["localhost", "[::1]:80", "127.0.0.1", "LocalHost:8080"] {
            let answer = health(format!("Host: {good}\r\nOrigin: http://{good}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{good}: {answer}");
        }
        for bad in [
            "",
            "Host: evil.example\r\n",
            "Host: localhost.evil.example\r\n",
            "Host: localhost@evil.example\r\n",
            "Host: 10.0.0.1\r\n",
            "Host: localhost\r\nHost: evil.example\r\n",
            "Host: localhost\r\nOrigin: http://evil.example\r\n",
            "Host: localhost\r\nOrigin: null\r\n",
            "Host: localhost\r\nOrigin: http://localhost:1\r\n",
        ] {
            let answer = health(bad.to_owned()).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{bad}: {answer}");
        }
        let other = ask(addr, "GET /etc HTTP/1.1\r\nHost: localhost\r\n").await;
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
        shutdown.cancel();
    }

    #[tokio::test]
    async fn with_a_secret_the_box_may_be_reached_by_name() {
        let (addr, shutdown) = served(Access::Signed).await;
        let answer = ask(addr, "GET /healthz HTTP/1.1\r\nHost: box.example\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        shutdown.cancel();
    }

    #[tokio::test]
    async fn a_head_without_end_is_given_up() {
        let (addr, shutdown) = served(Access::Loopback).await;
        let mut stream = TcpStream::connect(addr).await.expect("connects");
        let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(40_000));
        // The box may close before it has read everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        shutdown.cancel();
    }
}
