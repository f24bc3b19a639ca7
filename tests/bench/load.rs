//! The load: one real FLV file pushed over and over by many cheap RTMP publishers.
//!
//! Every message is cut into chunks once; sending it again costs a timestamp and a write. What the
//! load itself costs is not measured: it runs in the bench's process, the recorders in theirs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// As OBS sends.
const CHUNK_BYTES: usize = 4_096;
const CHUNK_STREAM_MEDIA: u8 = 4;
const CHUNK_STREAM_COMMANDS: u8 = 3;
const MESSAGE_SET_CHUNK_SIZE: u8 = 1;
const MESSAGE_SCRIPT: u8 = 18;
const MESSAGE_COMMAND: u8 = 20;
/// What every server here calls the first stream of a connection.
const MESSAGE_STREAM: u32 = 1;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A message, ready to be sent.
struct Message {
    /// With the header of a full chunk; the timestamp is at bytes 1..4.
    chunks: Vec<u8>,
    time_ms: u32,
    body_bytes: u64,
    /// Sent once, before the first round: script data and sequence headers.
    once: bool,
}

/// A file, ready to be pushed.
pub struct Load {
    messages: Vec<Message>,
    /// What is added to timestamps from round to round, in milliseconds.
    round_ms: u32,
}

impl Load {
    /// Reads an FLV file that this bench had made.
    pub fn from_flv(path: &Path) -> io::Result<Load> {
        let bytes = std::fs::read(path)?;
        let mut at = 13;
        let mut messages = Vec::new();
        while let Some(head) = bytes.get(at..at + 11) {
            let len = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            let time_ms = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
            let body = bytes.get(at + 11..at + 11 + len).ok_or(io::ErrorKind::UnexpectedEof)?;
            let is_config = matches!(head[0], 8 | 9) && body.get(1) == Some(&0);
            let once = head[0] == MESSAGE_SCRIPT || is_config;
            let sent_body =
                if head[0] == MESSAGE_SCRIPT { set_data_frame(body) } else { body.to_vec() };
            messages.push(Message {
                chunks: chunks(
                    CHUNK_STREAM_MEDIA,
                    head[0],
                    MESSAGE_STREAM,
                    &sent_body,
                    CHUNK_BYTES,
                ),
                time_ms,
                body_bytes: sent_body.len() as u64,
                once,
            });
            at += 11 + len + 4;
        }
        let end_ms = messages.iter().map(|message| message.time_ms).max().unwrap_or(0);
        Ok(Load { messages, round_ms: end_ms + 20 })
    }

    /// Pushes in real time from `begin` on until `stop` is dropped; gives back the bytes of media
    /// sent.
    pub fn push(
        &self,
        to: SocketAddr,
        name: &str,
        begin: Instant,
        stop: &Receiver<()>,
    ) -> io::Result<u64> {
        let mut link = publish(to, name)?;
        let mut sent_bytes = 0;
        let (once, media): (Vec<_>, Vec<_>) = self.messages.iter().partition(|m| m.once);
        for message in once {
            link.write_all(&message.chunks)?;
        }
        let mut buffer = Vec::new();
        for round in 0u32.. {
            for message in &media {
                let time_ms = round * self.round_ms + message.time_ms;
                let due = begin + Duration::from_millis(u64::from(time_ms));
                let early = due.saturating_duration_since(Instant::now());
                if !early.is_zero() {
                    match stop.recv_timeout(early) {
                        Err(RecvTimeoutError::Timeout) => {}
                        _ => return Ok(sent_bytes),
                    }
                }
                buffer.clear();
                buffer.extend_from_slice(&message.chunks);
                // The bench ends long before 24 bits of milliseconds do.
                buffer[1..4].copy_from_slice(&time_ms.to_be_bytes()[1..]);
                link.write_all(&buffer)?;
                sent_bytes += message.body_bytes;
            }
        }
        Ok(sent_bytes)
    }
}

/// Connects and publishes `live/NAME`; comes back when the server has agreed.
fn publish(to: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let mut link = TcpStream::connect(to)?;
    link.set_nodelay(true)?;
    link.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut hello = vec![0; 1 + 1536];
    hello[0] = 3;
    link.write_all(&hello)?;
    let mut answer = vec![0; 1 + 1536 + 1536];
    link.read_exact(&mut answer)?;
    link.write_all(&answer[1..1 + 1536])?;

    let chunk_bytes = u32::try_from(CHUNK_BYTES).map_err(io::Error::other)?.to_be_bytes();
    link.write_all(&chunks(2, MESSAGE_SET_CHUNK_SIZE, 0, &chunk_bytes, CHUNK_BYTES))?;
    let mut connect = amf_call("connect", 1.0);
    connect.push(3);
    for (key, value) in [("app", "live".to_owned()), ("tcUrl", format!("rtmp://{to}/live"))] {
        connect.extend((key.len() as u16).to_be_bytes());
        connect.extend(key.as_bytes());
        connect.extend(amf_text(&value));
    }
    connect.extend([0, 0, 9]);
    command(&mut link, 0, &connect)?;
    wait_for(&mut link, b"NetConnection.Connect.Success")?;
    command(&mut link, 0, &[amf_call("createStream", 2.0), vec![5]].concat())?;
    wait_for(&mut link, b"_result")?;
    let publish = [amf_call("publish", 3.0), vec![5], amf_text(name), amf_text("live")].concat();
    command(&mut link, MESSAGE_STREAM, &publish)?;
    wait_for(&mut link, b"NetStream.Publish.Start")?;
    // Nobody reads the acknowledgements; they are few enough for the socket's buffer.
    Ok(link)
}

fn command(link: &mut TcpStream, stream: u32, body: &[u8]) -> io::Result<()> {
    link.write_all(&chunks(CHUNK_STREAM_COMMANDS, MESSAGE_COMMAND, stream, body, CHUNK_BYTES))
}

/// Reads until the server has said `words`.
fn wait_for(link: &mut TcpStream, words: &[u8]) -> io::Result<()> {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while !heard.windows(words.len()).any(|window| window == words) {
        let count = link.read(&mut buffer)?;
        if count == 0 || heard.len() > 1 << 20 {
            return Err(io::Error::other(format!("no {}", String::from_utf8_lossy(words))));
        }
        heard.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}

/// A message as chunks: a full header, then continuations.
pub fn chunks(chunk_stream: u8, kind: u8, stream: u32, body: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let len = (body.len() as u32).to_be_bytes();
    let mut bytes = vec![chunk_stream, 0, 0, 0, len[1], len[2], len[3], kind];
    bytes.extend(stream.to_le_bytes());
    for (number, part) in body.chunks(chunk_bytes).enumerate() {
        if number > 0 {
            bytes.push(0xc0 | chunk_stream);
        }
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The first two values of a call: its name and number.
pub fn amf_call(name: &str, number: f64) -> Vec<u8> {
    [amf_text(name), amf_number(number)].concat()
}

/// A number as AMF0.
pub fn amf_number(number: f64) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(number.to_be_bytes());
    bytes
}

/// A text as AMF0.
pub fn amf_text(text: &str) -> Vec<u8> {
    let mut bytes = vec![2];
    bytes.extend((text.len() as u16).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn set_data_frame(body: &[u8]) -> Vec<u8> {
    [amf_text("@setDataFrame"), body.to_vec()].concat()
}
