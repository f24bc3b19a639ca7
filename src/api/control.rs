//! The control socket, `edgerec.sock` in the ring: for the command line on the same machine.
//!
//! One connection, one question: a JSON line ([`Request`]), answered with JSON lines; an export
//! with one header line and then the bytes of its objects, without anything between them. An
//! answer that is none is one line `{"error": "..."}`. An answer that breaks off is recognised by
//! what is missing: rows end with their number, and the header of an export has all lengths.
//!
//! Only the owner of the box may connect (mode 0600). Media is read on threads that may block, at
//! most two pieces ahead of the client; a client that is gone, or takes nothing for
//! [`WRITE_TIMEOUT`], ends its export and gives its slots back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use crate::api::ApiError;
use crate::api::explain::explain;
use crate::api::export::Export;
use crate::api::report::{EventRow, ExplainReport, FileRow, Transfer};
use crate::api::request::{ExportOrder, Listed, REQUEST_BYTES_MAX, Refusal, Request, stream_key};
use crate::domain::ids::FileId;
use crate::domain::matching::Decision;
use crate::domain::notice::NoticeSeq;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;
use crate::platform::local_socket;
use crate::ring::catalog::files::FileRecord;
use crate::ring::catalog::open::FileState;
use crate::ring::handle::Ring;

/// A client may take this long to ask.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A client may take nothing for this long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Clients that are served at the same time; more wait their turn.
const CLIENTS_MAX: usize = 16;
/// Pieces of an export between the reader and the client.
const PIECES_AHEAD: usize = 2;
/// Rows that are read from the catalog at once.
const ROWS_AT_ONCE: u32 = 2_048;
/// Events that are read at once; each has its whole body.
pub const EVENTS_AT_ONCE: u32 = 128;
/// A listener out of descriptors waits this long before it accepts again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the box knows beside its ring.
pub trait BoxKnowledge: Send + Sync {
    /// What was decided about the live session of a stream; `None`: there is none.
    fn decision(&self, key: &StreamKey) -> Option<Decision>;
    /// Where the delivery of a queued file stands; `None` without a target.
    fn transfer(&self, file: &FileRecord) -> Option<Transfer>;
}

/// Where the socket of the ring at `ring` is.
#[must_use]
pub fn socket_path(ring: &Path) -> PathBuf {
    ring.join("edgerec.sock")
}

/// The bound socket; it goes when this is dropped.
pub struct ControlSocket {
    path: PathBuf,
    /// `None`: the disk was so full that it had no room for the socket's name.
    listener: Option<UnixListener>,
}

struct Context {
    ring: Arc<Ring>,
    known: Arc<dyn BoxKnowledge>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl ControlSocket {
    /// Binds the socket of the ring at `ring`, in place of a stale one. The caller holds the
    /// ring's lock, so nobody serves it. Must be called inside the runtime. A full disk is no error:
    /// the box records all the same.
    ///
    /// # Errors
    /// Whatever else the file system says.
    pub fn bind(ring: &Path) -> io::Result<Self> {
        let path = socket_path(ring);
        let listener = match local_socket::listen(&path) {
            Err(problem) if problem.kind() == io::ErrorKind::StorageFull => {
                warn!(%problem, "no command on this machine reaches the box until it starts anew");
                None
            }
            listener => Some(listener?),
        };
        let listener = listener.map(|listener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        });
        Ok(ControlSocket { listener: listener.transpose()?, path })
    }

