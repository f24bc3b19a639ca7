//! What a push or pull brings to the stage of its stream key.

use bytes::Bytes;

use crate::domain::sample::{Sample, Track, TrackId};
use crate::ring::catalog::pushes::PushId;

/// What a feeder brings, as far as it is known by now.
pub struct Feed {
    /// Which push or pull.
    pub id: PushId,
    /// How it comes (`rtmp`, `rtsp`).
    pub protocol: &'static str,
    /// Query string of the push URL; may hold secrets.
    pub query: String,
    /// Its tracks.
    pub tracks: Vec<Track>,
    /// Raw time of the source at media time 0 of each track.
    pub origins: Vec<(TrackId, i64)>,
    /// Script data as the encoder sent it.
    pub script_data: Bytes,
}

impl Feed {
    /// Whether decoding can begin with a sample.
    #[must_use]
    pub fn can_begin_with(&self, sample: &Sample) -> bool {
        let has_video = self.tracks.iter().any(Track::is_video);
        let of_video =
            || self.tracks.iter().any(|track| track.id == sample.track && track.is_video());
        sample.key && (!has_video || of_video())
    }
}
