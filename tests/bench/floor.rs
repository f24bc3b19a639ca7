//! The bare floor: what receiving and storing must cost at least. A thread a connection answers the
//! least that a publisher wants to hear, then copies what it reads into a file, understanding
//! nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use edgerec::wire::rtmp::amf0::Value;
use edgerec::wire::rtmp::chunk_writer::{ChunkWriter, Place};
use edgerec::wire::rtmp::command::{command_body, status};
use edgerec::wire::rtmp::message::COMMAND_AMF0;

const BUFFER_BYTES: usize = 64 << 10;
/// Numbers of the calls of our own publisher that wait for an answer.
const CONNECT: f64 = 1.0;
const CREATE_STREAM: f64 = 4.0;

/// Whether this process was started to be the floor (`floor DIR`); it has served then.
pub fn serves() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, dir] = &arguments[..] else { return false };
    let asked = what == "floor";
    if asked {
        serve(Path::new(dir)).expect("the floor can listen");
    }
    asked
}

/// Listens, says `ready ADDR`, and records every connection into a file of its own, for ever.
fn serve(dir: &Path) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("ready {}", listener.local_addr()?);
    for (number, link) in listener.incoming().enumerate() {
        let (link, path) = (link?, dir.join(number.to_string()));
        std::thread::spawn(move || record(link, path));
    }
    Ok(())
}

fn record(mut link: TcpStream, path: PathBuf) -> io::Result<()> {
    let mut hello = vec![0; 1 + 1536];
    link.read_exact(&mut hello)?;
    link.write_all(&hello)?;
    link.write_all(&hello[1..])?;
    let mut echo = vec![0; 1536];
    link.read_exact(&mut echo)?;

    let mut buffer = vec![0; BUFFER_BYTES];
    let connected = status("status", "NetConnection.Connect.Success", "");
    let publishing = status("status", "NetStream.Publish.Start", "");
    let mut answers = ChunkWriter::default();
    for (asked, name, call, about) in [
        (&b"connect"[..], "_result", CONNECT, connected),
        (b"createStream", "_result", CREATE_STREAM, Value::Number(1.0)),
        (b"publish", "onStatus", 0.0, publishing),
    ] {
        let mut heard = Vec::new();
        while !heard.windows(asked.len()).any(|window| window == asked) {
            let count = link.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            heard.extend_from_slice(&buffer[..count]);
        }
        let mut answer = BytesMut::new();
        let place = Place { chunk_stream: 3, kind: COMMAND_AMF0, stream_id: 0 };
        let body = command_body(name, call, &[Value::Null, about]);
        answers.write(&mut answer, place, 0, [&body, &[]]);
        link.write_all(&answer)?;
    }

    let mut file = File::create(path)?;
    loop {
        match link.read(&mut buffer)? {
            0 => return Ok(()),
            count => file.write_all(&buffer[..count])?,
        }
    }
}
