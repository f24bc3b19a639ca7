//! Cuts a clip into segments: at the first key frame once a segment has its target length.
//!
//! Segments consist of whole fragments. A key frame closes a fragment, so each key frame that
//! matters begins one.

/// A segment is cut at the first key frame after this much media time, in microseconds.
pub const SEGMENT_TARGET_US: i64 = 6_000_000;
/// A segment without a key frame is cut anyway after this much, in microseconds.
pub const SEGMENT_MAX_US: i64 = 60_000_000;

/// What the cutter needs to know of a fragment.
#[derive(Debug, Clone, Copy)]
pub struct FragmentTimes {
    /// Where it begins and ends in media time, in microseconds.
    pub start_us: i64,
    /// See `start_us`.
    pub end_us: i64,
    /// Whether its first picture is a key frame; `None` if it has no picture.
    pub starts_with_key: Option<bool>,
    /// Time or codec parameters do not run on from the fragment before.
    pub breaks: bool,
}

/// Finds the cuts, fragment by fragment.
#[derive(Debug, Default)]
pub struct Cutter {
    segment: Option<Open>,
}

#[derive(Debug)]
struct Open {
    start_us: i64,
    end_us: i64,
    has_video: bool,
}

impl Cutter {
    /// Looks at the next fragment: `Some(length of the segment before)` in microseconds if it
    /// begins a new segment. The first fragment begins one with `Some(None)`.
    pub fn next(&mut self, fragment: &FragmentTimes) -> Option<Option<u64>> {
        let has_video = fragment.starts_with_key.is_some();
        let length = match &mut self.segment {
            None => None,
            Some(open) => {
                let elapsed_us = fragment.start_us.saturating_sub(open.start_us);
                let at_key =
                    fragment.starts_with_key == Some(true) || !(open.has_video || has_video);
                let due = at_key && elapsed_us >= SEGMENT_TARGET_US || elapsed_us >= SEGMENT_MAX_US;
                if !due && !fragment.breaks {
                    open.end_us = open.end_us.max(fragment.end_us);
                    open.has_video |= has_video;
                    return None;
                }
                let end_us = if fragment.breaks { open.end_us } else { fragment.start_us };
                Some(length_us(open.start_us, end_us))
            }
        };
        let (start_us, end_us) = (fragment.start_us, fragment.end_us);
        self.segment = Some(Open { start_us, end_us, has_video });
        Some(length)
    }

    /// Length of the last segment in microseconds; `None` if there was no fragment.
    #[must_use]
    pub fn finish(self) -> Option<u64> {
        self.segment.map(|open| length_us(open.start_us, open.end_us))
    }
}

fn length_us(start_us: i64, end_us: i64) -> u64 {
    u64::try_from(end_us.saturating_sub(start_us)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(fragments: &[FragmentTimes]) -> (Vec<usize>, Vec<u64>) {
        let (mut cutter, mut at, mut lengths) = (Cutter::default(), Vec::new(), Vec::new());
        for (number, fragment) in fragments.iter().enumerate() {
            if let Some(before) = cutter.next(fragment) {
                at.push(number);
                lengths.extend(before);
            }
        }
        lengths.extend(cutter.finish());
        (at, lengths)
    }

    fn second(n: i64, starts_with_key: Option<bool>) -> FragmentTimes {
        let start_us = n * 1_000_000;
        FragmentTimes { start_us, end_us: start_us + 1_000_000, starts_with_key, breaks: false }
    }

    #[test]
    fn video_is_cut_at_key_frames_and_sound_anywhere() {
        let video: Vec<_> = (0..20).map(|n| second(n, Some(n % 4 == 0))).collect();
        assert_eq!(cuts(&video), (vec![0, 8, 16], vec![8_000_000, 8_000_000, 4_000_000]));
        let sound: Vec<_> = (0..13).map(|n| second(n, None)).collect();
        assert_eq!(cuts(&sound), (vec![0, 6, 12], vec![6_000_000, 6_000_000, 1_000_000]));
    }

    #[test]
    fn a_break_cuts_and_a_stream_without_key_frames_is_cut_anyway() {
        let mut video: Vec<_> = (0..130).map(|n| second(n, Some(n == 0))).collect();
        assert_eq!(cuts(&video).0, [0, 60, 120]);
        video.truncate(10);
        for fragment in &mut video[5..] {
            fragment.start_us -= 5_000_000;
            fragment.end_us -= 5_000_000;
        }
        video[5].breaks = true;
        assert_eq!(cuts(&video), (vec![0, 5], vec![5_000_000, 5_000_000]));
    }
}
