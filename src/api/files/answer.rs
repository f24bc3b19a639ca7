//! The answers: redirects, whole files, ranges, and why there is none.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;
use tracing::error;
use url::Url;

use crate::api::ApiError;
use crate::api::files::body::{FileBody, Stretch};
use crate::api::files::open_files::OpenFile;
use crate::api::files::range::{Part, is_known};
use crate::api::http::refusal;
use crate::api::signed_url::SignatureError;
use crate::domain::stream_key::percent_encode;
use crate::media::render::hls::PLAYLIST_NAME;
use crate::ring::catalog::files::FileRecord;

/// Longest name in a URL, in bytes and without the extension.
const NAME_BYTES_MAX: usize = 200;
/// Who finds all readers busy is asked to come back after this many seconds.
const RETRY_AFTER_S: u16 = 2;

/// Why a file is not given.
#[derive(Debug)]
pub enum Fault {
    /// There is no such file, or it has no such part.
    Unknown,
    /// Its media left the ring, and it is nowhere else.
    Gone,
    /// The signature is missing or does not hold.
    Unsigned(SignatureError),
    /// Too many are reading.
    Busy,
    /// The file has no bytes in its format.
    Empty(&'static str),
    /// The ring says no.
    Failed(ApiError),
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (status, why) = match &self {
            Fault::Unknown => (StatusCode::NOT_FOUND, "there is no such file".to_owned()),
            Fault::Gone => (StatusCode::GONE, "the media is no longer in the ring".to_owned()),
            Fault::Unsigned(error) => (StatusCode::FORBIDDEN, error.to_string()),
            Fault::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too many readers".to_owned()),
            Fault::Empty(format) => {
                let why = format!("{format} holds none of the tracks");
                (StatusCode::UNPROCESSABLE_ENTITY, why)
            }
            Fault::Failed(problem) => {
                error!(problem = problem.line(), "a file cannot be served");
                (StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read".to_owned())
            }
        };
        refusal(status, &why, matches!(self, Fault::Busy).then_some(RETRY_AFTER_S))
    }
}

/// What is said of a file before its bytes.
pub struct Head {
    /// What it is to be stored under, if it is one object.
    pub file_name: Option<String>,
    /// Its media type.
    pub content_type: &'static str,
    /// It still grows, so nobody may keep the answer.
    pub growing: bool,
    /// Strong tag: the same bytes, the same tag. Quoted, in ASCII.
    pub etag: String,
}

/// Where the bytes are.
pub enum Content {
    /// In memory.
    Text(Bytes),
    /// In the ring.
    Stored {
        /// The file.
        file: OpenFile,
        /// The object, by its place in the rendering.
        object: usize,
        /// Who reads.
        tasks: TaskTracker,
        /// The right to read.
        reader: OwnedSemaphorePermit,
    },
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Content::Text(text) => text.len() as u64,
            Content::Stored { file, object, .. } => file.objects()[*object].len,
        }
    }

    fn body(self, from: u64, until: u64) -> Body {
        match self {
            Content::Text(text) => {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
                Body::from(text.slice(at(from)..at(until)))
            }
            Content::Stored { file, object, tasks, reader } => {
                Body::new(FileBody::new(file, Stretch { object, from, until }, tasks, reader))
            }
        }
    }
}

impl Head {
    /// The answer to `request`: all of `content`, a range of it, or that nothing has changed.
    pub fn answer(self, request: &Parts, content: Content) -> Response {
        let len = content.len();
        let part = match request.method {
            Method::GET => Part::asked(&request.headers, len, &self.etag),
            _ => Part::Whole,
        };
        let (status, from, until) = match part {
            _ if is_known(&request.headers, &self.etag) => (StatusCode::NOT_MODIFIED, 0, 0),
            Part::Whole => (StatusCode::OK, 0, len),
            Part::Range { from, until } => (StatusCode::PARTIAL_CONTENT, from, until),
            Part::OutOfReach => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
        };
        let body = if from < until && request.method == Method::GET {
            content.body(from, until)
        } else {
            Body::empty()
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let mut set = |name, value: String| {
            // Everything here is ASCII of our own making.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        set(header::ETAG, self.etag);
        set(header::ACCEPT_RANGES, "bytes".to_owned());
        let keep = if self.growing { "no-store" } else { "no-cache" };
        set(header::CACHE_CONTROL, keep.to_owned());
        match status {
            StatusCode::NOT_MODIFIED => return response,
            StatusCode::RANGE_NOT_SATISFIABLE => {
                set(header::CONTENT_RANGE, format!("bytes */{len}"));
                return response;
            }
            StatusCode::PARTIAL_CONTENT => {
                set(header::CONTENT_RANGE, format!("bytes {from}-{}/{len}", until - 1));
            }
            _ => {}
        }
        set(header::CONTENT_LENGTH, (until - from).to_string());
        set(header::CONTENT_TYPE, self.content_type.to_owned());
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned());
        if let Some(name) = self.file_name {
            set(header::CONTENT_DISPOSITION, disposition(&name));
        }
        response
    }
}

/// Sends the client to another address.
///
/// # Errors
/// The address cannot stand in a header.
pub fn redirect(location: &str) -> Result<Response, Fault> {
    let location = HeaderValue::from_str(location).map_err(|_| Fault::Gone)?;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((StatusCode::FOUND, headers).into_response())
}

/// Sends the client to where a file was delivered; `name` is the object of an HLS file.
///
/// # Errors
/// It was not delivered to a place that HTTP reaches.
pub fn moved(record: &FileRecord, name: &str) -> Result<Response, Fault> {
    let url = record.url.as_deref().and_then(|url| Url::parse(url).ok());
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or(Fault::Gone)?;
    let beside = url.path().ends_with(&format!("/{PLAYLIST_NAME}")) && name != PLAYLIST_NAME;
    if !beside {
        return redirect(url.as_str());
    }
    // A segment lies beside its playlist; anything that is no plain name is none of ours.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    if !name.bytes().all(plain) || name.starts_with('.') {
        return Err(Fault::Unknown);
    }
    redirect(url.join(name).map_err(|_| Fault::Gone)?.as_str())
}

