//! The port of a target: a place that takes files and proves that it has them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::delivery::checksum::{Checksums, RunningSha256};
use crate::delivery::error::DeliveryError;
use crate::delivery::progress::Progress;
use crate::delivery::shelf::{DeliveryPlan, Receipt, Shelf, ShelfError};
use crate::delivery::valve::Valve;
use crate::domain::ids::FileId;
use crate::domain::rate::Rate;
use crate::media::render::Rendering;

/// The work of a target on one file.
pub type DeliveryFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Receipt, DeliveryError>> + Send + 'a>>;

/// A place that takes files.
pub trait Target: Send + Sync {
    /// What people call it, without secrets; also tells one target from another.
    fn name(&self) -> &str;
    /// Brings a file to the target and proves that it is there, going on where earlier attempts
    /// stood. Dropping the future at any point is safe.
    fn deliver<'a>(&'a self, job: &'a Job) -> DeliveryFuture<'a>;
}

/// Bytes of a file that have gone out, for those who watch; and their word that it is to stop.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    rate: Mutex<Rate>,
    total: AtomicU64,
    held_up: AtomicBool,
    first_kept: OnceLock<u64>,
    kept: AtomicU64,
    position: AtomicU64,
    moved: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Meter {
            began: Instant::now(),
            rate: Mutex::default(),
            total: AtomicU64::new(0),
            held_up: AtomicBool::new(false),
            first_kept: OnceLock::new(),
            kept: AtomicU64::new(0),
            position: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }
}

impl Meter {
    /// The target has kept so many bytes of the file.
    pub fn set(&self, bytes: u64) {
        self.first_kept.get_or_init(|| bytes);
        self.kept.store(bytes, Ordering::Relaxed);
        self.position.store(bytes, Ordering::Relaxed);
    }

    /// The transfer is to stop before its next part or object.
    pub(super) fn hold_up(&self) {
        self.held_up.store(true, Ordering::Relaxed);
    }

    /// Whether another part or object may set out.
    ///
    /// # Errors
    /// [`DeliveryError::HeldUp`]: the transfer goes on another time.
    pub(super) fn check(&self) -> Result<(), DeliveryError> {
        if self.held_up.load(Ordering::Relaxed) { Err(DeliveryError::HeldUp) } else { Ok(()) }
    }

    /// Whether the target keeps more than when this attempt began.
    #[must_use]
    pub fn advanced(&self) -> bool {
        self.first_kept.get().is_some_and(|first| self.kept.load(Ordering::Relaxed) > *first)
    }

    /// So many more bytes went out.
    pub fn add(&self, bytes: u64) {
        self.position.fetch_add(bytes, Ordering::Relaxed);
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.rate().add(self.began.elapsed().as_secs(), bytes);
    }

    /// Bytes a second of late; `None` before there is a whole second to go by.
    #[must_use]
    pub fn bytes_per_s(&self) -> Option<u64> {
        self.rate().per_second(self.began.elapsed().as_secs())
    }

    /// Bytes of the file, all objects together; 0 until that is known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the file is out, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Bytes that went out in this attempt.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// One file to bring to a target.
pub struct Job {
    /// What and where to.
    pub plan: DeliveryPlan,
    /// The file's bytes.
    pub rendering: Arc<dyn Rendering>,
    /// Counts what goes out.
    pub meter: Arc<Meter>,
    /// What it goes out through, together with all others.
    pub valve: Arc<Valve>,
    /// An earlier attempt failed after some of it went out: what it was about may have arrived.
    pub doubtful: bool,
    shelf: Arc<dyn Shelf>,
}

impl Job {
    /// A job whose progress is kept on `shelf`.
    #[must_use]
    pub fn new(plan: DeliveryPlan, rendering: Arc<dyn Rendering>, shelf: Arc<dyn Shelf>) -> Self {
        Job {
            plan,
            rendering,
            meter: Arc::default(),
            valve: Arc::new(Valve::new(None)),
            doubtful: false,
            shelf,
        }
    }

    /// Fetches plan and rendering of a file.
    ///
    /// # Errors
    /// The shelf fails.
    pub async fn open(
        file: FileId,
        (meter, valve, doubtful): (Arc<Meter>, Arc<Valve>, bool),
        shelf: Arc<dyn Shelf>,
    ) -> Result<Self, DeliveryError> {
        let opener = Arc::clone(&shelf);
        let (plan, rendering) =
            blocking(move || Ok((opener.plan(file)?, opener.open(file)?))).await?;
        meter.total.store(rendering.total_len(), Ordering::Relaxed);
        Ok(Job { plan, rendering: rendering.into(), meter, valve, doubtful, shelf })
    }

    /// Progress at the target `target_name`, from an earlier attempt or from the beginning.
    ///
    /// # Errors
    /// The shelf fails.
    pub async fn load_progress(&self, target_name: &str) -> Result<Progress, DeliveryError> {
        let (shelf, file) = (Arc::clone(&self.shelf), self.plan.file_id);
        let place = format!("{target_name} {}", self.plan.object_path);
        let saved = blocking(move || shelf.load_progress(file)).await?;
        let progress = saved.unwrap_or_else(|| Progress::begin(&place));
        Ok(progress.or_begin(&place, self.rendering.objects().len()))
    }

    /// Saves progress; durable when it returns.
    ///
    /// # Errors
    /// The shelf fails.
    pub async fn save_progress(&self, progress: &Progress) -> Result<(), DeliveryError> {
        let (shelf, file, progress) =
            (Arc::clone(&self.shelf), self.plan.file_id, progress.clone());
        blocking(move || shelf.save_progress(file, &progress)).await
    }

    /// The checksums over all bytes of an object, beginning with `file` over those before it.
    /// `each_body_bytes` are the bytes of a part; gives also the MD5 of each.
    ///
    /// # Errors
    /// It cannot be rendered.
    pub async fn checksums(
        &self,
        index: usize,
        file: RunningSha256,
        each_body_bytes: u64,
    ) -> Result<(Checksums, Vec<String>), DeliveryError> {
        let rendering = Arc::clone(&self.rendering);
        let given_up = CancellationToken::new();
        let _guard = given_up.clone().drop_guard();
        let read = tokio::task::spawn_blocking(move || {
            let len = rendering.objects()[index].len;
            let mut sums = Checksums { file, ..Checksums::default() };
            let mut md5s = Vec::new();
            let mut buf = vec![0; 64 << 10];
            let mut offset = 0;
            while offset < len && !given_up.is_cancelled() {
                let body_left = each_body_bytes - offset % each_body_bytes;
                let left = body_left.min(len - offset);
                let piece = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
                rendering.read_at(index, offset, &mut buf[..piece])?;
                sums.update(&buf[..piece]);
                offset += piece as u64;
                if offset == len || offset.is_multiple_of(each_body_bytes) {
                    md5s.push(sums.take_body_md5());
                }
            }
            Ok((sums, md5s))
        });
        read.await.map_err(|_| DeliveryError::Cancelled)?.map_err(DeliveryError::Render)
    }

    /// Bytes of the first `objects` objects.
    #[must_use]
    pub fn bytes_of_first(&self, objects: usize) -> u64 {
        self.rendering.objects().iter().take(objects).map(|object| object.len).sum()
    }
}

/// Runs something that blocks where that is allowed.
///
/// # Errors
/// The shelf fails, or the work was cut off: it panicked or the runtime shuts down.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ShelfError> + Send + 'static,
) -> Result<T, DeliveryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(DeliveryError::Shelf),
        Err(error) => Err(DeliveryError::Shelf(ShelfError::Failed(Box::new(error)))),
    }
}
