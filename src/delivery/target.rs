//! The port of a target: a place that takes files and proves that it has them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::delivery::error::DeliveryError;
use crate::delivery::progress::Progress;
use crate::delivery::shelf::{DeliveryPlan, Receipt, Shelf, ShelfError};
use crate::delivery::valve::Valve;
use crate::domain::ids::FileId;
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
#[derive(Debug, Default)]
pub struct Meter {
    held_up: AtomicBool,
    first_kept: OnceLock<u64>,
    kept: AtomicU64,
    position: AtomicU64,
    moved: AtomicU64,
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
    shelf: Arc<dyn Shelf>,
}

impl Job {
    /// A job whose progress is kept on `shelf`.
    #[must_use]
    pub fn new(plan: DeliveryPlan, rendering: Arc<dyn Rendering>, shelf: Arc<dyn Shelf>) -> Self {
        Job { plan, rendering, meter: Arc::default(), valve: Arc::new(Valve::new(None)), shelf }
    }

    /// Fetches plan and rendering of a file.
    ///
    /// # Errors
    /// The shelf fails.
    pub async fn open(
        file: FileId,
        (meter, valve): (Arc<Meter>, Arc<Valve>),
        shelf: Arc<dyn Shelf>,
    ) -> Result<Self, DeliveryError> {
        let opener = Arc::clone(&shelf);
        let (plan, rendering) =
            blocking(move || Ok((opener.plan(file)?, opener.open(file)?))).await?;
        Ok(Job { plan, rendering: rendering.into(), meter, valve, shelf })
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
