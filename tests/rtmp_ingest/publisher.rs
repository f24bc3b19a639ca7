//! A publisher of our own, and raw bytes for what no publisher would send.

use std::time::Duration;

use edgerec::domain::sample::Codec;
use edgerec::media::flv::tag::{HevcForm, audio_frame_head, config_head};
use edgerec::wire::rtmp::client::{ClientEvent, ClientSession};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::capture::Server;

const DEADLINE: Duration = Duration::from_secs(20);

/// A connection that publishes.
#[derive(Debug)]
pub struct Publisher {
    pub session: ClientSession,
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Publisher {
    /// Connects and publishes; the error is what the server said.
    pub async fn publish(server: &Server, name: &str) -> Result<Publisher, String> {
        let stream = TcpStream::connect(server.addr).await.expect("listening");
        let session = ClientSession::new(7, &server.tc_url(), name);
        let mut publisher = Publisher { session, stream, unread: Vec::new() };
        match tokio::time::timeout(DEADLINE, publisher.listen()).await.expect("in time") {
            Ok(ClientEvent::Publishing) => Ok(publisher),
            Err(why) => Err(why),
        }
    }

    /// Talks until something happens; the error is what the server said before it closed.
    async fn listen(&mut self) -> Result<ClientEvent, String> {
        loop {
            let (used, event) =
                self.session.receive(&self.unread).map_err(|error| error.to_string())?;
            self.unread.drain(..used);
            // The server may be gone already; its last words are still to be read.
            let output = self.session.output().split();
            let _ = self.stream.write_all(&output).await;
            if let Some(event) = event {
                return Ok(event);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await {
                Ok(0) => return Err("closed".to_owned()),
                Ok(len) => self.unread.extend_from_slice(&buffer[..len]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Waits until the server closes; its last words.
    pub async fn closed(&mut self) -> String {
        let closed = async {
            loop {
                if let Err(why) = self.listen().await {
                    return why;
                }
            }
        };
        tokio::time::timeout(DEADLINE, closed).await.expect("in time")
    }

    /// An AAC configuration and `count` frames from `first_ms` on.
    pub async fn send_aac(&mut self, first_ms: u32, count: u32) {
        let head = config_head(Codec::Aac, HevcForm::Enhanced).expect("AAC has one");
        self.session.send_script_data(
            b"\x02\0\x0aonMetaData\x03\0\x0caudiocodecid\0\x40\x24\0\0\0\0\0\0\0\0\x09",
        );
        self.session.send_audio(first_ms, [&head, &[0x12, 0x10]]);
        for number in 0..count {
            let head = audio_frame_head(Codec::Aac, 2);
            self.session.send_audio(first_ms + number * 23, [&head, &[number as u8; 300]]);
        }
        self.flush().await;
    }

    pub async fn flush(&mut self) {
        let output = self.session.output().split();
        self.stream.write_all(&output).await.expect("the server reads");
    }

    /// Sends bytes behind the session's back.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the server reads");
    }

    pub async fn finish(&mut self) {
        self.session.finish();
        self.flush().await;
    }
}

/// Bytes as no session would write them.
pub mod raw {
    use super::*;

    /// How long until the server closed.
    pub async fn closed(stream: &mut TcpStream) -> Duration {
        let started = std::time::Instant::now();
        let closed = async { while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {} };
        tokio::time::timeout(DEADLINE, closed).await.expect("in time");
        started.elapsed()
    }

    /// C0, C1 and C2, then `bytes`.
    pub fn after_handshake(bytes: &[u8]) -> Vec<u8> {
        [&[3][..], &[0; 3072], bytes].concat()
    }

    /// A message in one chunk stream of its own, in chunks of 128 bytes.
    pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        chunks(kind, body, 128)
    }

    pub fn in_chunks_of_one(kind: u8, body: &[u8]) -> Vec<u8> {
        chunks(kind, body, 1)
    }

    /// `deleteStream`, transaction 0.
    pub fn delete_stream() -> Vec<u8> {
        b"\x02\0\x0cdeleteStream\0\0\0\0\0\0\0\0\0\x05".to_vec()
    }

    /// `publish` of a name of at most 255 bytes, transaction 0.
    pub fn publish(name: &str) -> Vec<u8> {
        let head = b"\x02\0\x07publish\0\0\0\0\0\0\0\0\0\x05\x02\0";
        [&head[..], &[name.len() as u8], name.as_bytes()].concat()
    }

    fn chunks(kind: u8, body: &[u8], size: usize) -> Vec<u8> {
        let len = (body.len() as u32).to_be_bytes();
        let mut out = vec![0x08, 0, 0, 0, len[1], len[2], len[3], kind, 1, 0, 0, 0];
        for (number, piece) in body.chunks(size).enumerate() {
            if number > 0 {
                out.push(0xc8);
            }
            out.extend_from_slice(piece);
        }
        out
    }
}
