//! The three actions of an upload: open a session, commit it, and look for what an earlier commit
//! made whose answer was lost.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::delivery::error::DeliveryError;
use crate::delivery::shelf::DeliveryPlan;
use crate::delivery::vod::api::{VodApi, text};
use crate::delivery::vod::session::{Certificate, VodSession};
use crate::domain::files::FileFormat;
use crate::domain::secret::Secret;

/// Longest name that can be searched for, in characters.
const PREFIX_CHARS_MAX: usize = 100;
/// Media of one page of a search.
pub(super) const PAGE: u64 = 100;
/// The platform shows no more of what a search finds.
const FOUND_MAX: u64 = 5_000;

/// A file at the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Media {
    pub(super) file_id: String,
    pub(super) url: String,
}

/// What a page of a search has.
#[derive(Debug)]
pub(super) enum Found {
    /// The file.
    Media(Media),
    /// Not the file; the next page begins there.
    More(u64),
    /// Not the file, and no page comes after it.
    Nothing,
}

impl VodApi {
    /// Opens a session for a file.
    pub(super) async fn apply_upload(
        &self,
        plan: &DeliveryPlan,
        storage_region: Option<&str>,
        sub_app_id: Option<i64>,
    ) -> Result<VodSession, DeliveryError> {
        let terms = &plan.terms;
        let mut asked = Map::new();
        let mut ask = |name: &str, value: Value| asked.insert(name.to_owned(), value);
        ask("MediaType", json!(media_type(plan.format)));
        ask("MediaName", json!(terms.name));
        ask("SourceContext", json!(identity(plan)));
        if let Some(sub_app_id) = sub_app_id {
            ask("SubAppId", json!(sub_app_id));
        }
        let expires = terms.kept_until(self.clock.now());
        if let Some(until) = expires.and_then(|at| Timestamp::from_millisecond(at.0).ok()) {
            ask("ExpireTime", json!(until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        }
        if !terms.procedure.is_empty() {
            ask("Procedure", json!(terms.procedure));
        }
        if terms.class_id != 0 {
            ask("ClassId", json!(terms.class_id));
        }
        if let Some(region) = storage_region {
            ask("StorageRegion", json!(region));
        }
        let answer = self.call("ApplyUpload", &Value::Object(asked)).await?;
        VodSession::open(
            text(&answer, "VodSessionKey")?,
            (text(&answer, "StorageBucket")?, text(&answer, "StorageRegion")?),
            text(&answer, "MediaStoragePath")?,
            certificate(&answer["TempCertificate"])?,
        )
    }

    /// Makes what was stored in a session a file of the platform.
    pub(super) async fn commit_upload(
        &self,
        session: &VodSession,
        sub_app_id: Option<i64>,
    ) -> Result<Media, DeliveryError> {
        let mut asked = json!({"VodSessionKey": session.key.expose()});
        if let Some(sub_app_id) = sub_app_id {
            asked["SubAppId"] = json!(sub_app_id);
        }
        let answer = self.call("CommitUpload", &asked).await?;
        Ok(Media {
            file_id: text(&answer, "FileId")?.to_owned(),
            url: text(&answer, "MediaUrl")?.to_owned(),
        })
    }

    /// Looks for a file that was committed before among [`PAGE`] media of its name from `offset` on,
    /// the newest first: the platform cannot search for its identity.
    pub(super) async fn find(
        &self,
        plan: &DeliveryPlan,
        sub_app_id: Option<i64>,
        offset: u64,
    ) -> Result<Found, DeliveryError> {
        let prefix: String = plan.terms.name.chars().take(PREFIX_CHARS_MAX).collect();
        let mut asked = json!({
            "NamePrefixes": [prefix], "Offset": offset, "Limit": PAGE, "Filters": ["basicInfo"],
            "Sort": {"Field": "CreateTime", "Order": "Desc"}});
        if let Some(sub_app_id) = sub_app_id {
            asked["SubAppId"] = json!(sub_app_id);
        }
        let answer = self.call("SearchMedia", &asked).await?;
        let page = answer["MediaInfoSet"].as_array().map_or(&[][..], Vec::as_slice);
        let wanted = identity(plan);
        let is_it = |media: &&Value| {
            media["BasicInfo"]["SourceInfo"]["SourceContext"].as_str() == Some(&wanted)
        };
        if let Some(found) = page.iter().find(is_it) {
            let file_id = text(found, "FileId")?.to_owned();
            let url = text(&found["BasicInfo"], "MediaUrl")?.to_owned();
            return Ok(Found::Media(Media { file_id, url }));
        }
        let (next, total) = (offset + PAGE, answer["TotalCount"].as_u64().unwrap_or(0));
        let is_last = page.is_empty() || next >= total || next + PAGE > FOUND_MAX;
        Ok(if is_last { Found::Nothing } else { Found::More(next) })
    }
}

/// The identity of a file at the platform (SourceContext): the same at every attempt.
fn identity(plan: &DeliveryPlan) -> String {
    format!("edgerec-file:{}", plan.file_id)
}

fn media_type(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Flv => "flv",
        FileFormat::Hls => "m3u8",
        FileFormat::Mp4 => "mp4",
        FileFormat::Aac => "aac",
    }
}

/// Temporary credentials; `None`: there are none, the account's own are meant.
fn certificate(told: &Value) -> Result<Option<Certificate>, DeliveryError> {
    if told.is_null() {
        return Ok(None);
    }
    let expires_s = told["ExpiredTime"]
        .as_i64()
        .ok_or_else(|| DeliveryError::NoSense("credentials without an end".to_owned()))?;
    Ok(Some(Certificate {
        secret_id: text(told, "SecretId")?.to_owned(),
        secret_key: Secret::new(text(told, "SecretKey")?),
        token: Secret::new(text(told, "Token")?),
        expires_s,
    }))
}
