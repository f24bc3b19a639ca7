//! The port of object storage, and how an object is stored and proved: in one request or in
//! parts. An object counts once the store has proved that it holds what was rendered: by length
//! and by the checksum that it tells (CRC-64 where it has one, else an ETag that is an MD5), or,
//! where its checksums mean nothing to us, by reading it back and comparing its SHA-256.

use std::future::Future;

use crate::delivery::checksum::{Checksums, multipart_etag};
use crate::delivery::error::DeliveryError;
use crate::delivery::http::{RequestBody, read_range};
use crate::delivery::multipart::{part_bytes, store_in_parts};
use crate::delivery::progress::Progress;
use crate::delivery::store_answer::etag_is;
use crate::delivery::target::Job;
use crate::domain::limits::MULTIPART_BYTES_MIN;

/// An object to be stored: which of the rendering's, and its key.
pub(super) struct ObjectAt {
    pub(super) index: usize,
    pub(super) key: String,
    pub(super) len: u64,
    pub(super) content_type: &'static str,
}

/// What a store says that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) etag: String,
    /// If the store tells it.
    pub(super) crc64: Option<u64>,
}

/// What a store says of an object that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) len: u64,
    pub(super) etag: String,
    /// If the store tells it.
    pub(super) crc64: Option<u64>,
}

/// A place for objects, each request one method.
pub(super) trait ObjectStore: Sync {
    /// Stores an object in one request.
    fn put(
        &self,
        at: &ObjectAt,
        body: RequestBody,
    ) -> impl Future<Output = Result<Taken, DeliveryError>> + Send;

    /// Begins a multipart upload; its name.
    fn create_upload(
        &self,
        at: &ObjectAt,
    ) -> impl Future<Output = Result<String, DeliveryError>> + Send;

    /// Sends one part; its ETag.
    fn put_part(
        &self,
        at: &ObjectAt,
        upload_id: &str,
        number: u16,
        body: RequestBody,
    ) -> impl Future<Output = Result<String, DeliveryError>> + Send;

