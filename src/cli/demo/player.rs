//! The player: pushes a reel over RTMP in the time of its media, as an encoder does. The demo has
//! one; the bench has twenty.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::demo::reel::Reel;
use crate::media::flv::demux::FlvTag;
use crate::media::flv::mux::{TAG_AUDIO, TAG_VIDEO};
use crate::platform::net::{Connection, Net};
use crate::platform::random::random_u64;
use crate::wire::rtmp::RtmpError;
use crate::wire::rtmp::client::{ClientEvent, ClientSession};

/// A server that does not agree to a publish within this time never will.
const AGREE_WITHIN: Duration = Duration::from_secs(10);
/// How long a server may take to close its side after the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// Frames that are late are sent together up to this many bytes.
const WRITE_BYTES: usize = 64 << 10;
/// Room for answers; the session asks for 2 KiB.
const ANSWER_BYTES: usize = 4 << 10;

/// Where and what to publish.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The server.
    pub server: SocketAddr,
    /// The app.
    pub app: String,
    /// The stream.
    pub stream: String,
}

/// How far a player is, for those who watch.
#[derive(Debug, Default)]
pub struct Played {
    media_bytes: AtomicU64,
    media_ms: AtomicU64,
    over: AtomicBool,
}

/// A play that ended before it was to.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The connection cannot be made, or breaks.
    #[error("the connection failed")]
    Link(#[from] io::Error),
    /// The server refuses or breaks the protocol.
    #[error(transparent)]
    Rtmp(#[from] RtmpError),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server never agreed to the publish.
    #[error("the server did not answer within {} s", AGREE_WITHIN.as_secs())]
    Silent,
}

/// A reel and the pace at which it is played.
#[derive(Debug, Clone, Copy)]
pub struct Player<'a> {
    /// What is played.
    pub reel: &'a Reel,
    /// When its time 0 is due.
    pub begin: Instant,
    /// Media time after which it ends by itself; `None` is never.
    pub length: Option<Duration>,
    /// Counts what is sent.
    pub played: &'a Played,
}

impl Played {
    /// Bytes of tag bodies sent.
    #[must_use]
    pub fn media_bytes(&self) -> u64 {
        self.media_bytes.load(Ordering::Relaxed)
    }

    /// Media time sent, in milliseconds.
    #[must_use]
    pub fn media_ms(&self) -> u64 {
        self.media_ms.load(Ordering::Relaxed)
    }

    /// Whether leave is being taken, or has been: no more media comes.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Stage {
    /// Where an encoder connects to: `rtmp://host:port/app`.
    #[must_use]
    pub fn tc_url(&self) -> String {
        format!("rtmp://{}/{}", self.server, self.app)
    }
}

/// A publish that the server has agreed to.
struct Link {
    session: ClientSession,
    reader: ReadHalf<Box<dyn Connection>>,
    writer: WriteHalf<Box<dyn Connection>>,
    input: BytesMut,
}

impl Player<'_> {
    /// Publishes the reel until its length is over or `stop` is cancelled, and takes leave.
    ///
    /// # Errors
    /// The server refuses, goes away or breaks the protocol.
    pub async fn play(
        &self,
        net: &dyn Net,
        stage: &Stage,
        stop: &CancellationToken,
    ) -> Result<(), PlayError> {
        let mut link = timeout(AGREE_WITHIN, Link::open(net, stage))
            .await
            .map_err(|_| PlayError::Silent)??;
        for tag in self.reel.opening() {
            send(&mut link.session, 0, tag);
        }
        tokio::select! {
            played = self.play_frames(&mut link) => played?,
            () = stop.cancelled() => {}
        }
        self.played.over.store(true, Ordering::Relaxed);
        timeout(CLOSE_WITHIN, link.close()).await.unwrap_or(Ok(()))
    }

    /// Sends frame after frame. Dropped between two bytes of a message it leaves the rest in the
    /// session's output, so that leave can still be taken.
    async fn play_frames(&self, link: &mut Link) -> Result<(), PlayError> {
        let mut number = 0;
        loop {
            link.flush().await?;
            let (time_ms, tag) = self.reel.frame(number);
            let time = Duration::from_millis(time_ms);
            if self.length.is_some_and(|length| time >= length) {
                return Ok(());
            }
            let due = self.begin + time;
            tokio::select! {
                biased;
                () = sleep_until(due) => {}
                answered = link.receive() => {
                    answered?;
                    continue;
                }
            }
            self.send_due(link, &mut number, time_ms, tag);
        }
    }

    /// Sends a frame that is due, and those after it that are late already.
    fn send_due(&self, link: &mut Link, number: &mut u64, time_ms: u64, tag: &FlvTag) {
        let now = Instant::now();
        let (mut time_ms, mut tag) = (time_ms, tag);
        loop {
            send(&mut link.session, time_ms, tag);
            self.played.media_bytes.fetch_add(tag.body.len() as u64, Ordering::Relaxed);
            self.played.media_ms.store(time_ms, Ordering::Relaxed);
            *number += 1;
            (time_ms, tag) = self.reel.frame(*number);
            let time = Duration::from_millis(time_ms);
            let over = self.length.is_some_and(|length| time >= length);
            if over || self.begin + time > now || link.session.output().len() >= WRITE_BYTES {
                return;
            }
        }
    }
}

