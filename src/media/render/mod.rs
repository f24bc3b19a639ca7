//! Renderings: a clip as a file of one format, made while it is read.
//!
//! A rendering is a pure function of its clip: the same clip gives the same bytes, today and after
//! a reboot. It holds at most [`RENDERING_BYTES_MAX`](crate::domain::limits::RENDERING_BYTES_MAX)
//! of memory, also for twelve hours.

pub mod aac;
pub mod flv;
pub mod hls;
pub mod index;
pub mod merge;
pub mod mp4;
mod mp4_moov;
mod mp4_tables;
pub mod payload;
pub mod program;
pub mod stream;
pub mod ts;

use std::sync::Arc;

use crate::domain::files::FileFormat;
use crate::media::clip::{ClipError, ClipSource};

/// One object of a file. FLV, MP4 and AAC have a single one with an empty name; HLS has the
/// segments (and init sections) first and `index.m3u8` last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Name beside the other objects of the file; empty for a file that is one object.
    pub name: String,
    /// Length in bytes.
    pub len: u64,
    /// Media type for HTTP.
    pub content_type: &'static str,
}

/// A clip cannot be rendered in a format.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The clip has no track that the format can hold.
    #[error("{format} holds none of the clip's tracks")]
    NothingToHold {
        /// The format's name.
        format: &'static str,
    },
    /// The clip cannot be read.
    #[error(transparent)]
    Clip(#[from] ClipError),
}

/// A file made while it is read.
pub trait Rendering: Send + Sync {
    /// The objects the file consists of, in the order they are to be stored.
    fn objects(&self) -> &[Object];
    /// Fills `buf` with the bytes of an object (by its place in [`objects`](Self::objects)) from
    /// `offset`. `offset + buf.len()` must not exceed the object's length.
    ///
    /// # Errors
    /// The clip cannot be read.
    fn read_at(&self, object: usize, offset: u64, buf: &mut [u8]) -> Result<(), RenderError>;
    /// Tracks of the clip that the format cannot hold, in words, for reports.
    fn dropped_tracks(&self) -> &[String];
    /// Length of all objects in bytes.
    fn total_len(&self) -> u64 {
        self.objects().iter().map(|object| object.len).sum()
    }
}

/// Opens the rendering of a clip in a format: looks at every fragment's `moof` once.
///
/// # Errors
/// The clip cannot be read, or the format holds none of its tracks.
pub fn open(
    format: FileFormat,
    clip: Arc<dyn ClipSource>,
) -> Result<Box<dyn Rendering>, RenderError> {
    Ok(match format {
        FileFormat::Flv => Box::new(flv::FlvRendering::open(clip)?),
        FileFormat::Hls => Box::new(hls::HlsRendering::open(clip)?),
        FileFormat::Mp4 => Box::new(mp4::Mp4Rendering::open(clip)?),
        FileFormat::Aac => Box::new(aac::AacRendering::open(clip)?),
    })
}
