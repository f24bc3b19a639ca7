//! The recording machine: where a recording starts and where each of its formats begins a new
//! clip. Pure: the recorder feeds it the boundaries of a session and forces a fragment cut
//! wherever it answers that a clip begins.
//!
//! Rules
//! 1. A recording starts at a key frame; if none comes for 10 s of media, anyway, and says so.
//! 2. RecordInterval cuts FLV, MP4 and AAC at the first key frame at or after the interval of
//!    media time since the clip began. HLS is cut by its own, longer limit only.
//!    A clip that pins its whole share of the ring is cut at the next key frame.
//! 3. New codec parameters begin a new MP4 and AAC file; a new timeline a new FLV, MP4 and AAC
//!    file; an audio gap a new AAC file. These cut at once, key frame or not: the file before
//!    cannot hold what follows.
//! 4. A new session of the same recording (a splice) begins new FLV, MP4 and AAC files at its
//!    first key frame; HLS goes on.
//! 5. If no key frame comes for ten minutes after a clip was due, it is cut anyway, and says so:
//!    no clip grows without bound.
//!
//! From its start on, each sample of a session belongs to exactly one clip of each format.

use crate::domain::files::{FileFormat, FormatSet};
use crate::domain::ids::RecordingId;
use crate::domain::template::Template;

/// Without a key frame for this long a recording starts anyway, in milliseconds of media.
pub const START_WITHOUT_KEY_MS: i64 = 10_000;
/// Without a key frame for this long after it was due a clip is cut anyway, in milliseconds of
/// media.
pub const CUT_WITHOUT_KEY_MS: i64 = 600_000;

const _: () = assert!(START_WITHOUT_KEY_MS < CUT_WITHOUT_KEY_MS);

/// What one recording is made of, whether a template or a task asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingPlan {
    /// Which recording.
    pub id: RecordingId,
    /// Of the stream only sound is taken: it begins and is cut wherever it is due.
    pub audio_only: bool,
    clip_max_ms: [Option<i64>; 4],
}

impl RecordingPlan {
    /// A plan without formats.
    #[must_use]
    pub fn new(id: RecordingId) -> Self {
        RecordingPlan { id, audio_only: false, clip_max_ms: [None; 4] }
    }

    /// This plan and `format`, cut after `clip_max_s` seconds of media (RecordInterval, for HLS
    /// `hls_clip_max`).
    #[must_use]
    pub fn with(mut self, format: FileFormat, clip_max_s: u32) -> Self {
        self.clip_max_ms[format as usize] = Some(i64::from(clip_max_s.max(1)) * 1_000);
        self
    }

    /// What `template` asks for; HLS is cut after `hls_clip_max_s` seconds.
    #[must_use]
    pub fn of_template(id: RecordingId, template: &Template, hls_clip_max_s: u32) -> Self {
        template.formats().iter().fold(RecordingPlan::new(id), |plan, format| {
            let interval_s = template.params(format).and_then(|params| params.interval_s);
            plan.with(format, interval_s.unwrap_or(hls_clip_max_s))
        })
    }

    /// The formats.
    #[must_use]
    pub fn formats(&self) -> FormatSet {
        let is_on = |format: &FileFormat| self.clip_max_ms[*format as usize].is_some();
        FileFormat::ALL.into_iter().filter(is_on).collect()
    }
}

/// A place between two samples of one session, and the sample after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Boundary {
    /// Decoding can start here. In a session without video every boundary is one.
    pub key: bool,
    /// Position on the session's media clock: runs on through timelines, never back, in
    /// milliseconds.
    pub media_ms: i64,
    /// Codec parameters or the set of tracks change here.
    pub new_params: bool,
    /// A new timeline begins here.
    pub new_timeline: bool,
    /// Audio before this place ends more than 100 ms earlier.
    pub audio_gap: bool,
    /// Formats whose clip pins its whole share of the ring.
    pub full: FormatSet,
    /// The session begins here.
    pub first: bool,
}

/// What happens at a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Formats that begin a new clip here; where it is not empty, the fragment is cut here.
    pub begins: FormatSet,
    /// The sample after the boundary belongs to the recording.
    pub recorded: bool,
    /// Something begins here although no key frame came for too long.
    pub without_key: bool,
}

