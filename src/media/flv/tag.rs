//! FLV tag bodies: what RTMP video and audio messages and FLV tags hold behind their headers.
//! Adobe FLV 10.1 E.4.2 and E.4.3, the H.265 codec id 12 in wide use before there was a standard,
//! and Enhanced RTMP v1 and v2 (four-character codes, ModEx, one track).

use bytes::Bytes;

use crate::domain::limits::CODEC_CONFIG_BYTES_MAX;
use crate::domain::sample::Codec;

const VIDEO_ENHANCED: u8 = 0x80;
const FRAME_KEY: u8 = 1;
const FRAME_COMMAND: u8 = 5;
const VIDEO_AVC: u8 = 7;
const VIDEO_HEVC: u8 = 12;
const AUDIO_ALAW: u8 = 7;
const AUDIO_ULAW: u8 = 8;
const AUDIO_ENHANCED: u8 = 9;
const AUDIO_AAC: u8 = 10;

// Packet types of classic AVC, HEVC and AAC tags, and of enhanced ones.
const CONFIG: u8 = 0;
const FRAME: u8 = 1;
const END: u8 = 2;
const FRAME_WITHOUT_OFFSET: u8 = 3;
const MULTITRACK_AUDIO: u8 = 5;
const MULTITRACK_VIDEO: u8 = 6;
const MOD_EX: u8 = 7;
/// More modifiers than this before one packet are an attack.
const MOD_EX_MAX: usize = 8;

/// What a tag body holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagBody {
    /// Codec configuration (see [`Codec`]); never empty.
    Config {
        /// Of which codec.
        codec: Codec,
        /// The record, shared with the tag.
        bytes: Bytes,
    },
    /// One access unit or audio frame; never empty.
    Frame {
        /// How it is coded.
        codec: Codec,
        /// The tag calls it a key frame (always true for audio).
        key: bool,
        /// Presentation minus decoding time, in milliseconds (0 for audio).
        composition_time_ms: i32,
        /// The coded bytes, shared with the tag.
        data: Bytes,
    },
    /// Nothing to record: end of sequence, colour metadata, seek commands, empty tags.
    Ignored,
    /// Media that edgerec does not carry; the name of its codec.
    Unsupported(String),
}

