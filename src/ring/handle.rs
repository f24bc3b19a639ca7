//! The ring as the rest of the box holds it: opened once, closed in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::domain::ids::FileId;
use crate::domain::stream_key::StreamKey;
use crate::platform::clock::Clock;
use crate::platform::flash::{Flash, FlashLock, Open};
use crate::ring::RingError;
use crate::ring::catalog::clips::{Arrivals, RangeSegment};
use crate::ring::catalog::damage::Look;
use crate::ring::catalog::open::{FileState, Span};
use crate::ring::catalog::recover::Recovered;
use crate::ring::catalog::room;
use crate::ring::catalog::{Catalog, CatalogSettings, CatalogState};
use crate::ring::clip::{Leases, RingClip};
use crate::ring::desk::WriterDesk;
use crate::ring::disk::Disk;
use crate::ring::identity::{DAMAGE_MARK, RingIdentity, lock};
use crate::ring::lane::Lanes;
use crate::ring::live_hub::LiveHub;
use crate::ring::rebuild::Rebuild;
use crate::ring::scan::{Depth, Scanner};
use crate::ring::slots::Slots;
use crate::ring::writer::Writer;

/// How a ring is run.
#[derive(Debug, Clone)]
pub struct RingSettings {
    /// Where it is.
    pub path: PathBuf,
    /// Time between group syncs.
    pub sync_interval: Duration,
    /// How the catalog decides.
    pub catalog: CatalogSettings,
}

/// An open ring: the way for streams in, and for clips out.
pub struct Ring {
    /// Lanes for streams.
    pub lanes: Arc<Lanes>,
    /// What the box knows about its media.
    pub catalog: Catalog,
    /// The ring's identity and shape.
    pub identity: Arc<RingIdentity>,
    /// For those who watch streams live.
    pub live: Arc<LiveHub>,
    pub(super) slots: Slots,
}

/// Keeps the ring's threads; [`close`](RingThreads::close) ends them with everything durable.
pub struct RingThreads {
    desk: Arc<WriterDesk>,
    lanes: Arc<Lanes>,
    writer: JoinHandle<()>,
    catalog: JoinHandle<()>,
    rebuild: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
    look: Option<Look>,
    ended: CancellationToken,
    damage: CancellationToken,
    disk: Disk,
    _lock: Box<dyn FlashLock>,
}

/// A ring that is open and recovered, and that nobody works on yet.
pub struct StillRing {
    slots: Slots,
    clock: Arc<dyn Clock>,
    sync_interval: Duration,
    recovered: Recovered,
    lock: Box<dyn FlashLock>,
}

/// A ring with what its threads work with.
pub struct StaffedRing {
    /// The ring.
    pub ring: Arc<Ring>,
    /// Who writes its slots.
    pub writer: Writer,
    /// How the writer is told to stop.
    pub desk: Arc<WriterDesk>,
    /// What is to be read while recording goes on, and how it is told to stop.
    pub rebuild: Option<(Rebuild, Arc<AtomicBool>)>,
    /// Keeps other processes out.
    pub lock: Box<dyn FlashLock>,
}

