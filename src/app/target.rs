//! From the configured upload to a target.

use std::sync::Arc;

use tracing::warn;

use crate::app::Platform;
use crate::config::{Target as TargetConfig, UploadConfig};
use crate::delivery::directory::DirectoryTarget;
use crate::delivery::http::HttpLimits;
use crate::delivery::s3::S3Target;
use crate::delivery::settings::S3Settings;
use crate::delivery::target::Target;

/// Builds the target.
///
/// # Errors
/// Why it cannot work, in words.
pub(super) fn build(upload: &UploadConfig, platform: &Platform) -> Result<Arc<dyn Target>, String> {
    if upload.bandwidth.is_some() || !upload.windows.is_empty() {
        warn!("[upload] bandwidth and windows are not applied by this version");
    }
    match &upload.target {
        TargetConfig::Directory { path } => {
            Ok(Arc::new(DirectoryTarget::new(path.clone(), platform.flash.clone())))
        }
        TargetConfig::S3(s3) => {
            let settings = S3Settings {
                endpoint: s3.endpoint.expose().to_owned(),
                bucket: s3.bucket.clone(),
                region: s3.region.clone(),
                access_key_id: s3.access_key_id.clone(),
                secret_access_key: s3.secret_access_key.clone(),
                prefix: s3.prefix.clone(),
            };
            let (net, clock) = (platform.net.clone(), platform.clock.clone());
            let target = S3Target::new(&settings, net, clock, HttpLimits::default(), &[])
                .map_err(|error| error.explain())?;
            Ok(Arc::new(target))
        }
        TargetConfig::TencentVod(_) => {
            Err("target: `tencent-vod` is not supported by this version".to_owned())
        }
    }
}
