//! Leave to send a body: the server is asked first (`Expect: 100-continue`), so that a refusal
//! costs no media. A server that says nothing gets the body after a second; one that refuses or is
//! given up gets no more of it.
//!
//! # Specification
//! RFC 9110, 10.1.1.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;

/// A server that knows nothing of the question is waited for so long.
const ANSWER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Asked,
    Go,
    Stop,
}

/// Says go or stop; the last one that is dropped says nothing.
#[derive(Clone)]
pub(super) struct Voice(Arc<watch::Sender<Word>>);

impl Voice {
    /// The server wants the body.
    pub(super) fn go(&self) {
        self.0.send_if_modified(|word| {
            let asked = *word == Word::Asked;
            if asked {
                *word = Word::Go;
            }
            asked
        });
    }

    /// Nobody wants the body any more.
    pub(super) fn stop(&self) {
        self.0.send_replace(Word::Stop);
    }
}

/// What a body asks before each piece.
pub(super) struct Leave {
    word: watch::Receiver<Word>,
    /// Waits for the first word.
    first: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// A body's leave, and the voice that gives it.
pub(super) fn ask() -> (Leave, Voice) {
    let (voice, word) = watch::channel(Word::Asked);
    let mut first = word.clone();
    let first = async move {
        let spoken = first.wait_for(|word| *word != Word::Asked);
        // Silence is leave too.
        let _ = tokio::time::timeout(ANSWER, spoken).await;
    };
    (Leave { word, first: Some(Box::pin(first)) }, Voice(Arc::new(voice)))
}

impl Leave {
    /// Nothing was asked of the server: only a stop counts.
    pub(super) fn take_as_given(&mut self) {
        self.first = None;
    }

    /// Ready when a piece may go.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(first) = &mut self.first {
            std::task::ready!(first.as_mut().poll(context));
            self.first = None;
        }
        let stopped = *self.word.borrow() == Word::Stop;
        Poll::Ready(if stopped { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) })
    }
}
