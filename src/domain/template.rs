//! Recording templates: which formats a stream is recorded in, and how. A template without a
//! format means "not recorded".

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::domain::document::Fields;
use crate::domain::faults::{FaultKind, Faults, quoted};
use crate::domain::file_name::{FileNamePattern, PATTERN_BYTES_MAX};
use crate::domain::files::{FileFormat, FormatSet};

/// Longest template name, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1_024;
/// Longest Procedure and bucket texts, in bytes.
const PROCEDURE_BYTES_MAX: usize = 255;
/// RecordInterval where none is given, in seconds.
pub const RECORD_INTERVAL_S_DEFAULT: u32 = 1_800;
/// RecordInterval of FLV and MP4, in seconds.
const LONG_INTERVAL_S: RangeInclusive<i64> = 60..=43_200;
/// RecordInterval of AAC, in seconds.
const AAC_INTERVAL_S: RangeInclusive<i64> = 60..=7_200;
/// StorageTime, in seconds: up to 1500 days.
const STORAGE_TIME_S: RangeInclusive<i64> = 0..=129_600_000;
/// FlowContinueDuration, in seconds.
const FLOW_CONTINUE_S: RangeInclusive<i64> = 0..=1_800;

/// What a template asks for; what a disabled format would have asked for is not part of it.
///
/// Two templates are the same in content if [`same_content`](Template::same_content) says so; `==`
/// looks at the name too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its name, unique in its layer.
    pub name: String,
    /// FLV, if recorded.
    pub flv: Option<FormatParams>,
    /// HLS, if recorded.
    pub hls: Option<FormatParams>,
    /// MP4, if recorded.
    pub mp4: Option<FormatParams>,
    /// AAC, if recorded.
    pub aac: Option<FormatParams>,
    /// FlowContinueDuration, in seconds; 0 joins nothing.
    pub flow_continue_s: u32,
    /// Description, for people; not part of the content.
    pub description: String,
    /// RemoveWatermark as it was given; not part of the content, as the box has the original
    /// stream only.
    pub remove_watermark: bool,
}

/// What a request says of a template: each field only if it is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TemplateChange {
    /// TemplateName.
    pub name: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// The formats that are given, each with its parameters or as off.
    pub formats: Vec<(FileFormat, Option<FormatParams>)>,
    /// FlowContinueDuration, in seconds.
    pub flow_continue_s: Option<u32>,
    /// RemoveWatermark.
    pub remove_watermark: Option<bool>,
}

/// How one format is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormatParams {
    /// RecordInterval in seconds; `None` for HLS, which is one file.
    pub interval_s: Option<u32>,
    /// StorageTime in seconds; 0 is no age limit.
    pub storage_time_s: u32,
    /// VodFileName.
    pub vod_file_name: FileNamePattern,
    /// VodSubAppId, the VOD sub-application that receives the file.
    pub vod_sub_app_id: Option<i64>,
    /// Procedure, the task flow that VOD runs on the file; empty is none.
    pub procedure: String,
    /// ClassId, the VOD category.
    pub class_id: i64,
}

impl FormatParams {
    /// The contract's defaults for `format`.
    #[must_use]
    pub fn of(format: FileFormat) -> Self {
        FormatParams {
            interval_s: (format != FileFormat::Hls).then_some(RECORD_INTERVAL_S_DEFAULT),
            storage_time_s: 0,
            vod_file_name: FileNamePattern::default(),
            vod_sub_app_id: None,
            procedure: String::new(),
            class_id: 0,
        }
    }
}

impl Template {
    /// The formats it records.
    #[must_use]
    pub fn formats(&self) -> FormatSet {
        FileFormat::ALL.into_iter().filter(|format| self.params(*format).is_some()).collect()
    }

    /// How it records `format`; `None` if it does not.
    #[must_use]
    pub fn params(&self, format: FileFormat) -> Option<&FormatParams> {
        match format {
            FileFormat::Flv => self.flv.as_ref(),
            FileFormat::Hls => self.hls.as_ref(),
            FileFormat::Mp4 => self.mp4.as_ref(),
            FileFormat::Aac => self.aac.as_ref(),
        }
    }

