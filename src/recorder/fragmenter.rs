//! Cuts samples into fragments.

use std::sync::Arc;

use crate::domain::ids::FragmentSequence;
use crate::domain::limits::{FRAGMENT_AGE_MS_MAX, FRAGMENT_AGE_MS_MIN, FRAGMENT_SAMPLES_MAX};
use crate::domain::sample::{Sample, Track};
use crate::domain::time::{BootTime, Instant};
use crate::media::fmp4::fragment_head;
use crate::ring::fragment::{Fragment, SegmentStart};
use crate::ring::layout::SealRecordings;

/// Collects the samples of the fragment that grows.
#[derive(Debug)]
pub struct Fragmenter {
    segment: Arc<SegmentStart>,
    next: u32,
    bytes_target: usize,
    /// Samples of each track, in the order of the segment's tracks.
    runs: Vec<Vec<Sample>>,
    samples: usize,
    bytes: usize,
    opening: Option<Opening>,
}

/// What the first sample of a fragment decides, and its first picture.
#[derive(Debug)]
struct Opening {
    arrived: Instant,
    last_arrived: BootTime,
    media_start_ms: i64,
    media_end_ms: i64,
    key: bool,
    pictures: bool,
    recordings: SealRecordings,
}

impl Fragmenter {
    /// A fragmenter for a segment; fragments are numbered from `next` on and closed before they
    /// grow over `bytes_target` media bytes (a single larger sample is a fragment of its own).
    #[must_use]
    pub fn new(segment: Arc<SegmentStart>, next: FragmentSequence, bytes_target: usize) -> Self {
        let runs = segment.tracks.iter().map(|_| Vec::new()).collect();
        let next = next.0;
        Fragmenter { segment, next, bytes_target, runs, samples: 0, bytes: 0, opening: None }
    }

    /// The segment.
    #[must_use]
    pub fn segment(&self) -> &Arc<SegmentStart> {
        &self.segment
    }

    /// The number of the next fragment.
    #[must_use]
    pub fn next_sequence(&self) -> FragmentSequence {
        FragmentSequence(self.next)
    }

    /// Whether the fragment must be cut before `sample`: it is old, large, or `sample` is a place
    /// to begin (`key`) and the fragment is not too young. A young one whose pictures do not begin
    /// with a key frame is cut too. Young sound alone is not: it arrives just before each key frame
    /// of some streams, and as a fragment of its own would take half the places of the lane.
    #[must_use]
    pub fn is_due(&self, sample: &Sample, key: bool, now: BootTime) -> bool {
        let (Some(age_ms), Some(opening)) = (self.age_ms(now), &self.opening) else { return false };
        age_ms >= FRAGMENT_AGE_MS_MAX
            || (key && (age_ms >= FRAGMENT_AGE_MS_MIN || (opening.pictures && !opening.key)))
            || self.bytes + sample.data.len() > self.bytes_target
            || self.samples >= FRAGMENT_SAMPLES_MAX
    }

    /// Whether the fragment waits for too long for a sample after it.
    #[must_use]
    pub fn is_old(&self, now: BootTime) -> bool {
        self.age_ms(now).is_some_and(|age_ms| age_ms >= FRAGMENT_AGE_MS_MAX)
    }

    fn age_ms(&self, now: BootTime) -> Option<u64> {
        let age = now.since(self.opening.as_ref()?.arrived.boot);
        Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether no sample waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.opening.is_none()
    }

    /// Adds a sample; the first one decides what the fragment belongs to.
    pub fn add(
        &mut self,
        sample: Sample,
        track: &Track,
        now: Instant,
        media_ms: i64,
        media_end_ms: i64,
        recordings: impl FnOnce() -> SealRecordings,
    ) {
        let Some(run) = self.segment.tracks.iter().position(|known| known.id == track.id) else {
            return;
        };
        let key = sample.key && (track.is_video() || !has_video(&self.segment.tracks));
        let opening = self.opening.get_or_insert_with(|| Opening {
            arrived: now,
            last_arrived: now.boot,
            media_start_ms: media_ms,
            media_end_ms,
            key,
            pictures: false,
            recordings: recordings(),
        });
        if track.is_video() {
            opening.key |= key && !opening.pictures;
            opening.pictures = true;
        }
        opening.last_arrived = now.boot;
        opening.media_end_ms = opening.media_end_ms.max(media_end_ms);
        self.samples += 1;
        self.bytes += sample.data.len();
        self.runs[run].push(sample);
    }