/// One recording at work. Lives across sessions while they are spliced.
#[derive(Debug, Clone)]
pub struct Recording {
    plan: RecordingPlan,
    /// Media in the open clip of each format before `since_ms` began; `None`: no clip is open.
    open: [Option<OpenClip>; 4],
    phase: Phase,
    last_ms: i64,
}

#[derive(Debug, Clone, Copy)]
struct OpenClip {
    /// Media of earlier sessions in the clip.
    before_ms: i64,
    /// Where on this session's clock the rest of it began.
    since_ms: i64,
}

impl OpenClip {
    fn length_ms(self, now_ms: i64) -> i64 {
        self.before_ms.saturating_add(now_ms.saturating_sub(self.since_ms))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for its session's first boundary.
    Idle,
    /// Waits for a key frame since this media time.
    Waiting(i64),
    /// Takes every sample.
    Running,
}

/// What a change of the stream cuts.
fn cut_by_change(boundary: &Boundary) -> FormatSet {
    use FileFormat::{Aac, Flv, Mp4};
    let mut cut = FormatSet::EMPTY;
    if boundary.new_params {
        cut = cut.with(Mp4).with(Aac);
    }
    if boundary.new_timeline {
        cut = cut.with(Flv).with(Mp4).with(Aac);
    }
    if boundary.audio_gap {
        cut = cut.with(Aac);
    }
    cut
}

impl Recording {
    /// A recording that has nothing yet.
    #[must_use]
    pub fn new(plan: RecordingPlan) -> Self {
        Recording { plan, open: [None; 4], phase: Phase::Idle, last_ms: 0 }
    }

    /// A recording taken up again after the program ended, inside the splice window: the open HLS
    /// clip goes on and has `hls_ms` milliseconds of media already.
    #[must_use]
    pub fn resumed(plan: RecordingPlan, hls_ms: i64) -> Self {
        let mut recording = Recording::new(plan);
        if recording.plan.formats().contains(FileFormat::Hls) {
            let clip = OpenClip { before_ms: hls_ms.max(0), since_ms: 0 };
            recording.open[FileFormat::Hls as usize] = Some(clip);
        }
        recording
    }

    /// The stream is gone for longer than a clip waits: nothing goes on when it comes back.
    pub fn interrupt(&mut self) {
        self.open = [None; 4];
        self.phase = Phase::Idle;
    }

    /// What it is made of.
    #[must_use]
    pub fn plan(&self) -> &RecordingPlan {
        &self.plan
    }

    /// Formats whose open clip the sample after the last boundary belongs to: none while the
    /// recording waits for a key frame, also if an HLS clip of the session before is still open.
    #[must_use]
    pub fn open_formats(&self) -> FormatSet {
        if self.phase != Phase::Running {
            return FormatSet::EMPTY;
        }
        FileFormat::ALL.into_iter().filter(|format| self.is_open(*format)).collect()
    }

    /// Whether a clip is open.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Media in the open clip of `format` up to the last boundary, in milliseconds; to be stored
    /// for [`resumed`](Self::resumed).
    #[must_use]
    pub fn open_ms(&self, format: FileFormat) -> Option<i64> {
        self.open[format as usize].map(|clip| clip.length_ms(self.last_ms))
    }

    /// Takes the next boundary of the session; they come in order.
    pub fn step(&mut self, boundary: &Boundary) -> Step {
        if boundary.first || self.phase == Phase::Idle {
            self.enter_session(boundary.media_ms);
        }
        // A clock that steps back is a fault of the caller; it must not cut or stretch anything.
        let now_ms = boundary.media_ms.max(self.last_ms);
        self.last_ms = now_ms;
        let boundary = &Boundary { key: boundary.key || self.plan.audio_only, ..*boundary };
        let (begins, without_key) = match self.phase {
            Phase::Running => self.cut(boundary, now_ms),
            Phase::Idle | Phase::Waiting(_) => self.start(boundary.key, now_ms),
        };
        for format in begins.iter() {
            self.open[format as usize] = Some(OpenClip { before_ms: 0, since_ms: now_ms });
        }
        Step { begins, recorded: self.phase == Phase::Running, without_key }
    }

