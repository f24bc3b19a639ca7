//! Callback templates and rules of the local layer.

use crate::domain::service::Kind;

/// Callback templates and rules of the local layer.
#[derive(Debug, Clone, Default)]
pub struct CallbackDesk {}

impl CallbackDesk {
    pub(super) fn restore(&mut self, kind: Kind, key: &str, content: &str) -> Result<(), String> {
        let _ = (kind, key, content);
        Ok(())
    }
}
