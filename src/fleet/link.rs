//! The connection: polled here and nowhere else, and nothing is waited for while it stands.
//!
//! Whenever the broker has no session of ours we listen again to our topics, because the library
//! forgets what it had not yet sent then; and at the first connection of a process in any case, so
//! that documents that came to nobody come again.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, Packet, PubAck,
    PubAckReason, Publish, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttState, Request, StateError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::domain::fleet::attempts::Attempts;
use crate::domain::log_pace::LogPace;
use crate::domain::time::ClockQuality;
use crate::fleet::errands::{self, Errand};
use crate::fleet::herald::Acknowledged;
use crate::fleet::keeper::Arrived;
use crate::fleet::notebook::Notebook;
use crate::fleet::outbound::{Message, Outbound, Requested};
use crate::fleet::presence::Presence;
use crate::fleet::topics::Topics;
use crate::fleet::{IN_FLIGHT_MAX, KEEP_ALIVE, PACKET_BYTES_MAX, tls, until};
use crate::platform::clock::Clock;
use crate::platform::random::random_u64;

/// At shutdown the farewell has this long to go out and the broker to close.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);

/// How the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkStatus {
    /// There is none.
    Away,
    /// It stands.
    Up(Standing),
}

/// A standing link, and what its broker allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The number of the connection in this process, from 1.
    pub(super) connection: u64,
    /// The largest packet that it takes.
    pub(super) packet_bytes_max: usize,
    /// The best delivery that it offers.
    pub(super) qos: QoS,
    /// Whether it keeps messages.
    pub(super) retains: bool,
}

/// The task.
pub struct Link {
    client: AsyncClient,
    outbound: Arc<Outbound>,
    events: EventLoop,
    topics: Arc<Topics>,
    presence: Arc<Presence>,
    documents: mpsc::Sender<Arrived>,
    commands: mpsc::Sender<Errand>,
    acknowledged: mpsc::Sender<Acknowledged>,
    status: watch::Sender<LinkStatus>,
    notebook: Arc<Notebook>,
    clock: Arc<dyn Clock>,
    attempts: Attempts,
    connections: u64,
    /// How the will is given to the broker: with what it has not refused.
    will_qos: QoS,
    will_retained: bool,
    /// The log of commands that were turned away.
    turned_away: LogPace,
    /// The log of what the broker did not take.
    unheard: LogPace,
    /// What we are to listen to; there was no room for the request yet.
    to_subscribe: Vec<Filter>,
    /// Answers that a lost connection has not brought to the broker for sure.
    to_say_again: VecDeque<Message>,
}

impl Link {
    pub(super) fn new(
        (client, outbound, events): (AsyncClient, Arc<Outbound>, EventLoop),
        (topics, presence): (Arc<Topics>, Arc<Presence>),
        (documents, commands, acknowledged, status): (
            mpsc::Sender<Arrived>,
            mpsc::Sender<Errand>,
            mpsc::Sender<Acknowledged>,
            watch::Sender<LinkStatus>,
        ),
        notebook: Arc<Notebook>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Link {
            client,
            outbound,
            events,
            topics,
            presence,
            documents,
            commands,
            acknowledged,
            status,
            notebook,
            clock,
            attempts: Attempts::default(),
            connections: 0,
            will_qos: QoS::AtLeastOnce,
            will_retained: true,
            turned_away: LogPace::default(),
            unheard: LogPace::default(),
            to_subscribe: Vec::new(),
            to_say_again: VecDeque::new(),
        }
    }

    /// Keeps the link until `shutdown`, and lets the farewell go out.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.attempts.begin(self.clock.now().boot);
            self.events.options.set_last_will(self.will());
            let lost = self.poll_until_lost(&shutdown).await;
            self.take_back();
            self.status.send_replace(LinkStatus::Away);
            let Some(lost) = lost else { return };
            self.note(&lost);
            let wait = self.attempts.wait(self.clock.now().boot, random_u64());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn will(&self) -> LastWill {
        let will = self.presence.will(self.connections + 1);
        let topic = self.topics.online.as_str();
        LastWill::new(topic, will, self.will_qos, self.will_retained, None)
    }

