//! Multipart uploads that go on where they stood.
//!
//! Order of steps: create, save its name; send a part, save its ETag and the checksums; complete;
//! prove. A restart at any point sends at most the part again that was on its way. Where the
//! answer to the completion was lost, the store no longer knows the upload: then the object
//! itself tells whether it is done. A store that forgot the upload makes it start over under the
//! same key.

use std::sync::Arc;

use crate::delivery::checksum::{Checksums, RunningSha256, multipart_etag};
use crate::delivery::crc64::RunningCrc64;
use crate::delivery::error::DeliveryError;
use crate::delivery::http::read_range;
use crate::delivery::object_store::{ObjectAt, ObjectStore, prove};
use crate::delivery::progress::{MultipartProgress, Progress};
use crate::delivery::store_answer::{etag_is, upload_is_gone};
use crate::delivery::target::Job;

/// Bytes of a part, unless that makes too many.
const PART_BYTES: u64 = 8 << 20;
/// Parts that an upload may have.
const PARTS_MAX: u64 = 10_000;
/// Larger parts are whole multiples of this, in bytes.
const PART_STEP_BYTES: u64 = 1 << 20;

/// Stores an object in parts and proves that it is there.
pub(super) async fn store_in_parts(
    store: &impl ObjectStore,
    job: &Job,
    progress: &mut Progress,
    at: &ObjectAt,
) -> Result<Checksums, DeliveryError> {
    drop_unusable(store, job, progress, at).await?;
    if let Some(sums) = finished_before(store, progress, at).await? {
        return Ok(sums);
    }
    match send_and_complete(store, job, progress, at).await {
        Err(error) if upload_is_gone(&error) => {
            tracing::info!(key = at.key, "upload is gone at the store, starting over");
            forget(job, progress).await?;
            send_and_complete(store, job, progress, at).await
        }
        Err(error @ DeliveryError::Corrupt(_)) => {
            forget(job, progress).await?;
            Err(error)
        }
        result => result,
    }
}

/// Gives up an upload that was begun for other bytes than the object has now.
async fn drop_unusable(
    store: &impl ObjectStore,
    job: &Job,
    progress: &mut Progress,
    at: &ObjectAt,
) -> Result<(), DeliveryError> {
    let Some(state) = &progress.multipart else { return Ok(()) };
    if fits(state, at) && last_part_is_the_same(job, state, at).await? {
        return Ok(());
    }
    tracing::warn!(key = at.key, "file changed since its upload began, starting over");
    let abandoned = state.upload_id.clone();
    forget(job, progress).await?;
    if let Err(error) = store.abort_upload(&at.key, &abandoned).await {
        tracing::info!(key = at.key, why = error.explain(), "old upload not given up");
    }
    Ok(())
}

/// Renders the last part that the store has once more and compares.
async fn last_part_is_the_same(
    job: &Job,
    state: &MultipartProgress,
    at: &ObjectAt,
) -> Result<bool, DeliveryError> {
    let Some(last) = state.etags.len().checked_sub(1) else { return Ok(true) };
    let range = part_range(last as u64, state.part_bytes, at.len);
    let rendering = Arc::clone(&job.rendering);
    let (index, expected) = (at.index, state.last_part_md5.clone());
    let same = tokio::task::spawn_blocking(move || {
        let mut sums = Checksums::default();
        let mut buf = vec![0; 64 << 10];
        let mut offset = range.start;
        while offset < range.end {
            let len = usize::try_from(range.end - offset).map_or(buf.len(), |n| n.min(buf.len()));
            rendering.read_at(index, offset, &mut buf[..len])?;
            sums.update(&buf[..len]);
            offset += len as u64;
        }
        Ok(sums.take_body_md5() == expected)
    });
    same.await.map_err(|_| DeliveryError::Cancelled)?.map_err(DeliveryError::Render)
}

