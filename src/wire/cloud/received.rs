//! A request as it came over HTTP: the bytes that signatures are computed over.

use crate::wire::cloud::envelope::EnvelopeError;
use crate::wire::cloud::flat::FlatParameters;

/// A request as received. Nothing in it is decoded.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Path, `/` for the API.
    pub path: &'a str,
    /// What stands behind the `?`, verbatim.
    pub query: &'a str,
    /// Headers in any order; names in any case. A value that is not text is left out.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, verbatim.
    pub body: &'a [u8],
}

/// How a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningStyle {
    /// An `Authorization` header: [`tc3`](super::tc3).
    Tc3,
    /// A `Signature` parameter: [`signature_v1`](super::signature_v1).
    V1,
    /// Not at all.
    Unsigned,
}

impl<'a> Received<'a> {
    /// The value of a header; `None` if there is none.
    ///
    /// # Errors
    /// It stands there more than once, so it is not clear which one counts.
    pub fn header(&self, name: &str) -> Result<Option<&'a str>, EnvelopeError> {
        let mut values =
            self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
        let value = values.next();
        if values.next().is_some() {
            return Err(EnvelopeError::RepeatedHeader);
        }
        Ok(value)
    }

    /// How it is signed. A header wins over a parameter.
    ///
    /// # Errors
    /// The query or the form cannot be read.
    pub fn style(&self) -> Result<SigningStyle, EnvelopeError> {
        if self.header("authorization")?.is_some() {
            return Ok(SigningStyle::Tc3);
        }
        let signed = FlatParameters::read(self)?.get("Signature").is_some();
        Ok(if signed { SigningStyle::V1 } else { SigningStyle::Unsigned })
    }

    /// Whether the body is a form.
    pub(super) fn has_form(&self) -> Result<bool, EnvelopeError> {
        let content_type = self.header("content-type")?.unwrap_or_default();
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        Ok(self.method == "POST" && kind.eq_ignore_ascii_case("application/x-www-form-urlencoded"))
    }
}

/// Neither headers (they may hold a signature) nor the body are shown.
impl std::fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
