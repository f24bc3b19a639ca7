//! What answers questions about the box: the control socket for the command line, and HTTP with
//! files and metrics.

pub mod cloud;
pub mod control;
pub mod cross_origin;
pub mod explain;
pub mod export;
pub mod files;
pub mod http;
pub mod impatient;
pub mod live;
pub mod metrics;
pub mod report;
pub mod request;
pub mod signed_url;

use crate::media::render::RenderError;
use crate::ring::RingError;

/// A question that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The question makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The ring says no.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The media cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl ApiError {
    /// The error with its causes, in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}