    /// Polls until the connection is lost, or cannot be made; `None`: the box shuts down.
    async fn poll_until_lost(&mut self, shutdown: &CancellationToken) -> Option<Lost> {
        let status = self.status.subscribe();
        let ending = async move {
            shutdown.cancelled().await;
            if *status.borrow() != LinkStatus::Away {
                tokio::time::sleep(FAREWELL_WITHIN).await;
            }
        };
        let mut ending = std::pin::pin!(ending);
        loop {
            // A poll must not be cut off half way, so it is only at the end of a connection.
            let polled = tokio::select! {
                () = &mut ending => return None,
                // What is on its way changes here only, between two polls.
                () = until(self.outbound.late_at()) => {
                    return Some(Lost::because("the broker does not acknowledge what it is sent"));
                }
                polled = AssertUnwindSafe(self.events.poll()).catch_unwind() => polled,
            };
            match polled {
                Ok(Ok(Event::Incoming(packet))) => self.came(packet),
                Ok(Ok(Event::Outgoing(Outgoing::Publish(number)))) => self.outbound.sent(number),
                Ok(Ok(Event::Outgoing(_))) => {}
                // The broker closes after the farewell. Were we to close first, with something of
                // its still unread, the farewell would be lost with the connection.
                Ok(Err(_)) if shutdown.is_cancelled() => return None,
                Ok(Err(problem)) => {
                    self.ask_for_less(&problem);
                    return Some(self.lost(&problem));
                }
                Err(_) => {
                    error!("the MQTT library panicked; the connection is made anew");
                    return Some(Lost::because("the library panicked"));
                }
            }
            self.subscribe();
            self.say_again();
        }
    }

    fn came(&mut self, packet: Packet) {
        match packet {
            Packet::ConnAck(ack) => self.connected(&ack),
            Packet::Publish(publish) if publish.topic == self.topics.online => {
                self.said_in_our_name(&publish.payload);
            }
            Packet::Publish(publish) if self.topics.is_command(&publish.topic) => {
                self.command(publish);
            }
            Packet::Publish(publish) => self.document(publish),
            Packet::SubAck(ack) => self.listens(&ack),
            Packet::PubAck(ack) => self.has(&ack),
            _ => {}
        }
    }

    fn connected(&mut self, ack: &ConnAck) {
        self.connections += 1;
        self.attempts.connected();
        let session = ack.session_present;
        info!(connection = self.connections, session, "the fleet's broker is connected");
        self.to_subscribe = vec![self.topics.of_presence()];
        if self.connections == 1 || !session {
            self.to_subscribe.push(self.topics.of_commands());
            self.to_subscribe.extend(self.topics.of_rules());
        }
        // A broker that wants no probes would be probed without a pause.
        if self.events.options.keep_alive().is_zero() {
            self.events.options.set_keep_alive(KEEP_ALIVE);
        }
        let connections = self.connections;
        self.notebook.note(|notes| notes.connections = connections);
        let allowed = ack.properties.as_ref();
        let packet_bytes_max = allowed.and_then(|allowed| allowed.max_packet_size);
        let packet_bytes_max = packet_bytes_max.unwrap_or(PACKET_BYTES_MAX).min(PACKET_BYTES_MAX);
        let delivers_once = allowed.and_then(|allowed| allowed.max_qos) != Some(0);
        let retains = allowed.and_then(|allowed| allowed.retain_available) != Some(0);
        self.outbound.open(self.connections);
        self.status.send_replace(LinkStatus::Up(Standing {
            connection: self.connections,
            packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX),
            qos: if delivers_once { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            retains,
        }));
    }

