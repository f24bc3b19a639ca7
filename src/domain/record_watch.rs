//! Watches a recording for what event 341 tells (`callbacks.md` section 8). Occurrences of one
//! type are merged: the first is told at once, those after it together, two minutes after the
//! last telling. Pure, and takes no memory while it watches.

use crate::domain::stream_watch::{StreamReport, StreamTrouble};
use crate::domain::time::BootTime;

/// One type is told at most once in this time, in milliseconds.
pub const MERGED_MS: u64 = 120_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Good to know.
    Info,
    /// The recording goes on, something may be wrong with it.
    Warning,
    /// Media is missing.
    Error,
}

impl Level {
    /// Every level.
    pub const ALL: [Level; 3] = [Level::Info, Level::Warning, Level::Error];

    /// The word of the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }

    /// Back from the word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// What can be wrong with a recording, by its number in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum RecordTrouble {
    /// Audio time jumps.
    AudioJump = -8,
    /// Video time jumps.
    VideoJump = -9,
    /// Audio and video are out of sync.
    OutOfSync = -10,
    /// Video time is illegal.
    IllegalVideoTime = -11,
    /// The stream cannot be pulled.
    PullFailed = -16,
    /// There is no audio.
    NoAudio = -17,
    /// There is no video.
    NoVideo = -18,
    /// Audio time stands still.
    AudioStill = -22,
    /// Video time stands still.
    VideoStill = -23,
    /// Audio time is illegal.
    IllegalAudioTime = -24,
    /// The picture has another size.
    ResolutionChanged = -100,
    /// The container cannot be written.
    WriteError = -104,
    /// Another codec begins a new file.
    CodecNewFile = -120,
    /// Video frames are dropped.
    DroppedVideo = -130,
    /// Audio frames are dropped.
    DroppedAudio = -131,
    /// A group of pictures is abnormal.
    OddGop = -132,
    /// Audio times are uneven.
    UnevenAudio = -200,
    /// Video times are uneven.
    UnevenVideo = -201,
}

impl RecordTrouble {
    /// Every one.
    pub const ALL: [RecordTrouble; 18] = [
        RecordTrouble::AudioJump,
        RecordTrouble::VideoJump,
        RecordTrouble::OutOfSync,
        RecordTrouble::IllegalVideoTime,
        RecordTrouble::PullFailed,
        RecordTrouble::NoAudio,
        RecordTrouble::NoVideo,
        RecordTrouble::AudioStill,
        RecordTrouble::VideoStill,
        RecordTrouble::IllegalAudioTime,
        RecordTrouble::ResolutionChanged,
        RecordTrouble::WriteError,
        RecordTrouble::CodecNewFile,
        RecordTrouble::DroppedVideo,
        RecordTrouble::DroppedAudio,
        RecordTrouble::OddGop,
        RecordTrouble::UnevenAudio,
        RecordTrouble::UnevenVideo,
    ];

    /// `type`.
    #[must_use]
    pub fn number(self) -> i16 {
        self as i16
    }

    /// `desc`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            RecordTrouble::AudioJump => "audio timestamp jump",
            RecordTrouble::VideoJump => "video timestamp jump",
            RecordTrouble::OutOfSync => "audio and video out of sync",
            RecordTrouble::IllegalVideoTime => "illegal video timestamp",
            RecordTrouble::PullFailed => "pulling the stream failed",
            RecordTrouble::NoAudio => "no audio",
            RecordTrouble::NoVideo => "no video",
            RecordTrouble::AudioStill => "audio timestamp does not change",
            RecordTrouble::VideoStill => "video timestamp does not change",
            RecordTrouble::IllegalAudioTime => "illegal audio timestamp",
            RecordTrouble::ResolutionChanged => "resolution changed",
            RecordTrouble::WriteError => "container write error",
            RecordTrouble::CodecNewFile => "codec change forces a new file",
            RecordTrouble::DroppedVideo => "dropped video frames",
            RecordTrouble::DroppedAudio => "dropped audio frames",
            RecordTrouble::OddGop => "abnormal gop",
            RecordTrouble::UnevenAudio => "uneven audio timestamps",
            RecordTrouble::UnevenVideo => "uneven video timestamps",
        }
    }

    /// How bad it is; the contract leaves that open. Error is what leaves media out of the file.
    #[must_use]
    pub fn level(self) -> Level {
        match self {
            RecordTrouble::ResolutionChanged | RecordTrouble::CodecNewFile => Level::Info,
            RecordTrouble::PullFailed
            | RecordTrouble::NoVideo
            | RecordTrouble::WriteError
            | RecordTrouble::DroppedVideo
            | RecordTrouble::DroppedAudio => Level::Error,
            _ => Level::Warning,
        }
    }

    /// What trouble of the stream is to its recording, if it is any.
    fn of_stream(trouble: StreamTrouble) -> Option<RecordTrouble> {
        match trouble {
            StreamTrouble::VideoBack => Some(RecordTrouble::IllegalVideoTime),
            StreamTrouble::AudioBack => Some(RecordTrouble::IllegalAudioTime),
            StreamTrouble::VideoJump => Some(RecordTrouble::VideoJump),
            StreamTrouble::AudioJump => Some(RecordTrouble::AudioJump),
            StreamTrouble::VideoCodecChanged | StreamTrouble::AudioCodecChanged => {
                Some(RecordTrouble::CodecNewFile)
            }
            StreamTrouble::LongGop => Some(RecordTrouble::OddGop),
            _ => None,
        }
    }
}

