//! Request bodies: short ones whole, media as it is rendered, in small pieces.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::delivery::checksum::Checksums;
use crate::delivery::error::DeliveryError;
use crate::delivery::http::leave::{self, Leave, Voice};
use crate::delivery::shelf::ShelfError;
use crate::delivery::target::{Job, Meter};
use crate::delivery::valve::Valve;

/// Bytes that are rendered at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Pieces that wait between rendering and sending; rendering waits when they are this many.
const CHUNKS_AHEAD: usize = 2;
/// Below this asking costs more than sending.
const ASKED_BYTES_MIN: u64 = 16 << 10;
/// After the answer to a whole request the reader has nothing left to do but end.
const READER_END: Duration = Duration::from_secs(5);

/// A request body of known length.
pub struct RequestBody {
    source: Source,
    /// Bytes that are still to be handed to the connection.
    left: u64,
    /// Bytes that the connection has taken.
    taken: Arc<AtomicU64>,
}

enum Source {
    Whole(Bytes),
    Rendered(Rendered),
}

/// Pieces as they are rendered, let out by the valve.
struct Rendered {
    chunks: mpsc::Receiver<Result<Bytes, io::Error>>,
    meter: Arc<Meter>,
    valve: Arc<Valve>,
    /// What is rendered and not yet let out.
    held: Bytes,
    /// Runs while the valve lets nothing out.
    rest: Option<Pin<Box<Sleep>>>,
    leave: Leave,
    voice: Voice,
}

impl Rendered {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        std::task::ready!(self.leave.poll(context))?;
        if self.held.is_empty() {
            match std::task::ready!(self.chunks.poll_recv(context)) {
                Some(Ok(bytes)) => self.held = bytes,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let wanted = self.held.len();
        let taken = std::task::ready!(self.valve.poll_take(wanted as u64, &mut self.rest, context));
        let taken = usize::try_from(taken).unwrap_or(wanted).min(wanted);
        self.meter.add(taken as u64);
        Poll::Ready(Ok(self.held.split_to(taken)))
    }
}

impl RequestBody {
    /// A body that is there as a whole.
    #[must_use]
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let left = bytes.len() as u64;
        RequestBody { source: Source::Whole(bytes), left, taken: Arc::default() }
    }

    /// Bytes in all that are still to go.
    #[must_use]
    pub(in crate::delivery) fn len(&self) -> u64 {
        self.left
    }

    /// Whether the server is to be asked before media goes out, and who tells its answer.
    pub(super) fn asks_for_leave(&mut self, asks: bool) -> Option<Voice> {
        let Source::Rendered(rendered) = &mut self.source else { return None };
        if asks && self.left >= ASKED_BYTES_MIN {
            return Some(rendered.voice.clone());
        }
        rendered.leave.take_as_given();
        None
    }

    /// Counts what the connection has taken.
    #[must_use]
    pub(super) fn taken(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.taken)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let bytes = match &mut self.source {
            Source::Whole(bytes) => std::mem::take(bytes),
            Source::Rendered(rendered) => match std::task::ready!(rendered.poll_piece(context)) {
                Ok(bytes) => bytes,
                Err(error) => return Poll::Ready(Some(Err(error))),
            },
        };
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Tells the body to stop when it goes.
struct StopOnDrop(Voice);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The reading side of a rendered body. When it goes, no more of the body is sent.
pub struct RangeRead {
    voice: StopOnDrop,
    sums: JoinHandle<Option<Checksums>>,
    /// Set before the request can notice that rendering failed.
    failure: Arc<Mutex<Option<DeliveryError>>>,
}

impl RangeRead {
    /// What a request gave, and the checksums of what it sent. If rendering failed, that is the
    /// error: what the request says of it is only a consequence.
    ///
    /// # Errors
    /// The request or the rendering failed, or the answer came before the whole body was out.
    pub async fn with_answer<T>(
        self,
        answer: Result<T, DeliveryError>,
    ) -> Result<(T, Checksums), DeliveryError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(failure) = failure {
            return Err(failure);
        }
        let answer = answer?;
        let _voice = self.voice;
        // Reading ends with the last piece that the connection took, so at once.
        match tokio::time::timeout(READER_END, self.sums).await {
            Ok(Ok(Some(sums))) => Ok((answer, sums)),
            Ok(Err(error)) => Err(DeliveryError::Shelf(ShelfError::Failed(Box::new(error)))),
            Ok(Ok(None)) | Err(_) => {
                Err(DeliveryError::NoSense("an answer before the request was whole".to_owned()))
            }
        }
    }
}

/// A body with the bytes of `range` of an object of the job, rendered as the connection takes
/// them and the valve lets them out. `sums` are taken along. Holds at most a few pieces of 64 KiB.
#[must_use]
pub fn read_range(
    job: &Job,
    object: usize,
    range: Range<u64>,
    mut sums: Checksums,
) -> (RequestBody, RangeRead) {
    let rendering = Arc::clone(&job.rendering);
    let left = range.end.saturating_sub(range.start);
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    let failure = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&failure);
    let sums = tokio::task::spawn_blocking(move || {
        let mut offset = range.start;
        while offset < range.end {
            let len = (range.end - offset).min(CHUNK_BYTES as u64);
            let mut buf = vec![0; usize::try_from(len).expect("at most a chunk")];
            if let Err(error) = rendering.read_at(object, offset, &mut buf) {
                *noted.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(DeliveryError::Render(error));
                // The request must break off: the store must not take what came so far.
                let _ = sender.blocking_send(Err(io::Error::other("rendering failed")));
                return None;
            }
            sums.update(&buf);
            sender.blocking_send(Ok(buf.into())).ok()?;
            offset += len;
        }
        Some(sums)
    });
    let (meter, valve) = (Arc::clone(&job.meter), Arc::clone(&job.valve));
    let (leave, voice) = leave::ask();
    let stop = StopOnDrop(voice.clone());
    let held = Bytes::new();
    let source =
        Source::Rendered(Rendered { chunks, meter, valve, held, rest: None, leave, voice });
    (RequestBody { source, left, taken: Arc::default() }, RangeRead { voice: stop, sums, failure })
}
