//! Streams in: the RTMP listener and the RTSP puller turn what arrives into tracks and samples
//! and hand them to an [`intake::Intake`].

pub mod admission;
pub mod intake;
pub mod rtmp;
pub mod rtsp;