    /// Whether both ask for the same, whatever their names: a session under one is not stale
    /// under the other.
    #[must_use]
    pub fn same_content(&self, other: &Template) -> bool {
        let content = |t: &Template| {
            (t.flv.clone(), t.hls.clone(), t.mp4.clone(), t.aac.clone(), t.flow_continue_s)
        };
        content(self) == content(other)
    }

    /// A template without a format: "not recorded".
    #[must_use]
    pub fn without_formats(name: impl Into<String>) -> Self {
        Template {
            name: name.into(),
            flv: None,
            hls: None,
            mp4: None,
            aac: None,
            flow_continue_s: 0,
            description: String::new(),
            remove_watermark: false,
        }
    }

    /// The template with what `change` gives; what it does not give stays.
    #[must_use]
    pub fn changed(mut self, change: TemplateChange) -> Self {
        for (format, params) in change.formats {
            match format {
                FileFormat::Flv => self.flv = params,
                FileFormat::Hls => self.hls = params,
                FileFormat::Mp4 => self.mp4 = params,
                FileFormat::Aac => self.aac = params,
            }
        }
        Template {
            name: change.name.unwrap_or(self.name),
            flow_continue_s: change.flow_continue_s.unwrap_or(self.flow_continue_s),
            description: change.description.unwrap_or(self.description),
            remove_watermark: change.remove_watermark.unwrap_or(self.remove_watermark),
            ..self
        }
    }

    /// Reads an object with the fields of CreateLiveRecordTemplate, and no others. Numbers and
    /// booleans may be strings and `null` is "not given", as the contract has it. `None` comes
    /// with at least one fault; a template is usable only if `faults` stayed empty.
    pub fn read(fields: Fields<'_>, faults: &mut Faults) -> Option<Template> {
        let mut fields = fields.null_is_absent();
        let template = Template::read_fields(&mut fields, faults);
        fields.finish(faults);
        template
    }

    /// [`read`](Self::read) that leaves `null` and unknown fields to the caller.
    pub fn read_fields(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Template> {
        fields.require("TemplateName", faults);
        let change = TemplateChange::read(fields, faults);
        read_creation_only(fields, faults);
        Some(Template::without_formats(change.name.clone()?).changed(change))
    }
}

impl TemplateChange {
    /// Takes the fields of ModifyLiveRecordTemplate besides its TemplateId. A format or special
    /// object that is given counts whole: what it leaves out is the contract's default.
    pub fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> TemplateChange {
        let name = fields.text("TemplateName", NAME_BYTES_MAX, faults);
        if let Some(name) = name {
            check_name(&fields.place_of("TemplateName"), name, faults);
        }
        let description = fields.text("Description", DESCRIPTION_BYTES_MAX, faults);
        let mut formats = Vec::new();
        for (name, format) in [
            ("FlvParam", FileFormat::Flv),
            ("HlsParam", FileFormat::Hls),
            ("Mp4Param", FileFormat::Mp4),
            ("AacParam", FileFormat::Aac),
        ] {
            if fields.has(name) {
                formats.push((format, read_format(fields, name, format, faults)));
            } else {
                // A `null` is taken all the same: it is no unknown field.
                fields.take(name);
            }
        }
        let mp3_place = format!("{}.Enable", fields.place_of("Mp3Param"));
        if read_format(fields, "Mp3Param", FileFormat::Aac, faults).is_some() {
            faults.add_kind(
                FaultKind::Unsupported,
                mp3_place,
                "MP3 is not supported: it would need transcoding",
            );
        }
        let flow_continue_s = read_special(fields, faults);
        let remove_watermark = fields.flag("RemoveWatermark", faults);
        TemplateChange {
            name: name.map(ToOwned::to_owned),
            description: description.map(ToOwned::to_owned),
            formats,
            flow_continue_s,
            remove_watermark,
        }
    }
}

/// Letters of any script, digits, `_` and `-`.
fn check_name(place: &str, name: &str, faults: &mut Faults) {
    if name.is_empty() {
        faults.add(place, "is empty");
    } else if !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
        let what = "has something else than letters, digits, `_` and `-`";
        faults.add(place, format!("{} {what}", quoted(name)));
    }
}

