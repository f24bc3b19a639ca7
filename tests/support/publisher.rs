//! An encoder of our own, for what no real one sends; and the tags of an FLV file to send.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use edgerec::wire::rtmp::client::{ClientEvent, ClientSession};

const DEADLINE: Duration = Duration::from_secs(20);

/// A connection that publishes.
pub struct Publisher {
    session: ClientSession,
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Publisher {
    /// Connects and publishes a stream of the app `live`.
    ///
    /// # Errors
    /// What the box said instead.
    pub fn publish(addr: SocketAddr, name: &str) -> Result<Publisher, String> {
        Publisher::publish_to(addr, "live", name)
    }

    /// Connects and publishes a stream of an app.
    ///
    /// # Errors
    /// What the box said instead.
    pub fn publish_to(addr: SocketAddr, app: &str, name: &str) -> Result<Publisher, String> {
        let stream = TcpStream::connect(addr).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
        let session = ClientSession::new(7, &format!("rtmp://{addr}/{app}"), name);
        let mut publisher = Publisher { session, stream, unread: Vec::new() };
        loop {
            let received = publisher.session.receive(&publisher.unread);
            let (used, event) = received.map_err(|error| error.to_string())?;
            publisher.unread.drain(..used);
            publisher.flush();
            if let Some(ClientEvent::Publishing) = event {
                return Ok(publisher);
            }
            let mut buffer = [0; 4096];
            match publisher.stream.read(&mut buffer) {
                Ok(0) => return Err("closed".to_owned()),
                Ok(len) => publisher.unread.extend_from_slice(&buffer[..len]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Sends one tag.
    pub fn send(&mut self, tag: &Tag) {
        match tag.kind {
            8 => self.session.send_audio(tag.time_ms, [&tag.body, &[]]),
            9 => self.session.send_video(tag.time_ms, [&tag.body, &[]]),
            _ => self.session.send_script_data(&tag.body),
        }
        self.flush();
    }

    /// Says goodbye.
    pub fn finish(mut self) {
        self.session.finish();
        self.flush();
    }

    fn flush(&mut self) {
        let output = self.session.output().split();
        // A box that closed is seen when it is read from.
        let _ = self.stream.write_all(&output);
    }
}

/// One tag of an FLV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// 8 sound, 9 pictures, 18 script data.
    pub kind: u8,
    pub time_ms: u32,
    pub body: Vec<u8>,
}

/// The tags of a file, as they stand there.
#[track_caller]
pub fn tags(path: &Path) -> Vec<Tag> {
    let file = fs::read(path).expect("the file can be read");
    let (mut tags, mut at) = (Vec::new(), 13);
    while at + 11 <= file.len() {
        let head = &file[at..at + 11];
        let len = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let time_ms = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        tags.push(Tag { kind: head[0], time_ms, body: file[at + 11..at + 11 + len].to_vec() });
        at += 11 + len + 4;
    }
    tags
}
