//! Formats as bytes <-> types, without I/O: codec configuration, fragmented MP4, and the files
//! that a clip is rendered to.

pub mod audio_only;
pub mod clip;
pub mod codec;
pub mod flv;
pub mod fmp4;
pub mod hls;
pub mod render;
pub mod ts;
