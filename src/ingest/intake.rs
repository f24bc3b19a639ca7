//! The port of ingest: what it needs of whoever takes the streams.

use std::fmt;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::domain::fleet::trial::Failing;
use crate::domain::sample::{Sample, Track, TrackId};
use crate::domain::stream_key::StreamKey;

/// How a stream comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Pushed over RTMP.
    Rtmp,
    /// Pulled over RTSP.
    Rtsp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Rtmp => "rtmp",
            Protocol::Rtsp => "rtsp",
        })
    }
}

/// A stream that asks to be taken.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Which stream.
    pub key: StreamKey,
    /// How it comes.
    pub protocol: Protocol,
    /// Query string of the push URL without `?`, verbatim (it may hold secrets); empty if none.
    pub query: String,
    /// Address of the peer, for logs and events.
    pub peer: String,
}

/// Why a stream is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another publisher of the same key is live.
    #[error("the stream is already being published")]
    AlreadyPublishing,
    /// As many streams as the box takes are live.
    #[error("the box records as many streams as it can")]
    Full,
    /// The box shuts down or has no working ring.
    #[error("the box cannot record: {0}")]
    Unavailable(String),
}

/// Why a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndCause {
    /// The peer said so (unpublish, TEARDOWN, end of stream).
    Finished,
    /// The connection was lost.
    Disconnected(String),
    /// Nothing came for too long.
    Silent,
    /// A newer publisher of the same key took over.
    Replaced,
    /// The box asked for it (shutdown, drop, restart).
    Cancelled,
    /// The box closed it to open it anew: its address changed, and it could not be opened beside.
    Reopened,
    /// The peer broke the protocol or a limit.
    Faulty(String),
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndCause::Finished => f.write_str("finished"),
            EndCause::Disconnected(why) => write!(f, "disconnected: {why}"),
            EndCause::Silent => f.write_str("silent"),
            EndCause::Replaced => f.write_str("replaced by a newer publisher"),
            EndCause::Cancelled => f.write_str("ended by the box"),
            EndCause::Reopened => f.write_str("closed by the box to be opened anew"),
            EndCause::Faulty(why) => write!(f, "faulty: {why}"),
        }
    }
}

/// Takes streams.
pub trait Intake: Send + Sync {
    /// Takes a stream or says why not. The sink must be given an end; dropping it counts as
    /// [`EndCause::Disconnected`].
    ///
    /// # Errors
    /// The stream is refused.
    fn admit(&self, arrival: &Arrival) -> Result<Box<dyn StreamSink>, Refusal>;
    /// The place of which there is one: two publishers with the same one are rivals. Publishers of
    /// one key may have places of their own, such as a mixer beside the original.
    fn place(&self, key: &StreamKey, query: &str) -> StreamKey {
        let _ = query;
        key.clone()
    }
    /// A stream that the box fetches cannot be fetched, broke off early, or is not taken; told of each
    /// attempt that says something about where it is fetched from. `why` holds no secret.
    fn failed(&self, key: &StreamKey, what: Failing, why: &str) {
        let _ = (key, what, why);
    }
}

/// Where one stream's media goes. Calls never block and never wait.
pub trait StreamSink: Send {
    /// Cancelled when the box wants the stream to end; ingest then closes the connection.
    fn cancelled(&self) -> CancellationToken;
    /// The full set of tracks, before the first sample and again whenever it changes.
    /// `left_out` names tracks of the source that cannot be handled, in words.
    fn tracks(&mut self, tracks: &[Track], left_out: &[String]);
    /// Where a track's time comes from: the source's own clock showed `raw` (RTP time in ticks of
    /// the track, wrap unrolled, may be negative) where its samples have 0. Told after the track is
    /// announced and before its first sample, by sources that shift time.
    fn origin(&mut self, track: TrackId, raw: i64) {
        let _ = (track, raw);
    }
    /// Script data (`onMetaData`) as the encoder sent it: the AMF0 body of the FLV tag.
    fn script_data(&mut self, body: Bytes);
    /// One sample of a track announced before. In decoding order per track.
    fn sample(&mut self, sample: Sample);
    /// The stream is over.
    fn end(self: Box<Self>, cause: EndCause);
}
