//! What a renderer reads: a clip as sealed fragments on flash, in order.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::sample::Track;

/// A clip cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// The flash failed.
    #[error("reading fragment {fragment} failed")]
    Read {
        /// Which fragment of the clip.
        fragment: u32,
        /// What the flash said.
        #[source]
        source: std::io::Error,
    },
    /// What was read is not what was sealed.
    #[error("fragment {fragment} is damaged: {what}")]
    Damaged {
        /// Which fragment of the clip.
        fragment: u32,
        /// What is wrong.
        what: &'static str,
    },
}

/// A stretch of fragments with the same tracks and one timeline, all of one segment.
#[derive(Debug, Clone)]
pub struct ClipPart {
    /// Tracks as announced by the source.
    pub tracks: Arc<[Track]>,
    /// Script data of the source (AMF0 body of an `onMetaData` tag); empty if none came.
    pub script_data: Bytes,
    /// The first fragment of the part, by its number in the clip.
    pub first_fragment: u32,
    /// Fragments in the part; at least one.
    pub fragments: u32,
    /// Time or codec parameters do not run on from the part before (false for the first part).
    pub discontinuity: bool,
}

/// A clip: fragments `0..fragment_count`, each `moof` + `mdat` as written to the ring.
///
/// A fragment's bytes: one `moof` box (one `traf` per track that has samples, each with one
/// `tfdt` and one `trun`), then one `mdat` box whose payload is the samples of the first `traf`,
/// then of the second and so on.
pub trait ClipSource: Send + Sync {
    /// The parts, in order; they cover all fragments.
    fn parts(&self) -> &[ClipPart];
    /// The whole `moof` box of a fragment (read from flash at each call; a few KiB).
    ///
    /// # Errors
    /// The flash fails or the bytes are damaged.
    fn moof(&self, fragment: u32) -> Result<Vec<u8>, ClipError>;
    /// Fills `buf` from the fragment's `mdat` payload, from `offset` in bytes.
    ///
    /// # Errors
    /// The flash fails.
    fn read_payload(&self, fragment: u32, offset: u32, buf: &mut [u8]) -> Result<(), ClipError>;
    /// Reads the whole fragment and checks it. What gives out something of a payload need not call it.
    ///
    /// # Errors
    /// The flash fails, or the fragment is not what was sealed.
    fn check(&self, fragment: u32) -> Result<(), ClipError>;

    /// Fragments in the clip.
    fn fragment_count(&self) -> u32 {
        self.parts().last().map_or(0, |part| part.first_fragment + part.fragments)
    }
}
