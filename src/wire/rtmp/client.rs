//! A publisher: for the demo, the load generator and the tests.

use bytes::BytesMut;

use crate::wire::rtmp::amf0::Value;
use crate::wire::rtmp::chunk_reader::ChunkReader;
use crate::wire::rtmp::chunk_writer::{ChunkWriter, Place};
use crate::wire::rtmp::command::{Command, command_body, strip_amf3_prefix};
use crate::wire::rtmp::handshake::Handshake;
use crate::wire::rtmp::message::{self, Message};
use crate::wire::rtmp::{MESSAGE_BYTES_BEFORE_PUBLISH, RtmpError};

/// The chunk size of what is sent.
const CHUNK_BYTES: usize = 60_000;
const CONNECT: f64 = 1.0;
const RELEASE_STREAM: f64 = 2.0;
const FC_PUBLISH: f64 = 3.0;
const CREATE_STREAM: f64 = 4.0;
const PUBLISH: f64 = 5.0;

/// What the server lets a publisher know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// Media may be sent.
    Publishing,
}

/// A publisher's connection. Take [`output`](Self::output) after every call.
#[derive(Debug)]
pub struct ClientSession {
    handshake: Handshake,
    reader: ChunkReader,
    writer: ChunkWriter,
    output: BytesMut,
    tc_url: String,
    app: String,
    name: String,
    connecting: bool,
    stream_id: u32,
}

impl ClientSession {
    /// Publishes `name` (with its query, if any) to `rtmp://host:port/app`, given as `tc_url`.
    #[must_use]
    pub fn new(seed: u64, tc_url: &str, name: &str) -> Self {
        let app = tc_url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        let mut output = BytesMut::new();
        ClientSession {
            handshake: Handshake::client(seed, &mut output),
            reader: ChunkReader::new(MESSAGE_BYTES_BEFORE_PUBLISH),
            writer: ChunkWriter::default(),
            output,
            app: app.map_or("", |(_, app)| app).to_owned(),
            tc_url: tc_url.to_owned(),
            name: name.to_owned(),
            connecting: false,
            stream_id: 0,
        }
    }

    /// What is to be sent to the server.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Takes `input`: how many bytes were used, and what happened. The caller's buffer needs room
    /// for 2 KiB.
    ///
    /// # Errors
    /// The server refuses, ends the publish or breaks the protocol.
    pub fn receive(&mut self, input: &[u8]) -> Result<(usize, Option<ClientEvent>), RtmpError> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let (now, message) = if self.handshake.is_done() {
                if !self.connecting {
                    self.connecting = true;
                    self.connect();
                }
                self.reader.read(rest)?
            } else {
                (self.handshake.read(rest, &mut self.output)?, None)
            };
            used += now;
            let event = match message {
                Some(message) => self.take_message(&message)?,
                None if now > 0 => None,
                None => return Ok((used, None)),
            };
            if event.is_some() {
                return Ok((used, event));
            }
        }
    }

    /// Sends a video tag body in two parts (head and payload).
    pub fn send_video(&mut self, timestamp_ms: u32, body: [&[u8]; 2]) {
        self.send_media(message::VIDEO, 6, timestamp_ms, body);
    }

    /// Sends an audio tag body in two parts (head and payload).
    pub fn send_audio(&mut self, timestamp_ms: u32, body: [&[u8]; 2]) {
        self.send_media(message::AUDIO, 4, timestamp_ms, body);
    }

    /// Sends script data: the body of an `onMetaData` tag.
    pub fn send_script_data(&mut self, body: &[u8]) {
        let mut head = BytesMut::new();
        crate::wire::rtmp::amf0::write(&mut head, &Value::text("@setDataFrame"));
        self.send_media(message::DATA_AMF0, 5, 0, [&head, body]);
    }

    /// Ends the publish.
    pub fn finish(&mut self) {
        let name = Value::text(&self.name);
        self.send_command(0, "FCUnpublish", 6.0, &[Value::Null, name]);
        let stream_id = Value::Number(f64::from(self.stream_id));
        self.send_command(0, "deleteStream", 7.0, &[Value::Null, stream_id]);
    }

    fn connect(&mut self) {
        let place = Place { chunk_stream: 2, kind: message::SET_CHUNK_SIZE, stream_id: 0 };
        let size = (CHUNK_BYTES as u32).to_be_bytes();
        self.writer.write(&mut self.output, place, 0, [&size, &[]]);
        self.writer.set_chunk_bytes(CHUNK_BYTES);
        let object = Value::object([
            ("app", Value::text(&self.app)),
            ("type", Value::text("nonprivate")),
            ("flashVer", Value::text("FMLE/3.0 (compatible; edgerec)")),
            ("tcUrl", Value::text(&self.tc_url)),
        ]);
        self.send_command(0, "connect", CONNECT, &[object]);
    }

    fn take_message(&mut self, message: &Message) -> Result<Option<ClientEvent>, RtmpError> {
        match message.kind {
            message::SET_CHUNK_SIZE => {
                let size = message.body.first_chunk().ok_or(RtmpError::Truncated("chunk size"))?;
                self.reader.set_chunk_bytes(u32::from_be_bytes(*size))?;
            }
            message::COMMAND_AMF0 | message::COMMAND_AMF3 => {
                return self.take_command(&Command::parse(strip_amf3_prefix(&message.body))?);
            }
            _ => {}
        }
        Ok(None)
    }

    fn take_command(&mut self, command: &Command) -> Result<Option<ClientEvent>, RtmpError> {
        let information = command.arguments.get(1);
        let field = |name| information.and_then(|object| object.get(name)).and_then(Value::as_str);
        match command.name.as_str() {
            "_result" if command.transaction == CONNECT => {
                let name = Value::text(&self.name);
                self.send_command(0, "releaseStream", RELEASE_STREAM, &[Value::Null, name.clone()]);
                self.send_command(0, "FCPublish", FC_PUBLISH, &[Value::Null, name]);
                self.send_command(0, "createStream", CREATE_STREAM, &[Value::Null]);
            }
            "_result" if command.transaction == CREATE_STREAM => {
                self.stream_id = information.and_then(Value::as_number).unwrap_or(0.0) as u32;
                let arguments = [Value::Null, Value::text(&self.name), Value::text("live")];
                self.send_command(self.stream_id, "publish", PUBLISH, &arguments);
            }
            "onStatus" if field("code") == Some("NetStream.Publish.Start") => {
                return Ok(Some(ClientEvent::Publishing));
            }
            "_error" | "onStatus" if field("level") == Some("error") => {
                let code = field("code").unwrap_or_default();
                let description = field("description").unwrap_or_default();
                return Err(RtmpError::Refused(format!("{code}: {description}")));
            }
            _ => {}
        }
        Ok(None)
    }

    fn send_media(&mut self, kind: u8, chunk_stream: u8, timestamp_ms: u32, body: [&[u8]; 2]) {
        let place = Place { chunk_stream, kind, stream_id: self.stream_id };
        self.writer.write(&mut self.output, place, timestamp_ms, body);
    }

    fn send_command(&mut self, stream_id: u32, name: &str, transaction: f64, values: &[Value]) {
        let place = Place { chunk_stream: 3, kind: message::COMMAND_AMF0, stream_id };
        let body = command_body(name, transaction, values);
        self.writer.write(&mut self.output, place, 0, [&body, &[]]);
    }
}
