//! Randomness from the operating system, for identities and jitter.

/// Eight random bytes as a number.
#[must_use]
pub fn random_u64() -> u64 {
    u64::from_le_bytes(random_bytes())
}

/// `N` random bytes.
///
/// # Panics
/// If the operating system has no randomness, which a booted Linux never says.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[cfg(feature = "simulation")]
    if simulated::fill(&mut bytes) {
        return bytes;
    }
    getrandom::fill(&mut bytes).expect("a booted Linux has randomness");
    bytes
}

/// Randomness of a seed, for a simulated world.
#[cfg(feature = "simulation")]
pub mod simulated {
    use std::cell::RefCell;

    type Source = Box<dyn FnMut() -> u64>;

    thread_local! {
        static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
    }

    /// What this thread draws from now on; `None` is the operating system again.
    pub fn set_source(source: Option<Source>) {
        SOURCE.set(source);
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        SOURCE.with_borrow_mut(|source| {
            let Some(next) = source else { return false };
            for piece in bytes.chunks_mut(8) {
                piece.copy_from_slice(&next().to_le_bytes()[..piece.len()]);
            }
            true
        })
    }
}
