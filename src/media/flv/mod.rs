//! FLV: tag bodies as RTMP carries them (and files as the renderer writes them).

pub mod demux;
pub mod mux;
pub mod tag;