    /// Only HLS goes on from the session before; it is given the new session's clock.
    fn enter_session(&mut self, start_ms: i64) {
        for format in FileFormat::ALL {
            let clip = self.open[format as usize].filter(|_| format == FileFormat::Hls);
            self.open[format as usize] = clip.map(|clip| OpenClip {
                before_ms: clip.length_ms(self.last_ms),
                since_ms: start_ms,
            });
        }
        self.last_ms = start_ms;
        self.phase = Phase::Waiting(start_ms);
    }

    fn start(&mut self, key: bool, now_ms: i64) -> (FormatSet, bool) {
        let Phase::Waiting(since_ms) = self.phase else { return (FormatSet::EMPTY, false) };
        // What goes by while waiting is in no clip.
        if let Some(clip) = &mut self.open[FileFormat::Hls as usize] {
            clip.since_ms = now_ms;
        }
        if !key && now_ms.saturating_sub(since_ms) < START_WITHOUT_KEY_MS {
            return (FormatSet::EMPTY, false);
        }
        self.phase = Phase::Running;
        let begins = self
            .plan
            .formats()
            .iter()
            .filter(|format| !self.is_open(*format) || self.is_due(*format, now_ms))
            .collect();
        (begins, !key)
    }

    fn cut(&self, boundary: &Boundary, now_ms: i64) -> (FormatSet, bool) {
        let changed = cut_by_change(boundary);
        let mut begins = FormatSet::EMPTY;
        let mut without_key = false;
        for format in self.plan.formats().iter() {
            if changed.contains(format)
                || (boundary.key && (self.is_due(format, now_ms) || boundary.full.contains(format)))
            {
                begins = begins.with(format);
            } else if self.is_due(format, now_ms.saturating_sub(CUT_WITHOUT_KEY_MS)) {
                begins = begins.with(format);
                without_key = true;
            }
        }
        (begins, without_key)
    }

    fn is_open(&self, format: FileFormat) -> bool {
        self.open[format as usize].is_some()
    }

