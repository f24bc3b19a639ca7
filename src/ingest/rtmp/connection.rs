//! One connection: moves bytes between the socket and the session, and events to the assembler.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::limits::PUBLISHER_SILENT_MS;
use crate::ingest::admission::LiveKey;
use crate::ingest::intake::{Arrival, EndCause, Protocol, Refusal};
use crate::ingest::rtmp::assembler::Assembler;
use crate::ingest::rtmp::{BEFORE_PUBLISH_MAX, Context};
use crate::platform::net;
use crate::platform::random::random_u64;
use crate::wire::rtmp::amf0::{VALUES_MAX, Value};
use crate::wire::rtmp::receive_buffer::ReceiveBuffer;
use crate::wire::rtmp::server::{ServerEvent, ServerSession};
use crate::wire::rtmp::url::PublishUrl;
use crate::wire::rtmp::{MESSAGE_BYTES_BEFORE_PUBLISH, OUTPUT_BYTES_MAX, RtmpError};

/// Room between the socket and the session, before and after the publish is accepted.
const BUFFER_BYTES_BEFORE_PUBLISH: usize = 8 << 10;
const BUFFER_BYTES_PUBLISHING: usize = 64 << 10;
/// A publisher that was told why it is closed has so long, and so many bytes, to read it.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
const FAREWELL_BYTES_MAX: usize = 1 << 20;
/// What a stranger can make a connection hold: the buffer; a message, its texts, and the two of
/// them that are kept; its values (twice, as lists grow by doubling); replies here and in the
/// session.
const BYTES_BEFORE_PUBLISH: usize = BUFFER_BYTES_BEFORE_PUBLISH
    + 3 * MESSAGE_BYTES_BEFORE_PUBLISH
    + 2 * VALUES_MAX * size_of::<(String, Value)>()
    + 2 * OUTPUT_BYTES_MAX;
const _: () = assert!(BYTES_BEFORE_PUBLISH <= 64 << 10);
const SILENT_MAX: Duration = Duration::from_millis(PUBLISHER_SILENT_MS);

/// A publish that was accepted. Fields drop in this order: the stream has ended when its key is
/// free.
struct Publish {
    assembler: Assembler,
    replaced: CancellationToken,
    cancelled: CancellationToken,
    broken_tags: u64,
    live: LiveKey,
}

/// Why a connection is closed.
enum Close {
    /// By the peer, or the socket broke.
    Lost(Option<io::Error>),
    /// The peer broke a rule.
    Faulty(RtmpError),
    /// It did not publish in time.
    TooSlow,
    /// Its publish was refused.
    Refused(String),
    /// It may not publish; the check has logged that at its own pace.
    Denied(String),
    /// Nothing came for too long.
    Silent,
    /// Another publisher took over.
    Replaced,
    /// The box wants it.
    Cancelled,
    /// Too many connections are waiting to publish.
    Crowded,
}

impl Close {
    fn cause(&self) -> EndCause {
        match self {
            Close::Lost(None) => {
                EndCause::Disconnected("the peer closed the connection".to_owned())
            }
            Close::Lost(Some(error)) => EndCause::Disconnected(error.to_string()),
            Close::Faulty(error) => EndCause::Faulty(error.to_string()),
            Close::Refused(why) | Close::Denied(why) => EndCause::Faulty(why.clone()),
            Close::Silent | Close::TooSlow => EndCause::Silent,
            Close::Replaced => EndCause::Replaced,
            Close::Cancelled | Close::Crowded => EndCause::Cancelled,
        }
    }
}

/// What woke the connection.
enum Woken {
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Deadline,
    Close(Close),
}

/// Writes if there is something to be written, else or if that has to wait reads.
fn poll_stream(
    stream: &mut dyn net::Connection,
    output: &[u8],
    buffer: &mut ReceiveBuffer,
    context: &mut task::Context<'_>,
) -> Poll<Woken> {
    let mut stream = Pin::new(stream);
    if !output.is_empty()
        && let Poll::Ready(wrote) = stream.as_mut().poll_write(context, output)
    {
        return Poll::Ready(Woken::Wrote(wrote));
    }
    let mut room = ReadBuf::new(buffer.room());
    let read = stream.poll_read(context, &mut room);
    read.map(|read| Woken::Read(read.map(|()| room.filled().len())))
}

