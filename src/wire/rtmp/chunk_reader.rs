//! Chunks to messages (RTMP 1.0, section 5.3), with the habits of real encoders: a type-3 chunk
//! that begins a message advances time by the last field, an extended timestamp may be repeated on
//! continuation chunks or left out, the first chunk of a chunk stream may be of type 1.

use bytes::Bytes;

use crate::wire::rtmp::message::Message;
use crate::wire::rtmp::{CHUNK_STREAMS_MAX, RtmpError};

/// The chunk size until the peer sets another.
pub const CHUNK_BYTES_DEFAULT: usize = 128;
/// In the field of 24 bits: the time is in the extended field.
const EXTENDED: u32 = 0xff_ffff;
/// What a message gets before its bytes come; longer ones grow as they arrive.
const MESSAGE_BYTES_AT_FIRST: usize = 64 << 10;

/// Collects messages from chunks. Holds no input: an incomplete header is left to the caller.
#[derive(Debug)]
pub struct ChunkReader {
    chunk_bytes: usize,
    streams: Vec<ChunkStream>,
    /// The chunk whose payload is being read: its stream and how much is missing.
    current: Option<(usize, usize)>,
    /// Lengths, as announced, of all messages in progress.
    bytes_in_progress: usize,
    bytes_max: usize,
}

/// What later chunks of a chunk stream refer to.
#[derive(Debug)]
struct ChunkStream {
    id: u32,
    timestamp_ms: u32,
    /// The last time field, extended or not: a delta, or after type 0 the time itself.
    field: u32,
    extended: bool,
    len: usize,
    kind: u8,
    stream_id: u32,
    in_progress: bool,
    body: Vec<u8>,
}

/// A chunk header, read.
struct Header {
    bytes: usize,
    chunk_type: u8,
    chunk_stream: u32,
}

