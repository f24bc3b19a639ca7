//! The target `s3`: a bucket behind the S3 protocol.
//!
//! Objects are stored one by one, the playlist of an HLS file last. Below 16 MiB an object is one
//! PUT; larger ones are multipart uploads whose progress is saved after each part. Proof is an ETag
//! that is the MD5 we computed while sending (S3's rule for plain objects, and for multipart ones
//! the MD5 of MD5s); where a store has other ETags (encryption with its own keys), the object is
//! read back.

mod signer;
mod store;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use self::signer::Signer;
use self::store::Store;
use crate::delivery::error::DeliveryError;
use crate::delivery::http::{HttpClient, HttpLimits};
use crate::delivery::object_store::{find_objects, store_objects};
use crate::delivery::settings::S3Settings;
use crate::delivery::shelf::Receipt;
use crate::delivery::target::{DeliveryFuture, Job, Target};
use crate::platform::clock::Clock;
use crate::platform::net::Net;

/// A bucket.
pub struct S3Target {
    name: String,
    prefix: String,
    store: Store,
}

impl S3Target {
    /// A target for these settings. Nothing is sent yet.
    ///
    /// # Errors
    /// The settings cannot work.
    pub fn new(
        settings: &S3Settings,
        net: Arc<dyn Net>,
        clock: Arc<dyn Clock>,
        limits: HttpLimits,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, DeliveryError> {
        let prefix = settings.prefix.trim_matches('/').to_owned();
        if prefix.split('/').any(|part| part == "." || part == ".." || part.contains('\0')) {
            return Err(DeliveryError::Settings("the prefix has a part `.` or `..`".to_owned()));
        }
        let store = Store {
            http: HttpClient::new(net, limits, extra_roots)?,
            signer: Signer::new(settings, clock)?,
        };
        let name = format!("s3 {}", store.public_url(&prefix));
        Ok(S3Target { name, prefix, store })
    }

    /// The key of one object of a file.
    fn key(&self, job: &Job, object_name: &str) -> Result<String, DeliveryError> {
        let path = job.plan.object_path.object(object_name)?;
        Ok(if self.prefix.is_empty() { path } else { format!("{}/{path}", self.prefix) })
    }

    async fn deliver_file(&self, job: &Job) -> Result<Receipt, DeliveryError> {
        let mut progress = job.load_progress(&self.name).await?;
        if job.doubtful || (job.plan.maybe_there && progress.is_fresh()) {
            find_objects(&self.store, job, &mut progress, |name| self.key(job, name)).await?;
        }
        store_objects(&self.store, job, &mut progress, |name| self.key(job, name)).await?;
        let last_name = job.rendering.objects().last().map_or("", |object| &object.name);
        Ok(Receipt {
            url: self.store.public_url(&self.key(job, last_name)?),
            size: job.rendering.total_len(),
            sha256: progress.file_sum().hex(),
            target_file_id: None,
        })
    }
}

impl Target for S3Target {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, job: &'a Job) -> DeliveryFuture<'a> {
        Box::pin(self.deliver_file(job))
    }
}
