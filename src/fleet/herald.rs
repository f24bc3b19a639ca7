//! Tells the fleet what happened: the events of the outbox in the order of their numbers, at QoS 1.
//! An event is told once its acknowledgement has come, and not before; on a new connection all that
//! were not are sent again, under the same sequence numbers, by which receivers know doubles.
//!
//! A few are on their way at a time, so that state and answers find room beside them. One that the
//! broker does not take, or that is larger than what it takes, does not hold up the others: it is
//! sent again later, and on the next connection. A kind that is refused again and again rests.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::domain::fleet::rests::Rests;
use crate::domain::log_pace::LogPace;
use crate::domain::notice::{EventKind, NoticeSeq};
use crate::fleet::link::{LinkStatus, Standing};
use crate::fleet::outbound::{Message, Outbound};
use crate::fleet::port::{FleetBox, OutgoingEvent};
use crate::fleet::topics::Topics;
use crate::fleet::until;
use crate::platform::clock::Clock;

/// Events on their way at the same time.
pub(super) const EVENTS_IN_FLIGHT_MAX: usize = 8;
/// What the broker does not take is sent again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// What could not be read is read again after this time.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What the broker says to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// On which connection.
    pub(super) connection: u64,
    /// Which.
    pub(super) event: NoticeSeq,
    /// Whether it has it.
    pub(super) taken: bool,
}

/// The task.
pub struct Herald {
    pub(super) status: watch::Receiver<LinkStatus>,
    pub(super) acknowledged: mpsc::Receiver<Acknowledged>,
    pub(super) told_by: Teller,
}

/// What the herald tells from and over.
pub(super) struct Teller {
    pub(super) outbound: Arc<Outbound>,
    pub(super) us: Arc<dyn FleetBox>,
    pub(super) news: Arc<Notify>,
    pub(super) topics: Arc<Topics>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Herald {
    /// Tells until `shutdown`. What is on its way then is sent again next time.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut rests = Rests::default();
        loop {
            rests.connected();
            let round = match *self.status.borrow_and_update() {
                LinkStatus::Up(standing) if standing.qos == QoS::AtLeastOnce => {
                    Some(Round::over(standing, &mut rests))
                }
                LinkStatus::Up(_) => {
                    warn!("the broker acknowledges nothing: events stay in the outbox");
                    None
                }
                LinkStatus::Away => None,
            };
            let Herald { status, acknowledged, told_by } = &mut self;
            let telling = async {
                let Some(mut round) = round else { return std::future::pending().await };
                loop {
                    round.step(told_by, acknowledged).await;
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = status.changed() => if changed.is_err() { return },
                () = telling => {}
            }
        }
    }
}

/// What is told over one connection.
struct Round<'a> {
    standing: Standing,
    /// Kinds that the broker does not take.
    rests: &'a mut Rests,
    /// All up to here were sent, or left.
    cursor: NoticeSeq,
    /// Whether there may be more behind it.
    more: bool,
    /// On their way.
    on_their_way: Vec<(NoticeSeq, EventKind)>,
    /// There is something before the cursor that the broker did not take; it is sent again then.
    again_at: Option<Instant>,
    refusals: LogPace,
}

impl<'a> Round<'a> {
    fn over(standing: Standing, rests: &'a mut Rests) -> Self {
        Round {
            standing,
            rests,
            cursor: NoticeSeq(0),
            more: true,
            on_their_way: Vec::new(),
            again_at: None,
            refusals: LogPace::default(),
        }
    }

    /// Sends what there is room for, and waits for what comes next.
    async fn step(&mut self, by: &Teller, acknowledged: &mut mpsc::Receiver<Acknowledged>) {
        while self.more && self.on_their_way.len() < EVENTS_IN_FLIGHT_MAX {
            self.send_some(by).await;
        }
        let now = by.clock.now().boot;
        let next_try = self.rests.next_try().map(|at| Instant::now() + at.since(now));
        tokio::select! {
            first = acknowledged.recv() => if let Some(first) = first {
                let rest = std::iter::from_fn(|| acknowledged.try_recv().ok());
                let all: Vec<Acknowledged> = std::iter::once(first).chain(rest).collect();
                self.settle(by, &all).await;
            },
            () = by.news.notified() => self.more = true,
            () = until(self.again_at) => self.begin_again(),
            () = until(next_try) => {
                self.rests.wake(by.clock.now().boot);
                self.begin_again();
            }
        }
    }

    /// From the first one that the fleet has not.
    fn begin_again(&mut self) {
        (self.cursor, self.more, self.again_at) = (NoticeSeq(0), true, None);
    }

    async fn send_some(&mut self, by: &Teller) {
        let most = EVENTS_IN_FLIGHT_MAX - self.on_their_way.len();
        let Some(events) = by.us.events(self.cursor, most).await else {
            self.more = false;
            self.again_at = Some(Instant::now() + READ_AGAIN_AFTER);
            return;
        };
        self.more = events.len() == most;
        for OutgoingEvent { seq, kind, body } in events {
            self.cursor = seq;
            // Sent again: what was sent before may still be on its way.
            if self.on_their_way.iter().any(|(sent, _)| *sent == seq) {
                continue;
            }
            let message = Message {
                topic: by.topics.event(kind),
                qos: QoS::AtLeastOnce,
                retain: false,
                payload: body.into(),
                properties: PublishProperties {
                    content_type: Some("application/json".to_owned()),
                    ..PublishProperties::default()
                },
                event: Some(seq),
            };
            if message.packet_bytes_max() > self.standing.packet_bytes_max {
                self.leave(by, seq, "it is larger than what the broker takes");
                continue;
            }
            if !self.rests.may_go(kind, seq) {
                continue;
            }
            if !by.outbound.publish(self.standing.connection, message).await {
                // The link is lost, which the status tells in a moment.
                self.more = false;
                return;
            }
            self.on_their_way.push((seq, kind));
        }
    }

    async fn settle(&mut self, by: &Teller, acknowledged: &[Acknowledged]) {
        let mut taken = Vec::new();
        let connection = self.standing.connection;
        for one in acknowledged.iter().filter(|one| one.connection == connection) {
            let at = self.on_their_way.iter().position(|(sent, _)| *sent == one.event);
            let Some((event, kind)) = at.map(|at| self.on_their_way.swap_remove(at)) else {
                continue;
            };
            if !one.taken {
                self.rests.refused(kind, event, by.clock.now().boot);
                self.leave(by, event, "the broker does not take it");
                continue;
            }
            taken.push(event);
            if self.rests.taken(kind) {
                self.begin_again();
            }
        }
        if !taken.is_empty() && !by.us.told(taken).await {
            // They are still in the outbox.
            self.again_at.get_or_insert_with(|| Instant::now() + AGAIN_AFTER);
        }
    }

    fn leave(&mut self, by: &Teller, event: NoticeSeq, why: &str) {
        self.again_at.get_or_insert_with(|| Instant::now() + AGAIN_AFTER);
        if let Some(held_back) = self.refusals.take(by.clock.now().boot) {
            warn!(seq = event.0, why, held_back, "an event stays in the outbox");
        }
    }
}