impl ChunkReader {
    /// A reader that lets messages in progress be `bytes_max` long together.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        ChunkReader {
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            streams: Vec::new(),
            current: None,
            bytes_in_progress: 0,
            bytes_max,
        }
    }

    /// Changes how long messages in progress may be together; those begun already may finish.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The peer's chunk size from the next chunk on.
    ///
    /// # Errors
    /// The size is 0 or beyond 31 bits.
    pub fn set_chunk_bytes(&mut self, size: u32) -> Result<(), RtmpError> {
        if size == 0 || size > 0x7fff_ffff {
            return Err(RtmpError::ChunkSize(size));
        }
        self.chunk_bytes = size as usize;
        Ok(())
    }

    /// Gives up the message in progress on a chunk stream.
    pub fn abort(&mut self, chunk_stream: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == chunk_stream)
            && stream.in_progress
        {
            stream.in_progress = false;
            stream.body = Vec::new();
            self.bytes_in_progress -= stream.len;
        }
    }

    /// Bytes of messages that are begun and not complete: as allocated.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.streams.iter().map(|stream| stream.body.capacity()).sum()
    }

    /// Reads from `input`: how many bytes were used, and a message if one is complete. Bytes that
    /// were not used (always fewer than 18 when there is no message) must come again with more
    /// behind them.
    ///
    /// # Errors
    /// The peer breaks the protocol or a limit; the reader is of no use then.
    pub fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Message>), RtmpError> {
        let mut used = 0;
        loop {
            let (index, missing) = match self.current {
                Some(current) => current,
                None => {
                    let Some((header_bytes, index)) = self.begin_chunk(&input[used..])? else {
                        return Ok((used, None));
                    };
                    used += header_bytes;
                    let stream = &self.streams[index];
                    (index, self.chunk_bytes.min(stream.len - stream.body.len()))
                }
            };
            let here = missing.min(input.len() - used);
            let stream = &mut self.streams[index];
            stream.append(&input[used..used + here]);
            used += here;
            self.current = (here < missing).then_some((index, missing - here));
            if stream.body.len() == stream.len {
                self.bytes_in_progress -= stream.len;
                return Ok((used, Some(stream.finish())));
            }
            if self.current.is_some() {
                return Ok((used, None));
            }
        }
    }

    /// Reads a chunk header; its length and the place of its chunk stream. `None` if it is not
    /// complete.
    fn begin_chunk(&mut self, input: &[u8]) -> Result<Option<(usize, usize)>, RtmpError> {
        let Some(header) = basic_header(input) else { return Ok(None) };
        let place = self.streams.iter().position(|stream| stream.id == header.chunk_stream);
        let fields = &input[header.bytes..];
        let fields_bytes = [11, 7, 3, 0][usize::from(header.chunk_type)];
        if fields.len() < fields_bytes {
            return Ok(None);
        }
        let extended = &fields[fields_bytes..];
        if header.chunk_type == 3 {
            let no_prior =
                RtmpError::NoPriorChunk { chunk_type: 3, chunk_stream: header.chunk_stream };
            let index = place.ok_or(no_prior)?;
            let Some(repeated) = self.streams[index].repeats_extended(extended) else {
                return Ok(None);
            };
            self.begin_message(index, None)?;
            return Ok(Some((header.bytes + if repeated { 4 } else { 0 }, index)));
        }
        let mut field = u32::from_be_bytes([0, fields[0], fields[1], fields[2]]);
        let mut bytes = header.bytes + fields_bytes;
        let is_extended = field == EXTENDED;
        if is_extended {
            let Some(extended) = extended.first_chunk() else { return Ok(None) };
            field = u32::from_be_bytes(*extended);
            bytes += 4;
        }
        let index = self.place_for(&header, place)?;
        let stream = &mut self.streams[index];
        if stream.in_progress {
            return Err(RtmpError::Interrupted(header.chunk_stream));
        }
        if header.chunk_type <= 1 {
            stream.len = u32::from_be_bytes([0, fields[3], fields[4], fields[5]]) as usize;
            stream.kind = fields[6];
        }
        if header.chunk_type == 0 {
            stream.stream_id = u32::from_le_bytes([fields[7], fields[8], fields[9], fields[10]]);
        }
        stream.extended = is_extended;
        self.begin_message(index, Some((header.chunk_type, field)))?;
        Ok(Some((bytes, index)))
    }

    /// The chunk stream of a header of type 0, 1 or 2, made if it is new.
    fn place_for(&mut self, header: &Header, place: Option<usize>) -> Result<usize, RtmpError> {
        if let Some(index) = place {
            return Ok(index);
        }
        // Type 1 is let through: librtmp begins its control stream with it.
        if header.chunk_type == 2 {
            let chunk_stream = header.chunk_stream;
            return Err(RtmpError::NoPriorChunk { chunk_type: 2, chunk_stream });
        }
        if self.streams.len() == CHUNK_STREAMS_MAX {
            return Err(RtmpError::TooManyChunkStreams);
        }
        self.streams.push(ChunkStream {
            id: header.chunk_stream,
            timestamp_ms: 0,
            field: 0,
            extended: false,
            len: 0,
            kind: 0,
            stream_id: 0,
            in_progress: false,
            body: Vec::new(),
        });
        Ok(self.streams.len() - 1)
    }

    /// Sets the time of a message that begins with this chunk and counts its length. A chunk of
    /// type 3 in the middle of a message changes nothing.
    fn begin_message(&mut self, index: usize, time: Option<(u8, u32)>) -> Result<(), RtmpError> {
        let stream = &mut self.streams[index];
        if stream.in_progress {
            return Ok(());
        }
        match time {
            Some((0, time_ms)) => (stream.timestamp_ms, stream.field) = (time_ms, time_ms),
            Some((_, delta_ms)) => {
                stream.timestamp_ms = stream.timestamp_ms.wrapping_add(delta_ms);
                stream.field = delta_ms;
            }
            None => stream.timestamp_ms = stream.timestamp_ms.wrapping_add(stream.field),
        }
        let bytes = self.bytes_in_progress + stream.len;
        if bytes > self.bytes_max {
            return Err(RtmpError::MessageTooLong { bytes, bytes_max: self.bytes_max });
        }
        self.bytes_in_progress = bytes;
        stream.in_progress = true;
        Ok(())
    }
}

impl ChunkStream {
    /// Whether the bytes behind a type-3 header repeat the extended timestamp; `None` if they are
    /// too few to tell.
    fn repeats_extended(&self, input: &[u8]) -> Option<bool> {
        if !self.extended {
            return Some(false);
        }
        let expected = self.field.to_be_bytes();
        let known = input.len().min(expected.len());
        if input[..known] != expected[..known] {
            return Some(false);
        }
        (known == expected.len()).then_some(true)
    }

    /// Adds payload. Room grows with what has come, not with what was announced.
    fn append(&mut self, payload: &[u8]) {
        if self.body.capacity() - self.body.len() < payload.len() {
            let doubled = (self.body.len() * 2).max(MESSAGE_BYTES_AT_FIRST);
            let room = doubled.max(self.body.len() + payload.len()).min(self.len);
            self.body.reserve_exact(room - self.body.len());
        }
        self.body.extend_from_slice(payload);
    }