/// Reads a RecordParam; `None` if the format is off. Ranges hold for formats that are off, too.
fn read_format(
    fields: &mut Fields<'_>,
    name: &str,
    format: FileFormat,
    faults: &mut Faults,
) -> Option<FormatParams> {
    let mut param = fields.object(name, faults)?;
    let mut read = FormatParams::of(format);
    let enabled = param.integer("Enable", 0..=1, faults) == Some(1);
    let interval_range = match format {
        FileFormat::Flv | FileFormat::Mp4 => LONG_INTERVAL_S,
        FileFormat::Aac => AAC_INTERVAL_S,
        // Ignored: any number will do.
        FileFormat::Hls => i64::MIN..=i64::MAX,
    };
    if let Some(interval) = param.integer("RecordInterval", interval_range, faults)
        && format != FileFormat::Hls
    {
        read.interval_s = u32::try_from(interval).ok();
    }
    if let Some(time) = param.integer("StorageTime", STORAGE_TIME_S, faults) {
        read.storage_time_s = u32::try_from(time).expect("in range");
    }
    let place = param.place_of("VodFileName");
    if let Some(text) = param.text("VodFileName", PATTERN_BYTES_MAX, faults) {
        match FileNamePattern::parse(text) {
            Ok(pattern) => read.vod_file_name = pattern,
            Err(error) => faults.add_kind(FaultKind::VodFileName, place, error.to_string()),
        }
    }
    read.vod_sub_app_id = param.integer("VodSubAppId", 0..=i64::MAX, faults);
    if let Some(procedure) = param.text("Procedure", PROCEDURE_BYTES_MAX, faults) {
        read.procedure = procedure.to_owned();
    }
    read.class_id = param.integer("ClassId", 0..=i64::MAX, faults).unwrap_or(0);
    read_storage(&mut param, faults);
    param.finish(faults);
    enabled.then_some(read)
}

/// The fields of a RecordParam that say where VOD keeps the file: only the ordinary place is had.
fn read_storage(param: &mut Fields<'_>, faults: &mut Faults) {
    let place = param.place_of("StorageMode");
    match param.text("StorageMode", PROCEDURE_BYTES_MAX, faults) {
        None | Some("" | "normal") => {}
        Some("cold") => {
            let what = "`cold` storage is not supported, `normal` is";
            faults.add_kind(FaultKind::Unsupported, place, what);
        }
        Some(other) => faults.add(place, format!("{} is not a storage mode", quoted(other))),
    }
    for name in ["CosBucketName", "CosBucketRegion", "CosBucketPath"] {
        if param.text(name, PROCEDURE_BYTES_MAX, faults).is_some_and(|text| !text.is_empty()) {
            let what = "is not supported: where files go is set in edgerec.toml, [upload]";
            faults.add_kind(FaultKind::Unsupported, param.place_of(name), what);
        }
    }
}

