//! Connections of the HTTP client: through the net seam, with TLS on top where asked for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection as PooledConnection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Sleep;
use tower_service::Service;

use crate::delivery::error::DeliveryError;
use crate::platform::net::{Connection, Net};

/// Opens connections over the net seam.
#[derive(Clone)]
pub(super) struct NetConnector {
    net: Arc<dyn Net>,
    limit: Duration,
    stall: Duration,
}

impl NetConnector {
    /// Connections must stand within `limit`; one that takes no byte for `stall` breaks.
    pub(super) fn new(net: Arc<dyn Net>, limit: Duration, stall: Duration) -> Self {
        NetConnector { net, limit, stall }
    }
}

impl Service<Uri> for NetConnector {
    type Response = NetStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<NetStream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (net, limit, stall) = (Arc::clone(&self.net), self.limit, self.stall);
        Box::pin(async move {
            let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let https = uri.scheme_str() == Some("https");
            let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
            let connection = tokio::time::timeout(limit, net.connect(host, port))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))??;
            Ok(NetStream { io: TokioIo::new(connection), stall, waiting: None })
        })
    }
}

/// A connection as hyper wants it.
///
/// A request that was given up leaves its connection to hyper, which first tries to send what it
/// still holds: a peer that takes nothing would keep connection and body for ever. So a write
/// that waits too long breaks the connection.
pub(super) struct NetStream {
    io: TokioIo<Box<dyn Connection>>,
    stall: Duration,
    /// Runs while a write waits for the peer.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl NetStream {
    /// Passes the outcome of a write on, unless it has been waited for too long.
    fn or_stalled<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let stall = self.stall;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        match waiting.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "peer takes no data")))
            }
        }
    }
}

impl PooledConnection for NetStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for NetStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buf)
    }
}

impl Write for NetStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, buf);
        self.or_stalled(outcome, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(context);
        self.or_stalled(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// TLS 1.2 and 1.3 with the public certificate authorities and `extra_roots`.
pub(super) fn tls_config(
    extra_roots: &[CertificateDer<'static>],
) -> Result<ClientConfig, DeliveryError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for root in extra_roots {
        roots
            .add(root.clone())
            .map_err(|error| DeliveryError::Settings(format!("bad CA certificate: {error}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DeliveryError::Settings(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
