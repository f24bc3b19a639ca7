//! Protocols as state machines over bytes, without I/O.

pub mod cloud;
pub mod rtmp;