    /// Puts the parts together. A store may begin to answer 200 and still fail: only the right
    /// answer counts.
    fn complete_upload(
        &self,
        at: &ObjectAt,
        upload_id: &str,
        etags: &[String],
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send;

    /// Gives an upload up, so that its parts take no room.
    fn abort_upload(
        &self,
        key: &str,
        upload_id: &str,
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send;

    /// Length and checksums of an object; `None` if there is none.
    fn head(
        &self,
        at: &ObjectAt,
    ) -> impl Future<Output = Result<Option<Stored>, DeliveryError>> + Send;

    /// The SHA-256 of an object, read back whole; at most its length is read.
    fn read_back(
        &self,
        at: &ObjectAt,
    ) -> impl Future<Output = Result<String, DeliveryError>> + Send;
}

/// Looks for objects that are there already, the first ones first, and counts them as done if
/// they are what would be sent. To be asked where nothing is known of earlier attempts.
pub(super) async fn find_objects(
    store: &impl ObjectStore,
    job: &Job,
    progress: &mut Progress,
    key: impl Fn(&str) -> Result<String, DeliveryError> + Send,
) -> Result<(), DeliveryError> {
    // An upload in parts knows itself what it has.
    while progress.multipart.is_none()
        && let Some(object) = job.rendering.objects().get(progress.objects_done)
    {
        let index = progress.objects_done;
        let (len, content_type) = (object.len, object.content_type);
        let at = ObjectAt { index, key: key(&object.name)?, len, content_type };
        let stored = match store.head(&at).await {
            // S3 says so of a missing object where the key may not list. If it is about the key or
            // the credentials: the answer to HEAD has no text that tells, the one to sending has.
            Err(DeliveryError::Refused { status: 400..=403, .. }) => break,
            answer => answer?,
        };
        let Some(stored) = stored.filter(|stored| stored.len == len) else { break };
        let part_bytes = if len < MULTIPART_BYTES_MIN { len.max(1) } else { part_bytes(len) };
        let (sums, md5s) = job.checksums(index, progress.file_sum(), part_bytes).await?;
        let etag = match md5s.as_slice() {
            [whole] => Some(whole.clone()),
            parts => multipart_etag(parts.iter().map(String::as_str)),
        };
        match prove_stored(store, stored, &at, etag.as_deref(), &sums).await {
            Ok(()) => {}
            // Something else: it is stored anew.
            Err(DeliveryError::Corrupt(_)) => break,
            Err(error) => return Err(error),
        }
        tracing::info!(key = at.key, "was there already");
        progress.objects_done += 1;
        progress.file_sha256 = sums.file.save();
    }
    let all = job.rendering.objects().len();
    if progress.objects_done > 0 && progress.objects_done < all {
        job.save_progress(progress).await?;
    }
    Ok(())
}

/// Stores the objects that are not there yet, one after the other, and proves each; progress is
/// saved after each but the last. `key` gives where an object lies by its name.
pub(super) async fn store_objects(
    store: &impl ObjectStore,
    job: &Job,
    progress: &mut Progress,
    key: impl Fn(&str) -> Result<String, DeliveryError> + Send,
) -> Result<(), DeliveryError> {
    let count = job.rendering.objects().len();
    while progress.objects_done < count {
        job.meter.check()?;
        let index = progress.objects_done;
        let object = &job.rendering.objects()[index];
        let (len, content_type) = (object.len, object.content_type);
        let at = ObjectAt { index, key: key(&object.name)?, len, content_type };
        job.meter.set(job.bytes_of_first(index));
        let sums = if at.len < MULTIPART_BYTES_MIN {
            store_whole(store, job, progress, &at).await?
        } else {
            store_in_parts(store, job, progress, &at).await?
        };
        progress.objects_done += 1;
        progress.file_sha256 = sums.file.save();
        progress.multipart = None;
        // What comes after the last object is durable itself.
        if progress.objects_done < count {
            job.save_progress(progress).await?;
        }
    }
    Ok(())
}

/// Stores an object in one request and proves that it is there.
async fn store_whole(
    store: &impl ObjectStore,
    job: &Job,
    progress: &Progress,
    at: &ObjectAt,
) -> Result<Checksums, DeliveryError> {
    let sums = Checksums { file: progress.file_sum(), ..Checksums::default() };
    let (body, read) = read_range(job, at.index, 0..at.len, sums);
    let sent = store.put(at, body).await;
    let (taken, mut sums) = read.with_answer(sent).await?;
    let md5 = sums.take_body_md5();
    if let Some(theirs) = taken.crc64.filter(|theirs| *theirs != sums.crc64.0) {
        return Err(other_crc64(theirs, &sums));
    }
    if !etag_is(&taken.etag, &md5) {
        prove(store, at, None, &sums).await?;
    }
    Ok(sums)
}

/// Proves that the store holds an object; `etag` is the one by its MD5s, if that rule holds there.
pub(super) async fn prove(
    store: &impl ObjectStore,
    at: &ObjectAt,
    etag: Option<&str>,
    sums: &Checksums,
) -> Result<(), DeliveryError> {
    match store.head(at).await? {
        Some(stored) => prove_stored(store, stored, at, etag, sums).await,
        None => Err(DeliveryError::Corrupt("there is no such object".to_owned())),
    }
}

/// As [`prove`], of what the store has said of the object.
async fn prove_stored(
    store: &impl ObjectStore,
    stored: Stored,
    at: &ObjectAt,
    etag: Option<&str>,
    sums: &Checksums,
) -> Result<(), DeliveryError> {
    if stored.len != at.len {
        let what = format!("{} bytes instead of {}", stored.len, at.len);
        return Err(DeliveryError::Corrupt(what));
    }
    match stored.crc64 {
        Some(theirs) if theirs == sums.crc64.0 => return Ok(()),
        Some(theirs) => return Err(other_crc64(theirs, sums)),
        None if etag.is_some_and(|etag| etag_is(&stored.etag, etag)) => return Ok(()),
        None => {}
    }
    let (theirs, sent) = (store.read_back(at).await?, sums.object.hex());
    if theirs == sent {
        return Ok(());
    }
    Err(DeliveryError::Corrupt(format!("SHA-256 {theirs} instead of {sent}")))
}

fn other_crc64(theirs: u64, sums: &Checksums) -> DeliveryError {
    DeliveryError::Corrupt(format!("CRC-64 {theirs} instead of {}", sums.crc64.0))
}
