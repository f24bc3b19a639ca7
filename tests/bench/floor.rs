//! The bare floor: what receiving and storing must cost at least. A thread a connection answers the
//! least that a publisher wants to hear, then copies what it reads into a file, understanding
//! nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use crate::load::{amf_call, amf_number, amf_text, chunks};

const BUFFER_BYTES: usize = 64 << 10;

/// Listens, says `ready ADDR`, and records every connection into a file of its own, for ever.
pub fn serve(dir: &Path) -> io::Result<()> {
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
    for (asked, answer) in [
        (
            &b"connect"[..],
            [amf_call("_result", 1.0), vec![5], status("NetConnection.Connect.Success")],
        ),
        (b"createStream", [amf_call("_result", 2.0), vec![5], amf_number(1.0)]),
        (b"publish", [amf_call("onStatus", 0.0), vec![5], status("NetStream.Publish.Start")]),
    ] {
        let mut heard = Vec::new();
        while !heard.windows(asked.len()).any(|window| window == asked) {
            let count = link.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            heard.extend_from_slice(&buffer[..count]);
        }
        link.write_all(&chunks(3, 20, 0, &answer.concat(), 128))?;
    }

    let mut file = File::create(path)?;
    loop {
        match link.read(&mut buffer)? {
            0 => return Ok(()),
            count => file.write_all(&buffer[..count])?,
        }
    }
}

/// An AMF0 object with a code.
fn status(code: &str) -> Vec<u8> {
    let mut bytes = vec![3, 0, 4];
    bytes.extend(b"code");
    bytes.extend(amf_text(code));
    bytes.extend([0, 0, 9]);
    bytes
}
