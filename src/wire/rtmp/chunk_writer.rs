//! Messages to chunks (RTMP 1.0, section 5.3).

use bytes::{BufMut, BytesMut};

use crate::wire::rtmp::chunk_reader::CHUNK_BYTES_DEFAULT;

/// In the field of 24 bits: the time is in the extended field.
const EXTENDED: u32 = 0xff_ffff;

/// Cuts messages into chunks. A message that goes on in time on its chunk stream gets a header of
/// type 1, any other one of type 0.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_bytes: usize,
    /// The last time and message stream of each chunk stream that was used.
    streams: Vec<(u8, u32, u32)>,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        ChunkWriter { chunk_bytes: CHUNK_BYTES_DEFAULT, streams: Vec::new() }
    }
}

impl ChunkWriter {
    /// The chunk size from the next message on; the peer must have been told. 0 counts as 1.
    pub fn set_chunk_bytes(&mut self, chunk_bytes: usize) {
        self.chunk_bytes = chunk_bytes.max(1);
    }

    /// Appends a message whose body is in two parts (a tag's head and its payload).
    ///
    /// # Panics
    /// The body is longer than 24 bits can tell or the chunk stream not in 2..=63.
    pub fn write(&mut self, out: &mut BytesMut, place: Place, timestamp_ms: u32, body: [&[u8]; 2]) {
        let len = body[0].len() + body[1].len();
        assert!(len < 1 << 24, "a message length has 24 bits");
        assert!((2..64).contains(&place.chunk_stream), "a chunk stream of one byte");
        let before = self.streams.iter_mut().find(|(id, ..)| *id == place.chunk_stream);
        let delta_ms = before.as_ref().and_then(|(_, time_ms, stream_id)| {
            let delta_ms = timestamp_ms.checked_sub(*time_ms)?;
            (*stream_id == place.stream_id).then_some(delta_ms)
        });
        let (chunk_type, field) = delta_ms.map_or((0, timestamp_ms), |delta_ms| (1, delta_ms));
        match before {
            Some(before) => (before.1, before.2) = (timestamp_ms, place.stream_id),
            None => self.streams.push((place.chunk_stream, timestamp_ms, place.stream_id)),
        }

        out.reserve(len + len / self.chunk_bytes * 5 + 16);
        out.put_u8(chunk_type << 6 | place.chunk_stream);
        out.put_uint(u64::from(field.min(EXTENDED)), 3);
        out.put_uint(len as u64, 3);
        out.put_u8(place.kind);
        if chunk_type == 0 {
            out.put_u32_le(place.stream_id);
        }
        let extended = (field >= EXTENDED).then_some(field);
        if let Some(field) = extended {
            out.put_u32(field);
        }
        let mut room = self.chunk_bytes;
        for mut part in body {
            while !part.is_empty() {
                if room == 0 {
                    out.put_u8(0xc0 | place.chunk_stream);
                    if let Some(field) = extended {
                        out.put_u32(field);
                    }
                    room = self.chunk_bytes;
                }
                let (now, later) = part.split_at(part.len().min(room));
                out.put_slice(now);
                room -= now.len();
                part = later;
            }
        }
    }
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Chunk stream, 2 to 63.
    pub chunk_stream: u8,
    /// Message type.
    pub kind: u8,
    /// Message stream.
    pub stream_id: u32,
}
