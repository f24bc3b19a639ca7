//! Text that must not reach logs, topics or reports.

use std::fmt;

/// A password or key. Its debug form shows nothing of it; there is no display form.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps `text` from view.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Secret(text.into())
    }

    /// The text itself, for signing and logging in.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no secret.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Secret(none)" } else { "Secret(***)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert_eq!(secret.expose(), "canary");
        assert_eq!(format!("{:?}", Secret::default()), "Secret(none)");
    }
}
