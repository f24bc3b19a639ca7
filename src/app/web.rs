//! The HTTP interface of the box: its listener, and what is served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::cloud::CloudDesk;
use crate::api::cloud::http::Door;
use crate::api::files::FileDesk;
use crate::api::http::{Access, HttpServer};
use crate::api::live::LiveDesk;
use crate::api::metrics::{BoxFigures, DeliveryFigures, MetricsDesk};
use crate::app::AppError;
use crate::app::knowledge::Knowledge;
use crate::app::online::Online;
use crate::app::wear::WearShown;
use crate::config::{ApiConfig, Config};
use crate::delivery::board::Board;
use crate::domain::wear::WearFigures;
use crate::platform::board::temperatures;
use crate::platform::clock::Clock;
use crate::platform::net::Net;
use crate::recorder::live::LiveTable;
use crate::ring::catalog::service::ServiceInForce;
use crate::ring::handle::Ring;
use crate::wire::cloud::Credentials;

/// The bound listener.
pub(super) struct Web {
    /// Where it listens.
    pub(super) addr: SocketAddr,
    server: HttpServer,
    credentials: Option<Credentials>,
}

/// What is served.
pub(super) struct WebParts {
    pub(super) desk: Arc<CloudDesk>,
    pub(super) live: Arc<LiveTable>,
    pub(super) board: Option<Arc<Board>>,
    /// Types of the thermal zones that are told.
    pub(super) zones: Vec<String>,
    pub(super) wear: WearShown,
}

/// What answers actions, whether they come over HTTP or from the fleet.
pub(super) fn cloud_desk(
    config: &Config,
    ring: Arc<Ring>,
    clock: Arc<dyn Clock>,
    service: ServiceInForce,
    (online, known): (Arc<Online>, Arc<Knowledge>),
) -> Arc<CloudDesk> {
    let key = config.api.credentials.as_ref().map(|credentials| credentials.secret_key.clone());
    let (limits, push_key) = (config.limits.clone(), config.rtmp.push_key.clone());
    Arc::new(CloudDesk { ring, clock, limits, service, known, online, push_key, key })
}

impl Web {
    /// Binds what is configured; `None` if it is to listen nowhere.
    pub(super) async fn bind(config: &ApiConfig, net: &dyn Net) -> Result<Option<Self>, AppError> {
        let Some(addr) = config.listen else { return Ok(None) };
        let failed = |source| AppError::Listen { addr, what: "api", source };
        let credentials = config.credentials.as_ref().map(|credentials| Credentials {
            secret_id: credentials.secret_id.clone(),
            secret_key: credentials.secret_key.clone(),
        });
        let access = if credentials.is_some() { Access::Signed } else { Access::Loopback };
        let server = HttpServer::bind(net, addr, access).await.map_err(failed)?;
        let addr = server.local_addr().map_err(failed)?;
        Ok(Some(Web { addr, server, credentials }))
    }

    /// Serves until `shutdown`.
    pub(super) fn start(self, parts: WebParts, tasks: &TaskTracker, shutdown: &CancellationToken) {
        let WebParts { desk, live, board, zones, wear } = parts;
        let (ring, clock, key) = (desk.ring.clone(), desk.clock.clone(), desk.key.clone());
        let files = FileDesk::new(ring.clone(), clock.clone(), key.clone(), tasks.clone());
        let shows = LiveDesk::new(ring.live.clone(), clock.clone(), key);
        tasks.spawn(files.clone().close_idle(shutdown.clone()));
        let door = Door::new(desk, self.credentials);
        let metrics = MetricsDesk::new(ring, clock, Arc::new(Figures { live, board, zones, wear }));
        let routes = files.routes().merge(shows.routes()).merge(metrics.routes());
        let routes = routes.merge(door.routes());
        tasks.spawn(self.server.run(routes, tasks.clone(), shutdown.clone()));
    }
}

/// What the metrics tell beside the ring.
struct Figures {
    live: Arc<LiveTable>,
    board: Option<Arc<Board>>,
    zones: Vec<String>,
    wear: WearShown,
}

impl BoxFigures for Figures {
    fn live(&self) -> BTreeMap<&'static str, u64> {
        self.live.count_by_decision()
    }

    fn delivered(&self) -> DeliveryFigures {
        let delivered = self.board.as_ref().map(|board| board.delivered()).unwrap_or_default();
        let (moving, bytes_per_s) = self.board.as_ref().map_or((0, 0), |board| board.moving());
        DeliveryFigures {
            files: delivered.files,
            bytes: delivered.bytes,
            failures: delivered.failures,
            moving,
            bytes_per_s,
        }
    }

    fn wear(&self) -> Option<WearFigures> {
        self.wear.read()
    }

    fn temperatures(&self) -> Vec<(String, f64)> {
        temperatures(&self.zones)
    }
}
