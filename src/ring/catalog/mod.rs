//! The catalog: what the box knows about its media, in SQLite (`state.db`, WAL), owned by one
//! thread. There is no row per fragment: rows per slot, segment, span and file.
//!
//! Order of durability: media rows are committed with `synchronous=NORMAL` after the group sync
//! that made the media durable, and become durable themselves with the next one (it covers the
//! whole file system). What must survive before somebody acts on it (reservations, deliveries,
//! losses) is committed with `synchronous=FULL`. What a crash takes from the rows is found again
//! in the slots that were open.

pub mod clips;
pub mod damage;
mod dating;
pub mod durable;
mod endings;
pub mod figures;
mod file_check;
pub mod files;
pub mod forecast;
pub mod history;
pub mod inventory;
pub mod ledger;
pub mod losing;
pub mod notices;
pub mod open;
pub mod pushes;
pub mod queue;
pub mod rebuild;
pub mod recover;
pub mod reserve;
pub mod room;
mod rows;
pub mod schema;
pub mod search;
pub mod service;
pub mod sessions;
pub mod take_up;
mod terms;
pub mod waiting;
pub mod wear;
mod weighing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use arc_swap::ArcSwap;
use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::domain::files::FileFormat;
use crate::domain::ids::{RecordingId, SessionId, SlotIndex};
use crate::domain::time::{BootTime, Moment};
use crate::domain::upload_order::UploadOrder;
use crate::platform::clock::Clock;
use crate::platform::planted;
use crate::ring::RingError;
use crate::ring::catalog::dating::Dates;
use crate::ring::catalog::forecast::Flows;
use crate::ring::catalog::losing::Unwritten;
use crate::ring::catalog::notices::NoticeDesk;
use crate::ring::catalog::open::{OpenFile, OpenSegment};
use crate::ring::catalog::rebuild::Rebuilding;
use crate::ring::catalog::service::{ServiceInForce, ServiceWatcher};
use crate::ring::catalog::waiting::WaitingRecording;
use crate::ring::catalog::weighing::Weighed;
use crate::ring::clip::Leases;
use crate::ring::identity::RingIdentity;
use crate::ring::slots::Slots;

/// Jobs that may wait for the catalog thread; who posts one more waits.
const JOBS_WAITING_MAX: usize = 4_096;

/// What to do when the ring is full and only undelivered media is left.
pub use crate::domain::eviction::OnFull;

/// How the catalog decides.
#[derive(Debug, Clone, Copy)]
pub struct CatalogSettings {
    /// What may go when the ring is full.
    pub on_full: OnFull,
    /// Whether finished files are to be delivered somewhere.
    pub delivers: bool,
}

/// Something to be done by whoever owns the catalog.
pub type Job = Box<dyn FnOnce(&mut CatalogState) + Send>;

/// The way of jobs to whoever does them, one after the other: the thread, or a simulation.
pub trait JobQueue: Send + Sync {
    /// Takes a job; `false` if nobody does any more.
    fn post(&self, job: Job) -> bool;
    /// The one who posted last is about to wait for the answer.
    fn is_waited_for(&self) {}
}

impl JobQueue for mpsc::SyncSender<Job> {
    fn post(&self, job: Job) -> bool {
        self.send(job).is_ok()
    }
}

/// The way to the catalog thread. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    jobs: Arc<dyn JobQueue>,
    news: Arc<Notify>,
}

impl Catalog {
    /// Starts the thread over an open state.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        mut state: CatalogState,
    ) -> std::io::Result<(Catalog, std::thread::JoinHandle<()>)> {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(JOBS_WAITING_MAX);
        let catalog = Catalog::over(Arc::new(jobs), &state);
        let thread = std::thread::Builder::new().name("catalog".into()).spawn(move || {
            for job in waiting {
                if !state.take(job) {
                    break;
                }
            }
            state.close();
        })?;
        Ok((catalog, thread))
    }

    /// The way to a state whose owner takes the jobs from this queue.
    #[must_use]
    pub fn over(jobs: Arc<dyn JobQueue>, state: &CatalogState) -> Catalog {
        Catalog { jobs, news: state.news.clone() }
    }

    /// Has a job done, in order, without an answer.
    pub fn post(&self, job: impl FnOnce(&mut CatalogState) + Send + 'static) {
        if !self.jobs.post(Box::new(job)) {
            error!("the catalog thread is gone");
        }
    }

    /// Has a job done and waits for its answer.
    ///
    /// # Errors
    /// The job's own, or [`RingError::Closed`].
    pub async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut CatalogState) -> Result<T, RingError> + Send + 'static,
    ) -> Result<T, RingError> {
        let (answer, answered) = oneshot::channel();
        self.post(move |state| {
            // The asker may have given up.
            let _ = answer.send(state.do_judged(job));
        });
        answered.await.unwrap_or(Err(RingError::Closed))
    }

    /// Like [`call`](Self::call), for threads that may block.
    ///
    /// # Errors
    /// The job's own, or [`RingError::Closed`].
    pub fn call_blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut CatalogState) -> Result<T, RingError> + Send + 'static,
    ) -> Result<T, RingError> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.post(move |state| {
            let _ = answer.send(state.do_judged(job));
        });
        self.jobs.is_waited_for();
        answered.recv().unwrap_or(Err(RingError::Closed))
    }

    /// Ends the thread once everything posted before is done; what is asked after that is
    /// answered with [`RingError::Closed`].
    pub fn stop(&self) {
        self.post(|state| state.closing = true);
    }

    /// Told whenever a file is finished.
    #[must_use]
    pub fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }
}

