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
    getrandom::fill(&mut bytes).expect("a booted Linux has randomness");
    bytes
}
