//! MediaInfo: a file as the VOD API tells it. Times are ISO 8601 in UTC.
//!
//! `Size` is what was delivered. Until then it is what the media takes in the ring, which is some
//! percent off: what a file has exactly is only known once it is rendered.
//!
//! What the catalog does not know is `null`: picture sizes and rates, sampling rates, checksums
//! but for SHA-256. Groups about what a box never makes of a file (transcoding, snapshots, reviews
//! and so on) are `null` too.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::api::signed_url;
use crate::domain::files::FileFormat;
use crate::domain::ids::FileId;
use crate::domain::sample::Codec;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::ring::catalog::files::FileRecord;
use crate::ring::catalog::search::MediaRow;

/// Every file of a box comes from a recording.
pub const SOURCE_TYPE: &str = "Record";
/// Nothing is forbidden on a box.
pub const STATUS: &str = "Normal";
/// There is one class of storage.
pub const STORAGE_CLASS: &str = "STANDARD";
/// The class of files that nobody put into one.
pub const CLASS_ID: &str = "0";

/// What is told of a file that is kept without limit.
const NEVER: &str = "9999-12-31T23:59:59Z";
/// How long the address of a file is good where addresses are signed, in seconds.
const SIGNED_FOR_S: u64 = 6 * 3_600;
/// Longest name of this machine that addresses are made with, in bytes.
const HOST_BYTES_MAX: usize = 262;
/// Groups of MediaInfo that are always `null`.
const NULL_GROUPS: [&str; 14] = [
    "TranscodeInfo",
    "AnimatedGraphicsInfo",
    "SampleSnapshotInfo",
    "ImageSpriteInfo",
    "SnapshotByTimeOffsetInfo",
    "KeyFrameDescInfo",
    "AdaptiveDynamicStreamingInfo",
    "MiniProgramReviewInfo",
    "SubtitleInfo",
    "ReviewInfo",
    "MPSAiMediaInfo",
    "ImageUnderstandingInfo",
    "KnowledgeBasesInfo",
    "FaceRecognitionInfo",
];

/// Which groups of MediaInfo are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Groups {
    basic: bool,
    meta_data: bool,
}

impl Groups {
    /// From `Filters`; an empty list is all. Groups that are always `null`, and unknown ones, add
    /// nothing.
    #[must_use]
    pub fn of(filters: &[String]) -> Self {
        let told = |name: &str| {
            filters.is_empty() || filters.iter().any(|filter| filter.eq_ignore_ascii_case(name))
        };
        Groups { basic: told("basicInfo"), meta_data: told("metaData") }
    }
}

/// Addresses of files, as the caller can reach them.
pub struct Links<'a> {
    host: Option<&'a str>,
    key: Option<&'a Secret>,
    now: UnixMillis,
}

impl<'a> Links<'a> {
    /// For a caller that calls this machine `host`; `None` for one that did not come over HTTP,
    /// which gets addresses without a host. With a key they are signed, from `now` on.
    #[must_use]
    pub fn new(host: Option<&'a str>, key: Option<&'a Secret>, now: UnixMillis) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        let host = host.filter(|host| host.len() <= HOST_BYTES_MAX && host.bytes().all(plain));
        Links { host, key, now }
    }

    /// Where a file can be had: where it was delivered, if HTTP reaches that, else on this box.
    #[must_use]
    pub fn of(&self, file: &FileRecord) -> String {
        let delivered = file.url.as_deref().filter(|url| {
            let scheme = url.split_once("://").map(|(scheme, _)| scheme);
            matches!(scheme, Some("http" | "https"))
        });
        delivered.map_or_else(|| self.own(file.id), ToOwned::to_owned)
    }

    fn own(&self, id: FileId) -> String {
        let path = format!("/files/{id}");
        let host = self.host.map_or_else(String::new, |host| format!("http://{host}"));
        let Some(key) = self.key else { return format!("{host}{path}") };
        let now_s = u64::try_from(self.now.0 / 1_000).unwrap_or(0);
        let query = signed_url::sign(key, &path, now_s.saturating_add(SIGNED_FOR_S));
        format!("{host}{path}?{query}")
    }
}

