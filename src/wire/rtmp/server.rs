//! The server's side of a connection with a publisher: handshake, commands, media.

use bytes::{Bytes, BytesMut};

use crate::domain::limits::SCRIPT_DATA_BYTES_MAX;
use crate::domain::stream_key::StreamKeyError;
use crate::wire::rtmp::amf0::{self, Value};
use crate::wire::rtmp::chunk_reader::ChunkReader;
use crate::wire::rtmp::chunk_writer::{ChunkWriter, Place};
use crate::wire::rtmp::command::{Command, command_body, status, strip_amf3_prefix};
use crate::wire::rtmp::handshake::Handshake;
use crate::wire::rtmp::message::{self, Aggregate, Message};
use crate::wire::rtmp::url::PublishUrl;
use crate::wire::rtmp::{
    MESSAGE_BYTES_BEFORE_PUBLISH, MESSAGE_BYTES_PUBLISHING, OUTPUT_BYTES_MAX, RtmpError,
};

/// Bytes after which the peer shall acknowledge.
const ACK_WINDOW_BYTES: u32 = 2_500_000;
/// A smaller window is taken as this: nobody needs an answer to every few bytes.
const ACK_WINDOW_BYTES_MIN: u32 = 64 << 10;
/// The chunk size of what we send.
const CHUNK_BYTES: usize = 4096;
/// The one message stream that is handed out.
const STREAM_ID: u32 = 1;
/// Codecs that are recorded from enhanced tags, as the answer to a client that asks.
const FOURCCS: [&str; 3] = ["avc1", "hvc1", "mp4a"];

/// What a publisher does.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerEvent {
    /// It wants to publish; answer with [`ServerSession::accept`] or [`ServerSession::refuse`]
    /// before giving more input.
    Publish(PublishUrl),
    /// A video tag body.
    Video {
        /// Decoding time in milliseconds, modulo 2^32.
        timestamp_ms: u32,
        /// The tag body.
        body: Bytes,
    },
    /// An audio tag body.
    Audio {
        /// Time in milliseconds, modulo 2^32.
        timestamp_ms: u32,
        /// The tag body.
        body: Bytes,
    },
    /// The body of an `onMetaData` script tag, verbatim.
    ScriptData(Bytes),
    /// It stops publishing; the connection stays.
    Unpublish,
}

/// How far a connection is.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// `connect` has not come.
    New,
    /// Connected to an app; nothing is published.
    Connected,
    /// A publish waits for its answer, on this message stream.
    Asking(u32),
    /// Media is taken, on this message stream.
    Publishing(u32),
}

/// A connection as the server sees it.
#[derive(Debug)]
pub struct ServerSession {
    handshake: Handshake,
    reader: ChunkReader,
    writer: ChunkWriter,
    output: BytesMut,
    phase: Phase,
    tc_url: String,
    app: String,
    aggregate: Option<Aggregate>,
    received_bytes: u32,
    acknowledged_bytes: u32,
    /// Bytes after which the peer wants an acknowledgement, if it said so. Without its word none
    /// is sent: an encoder that closes with one unread has its own last data reset away.
    ack_window_bytes: Option<u32>,
}

