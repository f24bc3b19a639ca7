//! Tells the fleet of the box: that it is there, and how it stands whenever that changes. Both are
//! retained, so whoever listens later knows too.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::domain::service::layers::SentLayer;
use crate::fleet::PACKET_OVERHEAD_BYTES;
use crate::fleet::link::{LinkStatus, Standing};
use crate::fleet::notebook::Notebook;
use crate::fleet::outbound::{Message, Outbound};
use crate::fleet::port::{FleetBox, StreamReport};
use crate::fleet::presence::Presence;
use crate::fleet::state::{LayerStanding, State};
use crate::fleet::topics::Topics;
use crate::platform::clock::Clock;

/// The streams are looked at this often, and the state is told no more often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The state is told after this many looks also if only figures have changed: each time it costs a
/// few kilobytes of what may be a mobile link.
const TELL_EVERY_LOOKS: u32 = 300;

/// The task.
pub struct Voice {
    outbound: Arc<Outbound>,
    status: watch::Receiver<LinkStatus>,
    topics: Arc<Topics>,
    presence: Arc<Presence>,
    notebook: Arc<Notebook>,
    us: Arc<dyn FleetBox>,
    clock: Arc<dyn Clock>,
    /// The streams as they were told last, and the rules.
    told: Option<(Vec<StreamReport>, [LayerStanding; 2])>,
    /// Looks since the state was told; `None`: it is to be told at the next.
    looks: Option<u32>,
}

impl Voice {
    pub(super) fn new(
        (outbound, status): (Arc<Outbound>, watch::Receiver<LinkStatus>),
        (topics, presence): (Arc<Topics>, Arc<Presence>),
        notebook: Arc<Notebook>,
        us: Arc<dyn FleetBox>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (told, looks) = (None, None);
        Voice { outbound, status, topics, presence, notebook, us, clock, told, looks }
    }

    /// Tells until `shutdown`, and of that too.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A change of the link while a message is under way is seen right after it.
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = self.status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.looks = None;
                    if let Some(standing) = self.standing() {
                        let birth = self.presence.birth(standing.connection);
                        self.say(standing, self.topics.online.clone(), birth).await;
                    }
                }
                () = self.notebook.news.notified() => self.looks = None,
                _ = look.tick() => if let Some(standing) = self.standing() {
                    self.tell_if_due(standing, &shutdown).await;
                },
            }
        }
        self.farewell();
    }

    fn standing(&self) -> Option<Standing> {
        match *self.status.borrow() {
            LinkStatus::Up(standing) => Some(standing),
            LinkStatus::Away => None,
        }
    }

    /// Says something that is kept for whoever listens later. It is said anew on each connection.
    async fn say(&self, standing: Standing, topic: String, what: String) {
        self.outbound.publish(standing.connection, kept(standing, topic, what)).await;
    }

    /// Says that the box ends in order, unless that would mean to wait.
    fn farewell(&self) {
        if let Some(standing) = self.standing() {
            let farewell = self.presence.farewell(standing.connection, self.us.ends_because());
            let farewell = kept(standing, self.topics.online.clone(), farewell);
            // If it cannot be said, the broker says the will.
            let _ = self.outbound.try_publish(standing.connection, &farewell);
            self.outbound.try_disconnect();
        }
    }

    async fn tell_if_due(&mut self, standing: Standing, shutdown: &CancellationToken) {
        let now = (self.us.streams(), self.layers());
        let looks = self.looks.map(|looks| looks + 1);
        if looks.is_some_and(|looks| looks < TELL_EVERY_LOOKS) && self.told.as_ref() == Some(&now) {
            self.looks = looks;
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.tell(standing, now) => {}
        }
    }

    fn layers(&self) -> [LayerStanding; 2] {
        [SentLayer::Fleet, SentLayer::Box].map(|layer| LayerStanding {
            layer,
            received: self.us.received(layer),
            applied: self.us.applied(layer),
            went_back: self.us.went_back(layer),
        })
    }

    async fn tell(
        &mut self,
        standing: Standing,
        (streams, layers): (Vec<StreamReport>, [LayerStanding; 2]),
    ) {
        let figures = self.us.figures().await;
        // What is noted while this is written is told in the next round.
        self.looks = Some(0);
        let notes = self.notebook.read();
        let state = State {
            boot_id: self.presence.boot_id(),
            now: self.clock.now(),
            notes: &notes,
            layers: &layers,
            streams: &streams,
            figures: figures.as_ref(),
        };
        let topic = self.topics.state.clone();
        let room = standing.packet_bytes_max.saturating_sub(topic.len() + PACKET_OVERHEAD_BYTES);
        let state = state.to_json(room);
        self.told = Some((streams, layers));
        // A broker that takes so little is told nothing rather than loses the connection.
        if state.len() <= room {
            self.say(standing, topic, state).await;
        }
    }
}

fn kept(standing: Standing, topic: String, what: String) -> Message {
    Message {
        topic,
        qos: standing.qos,
        retain: standing.retains,
        payload: what.into(),
        properties: PublishProperties::default(),
        event: None,
    }
}