    /// Answers until `shutdown`. Connections are tasks of `tasks`, as are their readers; all end
    /// themselves after `shutdown` and let go of the ring.
    pub async fn run(
        self,
        ring: Arc<Ring>,
        known: Arc<dyn BoxKnowledge>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) {
        let Some(listener) = &self.listener else { return };
        let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
        let context =
            Arc::new(Context { ring, known, tasks: tasks.clone(), shutdown: shutdown.clone() });
        loop {
            let next = async {
                let permit = clients.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                next = next => next,
                () = shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let context = context.clone();
                    tasks.spawn(async move {
                        let _permit = permit;
                        tokio::select! {
                            () = context.serve(stream) => {}
                            () = context.shutdown.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    error!(%error, "the control socket accepts nobody");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Err(error) = local_socket::remove_if_there(&self.path) {
            debug!(%error, "the control socket stays behind");
        }
    }
}

/// Why an answer ended early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client is gone")]
    Client(#[source] io::Error),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl Context {
    async fn serve(&self, stream: UnixStream) {
        let (from, mut to) = stream.into_split();
        let answered = match read_request(from).await {
            Ok(request) => self.answer(request, &mut to).await,
            Err(error) => Err(Broken::Api(error)),
        };
        match answered {
            Ok(()) => {}
            Err(Broken::Api(error)) => {
                let refused = write_line(&mut to, &Refusal { error: error.line() }).await;
                debug!(error = error.line(), told = refused.is_ok(), "a question is refused");
            }
            Err(Broken::Client(error)) => debug!(%error, "a client is gone"),
        }
    }

    async fn answer(&self, request: Request, to: &mut OwnedWriteHalf) -> Result<(), Broken> {
        match request {
            Request::Ls {} => self.list(to).await,
            Request::Events { from } => self.events(NoticeSeq(from), to).await,
            Request::Explain { stream, at } => {
                let report = self.explain(stream_key(&stream)?, at.map(UnixMillis)).await?;
                write_line(to, &report).await
            }
            Request::Export { stream, from, to: until, file, format } => {
                let range = (from, until);
                let order = ExportOrder::read(
                    stream.as_deref(),
                    range,
                    file.as_deref(),
                    format.as_deref(),
                )?;
                self.export(order, to).await
            }
        }
    }

    /// Page by page, so that a long list is never in memory.
    async fn list(&self, to: &mut OwnedWriteHalf) -> Result<(), Broken> {
        let mut last = (i64::MIN, FileId(0));
        let mut listed = 0;
        loop {
            let call = self.ring.catalog.call(move |state| state.files_after(last, ROWS_AT_ONCE));
            let page = call.await.map_err(ApiError::from)?;
            let Some(end) = page.last() else { break };
            last = (end.start_ms, end.id);
            for record in &page {
                listed += 1;
                let queued = record.state == FileState::Queued;
                let transfer = if queued { self.known.transfer(record) } else { None };
                write_line(to, &FileRow::new(record, transfer)).await?;
            }
        }
        write_line(to, &Listed { listed }).await
    }

    /// Page by page, as [`list`](Self::list).
    async fn events(&self, mut from: NoticeSeq, to: &mut OwnedWriteHalf) -> Result<(), Broken> {
        let mut listed = 0;
        loop {
            let call = self.ring.catalog.call(move |state| state.events_from(from, EVENTS_AT_ONCE));
            let page = call.await.map_err(ApiError::from)?;
            let Some(last) = page.last() else { break };
            from = NoticeSeq(last.seq.0 + 1);
            for record in &page {
                listed += 1;
                write_line(to, &EventRow::new(record)).await?;
            }
        }
        write_line(to, &Listed { listed }).await
    }

    async fn explain(
        &self,
        key: StreamKey,
        at: Option<UnixMillis>,
    ) -> Result<ExplainReport, ApiError> {
        let presence = self.known.decision(&key).into();
        let call = self.ring.catalog.call(move |state| explain(state, presence, &key, at));
        Ok(call.await?)
    }

    async fn export(&self, order: ExportOrder, to: &mut OwnedWriteHalf) -> Result<(), Broken> {
        let (pieces_in, mut pieces) = mpsc::channel::<Result<Vec<u8>, ApiError>>(PIECES_AHEAD);
        let ring = self.ring.clone();
        self.tasks.spawn_blocking(move || {
            if let Err(Broken::Api(error)) = read_export(&ring, &order, &pieces_in) {
                // Whoever waits for it may be gone.
                let _ = pieces_in.blocking_send(Err(error));
            }
        });
        let mut begun = false;
        while let Some(piece) = pieces.recv().await {
            match piece {
                Ok(piece) => write(to, &piece).await?,
                // Behind the header there is no room for words: the client sees what is missing.
                Err(problem) if begun => {
                    error!(problem = problem.line(), "an export breaks off");
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            begun = true;
        }
        Ok(())
    }
}

/// The header line, then all bytes, to a client that may go away.
fn read_export(
    ring: &Ring,
    order: &ExportOrder,
    pieces: &mpsc::Sender<Result<Vec<u8>, ApiError>>,
) -> Result<(), Broken> {
    let send = |piece| {
        let gone = |_| Broken::Client(io::ErrorKind::BrokenPipe.into());
        pieces.blocking_send(Ok(piece)).map_err(gone)
    };
    let export = Export::open(ring, order)?;
    send(line_of(&export.header()))?;
    export.read(send)
}

async fn read_request(from: OwnedReadHalf) -> Result<Request, ApiError> {
    let bad = |what: &str| ApiError::BadRequest(what.to_owned());
    let mut line = Vec::new();
    // One byte more than allowed tells a long line from a whole one.
    let mut from = BufReader::new(from).take(REQUEST_BYTES_MAX as u64 + 1);
    match timeout(REQUEST_TIMEOUT, from.read_until(b'\n', &mut line)).await {
        Err(_) => return Err(bad("no question came")),
        Ok(Err(error)) => return Err(ApiError::BadRequest(error.to_string())),
        Ok(Ok(_)) if line.len() > REQUEST_BYTES_MAX => return Err(bad("the question is too long")),
        Ok(Ok(_)) if line.last() != Some(&b'\n') => return Err(bad("the question breaks off")),
        Ok(Ok(_)) => {}
    }
    serde_json::from_slice(&line)
        .map_err(|error| ApiError::BadRequest(format!("this is no question: {error}")))
}

fn line_of(answer: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).expect("plain fields");
    line.push(b'\n');
    line
}

async fn write_line(to: &mut OwnedWriteHalf, answer: &impl Serialize) -> Result<(), Broken> {
    write(to, &line_of(answer)).await
}

async fn write(to: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<(), Broken> {
    match timeout(WRITE_TIMEOUT, to.write_all(bytes)).await {
        Ok(written) => written.map_err(Broken::Client),
        Err(_) => Err(Broken::Client(io::ErrorKind::TimedOut.into())),
    }
}
