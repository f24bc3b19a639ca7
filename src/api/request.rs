//! Questions to the box, as they stand on one line of the control socket.

use serde::{Deserialize, Serialize};

use crate::api::ApiError;
use crate::domain::files::FileFormat;
use crate::domain::ids::FileId;
use crate::domain::stream_key::StreamKey;

/// Longest request line, in bytes.
pub const REQUEST_BYTES_MAX: usize = 16 << 10;

/// One question. Times are Unix milliseconds; identities are decimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// All files: a [`FileRow`](crate::api::report::FileRow) a line, then [`Listed`].
    Ls {},
    /// Events of the outbox: an [`EventRow`](crate::api::report::EventRow) a line, then [`Listed`].
    Events {
        /// From this number on.
        from: u64,
    },
    /// One [`ExplainReport`](crate::api::report::ExplainReport).
    Explain {
        /// The stream key.
        stream: String,
        /// At that time instead of now.
        at: Option<i64>,
    },
    /// An [`ExportHeader`](crate::api::report::ExportHeader), then the bytes of its objects.
    Export {
        /// A range of this stream.
        stream: Option<String>,
        /// The range's start.
        from: Option<i64>,
        /// The range's end.
        to: Option<i64>,
        /// A file instead of a range.
        file: Option<String>,
        /// The format; a file has its own.
        format: Option<String>,
    },
}

/// The last line of a listing: without it the listing is not whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Rows before it.
    pub listed: u64,
}

/// An answer that is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Why.
    pub error: String,
}

/// What is to be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportOrder {
    /// The media.
    pub subject: Subject,
    /// The format; `None` is the file's own.
    pub format: Option<FileFormat>,
}

/// Media in the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A file.
    File(FileId),
    /// What there is of a stream in a range of wall time.
    Range {
        /// The stream.
        key: StreamKey,
        /// Unix milliseconds.
        from_ms: i64,
        /// Unix milliseconds.
        until_ms: i64,
    },
}

impl ExportOrder {
    /// The order as a request.
    #[must_use]
    pub fn request(&self) -> Request {
        let format = self.format.map(|format| format.name().to_owned());
        match &self.subject {
            Subject::File(id) => {
                let file = Some(id.to_string());
                Request::Export { stream: None, from: None, to: None, file, format }
            }
            Subject::Range { key, from_ms, until_ms } => Request::Export {
                stream: Some(key.to_string()),
                from: Some(*from_ms),
                to: Some(*until_ms),
                file: None,
                format,
            },
        }
    }

    /// Reads the fields of [`Request::Export`].
    ///
    /// # Errors
    /// A field is wrong, or they do not go together.
    pub fn read(
        stream: Option<&str>,
        (from, to): (Option<i64>, Option<i64>),
        file: Option<&str>,
        format: Option<&str>,
    ) -> Result<Self, ApiError> {
        let bad = |what: String| Err(ApiError::BadRequest(what));
        let format = match format.map(str::parse::<FileFormat>).transpose() {
            Ok(format) => format,
            Err(error) => return bad(error.to_string()),
        };
        let subject = match (stream, file) {
            (None, Some(id)) if from.is_none() && to.is_none() => Subject::File(file_id(id)?),
            (Some(key), None) => {
                let (from_ms, until_ms) = (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX));
                if from_ms >= until_ms {
                    return bad("the range ends before it begins".to_owned());
                }
                if format.is_none() {
                    return bad("a range needs a format".to_owned());
                }
                Subject::Range { key: stream_key(key)?, from_ms, until_ms }
            }
            _ => return bad("an export is of a stream's range or of a file".to_owned()),
        };
        Ok(ExportOrder { subject, format })
    }
}

/// A file's identity from its digits.
///
/// # Errors
/// The text is none.
pub fn file_id(text: &str) -> Result<FileId, ApiError> {
    let number = text.parse::<u64>().ok().filter(|number| *number <= i64::MAX as u64);
    number.map(FileId).ok_or_else(|| ApiError::BadRequest("this is no file id".to_owned()))
}

/// A stream key from its text.
///
/// # Errors
/// The text is none.
pub fn stream_key(text: &str) -> Result<StreamKey, ApiError> {
    text.parse().map_err(|error: crate::domain::stream_key::StreamKeyError| {
        ApiError::BadRequest(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_line() {
        let key: StreamKey = "cams/live/gate%20a".parse().expect("a key");
        let range = Subject::Range { key, from_ms: -5, until_ms: 70 };
        for (subject, format) in [(Subject::File(FileId(7)), None), (range, Some(FileFormat::Hls))]
        {
            let order = ExportOrder { subject, format };
            let line = serde_json::to_string(&order.request()).expect("plain fields");
            let request: Request = serde_json::from_str(&line).expect("its own line");
            let Request::Export { stream, from, to, file, format } = request else {
                panic!("{line}");
            };
            let read = ExportOrder::read(
                stream.as_deref(),
                (from, to),
                file.as_deref(),
                format.as_deref(),
            );
            assert_eq!(read.expect("read"), order);
        }
    }

    #[test]
    fn orders_that_make_no_sense_are_refused() {
        let refused = |stream, range, file, format| {
            ExportOrder::read(stream, range, file, format).expect_err("refused").to_string()
        };
        let none = (None, None);
        assert_eq!(
            refused(None, none, None, None),
            "an export is of a stream's range or of a file"
        );
        assert!(refused(Some("a/b"), none, None, Some("mp4")).contains("DOMAIN/APP/STREAM"));
        assert!(refused(Some("a/b/c"), (Some(2), Some(1)), None, Some("mp4")).contains("ends"));
        assert!(refused(Some("a/b/c"), none, None, None).contains("format"));
        assert!(refused(Some("a/b/c"), none, None, Some("avi")).contains("avi"));
        assert!(refused(None, none, Some("99999999999999999999"), None).contains("file id"));
        assert!(refused(None, (Some(1), None), Some("7"), None).contains("range"));
        for line in ["{}", "[]", r#"{"request":"rm"}"#, r#"{"request":"ls","x":1}"#, "\u{0}"] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }
}
