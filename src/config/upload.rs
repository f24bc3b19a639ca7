//! `[upload]` and `[callback]`: where files and notifications go.

use std::path::PathBuf;

use crate::config::section::{Reading, Section};
use crate::config::upload_plan::UploadPlanConfig;
use crate::domain::address::Address;
use crate::domain::secret::Secret;

/// Longest name of a bucket, region or key id, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest callback key, in letters and digits.
const CALLBACK_KEY_MAX: usize = 32;

/// The upload as used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadConfig {
    /// Where files go.
    pub target: Target,
    /// When and in which order.
    pub plan: UploadPlanConfig,
}

/// Where files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A folder, such as a USB disk.
    Directory {
        /// The folder.
        path: PathBuf,
    },
    /// A bucket that speaks the S3 protocol.
    S3(S3Config),
    /// The VOD platform.
    TencentVod(TencentVodConfig),
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Config {
    /// Where it is.
    pub endpoint: Address,
    /// Its name.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Who uploads.
    pub access_key_id: String,
    /// What proves it.
    pub secret_access_key: Secret,
    /// Put before each object's name.
    pub prefix: String,
}

/// The VOD platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TencentVodConfig {
    /// Where it is, if not at its public address.
    pub endpoint: Option<Address>,
    /// Where its object storage is, if not at its public address.
    pub storage_endpoint: Option<Address>,
    /// The storage region; `None` lets the platform choose.
    pub region: Option<String>,
    /// The sub-application of files whose template names none.
    pub sub_app_id: Option<u32>,
    /// Who uploads.
    pub access_key_id: String,
    /// What proves it.
    pub secret_access_key: Secret,
}

/// Where events go for which no callback rule is given, and what every event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackConfig {
    /// Where to; `None` where only an account number is given.
    pub url: Option<Address>,
    /// Key of the signature; empty for none.
    pub key: Secret,
    /// Number of the account, as receivers expect it in `appid`; 0 for none.
    pub appid: u32,
}

impl UploadConfig {
    pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        if !section.has("target") {
            section.fault("target", "is missing", reading);
        }
        let name = section.parsed("target", reading, |text| match text {
            "directory" | "s3" | "tencent-vod" => Ok(text.to_owned()),
            _ => Err("is none of `directory`, `s3`, `tencent-vod`".to_owned()),
        });
        let plan = UploadPlanConfig::read(&mut section, reading);
        let target = match name.as_deref()? {
            "directory" => required(&mut section, "path", reading, Section::path)
                .map(|path| Target::Directory { path }),
            "s3" => read_s3(&mut section, reading).map(Target::S3),
            _ => read_tencent_vod(&mut section, reading).map(Target::TencentVod),
        };
        section.finish(reading);
        Some(UploadConfig { target: target?, plan })
    }
}

fn read_s3(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<S3Config> {
    let endpoint = required(section, "endpoint", reading, http_address);
    let bucket = required(section, "bucket", reading, name);
    let region = name(section, "region", reading).unwrap_or_else(|| "us-east-1".to_owned());
    let access_key_id = required(section, "access_key_id", reading, key_id);
    let secret_access_key = required(section, "secret_access_key", reading, Section::secret);
    let prefix = section.text("prefix", reading).unwrap_or("").to_owned();
    Some(S3Config {
        endpoint: endpoint?,
        bucket: bucket?,
        region,
        access_key_id: access_key_id?,
        secret_access_key: secret_access_key?,
        prefix,
    })
}

fn read_tencent_vod(
    section: &mut Section<'_>,
    reading: &mut Reading<'_>,
) -> Option<TencentVodConfig> {
    let endpoint = http_address(section, "endpoint", reading);
    let storage_endpoint = http_address(section, "storage_endpoint", reading);
    let region = name(section, "region", reading);
    let sub_app_id = section.number("sub_app_id", 1..=u32::MAX, reading);
    let access_key_id = required(section, "access_key_id", reading, key_id);
    let secret_access_key = required(section, "secret_access_key", reading, Section::secret);
    Some(TencentVodConfig {
        endpoint,
        storage_endpoint,
        region,
        sub_app_id,
        access_key_id: access_key_id?,
        secret_access_key: secret_access_key?,
    })
}

impl CallbackConfig {
    pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let appid = section.number("appid", 0..=u32::MAX, reading);
        let url = if section.has("url") || appid.is_none() || section.has("key") {
            required(&mut section, "url", reading, http_address)
        } else {
            None
        };
        if url.as_ref().is_some_and(|url| url.credentials().is_some()) {
            let what = "has a user name: credentials do not belong in the address";
            section.fault("url", what, reading);
        }
        let key = section.secret("key", reading).unwrap_or_default();
        let plain = key.expose().bytes().all(|b| b.is_ascii_alphanumeric());
        if key.expose().len() > CALLBACK_KEY_MAX || !plain {
            let what = format!("is not at most {CALLBACK_KEY_MAX} letters and digits");
            section.fault("key", what, reading);
        }
        section.finish(reading);
        Some(CallbackConfig { url, key, appid: appid.unwrap_or(0) })
    }
}

/// Reads a key that must be there.
pub(super) fn required<'a, T>(
    section: &mut Section<'a>,
    key: &str,
    reading: &mut Reading<'_>,
    read: impl FnOnce(&mut Section<'a>, &str, &mut Reading<'_>) -> Option<T>,
) -> Option<T> {
    if !section.has(key) {
        section.fault(key, "is missing", reading);
        return None;
    }
    read(section, key, reading)
}

fn http_address(
    section: &mut Section<'_>,
    key: &str,
    reading: &mut Reading<'_>,
) -> Option<Address> {
    section.parsed(key, reading, |text| {
        Address::parse(text, &["http", "https"]).map_err(|error| error.to_string())
    })
}

fn name(section: &mut Section<'_>, key: &str, reading: &mut Reading<'_>) -> Option<String> {
    section.parsed(key, reading, |text| {
        if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(['/', ' ']) {
            return Err("is not a name".to_owned());
        }
        Ok(text.to_owned())
    })
}

/// May come from a file, like the secret that belongs to it.
fn key_id(section: &mut Section<'_>, key: &str, reading: &mut Reading<'_>) -> Option<String> {
    section.secret(key, reading).map(|id| id.expose().to_owned())
}
