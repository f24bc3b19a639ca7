//! Streams that may not be pushed.

/// Streams that may not be pushed.
#[derive(Debug, Clone, Default)]
pub struct Forbids {}

impl Forbids {
    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let _ = (key, content);
        Ok(())
    }
}
