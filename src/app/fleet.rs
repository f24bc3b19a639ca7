//! The box's side of the fleet: documents go through the gate into the catalog, and what the state
//! tells is gathered from where it is known.

mod commands;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::api::cloud::CloudDesk;
use crate::app::AppError;
use crate::app::disk::Ending;
use crate::app::watchdog::{Part, Pulse};
use crate::app::wear::WearShown;
use crate::config::MqttConfig;
use crate::domain::fleet::document::{Addressee, Document, Gate};
use crate::domain::fleet::keyring::Keyring;
use crate::domain::fleet::refused::Refused;
use crate::domain::notice::box_event::BoxNews;
use crate::domain::notice::{BoxEvent, NoticeSeq};
use crate::domain::restart_plan::restart_at;
use crate::domain::service::fleet_rules::News;
use crate::domain::service::layers::SentLayer;
use crate::domain::service::{Changes, Service};
use crate::domain::stream_key::StreamKey;
use crate::fleet::{
    BoxFigures, BrokerAccess, Fleet, FleetBox, FleetFuture, FleetSettings, NotTaken, OutgoingEvent,
    QueueFigures, Restart, RetentionFigures, RingFigures, StreamReport,
};
use crate::platform::flash::Flash;
use crate::recorder::live::LiveTable;
use crate::recorder::rules::RulesInForce;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::figures::CatalogFigures;
use crate::ring::catalog::forecast::{Forecast, StreamForecast};
use crate::ring::catalog::notices::FleetEvent;
use crate::ring::catalog::open::{FileState, SlotState};
use crate::ring::layout::stream_hash;

/// What the fleet is told from, and what takes its rules.
pub(super) struct FleetParts {
    pub(super) desk: Arc<CloudDesk>,
    pub(super) rules: RulesInForce,
    pub(super) live: Arc<LiveTable>,
    /// Told of new events.
    pub(super) events: Arc<Notify>,
    /// With the folder of the ring.
    pub(super) flash: (Arc<dyn Flash>, PathBuf),
    pub(super) ending: Ending,
    pub(super) wear: WearShown,
}