/// MediaInfo of a file.
#[must_use]
pub fn media_info(row: &MediaRow, groups: Groups, links: &Links<'_>) -> Value {
    let file = &row.file;
    let mut info = Map::new();
    info.insert("FileId".to_owned(), file.id.to_string().into());
    info.insert(
        "BasicInfo".to_owned(),
        if groups.basic { basic_info(row, links) } else { Value::Null },
    );
    info.insert(
        "MetaData".to_owned(),
        if groups.meta_data { meta_data(file) } else { Value::Null },
    );
    info.extend(NULL_GROUPS.iter().map(|group| ((*group).to_owned(), Value::Null)));
    info.into()
}

/// What kind of media a file is.
#[must_use]
pub fn category(file: &FileRecord) -> &'static str {
    let has_picture = file.tracks.iter().any(|codec| is_video(codec));
    let sound_only = file.format == FileFormat::Aac || !file.tracks.is_empty() && !has_picture;
    if sound_only { "Audio" } else { "Video" }
}

/// The extension of a format, as the VOD API has it.
#[must_use]
pub fn container(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Hls => "m3u8",
        FileFormat::Flv | FileFormat::Mp4 | FileFormat::Aac => format.name(),
    }
}

fn is_video(codec: &str) -> bool {
    Codec::from_name(codec).is_some_and(Codec::is_video)
}

fn basic_info(row: &MediaRow, links: &Links<'_>) -> Value {
    let file = &row.file;
    let created = iso(row.created_ms());
    json!({
        "Name": file.file_name(),
        "Description": "",
        "CreateTime": created,
        "UpdateTime": created,
        "ExpireTime": row.expires_ms().map_or_else(|| NEVER.to_owned(), iso),
        "ClassId": 0,
        "ClassName": "",
        "ClassPath": "",
        "CoverUrl": "",
        "Type": container(file.format),
        "MediaUrl": links.of(file),
        "SourceInfo": {
            "SourceType": SOURCE_TYPE,
            "SourceContext": "",
            "LiveRecordInfo": {
                "Domain": file.key.domain(),
                "Path": file.key.app(),
                "StreamId": file.key.stream(),
                "RecordStartTime": iso(file.start_ms),
                "RecordEndTime": iso(file.end_ms),
            },
            "TrtcRecordInfo": null,
            "WebPageRecordInfo": null,
        },
        "StorageRegion": "",
        "StoragePath": "",
        "TagSet": [],
        "Vid": "",
        "Category": category(file),
        "Status": STATUS,
        "StorageClass": STORAGE_CLASS,
    })
}

fn meta_data(file: &FileRecord) -> Value {
    // ADTS holds nothing else.
    let held = |codec: &&String| file.format != FileFormat::Aac || *codec == "aac";
    let of_kind =
        |video| file.tracks.iter().filter(held).filter(move |codec| is_video(codec) == video);
    let seconds = file.duration_ms as f64 / 1_000.0;
    let length = |video| if of_kind(video).next().is_some() { seconds } else { 0.0 };
    let video: Vec<Value> = of_kind(true)
        .map(|codec| {
            json!({"Bitrate": null, "Height": null, "Width": null, "Codec": codec, "Fps": null,
                   "CodecTag": null, "DynamicRangeInfo": null})
        })
        .collect();
    let audio: Vec<Value> = of_kind(false)
        .map(|codec| json!({"Bitrate": null, "SamplingRate": null, "Codec": codec}))
        .collect();
    let bits = file.size.saturating_mul(8_000);
    json!({
        "Size": file.size,
        "Container": container(file.format),
        "Bitrate": bits / u64::try_from(file.duration_ms).unwrap_or(0).max(1),
        "Height": null,
        "Width": null,
        "Duration": seconds,
        "Rotate": 0,
        "VideoDuration": length(true),
        "AudioDuration": length(false),
        "VideoStreamSet": video,
        "AudioStreamSet": audio,
        "Md5": null,
    })
}

/// A time as the VOD API writes it.
fn iso(unix_ms: i64) -> String {
    let time = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
