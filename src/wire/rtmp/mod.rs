//! RTMP (Adobe RTMP 1.0 and Enhanced RTMP) without I/O: bytes in, events and bytes out. A
//! [`server::ServerSession`] takes a publisher; a [`client::ClientSession`] is one.
//!
//! Bounds: what a peer makes the reader hold is counted before it is allocated: all messages in
//! progress together may not be longer than [`MESSAGE_BYTES_BEFORE_PUBLISH`] until a publish is
//! accepted, and [`MESSAGE_BYTES_PUBLISHING`] after that. Chunk streams, AMF depth and AMF values
//! have caps of their own.

pub mod amf0;
pub mod chunk_reader;
pub mod chunk_writer;
pub mod client;
pub mod command;
pub mod handshake;
pub mod message;
pub mod receive_buffer;
pub mod server;
pub mod url;

use crate::domain::limits::SAMPLE_BYTES_MAX;

/// Bytes of messages in progress before a publish is accepted.
pub const MESSAGE_BYTES_BEFORE_PUBLISH: usize = 8 << 10;
/// Bytes of messages in progress of an accepted publisher: one sample and what comes beside it.
pub const MESSAGE_BYTES_PUBLISHING: usize = SAMPLE_BYTES_MAX + (64 << 10);
/// Replies that a peer leaves unread before the connection is given up.
pub const OUTPUT_BYTES_MAX: usize = 8 << 10;
/// Chunk streams of a connection; encoders use fewer than ten.
pub const CHUNK_STREAMS_MAX: usize = 64;

/// A peer breaks the protocol or a limit. The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RtmpError {
    /// The first byte names a version that is not spoken (or it is no RTMP at all).
    #[error("handshake with version {0}")]
    Version(u8),
    /// A chunk refers to one before it that never came.
    #[error("chunk of type {chunk_type} on chunk stream {chunk_stream}, which has no message yet")]
    NoPriorChunk {
        /// The type (0 to 3).
        chunk_type: u8,
        /// The chunk stream.
        chunk_stream: u32,
    },
    /// A message begins before the one before it on the same chunk stream ended.
    #[error("a message on chunk stream {0} is interrupted by another")]
    Interrupted(u32),
    /// More chunk streams than a connection may have.
    #[error("more than {CHUNK_STREAMS_MAX} chunk streams")]
    TooManyChunkStreams,
    /// A message is too long, alone or with those beside it.
    #[error("messages of {bytes} bytes in progress, {bytes_max} are allowed")]
    MessageTooLong {
        /// What they would take.
        bytes: usize,
        /// What they may take.
        bytes_max: usize,
    },
    /// A chunk size of 0 or beyond 31 bits.
    #[error("chunk size {0}")]
    ChunkSize(u32),
    /// A protocol message is shorter than its fields.
    #[error("the {0} message is cut short")]
    Truncated(&'static str),
    /// A command cannot be read.
    #[error("a command cannot be read")]
    Command(#[from] amf0::AmfError),
    /// The peer does not read what it is sent.
    #[error("the peer leaves more than {OUTPUT_BYTES_MAX} bytes of replies unread")]
    OutputFull,
    /// The far side refused (client only).
    #[error("refused: {0}")]
    Refused(String),
}