    /// Asks for our topics as soon as there is room for the request.
    fn subscribe(&mut self) {
        let filters = self.to_subscribe.clone();
        if !filters.is_empty() && self.client.try_subscribe_many(filters).is_ok() {
            self.to_subscribe.clear();
        }
    }

    /// After the end of a connection: what it has not brought to the broker is not left to the
    /// library, which would send it in the order of packet numbers, without regard to how much the
    /// broker takes at a time, or forget it. State, presence and events are told anew by those who
    /// tell them; answers are kept for the next connection.
    ///
    /// Nor is the library's state kept: its packet numbers run past their end, for good, if the next
    /// broker takes fewer at a time, and a number that was in use twice would hold up everything.
    fn take_back(&mut self) {
        self.outbound.close();
        // Empties the channel too: since it was emptied last, something may have been requested.
        self.events.clean();
        let fresh = MqttState::new(IN_FLIGHT_MAX, false);
        let mut state = std::mem::replace(&mut self.events.state, fresh);
        let has_come = |event: &Event| matches!(event, Event::Incoming(Packet::Publish(_)));
        self.events.state.events = state.events.drain(..).filter(has_come).collect();
        let collided = state.collision.take().map(Request::Publish);
        let requests: Vec<Request> = self.events.pending.drain(..).chain(collided).collect();
        for request in requests {
            match request {
                Request::Publish(publish) => {
                    if self.topics.is_answer(&publish.topic) {
                        self.to_say_again.push_back(answer_again(publish));
                    }
                }
                // It was the lost connection that was to end.
                Request::Disconnect => {}
                other => self.events.pending.push_back(other),
            }
        }
    }

    /// Says answers that were taken back as soon as there is room. The broker may be another one, that
    /// takes less.
    fn say_again(&mut self) {
        let LinkStatus::Up(standing) = *self.status.borrow() else { return };
        let all = self.to_say_again.len();
        self.to_say_again.retain(|answer| answer.packet_bytes_max() <= standing.packet_bytes_max);
        let dropped = all - self.to_say_again.len();
        if dropped > 0 {
            warn!(dropped, "answers are larger than what the broker takes now, and are not said");
        }
        while let Some(answer) = self.to_say_again.front_mut() {
            answer.qos = standing.qos;
            if self.outbound.try_publish(self.connections, answer) != Requested::Yes {
                return;
            }
            self.to_say_again.pop_front();
        }
    }

    /// The broker has something of ours, or does not want it.
    fn has(&mut self, ack: &PubAck) {
        use PubAckReason::{NoMatchingSubscribers, Success};
        let taken = matches!(ack.reason, Success | NoMatchingSubscribers);
        let event = self.outbound.acknowledged(ack.pkid);
        if !taken && let Some(held_back) = self.unheard.take(self.clock.now().boot) {
            let reason = ack.reason;
            error!(?reason, held_back, "the broker does not take what the box says");
        }
        let Some(event) = event else { return };
        let acknowledged = Acknowledged { connection: self.connections, event, taken };
        // Without room the event counts as not told, and is sent again on the next connection.
        let _ = self.acknowledged.try_send(acknowledged);
    }

    fn listens(&self, ack: &SubAck) {
        let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
        let denied = !ack.return_codes.iter().all(granted);
        if denied {
            error!(codes = ?ack.return_codes, "the broker does not let the box listen for rules");
        }
        self.notebook.note(|notes| notes.denied = denied);
    }

    fn document(&self, publish: Publish) {
        let Some(layer) = self.topics.layer_of(&publish.topic) else { return };
        let arrived = Arrived { layer, bytes: publish.payload };
        if self.documents.try_send(arrived).is_err() {
            self.notebook.note(|notes| notes.put_off += 1);
        }
    }

    /// A command that the broker keeps would be done anew at each connection: it is none.
    fn command(&mut self, publish: Publish) {
        if publish.retain {
            warn!("a command of the fleet is a retained message, which is not done");
        } else if let Err(TrySendError::Full(errand)) = self.commands.try_send(Errand::of(publish))
        {
            self.turn_away(&errand);
        }
    }