/// Keeps the link to the fleet until `shutdown`; gives what the watchdog is to look at.
///
/// # Errors
/// A certificate or key cannot be used.
pub(super) fn start(
    mqtt: &MqttConfig,
    us: Addressee,
    parts: FleetParts,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Vec<Part>, AppError> {
    let settings =
        FleetSettings { broker: access(mqtt), us: us.clone(), boot_id: parts.desk.clock.boot_id() };
    let gate = Arc::new(Gate::new(us, Keyring::new(mqtt.rules_public_keys.clone())));
    let clock = parts.desk.clock.clone();
    let us = Arc::new(OurBox { gate, parts });
    let Fleet { link, keeper, errands, voice, herald } = Fleet::new(&settings, us, clock)?;
    let names = ["fleet link", "fleet keeper", "fleet errands", "fleet voice", "fleet herald"];
    let pulses = names.map(Pulse::new);
    let parts = pulses.iter().map(Pulse::part).collect();
    let [of_link, of_keeper, of_errands, of_voice, of_herald] = pulses;
    tasks.spawn(of_link.through(link.run(shutdown.clone())));
    tasks.spawn(of_keeper.through(keeper.run(shutdown.clone())));
    tasks.spawn(of_errands.through(errands.run(shutdown.clone())));
    tasks.spawn(of_voice.through(voice.run(shutdown.clone())));
    tasks.spawn(of_herald.through(herald.run(shutdown.clone())));
    Ok(parts)
}

/// How the broker of a configuration is reached.
#[must_use]
pub fn access(mqtt: &MqttConfig) -> BrokerAccess {
    BrokerAccess {
        url: mqtt.url.clone(),
        ca: mqtt.ca.clone(),
        identity: mqtt.identity.clone().map(|identity| (identity.cert, identity.key)),
    }
}

/// The box as the fleet sees it.
struct OurBox {
    gate: Arc<Gate>,
    parts: FleetParts,
}

impl OurBox {
    async fn take(&self, layer: SentLayer, bytes: Bytes) -> Result<News, NotTaken> {
        let (gate, now) = (self.gate.clone(), self.parts.desk.clock.now().wall);
        // A document may have a mebibyte: that is not read where streams are served.
        let opened = tokio::task::spawn_blocking(move || gate.open(layer, &bytes, now)).await;
        let document = match opened {
            Ok(opened) => opened.map_err(NotTaken::Refused)?,
            Err(problem) => {
                error!(%problem, "a document of the fleet could not be read");
                return Err(NotTaken::NotStored);
            }
        };
        let us = self.gate.addressee().clone();
        let working = self.parts.live.keys();
        let store = move |state: &mut CatalogState| store(state, &document, &us, &working);
        let stored = self.parts.desk.ring.catalog.call(store).await;
        stored.unwrap_or_else(|problem| {
            error!(%problem, "the rules of the fleet could not be stored, the old ones stay");
            Err(NotTaken::NotStored)
        })
    }

    /// A live stream, looked at under the rules in force.
    fn report(&self, key: StreamKey) -> Option<StreamReport> {
        let live = self.parts.live.get(&key)?;
        let rules = self.parts.rules.load();
        let stale = !live.decision.same_content(&rules.table.resolve(&key));
        // Until the stream's next sample its stage has not seen the newest rules.
        let plan = || restart_at(&rules.apply, rules.since, stream_hash(&key));
        let plan = || live.restart.or_else(plan).map_or(Restart::NextStart, Restart::From);
        let stale = stale.then(plan);
        Some(StreamReport {
            key,
            session: live.session,
            began: live.began.boot,
            decision: live.decision,
            stale,
        })
    }
}

/// Stores a document if it is newer; it is in force then.
fn store(
    state: &mut CatalogState,
    document: &Document,
    us: &Addressee,
    working: &[StreamKey],
) -> Result<Result<News, NotTaken>, RingError> {
    let news = match state.service().load().fleet_rules.judge(document) {
        Ok(News::Newer) => News::Newer,
        other => return Ok(other.map_err(NotTaken::Refused)),
    };
    let now = state.now().at.wall.unix;
    let (layer, revision) = (document.layer, document.set.revision);
    let event = BoxEvent { at: now, what: BoxNews::Applied { layer, revision } };
    let take = |service: &mut Service, changes: &mut Changes| {
        service.take_document(document, us, working, now, changes);
        Ok(news)
    };
    let changed = state.change_service_and_tell(take, Some(event))?;
    Ok(Ok(changed.expect("what was judged is not refused")))
}

impl FleetBox for OurBox {
    fn take(&self, layer: SentLayer, bytes: Bytes) -> FleetFuture<'_, Result<News, NotTaken>> {
        Box::pin(self.take(layer, bytes))
    }

    fn command(&self, bytes: Bytes) -> FleetFuture<'_, Vec<u8>> {
        let now = self.parts.desk.clock.now().wall;
        Box::pin(commands::answer(&self.gate, &self.parts.desk, bytes, now))
    }

    fn applied(&self, layer: SentLayer) -> Option<u64> {
        self.parts.desk.service.load().fleet_rules.applied(layer)
    }

    fn received(&self, layer: SentLayer) -> Option<u64> {
        self.parts.desk.service.load().fleet_rules.revision(layer)
    }

    fn went_back(&self, layer: SentLayer) -> Option<Refused> {
        self.parts.desk.service.load().fleet_rules.went_back(layer)
    }

    fn streams(&self) -> Vec<StreamReport> {
        self.parts
            .desk
            .online
            .live()
            .into_iter()
            .filter_map(|entry| self.report(entry.key))
            .collect()
    }

    fn figures(&self) -> FleetFuture<'_, Option<BoxFigures>> {
        Box::pin(async {
            let figures = self
                .parts
                .desk
                .ring
                .catalog
                .call(|state| Ok((state.figures()?, state.forecast()?)))
                .await;
            let figures = figures.inspect_err(|problem| error!(%problem, "no figures")).ok()?;
            Some(self.told_of(&figures.0, figures.1))
        })
    }

    fn refused(&self, layer: SentLayer, refused: &Refused) {
        let refused = refused.clone();
        self.parts.desk.ring.catalog.post(move |state| {
            let what = BoxNews::Refused { layer, refused };
            let event = BoxEvent { at: state.now().at.wall.unix, what };
            if let Err(problem) = state.post_box_event(&event) {
                error!(%problem, "a refusal is told by the state only");
            }
        });
    }

    fn events(&self, after: NoticeSeq, most: usize) -> FleetFuture<'_, Option<Vec<OutgoingEvent>>> {
        Box::pin(async move {
            let catalog = &self.parts.desk.ring.catalog;
            let events = catalog.call(move |state| state.events_for_fleet(after, most)).await;
            let events = events.inspect_err(|problem| error!(%problem, "no events are told"));
            let outgoing = |FleetEvent { seq, kind, body }| OutgoingEvent { seq, kind, body };
            Some(events.ok()?.into_iter().map(outgoing).collect())
        })
    }

    fn told(&self, events: Vec<NoticeSeq>) -> FleetFuture<'_, bool> {
        Box::pin(async move {
            let catalog = &self.parts.desk.ring.catalog;
            let kept = catalog.call(move |state| state.fleet_has(&events)).await;
            let kept = kept.inspect_err(|problem| error!(%problem, "events will be told again"));
            kept.is_ok()
        })
    }

    fn ends_because(&self) -> &'static str {
        self.parts.ending.get().map_or("shutdown", |fault| fault.words())
    }

    fn event_news(&self) -> Arc<Notify> {
        self.parts.events.clone()
    }
}

impl OurBox {
    fn told_of(&self, figures: &CatalogFigures, forecast: Forecast) -> BoxFigures {
        let of_stream =
            |(key, of): (StreamKey, StreamForecast)| (key, (of.bytes_per_s, of.keeps_s));
        let slots = |state: SlotState| figures.slots[state as usize];
        let (flash, ring_path) = &self.parts.flash;
        let space = flash.space(ring_path);
        BoxFigures {
            ring: RingFigures {
                capacity_bytes: self.parts.desk.ring.identity.capacity_bytes,
                slots: u64::from(self.parts.desk.ring.identity.slots),
                slots_spare: slots(SlotState::Spare),
                slots_failed: slots(SlotState::Failed),
                slots_unread: slots(SlotState::Unread),
                gaps: figures.gaps,
                losses: figures.losses,
            },
            queue: QueueFigures {
                files: figures.queued(),
                bytes: figures.queued_bytes,
                failed: figures.files[FileState::Failed as usize],
            },
            retention: RetentionFigures {
                streams: forecast.streams.into_iter().map(of_stream).collect(),
                safe_offline_s: forecast.safe_offline_s,
            },
            wear: self.parts.wear.read(),
            flash_free_bytes: space.ok().map(|space| space.free_bytes),
        }
    }
}
