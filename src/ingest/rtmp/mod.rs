//! The RTMP listener: takes encoders' pushes.
//!
//! Each connection has one task. Before its publish is accepted a connection has
//! [`BEFORE_PUBLISH_MAX`] to get there and holds at most 64 KiB, and only
//! [`CONNECTIONS_BEFORE_PUBLISH_MAX`] are at that stage; after that [`Admission`] counts. Further ones
//! wait to be accepted, in turn: all encoders of a box may connect in the same instant.

mod assembler;
mod connection;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::domain::stream_key::StreamKey;
use crate::ingest::admission::Admission;
use crate::ingest::intake::Intake;
use crate::ingest::rtmp::connection::Connection;
use crate::platform::clock::Clock;
use crate::platform::net::{self, Listener, Net};

/// From the connection to an accepted publish.
pub const BEFORE_PUBLISH_MAX: Duration = Duration::from_secs(10);
/// Connections that have been accepted and not published yet.
pub const CONNECTIONS_BEFORE_PUBLISH_MAX: usize = 64;
/// A listener out of descriptors waits this long before it accepts again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Decides whether a publisher may use a stream key, from the key and the query of its URL.
/// Asked before [`Admission`], so that a stranger never makes a live publisher give way.
pub trait PublishCheck: Send + Sync {
    /// Lets the publish go on or says why not (in words without secrets, for the publisher). A
    /// refusal is logged by the check, at its own pace.
    ///
    /// # Errors
    /// The publisher has no right to the key.
    fn check(&self, key: &StreamKey, query: &str) -> Result<(), String>;
}

/// Lets everybody publish: no push key is configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyPublisher;

impl PublishCheck for AnyPublisher {
    fn check(&self, _: &StreamKey, _: &str) -> Result<(), String> {
        Ok(())
    }
}

/// A peer, and where it is.
type Accepted = (Box<dyn net::Connection>, SocketAddr);

/// What every connection needs.
struct Context {
    clock: Arc<dyn Clock>,
    intake: Arc<dyn Intake>,
    admission: Admission,
    check: Arc<dyn PublishCheck>,
    before_publish: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// A bound listener.
pub struct RtmpListener {
    listener: Box<dyn Listener>,
    clock: Arc<dyn Clock>,
    intake: Arc<dyn Intake>,
    admission: Admission,
    check: Arc<dyn PublishCheck>,
}

impl RtmpListener {
    /// Binds `addr`; nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(
        net: &dyn Net,
        addr: SocketAddr,
        clock: Arc<dyn Clock>,
        intake: Arc<dyn Intake>,
        admission: Admission,
        check: Arc<dyn PublishCheck>,
    ) -> io::Result<Self> {
        let listener = net.listen(addr).await?;
        Ok(RtmpListener { listener, clock, intake, admission, check })
    }

    /// The address as bound.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until `shutdown`; connections are tasks of `tasks` and end themselves after
    /// `shutdown`. A panic in one ends that one only.
    pub async fn run(self, tasks: TaskTracker, shutdown: CancellationToken) {
        let context = Arc::new(Context {
            clock: self.clock,
            intake: self.intake,
            admission: self.admission,
            check: self.check,
            before_publish: Arc::new(Semaphore::new(CONNECTIONS_BEFORE_PUBLISH_MAX)),
            shutdown: shutdown.clone(),
        });
        loop {
            let accepted = tokio::select! {
                accepted = next_peer(&*self.listener, &context.before_publish) => accepted,
                () = shutdown.cancelled() => return,
            };
            let (permit, (stream, peer)) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::error!(%error, "no connections can be accepted");
                    tokio::select! {
                        () = sleep(ACCEPT_PAUSE) => continue,
                        () = shutdown.cancelled() => return,
                    }
                }
            };
            let connection = Connection::new(Arc::clone(&context), stream, peer, permit);
            tasks.spawn(connection.run().instrument(tracing::info_span!("rtmp", %peer)));
        }
    }
}

/// The next connection, when one more may be accepted.
async fn next_peer(
    listener: &dyn Listener,
    before_publish: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, Accepted)> {
    let permit = Arc::clone(before_publish).acquire_owned().await.map_err(io::Error::other)?;
    Ok((permit, listener.accept().await?))
}
