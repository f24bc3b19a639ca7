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
use crate::app::online::Online;
use crate::config::ApiConfig;
use crate::delivery::board::Board;
use crate::domain::secret::Secret;
use crate::domain::service::limits::ServiceLimits;
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
    pub(super) ring: Arc<Ring>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) live: Arc<LiveTable>,
    pub(super) board: Option<Arc<Board>>,
    pub(super) service: ServiceInForce,
    pub(super) online: Arc<Online>,
    pub(super) limits: ServiceLimits,
    pub(super) push_key: Secret,
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
        let WebParts { ring, clock, live, board, service, online, limits, push_key } = parts;
        let key = self.credentials.as_ref().map(|credentials| credentials.secret_key.clone());
        let files = FileDesk::new(ring.clone(), clock.clone(), key.clone(), tasks.clone());
        let shows = LiveDesk::new(ring.live.clone(), clock.clone(), key.clone());
        tasks.spawn(files.clone().close_idle(shutdown.clone()));
        let desk = CloudDesk {
            ring: ring.clone(),
            clock: clock.clone(),
            limits,
            service,
            online,
            push_key,
            key: key.clone(),
        };
        let door = Door::new(Arc::new(desk), self.credentials);
        let metrics = MetricsDesk::new(ring, clock, Arc::new(Figures { live, board }));
        let routes = files.routes().merge(shows.routes()).merge(metrics.routes());
        let routes = routes.merge(door.routes());
        tasks.spawn(self.server.run(routes, tasks.clone(), shutdown.clone()));
    }
}

/// What the metrics tell beside the ring.
struct Figures {
    live: Arc<LiveTable>,
    board: Option<Arc<Board>>,
}

impl BoxFigures for Figures {
    fn live(&self) -> BTreeMap<&'static str, u64> {
        self.live.count_by_decision()
    }

    fn delivered(&self) -> DeliveryFigures {
        let delivered = self.board.as_ref().map(|board| board.delivered()).unwrap_or_default();
        DeliveryFigures {
            files: delivered.files,
            bytes: delivered.bytes,
            failures: delivered.failures,
        }
    }
}
