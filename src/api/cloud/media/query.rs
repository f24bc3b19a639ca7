//! What SearchMedia asks for: its fields, their limits, and whether a file answers to them.
//!
//! Values of one field are alternatives, fields add up; an empty list is as good as none. What no
//! file of a box has (descriptions, tags, storage regions, reviews, rooms, knowledge bases, the
//! old `Vid`) may be asked for and finds nothing. `SubAppId` is not looked at, as a box is one
//! application; `Vids` has no effect, as with the cloud.

use std::ops::Range;

use jiff::Timestamp;

use crate::api::cloud::media::info::{self, Groups};
use crate::api::cloud::params::{Codes, Params};
use crate::domain::document::{Fields, Json};
use crate::domain::faults::Faults;
use crate::domain::ids::FileId;
use crate::domain::service::Refusal;
use crate::ring::catalog::search::MediaRow;

/// `Offset` and `Limit` together; also the highest `TotalCount`.
pub const FOUND_MAX: usize = 5_000;
/// `Limit`, where none is given.
const LIMIT_DEFAULT: i64 = 10;
/// Elements of any list, before its own limit is looked at.
pub const ELEMENTS_MAX: usize = 1_000;
/// Bytes of any text.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// For fields that the action has no code of their own for.
const VALUE: &str = "InvalidParameterValue";

const CATEGORIES: &[&str] = &["Video", "Audio", "Image"];
const SOURCE_TYPES: &[&str] =
    &["Record", "Upload", "VideoProcessing", "TrtcRecord", "WebPageRecord", "Unknown"];
const STATUS: &[&str] = &["Normal", "SystemForbidden", "Forbidden"];
const STORAGE_CLASSES: &[&str] = &["STANDARD", "STANDARD_IA", "ARCHIVE", "DEEP_ARCHIVE"];

/// What a list may hold.
struct ListRule {
    elements_max: usize,
    chars_max: usize,
    /// What it may say; empty is anything.
    words: &'static [&'static str],
    /// What is answered otherwise.
    code: &'static str,
}

impl ListRule {
    const fn of(code: &'static str) -> Self {
        ListRule { elements_max: 10, chars_max: 255, words: &[], code }
    }

    const fn chars(self, chars_max: usize) -> Self {
        ListRule { chars_max, ..self }
    }

    const fn elements(self, elements_max: usize) -> Self {
        ListRule { elements_max, ..self }
    }

    const fn words(self, words: &'static [&'static str]) -> Self {
        ListRule { words, ..self }
    }

    fn check(&self, name: &str, values: &[String]) -> Result<(), Refusal> {
        let refuse = |what: String| Err(Refusal::new(self.code, format!("{name} {what}")));
        if values.len() > self.elements_max {
            return refuse(format!("has more than {} values", self.elements_max));
        }
        if values.iter().any(|value| value.chars().count() > self.chars_max) {
            return refuse(format!("has a value of more than {} characters", self.chars_max));
        }
        if !self.words.is_empty() && !values.iter().all(|v| self.words.contains(&v.as_str())) {
            return refuse(format!("may be {}", self.words.join(", ")));
        }
        Ok(())
    }
}

/// A search.
#[derive(Debug, Default)]
pub struct Query {
    /// Only these; empty is all.
    file_ids: Vec<String>,
    /// In lower case; the name has one of them in it.
    names: Vec<String>,
    name_prefixes: Vec<String>,
    streams: Vec<String>,
    domains: Vec<String>,
    paths: Vec<String>,
    class_ids: Vec<String>,
    categories: Vec<String>,
    source_types: Vec<String>,
    /// In lower case.
    media_types: Vec<String>,
    status: Vec<String>,
    storage_classes: Vec<String>,
    created_ms: Option<Range<i64>>,
    expires_ms: Option<Range<i64>>,
    /// Something is asked for that no file of a box has.
    nothing: bool,
    /// The oldest first.
    pub ascending: bool,
    /// Files left out at the front.
    pub offset: usize,
    /// Files in the answer.
    pub limit: usize,
    /// What is told of each.
    pub groups: Groups,
}

