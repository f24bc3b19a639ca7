//! Keys of push domains.

/// Keys of push domains.
#[derive(Debug, Clone, Default)]
pub struct PushKeyTable {}

impl PushKeyTable {
    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let _ = (key, content);
        Ok(())
    }
}