    /// Says that a command is not done because as many wait as may; unless that would mean to wait.
    fn turn_away(&mut self, errand: &Errand) {
        if let Some(held_back) = self.turned_away.take(self.clock.now().boot) {
            warn!(held_back, "too many commands of the fleet wait; one is not done");
        }
        let LinkStatus::Up(standing) = *self.status.borrow() else { return };
        if let Some(reply) = errand.reply(errands::turned_away(), standing, &self.topics) {
            let _ = self.outbound.try_publish(standing.connection, &reply);
        }
    }

    /// At the first connection this may be what an earlier life of the box has said; later on it is
    /// somebody else, who has had the connection in the meantime.
    fn said_in_our_name(&mut self, said: &[u8]) {
        if self.connections > 1 && self.presence.is_of_another(said) {
            self.noticed_another("the fleet's broker has had another box of our name");
        }
    }

    /// The next time that the connection is lost we keep away longer, or the two would chase each
    /// other.
    fn noticed_another(&mut self, how: &str) {
        error!(how, "another box has our name");
        self.attempts.taken_over();
        self.notebook.note(|notes| notes.taken_over += 1);
    }

    /// A broker that keeps no messages, or delivers none for sure, refuses a will that asks for it.
    fn ask_for_less(&mut self, problem: &ConnectionError) {
        match problem {
            ConnectionError::ConnectionRefused(ConnectReturnCode::RetainNotSupported) => {
                self.will_retained = false;
            }
            ConnectionError::ConnectionRefused(ConnectReturnCode::QoSNotSupported) => {
                self.will_qos = QoS::AtMostOnce;
            }
            _ => {}
        }
    }

    /// What the end of a connection, or of an attempt, means.
    fn lost(&self, problem: &ConnectionError) -> Lost {
        let taken_over = matches!(
            problem,
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code: DisconnectReasonCode::SessionTakenOver,
                ..
            })
        );
        let clock_set = self.clock.now().wall.quality == ClockQuality::Trusted;
        let why = if taken_over {
            "another box of our name has connected".to_owned()
        } else if !clock_set && tls::is_about_time(problem) {
            "the clock is not set, so no certificate can be checked".to_owned()
        } else {
            problem.to_string()
        };
        Lost { why, taken_over }
    }

    fn note(&mut self, lost: &Lost) {
        if lost.taken_over {
            self.noticed_another("it took the connection over");
        }
        warn!(why = lost.why, "the fleet's broker is not reached");
        self.notebook.note(|notes| notes.last_loss = Some(lost.why.clone()));
    }
}

/// An answer that a lost connection had, to be said on the next.
fn answer_again(publish: Publish) -> Message {
    Message {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        qos: publish.qos,
        retain: publish.retain,
        payload: publish.payload,
        properties: publish.properties.unwrap_or_default(),
        event: None,
    }
}

/// The end of a connection, or of an attempt.
struct Lost {
    why: String,
    taken_over: bool,
}