impl Query {
    /// Reads the parameters of SearchMedia.
    ///
    /// # Errors
    /// A value is wrong or unknown, with the code that the action has for its field.
    pub fn read(params: &Params) -> Result<Self, Refusal> {
        params.read(Codes::Full, |fields, faults| {
            let mut reader = Reader { fields, faults, wrong: None };
            let query = Query::from_fields(&mut reader);
            match reader.wrong.take() {
                Some(refusal) => Err(refusal),
                None => query.check(),
            }
        })?
    }

    fn from_fields(reader: &mut Reader<'_, '_>) -> Query {
        let of = ListRule::of;
        let mut query = Query {
            file_ids: reader.list("FileIds", of("InvalidParameterValue.FileIds")),
            names: reader.list("Names", of("InvalidParameterValue.Names").chars(100)),
            name_prefixes: reader
                .list("NamePrefixes", of("InvalidParameterValue.NamePrefixes").chars(100)),
            streams: reader.list("StreamIds", of("InvalidParameterValue.StreamIds")),
            domains: reader.list("StreamDomains", of(VALUE)),
            paths: reader.list("StreamPaths", of(VALUE)),
            class_ids: reader.list("ClassIds", of("InvalidParameterValue.ClassIds")),
            categories: reader
                .list("Categories", of("InvalidParameterValue.Categories").words(CATEGORIES)),
            source_types: reader
                .list("SourceTypes", of("InvalidParameterValue.SourceTypes").words(SOURCE_TYPES)),
            media_types: reader.list("MediaTypes", of("InvalidParameterValue.Types")),
            status: reader.list("Status", of(VALUE).words(STATUS)),
            storage_classes: reader.list("StorageClasses", of(VALUE).words(STORAGE_CLASSES)),
            created_ms: reader.range("CreateTime"),
            expires_ms: reader.range("ExpireTime"),
            ..Query::default()
        };
        let regions = of("InvalidParameterValue.StorageRegions").elements(20);
        let tags = of("InvalidParameterValue.Tags").elements(16).chars(32);
        for (name, rule) in [
            ("Descriptions", of(VALUE).chars(100)),
            ("Tags", tags),
            ("StorageRegions", regions),
            ("ReviewResults", of(VALUE)),
            ("TrtcSdkAppIds", of(VALUE)),
            ("TrtcRoomIds", of(VALUE)),
            ("KnowledgeBases", of(VALUE)),
        ] {
            query.nothing |= !reader.list(name, rule).is_empty();
        }
        query.read_obsolete(reader);
        reader.list("Vids", ListRule::of("InvalidParameterValue.Vids").elements(ELEMENTS_MAX));
        reader.fields.integer("SubAppId", 0..=i64::MAX, reader.faults);
        query.ascending = reader.ascending();
        let mut number = |name, default| {
            let read = reader.fields.integer(name, 0..=i64::MAX, reader.faults);
            usize::try_from(read.unwrap_or(default)).unwrap_or(usize::MAX)
        };
        (query.offset, query.limit) = (number("Offset", 0), number("Limit", LIMIT_DEFAULT));
        query.groups = Groups::of(&reader.list("Filters", of(VALUE).elements(ELEMENTS_MAX)));
        query.names.iter_mut().chain(&mut query.media_types).for_each(|text| {
            *text = text.to_lowercase();
        });
        query
    }