/// What the file is stored under, in plain text.
#[must_use]
pub fn file_name(record: &FileRecord) -> String {
    format!("{}.{}", record.file_name(), record.format.name())
}

/// The same as the last part of a URL: encoded, and not too long.
#[must_use]
pub fn url_name(record: &FileRecord) -> String {
    let mut encoded = String::new();
    for character in record.file_name().chars() {
        let next = percent_encode(character.encode_utf8(&mut [0; 4]));
        if encoded.len() + next.len() > NAME_BYTES_MAX {
            break;
        }
        encoded.push_str(&next);
    }
    format!("{encoded}.{}", record.format.name())
}

/// Whether `name` is something before `.extension`.
#[must_use]
pub fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, last)| !stem.is_empty() && last == extension)
}

/// `Content-Disposition`: the name in plain characters for the oldest clients, and as it is.
fn disposition(name: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let plain: String = name.chars().map(harmless).collect();
    format!("inline; filename=\"{plain}\"; filename*=UTF-8''{}", percent_encode(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::files::FileFormat;
    use crate::domain::ids::{FileId, RecordingId};
    use crate::domain::stream_key::StreamKey;
    use crate::domain::upload_order::UploadKind;
    use crate::ring::catalog::open::FileState;

    fn delivered(url: Option<&str>, name: &str) -> FileRecord {
        FileRecord {
            id: FileId(7),
            key: StreamKey::new("d", "live", "s").expect("a key"),
            format: FileFormat::Mp4,
            recording: RecordingId(1),
            task_id: None,
            audio_only: false,
            state: FileState::Delivered,
            why: String::new(),
            start_ms: 0,
            end_ms: 0,
            trusted: true,
            start_boot_ms: 0,
            boot_id: [0; 16],
            duration_ms: 0,
            name_pattern: String::new(),
            name: Some(name.to_owned()),
            size: 0,
            sha256: None,
            url: url.map(ToOwned::to_owned),
            tracks: Vec::new(),
            dropped_tracks: Vec::new(),
            template: String::new(),
            kind: UploadKind::Template,
            urgent: false,
            queue_number: 0,
            attempts: 0,
        }
    }

    fn location(record: &FileRecord, name: &str) -> Option<String> {
        let answer = moved(record, name).ok()?;
        assert_eq!(answer.status(), StatusCode::FOUND);
        Some(answer.headers()[header::LOCATION].to_str().expect("text").to_owned())
    }

    #[test]
    fn only_addresses_that_http_reaches_are_redirected_to() {
        let to = |url| location(&delivered(Some(url), "n"), "x.mp4");
        assert_eq!(to("https://s3.example/b/a.mp4").as_deref(), Some("https://s3.example/b/a.mp4"));
        for other in
            ["file:///media/usb/a.mp4", "/media/usb/a.mp4", "javascript:alert(1)", "", "//x"]
        {
            assert_eq!(to(other), None, "{other}");
        }
        assert_eq!(location(&delivered(None, "n"), "x.mp4"), None);
    }

    #[test]
    fn segments_lie_beside_the_delivered_playlist() {
        let hls = delivered(Some("http://s3.example/b/n-1/index.m3u8"), "n");
        let at = |name| location(&hls, name);
        assert_eq!(at("index.m3u8").as_deref(), Some("http://s3.example/b/n-1/index.m3u8"));
        assert_eq!(at("12.ts").as_deref(), Some("http://s3.example/b/n-1/12.ts"));
        for bad in ["..", "//evil.example", "a/b", "http:x", "?a", "#a", "a\r\nb"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_encoded_for_urls_and_headers() {
        let odd = delivered(None, "a \"b\"\r\n/日本");
        assert_eq!(url_name(&odd), "a%20%22b%22%0D%0A%2F%E6%97%A5%E6%9C%AC.mp4");
        assert_eq!(
            disposition(&file_name(&odd)),
            "inline; filename=\"a__b______.mp4\"; \
             filename*=UTF-8''a%20%22b%22%0D%0A%2F%E6%97%A5%E6%9C%AC.mp4"
        );
        let long = delivered(None, &"é".repeat(400));
        assert!(
            url_name(&long).len() <= NAME_BYTES_MAX + 4 && url_name(&long).ends_with("%A9.mp4")
        );
        assert!(has_extension("a.b.mp4", "mp4"));
        assert!(!has_extension(".mp4", "mp4") && !has_extension("a.MP4", "mp4"));
    }
}
