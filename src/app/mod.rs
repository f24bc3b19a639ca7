//! The composition root: builds the box from its configuration, supervises its tasks, and shuts
//! it down in order. Decides nothing. Only this module starts tasks.

mod bridge;
mod callbacks;
pub mod confinement;
mod disk;
pub mod fleet;
mod hardware;
mod knowledge;
mod online;
mod publish_check;
mod rules;
mod sources;
mod target;
mod trials;
mod uploads;
mod watchdog;
mod wear;
mod web;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::api::control::ControlSocket;
use crate::app::bridge::RecorderIntake;
use crate::app::disk::Ending;
use crate::app::fleet::FleetParts;
use crate::app::knowledge::Knowledge;
use crate::app::online::Online;
use crate::app::publish_check::Publishers;
use crate::app::rules::RulesWatch;
use crate::app::trials::Trials;
use crate::app::uploads::Uploads;
use crate::app::watchdog::Part;
use crate::app::wear::{WearParts, WearShown};
use crate::app::web::{Web, WebParts};
use crate::config::{Config, ConfigFaults, RingConfig};
use crate::delivery::target::Target;
use crate::domain::disk::DiskFault;
use crate::fleet::FleetError;
use crate::ingest::admission::Admission;
use crate::ingest::rtmp::RtmpListener;
use crate::platform::clock::{Clock, SystemClock};
use crate::platform::flash::{Flash, SystemFlash};
use crate::platform::net::{Net, SystemNet};
use crate::platform::service_manager;
use crate::recorder::live::LiveTable;
use crate::recorder::{Recorder, RecorderSettings};
use crate::ring::RingError;
use crate::ring::catalog::CatalogSettings;
use crate::ring::disk::Disk;
use crate::ring::handle::{Ring, RingSettings};
use crate::ring::identity::RingIdentity;

/// Streams are given this long to end at shutdown, and so is what comes after them.
const END_WITHIN: Duration = Duration::from_secs(3);
/// A clip may pin this part of the ring.
const RING_PART_OF_A_CLIP: u64 = 4;
/// The longest HLS file if the configuration gives none.
const HLS_CLIP_MAX: Duration = Duration::from_secs(12 * 3_600);
/// The rate at which the length of an HLS file is turned into a part of the ring, bytes a second.
const ASSUMED_BYTES_PER_SECOND: u64 = 500_000;

/// The addresses as bound; `None` for a listener that is off.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Where encoders push.
    pub rtmp: Option<SocketAddr>,
    /// Where the API listens.
    pub api: Option<SocketAddr>,
}

