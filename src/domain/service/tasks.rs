//! Timed and highlight tasks.

/// Timed and highlight tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {}

impl Tasks {
    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let _ = (key, content);
        Ok(())
    }
}
