//! Files over HTTP, rendered while they are read.
//!
//! `/files/ID` redirects to `/files/ID/NAME.EXT`, or to `/files/ID/index.m3u8` with the segments
//! beside it. Of NAME only the extension counts: it is what a client stores the file under. A file
//! whose media has left the ring redirects to where it was delivered, if that can be reached over
//! HTTP, and is else gone for good (410).
//!
//! At most [`READERS_MAX`] answers are read from flash at the same time; one more is told to come
//! back. With a SecretKey every request needs a [signed URL](crate::api::signed_url); playlists
//! are then given out with a signature behind each address, and pages from elsewhere may read.

pub mod answer;
pub mod body;
pub mod open_files;
pub mod opening;
pub mod playlist;
pub mod range;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::ApiError;
use crate::api::cross_origin::readable_by_pages;
use crate::api::files::answer::{Content, Fault, Head};
use crate::api::files::open_files::{FileView, OpenFile, OpenFiles};
use crate::api::files::opening::Opener;
use crate::api::files::playlist::with_query;
use crate::api::signed_url;
use crate::domain::files::FileFormat;
use crate::domain::ids::FileId;
use crate::domain::secret::Secret;
use crate::media::render::RenderError;
use crate::media::render::hls::PLAYLIST_NAME;
use crate::platform::clock::Clock;
use crate::ring::RingError;
use crate::ring::catalog::files::FileRecord;
use crate::ring::catalog::open::FileState;
use crate::ring::handle::Ring;

/// Answers that are read from flash at the same time.
pub const READERS_MAX: usize = 8;
/// How often files that nobody asks for are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// A longer playlist is not signed; twelve hours have a tenth of it.
const SIGNED_PLAYLIST_BYTES_MAX: u64 = 8 << 20;

/// What serves files.
pub struct FileDesk {
    ring: Arc<Ring>,
    clock: Arc<dyn Clock>,
    key: Option<Secret>,
    open: OpenFiles,
    opener: Opener,
    readers: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// Until when, in Unix seconds, a signed request is good; `None` if none is asked for.
type SignedUntil = Option<u64>;

impl FileDesk {
    /// Serves the files of `ring`; with a key only to signed URLs. Flash is read by `tasks`.
    #[must_use]
    pub fn new(
        ring: Arc<Ring>,
        clock: Arc<dyn Clock>,
        key: Option<Secret>,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let open = OpenFiles::new(clock.clone());
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        let opener = Opener::new(ring.clone(), tasks.clone());
        Arc::new(FileDesk { ring, clock, key, open, opener, readers, tasks })
    }

    /// The routes below `/files`.
    pub fn routes(self: Arc<Self>) -> Router {
        let signed = self.key.is_some();
        let routes = Router::new()
            .route("/files/{file_id}", get(redirect))
            .route("/files/{file_id}/{name}", get(serve))
            .with_state(self);
        readable_by_pages(routes, signed)
    }

    /// Lets go of files that nobody asks for any more, until `shutdown`.
    pub async fn close_idle(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP_EVERY) => self.open.sweep(),
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Whether the request may be answered.
    fn admit(&self, uri: &Uri) -> Result<SignedUntil, Fault> {
        let Some(key) = &self.key else { return Ok(None) };
        let now = self.clock.now().wall;
        let until = signed_url::verify(key, uri.path(), uri.query(), now);
        Ok(Some(until.map_err(Fault::Unsigned)?))
    }

    /// The file, and whether its media is in the ring.
    async fn find(&self, file_id: &str) -> Result<(FileRecord, bool), Fault> {
        let digits = file_id.bytes().all(|byte| byte.is_ascii_digit());
        let id = file_id.parse().ok().filter(|_| digits).map(FileId).ok_or(Fault::Unknown)?;
        let found = self.ring.catalog.call(move |state| {
            let record = state.file(id)?;
            let holds = state.holds_file(&record)?;
            Ok((record, holds))
        });
        found.await.map_err(|error| match error {
            RingError::Gone(_) => Fault::Unknown,
            other => Fault::Failed(other.into()),
        })
    }

