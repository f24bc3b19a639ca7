//! HTTP Live Streaming: where segments are cut, and the playlist that names them.
//!
//! Reference: RFC 8216.

pub mod cutter;
pub mod playlist;
