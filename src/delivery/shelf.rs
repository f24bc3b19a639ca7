//! The port of delivery: what it needs of catalog and ring.
//!
//! All methods block; delivery calls them on threads that may. A file is *waiting* from the
//! moment it is whole until it is delivered or set aside.

use crate::delivery::error::{BoxedError, ErrorClass};
use crate::delivery::path::ObjectPath;
use crate::delivery::progress::Progress;
use crate::domain::files::FileFormat;
use crate::domain::ids::FileId;
use crate::domain::media_terms::MediaTerms;
use crate::domain::upload_order::{UploadOrder, WaitingFile};
use crate::domain::upload_plan::{Admitted, DayAccount};
use crate::media::render::{RenderError, Rendering};

/// What is to be delivered, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPlan {
    /// Which file.
    pub file_id: FileId,
    /// Where it lies at the target; the same at every attempt.
    pub object_path: ObjectPath,
    /// Its format.
    pub format: FileFormat,
    /// What is asked of it at a VOD platform.
    pub terms: MediaTerms,
    /// The box has lost what it knew of deliveries since the file was made: the target may have
    /// it already, and is asked before anything is sent.
    pub maybe_there: bool,
}

/// Which files are asked for, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The order.
    pub order: UploadOrder,
    /// Which may set out; those that a person wants at once always may.
    pub admitted: Admitted,
}

/// Proof of a delivery: the target holds these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Address of the file, or of the playlist, at the target; never with a signature.
    pub url: String,
    /// Bytes of all objects.
    pub size: u64,
    /// SHA-256 of the bytes of all objects, one after the other in the order of storing, in hex.
    pub sha256: String,
    /// The target's own id of the file, if it gives one.
    pub target_file_id: Option<String>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `Retry` leaves the file waiting; `Drop`, `Lose` and `Quarantine` end its waiting for good; `Stop`
    /// leaves it waiting until the settings change.
    pub class: ErrorClass,
    /// Attempts in a row that have failed since the service started, this one included.
    pub attempts: u32,
    /// What happened, for people.
    pub why: String,
}

/// Catalog or ring could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The file or its media is no longer there.
    #[error("the file is gone")]
    Gone,
    /// The media in the ring is not what was sealed.
    #[error("the media is damaged")]
    Damaged(#[source] BoxedError),
    /// The clip cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The catalog lost what the file was recorded for, and the rules that say it are not there yet.
    #[error("the rules are not known yet")]
    NoRules,
    /// Anything else; trying again may help.
    #[error("the catalog failed")]
    Failed(#[source] BoxedError),
}

/// Files that wait, their renderings, and what became of them.
pub trait Shelf: Send + Sync {
    /// Files that wait and may set out, the first `limit` in the order of the queue. `not_before`
    /// is left to delivery and may be `None`.
    ///
    /// # Errors
    /// The catalog fails.
    fn waiting(&self, wanted: &Wanted, limit: usize) -> Result<Vec<WaitingFile>, ShelfError>;

    /// What has gone out this day, as last kept.
    ///
    /// # Errors
    /// The catalog fails.
    fn day_account(&self) -> Result<DayAccount, ShelfError>;

    /// Keeps what has gone out this day; need not be durable.
    ///
    /// # Errors
    /// The catalog fails.
    fn keep_day_account(&self, account: &DayAccount) -> Result<(), ShelfError>;

    /// The plan of a waiting file. Its name is frozen (durably) from the first call on.
    ///
    /// # Errors
    /// The catalog fails or the file is gone.
    fn plan(&self, file: FileId) -> Result<DeliveryPlan, ShelfError>;

    /// Opens the rendering. Its media is leased, so not evicted, until it is dropped.
    ///
    /// # Errors
    /// The file is gone or cannot be rendered.
    fn open(&self, file: FileId) -> Result<Box<dyn Rendering>, ShelfError>;

    /// The progress last saved, if any.
    ///
    /// # Errors
    /// The catalog fails.
    fn load_progress(&self, file: FileId) -> Result<Option<Progress>, ShelfError>;

    /// Saves progress; durable before it returns.
    ///
    /// # Errors
    /// The catalog fails.
    fn save_progress(&self, file: FileId, progress: &Progress) -> Result<(), ShelfError>;

    /// The file is delivered: it no longer waits and its progress is dropped. Durable before it
    /// returns.
    ///
    /// # Errors
    /// The catalog fails; the file then still waits.
    fn delivered(&self, file: FileId, receipt: &Receipt) -> Result<(), ShelfError>;

    /// An attempt failed. With the classes `Drop`, `Lose` and `Quarantine` this is durable before it
    /// returns; with `Retry` and `Stop` it need not be, so that a dead link costs no flash.
    ///
    /// # Errors
    /// The catalog fails.
    fn failed(&self, file: FileId, failure: &Failure) -> Result<(), ShelfError>;
}