/// Appends a tag to what is to be sent. RTMP keeps time modulo 2^32 ms.
fn send(session: &mut ClientSession, time_ms: u64, tag: &FlvTag) {
    let timestamp_ms = time_ms as u32;
    match tag.kind {
        TAG_VIDEO => session.send_video(timestamp_ms, [&tag.body, &[]]),
        TAG_AUDIO => session.send_audio(timestamp_ms, [&tag.body, &[]]),
        _ => session.send_script_data(&tag.body),
    }
}

impl Link {
    async fn open(net: &dyn Net, stage: &Stage) -> Result<Link, PlayError> {
        let host = stage.server.ip().to_string();
        let connection = net.connect(&host, stage.server.port()).await?;
        let (reader, writer) = tokio::io::split(connection);
        let session = ClientSession::new(random_u64(), &stage.tc_url(), &stage.stream);
        let input = BytesMut::with_capacity(ANSWER_BYTES);
        let mut link = Link { session, reader, writer, input };
        loop {
            link.flush().await?;
            if link.receive().await? == Some(ClientEvent::Publishing) {
                return Ok(link);
            }
        }
    }

    /// Writes out what is to be sent. May be dropped at any point.
    async fn flush(&mut self) -> Result<(), PlayError> {
        self.writer.write_all_buf(self.session.output()).await?;
        Ok(())
    }

    /// Waits for an answer and takes it in. May be dropped while it waits.
    async fn receive(&mut self) -> Result<Option<ClientEvent>, PlayError> {
        self.input.reserve(ANSWER_BYTES);
        if self.reader.read_buf(&mut self.input).await? == 0 {
            return Err(PlayError::Closed);
        }
        let mut happened = None;
        loop {
            let (used, event) = self.session.receive(&self.input)?;
            let _ = self.input.split_to(used);
            happened = happened.or(event.clone());
            if event.is_none() {
                return Ok(happened);
            }
        }
    }

    /// Takes leave and reads what is still said: a connection closed over unread answers is reset,
    /// and the server could lose the end of the stream.
    async fn close(mut self) -> Result<(), PlayError> {
        self.session.finish();
        self.flush().await?;
        self.writer.shutdown().await?;
        loop {
            self.input.clear();
            self.input.reserve(ANSWER_BYTES);
            match self.reader.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;

    use super::*;
    use crate::cli::demo::CLIP;
    use crate::platform::net::{Listener, NetFuture};
    use crate::wire::rtmp::server::{ServerEvent, ServerSession};

    /// A network of one connection.
    struct Wire(Mutex<Option<Box<dyn Connection>>>);

    impl Net for Wire {
        fn listen(&self, _: SocketAddr) -> NetFuture<'_, Box<dyn Listener>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }

        fn connect<'a>(&'a self, _: &'a str, _: u16) -> NetFuture<'a, Box<dyn Connection>> {
            let end = self.0.lock().expect("one holder").take();
            Box::pin(async { end.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()) })
        }
    }

    fn wire() -> (Wire, tokio::io::DuplexStream) {
        let (client, server) = tokio::io::duplex(1 << 16);
        (Wire(Mutex::new(Some(Box::new(client)))), server)
    }

    fn stage() -> Stage {
        let server = "127.0.0.1:1935".parse().expect("address");
        Stage { server, app: "live".into(), stream: "demo".into() }
    }

    /// Takes everything that a publisher sends until it closes.
    async fn take_all(mut link: tokio::io::DuplexStream, accept: bool) -> Vec<ServerEvent> {
        let (mut session, mut events) = (ServerSession::new(7), Vec::new());
        let mut input = BytesMut::new();
        while link.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
            loop {
                let (used, event) = session.receive(&input).expect("a sound publisher");
                let _ = input.split_to(used);
                if let Some(ServerEvent::Publish(_)) = event {
                    if accept { session.accept() } else { session.refuse("No", "not today") }
                }
                // A publisher that has gone hears nothing more.
                let _ = link.write_all_buf(session.output()).await;
                let Some(event) = event else { break };
                events.push(event);
            }
        }
        events
    }

