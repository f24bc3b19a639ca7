//! Why a request is not believed, and the code of the cloud API for it.

/// A request is not believed. The words never repeat what was sent beyond its names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    /// The signature's own form is wrong, or there is none.
    #[error("{0}")]
    InvalidAuthorization(&'static str),
    /// No such key.
    #[error("the SecretId is not known")]
    SecretIdNotFound,
    /// Signed too long ago or in the future.
    #[error("signed {off_by_s} s away from the time here, 300 s are allowed")]
    SignatureExpire {
        /// By how much, in seconds.
        off_by_s: u64,
    },
    /// Signed with another key, or changed on the way.
    #[error("the signature does not match")]
    SignatureFailure,
    /// The same nonce came before.
    #[error("this Nonce was used already")]
    Replayed,
    /// More requests than the table of nonces holds.
    #[error("too many requests within ten minutes")]
    TooMany,
    /// The request itself cannot be read, so nothing of it can be proved.
    #[error(transparent)]
    Malformed(#[from] super::envelope::EnvelopeError),
}

impl AuthFailure {
    /// The code for the answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            AuthFailure::InvalidAuthorization(_) => "AuthFailure.InvalidAuthorization",
            AuthFailure::SecretIdNotFound => "AuthFailure.SecretIdNotFound",
            AuthFailure::SignatureExpire { .. } => "AuthFailure.SignatureExpire",
            AuthFailure::SignatureFailure | AuthFailure::Replayed => "AuthFailure.SignatureFailure",
            AuthFailure::TooMany => "RequestLimitExceeded",
            AuthFailure::Malformed(error) => error.code(),
        }
    }
}