/// The box cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The rules cannot be used.
    #[error(transparent)]
    Rules(#[from] ConfigFaults),
    /// The ring cannot be used.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// An address cannot be bound.
    #[error("cannot listen on {addr} for {what}")]
    Listen {
        /// The configured address.
        addr: SocketAddr,
        /// For what.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Nothing can be recorded any more; a restart of the program recovers.
    #[error("the writer thread ended unasked")]
    WriterGone,
    /// The catalog is damaged; a start of the program makes it anew.
    #[error("state.db is damaged, and is made anew at the next start")]
    CatalogDamaged,
    /// The ring's disk cannot be recorded to any more; a start of the program finds it again.
    #[error("{}", _0.words())]
    Disk(DiskFault),
    /// The ring is not where the board has its data.
    #[error("[board] {0}")]
    Board(String),
    /// The control socket cannot be bound.
    #[error("cannot bind edgerec.sock in the ring")]
    ControlSocket(#[source] std::io::Error),
    /// The upload target cannot work as configured.
    #[error("[upload] {0}")]
    Target(String),
    /// Notices cannot be told.
    #[error("callbacks: {0}")]
    Callbacks(String),
    /// The link to the fleet cannot work as configured.
    #[error("[mqtt] {0}")]
    Fleet(#[from] FleetError),
}

/// The parts of the operating system that the box stands on.
#[derive(Clone)]
pub struct Platform {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub flash: Arc<dyn Flash>,
    /// Connections.
    pub net: Arc<dyn Net>,
}

impl Platform {
    /// The real machine.
    #[must_use]
    pub fn system() -> Self {
        Platform {
            clock: Arc::new(SystemClock::new()),
            flash: Arc::new(SystemFlash),
            net: Arc::new(SystemNet),
        }
    }
}

/// Runs the box until `shutdown`; calls `ready` once, when everything listens.
///
/// # Errors
/// The box cannot start. Nothing was written then, but for what recovery writes.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), AppError> {
    run_on(Platform::system(), config, shutdown, ready).await
}

/// [`run`] on a given platform.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    platform: Platform,
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), AppError> {
    if let Some(board) = &config.hardware {
        hardware::check(board, &config.ring)?;
    }
    disk::check(&config.ring)?;
    let rules = RulesWatch::open(platform.flash.clone(), config.rules.file.clone())?;
    let target = config
        .upload
        .as_ref()
        .map(|upload| target::build(upload, &platform))
        .transpose()
        .map_err(AppError::Target)?;
    let (ring, threads) = open_ring(&config.ring, &platform, target.is_some())?;
    let ends = Ends { writer: threads.ended(), damage: threads.damage(), disk: threads.disk() };
    let parts = Parts { platform, config, rules, target, ring: ring.clone(), ends };
    let served = serve(parts, shutdown, ready).await;
    threads.close(&ring);
    served
}

/// What the box is made of, once everything that can be wrong with it was looked at.
struct Parts {
    platform: Platform,
    config: Config,
    rules: RulesWatch,
    target: Option<Arc<dyn Target>>,
    ring: Arc<Ring>,
    ends: Ends,
}

/// What ends the box, beside those who ask it to.
struct Ends {
    /// The writer has ended.
    writer: CancellationToken,
    /// The catalog is damaged.
    damage: CancellationToken,
    /// To be watched.
    disk: Disk,
}

/// Serves until `shutdown`, then ends streams first and everything else after them.
async fn serve(
    parts: Parts,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), AppError> {
    let Parts { platform, config, rules, target, ring, ends } = parts;
    let clock = platform.clock.clone();
    callbacks::address(&config, &ring);
    let changed = Arc::new(Notify::new());
    let us = config.addressee(&ring.identity.box_id);
    let (allow_local, catalog) = (config.rules.allow_local, &ring.catalog);
    let in_force =
        rules::in_force(&rules, us.clone(), allow_local, catalog, &clock, changed.clone()).await?;
    let live = Arc::new(LiveTable::default());
    let settings = recorder_settings(&config.ring, &ring.identity);
    let recorder = Recorder::new(ring.clone(), in_force.clone(), live.clone(), settings)?;
    let service = ring.catalog.call(|state| Ok(state.service())).await?;
    let online = Online::open(ring.catalog.clone(), clock.clone(), live.clone()).await?;
    let trials = Trials::open(ring.catalog.clone(), clock.clone()).await?;
    let intake =
        RecorderIntake::new(recorder, clock.clone(), online.clone(), trials, shutdown.clone());
    let intake = Arc::new(intake);
    let admission = Admission::new(clock.clone());

    let control = ControlSocket::bind(&config.ring.path).map_err(AppError::ControlSocket)?;
    let streams = TaskTracker::new();
    let ends_streams = shutdown.clone().drop_guard();
    let publishers = Publishers::new(config.rtmp.push_key.clone(), service.clone(), clock.clone());
    let ports = (intake.clone(), admission.clone(), Arc::new(publishers));
    let rtmp = listen(&config, &platform, ports, &streams, &shutdown).await?;
    let web = Web::bind(&config.api, &*platform.net).await?;
    let addresses = Ready { rtmp, api: web.as_ref().map(|web| web.addr) };
    let wake = Arc::new(Notify::new());
    let woken = wake.clone();
    ring.catalog.post(move |state| state.watch_service(Box::new(move |_| woken.notify_one())));
    streams.spawn(intake.clone().keep_time(wake, shutdown.clone()));
    let of_recorder = intake.clone();
    let recorder = Part::new("recorder", move || of_recorder.rounds(), || {});
    let pullers =
        sources::Pullers::new(intake, admission, clock.clone(), streams.clone(), shutdown.clone());
    let books = (ring.catalog.clone(), clock.clone());
    let following =
        rules::follow(rules, in_force.clone(), changed, books, pullers, shutdown.clone());
    streams.spawn(following);

    let after_streams = TaskTracker::new();
    let background = CancellationToken::new();
    callbacks::start(&ring, &platform, &after_streams, background.clone()).await?;
    let uploads = target.and_then(|target| Uploads::of(&config, target));
    let board = uploads.as_ref().map(|uploads| uploads.board.clone());
    let known =
        Arc::new(Knowledge { live: live.clone(), board: board.clone(), clock: clock.clone() });
    let of_desk = (online, known.clone());
    let desk = web::cloud_desk(&config, ring.clone(), clock.clone(), service, of_desk);
    let mut parts = vec![recorder];
    let (ending, shown) = (Ending::default(), WearShown::default());
    let of_wear = (live.clone(), in_force.clone(), config.ring.clone());
    let of_wear = WearParts::new(&ring.catalog, &clock, of_wear, &shown);
    after_streams.spawn(of_wear.watch(background.clone()));
    if let Some((mqtt, us)) = config.mqtt.as_ref().zip(us) {
        let (desk, live) = (desk.clone(), live.clone());
        let flash = (platform.flash.clone(), config.ring.path.clone());
        let events = ring.catalog.call(|state| Ok(state.fleet_news())).await?;
        let of_fleet = FleetParts {
            desk,
            rules: in_force,
            live,
            events,
            flash,
            ending: ending.clone(),
            wear: shown.clone(),
        };
        parts.extend(fleet::start(mqtt, us, of_fleet, &after_streams, &background)?);
    }
    if let Some(uploads) = uploads {
        uploads.start(&ring, &clock, &after_streams, background.clone());
    }
    if let Some(web) = web {
        let zones = hardware::zones(config.hardware.as_ref());
        let of_web =
            WebParts { desk, live: live.clone(), board: board.clone(), zones, wear: shown };
        web.start(of_web, &after_streams, &background);
    }
    let shining = hardware::shine(config.hardware, ring.clone(), live, background.clone());
    after_streams.spawn(shining);
    parts.extend(Part::of_ring(&ring, board.clone()));
    after_streams.spawn(control.run(ring, known, after_streams.clone(), background.clone()));
    ready(addresses);
    watchdog::tell(service_manager::ready());
    after_streams.spawn(watchdog::watch(parts, clock, shutdown.clone()));

    let broken = tokio::select! {
        () = shutdown.cancelled() => None,
        () = ends.writer.cancelled() => Some(AppError::WriterGone),
        () = ends.damage.cancelled() => Some(AppError::CatalogDamaged),
        fault = disk::watch(ends.disk, config.ring, ending) => Some(AppError::Disk(fault)),
    };
    end_in_order((ends_streams, streams), (background, after_streams)).await;
    broken.map_or(Ok(()), Err)
}

/// Ends streams first, and everything else after them.
async fn end_in_order(
    (ends_streams, streams): (DropGuard, TaskTracker),
    (background, after_streams): (CancellationToken, TaskTracker),
) {
    info!("shutting down");
    watchdog::tell(service_manager::stopping());
    drop(ends_streams);
    end_within("streams", &streams).await;
    background.cancel();
    end_within("transfers and readers", &after_streams).await;
}

/// Waits for tasks that were told to end.
async fn end_within(what: &str, tasks: &TaskTracker) {
    tasks.close();
    if tokio::time::timeout(END_WITHIN, tasks.wait()).await.is_err() {
        warn!("some {what} did not end in time");
    }
}

/// Opens the ring, or makes it first where the configuration says so.
fn open_ring(
    config: &RingConfig,
    platform: &Platform,
    delivers: bool,
) -> Result<(Arc<Ring>, crate::ring::handle::RingThreads), AppError> {
    let settings = RingSettings {
        path: config.path.clone(),
        sync_interval: config.sync_interval,
        catalog: CatalogSettings { on_full: config.on_full, delivers },
    };
    let open = || Ring::open(&settings, platform.flash.clone(), platform.clock.clone());
    match open() {
        Err(RingError::Missing { .. }) if config.create => {
            info!(path = %config.path.display(), "there is no ring yet, making one");
            let identity =
                RingIdentity::plan(&config.path, config.capacity_bytes, config.slot_bytes)?;
            identity.create(&*platform.flash, &config.path)?;
            Ok(open()?)
        }
        other => Ok(other?),
    }
}

fn recorder_settings(config: &RingConfig, identity: &RingIdentity) -> RecorderSettings {
    let quarter = identity.capacity_bytes / RING_PART_OF_A_CLIP / ASSUMED_BYTES_PER_SECOND;
    let hls_clip_max =
        config.hls_clip_max.unwrap_or(HLS_CLIP_MAX.min(Duration::from_secs(quarter.max(60))));
    let hls_clip_max_s = u32::try_from(hls_clip_max.as_secs()).unwrap_or(u32::MAX);
    let settings =
        RecorderSettings::for_slots(identity.slot_bytes, config.keep_all, hls_clip_max_s);
    let clips_bytes_max = identity.capacity_bytes / RING_PART_OF_A_CLIP;
    RecorderSettings { clips_bytes_max, ..settings }
}

/// Binds what is configured for RTMP and starts to accept; tells where.
async fn listen(
    config: &Config,
    platform: &Platform,
    (intake, admission, check): (Arc<RecorderIntake>, Admission, Arc<Publishers>),
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Option<SocketAddr>, AppError> {
    let Some(addr) = config.rtmp.listen else { return Ok(None) };
    let failed = |source| AppError::Listen { addr, what: "rtmp", source };
    let listener =
        RtmpListener::bind(&*platform.net, addr, platform.clock.clone(), intake, admission, check)
            .await
            .map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tasks.spawn(listener.run(tasks.clone(), shutdown.clone()));
    Ok(Some(bound))
}
