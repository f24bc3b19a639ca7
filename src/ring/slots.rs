//! Slot files: opened when needed, read and written in place.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::ids::SlotIndex;
use crate::domain::limits::PAGE_BYTES;
use crate::platform::flash::{Flash, FlashFile, Open};
use crate::ring::RingError;
use crate::ring::identity::{DAMAGE_MARK, RingIdentity, slot_path};
use crate::ring::right_of_way::RightOfWay;

/// The slots of one ring.
#[derive(Clone)]
pub struct Slots {
    flash: Arc<dyn Flash>,
    path: PathBuf,
    /// Who may use the flash: the writer first.
    pub way: Arc<RightOfWay>,
    /// The ring's identity and shape.
    pub identity: Arc<RingIdentity>,
}

impl Slots {
    /// The slots of the ring at `path`.
    #[must_use]
    pub fn new(flash: Arc<dyn Flash>, path: PathBuf, identity: Arc<RingIdentity>) -> Self {
        Slots { flash, path, way: Arc::default(), identity }
    }

    /// Opens a slot for reading, or for reading and writing.
    ///
    /// # Errors
    /// The file is not there, or is shorter than a slot.
    pub fn open(&self, slot: SlotIndex, how: Open) -> Result<Box<dyn FlashFile>, RingError> {
        let path = slot_path(&self.path, slot);
        let what = || format!("opening {}", path.display());
        let file = self.flash.open(&path, how).map_err(RingError::flash(what()))?;
        let len = file.len().map_err(RingError::flash(what()))?;
        if len < self.identity.slot_bytes {
            return Err(RingError::Damaged { slot, offset: len, what: "the file is too short" });
        }
        Ok(file)
    }

    /// Leaves the mark that `state.db` is damaged; durable.
    ///
    /// # Errors
    /// The flash fails.
    pub fn mark_catalog(&self) -> Result<(), RingError> {
        let mark = self.path.join(DAMAGE_MARK);
        let marked = self.flash.open(&mark, Open::Truncate).and_then(|file| file.sync_data());
        marked
            .and_then(|()| self.flash.sync_dir(&self.path))
            .map_err(RingError::flash("marking state.db as damaged"))
    }

    /// Makes a slot look as `format` made it: its first page is zero, durably.
    ///
    /// # Errors
    /// The flash fails.
    pub fn make_blank(&self, slot: SlotIndex) -> Result<(), RingError> {
        let file = self.open(slot, Open::ReadWrite)?;
        file.write_all_at(&[IoSlice::new(&[0; PAGE_BYTES as usize])], 0)
            .and_then(|()| file.sync_data())
            .map_err(RingError::flash(format!("making slot {slot} blank")))
    }
}
