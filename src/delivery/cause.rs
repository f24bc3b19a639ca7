//! What a refusal means: the table of codes that stores and the platform answer, by their cause.
//! It says whom a refusal concerns and tells people what to look at; codes that are not in it are
//! tried again like any other.
//!
//! # Specification
//! Error codes of Amazon S3, of COS and of the cloud API (VOD).

use crate::delivery::error::ErrorScope;

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Too much is asked of it, or it is down: it wants a rest.
    Busy,
    /// The key is unknown, wrong or may not do this.
    Key,
    /// The two clocks are too far apart.
    Clock,
    /// Bucket or sub-application are not there.
    Place,
    /// An address that leads elsewhere: a wrong region, or somebody on the way.
    Redirect,
    /// The file itself: its size, its name, its content.
    File,
    /// Nobody can tell.
    Unknown,
}

/// Beginnings of codes and what they mean; the first that fits counts.
const CODES: [(&str, Cause); 29] = [
    ("SlowDown", Cause::Busy),
    ("ServiceUnavailable", Cause::Busy),
    ("RequestLimitExceeded", Cause::Busy),
    ("TooManyRequests", Cause::Busy),
    ("Throttling", Cause::Busy),
    ("InternalError", Cause::Busy),
    ("RequestTimeTooSkewed", Cause::Clock),
    ("RequestExpired", Cause::Clock),
    ("AuthFailure.SignatureExpire", Cause::Clock),
    ("AuthFailure", Cause::Key),
    ("UnauthorizedOperation", Cause::Key),
    ("InvalidAccessKeyId", Cause::Key),
    ("SignatureDoesNotMatch", Cause::Key),
    ("InvalidToken", Cause::Key),
    ("ExpiredToken", Cause::Key),
    ("AccessDenied", Cause::Key),
    ("AccountProblem", Cause::Key),
    ("NoSuchBucket", Cause::Place),
    ("FailedOperation.InvalidVodUser", Cause::Place),
    ("InvalidParameterValue.SubAppId", Cause::Place),
    ("PermanentRedirect", Cause::Redirect),
    ("TemporaryRedirect", Cause::Redirect),
    ("AuthorizationHeaderMalformed", Cause::Redirect),
    ("Redirect", Cause::Redirect),
    ("EntityTooLarge", Cause::File),
    ("EntityTooSmall", Cause::File),
    ("KeyTooLong", Cause::File),
    ("BadDigest", Cause::File),
    ("IncompleteBody", Cause::File),
];

impl Cause {
    /// The cause of a refusal, by its code, else by its HTTP status.
    #[must_use]
    pub fn of(status: u16, code: &str) -> Cause {
        let known = CODES.iter().find(|(begin, _)| code.starts_with(begin));
        match (known, status) {
            (Some((_, cause)), _) => *cause,
            (None, 300..=399) => Cause::Redirect,
            (None, 401 | 407) => Cause::Key,
            (None, 413) => Cause::File,
            (None, 429 | 500..=599) => Cause::Busy,
            (None, _) => Cause::Unknown,
        }
    }

    /// Whom it concerns.
    #[must_use]
    pub fn scope(self) -> ErrorScope {
        match self {
            Cause::Clock | Cause::Redirect => ErrorScope::Target,
            Cause::File => ErrorScope::File,
            // A key may be good for one place and not for another, a template may name a wrong
            // place, and a store that fails on one file says that it is busy.
            Cause::Key | Cause::Place | Cause::Busy | Cause::Unknown => ErrorScope::Either,
        }
    }

    /// What people should look at, to be put before what was answered; empty if nothing helps.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Cause::Key => "the key is refused: ",
            Cause::Clock => "the clocks differ: ",
            Cause::Place => "the place is not there: ",
            Cause::Redirect => "the address leads elsewhere: ",
            Cause::Busy | Cause::File | Cause::Unknown => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_count_before_the_status_and_the_longer_ones_first() {
        assert_eq!(Cause::of(503, "SlowDown"), Cause::Busy);
        assert_eq!(Cause::of(200, "AuthFailure.SignatureExpire"), Cause::Clock);
        assert_eq!(Cause::of(200, "AuthFailure.SignatureFailure"), Cause::Key);
        assert_eq!(Cause::of(403, "RequestTimeTooSkewed"), Cause::Clock);
        assert_eq!(Cause::of(400, "InvalidParameterValue.SubAppId"), Cause::Place);
        assert_eq!(Cause::of(502, "Unspecified"), Cause::Busy);
        assert_eq!(Cause::of(302, "Redirect"), Cause::Redirect);
        assert_eq!(Cause::of(404, "NoSuchUpload"), Cause::Unknown);
        // No entry is hidden by one before it.
        for (at, (code, cause)) in CODES.iter().enumerate() {
            assert_eq!(Cause::of(418, code), *cause, "entry {at}");
        }
    }
}
