//! Live streams over HTTP: `/live/DOMAIN/APP/STREAM.mp4`, each part percent-encoded.
//!
//! The answer is a fragmented MP4 from the stream's next key fragment on, at most a fragment (one
//! second) behind what arrives, with the source's own times. It ends when the stream ends, or when
//! the codec parameters change, as MP4 cannot go on then: who asks again gets the new ones. A
//! client that falls [`PIECES_HELD_MAX`](crate::ring::live_hub::PIECES_HELD_MAX) fragments behind
//! is cut off, so that it can tell that from an end. At most [`VIEWERS_MAX`] watch at the same
//! time; one more is told to come back. Only streams that are recorded or kept can be watched.
//!
//! With a SecretKey every request needs a [signed URL](crate::api::signed_url).

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::cross_origin::readable_by_pages;
use crate::api::http::refusal;
use crate::api::signed_url::{self, SignatureError};
use crate::domain::secret::Secret;
use crate::domain::stream_key::StreamKey;
use crate::platform::clock::Clock;
use crate::ring::live_hub::{LiveHub, LivePiece, LiveViewer, TooSlow};

/// Viewers of all streams at the same time.
pub const VIEWERS_MAX: usize = 16;
/// Who finds all places taken is asked to come back after this many seconds.
const RETRY_AFTER_S: u16 = 5;

/// Where live media comes from.
pub trait LiveMedia: Send + Sync {
    /// Watches a stream from its next key fragment on; `None` if it is not live.
    fn watch(&self, key: &StreamKey) -> Option<LiveViewer>;
}

impl LiveMedia for LiveHub {
    fn watch(&self, key: &StreamKey) -> Option<LiveViewer> {
        LiveHub::watch(self, key)
    }
}

/// What serves live streams.
pub struct LiveDesk {
    media: Arc<dyn LiveMedia>,
    clock: Arc<dyn Clock>,
    key: Option<Secret>,
    places: Arc<Semaphore>,
}

/// Why a stream is not given.
enum Fault {
    /// The signature is missing or does not hold.
    Unsigned(SignatureError),
    /// There is no such stream now, or it is not recorded or kept.
    NotLive,
    /// Too many are watching.
    Busy,
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (status, why) = match &self {
            Fault::Unsigned(error) => (StatusCode::FORBIDDEN, error.to_string()),
            Fault::NotLive => (StatusCode::NOT_FOUND, "the stream is not live".to_owned()),
            Fault::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too many viewers".to_owned()),
        };
        refusal(status, &why, matches!(self, Fault::Busy).then_some(RETRY_AFTER_S))
    }
}

impl LiveDesk {
    /// Serves streams of `media`; with a key only to signed URLs.
    #[must_use]
    pub fn new(media: Arc<dyn LiveMedia>, clock: Arc<dyn Clock>, key: Option<Secret>) -> Arc<Self> {
        Arc::new(LiveDesk { media, clock, key, places: Arc::new(Semaphore::new(VIEWERS_MAX)) })
    }

    /// The routes below `/live`.
    pub fn routes(self: Arc<Self>) -> Router {
        let signed = self.key.is_some();
        let routes =
            Router::new().route("/live/{domain}/{app}/{stream}", get(serve)).with_state(self);
        readable_by_pages(routes, signed)
    }

    /// How many are watching.
    #[must_use]
    pub fn viewers(&self) -> usize {
        VIEWERS_MAX - self.places.available_permits()
    }