    /// Whether the open clip of `format` has its whole length.
    fn is_due(&self, format: FileFormat, now_ms: i64) -> bool {
        let clip = self.open[format as usize];
        let max_ms = self.plan.clip_max_ms[format as usize];
        matches!((clip, max_ms), (Some(clip), Some(max)) if clip.length_ms(now_ms) >= max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::FileFormat::{Aac, Flv, Hls, Mp4};
    use super::*;

    fn all(interval_s: u32, hls_s: u32) -> Recording {
        let plan = RecordingPlan::new(RecordingId(1));
        let plan = plan.with(Flv, interval_s).with(Mp4, interval_s).with(Aac, interval_s);
        Recording::new(plan.with(Hls, hls_s))
    }

    fn formats(set: FormatSet) -> Vec<FileFormat> {
        set.iter().collect()
    }

    fn key(media_ms: i64) -> Boundary {
        Boundary { key: true, media_ms, ..Boundary::default() }
    }

    fn delta(media_ms: i64) -> Boundary {
        Boundary { media_ms, ..Boundary::default() }
    }

    #[test]
    fn starts_at_the_first_key_frame() {
        let mut recording = all(60, 3600);
        let before = recording.step(&Boundary { first: true, ..delta(0) });
        assert!(!before.recorded && before.begins.is_empty());
        let start = recording.step(&key(400));
        assert_eq!(formats(start.begins), FileFormat::ALL);
        assert!(start.recorded && !start.without_key);
        assert!(recording.step(&delta(440)).recorded);
    }

    #[test]
    fn starts_without_a_key_frame_after_ten_seconds_and_says_so() {
        let mut recording = all(60, 3600);
        recording.step(&Boundary { first: true, ..delta(5_000) });
        assert!(!recording.step(&delta(14_999)).recorded);
        let start = recording.step(&delta(15_000));
        assert!(start.recorded && start.without_key);
        assert_eq!(formats(start.begins), FileFormat::ALL);
    }

    #[test]
    fn interval_cuts_at_the_first_key_frame_at_or_after_it() {
        let mut recording = all(60, 120);
        recording.step(&Boundary { first: true, ..key(1_000) });
        assert!(recording.step(&key(60_999)).begins.is_empty());
        assert!(recording.step(&delta(61_500)).begins.is_empty());
        assert_eq!(formats(recording.step(&key(62_000)).begins), [Flv, Mp4, Aac]);
        assert_eq!(formats(recording.step(&key(121_000)).begins), [Hls]);
        assert_eq!(formats(recording.step(&key(122_000)).begins), [Flv, Mp4, Aac]);
    }

    #[test]
    fn changes_cut_what_cannot_hold_them() {
        let mut recording = all(60, 3600);
        recording.step(&Boundary { first: true, ..key(0) });
        let params = recording.step(&Boundary { new_params: true, ..key(1_000) });
        assert_eq!(formats(params.begins), [Mp4, Aac]);
        let timeline = recording.step(&Boundary { new_timeline: true, ..delta(2_000) });
        assert_eq!(formats(timeline.begins), [Flv, Mp4, Aac]);
        let gap = recording.step(&Boundary { audio_gap: true, ..delta(3_000) });
        assert_eq!(formats(gap.begins), [Aac]);
        // The interval counts from the new clip.
        assert_eq!(formats(recording.step(&key(62_000)).begins), [Flv, Mp4]);
        assert_eq!(formats(recording.step(&key(63_000)).begins), [Aac]);
    }

    #[test]
    fn a_splice_goes_on_in_hls_and_counts_its_media_without_the_gap() {
        let mut recording = all(60, 100);
        recording.step(&Boundary { first: true, ..key(0) });
        recording.step(&delta(50_000));
        let again = recording.step(&Boundary { first: true, ..delta(9_000_000) });
        assert!(!again.recorded);
        assert!(recording.open_formats().is_empty(), "the wait is in no clip");
        let start = recording.step(&key(9_001_000));
        assert_eq!(formats(start.begins), [Flv, Mp4, Aac]);
        assert_eq!(formats(recording.open_formats()), FileFormat::ALL);
        assert_eq!(recording.open_ms(Hls), Some(50_000));
        assert!(!recording.step(&key(9_050_999)).begins.contains(Hls));
        assert_eq!(formats(recording.step(&key(9_051_000)).begins), [Hls]);
    }

    #[test]
    fn a_session_that_never_started_adds_nothing() {
        let mut recording = all(60, 100);
        recording.step(&Boundary { first: true, ..key(0) });
        recording.step(&delta(50_000));
        recording.step(&Boundary { first: true, ..delta(60_000) });
        recording.step(&delta(65_000));
        assert_eq!(recording.open_ms(Hls), Some(50_000));
        recording.step(&Boundary { first: true, ..key(70_000) });
        assert_eq!(recording.open_ms(Hls), Some(50_000));
    }

    #[test]
    fn a_resumed_recording_goes_on_in_hls() {
        let plan = all(60, 100).plan().clone();
        let mut recording = Recording::resumed(plan, 99_000);
        let start = recording.step(&Boundary { first: true, ..key(500) });
        assert_eq!(formats(start.begins), [Flv, Mp4, Aac]);
        assert_eq!(formats(recording.step(&key(1_500)).begins), [Hls]);
    }

    #[test]
    fn without_key_frames_clips_end_all_the_same() {
        let mut recording = all(60, 3600);
        recording.step(&Boundary { first: true, ..key(0) });
        assert!(recording.step(&delta(659_999)).begins.is_empty());
        let cut = recording.step(&delta(660_000));
        assert_eq!(formats(cut.begins), [Flv, Mp4, Aac]);
        assert!(cut.without_key);
    }

    #[test]
    fn a_clock_that_steps_back_shortens_nothing() {
        let mut recording = all(60, 3600);
        recording.step(&Boundary { first: true, ..key(0) });
        recording.step(&delta(50_000));
        recording.step(&delta(49_970));
        assert_eq!(recording.open_ms(Flv), Some(50_000));
    }

    #[test]
    fn plan_of_a_template() {
        let text = br#"{"revision": 1, "templates": [{"TemplateName": "t",
            "AacParam": {"Enable": 1, "RecordInterval": 90}, "HlsParam": {"Enable": 1}}]}"#;
        let set = crate::domain::rule_set::RuleSet::parse(text).expect("valid");
        let plan = RecordingPlan::of_template(RecordingId(7), &set.templates[0], 3600);
        let expected = RecordingPlan::new(RecordingId(7)).with(Aac, 90).with(Hls, 3600);
        assert_eq!(plan, expected);
        assert_eq!(formats(plan.formats()), [Hls, Aac]);
    }