pub(super) struct Connection {
    context: Arc<Context>,
    peer: SocketAddr,
    stream: Box<dyn net::Connection>,
    /// Writing failed: replies are thrown away, but what still comes is read.
    deaf: bool,
    session: ServerSession,
    buffer: ReceiveBuffer,
    output: BytesMut,
    publish: Option<Publish>,
    /// Held while nothing is published.
    permit: Option<OwnedSemaphorePermit>,
    /// When the connection is closed unless it publishes.
    publish_by: Instant,
    heard: Instant,
}

impl Connection {
    pub(super) fn new(
        context: Arc<Context>,
        stream: Box<dyn net::Connection>,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Connection {
            context,
            peer,
            stream,
            deaf: false,
            session: ServerSession::new(random_u64()),
            buffer: ReceiveBuffer::new(BUFFER_BYTES_BEFORE_PUBLISH),
            output: BytesMut::new(),
            publish: None,
            permit: Some(permit),
            publish_by: Instant::now() + BEFORE_PUBLISH_MAX,
            heard: Instant::now(),
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self) {
        let close = loop {
            let woken = self.wait().await;
            if let Err(close) = self.handle(woken).await {
                break close;
            }
        };
        self.close(close).await;
    }

    async fn wait(&mut self) -> Woken {
        // Before there is a publish only the shutdown can end the connection from outside.
        let (replaced, cancelled) = match &self.publish {
            Some(publish) => (&publish.replaced, &publish.cancelled),
            None => (&self.context.shutdown, &self.context.shutdown),
        };
        let deadline = match &self.publish {
            None => self.publish_by,
            Some(publish) => self.deadline_publishing(publish),
        };
        let (stream, output, buffer) = (&mut self.stream, &self.output, &mut self.buffer);
        let moved = poll_fn(|context| poll_stream(&mut **stream, output, buffer, context));
        tokio::select! {
            biased;
            () = self.context.shutdown.cancelled() => Woken::Close(Close::Cancelled),
            () = cancelled.cancelled() => Woken::Close(Close::Cancelled),
            () = replaced.cancelled() => Woken::Close(Close::Replaced),
            woken = moved => woken,
            () = sleep_until(deadline) => Woken::Deadline,
        }
    }

    /// The earlier of silence and the end of holding samples.
    fn deadline_publishing(&self, publish: &Publish) -> Instant {
        let silent = self.heard + SILENT_MAX;
        let Some(until) = publish.assembler.held_until() else { return silent };
        let left = until.since(self.context.clock.now().boot);
        silent.min(Instant::now() + left)
    }

    async fn handle(&mut self, woken: Woken) -> Result<(), Close> {
        match woken {
            Woken::Close(close) => return Err(close),
            Woken::Wrote(Ok(len)) if len > 0 => {
                let _ = self.output.split_to(len);
            }
            Woken::Wrote(_) => {
                self.deaf = true;
                self.output.clear();
            }
            Woken::Read(Ok(0)) => return Err(Close::Lost(None)),
            Woken::Read(Err(error)) => return Err(Close::Lost(Some(error))),
            Woken::Read(Ok(len)) => {
                self.buffer.fill(len);
                let held = self.session.bytes_held();
                let received = self.receive().await;
                // A large sample on a slow link is media too; acknowledgements and pings are not.
                if self.session.bytes_held() > held {
                    self.hear();
                }
                return received;
            }
            Woken::Deadline => match &mut self.publish {
                None => return Err(Close::TooSlow),
                Some(_) if self.heard.elapsed() >= SILENT_MAX => return Err(Close::Silent),
                Some(publish) => publish.assembler.tick(self.context.clock.now().boot),
            },
        }
        Ok(())
    }

    /// Media comes: the publisher is alive.
    fn hear(&mut self) {
        self.heard = Instant::now();
        if let Some(publish) = &self.publish {
            publish.live.touch(self.context.clock.now().boot);
        }
    }

    /// Lets the session work through what was read.
    async fn receive(&mut self) -> Result<(), Close> {
        loop {
            let received = self.session.receive(self.buffer.filled());
            self.collect_output();
            let (used, event) = received.map_err(Close::Faulty)?;
            self.buffer.consume(used);
            let Some(event) = event else { break };
            self.take(event).await?;
            self.collect_output();
        }
        if self.output.len() > OUTPUT_BYTES_MAX {
            return Err(Close::Faulty(RtmpError::OutputFull));
        }
        Ok(())
    }

    fn collect_output(&mut self) {
        let new = self.session.output();
        if self.deaf {
            new.clear();
        } else if self.output.is_empty() {
            std::mem::swap(&mut self.output, new);
        } else {
            self.output.extend_from_slice(new);
            new.clear();
        }
    }

    async fn take(&mut self, event: ServerEvent) -> Result<(), Close> {
        let now = self.context.clock.now().boot;
        if matches!(event, ServerEvent::Video { .. } | ServerEvent::Audio { .. }) {
            self.hear();
        }
        let result = match (event, &mut self.publish) {
            (ServerEvent::Publish(url), _) => return self.begin(url).await,
            (ServerEvent::Unpublish, _) => return self.unpublish(),
            (ServerEvent::Video { timestamp_ms, body }, Some(publish)) => {
                publish.assembler.video(timestamp_ms, &body, now)
            }
            (ServerEvent::Audio { timestamp_ms, body }, Some(publish)) => {
                publish.assembler.audio(timestamp_ms, &body, now)
            }
            (ServerEvent::ScriptData(body), Some(publish)) => {
                publish.assembler.script_data(body);
                Ok(())
            }
            (_, None) => Ok(()),
        };
        if let (Err(error), Some(publish)) = (result, &mut self.publish) {
            publish.broken_tags += 1;
            // Once a stream: a broken encoder would fill the log.
            if publish.broken_tags == 1 {
                tracing::warn!(key = %publish.live.key(), %error, "tag left out");
            }
        }
        Ok(())
    }

    async fn begin(&mut self, url: PublishUrl) -> Result<(), Close> {
        let PublishUrl { key, query } = url;
        if let Err(why) = self.context.check.check(&key, &query) {
            self.refuse("NetStream.Publish.Denied", &why);
            return Err(Close::Denied(why));
        }
        let place = self.context.intake.place(&key, &query);
        let admitted = tokio::select! {
            admitted = self.context.admission.admit(&place) => admitted,
            () = self.context.shutdown.cancelled() => return Err(Close::Cancelled),
        };
        let peer = self.peer.to_string();
        let arrival = Arrival { key: key.clone(), protocol: Protocol::Rtmp, query, peer };
        let taken = admitted.and_then(|live| Ok((live, self.context.intake.admit(&arrival)?)));
        let (live, sink) = taken.map_err(|refusal| {
            let code = match refusal {
                Refusal::AlreadyPublishing => "NetStream.Publish.BadName",
                Refusal::Full | Refusal::Unavailable(_) => "NetStream.Publish.Failed",
            };
            let why = refusal.to_string();
            self.refuse(code, &why);
            Close::Refused(why)
        })?;
        tracing::info!(%key, "publish begins");
        let assembler = Assembler::new(sink);
        let (replaced, cancelled) = (live.replaced(), assembler.cancelled());
        self.publish = Some(Publish { assembler, replaced, cancelled, broken_tags: 0, live });
        self.permit = None;
        self.heard = Instant::now();
        self.buffer.resize(BUFFER_BYTES_PUBLISHING);
        self.stream.read_in_beats();
        self.session.accept();
        Ok(())
    }

    fn refuse(&mut self, code: &str, why: &str) {
        self.session.refuse(code, why);
        self.collect_output();
    }

    fn unpublish(&mut self) -> Result<(), Close> {
        self.end_publish(EndCause::Finished);
        self.publish_by = Instant::now() + BEFORE_PUBLISH_MAX;
        let permit = Arc::clone(&self.context.before_publish).try_acquire_owned();
        self.permit = Some(permit.map_err(|_| Close::Crowded)?);
        Ok(())
    }

    fn end_publish(&mut self, cause: EndCause) {
        if let Some(publish) = self.publish.take() {
            let Publish { assembler, live, broken_tags, .. } = publish;
            tracing::info!(key = %live.key(), %cause, broken_tags, "publish ends");
            assembler.end(cause);
        }
    }

    /// Ends the stream first (its key is free then), tells the peer after that.
    async fn close(mut self, close: Close) {
        let cause = close.cause();
        if self.publish.is_none() {
            tracing::debug!(%cause, "closed before anything was published");
        }
        if let Close::Refused(why) = &close {
            tracing::warn!(why, "publish refused");
        }
        self.end_publish(cause.clone());
        if matches!(close, Close::Lost(_)) {
            return;
        }
        self.session.kick(&cause.to_string());
        self.collect_output();
        self.permit = None;
        let _ = timeout(FAREWELL_MAX, self.farewell()).await;
    }

    /// Sends what is left and waits for the peer to close: closing with bytes unread would throw
    /// away what it has not read yet.
    async fn farewell(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.stream.shutdown().await?;
        let mut rest = [0; 4096];
        let mut read = 0;
        while read < FAREWELL_BYTES_MAX {
            match self.stream.read(&mut rest).await? {
                0 => break,
                len => read += len,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::domain::sample::{Sample, Track};
    use crate::ingest::admission::Admission;
    use crate::ingest::intake::{Intake, StreamSink};
    use crate::ingest::rtmp::AnyPublisher;
    use crate::platform::clock::SystemClock;
    use crate::wire::rtmp::chunk_writer::{ChunkWriter, Place};
    use crate::wire::rtmp::command::command_body;
    use crate::wire::rtmp::message;

    /// A peer that has sent all it will send, and reads nothing any more.
    struct GonePeer {
        sent: io::Cursor<Vec<u8>>,
    }

    impl AsyncRead for GonePeer {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut task::Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            // In pieces, so that writing has its turns.
            let mut piece = [0; 700];
            let mut piece = ReadBuf::new(&mut piece);
            let read = Pin::new(&mut self.sent).poll_read(context, &mut piece);
            buf.put_slice(piece.filled());
            read
        }
    }

    impl AsyncWrite for GonePeer {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl net::Connection for GonePeer {}

    #[derive(Default)]
    struct Counted {
        samples: usize,
        end: Option<EndCause>,
    }

    #[derive(Clone, Default)]
    struct Counter(Arc<Mutex<Counted>>);

    impl Intake for Counter {
        fn admit(&self, _: &Arrival) -> Result<Box<dyn StreamSink>, Refusal> {
            Ok(Box::new(self.clone()))
        }
    }

    impl StreamSink for Counter {
        fn cancelled(&self) -> CancellationToken {
            CancellationToken::new()
        }

        fn tracks(&mut self, _: &[Track], _: &[String]) {}

        fn script_data(&mut self, _: Bytes) {}

        fn sample(&mut self, _: Sample) {
            self.0.lock().expect("no panic inside").samples += 1;
        }

        fn end(self: Box<Self>, cause: EndCause) {
            self.0.lock().expect("no panic inside").end = Some(cause);
        }
    }

    /// Everything a publisher of `frames` G.711 frames sends if it never listens.
    fn deaf_publisher(frames: u32) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.extend_from_slice(&[3]);
        out.extend_from_slice(&[0; 2 * 1536]);
        let mut writer = ChunkWriter::default();
        let place = |kind, chunk_stream| Place { chunk_stream, kind, stream_id: 1 };
        let object =
            Value::object([("app", Value::text("live")), ("tcUrl", Value::text("rtmp://h/live"))]);
        let name = [Value::Null, Value::text("s")];
        for body in [command_body("connect", 1.0, &[object]), command_body("publish", 2.0, &name)] {
            writer.write(&mut out, place(message::COMMAND_AMF0, 3), 0, [&body, &[]]);
        }
        for number in 0..frames {
            let body: [&[u8]; 2] = [b"\x72", &[1; 160]];
            writer.write(&mut out, place(message::AUDIO, 4), number * 20, body);
        }
        out.to_vec()
    }

    #[tokio::test]
    async fn a_peer_that_hears_nothing_any_more_is_read_to_the_end() {
        let counter = Counter::default();
        let clock = Arc::new(SystemClock::new());
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned().expect("one");
        let context = Arc::new(Context {
            clock: clock.clone(),
            intake: Arc::new(counter.clone()),
            admission: Admission::new(clock),
            check: Arc::new(AnyPublisher),
            before_publish: permits,
            shutdown: CancellationToken::new(),
        });
        let peer = GonePeer { sent: io::Cursor::new(deaf_publisher(500)) };
        let addr = ([127, 0, 0, 1], 1).into();
        Connection::new(context, Box::new(peer), addr, permit).run().await;
        let counted = counter.0.lock().expect("no panic inside");
        assert_eq!(counted.samples, 500);
        assert!(matches!(counted.end, Some(EndCause::Disconnected(_))));
    }
}