    async fn redirect(&self, file_id: &str, uri: &Uri) -> Result<Response, Fault> {
        self.admit(uri)?;
        let (record, holds) = self.find(file_id).await?;
        if !holds {
            return answer::moved(&record, PLAYLIST_NAME);
        }
        let name = match record.format {
            FileFormat::Hls => PLAYLIST_NAME.to_owned(),
            FileFormat::Flv | FileFormat::Mp4 | FileFormat::Aac => answer::url_name(&record),
        };
        // Relative, so that it holds behind any proxy.
        let mut location = format!("{file_id}/{name}");
        if let Some(query) = uri.query() {
            location = format!("{location}?{query}");
        }
        answer::redirect(&location)
    }

    async fn serve(&self, file_id: &str, name: &str, request: &Parts) -> Result<Response, Fault> {
        let signed = self.admit(&request.uri)?;
        let (record, holds) = self.find(file_id).await?;
        let is_hls = record.format == FileFormat::Hls;
        if !is_hls && !answer::has_extension(name, record.format.name()) {
            return Err(Fault::Unknown);
        }
        if !holds {
            return answer::moved(&record, name);
        }
        let reader = self.readers.clone().try_acquire_owned().map_err(|_| Fault::Busy)?;
        let Some(file) = self.open(&record).await? else { return answer::moved(&record, name) };
        let wanted = if is_hls { name } else { "" };
        let found = file.objects().iter().position(|object| object.name == wanted);
        let object = found.ok_or(Fault::Unknown)?;
        let head = Head {
            file_name: (!is_hls).then(|| answer::file_name(&record)),
            content_type: file.objects()[object].content_type,
            growing: record.state == FileState::Recording,
            etag: format!("\"{:016x}-{wanted}-{:x}\"", record.id.0, file.objects()[object].len),
        };
        match signed {
            Some(until) if name == PLAYLIST_NAME && is_hls => {
                let text = self.signed_playlist(file, object, file_id, until, reader).await?;
                let etag = format!("\"{:016x}-{until:x}-{:x}\"", record.id.0, text.len());
                Ok(Head { etag, ..head }.answer(request, Content::Text(text)))
            }
            _ => {
                let tasks = self.tasks.clone();
                Ok(head.answer(request, Content::Stored { file, object, tasks, reader }))
            }
        }
    }

    /// The file, open; `None` if its media has just left, or what is left is not all of it.
    async fn open(&self, record: &FileRecord) -> Result<Option<OpenFile>, Fault> {
        let view = FileView { file: record.id, growing: record.state == FileState::Recording };
        let opening = || self.opener.open(record);
        match self.open.get(view, opening).await {
            Ok(file) if record.state == FileState::Delivered && file.total_len() != record.size => {
                self.open.close(record.id);
                Ok(None)
            }
            Ok(file) => Ok(Some(file)),
            Err(ApiError::Ring(RingError::Gone(_))) => Ok(None),
            Err(ApiError::Render(RenderError::NothingToHold { format })) => {
                Err(Fault::Empty(format))
            }
            Err(error) => Err(Fault::Failed(error)),
        }
    }

    /// The playlist with a signature for the file's folder behind each address.
    async fn signed_playlist(
        &self,
        file: OpenFile,
        object: usize,
        file_id: &str,
        until: u64,
        reader: OwnedSemaphorePermit,
    ) -> Result<Bytes, Fault> {
        let len = file.objects()[object].len;
        if len > SIGNED_PLAYLIST_BYTES_MAX {
            let what = format!("a playlist of {len} bytes is too long to be signed");
            return Err(Fault::Failed(ApiError::BadRequest(what)));
        }
        let key = self.key.clone().unwrap_or_default();
        let query = signed_url::sign(&key, &format!("/files/{file_id}"), until);
        let read = self.tasks.spawn_blocking(move || {
            let _reader = reader;
            let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_at(object, 0, &mut text)?;
            Ok(Bytes::from(with_query(&String::from_utf8_lossy(&text), &query)))
        });
        let read = read.await.unwrap_or(Err(ApiError::Ring(RingError::Closed)));
        read.map_err(Fault::Failed)
    }
}

async fn redirect(
    State(desk): State<Arc<FileDesk>>,
    Path(file_id): Path<String>,
    uri: Uri,
) -> Response {
    desk.redirect(&file_id, &uri).await.unwrap_or_else(IntoResponse::into_response)
}

async fn serve(
    State(desk): State<Arc<FileDesk>>,
    Path((file_id, name)): Path<(String, String)>,
    request: Parts,
) -> Response {
    desk.serve(&file_id, &name, &request).await.unwrap_or_else(IntoResponse::into_response)
}