impl Ring {
    /// Opens the ring, recovers what a crash left, and starts its threads.
    ///
    /// # Errors
    /// There is no ring, it is foreign or in use, or flash or catalog fail.
    pub fn open(
        settings: &RingSettings,
        flash: Arc<dyn Flash>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Ring>, RingThreads), RingError> {
        let identity = RingIdentity::read(&*flash, &settings.path)?;
        let disk = Disk::of(flash.clone(), &settings.path, &identity)?;
        let (state, still) = StillRing::open(settings, flash, clock)?;
        let damage = state.damage();
        let threads = RingError::flash("starting a thread");
        let (catalog, catalog_thread) = Catalog::start(state).map_err(threads)?;
        let StaffedRing { ring, writer, desk, rebuild, lock } = still.staff(catalog);
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let writer = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || {
                let _ended = guard;
                writer.run();
            })
            .map_err(RingError::flash("starting a thread"))?;
        ring.lanes.set_writer(writer.thread().clone());
        let rebuild = match rebuild {
            None => None,
            Some((rebuild, stop)) => {
                let catalog = ring.catalog.clone();
                let thread = std::thread::Builder::new().name("rebuild".into());
                let thread = thread.spawn(move || rebuild.run(&catalog));
                Some((thread.map_err(RingError::flash("starting a thread"))?, stop))
            }
        };
        let threads = RingThreads {
            desk,
            lanes: ring.lanes.clone(),
            writer,
            catalog: catalog_thread,
            rebuild,
            look: Look::begin(&settings.path, &ring.catalog)?,
            ended,
            damage,
            disk,
            _lock: lock,
        };
        Ok((ring, threads))
    }

    /// A ring without a writer over a catalog of its own: for readers.
    pub(super) fn without_writer(catalog: Catalog, slots: Slots) -> Ring {
        let identity = slots.identity.clone();
        Ring { lanes: Arc::default(), catalog, identity, live: Arc::default(), slots }
    }

    /// Opens a file's clip. Blocks on flash.
    ///
    /// # Errors
    /// The media is gone or damaged.
    pub fn open_file_clip(&self, file: FileId) -> Result<RingClip, RingError> {
        let found = self.catalog.call_blocking(move |state| state.file_spans(file))?;
        RingClip::open(self.slots.clone(), &found.spans, found.lease)
    }

    /// Opens a file's clip if the ring holds all of it. Blocks on flash.
    ///
    /// # Errors
    /// Some of the media is gone, or damaged.
    pub fn open_whole_file_clip(&self, file: FileId) -> Result<RingClip, RingError> {
        // Looked at and leased in one job: nothing is evicted between.
        let found = self.catalog.call_blocking(move |state| {
            let record = state.file(file)?;
            if !state.holds_file(&record)? {
                // What goes before it is delivered says so: it is its rows that are wrong.
                if matches!(
                    record.state,
                    FileState::Waiting | FileState::Queued | FileState::Uploading
                ) {
                    state.check_file(file)?;
                }
                return Err(RingError::Gone(format!("a part of file {file}")));
            }
            state.check_file(file)?;
            state.file_spans(file)
        })?;
        RingClip::open(self.slots.clone(), &found.spans, found.lease)
    }

    /// Opens what the ring holds of a stream between two wall times (Unix milliseconds), from the
    /// last key frame at or before the first. Blocks on flash.
    ///
    /// # Errors
    /// The media is gone or damaged.
    pub fn open_range_clip(
        &self,
        key: &StreamKey,
        from_ms: i64,
        until_ms: i64,
    ) -> Result<RingClip, RingError> {
        let key = key.clone();
        let (segments, lease) =
            self.catalog.call_blocking(move |state| state.range_spans(&key, from_ms, until_ms))?;
        let trimmed = trim_spans(&self.slots, &segments, from_ms, until_ms)?;
        RingClip::open(self.slots.clone(), &trimmed, lease)
    }
}

/// Cuts segments down to the fragments of a time range, from a key fragment on.
///
/// # Errors
/// A slot cannot be read.
fn trim_spans(
    slots: &Slots,
    segments: &[RangeSegment],
    from_ms: i64,
    until_ms: i64,
) -> Result<Vec<Span>, RingError> {
    let mut kept: Vec<Span> = Vec::new();
    let mut reached = false;
    for of_range in segments {
        let (span, mut arrivals) = (&of_range.span, Arrivals::of(of_range));
        let slot = span.slot();
        let file = slots.open(slot, Open::Read)?;
        let scanner = Scanner::new(&*file, slots.identity.slot_bytes, Depth::Seals);
        let Some(segment) = scanner.segment_start(span.segment_offset, span.place) else {
            continue;
        };
        let mut current: Option<Span> = None;
        let mut offset = span.start;
        while offset < span.end {
            let found = scanner
                .fragment(offset, span.place, &segment)
                .map_err(|what| RingError::Damaged { slot, offset, what })?;
            let arrived = arrivals.next(&found.seal);
            if arrived > until_ms {
                break;
            }
            reached |= arrived > from_ms;
            if !reached && found.seal.key {
                // A later key fragment before the range: what came before it is not needed.
                kept.clear();
                current = None;
            }
            let begin = current.map_or(found.offset, |current| current.start);
            if current.is_some() || !kept.is_empty() || found.seal.key {
                current = Some(Span { start: begin, end: found.end, ..*span });
            }
            offset = found.end;
        }
        kept.extend(current);
    }
    Ok(kept)
}

impl StillRing {
    /// Opens the ring and recovers what a crash left.
    ///
    /// # Errors
    /// There is no ring, it is foreign or in use, or flash or catalog fail.
    pub fn open(
        settings: &RingSettings,
        flash: Arc<dyn Flash>,
        clock: Arc<dyn Clock>,
    ) -> Result<(CatalogState, StillRing), RingError> {
        let path = &settings.path;
        let identity = Arc::new(RingIdentity::read(&*flash, path)?);
        let lock = lock(&*flash, path)?;
        let leases = Arc::new(Leases::default());
        room::take_for_database(&*flash, path, &identity);
        let slots = Slots::new(flash.clone(), path.clone(), identity);
        let (state, recovered) =
            open_catalog(path, &*flash, &slots, &clock, settings.catalog, &leases)?;
        room::take_for_log(&*flash, path);
        let sync_interval = settings.sync_interval;
        Ok((state, StillRing { slots, clock, sync_interval, recovered, lock }))
    }