/// A tag body is not what its first bytes promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// It ends too early.
    #[error("the {0} tag is cut short")]
    Truncated(&'static str),
    /// Its codec configuration is longer than any real one.
    #[error("a codec configuration of {0} bytes, {CODEC_CONFIG_BYTES_MAX} are allowed")]
    ConfigTooLong(usize),
    /// It has too many modifiers.
    #[error("the {0} tag has too many modifiers")]
    TooManyModifiers(&'static str),
}

/// Takes bytes from the front of a tag body.
struct Fields {
    rest: Bytes,
    kind: &'static str,
}

impl Fields {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TagError> {
        let taken = *self.rest.first_chunk::<N>().ok_or(TagError::Truncated(self.kind))?;
        self.rest = self.rest.slice(N..);
        Ok(taken)
    }

    fn skip(&mut self, len: usize) -> Result<(), TagError> {
        if self.rest.len() < len {
            return Err(TagError::Truncated(self.kind));
        }
        self.rest = self.rest.slice(len..);
        Ok(())
    }

    fn config(self, codec: Codec) -> Result<TagBody, TagError> {
        match self.rest.len() {
            0 => Err(TagError::Truncated(self.kind)),
            len if len > CODEC_CONFIG_BYTES_MAX => Err(TagError::ConfigTooLong(len)),
            _ => Ok(TagBody::Config { codec, bytes: self.rest }),
        }
    }

    fn frame(self, codec: Codec, key: bool, composition_time_ms: i32) -> TagBody {
        if self.rest.is_empty() {
            return TagBody::Ignored;
        }
        TagBody::Frame { codec, key, composition_time_ms, data: self.rest }
    }

    /// Enhanced RTMP v2, ModEx: modifiers before the real packet type, none of which recording
    /// needs (they refine timestamps below a millisecond).
    fn skip_modifiers(&mut self, mut packet: u8) -> Result<u8, TagError> {
        for _ in 0..MOD_EX_MAX {
            if packet != MOD_EX {
                return Ok(packet);
            }
            let [short] = self.take()?;
            let mut len = usize::from(short) + 1;
            if len == 256 {
                len = usize::from(u16::from_be_bytes(self.take()?)) + 1;
            }
            self.skip(len)?;
            let [next] = self.take()?;
            packet = next & 0x0f;
        }
        Err(TagError::TooManyModifiers(self.kind))
    }

    /// The head of a multitrack packet; the real packet type and codec if it is of the default
    /// track alone.
    fn default_track(&mut self) -> Result<Option<(u8, [u8; 4])>, TagError> {
        let [head] = self.take()?;
        if head >> 4 != 0 {
            return Ok(None);
        }
        let fourcc = self.take()?;
        let [track] = self.take()?;
        Ok((track == 0).then_some((head & 0x0f, fourcc)))
    }
}

/// Reads the body of a video tag (RTMP message type 9).
///
/// # Errors
/// The body ends before what its first bytes promise, or breaks a limit.
pub fn parse_video(body: &Bytes) -> Result<TagBody, TagError> {
    let Some(first) = body.first().copied() else { return Ok(TagBody::Ignored) };
    let mut fields = Fields { rest: body.slice(1..), kind: "video" };
    if first & VIDEO_ENHANCED != 0 {
        return parse_enhanced_video(fields, first);
    }
    let frame_type = first >> 4;
    let codec = match first & 0x0f {
        VIDEO_AVC => Codec::H264,
        VIDEO_HEVC => Codec::H265,
        other => return Ok(TagBody::Unsupported(classic_video_name(other))),
    };
    if frame_type == FRAME_COMMAND {
        return Ok(TagBody::Ignored);
    }
    let [packet, offset @ ..] = fields.take::<4>()?;
    match packet {
        CONFIG => fields.config(codec),
        FRAME => Ok(fields.frame(codec, frame_type == FRAME_KEY, signed24(offset))),
        _ => Ok(TagBody::Ignored),
    }
}

fn parse_enhanced_video(mut fields: Fields, first: u8) -> Result<TagBody, TagError> {
    let frame_type = first >> 4 & 7;
    let mut packet = fields.skip_modifiers(first & 0x0f)?;
    if frame_type == FRAME_COMMAND {
        return Ok(TagBody::Ignored);
    }
    let fourcc = if packet == MULTITRACK_VIDEO {
        let Some((inner, fourcc)) = fields.default_track()? else {
            return Ok(TagBody::Unsupported("a further video track".to_owned()));
        };
        packet = inner;
        fourcc
    } else {
        fields.take()?
    };
    let codec = match &fourcc {
        b"avc1" => Codec::H264,
        b"hvc1" => Codec::H265,
        other => return Ok(TagBody::Unsupported(fourcc_name(*other))),
    };
    let key = frame_type == FRAME_KEY;
    match packet {
        CONFIG => fields.config(codec),
        FRAME => {
            let offset = signed24(fields.take()?);
            Ok(fields.frame(codec, key, offset))
        }
        FRAME_WITHOUT_OFFSET => Ok(fields.frame(codec, key, 0)),
        _ => Ok(TagBody::Ignored),
    }
}

/// Reads the body of an audio tag (RTMP message type 8).
///
/// # Errors
/// The body ends before what its first bytes promise, or breaks a limit.
pub fn parse_audio(body: &Bytes) -> Result<TagBody, TagError> {
    let Some(first) = body.first().copied() else { return Ok(TagBody::Ignored) };
    let mut fields = Fields { rest: body.slice(1..), kind: "audio" };
    match first >> 4 {
        AUDIO_AAC => match fields.take()? {
            [CONFIG] => fields.config(Codec::Aac),
            [FRAME] => Ok(fields.frame(Codec::Aac, true, 0)),
            _ => Ok(TagBody::Ignored),
        },
        AUDIO_ALAW => Ok(fields.frame(Codec::PcmAlaw, true, 0)),
        AUDIO_ULAW => Ok(fields.frame(Codec::PcmUlaw, true, 0)),
        AUDIO_ENHANCED => parse_enhanced_audio(fields, first),
        other => Ok(TagBody::Unsupported(classic_audio_name(other))),
    }
}

fn parse_enhanced_audio(mut fields: Fields, first: u8) -> Result<TagBody, TagError> {
    let mut packet = fields.skip_modifiers(first & 0x0f)?;
    let fourcc = if packet == MULTITRACK_AUDIO {
        let Some((inner, fourcc)) = fields.default_track()? else {
            return Ok(TagBody::Unsupported("a further audio track".to_owned()));
        };
        packet = inner;
        fourcc
    } else {
        fields.take()?
    };
    if &fourcc != b"mp4a" {
        return Ok(TagBody::Unsupported(fourcc_name(fourcc)));
    }
    match packet {
        CONFIG => fields.config(Codec::Aac),
        FRAME => Ok(fields.frame(Codec::Aac, true, 0)),
        _ => Ok(TagBody::Ignored),
    }
}

/// Channels that the first byte of a G.711 tag states.
#[must_use]
pub fn g711_channels(body: &[u8]) -> u8 {
    1 + body.first().map_or(0, |first| first & 1)
}

fn signed24([a, b, c]: [u8; 3]) -> i32 {
    i32::from_be_bytes([a, b, c, 0]) >> 8
}

fn classic_video_name(id: u8) -> String {
    match id {
        2 => "flv1".to_owned(),
        3 | 6 => "flashsv".to_owned(),
        4 | 5 => "vp6f".to_owned(),
        13 => "av1".to_owned(),
        other => format!("video codec {other}"),
    }
}

fn classic_audio_name(format: u8) -> String {
    match format {
        0 | 3 => "pcm".to_owned(),
        1 => "adpcm_swf".to_owned(),
        2 | 14 => "mp3".to_owned(),
        4..=6 => "nellymoser".to_owned(),
        11 => "speex".to_owned(),
        13 => "opus".to_owned(),
        other => format!("audio format {other}"),
    }
}

/// A four-character code for logs: printable, whatever it holds.
fn fourcc_name(code: [u8; 4]) -> String {
    code.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect()
}

/// How H.265 is written into tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HevcForm {
    /// Enhanced RTMP, four-character code `hvc1`.
    Enhanced,
    /// Codec id 12, which older Chinese players know.
    Legacy,
}

