//! The simple handshake (RTMP 1.0, section 5.2). Clients that offer digests get the simple answer
//! too, which all of them take.

use bytes::{BufMut, BytesMut};

use crate::wire::rtmp::RtmpError;

/// C1, S1, C2 and S2 are this long.
const PART_BYTES: usize = 1536;
/// The version byte.
const VERSION: u8 = 3;

/// Both sides of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The peer's version and first part are awaited.
    First,
    /// The peer's echo is awaited; so much of it is missing.
    Echo(usize),
    Done,
}

/// A handshake under way, of a server or a client.
#[derive(Debug)]
pub struct Handshake {
    step: Step,
    seed: u64,
    is_server: bool,
}

impl Handshake {
    /// Waits for a client. `seed` fills the part that shall be random.
    #[must_use]
    pub fn server(seed: u64) -> Self {
        Handshake { step: Step::First, seed, is_server: true }
    }

    /// Speaks first: C0 and C1 are appended to `out`.
    #[must_use]
    pub fn client(seed: u64, out: &mut BytesMut) -> Self {
        out.put_u8(VERSION);
        put_part(out, seed);
        Handshake { step: Step::First, seed, is_server: false }
    }

    /// Whether chunks follow.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// Reads from `input`, appends answers to `out`, and says how many bytes were used. Fewer than
    /// 1,537 unused bytes must come again with more behind them.
    ///
    /// # Errors
    /// The peer speaks another version, or something else altogether.
    pub fn read(&mut self, input: &[u8], out: &mut BytesMut) -> Result<usize, RtmpError> {
        let mut used = 0;
        if self.step == Step::First {
            match input.first() {
                Some(&VERSION) | None => {}
                Some(other) => return Err(RtmpError::Version(*other)),
            }
            let Some(first) = input.get(1..=PART_BYTES) else { return Ok(0) };
            if self.is_server {
                out.put_u8(VERSION);
                put_part(out, self.seed);
            }
            out.put_slice(first);
            used = 1 + PART_BYTES;
            self.step = Step::Echo(PART_BYTES);
        }
        if let Step::Echo(missing) = self.step {
            let here = missing.min(input.len() - used);
            used += here;
            self.step = if here == missing { Step::Done } else { Step::Echo(missing - here) };
        }
        Ok(used)
    }
}

/// Time 0, version 0 (which says: no digest), then noise.
fn put_part(out: &mut BytesMut, seed: u64) {
    out.put_bytes(0, 8);
    let mut state = seed | 1;
    for _ in 0..(PART_BYTES - 8) / 8 {
        // xorshift64: nothing depends on how random it is.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.put_u64(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_and_server_agree_whatever_the_pieces() {
        for piece in [1, 7, 1536, 1537, 4000] {
            let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
            let mut client = Handshake::client(1, &mut to_server);
            let mut server = Handshake::server(2);
            let (mut at_server, mut at_client) = (BytesMut::new(), BytesMut::new());
            for _ in 0..10_000 {
                let now = to_server.split_to(piece.min(to_server.len()));
                at_server.extend_from_slice(&now);
                let used = server.read(&at_server, &mut to_client).expect("a handshake");
                let _ = at_server.split_to(used);
                let now = to_client.split_to(piece.min(to_client.len()));
                at_client.extend_from_slice(&now);
                let used = client.read(&at_client, &mut to_server).expect("a handshake");
                let _ = at_client.split_to(used);
            }
            assert!(client.is_done() && server.is_done(), "pieces of {piece}");
            assert!(at_server.is_empty() && at_client.is_empty());
        }
    }

    #[test]
    fn something_else_is_refused_at_the_first_byte() {
        let mut out = BytesMut::new();
        for (bytes, version) in [(&b"GET / HTTP/1.1"[..], b'G'), (&[6], 6), (&[0x16, 3, 1], 0x16)] {
            let error = Handshake::server(0).read(bytes, &mut out);
            assert_eq!(error, Err(RtmpError::Version(version)));
        }
        assert!(out.is_empty());
    }
}