    /// The ring over its catalog, and its writer, who has not begun. What a lost catalog knew is read
    /// here, if the ring is small.
    #[must_use]
    pub fn staff(self, catalog: Catalog) -> StaffedRing {
        let StillRing { slots, clock, sync_interval, recovered, lock } = self;
        let lanes = Arc::new(Lanes::default());
        let desk = Arc::new(WriterDesk::default());
        desk.supply(recovered.ready);
        let stop = Arc::new(AtomicBool::new(false));
        let rebuild = recovered.rebuilds.then(|| Rebuild::new(slots.clone(), stop.clone()));
        let rebuild = if slots.identity.is_small() {
            rebuild.into_iter().for_each(|rebuild| rebuild.run(&catalog));
            None
        } else {
            rebuild.map(|rebuild| (rebuild, stop))
        };
        let writer = Writer::new(
            slots.clone(),
            lanes.clone(),
            desk.clone(),
            catalog.clone(),
            (clock, sync_interval),
            recovered.resumable,
        );
        let identity = slots.identity.clone();
        let ring = Arc::new(Ring { lanes, catalog, identity, live: Arc::default(), slots });
        StaffedRing { ring, writer, desk, rebuild, lock }
    }
}

impl RingThreads {
    /// Cancelled when the writer thread ends; if nobody asked it to, nothing is recorded any more.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Cancelled when the catalog is found to be damaged: the next start makes it anew.
    #[must_use]
    pub fn damage(&self) -> CancellationToken {
        self.damage.clone()
    }

    /// The disk that the ring was opened on.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.disk.clone()
    }

    /// Writes and syncs what the lanes still hold, and closes the catalog. Streams should have
    /// ended: what they push after this is lost.
    pub fn close(self, ring: &Ring) {
        self.look.into_iter().for_each(Look::end);
        if let Some((thread, stop)) = self.rebuild {
            stop.store(true, Ordering::Relaxed);
            if thread.join().is_err() {
                error!("the thread that reads the slots panicked");
            }
        }
        self.desk.stop();
        self.lanes.wake();
        if self.writer.join().is_err() {
            error!("the writer thread panicked");
        }
        ring.catalog.stop();
        if self.catalog.join().is_err() {
            error!("the catalog thread panicked");
        }
    }
}

/// Opens the catalog in `path` and recovers what a crash left; one that is damaged is moved aside and made
/// anew.
pub(super) fn open_catalog(
    path: &Path,
    flash: &dyn Flash,
    slots: &Slots,
    clock: &Arc<dyn Clock>,
    settings: CatalogSettings,
    leases: &Arc<Leases>,
) -> Result<(CatalogState, Recovered), RingError> {
    let open = || {
        let identity = slots.identity.clone();
        CatalogState::open(path, identity, clock.clone(), settings, leases.clone())
    };
    let mark = path.join(DAMAGE_MARK);
    if flash.exists(&mark) {
        set_aside(path, flash, "it was found when the box last ran")?;
        // Durable, or a power cut would have the new catalog set aside as well.
        flash
            .remove_file(&mark)
            .and_then(|()| flash.sync_dir(path))
            .map_err(RingError::flash("removing the mark of damage"))?;
    }
    let mut state = match open() {
        Ok(state) => state,
        // Written by a newer program: not damaged, only not ours to read.
        Err(foreign @ RingError::Foreign { .. }) => return Err(foreign),
        // Whole, as far as anybody knows.
        Err(passing) if passing.may_pass() => return Err(passing),
        Err(problem) => {
            set_aside(path, flash, &told(&problem))?;
            open()?
        }
    };
    match state.recover(flash, path, slots) {
        // What the first look at its pages has not found.
        Err(problem) if problem.is_damage_of_catalog() => {
            state.close();
            set_aside(path, flash, &told(&problem))?;
            let mut state = open()?;
            let recovered = state.recover(flash, path, slots)?;
            Ok((state, recovered))
        }
        recovered => Ok((state, recovered?)),
    }
}

/// A problem with its cause.
fn told(problem: &RingError) -> String {
    match std::error::Error::source(problem) {
        Some(cause) => format!("{problem}: {cause}"),
        None => problem.to_string(),
    }
}

/// Moves a damaged catalog aside.
fn set_aside(path: &Path, flash: &dyn Flash, problem: &str) -> Result<(), RingError> {
    warn!(problem, "state.db is damaged; it is moved aside and made anew from the slots");
    for suffix in ["", "-wal", "-shm"] {
        let from = path.join(format!("state.db{suffix}"));
        if flash.exists(&from) {
            let to = path.join(format!("state.db.damaged{suffix}"));
            flash.rename(&from, &to).map_err(RingError::flash("moving state.db aside"))?;
        }
    }
    Ok(())
}