impl ServerSession {
    /// A new connection. `seed` makes the random part of the handshake.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        ServerSession {
            handshake: Handshake::server(seed),
            reader: ChunkReader::new(MESSAGE_BYTES_BEFORE_PUBLISH),
            writer: ChunkWriter::default(),
            output: BytesMut::new(),
            phase: Phase::New,
            tc_url: String::new(),
            app: String::new(),
            aggregate: None,
            received_bytes: 0,
            acknowledged_bytes: 0,
            ack_window_bytes: None,
        }
    }

    /// What is to be sent to the peer; take it after every call.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Bytes that the session holds of messages in progress.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.reader.bytes_held()
    }

    /// Takes `input`: how many bytes were used, and what happened. With an event, call again with
    /// the rest; without one, more input is needed. The caller's buffer needs room for 2 KiB.
    ///
    /// # Errors
    /// The connection must be closed, after the output is sent.
    pub fn receive(&mut self, input: &[u8]) -> Result<(usize, Option<ServerEvent>), RtmpError> {
        let mut used = 0;
        loop {
            if let Some(event) = self.next_of_aggregate() {
                return Ok((used, Some(event)));
            }
            let rest = &input[used..];
            let (now, message) = if self.handshake.is_done() {
                self.reader.read(rest)?
            } else {
                (self.handshake.read(rest, &mut self.output)?, None)
            };
            used += now;
            self.acknowledge(now);
            let event = match message {
                Some(message) => self.take_message(message)?,
                None if now > 0 && used < input.len() => None,
                None => return Ok((used, None)),
            };
            if self.output.len() > OUTPUT_BYTES_MAX {
                return Err(RtmpError::OutputFull);
            }
            if event.is_some() {
                return Ok((used, event));
            }
        }
    }

    /// Lets the publish begin.
    pub fn accept(&mut self) {
        let Phase::Asking(stream_id) = self.phase else { return };
        self.phase = Phase::Publishing(stream_id);
        self.reader.set_bytes_max(MESSAGE_BYTES_PUBLISHING);
        let [high, low] = message::EVENT_STREAM_BEGIN.to_be_bytes();
        let [a, b, c, d] = stream_id.to_be_bytes();
        self.send_control(message::USER_CONTROL, &[high, low, a, b, c, d]);
        self.send_status(stream_id, "status", "NetStream.Publish.Start", "publishing");
    }

    /// Refuses the publish with a code (`NetStream.Publish.…`) and a reason in words. The caller
    /// then sends the output and closes the connection.
    pub fn refuse(&mut self, code: &str, reason: &str) {
        let Phase::Asking(stream_id) = self.phase else { return };
        self.phase = Phase::Connected;
        self.send_status(stream_id, "error", code, reason);
    }

    /// Tells a publisher that it is over. The caller then sends the output and closes.
    pub fn kick(&mut self, reason: &str) {
        let Phase::Publishing(stream_id) = self.phase else { return };
        self.phase = Phase::Connected;
        self.send_status(stream_id, "error", "NetStream.Publish.Failed", reason);
    }

    fn next_of_aggregate(&mut self) -> Option<ServerEvent> {
        while let Some(aggregate) = &mut self.aggregate {
            let Some(message) = aggregate.next() else {
                self.aggregate = None;
                break;
            };
            let event = self.take_media(message);
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn take_message(&mut self, message: Message) -> Result<Option<ServerEvent>, RtmpError> {
        let body = &message.body;
        match message.kind {
            message::SET_CHUNK_SIZE => self.reader.set_chunk_bytes(number(body, "chunk size")?)?,
            message::ABORT => self.reader.abort(number(body, "abort")?),
            message::WINDOW_ACK_SIZE => {
                let window = number(body, "window")?.max(ACK_WINDOW_BYTES_MIN);
                self.ack_window_bytes = Some(window);
            }
            message::USER_CONTROL => self.answer_ping(body),
            message::COMMAND_AMF0 | message::COMMAND_AMF3 => {
                let command = Command::parse(strip_amf3_prefix(body))?;
                return self.take_command(&command, message.stream_id);
            }
            message::AGGREGATE => self.aggregate = Some(Aggregate::new(message)),
            _ => return Ok(self.take_media(message)),
        }
        Ok(None)
    }

    /// Media outside of an accepted publish is passed over.
    fn take_media(&mut self, message: Message) -> Option<ServerEvent> {
        let Phase::Publishing(_) = self.phase else { return None };
        let Message { kind, timestamp_ms, body, .. } = message;
        match kind {
            message::VIDEO => Some(ServerEvent::Video { timestamp_ms, body }),
            message::AUDIO => Some(ServerEvent::Audio { timestamp_ms, body }),
            message::DATA_AMF0 | message::DATA_AMF3 => {
                script_data(&body).map(ServerEvent::ScriptData)
            }
            _ => None,
        }
    }

    fn take_command(
        &mut self,
        command: &Command,
        stream_id: u32,
    ) -> Result<Option<ServerEvent>, RtmpError> {
        let answer = command.transaction;
        match command.name.as_str() {
            "connect" => self.connect(command)?,
            "createStream" => {
                let id = Value::Number(f64::from(STREAM_ID));
                self.send_command(0, "_result", answer, &[Value::Null, id]);
            }
            "publish" => return self.publish(command, stream_id).map(Some),
            "releaseStream" | "_checkbw" => {
                self.send_command(0, "_result", answer, &[Value::Null, Value::Undefined]);
            }
            "FCPublish" => {
                self.send_command(0, "_result", answer, &[Value::Null, Value::Undefined]);
                let start = status("status", "NetStream.Publish.Start", "");
                self.send_command(0, "onFCPublish", 0.0, &[Value::Null, start]);
            }
            "FCUnpublish" | "deleteStream" | "closeStream" => return Ok(self.unpublish()),
            "play" | "play2" => {
                let code = "NetStream.Play.StreamNotFound";
                self.send_status(stream_id, "error", code, "this server only takes streams");
                return Err(RtmpError::Refused("it wants to play".to_owned()));
            }
            _ => {}
        }
        Ok(None)
    }

    fn connect(&mut self, command: &Command) -> Result<(), RtmpError> {
        let object = command.arguments.first().unwrap_or(&Value::Null);
        let field = |name| object.get(name).and_then(Value::as_str).unwrap_or_default();
        if field("app").is_empty() {
            let why = status("error", "NetConnection.Connect.InvalidApp", "no app");
            self.send_command(0, "_error", command.transaction, &[Value::Null, why]);
            return Err(RtmpError::Refused("it names no app".to_owned()));
        }
        self.app = field("app").to_owned();
        self.tc_url = field("tcUrl").to_owned();
        if self.phase == Phase::New {
            self.phase = Phase::Connected;
        }

        let window = ACK_WINDOW_BYTES.to_be_bytes();
        self.send_control(message::WINDOW_ACK_SIZE, &window);
        let [a, b, c, d] = window;
        self.send_control(message::SET_PEER_BANDWIDTH, &[a, b, c, d, 2]);
        self.send_control(message::SET_CHUNK_SIZE, &(CHUNK_BYTES as u32).to_be_bytes());
        self.writer.set_chunk_bytes(CHUNK_BYTES);

        let properties = Value::object([
            ("fmsVer", Value::text("FMS/3,0,1,123")),
            ("capabilities", Value::Number(31.0)),
        ]);
        let encoding = object.get("objectEncoding").and_then(Value::as_number).unwrap_or(0.0);
        let mut information =
            status("status", "NetConnection.Connect.Success", "Connection succeeded.");
        if let Value::Object(fields) = &mut information {
            fields.push(("objectEncoding".to_owned(), Value::Number(encoding)));
            if object.get("fourCcList").is_some() {
                let list = FOURCCS.iter().map(|code| Value::text(code)).collect();
                fields.push(("fourCcList".to_owned(), Value::Array(list)));
            }
        }
        self.send_command(0, "_result", command.transaction, &[properties, information]);
        Ok(())
    }

    fn publish(&mut self, command: &Command, stream_id: u32) -> Result<ServerEvent, RtmpError> {
        match self.phase {
            Phase::Connected => {}
            Phase::New => return Err(RtmpError::Refused("it publishes unconnected".to_owned())),
            Phase::Asking(_) | Phase::Publishing(_) => {
                let why = "this connection publishes already";
                self.send_status(stream_id, "error", "NetStream.Publish.BadName", why);
                return Err(RtmpError::Refused("it publishes twice".to_owned()));
            }
        }
        let name = command.text(1).unwrap_or_default();
        match PublishUrl::new(&self.tc_url, &self.app, name) {
            Ok(url) => {
                self.phase = Phase::Asking(stream_id);
                Ok(ServerEvent::Publish(url))
            }
            Err(error) => Err(self.refuse_name(stream_id, &error)),
        }
    }

    fn refuse_name(&mut self, stream_id: u32, error: &StreamKeyError) -> RtmpError {
        let why = error.to_string();
        self.send_status(stream_id, "error", "NetStream.Publish.BadName", &why);
        RtmpError::Refused(why)
    }

    fn unpublish(&mut self) -> Option<ServerEvent> {
        let Phase::Publishing(stream_id) = self.phase else { return None };
        self.phase = Phase::Connected;
        self.reader.set_bytes_max(MESSAGE_BYTES_BEFORE_PUBLISH);
        self.send_status(stream_id, "status", "NetStream.Unpublish.Success", "");
        Some(ServerEvent::Unpublish)
    }

    fn answer_ping(&mut self, body: &[u8]) {
        let Some([high, low, time @ ..]) = body.first_chunk::<6>() else { return };
        if u16::from_be_bytes([*high, *low]) == message::EVENT_PING_REQUEST {
            let [high, low] = message::EVENT_PING_RESPONSE.to_be_bytes();
            let [a, b, c, d] = *time;
            self.send_control(message::USER_CONTROL, &[high, low, a, b, c, d]);
        }
    }

    fn acknowledge(&mut self, received: usize) {
        self.received_bytes = self.received_bytes.wrapping_add(received as u32);
        let since = self.received_bytes.wrapping_sub(self.acknowledged_bytes);
        let due = self.ack_window_bytes.is_some_and(|window| since >= window);
        if due && self.handshake.is_done() {
            self.acknowledged_bytes = self.received_bytes;
            self.send_control(message::ACKNOWLEDGEMENT, &self.received_bytes.to_be_bytes());
        }
    }

    fn send_control(&mut self, kind: u8, body: &[u8]) {
        let place = Place { chunk_stream: 2, kind, stream_id: 0 };
        self.writer.write(&mut self.output, place, 0, [body, &[]]);
    }

    fn send_status(&mut self, stream_id: u32, level: &str, code: &str, description: &str) {
        let information = status(level, code, description);
        self.send_command(stream_id, "onStatus", 0.0, &[Value::Null, information]);
    }

    fn send_command(&mut self, stream_id: u32, name: &str, transaction: f64, values: &[Value]) {
        let place = Place { chunk_stream: 3, kind: message::COMMAND_AMF0, stream_id };
        let body = command_body(name, transaction, values);
        self.writer.write(&mut self.output, place, 0, [&body, &[]]);
    }
}

/// The first four bytes of a protocol message.
fn number(body: &[u8], what: &'static str) -> Result<u32, RtmpError> {
    body.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(RtmpError::Truncated(what))
}

/// The `onMetaData` string and what follows it, without the `@setDataFrame` before them.
fn script_data(body: &Bytes) -> Option<Bytes> {
    let amf0_bytes = strip_amf3_prefix(body);
    let mut reader = amf0::Reader::new(amf0_bytes);
    let mut rest = amf0_bytes;
    let mut name = reader.value().ok()??;
    if name.as_str() == Some("@setDataFrame") {
        rest = reader.rest();
        name = reader.value().ok()??;
    }
    let is_metadata = name.as_str() == Some("onMetaData") && rest.len() <= SCRIPT_DATA_BYTES_MAX;
    is_metadata.then(|| body.slice_ref(rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::wire::rtmp::client::ClientSession;

    /// A client and a server that hear each other at once.
    struct Pair {
        client: ClientSession,
        server: ServerSession,
        to_server: Vec<u8>,
        to_client: Vec<u8>,
        /// Everything the client ever sent.
        sent: Vec<u8>,
    }

    impl Pair {
        fn new(tc_url: &str, name: &str) -> Pair {
            let client = ClientSession::new(1, tc_url, name);
            let server = ServerSession::new(2);
            let (to_server, to_client, sent) = Default::default();
            Pair { client, server, to_server, to_client, sent }
        }

        /// Carries bytes until nothing moves; what happened at the server.
        fn settle(&mut self) -> Result<Vec<ServerEvent>, RtmpError> {
            let mut events = Vec::new();
            loop {
                let out = self.client.output().split();
                self.sent.extend_from_slice(&out);
                self.to_server.extend_from_slice(&out);
                let (used, event) = self.server.receive(&self.to_server)?;
                self.to_server.drain(..used);
                let happened = event.is_some();
                events.extend(event);
                if let Some(ServerEvent::Publish(_)) = events.last() {
                    return Ok(events);
                }
                self.to_client.extend_from_slice(&self.server.output().split());
                let (heard, _) = self.client.receive(&self.to_client)?;
                self.to_client.drain(..heard);
                if !happened && used == 0 && heard == 0 && self.client.output().is_empty() {
                    return Ok(events);
                }
            }
        }

        fn publish(tc_url: &str, name: &str) -> Pair {
            let mut pair = Pair::new(tc_url, name);
            let events = pair.settle().expect("a good client");
            assert!(matches!(events[..], [ServerEvent::Publish(_)]), "{events:?}");
            pair.server.accept();
            assert_eq!(pair.settle(), Ok(vec![]));
            pair
        }
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        let place = Place { chunk_stream: 9, kind, stream_id: 1 };
        ChunkWriter::default().write(&mut out, place, 0, [body, &[]]);
        out.to_vec()
    }

    #[test]
    fn media_passes_as_it_was_sent() {
        let mut pair = Pair::publish("rtmp://H:1935/live", "s?k=v");
        let mut metadata = BytesMut::new();
        amf0::write(&mut metadata, &Value::text("onMetaData"));
        amf0::write(&mut metadata, &Value::object([("width", Value::Number(320.0))]));
        let frame = vec![7; 200_000];
        pair.client.send_script_data(&metadata);
        pair.client.send_video(0xffff_ff00, [b"\x17\x01\0\0\0", &frame]);
        pair.client.send_audio(5, [b"\xaf\x01", b"abc"]);
        pair.client.finish();
        let body = [&b"\x17\x01\0\0\0"[..], &frame].concat().into();
        let expected = vec![
            ServerEvent::ScriptData(metadata.freeze()),
            ServerEvent::Video { timestamp_ms: 0xffff_ff00, body },
            ServerEvent::Audio { timestamp_ms: 5, body: Bytes::from_static(b"\xaf\x01abc") },
            ServerEvent::Unpublish,
        ];
        assert_eq!(pair.settle(), Ok(expected));
    }

    #[test]
    fn a_publisher_hears_why_it_is_refused_or_ended() {
        let mut pair = Pair::new("rtmp://h/live", "s");
        let events = pair.settle().expect("a good client");
        let [ServerEvent::Publish(url)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((url.key.to_string(), url.query.as_str()), ("h/live/s".to_owned(), ""));
        pair.server.refuse("NetStream.Publish.BadName", "live already");
        let refused = RtmpError::Refused("NetStream.Publish.BadName: live already".to_owned());
        assert_eq!(pair.settle(), Err(refused));

        let mut pair = Pair::publish("rtmp://h/live", "s");
        pair.server.kick("box restarts");
        let kicked = RtmpError::Refused("NetStream.Publish.Failed: box restarts".to_owned());
        assert_eq!(pair.settle(), Err(kicked));
    }

    #[test]
    fn no_app_and_bad_names_are_refused() {
        assert!(matches!(Pair::new("rtmp://h/", "s").settle(), Err(RtmpError::Refused(_))));
        assert!(matches!(Pair::new("rtmp://h/live", "").settle(), Err(RtmpError::Refused(_))));
        assert!(matches!(Pair::new("rtmp://h/live", "a\nb").settle(), Err(RtmpError::Refused(_))));
    }

    #[test]
    fn pings_are_answered_and_bytes_acknowledged() {
        let mut pair = Pair::publish("rtmp://h/live", "s");
        pair.server.receive(&message(message::USER_CONTROL, b"\0\x06abcd")).expect("a ping");
        assert!(pair.server.output().split().ends_with(b"\0\x07abcd"));
        // A window of one byte must not make us answer every byte.
        pair.server.receive(&message(message::WINDOW_ACK_SIZE, &[0, 0, 0, 1])).expect("a window");
        let audio = message(message::AUDIO, &[0xaf; 1000]);
        let mut acks = 0;
        for _ in 0..1000 {
            pair.server.receive(&audio).expect("audio");
            acks += usize::from(!pair.server.output().split().is_empty());
        }
        assert!((14..=16).contains(&acks), "{acks} for a megabyte");
    }

    #[test]
    fn amf3_commands_and_aggregates_are_understood() {
        let mut pair = Pair::publish("rtmp://h/live", "s");
        let body = [&[0][..], &command_body("_checkbw", 9.0, &[Value::Null])].concat();
        pair.server.receive(&message(message::COMMAND_AMF3, &body)).expect("a command");
        assert!(!pair.server.output().split().is_empty());
        let tags =
            b"\x08\0\0\x02\0\0\x05\0\0\0\0\xaf\x01\0\0\0\x0d\x09\0\0\x01\0\0\x09\0\0\0\0\x17";
        let aggregate = message(message::AGGREGATE, tags);
        let (used, first) = pair.server.receive(&aggregate).expect("an aggregate");
        let (more, second) = pair.server.receive(&aggregate[used..]).expect("the rest of it");
        assert_eq!(used + more, aggregate.len());
        let audio = ServerEvent::Audio { timestamp_ms: 0, body: Bytes::from_static(b"\xaf\x01") };
        let video = ServerEvent::Video { timestamp_ms: 4, body: Bytes::from_static(b"\x17") };
        assert_eq!((first, second), (Some(audio), Some(video)));
    }

    #[test]
    fn a_flood_that_wants_answers_is_cut_off() {
        let mut pair = Pair::publish("rtmp://h/live", "s");
        let flood = message(message::USER_CONTROL, b"\0\x06abcd").repeat(5000);
        assert_eq!(pair.server.receive(&flood), Err(RtmpError::OutputFull));
    }

    #[test]
    fn nothing_large_is_taken_before_publish() {
        let mut pair = Pair::new("rtmp://h/live", "s");
        pair.settle().expect("a good client");
        let large = message(message::AUDIO, &vec![0; MESSAGE_BYTES_BEFORE_PUBLISH + 1]);
        assert!(matches!(pair.server.receive(&large), Err(RtmpError::MessageTooLong { .. })));
        let mut pair = Pair::publish("rtmp://h/live", "s");
        assert!(matches!(pair.server.receive(&large), Ok((_, Some(ServerEvent::Audio { .. })))));
    }

    proptest! {
        #[test]
        fn mutated_connections_never_panic_and_stay_in_bounds(
            flips in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..8),
            piece in 1..2000usize,
        ) {
            let mut pair = Pair::publish("rtmp://h/live", "s");
            pair.client.send_audio(5, [b"\xaf\x01", &[1; 300]]);
            pair.settle().expect("a good client");
            // The random part of the handshake has no meaning: flips go behind it.
            let mut bytes = pair.sent;
            for (at, value) in flips {
                let at = 3073 + at.index(bytes.len() - 3073);
                bytes[at] = value;
            }
            let mut server = ServerSession::new(3);
            let mut held = Vec::new();
            'all: for piece in bytes.chunks(piece) {
                held.extend_from_slice(piece);
                loop {
                    let Ok((used, event)) = server.receive(&held) else { break 'all };
                    held.drain(..used);
                    server.output().clear();
                    prop_assert!(server.bytes_held() <= MESSAGE_BYTES_BEFORE_PUBLISH);
                    match event {
                        Some(ServerEvent::Publish(_)) => server.refuse("bad name", ""),
                        Some(_) => {}
                        None => break,
                    }
                }
            }
        }
    }
}
