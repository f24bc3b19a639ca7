//! Messages: what chunks carry (RTMP 1.0, sections 5.4 and 7).

use bytes::Bytes;

// Message types.
/// The sender's chunk size from now on.
pub const SET_CHUNK_SIZE: u8 = 1;
/// A message in progress is given up.
pub const ABORT: u8 = 2;
/// Bytes received so far.
pub const ACKNOWLEDGEMENT: u8 = 3;
/// Stream events and pings.
pub const USER_CONTROL: u8 = 4;
/// Bytes after which the sender wants an acknowledgement.
pub const WINDOW_ACK_SIZE: u8 = 5;
/// Bytes after which the peer shall wait for an acknowledgement.
pub const SET_PEER_BANDWIDTH: u8 = 6;
/// An audio tag body.
pub const AUDIO: u8 = 8;
/// A video tag body.
pub const VIDEO: u8 = 9;
/// Script data behind an AMF3 prefix byte.
pub const DATA_AMF3: u8 = 15;
/// A command behind an AMF3 prefix byte.
pub const COMMAND_AMF3: u8 = 17;
/// Script data.
pub const DATA_AMF0: u8 = 18;
/// A command.
pub const COMMAND_AMF0: u8 = 20;
/// FLV tags, one after the other.
pub const AGGREGATE: u8 = 22;

// User control events.
/// A stream can be used.
pub const EVENT_STREAM_BEGIN: u16 = 0;
/// Asks for [`EVENT_PING_RESPONSE`].
pub const EVENT_PING_REQUEST: u16 = 6;
/// Answers a ping with the time it brought.
pub const EVENT_PING_RESPONSE: u16 = 7;

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: u8,
    /// Its time in milliseconds, modulo 2^32.
    pub timestamp_ms: u32,
    /// The message stream.
    pub stream_id: u32,
    /// What it carries.
    pub body: Bytes,
}

/// The messages inside an aggregate (7.1.6): FLV tags whose times are moved so that the first has
/// the time of the aggregate. It ends at the first tag that is cut short.
#[derive(Debug)]
pub struct Aggregate {
    rest: Bytes,
    timestamp_ms: u32,
    first_ms: Option<u32>,
    stream_id: u32,
}

impl Aggregate {
    /// The messages inside `message`.
    #[must_use]
    pub fn new(message: Message) -> Self {
        Aggregate {
            rest: message.body,
            timestamp_ms: message.timestamp_ms,
            first_ms: None,
            stream_id: message.stream_id,
        }
    }
}

impl Iterator for Aggregate {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let [kind, l0, l1, l2, t0, t1, t2, t3, ..] = *self.rest.first_chunk::<11>()?;
        let end = 11 + u32::from_be_bytes([0, l0, l1, l2]) as usize;
        if self.rest.len() < end {
            return None;
        }
        let body = self.rest.slice(11..end);
        // Behind each tag stands its length once more; the last may lack it.
        self.rest = self.rest.slice((end + 4).min(self.rest.len())..);
        let time_ms = u32::from_be_bytes([t3, t0, t1, t2]);
        let first_ms = *self.first_ms.get_or_insert(time_ms);
        let timestamp_ms = self.timestamp_ms.wrapping_add(time_ms.wrapping_sub(first_ms));
        Some(Message { kind, timestamp_ms, stream_id: self.stream_id, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_an_aggregate_take_its_time() {
        let tag = |kind: u8, time: u8, body: &[u8]| {
            let head = [kind, 0, 0, body.len() as u8, 0, 0, time, 0, 0, 0, 0];
            [&head[..], body, &[0, 0, 0, 11 + body.len() as u8]].concat()
        };
        let mut body = [tag(VIDEO, 100, b"ab"), tag(AUDIO, 123, b"c")].concat();
        body.extend_from_slice(&[AUDIO, 0, 0, 9, 0, 0, 1, 0, 0, 0, 0, 1]);
        let message =
            Message { kind: AGGREGATE, timestamp_ms: 5000, stream_id: 1, body: body.into() };
        let inside: Vec<_> = Aggregate::new(message)
            .map(|message| (message.kind, message.timestamp_ms, message.body))
            .collect();
        let expected =
            [(VIDEO, 5000, Bytes::from_static(b"ab")), (AUDIO, 5023, Bytes::from_static(b"c"))];
        assert_eq!(inside, expected);
    }
}