/// Whether an earlier attempt got as far as the completion without hearing the answer: then
/// the object may be there.
async fn finished_before(
    store: &impl ObjectStore,
    progress: &Progress,
    at: &ObjectAt,
) -> Result<Option<Checksums>, DeliveryError> {
    let Some(state) = &progress.multipart else { return Ok(None) };
    if (state.etags.len() as u64) < part_count(state.part_bytes, at.len) {
        return Ok(None);
    }
    let sums = sums_of(state);
    match prove(store, at, whole_etag(state).as_deref(), &sums).await {
        Ok(()) => Ok(Some(sums)),
        // Another object, or none: the parts are still to be put together.
        Err(DeliveryError::Corrupt(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn send_and_complete(
    store: &impl ObjectStore,
    job: &Job,
    progress: &mut Progress,
    at: &ObjectAt,
) -> Result<Checksums, DeliveryError> {
    let mut state = match progress.multipart.take() {
        Some(state) => state,
        None => {
            let upload_id = store.create_upload(at).await?;
            begin(upload_id, at.len, progress)
        }
    };
    let count = part_count(state.part_bytes, at.len);
    let mut sums = sums_of(&state);
    // Saved before the first part, so that a restart finds the upload again.
    save(job, progress, &state).await?;
    let done_before = job.bytes_of_first(at.index);
    while (state.etags.len() as u64) < count {
        job.meter.check()?;
        let sent = state.etags.len() as u64 * state.part_bytes;
        job.meter.set(done_before + sent);
        sums = send_part(store, job, &mut state, sums, at).await?;
        save(job, progress, &state).await?;
    }
    store.complete_upload(at, &state.upload_id, &state.etags).await?;
    prove(store, at, whole_etag(&state).as_deref(), &sums).await?;
    Ok(sums)
}

/// Sends the next part. A part that the store got wrong is sent once more; if its ETag is
/// then wrong again, its ETags are not MD5s.
async fn send_part(
    store: &impl ObjectStore,
    job: &Job,
    state: &mut MultipartProgress,
    before: Checksums,
    at: &ObjectAt,
) -> Result<Checksums, DeliveryError> {
    let part = state.etags.len() as u64;
    let number = u16::try_from(part + 1).expect("at most 10,000 parts");
    let range = part_range(part, state.part_bytes, at.len);
    let mut second_try = false;
    loop {
        let (body, read) = read_range(job, at.index, range.clone(), before.clone());
        let sent = store.put_part(at, &state.upload_id, number, body).await;
        let (etag, mut sums) = read.with_answer(sent).await?;
        let md5 = sums.take_body_md5();
        if !state.etags_opaque && !etag_is(&etag, &md5) {
            if !second_try {
                tracing::warn!(key = at.key, number, "part is not what was sent, once more");
                second_try = true;
                continue;
            }
            state.etags_opaque = true;
        }
        state.etags.push(etag);
        state.last_part_md5 = md5;
        state.file_sha256 = sums.file.save();
        state.object_sha256 = sums.object.save();
        state.object_crc64 = sums.crc64.0;
        return Ok(sums);
    }
}

/// The ETag that the whole object has if ETags are MD5s.
fn whole_etag(state: &MultipartProgress) -> Option<String> {
    let md5s = state.etags.iter().map(|etag| etag.trim_matches('"'));
    multipart_etag(md5s).filter(|_| !state.etags_opaque)
}

/// Whether saved progress can be meant for an object of this length.
fn fits(state: &MultipartProgress, at: &ObjectAt) -> bool {
    state.object_bytes == at.len
        && state.part_bytes == part_bytes(at.len)
        && state.etags.len() as u64 <= part_count(state.part_bytes, at.len)
        && RunningSha256::restore(&state.file_sha256).is_some()
        && RunningSha256::restore(&state.object_sha256).is_some()
}

/// A new upload.
fn begin(upload_id: String, object_bytes: u64, progress: &Progress) -> MultipartProgress {
    MultipartProgress {
        upload_id,
        object_bytes,
        part_bytes: part_bytes(object_bytes),
        etags: Vec::new(),
        last_part_md5: String::new(),
        etags_opaque: false,
        file_sha256: progress.file_sha256.clone(),
        object_sha256: RunningSha256::default().save(),
        object_crc64: RunningCrc64::default().0,
    }
}

async fn save(
    job: &Job,
    progress: &mut Progress,
    state: &MultipartProgress,
) -> Result<(), DeliveryError> {
    progress.multipart = Some(state.clone());
    job.save_progress(progress).await
}

async fn forget(job: &Job, progress: &mut Progress) -> Result<(), DeliveryError> {
    progress.multipart = None;
    job.save_progress(progress).await
}

/// The checksums up to the last part that the store has.
fn sums_of(state: &MultipartProgress) -> Checksums {
    Checksums {
        file: RunningSha256::restore(&state.file_sha256).unwrap_or_default(),
        object: RunningSha256::restore(&state.object_sha256).unwrap_or_default(),
        crc64: RunningCrc64(state.object_crc64),
        ..Checksums::default()
    }
}

/// Bytes of every part but the last of an object with `len` bytes.
pub(super) fn part_bytes(len: u64) -> u64 {
    let smallest = len.div_ceil(PARTS_MAX);
    PART_BYTES.max(smallest.next_multiple_of(PART_STEP_BYTES))
}

/// Parts of an object with `len` bytes.
fn part_count(part_bytes: u64, len: u64) -> u64 {
    len.div_ceil(part_bytes)
}

/// The bytes of the part `part`, counted from 0.
fn part_range(part: u64, part_bytes: u64, len: u64) -> std::ops::Range<u64> {
    let start = (part * part_bytes).min(len);
    start..(start + part_bytes).min(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_8_mib_until_there_would_be_too_many() {
        assert_eq!(part_bytes(40 << 20), 8 << 20);
        assert_eq!(part_bytes(80_000 << 20), 8 << 20);
        assert_eq!(part_bytes((80_000 << 20) + 1), 9 << 20);
        assert_eq!(part_count(8 << 20, 40 << 20), 5);
    }

    proptest! {
        #[test]
        fn parts_cover_the_object_without_gap(len in 1u64..(5 << 40)) {
            let bytes = part_bytes(len);
            let count = part_count(bytes, len);
            prop_assert!(count <= PARTS_MAX);
            prop_assert_eq!(part_range(count - 1, bytes, len).end, len);
            prop_assert!(!part_range(count - 1, bytes, len).is_empty());
            prop_assert_eq!(part_range(1, bytes, len).start, bytes.min(len));
        }
    }
}
