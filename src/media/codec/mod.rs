//! Codec configuration records: what they say of picture and sound. Every reader checks lengths
//! before it looks and never panics, whatever the bytes.

pub mod aac;
pub mod avc;
mod byte_reader;
pub mod hevc;
pub mod nal;

/// A codec configuration or sample cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end before the thing does.
    #[error("the {0} is cut short")]
    Truncated(&'static str),
    /// A value that the specification does not allow.
    #[error("the {what} has a bad {field}")]
    Invalid {
        /// What was read.
        what: &'static str,
        /// The field that is wrong.
        field: &'static str,
    },
    /// A parameter set cannot be read.
    #[error("the {what} cannot be read: {why}")]
    ParameterSet {
        /// Which one.
        what: &'static str,
        /// What the reader said.
        why: String,
    },
}

/// What a video configuration says of the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoInfo {
    /// Columns of luma samples that are shown.
    pub width: u16,
    /// Rows of luma samples that are shown.
    pub height: u16,
    /// Pictures that may come before another one in decoding order and after it in output order:
    /// what the stream states, or 0 where its profile or picture order type implies that. `None`
    /// when nothing is known.
    pub reorder_frames: Option<u8>,
    /// Nominal duration of a frame as (ticks, ticks a second); both are positive.
    pub frame_ticks: Option<(u32, u32)>,
}