    /// Fields that lists have replaced.
    fn read_obsolete(&mut self, reader: &mut Reader<'_, '_>) {
        let of = ListRule::of;
        self.names.extend(reader.one("Text", of("InvalidParameterValue.Text").chars(100)));
        self.streams.extend(reader.one("StreamId", of("InvalidParameterValue.StreamIds")));
        let source = of("InvalidParameterValue.SourceType").words(SOURCE_TYPES);
        self.source_types.extend(reader.one("SourceType", source));
        self.nothing |= reader.one("Vid", of("InvalidParameterValue.Vids")).is_some();
        let start = reader.time("StartTime", "InvalidParameterValue.StartTime");
        let end = reader.time("EndTime", "InvalidParameterValue.EndTime");
        if start.is_some() || end.is_some() {
            let given = self.created_ms.take().unwrap_or(i64::MIN..i64::MAX);
            let from = given.start.max(start.unwrap_or(i64::MIN));
            self.created_ms = Some(from..given.end.min(end.unwrap_or(i64::MAX)));
        }
    }

    fn check(self) -> Result<Self, Refusal> {
        if self.offset.saturating_add(self.limit) > FOUND_MAX {
            let what = format!("Offset and Limit may be {FOUND_MAX} together");
            return Err(Refusal::new("InvalidParameterValue.Offset", what));
        }
        Ok(self)
    }

    /// The only files that can answer, if they are named.
    #[must_use]
    pub fn files(&self) -> Option<Vec<FileId>> {
        let read = |id: &String| id.parse().ok().map(FileId);
        (!self.file_ids.is_empty()).then(|| self.file_ids.iter().filter_map(read).collect())
    }

    /// Whether a file answers.
    #[must_use]
    pub fn matches(&self, row: &MediaRow) -> bool {
        let file = &row.file;
        let within =
            |range: &Option<Range<i64>>, ms| range.as_ref().is_none_or(|range| range.contains(&ms));
        !self.nothing
            && one_of(&self.file_ids, &file.id.to_string())
            && one_of(&self.streams, file.key.stream())
            && one_of(&self.paths, file.key.app())
            && (self.domains.is_empty()
                || self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(file.key.domain())))
            && one_of(&self.class_ids, info::CLASS_ID)
            && one_of(&self.categories, info::category(file))
            && one_of(&self.source_types, info::SOURCE_TYPE)
            && one_of(&self.status, info::STATUS)
            && one_of(&self.storage_classes, info::STORAGE_CLASS)
            && (one_of(&self.media_types, info::container(file.format))
                || one_of(&self.media_types, file.format.name()))
            && within(&self.created_ms, row.created_ms())
            && within(&self.expires_ms, row.expires_ms().unwrap_or(i64::MAX - 1))
            && self.matches_name(row)
    }

    /// The name is put together for each file, so it is looked at last.
    fn matches_name(&self, row: &MediaRow) -> bool {
        if self.names.is_empty() && self.name_prefixes.is_empty() {
            return true;
        }
        let name = row.file.file_name();
        let lower = name.to_lowercase();
        (self.names.is_empty() || self.names.iter().any(|part| lower.contains(part)))
            && (self.name_prefixes.is_empty()
                || self.name_prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }
}

fn one_of(values: &[String], value: &str) -> bool {
    values.is_empty() || values.iter().any(|given| given == value)
}

/// A list of texts, or of numbers, as texts.
pub fn texts(fields: &mut Fields<'_>, name: &str, faults: &mut Faults) -> Vec<String> {
    let mut values = Vec::new();
    for (place, value) in fields.list(name, ELEMENTS_MAX, faults) {
        match value {
            Json::Text(text) if text.len() <= TEXT_BYTES_MAX => values.push(text.clone()),
            Json::Number(number) => values.push(number.to_string()),
            Json::Text(_) => faults.add(place, "is too long"),
            _ => faults.add(place, "is neither a string nor a number"),
        }
    }
    values
}

/// Takes fields; keeps the first that is wrong in a way the action has a code for.
struct Reader<'r, 'a> {
    fields: &'r mut Fields<'a>,
    faults: &'r mut Faults,
    wrong: Option<Refusal>,
}

