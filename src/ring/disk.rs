//! The disk under an open ring: looked at again and again, so that a ring whose disk is gone, was
//! exchanged or takes no writes any more is left before anything is lost for longer than a fragment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::disk::{DiskFault, DiskView, fault_of, fault_since};
use crate::platform::flash::Flash;
use crate::ring::RingError;
use crate::ring::identity::RingIdentity;

/// The disk of one open ring.
#[derive(Clone)]
pub struct Disk {
    flash: Arc<dyn Flash>,
    path: PathBuf,
    opened: DiskView,
    need_bytes: u64,
}

impl Disk {
    /// The disk that a ring is about to be opened on.
    ///
    /// # Errors
    /// Nothing can be recorded there.
    pub(super) fn of(
        flash: Arc<dyn Flash>,
        path: &Path,
        identity: &RingIdentity,
    ) -> Result<Self, RingError> {
        let need_bytes = u64::from(identity.slots) * identity.slot_bytes;
        let opened = flash.disk(path).map_err(RingError::flash("looking at the disk"))?;
        if let Some(fault) = fault_of(Some(opened), need_bytes) {
            return Err(RingError::Disk { path: path.to_owned(), fault });
        }
        Ok(Disk { flash, path: path.to_owned(), opened, need_bytes })
    }

    /// What is wrong with it now. Costs two system calls and a look at the list of mounts; may block
    /// as long as the disk does.
    #[must_use]
    pub fn fault(&self) -> Option<DiskFault> {
        // What cannot be looked at is not there.
        fault_since(self.opened, self.flash.disk(&self.path).ok(), self.need_bytes)
    }
}