impl Lost {
    fn because(why: &str) -> Self {
        Lost { why: why.to_owned(), taken_over: false }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rumqttc::v5::MqttOptions;
    use rumqttc::v5::mqttbytes::v5::PublishProperties;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::domain::fleet::document::Addressee;
    use crate::platform::clock::SystemClock;

    const REPLIES: &str = "edgerec/v1/venue/reply/7";

    /// A link to a broker on a port of this machine.
    fn link_to(port: u16, acknowledged_within: Duration) -> Link {
        let us = Addressee { fleet: "venue".into(), box_id: "box-01".into() };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (client, events) = AsyncClient::new(MqttOptions::new("box", "127.0.0.1", port), 8);
        let outbound = Arc::new(Outbound::new(client.clone(), acknowledged_within));
        let presence = Presence::new(clock.boot_id(), 7);
        Link::new(
            (client, outbound, events),
            (Arc::new(Topics::new(&us)), Arc::new(presence)),
            (
                mpsc::channel(1).0,
                mpsc::channel(1).0,
                mpsc::channel(1).0,
                watch::channel(LinkStatus::Away).0,
            ),
            Arc::default(),
            clock,
        )
    }

    fn answer(payload_bytes: usize, correlation_bytes: usize) -> Message {
        let correlation = Bytes::from(vec![b'c'; correlation_bytes]);
        Message {
            topic: REPLIES.into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            payload: vec![b'x'; payload_bytes].into(),
            properties: PublishProperties {
                correlation_data: Some(correlation),
                ..PublishProperties::default()
            },
            event: None,
        }
    }

    #[test]
    fn what_a_lost_connection_had_is_not_left_to_the_next_but_for_answers() {
        let mut link = link_to(1, Duration::from_secs(30));
        link.outbound.open(1);
        let online = Message { topic: link.topics.online.clone(), ..answer(9, 0) };
        for message in [online, answer(900, 4)] {
            assert_eq!(link.outbound.try_publish(1, &message), Requested::Yes);
        }
        link.outbound.try_disconnect();
        link.take_back();
        assert!(link.events.pending.is_empty(), "{:?}", link.events.pending);
        assert_eq!(link.to_say_again.len(), 1);
    }

    #[test]
    fn an_answer_is_said_again_wherever_it_would_have_been_said_at_first() {
        let mut link = link_to(1, Duration::from_secs(30));
        link.to_say_again.extend([answer(900, 0), answer(600, 500), answer(900, 4)]);
        link.connections = 1;
        link.outbound.open(1);
        let (connection, retains, qos) = (1, true, QoS::AtMostOnce);
        let packet_bytes_max = answer(900, 4).packet_bytes_max();
        assert!(packet_bytes_max < 1_100, "{packet_bytes_max}");
        let standing = Standing { connection, packet_bytes_max, qos, retains };
        link.status.send_replace(LinkStatus::Up(standing));
        link.say_again();
        assert!(link.to_say_again.is_empty());
        link.events.clean();
        let said = link.events.pending.iter().map(|request| match request {
            Request::Publish(answer) => (answer.payload.len(), answer.qos),
            other => panic!("{other:?} is no answer"),
        });
        let fits = (900, QoS::AtMostOnce);
        assert_eq!(said.collect::<Vec<_>>(), [fits, fits], "the broker takes no more");
    }

    #[tokio::test]
    async fn a_broker_that_acknowledges_no_answer_is_left() {
        const SOON: Duration = Duration::from_secs(20);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let link = link_to(port, Duration::from_millis(50));
        let (outbound, notebook) = (link.outbound.clone(), link.notebook.clone());
        let mut status = link.status.subscribe();
        let shutdown = CancellationToken::new();
        // It greets whoever comes, reads on and says nothing more.
        let broker = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.expect("the box comes");
            let mut read = [0; 1_024];
            assert!(peer.read(&mut read).await.expect("a greeting") > 0);
            peer.write_all(&[0x20, 3, 0, 0, 0]).await.expect("taken");
            while peer.read(&mut read).await.is_ok_and(|bytes| bytes > 0) {}
        });
        let scene = async {
            status.wait_for(|status| *status != LinkStatus::Away).await.expect("the link runs");
            assert_eq!(outbound.try_publish(1, &answer(9, 0)), Requested::Yes);
            let left = tokio::time::timeout(SOON, broker).await;
            left.expect("the box leaves in time").expect("the broker saw nothing odd");
            status.wait_for(|status| *status == LinkStatus::Away).await.expect("the link runs");
            shutdown.cancel();
        };
        tokio::join!(link.run(shutdown.clone()), scene);
        let why = notebook.read().last_loss.unwrap_or_default();
        assert_eq!(why, "the broker does not acknowledge what it is sent");
    }
}