/// The bytes of a tag body that stand before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHead {
    bytes: [u8; 8],
    len: u8,
}

impl BodyHead {
    fn new(bytes: &[u8]) -> Self {
        let mut head = BodyHead { bytes: [0; 8], len: bytes.len() as u8 };
        head.bytes[..bytes.len()].copy_from_slice(bytes);
        head
    }

    /// The head with the payload behind it.
    #[must_use]
    pub fn with_payload(&self, payload: &[u8]) -> Bytes {
        [self, payload].concat().into()
    }
}

impl std::ops::Deref for BodyHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The head of a tag with the codec configuration; `None` for G.711, which has none.
#[must_use]
pub fn config_head(codec: Codec, form: HevcForm) -> Option<BodyHead> {
    Some(match codec {
        Codec::Aac => BodyHead::new(&[AUDIO_AAC << 4 | 0x0f, CONFIG]),
        Codec::H264 | Codec::H265 => video_head(codec, form, true, CONFIG, 0),
        Codec::PcmAlaw | Codec::PcmUlaw => return None,
    })
}

/// The head of a tag with a video frame; the offset is cut to the 24 bits of the field. Calling it
/// for an audio codec is a mistake of the caller and gives the head of H.264.
#[must_use]
pub fn video_frame_head(
    codec: Codec,
    form: HevcForm,
    key: bool,
    composition_time_ms: i32,
) -> BodyHead {
    video_head(codec, form, key, FRAME, composition_time_ms.clamp(-0x80_0000, 0x7f_ffff))
}

/// The head of a tag that says that the video ends.
#[must_use]
pub fn video_end_head(codec: Codec, form: HevcForm) -> BodyHead {
    video_head(codec, form, true, END, 0)
}

