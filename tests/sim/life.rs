//! One life of the box's process: the production code from opening the ring to its end, put
//! together as the composition root does, with nobody but the simulation at work.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use edgerec::delivery::board::Board;
use edgerec::delivery::ring_shelf::RingShelf;
use edgerec::delivery::settings::{DeliverySettings, Rest};
use edgerec::delivery::worker::Worker;
use edgerec::domain::eviction::OnFull;
use edgerec::domain::fleet::document::Addressee;
use edgerec::domain::matching::RuleTable;
use edgerec::platform::clock::Clock;
use edgerec::platform::flash::FlashLock;
use edgerec::platform::links::Links;
use edgerec::recorder::live::LiveTable;
use edgerec::recorder::rules::{Rules, RulesInForce};
use edgerec::recorder::{Recorder, RecorderSettings};
use edgerec::ring::RingError;
use edgerec::ring::catalog::{Catalog, CatalogSettings};
use edgerec::ring::handle::{Ring, RingSettings, StaffedRing, StillRing};
use edgerec::ring::writer::Writer;
use edgerec::sim::clock::SimClock;
use edgerec::sim::flash::SimFlash;
use edgerec::sim::jobs::SteppedJobs;
use edgerec::sim::timers;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::vod::SimVod;

/// Bytes of a slot: room for some forty pictures.
pub const SLOT_BYTES: u64 = 256 << 10;
pub const SLOTS: u32 = 10;
/// Slots, and what is kept for the catalog.
pub const CAPACITY_BYTES: u64 = SLOTS as u64 * SLOT_BYTES + (8 << 20);

/// What outlives the process.
pub struct Grounds<'a> {
    pub path: &'a Path,
    pub flash: &'a SimFlash,
    pub clock: &'a Arc<SimClock>,
    pub vod: &'a Arc<SimVod>,
    pub on_full: OnFull,
}

pub struct Life {
    pub ring: Arc<Ring>,
    pub jobs: Arc<SteppedJobs>,
    pub writer: Writer,
    pub recorder: Arc<Recorder>,
    pub rules: RulesInForce,
    pub runtime: Runtime,
    _lock: Box<dyn FlashLock>,
}

/// The identity of the box in its fleet.
pub fn us() -> Addressee {
    Addressee { fleet: "fleet".to_owned(), box_id: "box".to_owned() }
}

struct NoLinks;

impl Links for NoLinks {
    fn outgoing(&self) -> Option<String> {
        None
    }
}

impl Life {
    /// Starts the box on what is there.
    ///
    /// # Errors
    /// The ring cannot be opened.
    pub fn begin(grounds: &Grounds<'_>) -> Result<Life, RingError> {
        let settings = RingSettings {
            path: grounds.path.to_owned(),
            sync_interval: Duration::from_secs(1),
            catalog: CatalogSettings { on_full: grounds.on_full, delivers: true },
        };
        let clock: Arc<dyn Clock> = grounds.clock.clone();
        let flash = Arc::new(grounds.flash.clone());
        let (state, still) = StillRing::open(&settings, flash, clock.clone())?;
        let jobs = Arc::new(SteppedJobs::default());
        let catalog = Catalog::over(jobs.clone(), &state);
        jobs.own(state);
        let StaffedRing { ring, writer, lock, .. } = still.staff(catalog);
        let rules = rules_in_force(&ring.catalog, clock.clone())?;
        let mut recording = RecorderSettings::for_slots(SLOT_BYTES, false, 3_600);
        recording.clips_bytes_max = u64::from(SLOTS) * SLOT_BYTES / 4;
        let live = Arc::new(LiveTable::default());
        let recorder = Arc::new(Recorder::new(ring.clone(), rules.clone(), live, recording)?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .max_blocking_threads(1)
            .build()
            .expect("a runtime without sockets");
        // Each attempt opens a file, which costs the simulation more than anything else.
        let target_rest =
            Rest { first: Duration::from_secs(5), longest: Duration::from_secs(1_800) };
        let delivery = DeliverySettings { parallel: 1, target_rest, ..DeliverySettings::default() };
        let worker = Worker {
            shelf: Arc::new(RingShelf::new(ring.clone())),
            target: grounds.vod.clone(),
            clock,
            links: Arc::new(NoLinks),
            board: Arc::new(Board::new(&delivery)),
            wake: ring.catalog.news(),
            settings: delivery,
        };
        runtime.spawn(worker.run(CancellationToken::new()));
        Ok(Life { ring, jobs, writer, recorder, rules, runtime, _lock: lock })
    }

    /// Has delivery work for some simulated time.
    pub fn deliver(&self, time: Duration) {
        self.runtime.block_on(timers::pass(time));
    }
}

/// The rules that the fleet has sent, and whatever follows them.
fn rules_in_force(catalog: &Catalog, clock: Arc<dyn Clock>) -> Result<RulesInForce, RingError> {
    catalog.call_blocking(move |state| {
        let now = clock.now().wall.unix;
        let adopted = state.change_service(|service, changes| {
            service.adopt_documents(&us(), now, changes);
            Ok(())
        })?;
        adopted.expect("adopting is not refused");
        let table = state.service().load().layers.table().clone();
        let in_force: RulesInForce =
            Arc::new(ArcSwap::from_pointee(Rules::first(RuleTable::clone(&table))));
        let (followed, last) = (in_force.clone(), Mutex::new(table));
        state.watch_service(Box::new(move |service| {
            let table = service.layers.table();
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if !Arc::ptr_eq(&last, table) {
                *last = table.clone();
                let (apply, since) = (service.layers.apply(), clock.now().boot);
                let next = followed.load().followed_by(RuleTable::clone(table), apply, since);
                followed.store(Arc::new(next));
            }
        }));
        Ok(in_force)
    })
}
