//! The composition root. A stand-in with the signatures that the command line needs, until the
//! real one is merged over it.

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigFaults};
use crate::ring::RingError;

/// The addresses as bound; `None` for a listener that is off.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Where encoders push.
    pub rtmp: Option<SocketAddr>,
    /// Where the API listens.
    pub api: Option<SocketAddr>,
}

/// The box cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The rules cannot be used.
    #[error(transparent)]
    Rules(#[from] ConfigFaults),
    /// The ring cannot be used.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// Runs the box until `shutdown`; calls `ready` once, when everything listens.
///
/// # Errors
/// The box cannot start.
pub async fn run(
    _config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), AppError> {
    ready(Ready { rtmp: None, api: None });
    shutdown.cancelled().await;
    Ok(())
}