fn video_head(codec: Codec, form: HevcForm, key: bool, packet: u8, offset: i32) -> BodyHead {
    let frame_type = if key { FRAME_KEY } else { 2 };
    let [_, a, b, c] = offset.to_be_bytes();
    match (codec, form) {
        (Codec::H265, HevcForm::Enhanced) => {
            let packet = if packet == FRAME && offset == 0 { FRAME_WITHOUT_OFFSET } else { packet };
            let bytes =
                [VIDEO_ENHANCED | frame_type << 4 | packet, b'h', b'v', b'c', b'1', a, b, c];
            BodyHead::new(if packet == FRAME { &bytes } else { &bytes[..5] })
        }
        (Codec::H265, HevcForm::Legacy) => {
            BodyHead::new(&[frame_type << 4 | VIDEO_HEVC, packet, a, b, c])
        }
        _ => BodyHead::new(&[frame_type << 4 | VIDEO_AVC, packet, a, b, c]),
    }
}

/// The head of a tag with an audio frame; `channels` matters for G.711 only (FLV knows one or two).
#[must_use]
pub fn audio_frame_head(codec: Codec, channels: u8) -> BodyHead {
    // The rate field of G.711 means nothing; 16-bit samples are stated as everybody does.
    let g711 = |format: u8| BodyHead::new(&[format << 4 | 0x02 | u8::from(channels > 1)]);
    match codec {
        Codec::PcmAlaw => g711(AUDIO_ALAW),
        Codec::PcmUlaw => g711(AUDIO_ULAW),
        _ => BodyHead::new(&[AUDIO_AAC << 4 | 0x0f, FRAME]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(codec: Codec, key: bool, composition_time_ms: i32, data: &'static [u8]) -> TagBody {
        TagBody::Frame { codec, key, composition_time_ms, data: Bytes::from_static(data) }
    }

    fn config(codec: Codec, bytes: &'static [u8]) -> TagBody {
        TagBody::Config { codec, bytes: Bytes::from_static(bytes) }
    }

    fn video(body: &'static [u8]) -> TagBody {
        parse_video(&Bytes::from_static(body)).expect("well formed")
    }

    fn audio(body: &'static [u8]) -> TagBody {
        parse_audio(&Bytes::from_static(body)).expect("well formed")
    }

    #[test]
    fn classic_video_by_the_book() {
        assert_eq!(video(b"\x17\x00\0\0\0\x01\x64"), config(Codec::H264, b"\x01\x64"));
        assert_eq!(video(b"\x17\x01\0\0\x50abc"), frame(Codec::H264, true, 80, b"abc"));
        assert_eq!(video(b"\x27\x01\xff\xff\xd8abc"), frame(Codec::H264, false, -40, b"abc"));
        assert_eq!(video(b"\x1c\x01\0\0\x28abc"), frame(Codec::H265, true, 40, b"abc"));
        assert_eq!(video(b"\x17\x02\0\0\0"), TagBody::Ignored);
        assert_eq!(video(b"\x57\x00"), TagBody::Ignored);
        assert_eq!(video(b""), TagBody::Ignored);
        assert_eq!(video(b"\x12abc"), TagBody::Unsupported("flv1".into()));
    }

    #[test]
    fn enhanced_video_by_the_book() {
        assert_eq!(video(b"\x90hvc1\x01\x02"), config(Codec::H265, b"\x01\x02"));
        assert_eq!(video(b"\x91hvc1\0\0\x28abc"), frame(Codec::H265, true, 40, b"abc"));
        assert_eq!(video(b"\xa3hvc1abc"), frame(Codec::H265, false, 0, b"abc"));
        assert_eq!(video(b"\xa1avc1\xff\xff\xffabc"), frame(Codec::H264, false, -1, b"abc"));
        assert_eq!(video(b"\x92hvc1"), TagBody::Ignored);
        assert_eq!(video(b"\x94hvc1\x02\0\tcolorInfo"), TagBody::Ignored);
        assert_eq!(video(b"\x90av01\x81"), TagBody::Unsupported("av01".into()));
        assert_eq!(video(b"\x90\n\x1b[m1"), TagBody::Unsupported("..[m".into()));
        // A nanosecond modifier before coded frames, and the default track of a multitrack packet.
        assert_eq!(video(b"\x97\x02\0\0\x01\x03hvc1abc"), frame(Codec::H265, true, 0, b"abc"));
        assert_eq!(video(b"\x96\x03hvc1\0abc"), frame(Codec::H265, true, 0, b"abc"));
        assert!(matches!(video(b"\x96\x03hvc1\x01abc"), TagBody::Unsupported(_)));
    }

    #[test]
    fn audio_by_the_book() {
        assert_eq!(audio(b"\xaf\0\x12\x10"), config(Codec::Aac, b"\x12\x10"));
        assert_eq!(audio(b"\xaf\x01abc"), frame(Codec::Aac, true, 0, b"abc"));
        assert_eq!(audio(b"\xaf\x01"), TagBody::Ignored);
        assert_eq!(audio(b"\x72abc"), frame(Codec::PcmAlaw, true, 0, b"abc"));
        assert_eq!(audio(b"\x83abc"), frame(Codec::PcmUlaw, true, 0, b"abc"));
        assert_eq!((g711_channels(b"\x72"), g711_channels(b"\x83")), (1, 2));
        assert_eq!(audio(b"\x90mp4a\x12\x10"), config(Codec::Aac, b"\x12\x10"));
        assert_eq!(audio(b"\x91mp4aabc"), frame(Codec::Aac, true, 0, b"abc"));
        assert_eq!(audio(b"\x90Opus\x01"), TagBody::Unsupported("Opus".into()));
        assert_eq!(audio(b"\x2fabc"), TagBody::Unsupported("mp3".into()));
    }

    #[test]
    fn cut_and_swollen_tags_are_errors() {
        for body in [&b"\x17"[..], b"\x17\x01\0\0", b"\x17\0\0\0\0", b"\x91hvc1\0\0", b"\x90hv"] {
            let body = Bytes::from_static(body);
            assert_eq!(parse_video(&body), Err(TagError::Truncated("video")), "{body:?}");
        }
        assert_eq!(parse_audio(&Bytes::from_static(b"\xaf")), Err(TagError::Truncated("audio")));
        let swollen =
            Bytes::from([&b"\x17\0\0\0\0"[..], &[1; CODEC_CONFIG_BYTES_MAX + 1]].concat());
        let too_long = TagError::ConfigTooLong(CODEC_CONFIG_BYTES_MAX + 1);
        assert_eq!(parse_video(&swollen), Err(too_long));
        let modifiers = Bytes::from([&b"\x97"[..], &b"\0\0\x07".repeat(MOD_EX_MAX + 1)].concat());
        assert_eq!(parse_video(&modifiers), Err(TagError::TooManyModifiers("video")));
    }

    #[test]
    fn bodies_are_not_copied() {
        let body = Bytes::from_static(b"\x17\x01\0\0\0abc");
        let TagBody::Frame { data, .. } = parse_video(&body).expect("well formed") else {
            panic!("a frame")
        };
        assert_eq!(data.as_ptr(), body[5..].as_ptr());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            offset in -0x80_0000..0x80_0000i32,
            key in any::<bool>(),
            payload in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            for form in [HevcForm::Enhanced, HevcForm::Legacy] {
                for codec in [Codec::H264, Codec::H265] {
                    let body = video_frame_head(codec, form, key, offset).with_payload(&payload);
                    let data = Bytes::from(payload.clone());
                    let frame = TagBody::Frame { codec, key, composition_time_ms: offset, data };
                    prop_assert_eq!(parse_video(&body), Ok(frame));
                    let body = config_head(codec, form).expect("video").with_payload(&payload);
                    let bytes = Bytes::from(payload.clone());
                    prop_assert_eq!(parse_video(&body), Ok(TagBody::Config { codec, bytes }));
                    let body = video_end_head(codec, form).with_payload(&[]);
                    prop_assert_eq!(parse_video(&body), Ok(TagBody::Ignored));
                }
            }
            for codec in [Codec::Aac, Codec::PcmAlaw, Codec::PcmUlaw] {
                let body = audio_frame_head(codec, 2).with_payload(&payload);
                let data = Bytes::from(payload.clone());
                let frame = TagBody::Frame { codec, key: true, composition_time_ms: 0, data };
                prop_assert_eq!(parse_audio(&body), Ok(frame));
            }
        }

        #[test]
        fn any_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..48)) {
            let body = Bytes::from(body);
            let _ = (parse_video(&body), parse_audio(&body));
        }
    }
}