    fn watch(&self, uri: &Uri, parts: &(String, String, String)) -> Result<Response, Fault> {
        if let Some(key) = &self.key {
            let now = self.clock.now().wall;
            signed_url::verify(key, uri.path(), uri.query(), now).map_err(Fault::Unsigned)?;
        }
        let (domain, app, name) = parts;
        let stream = name.strip_suffix(".mp4").ok_or(Fault::NotLive)?;
        let key = StreamKey::new(domain, app, stream).map_err(|_| Fault::NotLive)?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| Fault::Busy)?;
        let viewer = self.media.watch(&key).ok_or(Fault::NotLive)?;
        let show = Show { viewer, begun: false, waiting: VecDeque::new(), _place: place };
        let headers = [
            (header::CONTENT_TYPE, "video/mp4"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        Ok((headers, Body::from_stream(stream::unfold(show, Show::next))).into_response())
    }
}

async fn serve(
    State(desk): State<Arc<LiveDesk>>,
    Path(parts): Path<(String, String, String)>,
    uri: Uri,
) -> Response {
    desk.watch(&uri, &parts).unwrap_or_else(IntoResponse::into_response)
}

/// An answer under way.
struct Show {
    viewer: LiveViewer,
    begun: bool,
    /// What is left of the newest fragment.
    waiting: VecDeque<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Show {
    async fn next(mut self) -> Option<(Result<Bytes, TooSlow>, Self)> {
        while self.waiting.is_empty() {
            match self.viewer.next().await {
                Ok(Some(piece)) => self.queue(&piece),
                Ok(None) => return None,
                Err(too_slow) => return Some((Err(too_slow), self)),
            }
        }
        let bytes = self.waiting.pop_front()?;
        Some((Ok(bytes), self))
    }

    fn queue(&mut self, piece: &LivePiece) {
        if !self.begun {
            self.begun = true;
            self.waiting.push_back(piece.init.clone());
        }
        self.waiting.push_back(piece.head.clone());
        self.waiting.extend(piece.payload.iter().filter(|bytes| !bytes.is_empty()).cloned());
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::Request;
    use futures_util::StreamExt;
    use tower_service::Service;

    use super::*;
    use crate::domain::ids::BootId;
    use crate::domain::time::{BootTime, ClockQuality, Instant, UnixMillis, WallTime};
    use crate::ring::live_hub::{LiveSource, PIECES_HELD_MAX};

    const NOW_S: i64 = 1_800_000_000;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Instant {
            let unix = UnixMillis(NOW_S * 1_000);
            let wall = WallTime { unix, quality: ClockQuality::Trusted };
            Instant { boot: BootTime(1), wall }
        }

        fn boot_id(&self) -> BootId {
            BootId([0; 16])
        }
    }

    fn key(stream: &str) -> StreamKey {
        StreamKey::new("cams", "live", stream).expect("a key")
    }

    fn desk(hub: &Arc<LiveHub>, secret: Option<&str>) -> Arc<LiveDesk> {
        LiveDesk::new(hub.clone(), Arc::new(Still), secret.map(Secret::new))
    }

    async fn get(desk: &Arc<LiveDesk>, target: &str) -> Response {
        let request = Request::get(target).body(Body::empty()).expect("a request");
        let mut routes = desk.clone().routes();
        match Service::<Request<Body>>::call(&mut routes, request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn publish(source: &LiveSource, text: &'static str, key: bool) {
        source.publish(|| LivePiece {
            init: Bytes::from_static(b"init "),
            key,
            head: Bytes::from_static(b"head "),
            payload: vec![Bytes::new(), Bytes::from_static(text.as_bytes())],
        });
    }

    #[tokio::test]
    async fn a_stream_is_served_from_its_next_key_fragment_to_its_end() {
        let hub = Arc::new(LiveHub::default());
        let desk = desk(&hub, None);
        let source = hub.begin(key("gate 1/a"));
        let response = get(&desk, "/live/CAMS/live/gate%201%2Fa.mp4").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "video/mp4");
        assert_eq!(desk.viewers(), 1);
        publish(&source, "a ", false);
        publish(&source, "b ", true);
        publish(&source, "c ", false);
        drop(source);
        let body = to_bytes(response.into_body(), 1_000).await.expect("a whole body");
        assert_eq!(&body[..], b"init head b head c ");
        assert_eq!(desk.viewers(), 0);
    }

    #[tokio::test]
    async fn who_is_too_slow_is_cut_off() {
        let hub = Arc::new(LiveHub::default());
        let desk = desk(&hub, None);
        let source = hub.begin(key("s"));
        let response = get(&desk, "/live/cams/live/s.mp4").await;
        for _ in 0..=PIECES_HELD_MAX {
            publish(&source, "x", true);
        }
        let mut chunks = response.into_body().into_data_stream();
        let mut last = None;
        for _ in 0..1 + 2 * PIECES_HELD_MAX {
            last = chunks.next().await;
            assert!(matches!(last, Some(Ok(_))), "{last:?}");
        }
        last = chunks.next().await.or(last);
        assert!(matches!(last, Some(Err(_))), "no proper end: {last:?}");
    }

    #[tokio::test]
    async fn what_is_not_live_is_not_found_and_places_are_counted() {
        let hub = Arc::new(LiveHub::default());
        let desk = desk(&hub, None);
        let _source = hub.begin(key("s"));
        for target in ["other.mp4", "s", "s.flv", ".mp4", "%0A.mp4", "s.mp4/x"] {
            let response = get(&desk, &format!("/live/cams/live/{target}")).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{target}");
        }
        let mut watching = Vec::new();
        for _ in 0..VIEWERS_MAX {
            let response = get(&desk, "/live/cams/live/s.mp4").await;
            assert_eq!(response.status(), StatusCode::OK);
            watching.push(response);
        }
        let response = get(&desk, "/live/cams/live/s.mp4").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
        watching.pop();
        assert_eq!(get(&desk, "/live/cams/live/s.mp4").await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn with_a_secret_the_url_must_be_signed() {
        let hub = Arc::new(LiveHub::default());
        let desk = desk(&hub, Some("canary"));
        let _source = hub.begin(key("s"));
        let (path, secret) = ("/live/cams/live/s.mp4", Secret::new("canary"));
        let now_s = u64::try_from(NOW_S).expect("after 1970");
        let good = signed_url::sign(&secret, path, now_s + 60);
        let late = signed_url::sign(&secret, path, now_s - 60);
        let other = signed_url::sign(&secret, "/live/cams/live/t.mp4", now_s + 60);
        let open = LiveDesk::new(hub.clone(), Arc::new(Still), None);
        let answer = get(&open, path).await;
        assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        let answer = get(&desk, &format!("{path}?{good}")).await;
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        for (query, status) in [
            (String::new(), StatusCode::FORBIDDEN),
            (format!("?{late}"), StatusCode::FORBIDDEN),
            (format!("?{other}"), StatusCode::FORBIDDEN),
            (format!("?{good}"), StatusCode::OK),
        ] {
            assert_eq!(get(&desk, &format!("{path}{query}")).await.status(), status, "{query}");
        }
        let unknown = get(&desk, "/live/cams/live/t.mp4").await;
        assert_eq!(unknown.status(), StatusCode::FORBIDDEN, "nobody learns what is live");
    }
}
