//! From the configured upload to a target.

use std::sync::Arc;

use tracing::warn;

use crate::app::Platform;
use crate::config::{Target as TargetConfig, UploadConfig};
use crate::delivery::open_target;
use crate::delivery::settings::{S3Settings, TargetSettings};
use crate::delivery::target::Target;

/// Builds the target.
///
/// # Errors
/// Why it cannot work, in words.
pub(super) fn build(upload: &UploadConfig, platform: &Platform) -> Result<Arc<dyn Target>, String> {
    if upload.bandwidth.is_some() || !upload.windows.is_empty() {
        warn!("[upload] bandwidth and windows are not applied by this version");
    }
    let settings = match &upload.target {
        TargetConfig::Directory { path } => TargetSettings::Directory { root: path.clone() },
        TargetConfig::S3(s3) if s3.endpoint.credentials().is_some() => {
            return Err("endpoint: user and password do not belong in the address".to_owned());
        }
        TargetConfig::S3(s3) => TargetSettings::S3(S3Settings {
            endpoint: s3.endpoint.without_credentials().to_string(),
            bucket: s3.bucket.clone(),
            region: s3.region.clone(),
            access_key_id: s3.access_key_id.clone(),
            secret_access_key: s3.secret_access_key.clone(),
            prefix: s3.prefix.clone(),
        }),
        TargetConfig::TencentVod(_) => {
            return Err("target: `tencent-vod` is not supported by this version".to_owned());
        }
    };
    let Platform { clock, flash, net } = platform.clone();
    open_target(&settings, flash, net, clock, &[]).map_err(|error| error.explain())
}