    #[tokio::test]
    async fn what_is_sent_is_the_reel_over_and_over_with_times_that_run_on() {
        let reel = Reel::parse(Bytes::from_static(CLIP)).expect("sound");
        let (net, server) = wire();
        let (played, stop) = (Played::default(), CancellationToken::new());
        let length = Duration::from_millis(20_000);
        // Everything is late already, so nothing waits.
        let begin = Instant::now() - length;
        let player = Player { reel: &reel, begin, length: Some(length), played: &played };
        let at = stage();
        let (result, events) = tokio::join!(player.play(&net, &at, &stop), take_all(server, true));
        result.expect("played to its end");

        let ServerEvent::Publish(url) = &events[0] else { panic!("{:?}", events[0]) };
        assert_eq!(url.key.to_string(), "127.0.0.1/live/demo");
        assert!(matches!(events[1], ServerEvent::ScriptData(_)));
        assert_eq!(events.last(), Some(&ServerEvent::Unpublish));
        let mut number = 0;
        let mut media_bytes = 0;
        for event in &events[4..events.len() - 1] {
            let (time_ms, tag) = reel.frame(number);
            let (kind, timestamp_ms, body) = match event {
                ServerEvent::Video { timestamp_ms, body } => (TAG_VIDEO, *timestamp_ms, body),
                ServerEvent::Audio { timestamp_ms, body } => (TAG_AUDIO, *timestamp_ms, body),
                other => panic!("{other:?}"),
            };
            assert_eq!((kind, u64::from(timestamp_ms), body), (tag.kind, time_ms, &tag.body));
            number += 1;
            media_bytes += body.len() as u64;
        }
        // Two rounds of 9.6 s and 0.8 s of the third: frames of 40 ms and of 21 1/3 ms.
        assert_eq!(number, 500 + 938);
        assert_eq!((played.media_bytes(), played.is_over()), (media_bytes, true));
        assert!((19_950..20_000).contains(&played.media_ms()), "{}", played.media_ms());
    }

    #[tokio::test]
    async fn it_stops_when_told_and_takes_leave() {
        let reel = Reel::parse(Bytes::from_static(CLIP)).expect("sound");
        let (net, server) = wire();
        let (played, stop) = (Played::default(), CancellationToken::new());
        let begin = Instant::now() + Duration::from_secs(3_600);
        let player = Player { reel: &reel, begin, length: None, played: &played };
        stop.cancel();
        let at = stage();
        let (result, events) = tokio::join!(player.play(&net, &at, &stop), take_all(server, true));
        result.expect("stopped in order");
        assert_eq!(events.len(), 5, "the opening and the leave: {events:?}");
        assert_eq!(events[4], ServerEvent::Unpublish);
    }

    #[tokio::test]
    async fn a_server_that_refuses_or_hangs_up_ends_the_play() {
        let reel = Reel::parse(Bytes::from_static(CLIP)).expect("sound");
        let (played, stop) = (Played::default(), CancellationToken::new());
        let player = Player { reel: &reel, begin: Instant::now(), length: None, played: &played };
        let at = stage();
        let (net, server) = wire();
        let (result, _) = tokio::join!(player.play(&net, &at, &stop), take_all(server, false));
        assert!(matches!(result, Err(PlayError::Rtmp(RtmpError::Refused(_)))), "{result:?}");
        let (net, server) = wire();
        drop(server);
        let result = player.play(&net, &at, &stop).await;
        assert!(matches!(result, Err(PlayError::Closed | PlayError::Link(_))), "{result:?}");
        let result = player.play(&net, &at, &stop).await;
        assert!(matches!(result, Err(PlayError::Link(_))), "{result:?}");
        assert_eq!((played.media_bytes(), played.media_ms()), (0, 0));
    }
}
