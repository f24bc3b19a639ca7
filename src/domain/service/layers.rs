//! The rule sets of all layers, and the numbers of their templates.

use crate::domain::service::Kind;

/// The rule sets of all layers, and the numbers of their templates.
#[derive(Debug, Clone, Default)]
pub struct Layers {}

impl Layers {
    pub(super) fn restore(&mut self, kind: Kind, key: &str, content: &str) -> Result<(), String> {
        let _ = (kind, key, content);
        Ok(())
    }
}
