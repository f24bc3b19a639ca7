//! File formats, and sets of them.

use std::fmt;
use std::str::FromStr;

/// A format in which a clip is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileFormat {
    /// Flash Video, enhanced where the codec asks for it.
    Flv = 0,
    /// HTTP Live Streaming: a VOD playlist and its segments.
    Hls = 1,
    /// Progressive MP4, `moov` first.
    Mp4 = 2,
    /// AAC in ADTS framing, audio only.
    Aac = 3,
}

impl FileFormat {
    /// Every format, in the order of the cloud API's numbers.
    pub const ALL: [FileFormat; 4] =
        [FileFormat::Flv, FileFormat::Hls, FileFormat::Mp4, FileFormat::Aac];

    /// The name in lower case, as in commands, reports and callbacks.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileFormat::Flv => "flv",
            FileFormat::Hls => "hls",
            FileFormat::Mp4 => "mp4",
            FileFormat::Aac => "aac",
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a format; one of flv, hls, mp4, aac is")]
pub struct UnknownFormat(pub String);

impl FromStr for FileFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        FileFormat::ALL
            .into_iter()
            .find(|format| format.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// A set of formats, one bit each (bit number = the format's number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FormatSet(u8);

impl FormatSet {
    /// No format.
    pub const EMPTY: FormatSet = FormatSet(0);

    /// From the bits as stored; unknown bits are dropped.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        FormatSet(bits & 0b1111)
    }

    /// The bits as stored.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// This set and `format`.
    #[must_use]
    pub fn with(self, format: FileFormat) -> Self {
        FormatSet(self.0 | 1 << format as u8)
    }

    /// Whether `format` is in the set.
    #[must_use]
    pub fn contains(self, format: FileFormat) -> bool {
        self.0 & (1 << format as u8) != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Members of either set.
    #[must_use]
    pub fn or(self, other: FormatSet) -> Self {
        FormatSet(self.0 | other.0)
    }

    /// Members of both sets.
    #[must_use]
    pub fn and(self, other: FormatSet) -> Self {
        FormatSet(self.0 & other.0)
    }

    /// The members in order.
    pub fn iter(self) -> impl Iterator<Item = FileFormat> {
        FileFormat::ALL.into_iter().filter(move |format| self.contains(*format))
    }
}

impl FromIterator<FileFormat> for FormatSet {
    fn from_iter<I: IntoIterator<Item = FileFormat>>(formats: I) -> Self {
        formats.into_iter().fold(FormatSet::EMPTY, FormatSet::with)
    }
}