    fn finish(&mut self) -> Message {
        self.in_progress = false;
        Message {
            kind: self.kind,
            timestamp_ms: self.timestamp_ms,
            stream_id: self.stream_id,
            body: Bytes::from(std::mem::take(&mut self.body)),
        }
    }
}

/// The basic header (5.3.1.1); `None` if it is not complete.
fn basic_header(input: &[u8]) -> Option<Header> {
    let first = *input.first()?;
    let (bytes, chunk_stream) = match first & 0x3f {
        0 => (2, 64 + u32::from(*input.get(1)?)),
        1 => (3, 64 + u32::from(*input.get(1)?) + 256 * u32::from(*input.get(2)?)),
        id => (1, u32::from(id)),
    };
    Some(Header { bytes, chunk_type: first >> 6, chunk_stream })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::wire::rtmp::message::{SET_CHUNK_SIZE, VIDEO};

    const BYTES_MAX: usize = 1 << 20;

    /// All messages in `bytes`, given in pieces; obeys chunk sizes like a session.
    fn read_all(bytes: &[u8], piece: usize) -> Result<Vec<Message>, RtmpError> {
        let mut reader = ChunkReader::new(BYTES_MAX);
        let (mut messages, mut buffer) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            loop {
                let (used, message) = reader.read(&buffer)?;
                buffer.drain(..used);
                let Some(message) = message else { break };
                if message.kind == SET_CHUNK_SIZE {
                    let size = message.body.first_chunk().map(|size| u32::from_be_bytes(*size));
                    reader.set_chunk_bytes(size.unwrap_or(0))?;
                } else {
                    messages.push(message);
                }
            }
            assert!(buffer.len() < 18, "only a header is left over");
            assert!(reader.bytes_held() <= BYTES_MAX + MESSAGE_BYTES_AT_FIRST);
        }
        Ok(messages)
    }

    fn times(bytes: &[u8]) -> Vec<u32> {
        let messages = read_all(bytes, 1).expect("well formed");
        messages.iter().map(|message| message.timestamp_ms).collect()
    }

    #[test]
    fn a_message_of_type_3_advances_by_the_last_field() {
        let mut bytes = b"\x04\0\0\x0a\0\0\x01\x08\x01\0\0\0a".to_vec();
        bytes.extend_from_slice(b"\x84\0\0\x17b\xc4c\xc4d");
        assert_eq!(times(&bytes), [10, 33, 56, 79]);
        // After type 0 the field is the time itself, as the specification has it.
        assert_eq!(times(b"\x04\0\0\x0a\0\0\x01\x08\x01\0\0\0a\xc4b"), [10, 20]);
    }

    #[test]
    fn time_wraps_and_may_go_back() {
        let mut bytes = b"\x04\xff\xff\xff\0\0\x01\x08\x01\0\0\0\xff\xff\xff\xf0a".to_vec();
        bytes.extend_from_slice(b"\x84\0\0\x20b");
        bytes.extend_from_slice(b"\x84\xff\xff\xff\xff\xff\xff\xf6c");
        assert_eq!(times(&bytes), [0xffff_fff0, 0x10, 0x06]);
    }

    #[test]
    fn extended_time_on_continuations_may_be_there_or_not() {
        let head = b"\x06\xff\xff\xff\0\x01\x02\x09\x01\0\0\0\x01\x02\x03\x04";
        // The second payload begins like the extended time but is not.
        let second: Vec<u8> = [&b"\x01\x02\x03\x05"[..], &[7; 124]].concat();
        for repeated in [&b""[..], b"\x01\x02\x03\x04"] {
            let mut bytes = head.to_vec();
            bytes.extend_from_slice(&[9; 128]);
            for rest in [&second[..], b"ab"] {
                bytes.push(0xc6);
                bytes.extend_from_slice(repeated);
                bytes.extend_from_slice(rest);
            }
            let messages = read_all(&bytes, 1).expect("well formed");
            let body = [&[9; 128][..], &second, b"ab"].concat();
            assert_eq!(messages.len(), 1);
            assert_eq!((messages[0].timestamp_ms, &messages[0].body[..]), (0x0102_0304, &body[..]));
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let error = |bytes: &[u8]| read_all(bytes, 1).expect_err("refused");
        let no_prior = |chunk_type| RtmpError::NoPriorChunk { chunk_type, chunk_stream: 5 };
        assert_eq!(error(b"\xc5"), no_prior(3));
        assert_eq!(error(b"\x85\0\0\0"), no_prior(2));
        assert!(read_all(b"\x42\0\0\0\0\0\x01\x08a", 1).is_ok(), "librtmp begins with type 1");
        let begun: Vec<u8> = [&b"\x04\0\0\0\0\0\xff\x08\x01\0\0\0"[..], &[1; 128]].concat();
        assert_eq!(error(&begun.repeat(2)), RtmpError::Interrupted(4));
        let huge = error(b"\x04\0\0\0\xff\xff\xff\x09\x01\0\0\0");
        assert_eq!(huge, RtmpError::MessageTooLong { bytes: 0xff_ffff, bytes_max: BYTES_MAX });
        for size in [0, 0x8000_0000, u32::MAX] {
            let bytes = [&b"\x02\0\0\0\0\0\x04\x01\0\0\0\0"[..], &size.to_be_bytes()].concat();
            assert_eq!(error(&bytes), RtmpError::ChunkSize(size));
        }
    }

    #[test]
    fn chunk_streams_have_a_cap() {
        let mut bytes = Vec::new();
        for id in 0..65_600u32 - 64 {
            bytes.extend_from_slice(&[1, id as u8, (id >> 8) as u8]);
            bytes.extend_from_slice(b"\0\0\0\0\0\0\x08\x01\0\0\0");
        }
        assert_eq!(read_all(&bytes, 4096), Err(RtmpError::TooManyChunkStreams));
    }

    #[test]
    fn announced_lengths_cost_nothing_and_are_counted_together() {
        let mut reader = ChunkReader::new(BYTES_MAX);
        for id in 3..11u8 {
            let mut chunk = vec![id];
            chunk.extend_from_slice(b"\0\0\0\x02\0\0\x09\x01\0\0\0");
            chunk.extend_from_slice(&[0; 128]);
            let (used, message) = reader.read(&chunk).expect("eight of 128 KiB are allowed");
            assert_eq!((used, message), (140, None));
        }
        assert!(reader.bytes_held() <= 8 * MESSAGE_BYTES_AT_FIRST);
        let ninth = reader.read(b"\x0b\0\0\0\0\0\x01\x09\x01\0\0\0");
        let bytes = BYTES_MAX + 1;
        assert_eq!(ninth, Err(RtmpError::MessageTooLong { bytes, bytes_max: BYTES_MAX }));
        reader.abort(3);
        assert!(reader.read(b"\x0b\0\0\0\0\0\x01\x09\x01\0\0\0").is_ok(), "one was given up");
    }

    /// A message to be sent, and how.
    #[derive(Debug, Clone)]
    struct Plan {
        chunk_stream: u32,
        kind: u8,
        step_ms: u32,
        len: usize,
        compact: bool,
    }

    fn any_plan() -> impl Strategy<Value = Plan> {
        (
            prop_oneof![
                Just(3u32),
                Just(4),
                Just(63),
                Just(64),
                Just(319),
                Just(320),
                Just(65_599)
            ],
            prop_oneof![Just(VIDEO), Just(8u8)],
            prop_oneof![Just(0u32), Just(20), Just(40), Just(0x0200_0000), any::<u32>()],
            prop_oneof![Just(0usize), Just(7), Just(200), 0..700usize],
            any::<bool>(),
        )
            .prop_map(|(chunk_stream, kind, step_ms, len, compact)| Plan {
                chunk_stream,
                kind,
                step_ms,
                len,
                compact,
            })
    }

    /// A chunk, and the message that it completes.
    type Turn = (Vec<u8>, Option<Message>);

    /// What is known of a chunk stream at the sender.
    struct Sender {
        time_ms: u32,
        field: u32,
        len: usize,
        kind: u8,
    }

    fn put_basic(out: &mut Vec<u8>, chunk_type: u8, id: u32) {
        match id {
            0..64 => out.push(chunk_type << 6 | id as u8),
            64..320 => out.extend_from_slice(&[chunk_type << 6, (id - 64) as u8]),
            _ => {
                let id = id - 64;
                out.extend_from_slice(&[chunk_type << 6 | 1, id as u8, (id >> 8) as u8]);
            }
        }
    }

    /// The chunks of a message, each by itself, in the shortest header allowed or the longest.
    fn chunks_of(
        plan: &Plan,
        before: &mut Option<Sender>,
        message: &Message,
        chunk_bytes: usize,
        repeat_extended: bool,
    ) -> Vec<Vec<u8>> {
        let mut chunk_type = 0;
        let mut field = message.timestamp_ms;
        if let Some(before) = before.as_ref().filter(|_| plan.compact) {
            field = message.timestamp_ms.wrapping_sub(before.time_ms);
            // Without payload nothing tells whether an extended time is left out.
            let may_repeat = plan.len > 0 || repeat_extended;
            chunk_type = match (before.len, before.kind, before.field) {
                (len, kind, last)
                    if may_repeat && (len, kind, last) == (plan.len, plan.kind, field) =>
                {
                    3
                }
                (len, kind, _) if (len, kind) == (plan.len, plan.kind) => 2,
                _ => 1,
            };
        }
        *before =
            Some(Sender { time_ms: message.timestamp_ms, field, len: plan.len, kind: plan.kind });
        let mut chunks = Vec::new();
        let mut out = Vec::new();
        put_basic(&mut out, chunk_type, plan.chunk_stream);
        if chunk_type < 3 {
            out.extend_from_slice(&field.min(EXTENDED).to_be_bytes()[1..]);
        }
        if chunk_type < 2 {
            out.extend_from_slice(&(plan.len as u32).to_be_bytes()[1..]);
            out.push(plan.kind);
        }
        if chunk_type < 1 {
            out.extend_from_slice(&1u32.to_le_bytes());
        }
        let extended = field >= EXTENDED;
        if extended && (chunk_type < 3 || repeat_extended) {
            out.extend_from_slice(&field.to_be_bytes());
        }
        let mut pieces = message.body.chunks(chunk_bytes);
        out.extend_from_slice(pieces.next().unwrap_or_default());
        chunks.push(out);
        for piece in pieces {
            let mut out = Vec::new();
            put_basic(&mut out, 3, plan.chunk_stream);
            if extended && repeat_extended {
                out.extend_from_slice(&field.to_be_bytes());
            }
            out.extend_from_slice(piece);
            chunks.push(out);
        }
        chunks
    }

    proptest! {
        #[test]
        fn any_interleaving_gives_the_same_messages(
            plans in proptest::collection::vec(any_plan(), 1..24),
            order in proptest::collection::vec(any::<Index>(), 1..200),
            chunk_bytes in prop_oneof![Just(1usize), Just(128), Just(65_536), 1..300usize],
            repeat_extended in any::<bool>(),
            piece in 1..600usize,
        ) {
            // Queues of chunks by chunk stream; what ends a message carries it.
            let mut lanes: Vec<(u32, Option<Sender>, Vec<Turn>)> = Vec::new();
            for (number, plan) in plans.iter().enumerate() {
                let place = lanes.iter().position(|lane| lane.0 == plan.chunk_stream);
                let place = place.unwrap_or_else(|| {
                    lanes.push((plan.chunk_stream, None, Vec::new()));
                    lanes.len() - 1
                });
                let (_, before, queue) = &mut lanes[place];
                let time_ms = before.as_ref().map_or(0, |before| before.time_ms);
                // Where extended times are left out, payload that begins like one would have to
                // wait for what follows it; zeros are like none.
                let fill = |at: usize| if repeat_extended { (number + at) as u8 } else { 0 };
                let body: Vec<u8> = (0..plan.len).map(fill).collect();
                let message = Message {
                    kind: plan.kind,
                    timestamp_ms: time_ms.wrapping_add(plan.step_ms),
                    stream_id: 1,
                    body: body.into(),
                };
                let chunks = chunks_of(plan, before, &message, chunk_bytes, repeat_extended);
                let last = chunks.len() - 1;
                for (index, chunk) in chunks.into_iter().enumerate() {
                    queue.push((chunk, (index == last).then(|| message.clone())));
                }
            }
            let size = (chunk_bytes as u32).to_be_bytes();
            let mut bytes = [&b"\x02\0\0\0\0\0\x04\x01\0\0\0\0"[..], &size].concat();
            let mut expected = Vec::new();
            let mut turns = order.iter().cycle();
            while !lanes.is_empty() {
                let place = turns.next().expect("cycles").index(lanes.len());
                let (chunk, message) = lanes[place].2.remove(0);
                bytes.extend_from_slice(&chunk);
                expected.extend(message);
                if lanes[place].2.is_empty() {
                    lanes.remove(place);
                }
            }
            prop_assert_eq!(read_all(&bytes, piece), Ok(expected));
        }

        #[test]
        fn mutated_chunks_never_panic_and_stay_in_bounds(
            plans in proptest::collection::vec(any_plan(), 1..8),
            flips in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..12),
            piece in 1..600usize,
        ) {
            let mut bytes = Vec::new();
            for plan in &plans {
                let body = vec![0xee; plan.len].into();
                let message =
                    Message { kind: plan.kind, timestamp_ms: plan.step_ms, stream_id: 1, body };
                bytes.extend(chunks_of(plan, &mut None, &message, 128, true).concat());
            }
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = read_all(&bytes, piece);
        }
    }
}