    /// A session as a camera might send it: steps of media time with what happens there.
    fn session() -> impl Strategy<Value = Vec<Boundary>> {
        let step = (0..4_000i64, 0..8u8, 0..200u8);
        proptest::collection::vec(step, 1..300).prop_map(|steps| {
            let mut media_ms = 0;
            let boundaries = steps.into_iter().enumerate().map(|(index, (ms, key, change))| {
                media_ms += ms;
                Boundary {
                    key: key == 0,
                    media_ms,
                    new_params: change == 1,
                    new_timeline: change == 2,
                    audio_gap: change == 3,
                    full: FormatSet::EMPTY,
                    first: index == 0,
                }
            });
            boundaries.collect()
        })
    }

    /// Clips of one format as the recorder would make them: ranges of sample numbers.
    fn clips(boundaries: &[Boundary], steps: &[Step], format: FileFormat) -> Vec<(usize, usize)> {
        let mut clips: Vec<(usize, usize)> = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            if step.begins.contains(format) {
                clips.push((index, index));
            }
            if step.recorded {
                let clip = clips.last_mut().expect("a recorded sample has a clip");
                assert!(boundaries[index].first || clip.1 == index, "a hole before {index}");
                clip.1 = index + 1;
            }
        }
        clips
    }

    proptest! {
        #[test]
        fn samples_are_covered_once_and_clips_are_long_enough(boundaries in session()) {
            let mut recording = all(60, 200);
            let steps: Vec<Step> = boundaries.iter().map(|b| recording.step(b)).collect();
            let start = steps.iter().position(|step| step.recorded);
            if let Some(start) = start {
                // Once started it takes everything.
                prop_assert!(steps[start..].iter().all(|step| step.recorded));
                let early = boundaries[..start].iter().any(|boundary| boundary.key);
                prop_assert!(!early, "a key frame before the start");
            }
            for (format, max_ms) in [(Flv, 60_000), (Mp4, 60_000), (Aac, 60_000), (Hls, 200_000)] {
                let clips = clips(&boundaries, &steps, format);
                let covered: usize = clips.iter().map(|(from, to)| to - from).sum();
                prop_assert_eq!(covered, start.map_or(0, |start| steps.len() - start));
                for pair in clips.windows(2) {
                    let [(from, to), (next, _)] = pair else { unreachable!("windows of two") };
                    prop_assert_eq!(to, next);
                    let cut = &boundaries[*next];
                    if !cut_by_change(cut).contains(format) {
                        let length = cut.media_ms - boundaries[*from].media_ms;
                        prop_assert!(length >= max_ms, "a clip of {} ms", length);
                        prop_assert!(cut.key || steps[*next].without_key);
                        // It is the first key frame that would do.
                        let earlier = boundaries[from + 1..*next].iter().any(|boundary| {
                            boundary.key && boundary.media_ms - boundaries[*from].media_ms >= max_ms
                        });
                        prop_assert!(!earlier, "cut too late");
                    }
                }
            }
        }

        #[test]
        fn any_order_of_any_numbers_is_survived(
            steps in proptest::collection::vec((any::<i64>(), any::<u8>()), 0..50),
        ) {
            let mut recording = all(1, 1);
            for (media_ms, bits) in steps {
                recording.step(&Boundary {
                    key: bits & 1 != 0,
                    media_ms,
                    new_params: bits & 2 != 0,
                    new_timeline: bits & 4 != 0,
                    audio_gap: bits & 8 != 0,
                    full: FormatSet::EMPTY,                    first: bits & 16 != 0,
                });
            }
        }
    }
}
