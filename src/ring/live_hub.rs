//! Streams as they come in, for those who watch: each finished fragment goes to the ring and, if
//! anybody watches its stream, from here to them too.
//!
//! Nothing waits for a viewer. A viewer holds at most [`PIECES_HELD_MAX`] fragments (a few seconds,
//! shared between the viewers of a stream); one that is further behind is dropped, and told so.
//! Without a viewer a fragment costs one look at a flag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::domain::stream_key::StreamKey;

/// Fragments that wait for a viewer; with one more it is dropped.
pub const PIECES_HELD_MAX: usize = 8;

/// A fragment as viewers get it. Cheap to make: all bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePiece {
    /// `ftyp` and `moov` of its segment. Another one than before: what came before cannot be
    /// played on, so viewers end.
    pub init: Bytes,
    /// Decoding can start here.
    pub key: bool,
    /// `moof` and the head of `mdat`.
    pub head: Bytes,
    /// The payload of `mdat`, sample by sample.
    pub payload: Vec<Bytes>,
}

/// The viewer took too little for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the viewer was too slow")]
pub struct TooSlow;

/// All streams that can be watched.
#[derive(Debug, Default)]
pub struct LiveHub {
    streams: Mutex<HashMap<StreamKey, Arc<Stream>>>,
    sources: AtomicU64,
}

/// A stream and who watches it. Locked after the table of streams.
#[derive(Debug, Default)]
struct Stream {
    /// Whether there may be viewers.
    watched: AtomicBool,
    /// The number of the source that owns it.
    owner: AtomicU64,
    viewers: Mutex<Vec<Viewing>>,
}

/// The hub's end of a viewer.
#[derive(Debug)]
struct Viewing {
    to: Sender<Arc<LivePiece>>,
    /// What it began with; `None` while it waits for its first fragment.
    init: Option<Bytes>,
    /// The next fragment must be one where decoding can start.
    needs_key: bool,
    too_slow: Arc<AtomicBool>,
}

/// Somebody who watches a stream, from its next key fragment on.
#[derive(Debug)]
pub struct LiveViewer {
    from: Receiver<Arc<LivePiece>>,
    too_slow: Arc<AtomicBool>,
}

/// The way into the hub for one stream; the stream ends for its viewers when this is dropped.
#[derive(Debug)]
pub struct LiveSource {
    hub: Arc<LiveHub>,
    key: StreamKey,
    stream: Arc<Stream>,
    number: u64,
}

impl LiveHub {
    /// A stream can be watched from now on. Viewers of an older source of the same key go over to
    /// the new one, at a key fragment and if its `init` is theirs; what the older one still says
    /// is not heard.
    #[must_use]
    pub fn begin(self: &Arc<Self>, key: StreamKey) -> LiveSource {
        let number = 1 + self.sources.fetch_add(1, Ordering::Relaxed);
        let mut streams = self.streams();
        let stream = streams.entry(key.clone()).or_default().clone();
        stream.owner.store(number, Ordering::Release);
        stream.viewers().iter_mut().for_each(|viewing| viewing.needs_key = true);
        drop(streams);
        LiveSource { hub: self.clone(), key, stream, number }
    }