/// What the catalog thread owns.
pub struct CatalogState {
    pub(super) db: Connection,
    pub(super) opened: BootTime,
    pub(super) identity: Arc<RingIdentity>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: CatalogSettings,
    pub(super) open_files: BTreeMap<(RecordingId, FileFormat), OpenFile>,
    pub(super) open_segments: BTreeMap<SlotIndex, OpenSegment>,
    losing: BTreeMap<SessionId, (i64, Unwritten)>,
    pub(super) leases: Arc<Leases>,
    pub(super) news: Arc<Notify>,
    pub(super) waiting: Vec<WaitingRecording>,
    pub(super) notices: NoticeDesk,
    pub(super) notice_desk_set: bool,
    pub(super) notice_news: Arc<Notify>,
    pub(super) fleet_news: Arc<Notify>,
    pub(super) service: ServiceInForce,
    pub(super) service_watchers: Vec<ServiceWatcher>,
    pub(super) upload_order: UploadOrder,
    pub(super) weighed: Weighed,
    pub(super) flows: Flows,
    dates: Dates,
    /// Where the slots are; `None` for a catalog without a ring.
    slots: Option<Slots>,
    /// While slots are unread.
    rebuilding: Option<Rebuilding>,
    promises: u64,
    damage: CancellationToken,
    closing: bool,
}

impl CatalogState {
    /// The time.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment { at: self.clock.now(), boot_id: self.clock.boot_id() }
    }

    /// Opens the catalog of the ring at `path`, or makes an empty one.
    ///
    /// # Errors
    /// The database cannot be opened or is damaged.
    pub fn open(
        path: &Path,
        identity: Arc<RingIdentity>,
        clock: Arc<dyn Clock>,
        settings: CatalogSettings,
        leases: Arc<Leases>,
    ) -> Result<Self, RingError> {
        let db = schema::open(&database_path(path), &identity)?;
        weighing::watch(&db).map_err(RingError::catalog("watching what changes"))?;
        let service = CatalogState::read_service(&db)
            .map_err(RingError::catalog("reading what the API has set"))?;
        let dates = Dates::read(&db).map_err(RingError::catalog("reading when boots began"))?;
        let losing = losing::open_gaps(&db).map_err(RingError::catalog("reading open gaps"))?;
        let notices = NoticeDesk::of_box(&identity.box_id);
        let opened = clock.now().boot;
        Ok(CatalogState {
            db,
            opened,
            identity,
            clock,
            settings,
            open_files: BTreeMap::new(),
            open_segments: BTreeMap::new(),
            losing,
            leases,
            news: Arc::new(Notify::new()),
            waiting: Vec::new(),
            notices,
            notice_desk_set: false,
            notice_news: Arc::new(Notify::new()),
            fleet_news: Arc::new(Notify::new()),
            service: Arc::new(ArcSwap::from_pointee(service)),
            upload_order: UploadOrder::default(),
            weighed: Weighed::default(),
            flows: Flows::default(),
            dates,
            service_watchers: Vec::new(),
            slots: None,
            rebuilding: None,
            promises: 0,
            damage: CancellationToken::new(),
            closing: false,
        })
    }

    /// Runs `work` in a transaction that is durable when this returns.
    pub(super) fn durably<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, RingError> {
        self.promising(what, |state| {
            let done = state.db.transaction().and_then(|transaction| {
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            });
            done.map_err(RingError::catalog(what))
        })
    }

    /// Has the one transaction that `work` makes durable when this returns.
    fn promising<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T, RingError>,
    ) -> Result<T, RingError> {
        if !planted::is_planted("EDGEREC_PLANT_LATE_PROMISES") {
            self.db.pragma_update(None, "synchronous", "FULL").map_err(RingError::catalog(what))?;
        }
        let done = work(self);
        self.db.pragma_update(None, "synchronous", "NORMAL").map_err(RingError::catalog(what))?;
        self.promises += u64::from(done.is_ok());
        done
    }

    /// How many transactions were durable when they returned.
    #[must_use]
    pub fn promises(&self) -> u64 {
        self.promises
    }

    /// Does a job; `false` if it was the last. Once the clock is set, what was entered before gets its
    /// times first.
    pub fn take(&mut self, job: Job) -> bool {
        self.look_at_clock();
        job(self);
        !self.closing
    }

    /// Closes the database.
    pub fn close(self) {
        if let Err((_, error)) = self.db.close() {
            error!(%error, "closing the catalog failed");
        }
    }
}

/// Where the database is.
#[must_use]
pub fn database_path(ring: &Path) -> PathBuf {
    ring.join("state.db")
}