    /// Ends the fragment; `None` if no sample waits.
    pub fn cut(&mut self) -> Option<Box<Fragment>> {
        let opening = self.opening.take()?;
        let runs: Vec<(&Track, &[Sample])> = self
            .segment
            .tracks
            .iter()
            .zip(&self.runs)
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(track, samples)| (track, samples.as_slice()))
            .collect();
        let sequence = FragmentSequence(self.next);
        let head = fragment_head(self.next.wrapping_add(1), &runs);
        let mut payload = Vec::with_capacity(self.samples);
        for run in &mut self.runs {
            payload.extend(run.drain(..).map(|sample| sample.data));
        }
        self.next += 1;
        self.samples = 0;
        self.bytes = 0;
        Some(Box::new(Fragment {
            segment: self.segment.clone(),
            sequence,
            head,
            payload,
            first_arrival: opening.arrived,
            last_arrival: opening.last_arrived,
            media_start_ms: opening.media_start_ms,
            media_end_ms: opening.media_end_ms,
            key: opening.key,
            recordings: opening.recordings,
        }))
    }
}

/// Whether there is a video track.
#[must_use]
pub fn has_video(tracks: &[Track]) -> bool {
    tracks.iter().any(Track::is_video)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::ids::{BootId, SessionId};
    use crate::domain::sample::{Codec, Shape, TrackId};
    use crate::domain::stream_key::StreamKey;
    use crate::domain::time::{ClockQuality, UnixMillis, WallTime};
    use crate::ring::fragment::SessionStart;

    fn at(ms: u64) -> Instant {
        let wall = WallTime { unix: UnixMillis(0), quality: ClockQuality::Untrusted };
        Instant { boot: BootTime(ms), wall }
    }

    fn fragmenter(tracks: Vec<Track>) -> Fragmenter {
        let session = SessionStart {
            id: SessionId(1),
            key: StreamKey::new("d", "live", "cam").expect("valid"),
            boot_id: BootId([0; 16]),
            began: at(0),
            protocol: "rtmp",
            query: String::new(),
        };
        let segment = SegmentStart {
            session: Arc::new(session),
            number: 0,
            discontinuity: false,
            tracks: tracks.into(),
            origins: Vec::new(),
            script_data: Bytes::new(),
            init: Bytes::new(),
        };
        Fragmenter::new(Arc::new(segment), FragmentSequence(0), 1 << 20)
    }

    fn sample(track: u8, dts: i64, key: bool) -> Sample {
        Sample { track: TrackId(track), dts, pts: dts, key, data: Bytes::from_static(&[0; 8]) }
    }

    fn video_and_audio() -> [Track; 2] {
        let track = |id, codec, shape| Track {
            id: TrackId(id),
            codec,
            timescale: 1_000,
            config: Bytes::new(),
            shape,
        };
        [
            track(1, Codec::H264, Shape::Video { width: 64, height: 36 }),
            track(2, Codec::Aac, Shape::Audio { sample_rate: 48_000, channels: 1 }),
        ]
    }

    #[test]
    fn sound_that_comes_just_before_each_key_frame_is_in_its_fragment() {
        let [video, audio] = video_and_audio();
        let mut open = fragmenter(vec![video.clone(), audio.clone()]);
        let (mut cuts, mut keys) = (0, 0);
        let mut cut = |fragment: Option<Box<Fragment>>| {
            cuts += 1;
            keys += u32::from(fragment.expect("a sample waits").key);
        };
        for second in 0..5_u32 {
            let (dts, arrival) = (i64::from(second) * 1_000, u64::from(second) * 1_001);
            for (track, key, arrival) in [(&audio, true, arrival), (&video, true, arrival + 1)] {
                let one = sample(track.id.0, dts, key);
                let begins = key && track.is_video();
                if open.is_due(&one, begins, BootTime(arrival)) {
                    cut(open.cut());
                }
                open.add(one, track, at(arrival), dts, dts + 1_000, SealRecordings::new);
            }
        }
        cut(open.cut());
        assert_eq!((cuts, keys), (5, 5), "each fragment begins with a key frame and its sound");
    }

    #[test]
    fn pictures_before_a_key_frame_are_in_no_fragment_that_begins_with_one() {
        let [video, audio] = video_and_audio();
        let mut open = fragmenter(vec![video.clone(), audio.clone()]);
        for (ms, track, key) in [(0, &audio, true), (1, &video, false)] {
            open.add(sample(track.id.0, 0, key), track, at(ms), 0, 1, SealRecordings::new);
        }
        assert!(open.is_due(&sample(1, 1, true), true, BootTime(2)), "a key frame after pictures");
        assert!(!open.cut().expect("a sample waits").key);
    }
}
