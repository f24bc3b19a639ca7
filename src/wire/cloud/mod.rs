//! The cloud API's own forms, without I/O: who signed a request and what it asks for, how answers
//! look, how callbacks, pushes and object uploads are signed.
//!
//! The order for a server: [`received::Received`] is what came over HTTP; its
//! [`style`](received::Received::style) says which of [`tc3::verify`] and
//! [`signature_v1::verify`] proves it; then [`envelope::ActionRequest::read`] says what it asks
//! for. Both signatures cover every byte of query and body that the envelope reads; TC3 as the
//! SDKs use it covers neither the header that names the action nor the region.
//!
//! Time is an argument everywhere. A clock that was never set cannot judge the age of a request:
//! age is then not checked, and the result says so ([`AgeCheck`]).

pub mod auth_failure;
pub mod callback_sign;
pub mod cos;
pub mod envelope;
pub mod flat;
pub mod json_body;
mod mac;
pub mod nonce_table;
pub mod push_auth;
pub mod received;
pub mod signature_v1;
pub mod tc3;

use crate::domain::secret::Secret;

/// A request may be signed so many seconds from our clock, to both sides.
pub const CLOCK_WINDOW_S: u64 = 300;
/// Longest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest query of a request, in bytes.
pub const QUERY_BYTES_MAX: usize = 32 << 10;
/// Objects and arrays inside each other.
pub const DEPTH_MAX: usize = 16;
/// Values of a request, all levels together.
pub const PARAMETERS_MAX: usize = 1_000;

/// Whose signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// SecretId: names the key, goes over the wire.
    pub secret_id: String,
    /// SecretKey: signs, never leaves.
    pub secret_key: Secret,
}

/// Whether the age of what was signed could be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeCheck {
    /// It is young enough by a clock that can be believed.
    Passed,
    /// The clock was never set, so nobody looked.
    Skipped,
}
