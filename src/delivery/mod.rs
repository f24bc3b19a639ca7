//! Files out: a durable queue's worker brings waiting files to a target and counts a file as
//! delivered only when the target has proved that it holds the same bytes.

pub mod board;
pub mod callbacks;
mod cause;
pub mod checksum;
pub mod crc64;
pub mod directory;
pub mod error;
mod gate;
pub mod http;
mod multipart;
mod object_store;
pub mod path;
pub mod progress;
pub mod ring_shelf;
pub mod s3;
mod server_clock;
pub mod settings;
pub mod shelf;
mod store_answer;
pub mod target;
pub mod valve;
pub mod vod;
pub mod worker;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use self::directory::DirectoryTarget;
use self::error::DeliveryError;
use self::http::HttpLimits;
use self::s3::S3Target;
use self::settings::TargetSettings;
use self::target::Target;
use self::vod::VodTarget;
use crate::platform::clock::Clock;
use crate::platform::flash::Flash;
use crate::platform::net::Net;

/// The target that the settings name. Nothing is touched or sent yet. `extra_roots` are
/// certificate authorities trusted besides the public ones.
///
/// # Errors
/// The settings cannot work.
pub fn open_target(
    settings: &TargetSettings,
    flash: Arc<dyn Flash>,
    net: Arc<dyn Net>,
    clock: Arc<dyn Clock>,
    extra_roots: &[CertificateDer<'static>],
) -> Result<Arc<dyn Target>, DeliveryError> {
    match settings {
        TargetSettings::Directory { root } => {
            Ok(Arc::new(DirectoryTarget::new(root.clone(), flash)))
        }
        TargetSettings::S3(bucket) => {
            let limits = HttpLimits::default();
            Ok(Arc::new(S3Target::new(bucket, net, clock, limits, extra_roots)?))
        }
        TargetSettings::TencentVod(platform) => {
            let limits = HttpLimits::default();
            Ok(Arc::new(VodTarget::new(platform, net, clock, limits, extra_roots)?))
        }
    }
}
