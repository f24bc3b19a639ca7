//! Damage of the catalog. One that is opened is looked at whole if it is small; a larger one by a thread
//! beside what is recorded, so that the time until then does not grow with it. What is found while the
//! ring is open, by that thread or by a job, leaves a mark beside `state.db`: the box ends, and the next
//! start makes the catalog anew.

use std::path::Path;
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::ring::RingError;
use crate::ring::catalog::{Catalog, CatalogState, database_path};

/// A `state.db` up to this size is looked at before anything else, in bytes.
const LOOKED_AT_FIRST_BYTES: i64 = 1 << 20;

/// Looks at all pages of a small catalog; one that is large is left to [`Look`].
///
/// # Errors
/// It is damaged, or cannot be read.
pub(super) fn look_at_small(db: &Connection) -> rusqlite::Result<()> {
    if bytes(db)? <= LOOKED_AT_FIRST_BYTES { look_at(db) } else { Ok(()) }
}

/// Looks at all pages of a catalog, and whether tables and indexes agree.
///
/// # Errors
/// It is damaged, or cannot be read.
pub(super) fn look_at(db: &Connection) -> rusqlite::Result<()> {
    let found: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(corrupt, Some(found)))
}

fn bytes(db: &Connection) -> rusqlite::Result<i64> {
    let number = |pragma| db.query_row(pragma, [], |row| row.get::<_, i64>(0));
    Ok(number("PRAGMA page_count")? * number("PRAGMA page_size")?)
}

impl CatalogState {
    /// Cancelled when the catalog is found to be damaged while the ring is open.
    #[must_use]
    pub fn damage(&self) -> CancellationToken {
        self.damage.clone()
    }

    /// Does a job, and looks at how it went.
    pub(super) fn do_judged<T>(
        &mut self,
        job: impl FnOnce(&mut Self) -> Result<T, RingError>,
    ) -> Result<T, RingError> {
        let done = job(self);
        self.judge(&done);
        done
    }

    /// Marks the catalog if what was done shows that it is damaged.
    pub(super) fn judge<T>(&self, done: &Result<T, RingError>) {
        let Err(problem @ RingError::Catalog { source, .. }) = done else { return };
        let code = source.sqlite_error_code();
        let damaged = matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        // Without a ring it is a copy that somebody looks at.
        let Some(slots) = self.slots.as_ref().filter(|_| damaged && !self.damage.is_cancelled())
        else {
            return;
        };
        error!(%problem, cause = %source, "state.db is damaged; the next start makes it anew");
        if let Err(problem) = slots.mark_catalog() {
            error!(%problem, "that state.db is damaged cannot be noted");
        }
        self.damage.cancel();
    }
}

/// A thread that looks at a large catalog.
pub struct Look {
    thread: JoinHandle<()>,
    stop: InterruptHandle,
}

impl Look {
    /// Starts it over the ring at `path`, unless its catalog was looked at when it was opened.
    ///
    /// # Errors
    /// The catalog cannot be opened, or the thread not be started.
    pub fn begin(path: &Path, catalog: &Catalog) -> Result<Option<Look>, RingError> {
        let what = RingError::catalog("looking at state.db");
        let how = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(database_path(path), how)
            .and_then(|db| Ok((bytes(&db)?, db)));
        let (bytes, db) = opened.map_err(what)?;
        if bytes <= LOOKED_AT_FIRST_BYTES {
            return Ok(None);
        }
        let stop = db.get_interrupt_handle();
        let catalog = catalog.clone();
        let look = move || {
            let found = look_at(&db).map_err(RingError::catalog("looking at state.db"));
            match &found {
                Ok(()) => info!(bytes, "state.db is whole"),
                Err(problem) => info!(%problem, "state.db was not looked at to its end"),
            }
            catalog.post(move |state| state.judge(&found));
        };
        let thread = std::thread::Builder::new().name("look".into()).spawn(look);
        let thread = thread.map_err(RingError::flash("starting a thread"))?;
        Ok(Some(Look { thread, stop }))
    }

    /// Ends it.
    pub fn end(self) {
        self.stop.interrupt();
        if self.thread.join().is_err() {
            error!("the thread that looks at state.db panicked");
        }
    }
}