    /// Watches a stream; `None` if it is not live.
    #[must_use]
    pub fn watch(&self, key: &StreamKey) -> Option<LiveViewer> {
        // The table stays locked: a stream that ends must not be left with a viewer.
        let streams = self.streams();
        let stream = streams.get(key)?;
        let (to, from) = channel(PIECES_HELD_MAX);
        let too_slow = Arc::new(AtomicBool::new(false));
        let viewing = Viewing { to, init: None, needs_key: true, too_slow: too_slow.clone() };
        let mut viewers = stream.viewers();
        viewers.push(viewing);
        stream.watched.store(true, Ordering::Release);
        drop(viewers);
        Some(LiveViewer { from, too_slow })
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<StreamKey, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveSource {
    /// Hands a fragment to who watches. `piece` is asked for only if somebody does. Never waits
    /// for a viewer.
    pub fn publish(&self, piece: impl FnOnce() -> LivePiece) {
        if !self.stream.watched.load(Ordering::Acquire) || !self.owns() {
            return;
        }
        let piece = Arc::new(piece());
        let mut viewers = self.stream.viewers();
        viewers.retain_mut(|viewing| viewing.take(&piece));
        self.stream.watched.store(!viewers.is_empty(), Ordering::Release);
    }

    fn owns(&self) -> bool {
        self.stream.owner.load(Ordering::Acquire) == self.number
    }
}

impl Drop for LiveSource {
    fn drop(&mut self) {
        let mut streams = self.hub.streams();
        if self.owns() {
            streams.remove(&self.key);
            // Without their senders viewers read what they have, and end.
            self.stream.viewers().clear();
        }
    }
}

impl Stream {
    fn viewers(&self) -> MutexGuard<'_, Vec<Viewing>> {
        self.viewers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Viewing {
    /// Hands a fragment on; tells whether the viewer stays.
    fn take(&mut self, piece: &Arc<LivePiece>) -> bool {
        if self.init.as_ref().is_some_and(|init| *init != piece.init) {
            return false;
        }
        if self.needs_key && !piece.key {
            return !self.to.is_closed();
        }
        self.needs_key = false;
        self.init.get_or_insert_with(|| piece.init.clone());
        match self.to.try_send(piece.clone()) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.too_slow.store(true, Ordering::Release);
                false
            }
        }
    }
}

impl LiveViewer {
    /// The next fragment; `None` when the stream has ended.
    ///
    /// # Errors
    /// The viewer was dropped from the stream, as it was too slow. Said after what it held.
    pub async fn next(&mut self) -> Result<Option<Arc<LivePiece>>, TooSlow> {
        match self.from.recv().await {
            Some(piece) => Ok(Some(piece)),
            None if self.too_slow.load(Ordering::Acquire) => Err(TooSlow),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn key(stream: &str) -> StreamKey {
        StreamKey::new("d", "live", stream).expect("a key")
    }

    fn piece(init: &'static str, number: u8, key: bool) -> LivePiece {
        LivePiece {
            init: Bytes::from_static(init.as_bytes()),
            key,
            head: Bytes::from(vec![number]),
            payload: Vec::new(),
        }
    }

    /// What a viewer has now: numbers of fragments, then `end`, `slow` or `wait`.
    fn seen(viewer: &mut LiveViewer) -> (Vec<u8>, &'static str) {
        let mut numbers = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let mut next = Box::pin(viewer.next());
            match next.as_mut().poll(&mut context) {
                Poll::Ready(Ok(Some(piece))) => numbers.push(piece.head[0]),
                Poll::Ready(Ok(None)) => return (numbers, "end"),
                Poll::Ready(Err(TooSlow)) => return (numbers, "slow"),
                Poll::Pending => return (numbers, "wait"),
            }
        }
    }

    #[test]
    fn viewers_begin_at_a_key_fragment_and_end_with_the_stream() {
        let hub = Arc::new(LiveHub::default());
        assert!(hub.watch(&key("s")).is_none());
        let source = hub.begin(key("s"));
        let other = hub.begin(key("other"));
        let mut first = hub.watch(&key("s")).expect("live");
        for (number, is_key) in [(0, false), (1, true), (2, false)] {
            source.publish(|| piece("a", number, is_key));
            other.publish(|| piece("a", 100, true));
        }
        let mut second = hub.watch(&key("s")).expect("live");
        source.publish(|| piece("a", 3, false));
        source.publish(|| piece("a", 4, true));
        assert_eq!(seen(&mut first), (vec![1, 2, 3, 4], "wait"));
        drop(source);
        assert_eq!(seen(&mut first), (vec![], "end"));
        assert_eq!(seen(&mut second), (vec![4], "end"));
        assert!(hub.watch(&key("s")).is_none());
        assert!(hub.watch(&key("other")).is_some());
    }

    #[test]
    fn nothing_is_made_for_nobody() {
        let hub = Arc::new(LiveHub::default());
        let source = hub.begin(key("s"));
        let never = || -> LivePiece { panic!("nobody watches") };
        source.publish(never);
        let viewer = hub.watch(&key("s")).expect("live");
        source.publish(|| piece("a", 0, true));
        drop(viewer);
        // The next one finds out that the viewer has left.
        source.publish(|| piece("a", 1, false));
        source.publish(never);
    }

    #[test]
    fn a_viewer_that_takes_nothing_is_dropped_and_the_others_go_on() {
        let hub = Arc::new(LiveHub::default());
        let source = hub.begin(key("s"));
        let (mut slow, mut quick) =
            (hub.watch(&key("s")).expect("live"), hub.watch(&key("s")).expect("live"));
        let more = u8::try_from(PIECES_HELD_MAX).expect("few") + 3;
        let mut got = Vec::new();
        for number in 0..more {
            source.publish(|| piece("a", number, number == 0));
            got.extend(seen(&mut quick).0);
        }
        assert_eq!(got, (0..more).collect::<Vec<_>>());
        let held: Vec<u8> = (0..more - 3).collect();
        assert_eq!(seen(&mut slow), (held, "slow"));
        assert_eq!(seen(&mut quick), (vec![], "wait"));
    }

    #[test]
    fn other_parameters_end_who_began_before() {
        let hub = Arc::new(LiveHub::default());
        let source = hub.begin(key("s"));
        let mut before = hub.watch(&key("s")).expect("live");
        source.publish(|| piece("a", 0, true));
        let mut between = hub.watch(&key("s")).expect("live");
        source.publish(|| piece("b", 1, true));
        assert_eq!(seen(&mut before), (vec![0], "end"));
        assert_eq!(seen(&mut between), (vec![1], "wait"));
    }

    #[test]
    fn a_newer_source_takes_the_viewers_over_at_a_key_fragment() {
        let hub = Arc::new(LiveHub::default());
        let old = hub.begin(key("s"));
        let mut viewer = hub.watch(&key("s")).expect("live");
        old.publish(|| piece("a", 0, true));
        let new = hub.begin(key("s"));
        old.publish(|| piece("a", 1, true));
        drop(old);
        new.publish(|| piece("a", 2, false));
        new.publish(|| piece("a", 3, true));
        assert_eq!(seen(&mut viewer), (vec![0, 3], "wait"));
        drop(new);
        assert_eq!(seen(&mut viewer), (vec![], "end"));
    }
}