/// One type that is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFinding {
    /// What.
    pub kind: RecordTrouble,
    /// How often since it was told last.
    pub occurs: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Merged {
    occurs: u32,
    told: Option<BootTime>,
}

/// Watches one recording.
#[derive(Debug, Default)]
pub struct RecordWatch([Merged; RecordTrouble::ALL.len()]);

impl RecordWatch {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        RecordWatch::default()
    }

    /// It happened `occurs` times more.
    pub fn seen(&mut self, kind: RecordTrouble, occurs: u32) {
        let place = RecordTrouble::ALL.iter().position(|known| *known == kind);
        let merged = &mut self.0[place.expect("every one is in ALL")];
        merged.occurs = merged.occurs.saturating_add(occurs);
    }

    /// What a report on the recording's stream means for it.
    pub fn stream(&mut self, report: &StreamReport) {
        for (trouble, seen) in report.iter() {
            if let Some(kind) = RecordTrouble::of_stream(trouble) {
                self.seen(kind, seen.count);
            }
        }
    }

    /// The next that is to be told now; to be asked until there is none, every few seconds.
    pub fn due(&mut self, now: BootTime) -> Option<RecordFinding> {
        let is_due = |merged: &Merged| {
            let since_ms = |told: BootTime| now.0.saturating_sub(told.0);
            merged.occurs > 0 && merged.told.is_none_or(|told| since_ms(told) >= MERGED_MS)
        };
        let place = self.0.iter().position(is_due)?;
        self.0[place].told = Some(now);
        let occurs = std::mem::take(&mut self.0[place].occurs);
        Some(RecordFinding { kind: RecordTrouble::ALL[place], occurs })
    }

    /// What is left to tell when the recording ends; to be asked until there is none.
    pub fn end(&mut self) -> Option<RecordFinding> {
        let place = self.0.iter().position(|merged| merged.occurs > 0)?;
        let occurs = std::mem::take(&mut self.0[place].occurs);
        Some(RecordFinding { kind: RecordTrouble::ALL[place], occurs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::UnixMillis;

    #[test]
    fn occurrences_are_merged_for_two_minutes_by_type() {
        let mut watch = RecordWatch::new();
        assert_eq!(watch.due(BootTime(0)), None);
        let jump = |occurs| Some(RecordFinding { kind: RecordTrouble::VideoJump, occurs });
        watch.seen(RecordTrouble::VideoJump, 1);
        assert_eq!(watch.due(BootTime(1_000)), jump(1));
        watch.seen(RecordTrouble::VideoJump, 2);
        watch.seen(RecordTrouble::VideoJump, 1);
        assert_eq!(watch.due(BootTime(120_999)), None);
        watch.seen(RecordTrouble::NoAudio, 1);
        let no_audio = RecordFinding { kind: RecordTrouble::NoAudio, occurs: 1 };
        assert_eq!(watch.due(BootTime(120_999)), Some(no_audio));
        assert_eq!(watch.due(BootTime(121_000)), jump(3));
        assert_eq!(watch.due(BootTime(400_000)), None);
        watch.seen(RecordTrouble::VideoJump, 1);
        assert_eq!((watch.end(), watch.end()), (jump(1), None));
    }

    #[test]
    fn trouble_of_the_stream_counts_for_its_recording() {
        let mut report = StreamReport::default();
        report.add(StreamTrouble::AudioJump, UnixMillis(0), 2_000);
        report.add(StreamTrouble::AudioJump, UnixMillis(1), 2_000);
        report.add(StreamTrouble::LargeChunk, UnixMillis(1), 9_000);
        let mut watch = RecordWatch::new();
        watch.stream(&report);
        let jump = RecordFinding { kind: RecordTrouble::AudioJump, occurs: 2 };
        assert_eq!((watch.due(BootTime(0)), watch.due(BootTime(0))), (Some(jump), None));
    }

    #[test]
    fn numbers_are_those_of_the_contract() {
        let numbers = RecordTrouble::ALL.map(RecordTrouble::number);
        let contract = [
            -8, -9, -10, -11, -16, -17, -18, -22, -23, -24, -100, -104, -120, -130, -131, -132,
            -200, -201,
        ];
        assert_eq!(numbers, contract);
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
    }
}
