//! A ring that is only looked at: nothing is written below its path, no thread writes slots.
//!
//! The catalog is a copy in a folder of its own; recovery runs on that copy, so what a crash left
//! in open slots is found as the next start of the box will find it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::platform::clock::Clock;
use crate::platform::flash::Flash;
use crate::platform::scratch::ScratchDir;
use crate::ring::RingError;
use crate::ring::catalog::{Catalog, CatalogSettings};
use crate::ring::clip::Leases;
use crate::ring::handle::{Ring, open_catalog};
use crate::ring::identity::RingIdentity;
use crate::ring::rebuild::Rebuild;
use crate::ring::slots::Slots;
use crate::ring::snapshot::copy_catalog;

/// The ring, its catalog thread and the folder of the copy, which goes when this is dropped.
pub struct ReadOnlyRing {
    ring: Option<Ring>,
    catalog: Option<JoinHandle<()>>,
    _copy: ScratchDir,
}

impl Ring {
    /// Opens the ring at `path` for reading. The box need not be down, but what it has in memory
    /// is not seen.
    ///
    /// # Errors
    /// There is no ring, it is foreign, or its catalog cannot be copied.
    pub fn open_read_only(
        path: &Path,
        settings: CatalogSettings,
        flash: Arc<dyn Flash>,
        clock: &Arc<dyn Clock>,
    ) -> Result<ReadOnlyRing, RingError> {
        let identity = Arc::new(RingIdentity::read(&*flash, path)?);
        let copy = copy_catalog(&*flash, path)?;
        let leases = Arc::new(Leases::default());
        let slots = Slots::new(flash.clone(), path.to_owned(), identity);
        let (state, recovered) =
            open_catalog(copy.path(), &*flash, &slots, clock, settings, &leases)?;
        let thread = RingError::flash("starting a thread");
        let (catalog, catalog_thread) = Catalog::start(state).map_err(thread)?;
        if recovered.rebuilds {
            Rebuild::new(slots.clone(), Arc::default()).run(&catalog);
        }
        let ring = Some(Ring::without_writer(catalog, slots));
        Ok(ReadOnlyRing { ring, catalog: Some(catalog_thread), _copy: copy })
    }
}

impl ReadOnlyRing {
    /// The ring.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        self.ring.as_ref().expect("taken only when dropped")
    }
}

impl Drop for ReadOnlyRing {
    fn drop(&mut self) {
        drop(self.ring.take());
        // The thread ends when the last way to it is gone; a panic in it has nothing to undo.
        if let Some(thread) = self.catalog.take() {
            let _ = thread.join();
        }
    }
}