impl Reader<'_, '_> {
    fn list(&mut self, name: &str, rule: ListRule) -> Vec<String> {
        let values = texts(self.fields, name, self.faults);
        self.note(rule.check(name, &values));
        values
    }

    /// A field with a single value; an empty one is as good as none.
    fn one(&mut self, name: &str, rule: ListRule) -> Option<String> {
        let text = self.fields.text(name, TEXT_BYTES_MAX, self.faults)?.to_owned();
        if text.is_empty() {
            return None;
        }
        self.note(rule.check(name, std::slice::from_ref(&text)));
        Some(text)
    }

    /// At or after `After`, before `Before`, in Unix milliseconds.
    fn range(&mut self, name: &str) -> Option<Range<i64>> {
        let mut fields = self.fields.object(name, self.faults)?;
        let mut reader = Reader { fields: &mut fields, faults: self.faults, wrong: None };
        let (after, before) = (reader.time("After", VALUE), reader.time("Before", VALUE));
        let wrong = reader.wrong;
        fields.finish(self.faults);
        self.note(wrong.map_or(Ok(()), Err));
        Some(after.unwrap_or(i64::MIN)..before.unwrap_or(i64::MAX))
    }

    /// A time in ISO 8601, as Unix milliseconds.
    fn time(&mut self, name: &str, code: &'static str) -> Option<i64> {
        let text = self.fields.text(name, TEXT_BYTES_MAX, self.faults)?;
        if text.is_empty() {
            return None;
        }
        let time = text.parse::<Timestamp>();
        if time.is_err() {
            let what = format!("{name} is not a time in ISO 8601 such as 2026-01-31T08:00:00Z");
            self.note(Err(Refusal::new(code, what)));
        }
        time.ok().map(Timestamp::as_millisecond)
    }

    /// Whether the oldest come first.
    fn ascending(&mut self) -> bool {
        let Some(mut sort) = self.fields.object("Sort", self.faults) else { return false };
        let field = sort.required_text("Field", TEXT_BYTES_MAX, self.faults).map(str::to_owned);
        let order = sort.required_text("Order", TEXT_BYTES_MAX, self.faults).map(str::to_owned);
        sort.finish(self.faults);
        match (field.as_deref(), order.as_deref()) {
            (Some("CreateTime"), Some("Asc")) => true,
            (Some("CreateTime"), Some("Desc")) | (None, _) | (_, None) => false,
            _ => {
                let what = "Sort.Field may be CreateTime, Sort.Order Asc or Desc";
                self.note(Err(Refusal::new("InvalidParameterValue.Sort", what)));
                false
            }
        }
    }

