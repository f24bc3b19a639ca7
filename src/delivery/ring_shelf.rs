//! The shelf over the real ring and its catalog.

use std::sync::Arc;

use crate::delivery::error::ErrorClass;
use crate::delivery::path::ObjectPath;
use crate::delivery::progress::Progress;
use crate::delivery::shelf::{DeliveryPlan, Failure, Receipt, Shelf, ShelfError, Wanted};
use crate::domain::ids::FileId;
use crate::domain::upload_order::WaitingFile;
use crate::domain::upload_plan::DayAccount;
use crate::media::audio_only::as_shown;
use crate::media::render::{self, Rendering};
use crate::platform::planted;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::files::{Confirmed, FileRecord};
use crate::ring::catalog::open::FileState;
use crate::ring::handle::Ring;

/// Files of a ring that wait to be delivered.
pub struct RingShelf {
    ring: Arc<Ring>,
}

impl RingShelf {
    /// The shelf of a ring.
    #[must_use]
    pub fn new(ring: Arc<Ring>) -> Self {
        RingShelf { ring }
    }

    fn record(&self, file: FileId) -> Result<FileRecord, ShelfError> {
        self.ring.catalog.call_blocking(move |state| state.file(file)).map_err(shelf_error)
    }
}

impl Shelf for RingShelf {
    fn waiting(&self, wanted: &Wanted, limit: usize) -> Result<Vec<WaitingFile>, ShelfError> {
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        let Wanted { order, admitted } = wanted.clone();
        self.ring
            .catalog
            .call_blocking(move |state| state.waiting_files(&order, &admitted, most))
            .map_err(shelf_error)
    }

    fn day_account(&self) -> Result<DayAccount, ShelfError> {
        self.ring.catalog.call_blocking(|state| state.day_account()).map_err(shelf_error)
    }

    fn keep_day_account(&self, account: &DayAccount) -> Result<(), ShelfError> {
        let account = *account;
        self.ring
            .catalog
            .call_blocking(move |state| state.keep_day_account(&account))
            .map_err(shelf_error)
    }

    fn plan(&self, file: FileId) -> Result<DeliveryPlan, ShelfError> {
        let adopt = move |state: &mut CatalogState| state.adopt_terms(file);
        if !self.ring.catalog.call_blocking(adopt).map_err(shelf_error)? {
            return Err(ShelfError::NoRules);
        }
        let record = self.record(file)?;
        let path = |name: &str| ObjectPath::new(&record.key, name, file, record.format);
        let name = match &record.name {
            Some(frozen) => frozen.clone(),
            None => {
                let name = record.file_name();
                let frozen = name.clone();
                self.ring
                    .catalog
                    .call_blocking(move |state| state.freeze_name(file, &frozen))
                    .map_err(shelf_error)?;
                name
            }
        };
        let object_path = path(&name);
        let (terms, maybe_there) = self
            .ring
            .catalog
            .call_blocking(move |state| {
                Ok((state.media_terms(file, name)?, state.maybe_there(file)?))
            })
            .map_err(shelf_error)?;
        Ok(DeliveryPlan { file_id: file, object_path, format: record.format, terms, maybe_there })
    }

    fn open(&self, file: FileId) -> Result<Box<dyn Rendering>, ShelfError> {
        let record = self.record(file)?;
        let clip = self.ring.open_whole_file_clip(file).map_err(shelf_error)?;
        let clip = as_shown(Arc::new(clip), record.audio_only);
        let rendering = render::open(record.format, clip)?;
        let dropped = rendering.dropped_tracks().to_vec();
        if !dropped.is_empty() {
            self.ring
                .catalog
                .call_blocking(move |state| state.set_dropped_tracks(file, &dropped))
                .map_err(shelf_error)?;
        }
        Ok(rendering)
    }

    fn load_progress(&self, file: FileId) -> Result<Option<Progress>, ShelfError> {
        let text = self
            .ring
            .catalog
            .call_blocking(move |state| state.progress(file))
            .map_err(shelf_error)?;
        // Progress of another version means nothing: the transfer starts over.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn save_progress(&self, file: FileId, progress: &Progress) -> Result<(), ShelfError> {
        let text = serde_json::to_string(progress).expect("plain fields");
        self.ring
            .catalog
            .call_blocking(move |state| state.set_progress(file, &text))
            .map_err(shelf_error)
    }

    fn delivered(&self, file: FileId, receipt: &Receipt) -> Result<(), ShelfError> {
        if planted::is_planted("EDGEREC_PLANT_FORGET_DELIVERY") {
            return Ok(());
        }
        let receipt = receipt.clone();
        self.ring
            .catalog
            .call_blocking(move |state| {
                let confirmed = Confirmed {
                    url: &receipt.url,
                    size: receipt.size,
                    sha256: &receipt.sha256,
                    target_file_id: receipt.target_file_id.as_deref(),
                };
                state.delivered(file, confirmed)
            })
            .map_err(shelf_error)
    }

    fn failed(&self, file: FileId, failure: &Failure) -> Result<(), ShelfError> {
        let Failure { class, attempts, why } = failure.clone();
        self.ring
            .catalog
            .call_blocking(move |catalog| match class {
                ErrorClass::Retry | ErrorClass::Stop => {
                    catalog.set_state(file, FileState::Queued, &why, attempts)
                }
                ErrorClass::Lose | ErrorClass::Quarantine => catalog.give_up(file, &why, attempts),
                ErrorClass::Drop => catalog.set_state(file, FileState::Failed, &why, attempts),
            })
            .map_err(shelf_error)
    }
}

fn shelf_error(error: RingError) -> ShelfError {
    match error {
        RingError::Gone(_) => ShelfError::Gone,
        RingError::Damaged { .. } | RingError::Rotten(_) => ShelfError::Damaged(Box::new(error)),
        other => ShelfError::Failed(Box::new(other)),
    }
}
