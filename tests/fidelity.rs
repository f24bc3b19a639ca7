//! What goes into the box comes out unchanged, in every format: delivered files against what the
//! sender sent, packet by packet.
//!
//! Precision: FLV and TS carry the source's absolute time within one tick, MP4 carries it from the
//! clip's first decoding time on, exactly, ADTS has frames only.

mod support;

#[path = "fidelity/clip.rs"]
mod clip;
#[path = "fidelity/interval.rs"]
mod interval;
#[path = "fidelity/rtmp.rs"]
mod rtmp;
#[path = "fidelity/rtsp.rs"]
mod rtsp;
