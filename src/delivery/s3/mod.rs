//! The target `s3`: a bucket behind the S3 protocol.
//!
//! Objects are stored one by one, the playlist of an HLS file last. Below 16 MiB an object is one
//! PUT; larger ones are multipart uploads whose progress is saved after each part. An object
//! counts once the store has proved that it holds what was rendered: its ETag is the MD5 we
//! computed while sending (S3's rule for plain objects, and for multipart ones the MD5 of MD5s);
//! where a store has other ETags (encryption with its own keys), the object is read back and its
//! SHA-256 compared.

mod answer;
mod multipart;
mod signer;
mod store;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use self::answer::etag_is;
use self::signer::Signer;
use self::store::Store;
use crate::delivery::checksum::Checksums;
use crate::delivery::error::DeliveryError;
use crate::delivery::http::{HttpClient, HttpLimits, read_range};
use crate::delivery::progress::Progress;
use crate::delivery::settings::S3Settings;
use crate::delivery::shelf::Receipt;
use crate::delivery::target::{DeliveryFuture, Job, Target};
use crate::platform::clock::Clock;
use crate::platform::net::Net;

/// From this size on an object is sent in parts.
const MULTIPART_BYTES_MIN: u64 = 16 << 20;

/// A bucket.
pub struct S3Target {
    name: String,
    prefix: String,
    store: Store,
}

/// An object to be stored: which of the rendering's, and its key.
struct ObjectAt {
    index: usize,
    key: String,
    len: u64,
    content_type: &'static str,
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
        let count = job.rendering.objects().len();
        while progress.objects_done < count {
            let index = progress.objects_done;
            let object = &job.rendering.objects()[index];
            let key = self.key(job, &object.name)?;
            let content_type = object.content_type;
            let at = ObjectAt { index, key, len: object.len, content_type };
            job.meter.set(job.bytes_of_first(index));
            let sums = if at.len < MULTIPART_BYTES_MIN {
                self.store_whole(job, &progress, &at).await?
            } else {
                self.store_in_parts(job, &mut progress, &at).await?
            };
            progress.objects_done += 1;
            progress.file_sha256 = sums.file.save();
            progress.multipart = None;
            // What comes after the last object is the receipt, which is durable itself.
            if progress.objects_done < count {
                job.save_progress(&progress).await?;
            }
        }
        let last_name = job.rendering.objects().last().map_or("", |object| &object.name);
        Ok(Receipt {
            url: self.store.public_url(&self.key(job, last_name)?),
            size: job.rendering.total_len(),
            sha256: progress.file_sum().hex(),
        })
    }

    /// Stores an object in one request and proves that it is there.
    async fn store_whole(
        &self,
        job: &Job,
        progress: &Progress,
        at: &ObjectAt,
    ) -> Result<Checksums, DeliveryError> {
        let sums = Checksums { file: progress.file_sum(), ..Checksums::default() };
        let meter = Arc::clone(&job.meter);
        let (body, read) = read_range(Arc::clone(&job.rendering), at.index, 0..at.len, sums, meter);
        let sent = self.store.put(&at.key, at.content_type, body).await;
        let (etag, mut sums) = read.with_answer(sent).await?;
        if !etag_is(&etag, &sums.take_body_md5()) {
            self.compare_read_back(at, &sums).await?;
        }
        Ok(sums)
    }

    /// Reads an object back and compares its SHA-256.
    async fn compare_read_back(
        &self,
        at: &ObjectAt,
        sums: &Checksums,
    ) -> Result<(), DeliveryError> {
        let stored = self.store.read_back(&at.key, at.len).await?;
        let sent = sums.object.hex();
        if stored == sent {
            return Ok(());
        }
        Err(DeliveryError::Corrupt(format!("SHA-256 {stored} instead of {sent}")))
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