/// Reads HlsSpecialParam and FlvSpecialParam; returns FlowContinueDuration if the first is given.
fn read_special(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<u32> {
    let mut flow_continue_s = None;
    if let Some(mut special) = fields.object("HlsSpecialParam", faults) {
        let time = special.integer("FlowContinueDuration", FLOW_CONTINUE_S, faults).unwrap_or(0);
        flow_continue_s = Some(u32::try_from(time).expect("in range"));
        special.finish(faults);
    }
    if let Some(mut special) = fields.object("FlvSpecialParam", faults) {
        if special.flag("UploadInRecording", faults) == Some(true) {
            let what = "is not supported: files are uploaded when they are complete";
            faults.add_kind(FaultKind::Unsupported, special.place_of("UploadInRecording"), what);
        }
        special.finish(faults);
    }
    flow_continue_s
}

/// Fields that only a creation has. They mean nothing on a box; only their harmless values are
/// taken.
fn read_creation_only(fields: &mut Fields<'_>, faults: &mut Faults) {
    if fields.integer("IsDelayLive", 0..=1, faults) == Some(1) {
        let what = "slow live is not supported";
        faults.add_kind(FaultKind::Unsupported, fields.place_of("IsDelayLive"), what);
    }
    if fields.integer("CosStore", 0..=1, faults) == Some(1) {
        let what = "is not supported: where files go is set in edgerec.toml, [upload]";
        faults.add_kind(FaultKind::Unsupported, fields.place_of("CosStore"), what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::Json;

    fn read(text: &str) -> Result<Template, Faults> {
        let json = Json::parse(text.as_bytes(), 1 << 20).expect("JSON");
        let mut faults = Faults::new();
        let fields = Fields::open(&json, "", &mut faults).expect("object");
        let template = Template::read(fields, &mut faults);
        faults.into_result(template).map(|template| template.expect("no fault, so a template"))
    }

    fn faults_of(text: &str) -> String {
        read(text).expect_err("faulty").to_string()
    }

    #[test]
    fn sample_of_the_contract_with_numbers_as_strings() {
        let template = read(
            r#"{"TemplateName": "cam-缺省_1", "Description": "x", "Mp4Param": {"Enable": "1",
            "RecordInterval": "3600", "StorageTime": 2592000, "ClassId": null, "VodSubAppId": 7,
            "Procedure": "flow"}, "HlsParam": {"Enable": 1, "RecordInterval": 5},
            "FlvParam": {"Enable": 0, "RecordInterval": 1800}, "RemoveWatermark": "false",
            "HlsSpecialParam": {"FlowContinueDuration": 300}, "FlvSpecialParam": null,
            "IsDelayLive": 0, "CosStore": null, "Mp3Param": {"Enable": 0}}"#,
        )
        .expect("valid");
        assert_eq!(template.name, "cam-缺省_1");
        let formats: Vec<_> = template.formats().iter().collect();
        assert_eq!(formats, [FileFormat::Hls, FileFormat::Mp4]);
        assert_eq!(template.flow_continue_s, 300);
        let mp4 = template.params(FileFormat::Mp4).expect("on");
        assert_eq!((mp4.interval_s, mp4.storage_time_s), (Some(3600), 2_592_000));
        assert_eq!((mp4.vod_sub_app_id, mp4.procedure.as_str()), (Some(7), "flow"));
        assert_eq!(template.params(FileFormat::Hls), Some(&FormatParams::of(FileFormat::Hls)));
        assert_eq!(template.params(FileFormat::Flv), None);
    }

    #[test]
    fn no_format_is_legal_and_records_nothing() {
        assert!(read(r#"{"TemplateName": "never"}"#).expect("valid").formats().is_empty());
    }

    #[test]
    fn ranges_of_the_contract_end_where_they_end() {
        for (param, field, low, high) in [
            ("FlvParam", "RecordInterval", 60, 43_200),
            ("Mp4Param", "RecordInterval", 60, 43_200),
            ("AacParam", "RecordInterval", 60, 7_200),
            ("HlsParam", "StorageTime", 0, 129_600_000),
            ("HlsSpecialParam", "FlowContinueDuration", 0, 1_800),
        ] {
            let with = |value: i64| {
                read(&format!(r#"{{"TemplateName": "a", "{param}": {{"{field}": {value}}}}}"#))
            };
            for good in [low, high] {
                with(good).expect("inside");
            }
            for bad in [low - 1, high + 1, i64::MAX] {
                assert_eq!(
                    with(bad).expect_err("outside").to_string(),
                    format!("{param}.{field}: {bad} is outside {low}..={high}")
                );
            }
        }
    }

    #[test]
    fn unsupported_things_are_refused_with_their_reason() {
        let faults = faults_of(
            r#"{"TemplateName": "a b", "Mp3Param": {"Enable": 1}, "IsDelayLive": 1, "CosStore": 1,
            "FlvParam": {"StorageMode": "cold", "CosBucketName": "b", "VodFileName": "{Nope}"},
            "AacParam": {"StorageMode": "warm"}, "FlvSpecialParam": {"UploadInRecording": true},
            "Extra": 1, "HlsParam": {"Enable": true, "Extra": 1}}"#,
        );
        let places: Vec<&str> =
            faults.lines().map(|line| line.split(": ").next().expect("place")).collect();
        assert_eq!(
            places,
            [
                "TemplateName",
                "FlvParam.VodFileName",
                "FlvParam.StorageMode",
                "FlvParam.CosBucketName",
                "HlsParam.Enable",
                "HlsParam.Extra",
                "AacParam.StorageMode",
                "Mp3Param.Enable",
                "FlvSpecialParam.UploadInRecording",
                "IsDelayLive",
                "CosStore",
                "Extra"
            ]
        );
        assert!(faults.contains("MP3 is not supported"));
    }

    #[test]
    fn content_is_compared_without_the_name_and_without_what_is_off() {
        let a = read(r#"{"TemplateName": "a", "FlvParam": {"Enable": 1}}"#).expect("valid");
        let b = read(
            r#"{"TemplateName": "b", "FlvParam": {"Enable": 1, "RecordInterval": 1800},
            "Mp4Param": {"Enable": 0, "RecordInterval": 60}}"#,
        )
        .expect("valid");
        let c = read(r#"{"TemplateName": "a", "FlvParam": {"Enable": 1, "StorageTime": 1}}"#)
            .expect("valid");
        assert!(a.same_content(&b) && a != b);
        assert!(!a.same_content(&c) && a != c);
    }

    #[test]
    fn words_for_people_are_kept_and_are_not_content() {
        let a = read(r#"{"TemplateName": "a", "Description": "x", "RemoveWatermark": "true"}"#)
            .expect("valid");
        assert_eq!((a.description.as_str(), a.remove_watermark), ("x", true));
        assert!(a.same_content(&Template::without_formats("a")));
    }

    #[test]
    fn a_name_that_is_null_is_missing() {
        assert_eq!(faults_of(r#"{"TemplateName": null}"#), "TemplateName: is missing");
    }

    #[test]
    fn a_change_keeps_what_it_does_not_give_and_replaces_objects_whole() {
        let before = read(
            r#"{"TemplateName": "a", "Description": "x", "RemoveWatermark": true,
            "FlvParam": {"Enable": 1, "RecordInterval": 60}, "AacParam": {"Enable": 1},
            "Mp4Param": {"Enable": 1, "RecordInterval": 60, "StorageTime": 7},
            "HlsSpecialParam": {"FlowContinueDuration": 300}}"#,
        )
        .expect("valid");
        let change = |text: &str| {
            let json = Json::parse(text.as_bytes(), 1 << 20).expect("JSON");
            let mut faults = Faults::new();
            let mut fields = Fields::open(&json, "", &mut faults).expect("object").null_is_absent();
            let change = TemplateChange::read(&mut fields, &mut faults);
            fields.finish(&mut faults);
            faults.into_result(change)
        };
        let nothing = change(r#"{"FlvParam": null}"#).expect("valid");
        assert_eq!(before.clone().changed(nothing), before);
        let some = change(
            r#"{"TemplateName": "b", "FlvParam": {"RecordInterval": 90},
            "Mp4Param": {"Enable": 1, "StorageTime": 9}, "HlsSpecialParam": {}}"#,
        );
        let after = before.clone().changed(some.expect("valid"));
        assert_eq!((after.name.as_str(), after.description.as_str()), ("b", "x"));
        assert_eq!((after.flv.as_ref(), after.flow_continue_s), (None, 0));
        assert_eq!((after.aac.as_ref(), after.remove_watermark), (before.aac.as_ref(), true));
        let mp4 = after.mp4.expect("on");
        assert_eq!((mp4.interval_s, mp4.storage_time_s), (Some(1_800), 9));
        for creation_only in [r#"{"IsDelayLive": 0}"#, r#"{"CosStore": 0}"#] {
            change(creation_only).expect_err("only a creation has it");
        }
    }

    #[test]
    fn stored_form_round_trips() {
        let template = read(r#"{"TemplateName": "a", "AacParam": {"Enable": 1}}"#).expect("valid");
        let stored = serde_json::to_string(&template).expect("JSON");
        let back: Template = serde_json::from_str(&stored).expect("own form");
        assert_eq!(back, template);
        let broken = stored.replace("{StreamID}", "{Nope}");
        assert!(serde_json::from_str::<Template>(&broken).is_err());
    }
}