    fn note(&mut self, checked: Result<(), Refusal>) {
        if let (None, Err(refusal)) = (&self.wrong, checked) {
            self.wrong = Some(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::files::FileFormat;
    use crate::domain::ids::RecordingId;
    use crate::domain::stream_key::StreamKey;
    use crate::domain::upload_order::UploadKind;
    use crate::ring::catalog::files::FileRecord;
    use crate::ring::catalog::open::FileState;

    /// 2027-01-15T08:00:00Z.
    const START_MS: i64 = 1_800_000_000_000;

    fn params(value: Value) -> Params {
        let Value::Object(members) = value else { panic!("an object") };
        Params::new(members)
    }

    fn query(value: Value) -> Query {
        Query::read(&params(value)).expect("a search")
    }

    fn code(value: Value) -> &'static str {
        Query::read(&params(value)).expect_err("refused").code
    }

    fn row() -> MediaRow {
        let file = FileRecord {
            id: FileId(7),
            key: StreamKey::new("cams", "live", "Gate").expect("a key"),
            format: FileFormat::Hls,
            recording: RecordingId(1),
            audio_only: false,
            task_id: None,
            state: FileState::Waiting,
            why: String::new(),
            start_ms: START_MS,
            end_ms: START_MS + 60_000,
            trusted: true,
            start_boot_ms: 0,
            boot_id: [0; 16],
            duration_ms: 60_000,
            name_pattern: String::new(),
            name: None,
            size: 1,
            sha256: None,
            url: None,
            tracks: vec!["h264".to_owned(), "aac".to_owned()],
            dropped_tracks: Vec::new(),
            template: String::new(),
            kind: UploadKind::Template,
            urgent: false,
            queue_number: 1,
            attempts: 0,
        };
        MediaRow { file, storage_s: 3_600 }
    }

    #[test]
    fn each_field_is_looked_at() {
        for (yes, no) in [
            (json!({"FileIds": ["8", "7"]}), json!({"FileIds": ["8", "07", "x"]})),
            (json!({"Names": ["gate_2027-01-15"]}), json!({"Names": ["gate_2026"]})),
            (json!({"Names": ["-00_2027"]}), json!({"Names": ["hall", "door"]})),
            (json!({"NamePrefixes": ["x", "Gate_"]}), json!({"NamePrefixes": ["gate_"]})),
            (json!({"Text": "GATE"}), json!({"Text": "hall"})),
            (json!({"StreamIds": ["Gate"]}), json!({"StreamIds": ["Gat"]})),
            (json!({"StreamId": "Gate"}), json!({"StreamId": "gate"})),
            (json!({"StreamDomains": ["CAMS"]}), json!({"StreamDomains": ["cam"]})),
            (json!({"StreamPaths": ["live"]}), json!({"StreamPaths": ["liv"]})),
            (json!({"SourceTypes": ["Upload", "Record"]}), json!({"SourceTypes": ["Upload"]})),
            (json!({"SourceType": "Record"}), json!({"SourceType": "Upload"})),
            (json!({"ClassIds": [1, 0]}), json!({"ClassIds": ["1"]})),
            (json!({"Categories": ["Video"]}), json!({"Categories": ["Audio", "Image"]})),
            (json!({"MediaTypes": ["M3U8"]}), json!({"MediaTypes": ["mp4"]})),
            (json!({"MediaTypes": ["hls"]}), json!({"MediaTypes": ["flv"]})),
            (json!({"Status": ["Normal"]}), json!({"Status": ["Forbidden"]})),
            (json!({"StorageClasses": ["STANDARD"]}), json!({"StorageClasses": ["ARCHIVE"]})),
            (json!({"Vids": ["x"], "SubAppId": "15", "Tags": []}), json!({"Tags": ["x"]})),
            (json!({"Vid": null}), json!({"Vid": "x"})),
            (json!({"Descriptions": []}), json!({"Descriptions": ["gate"]})),
            (json!({"StorageRegions": []}), json!({"StorageRegions": ["ap-chongqing"]})),
            (json!({"ReviewResults": []}), json!({"ReviewResults": ["pass"]})),
            (json!({"TrtcSdkAppIds": []}), json!({"TrtcSdkAppIds": [1]})),
            (json!({"TrtcRoomIds": []}), json!({"TrtcRoomIds": ["1"]})),
            (json!({"KnowledgeBases": []}), json!({"KnowledgeBases": ["k"]})),
        ] {
            assert!(query(yes.clone()).matches(&row()), "{yes}");
            assert!(!query(no.clone()).matches(&row()), "{no}");
            let both = [yes, no].map(|value| value.as_object().cloned().expect("an object"));
            let both: serde_json::Map<String, Value> = both.into_iter().flatten().collect();
            assert!(!query(both.into()).matches(&row()), "fields add up");
        }
    }

    #[test]
    fn ranges_of_time_take_their_start_and_not_their_end() {
        // Made at 08:01:00, kept for an hour.
        for (value, found) in [
            (json!({"CreateTime": {"After": "2027-01-15T08:01:00Z"}}), true),
            (json!({"CreateTime": {"After": "2027-01-15T08:01:01Z"}}), false),
            (json!({"CreateTime": {"Before": "2027-01-15T16:01:01+08:00"}}), true),
            (json!({"CreateTime": {"Before": "2027-01-15T08:01:00Z"}}), false),
            (json!({"ExpireTime": {"After": "2027-01-15T09:01:00Z"}}), true),
            (json!({"ExpireTime": {"Before": "2027-01-15T09:01:00Z"}}), false),
            (json!({"StartTime": "2027-01-15T08:01:00Z"}), true),
            (json!({"EndTime": "2027-01-15T08:01:00Z"}), false),
            (json!({"StartTime": "", "CreateTime": {}}), true),
        ] {
            assert_eq!(query(value.clone()).matches(&row()), found, "{value}");
        }
        let for_ever = MediaRow { storage_s: 0, ..row() };
        let late = json!({"ExpireTime": {"After": "9000-01-01T00:00:00Z"}});
        assert!(query(late.clone()).matches(&for_ever) && !query(late).matches(&row()));
    }

    #[test]
    fn what_is_wrong_has_the_code_of_its_field() {
        let eleven = vec!["x"; 11];
        for (value, expected) in [
            (json!({"FileIds": eleven}), "InvalidParameterValue.FileIds"),
            (json!({"Names": ["x".repeat(101)]}), "InvalidParameterValue.Names"),
            (json!({"NamePrefixes": eleven}), "InvalidParameterValue.NamePrefixes"),
            (json!({"Tags": vec!["x"; 17]}), "InvalidParameterValue.Tags"),
            (json!({"Categories": ["Film"]}), "InvalidParameterValue.Categories"),
            (json!({"SourceTypes": ["record"]}), "InvalidParameterValue.SourceTypes"),
            (json!({"SourceType": "x"}), "InvalidParameterValue.SourceType"),
            (json!({"Status": ["x"]}), "InvalidParameterValue"),
            (json!({"Sort": {"Field": "Size", "Order": "Asc"}}), "InvalidParameterValue.Sort"),
            (json!({"Sort": {"Field": "CreateTime"}}), "MissingParameter"),
            (json!({"StartTime": "yesterday"}), "InvalidParameterValue.StartTime"),
            (json!({"EndTime": "2027-01-15"}), "InvalidParameterValue.EndTime"),
            (json!({"CreateTime": {"After": "x"}}), "InvalidParameterValue"),
            (json!({"CreateTime": {"At": "x"}}), "UnknownParameter"),
            (json!({"Offset": 4_991}), "InvalidParameterValue.Offset"),
            (json!({"Offset": -1}), "InvalidParameterValue"),
            (json!({"Names": "x"}), "InvalidParameterValue"),
            (json!({"Name": ["x"]}), "UnknownParameter"),
        ] {
            assert_eq!(code(value.clone()), expected, "{value}");
        }
        let most = query(json!({"Offset": "4990", "Limit": "10"}));
        assert_eq!((most.offset, most.limit, most.ascending), (4_990, 10, false));
        assert!(query(json!({"Sort": {"Field": "CreateTime", "Order": "Asc"}})).ascending);
    }

    #[test]
    fn every_field_of_the_contract_is_known() {
        let text = include_str!("../../../../tests/data/contracts/vod_api_fields.json");
        let contract: Value = serde_json::from_str(text).expect("JSON");
        let fields = contract["actions"]["SearchMedia"]["request"].as_array().expect("fields");
        for field in fields {
            let name = field["name"].as_str().expect("a name");
            let value = match field["type"].as_str().expect("a type") {
                "string" | "uint64" => json!("1"),
                "TimeRange" => json!({"After": "2027-01-15T08:01:00Z"}),
                "SortBy" => json!({"Field": "CreateTime", "Order": "Desc"}),
                _ => json!(["1"]),
            };
            let read = Query::read(&params(json!({ name: value })));
            let unknown = read.is_err_and(|refusal| refusal.code == "UnknownParameter");
            assert!(!unknown, "{name}");
        }
    }
}
