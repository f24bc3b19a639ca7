//! The bytes of an answer, read from flash as the client takes them: one piece is on its way and
//! one is being read, on a thread that may block. A client that is gone drops the body, and with
//! it everything it held.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::api::export::PIECE_BYTES;
use crate::api::files::open_files::OpenFile;
use crate::media::render::RenderError;

/// A stretch of one object of a file.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// The object, by its place in the rendering.
    pub object: usize,
    /// First byte.
    pub from: u64,
    /// The byte behind the last.
    pub until: u64,
}

/// The file cannot be read to its end; the client sees that bytes are missing.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    /// The media cannot be read any more.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The reading panicked, or the box is shutting down.
    #[error("reading ended")]
    Ended(#[from] tokio::task::JoinError),
}

/// The body of an answer.
pub struct FileBody {
    file: OpenFile,
    /// What is not yet being read.
    rest: Stretch,
    /// Bytes not yet given out.
    left: u64,
    reading: Option<JoinHandle<Result<Bytes, RenderError>>>,
    tasks: TaskTracker,
    _reader: OwnedSemaphorePermit,
}

impl FileBody {
    /// The bytes of `stretch`, which lies inside the object; pieces are read by `tasks`.
    #[must_use]
    pub fn new(
        file: OpenFile,
        stretch: Stretch,
        tasks: TaskTracker,
        reader: OwnedSemaphorePermit,
    ) -> Self {
        let left = stretch.until - stretch.from;
        FileBody { file, rest: stretch, left, reading: None, tasks, _reader: reader }
    }

    /// Begins to read the next piece, if there is one.
    fn read_on(&mut self) {
        let Stretch { object, from, until } = self.rest;
        let len = usize::try_from(until - from).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        if len == 0 {
            return;
        }
        self.rest.from += len as u64;
        let file = Arc::clone(&self.file);
        self.reading = Some(self.tasks.spawn_blocking(move || {
            let mut piece = vec![0; len];
            file.read_at(object, from, &mut piece)?;
            Ok(piece.into())
        }));
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.reading.is_none() {
            self.read_on();
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let piece = match read.map_err(BrokenOff::from).and_then(|read| Ok(read?)) {
            Ok(piece) => piece,
            Err(problem) => {
                error!(%problem, cause = ?std::error::Error::source(&problem),
                    "a file that is being read breaks off");
                self.rest.from = self.rest.until;
                return Poll::Ready(Some(Err(problem)));
            }
        };
        self.left -= piece.len() as u64;
        self.read_on();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::media::clip::ClipError;
    use crate::media::render::{Object, Rendering};

    const LEN: u64 = 40 * PIECE_BYTES as u64 + 3;

    /// Counts how often it is read; fails from a byte on.
    struct Counted {
        objects: Vec<Object>,
        reads: AtomicUsize,
        fails_from: u64,
    }

    impl Rendering for Counted {
        fn objects(&self) -> &[Object] {
            &self.objects
        }

        fn read_at(&self, _: usize, offset: u64, buf: &mut [u8]) -> Result<(), RenderError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            for (at, byte) in (offset..).zip(buf.iter_mut()) {
                *byte = u8::try_from(at % 251).expect("small");
            }
            if offset + buf.len() as u64 > self.fails_from {
                return Err(ClipError::Damaged { fragment: 0, what: "a test" }.into());
            }
            Ok(())
        }

        fn dropped_tracks(&self) -> &[String] {
            &[]
        }
    }

    struct Rig {
        file: Arc<Counted>,
        readers: Arc<Semaphore>,
        tasks: TaskTracker,
    }

    impl Rig {
        fn new(fails_from: u64) -> Rig {
            let object = Object { name: String::new(), len: LEN, content_type: "video/mp4" };
            let reads = AtomicUsize::new(0);
            let file = Arc::new(Counted { objects: vec![object], reads, fails_from });
            Rig { file, readers: Arc::new(Semaphore::new(1)), tasks: TaskTracker::new() }
        }

        fn body(&self, from: u64, until: u64) -> FileBody {
            let reader = self.readers.clone().try_acquire_owned().expect("free");
            let stretch = Stretch { object: 0, from, until };
            FileBody::new(self.file.clone(), stretch, self.tasks.clone(), reader)
        }
    }

    async fn next(body: &mut FileBody) -> Option<Result<Bytes, BrokenOff>> {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        Some(frame.map(|frame| frame.into_data().expect("only data")))
    }

    #[tokio::test]
    async fn a_stretch_comes_whole_and_says_how_long_it_is() {
        let rig = Rig::new(LEN);
        for (from, until) in [(0, LEN), (5, 6), (7, LEN - 1), (LEN - 1, LEN), (9, 9)] {
            let mut body = rig.body(from, until);
            let mut at = from;
            while let Some(piece) = next(&mut body).await {
                for byte in piece.expect("read") {
                    assert_eq!(u64::from(byte), at % 251, "at {at}");
                    at += 1;
                }
                assert_eq!(body.size_hint().exact(), Some(until - at));
            }
            assert_eq!((at, body.is_end_stream()), (until, true));
        }
    }

    #[tokio::test]
    async fn a_client_that_is_gone_stops_the_reading_and_holds_nothing() {
        let rig = Rig::new(LEN);
        let mut body = rig.body(0, LEN);
        next(&mut body).await.expect("a piece").expect("read");
        assert_eq!(rig.readers.available_permits(), 0);
        drop(body);
        rig.tasks.close();
        rig.tasks.wait().await;
        assert!(rig.file.reads.load(Ordering::Relaxed) <= 2, "one piece ahead at most");
        assert_eq!(Arc::strong_count(&rig.file), 1);
        assert_eq!(rig.readers.available_permits(), 1);
    }

    #[tokio::test]
    async fn media_that_cannot_be_read_breaks_the_answer_off() {
        let rig = Rig::new(PIECE_BYTES as u64);
        let mut body = rig.body(0, LEN);
        next(&mut body).await.expect("a piece").expect("read");
        assert!(matches!(next(&mut body).await, Some(Err(BrokenOff::Render(_)))));
        assert!(!body.is_end_stream(), "bytes are missing");
        assert!(next(&mut body).await.is_none());
    }
}
