//! What the fleet needs of the box.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::domain::fleet::refused::Refused;
use crate::domain::ids::SessionId;
use crate::domain::matching::Decision;
use crate::domain::notice::{EventKind, NoticeSeq};
use crate::domain::service::fleet_rules::News;
use crate::domain::service::layers::SentLayer;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::domain::wear::WearFigures;

/// What the port gives back.
pub type FleetFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The box behind the link.
pub trait FleetBox: Send + Sync {
    /// Takes what came on a layer's topic. What is newer is durable and in force when this returns.
    fn take(&self, layer: SentLayer, bytes: Bytes) -> FleetFuture<'_, Result<News, NotTaken>>;
    /// Does what a command asks, once for its token; gives the body of the answer.
    fn command(&self, bytes: Bytes) -> FleetFuture<'_, Vec<u8>>;
    /// The revision of a layer that is in force.
    fn applied(&self, layer: SentLayer) -> Option<u64>;
    /// The revision of a layer that the box has; above the one in force where it went back.
    fn received(&self, layer: SentLayer) -> Option<u64>;
    /// What the box has of a layer and went back from, and why.
    fn went_back(&self, layer: SentLayer) -> Option<Refused>;
    /// The live streams in the order of their keys. Costs little: it is asked every second.
    fn streams(&self) -> Vec<StreamReport>;
    /// How ring, queue and flash stand; `None` if the box cannot tell.
    fn figures(&self) -> FleetFuture<'_, Option<BoxFigures>>;
    /// A document was refused. Called no more often than it may cost the flash a write.
    fn refused(&self, layer: SentLayer, refused: &Refused);
    /// Events after a number that the fleet has not, in order; at most `most`. `None`: they cannot be
    /// read now.
    fn events(&self, after: NoticeSeq, most: usize) -> FleetFuture<'_, Option<Vec<OutgoingEvent>>>;
    /// The broker has these events; `false`: that could not be kept.
    fn told(&self, events: Vec<NoticeSeq>) -> FleetFuture<'_, bool>;
    /// Why the box ends, once it was told to.
    fn ends_because(&self) -> &'static str {
        "shutdown"
    }
    /// Told whenever there is a new event.
    fn event_news(&self) -> Arc<Notify>;
}

/// An event on its way to the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingEvent {
    /// Its number.
    pub seq: NoticeSeq,
    /// Its kind.
    pub kind: EventKind,
    /// What it says, as JSON text.
    pub body: String,
}

/// A document that changed nothing.
#[derive(Debug)]
pub enum NotTaken {
    /// The box does not want it.
    Refused(Refused),
    /// The box cannot store it. It may come again.
    NotStored,
}

/// A live stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamReport {
    /// Which.
    pub key: StreamKey,
    /// Its session.
    pub session: SessionId,
    /// When it began.
    pub began: BootTime,
    /// What was decided when its session began.
    pub decision: Decision,
    /// What is in force now decides otherwise, and this is when the session ends for it.
    pub stale: Option<Restart>,
}

/// When a stale session is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// At the first key frame from then on.
    From(BootTime),
    /// When the stream comes back by itself.
    NextStart,
}

/// How the box stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxFigures {
    /// The ring.
    pub ring: RingFigures,
    /// What is to be delivered.
    pub queue: QueueFigures,
    /// How long the ring keeps what is written.
    pub retention: RetentionFigures,
    /// How worn its disk is; `None` where that is not known.
    pub wear: Option<WearFigures>,
    /// Free bytes of the ring's file system.
    pub flash_free_bytes: Option<u64>,
}

/// How long the ring keeps what is written now, at the rates of late.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionFigures {
    /// Bytes a second that a stream writes, and the seconds that are kept of it; of the streams that
    /// write.
    pub streams: BTreeMap<StreamKey, (u64, Option<u64>)>,
    /// Seconds without a link for which nothing is lost.
    pub safe_offline_s: Option<u64>,
}

/// How the ring stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingFigures {
    /// Its budget.
    pub capacity_bytes: u64,
    /// All slots.
    pub slots: u64,
    /// Slots that hold nothing.
    pub slots_spare: u64,
    /// Slots that the flash failed in.
    pub slots_failed: u64,
    /// Slots whose content is not known yet: the catalog was lost and is being made anew.
    pub slots_unread: u64,
    /// Gaps ever entered in the ledger.
    pub gaps: u64,
    /// Losses ever entered in the ledger.
    pub losses: u64,
}

/// How the delivery stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFigures {
    /// Files that wait or are on their way.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that will not be delivered.
    pub failed: u64,
}
