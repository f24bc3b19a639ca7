//! From the configured upload to a target.

use std::sync::Arc;

use crate::app::Platform;
use crate::config::{Target as TargetConfig, UploadConfig};
use crate::delivery::open_target;
use crate::delivery::settings::{S3Settings, TargetSettings, VodSettings};
use crate::delivery::target::Target;
use crate::domain::address::Address;

/// Builds the target.
///
/// # Errors
/// Why it cannot work, in words.
pub(super) fn build(upload: &UploadConfig, platform: &Platform) -> Result<Arc<dyn Target>, String> {
    let settings = match &upload.target {
        TargetConfig::Directory { path } => TargetSettings::Directory { root: path.clone() },
        TargetConfig::S3(s3) => TargetSettings::S3(S3Settings {
            endpoint: plain(&s3.endpoint)?,
            bucket: s3.bucket.clone(),
            region: s3.region.clone(),
            access_key_id: s3.access_key_id.clone(),
            secret_access_key: s3.secret_access_key.clone(),
            prefix: s3.prefix.clone(),
        }),
        TargetConfig::TencentVod(vod) => TargetSettings::TencentVod(VodSettings {
            endpoint: vod.endpoint.as_ref().map(plain).transpose()?,
            storage_endpoint: vod.storage_endpoint.as_ref().map(plain).transpose()?,
            storage_region: vod.region.clone(),
            sub_app_id: vod.sub_app_id.map(i64::from),
            secret_id: vod.access_key_id.clone(),
            secret_key: vod.secret_access_key.clone(),
        }),
    };
    let Platform { clock, flash, net } = platform.clone();
    open_target(&settings, flash, net, clock, &[]).map_err(|error| error.explain())
}

/// An address as text.
///
/// # Errors
/// It carries credentials.
fn plain(address: &Address) -> Result<String, String> {
    if address.credentials().is_some() {
        return Err("endpoint: user and password do not belong in the address".to_owned());
    }
    Ok(address.without_credentials().to_string())
}
