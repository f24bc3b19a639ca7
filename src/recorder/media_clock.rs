//! One clock a session: media time that runs on through timelines and never steps back, in
//! milliseconds from the session's first sample.

use crate::domain::sample::{Sample, Track, TrackId};
use crate::domain::time::rescale;

/// A frame of audio may start this much later than the one before it ended, in milliseconds;
/// more is a gap.
const AUDIO_GAP_MS: i64 = 100;

/// Maps sample times of a session to its media clock.
#[derive(Debug, Default)]
pub struct MediaClock {
    /// Where the current timeline begins on the clock, and its first source time, both in ms.
    base: Option<(i64, i64)>,
    now_ms: i64,
    end_ms: i64,
    tracks: Vec<TrackClock>,
}

#[derive(Debug)]
struct TrackClock {
    id: TrackId,
    last_ms: i64,
    step_ms: i64,
}

/// Where a sample stands on the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The clock at the sample.
    pub media_ms: i64,
    /// The sample is audio and begins more than 100 ms after the audio before it ended.
    pub audio_gap: bool,
}

impl MediaClock {
    /// The next sample begins a new timeline, which follows on where the one before ended.
    pub fn new_timeline(&mut self) {
        self.base = None;
        self.tracks.clear();
    }

    /// Takes the next sample.
    pub fn advance(&mut self, sample: &Sample, track: &Track) -> Position {
        let source_ms = rescale(sample.dts, track.timescale, 1_000);
        let (base_ms, first_ms) = *self.base.get_or_insert((self.end_ms, source_ms));
        let media_ms = base_ms + (source_ms - first_ms);
        self.now_ms = self.now_ms.max(media_ms);
        let known = self.tracks.iter_mut().find(|known| known.id == track.id);
        let (audio_gap, step_ms) = match known {
            Some(known) => {
                let step_ms = media_ms - known.last_ms;
                let gap = !track.is_video()
                    && known.step_ms > 0
                    && step_ms > known.step_ms + AUDIO_GAP_MS;
                if !gap {
                    known.step_ms = step_ms.max(0);
                }
                known.last_ms = media_ms;
                (gap, known.step_ms)
            }
            None => {
                self.tracks.push(TrackClock { id: track.id, last_ms: media_ms, step_ms: 0 });
                (false, 0)
            }
        };
        self.end_ms = self.end_ms.max(self.now_ms + step_ms);
        Position { media_ms: self.now_ms, audio_gap }
    }

    /// Where the newest sample ends.
    #[must_use]
    pub fn end_ms(&self) -> i64 {
        self.end_ms
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::sample::{Codec, Shape};

    fn audio() -> Track {
        let shape = Shape::Audio { sample_rate: 48_000, channels: 2 };
        let config = Bytes::new();
        Track { id: TrackId(2), codec: Codec::Aac, timescale: 1_000, config, shape }
    }

    fn positions(times: &[i64]) -> Vec<(i64, bool)> {
        let mut clock = MediaClock::default();
        let place = |dts: &i64| {
            let (track, dts) = (TrackId(2), *dts);
            let sample = Sample { track, dts, pts: dts, key: true, data: Bytes::new() };
            let position = clock.advance(&sample, &audio());
            (position.media_ms, position.audio_gap)
        };
        times.iter().map(place).collect()
    }

    #[test]
    fn starts_at_zero_and_never_steps_back() {
        assert_eq!(
            positions(&[5_000, 5_020, 5_010, 5_040]),
            [(0, false), (20, false), (20, false), (40, false)]
        );
    }

    #[test]
    fn a_gap_over_100_ms_between_audio_frames_is_told() {
        assert_eq!(positions(&[0, 20, 140, 160]).iter().filter(|(_, gap)| *gap).count(), 0);
        assert_eq!(positions(&[0, 20, 141])[2], (141, true));
    }

    #[test]
    fn a_new_timeline_follows_on() {
        let mut clock = MediaClock::default();
        let at = |clock: &mut MediaClock, dts: i64| {
            let (track, data) = (TrackId(2), Bytes::new());
            clock.advance(&Sample { track, dts, pts: dts, key: true, data }, &audio()).media_ms
        };
        assert_eq!((at(&mut clock, 100), at(&mut clock, 120)), (0, 20));
        clock.new_timeline();
        assert_eq!((at(&mut clock, 7), at(&mut clock, 27)), (40, 60));
    }
}
