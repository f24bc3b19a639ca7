//! Fragmented MP4 as it lies on flash: the `ftyp` + `moov` that opens a segment, the `moof` of
//! each fragment, and reading both back.
//!
//! References: ISO/IEC 14496-12 (boxes), 14496-14 (`esds`), 14496-15 (`avcC`, `hvcC`).

pub mod bmff;
pub mod fragment;
pub mod init;
pub mod moof;
pub mod sample_entry;
pub mod selection;

pub use fragment::fragment_head;
pub use init::init_segment;
pub use moof::{Moof, Run, SampleEntry, parse_moof};
pub use selection::{Selection, select};

/// Bytes are not the boxes they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fmp4Error {
    /// A box or field reaches past the bytes there are.
    #[error("`{0}` is cut off")]
    Truncated(&'static str),
    /// A box that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field holds what it must not.
    #[error("`{0}` holds a wrong value")]
    Invalid(&'static str),
    /// More of something than a fragment may have.
    #[error("too many {0}")]
    TooMany(&'static str),
}
