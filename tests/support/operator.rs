//! Whoever runs the fleet: another client of the broker, who sends rule sets and hears what the
//! boxes say.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use serde_json::Value;

use super::wait::{poll_for, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(20);
/// What boxes say, and where they answer.
const LISTENED_TO: [&str; 4] = [
    "edgerec/v1/+/box/+/state",
    "edgerec/v1/+/box/+/online",
    "edgerec/v1/+/box/+/event/+",
    "edgerec/v1/+/reply/#",
];
/// Larger than what a box takes.
const PACKET_BYTES_MAX: u32 = 16 << 20;

/// The client. It stays while the broker is gone and comes back with it.
pub struct Operator {
    client: Client,
    heard: Arc<Mutex<Heard>>,
    sent: u64,
}

#[derive(Default)]
struct Heard {
    messages: Vec<(String, Value)>,
    connections: u64,
    acknowledged: u64,
}

impl Operator {
    /// Connects and listens to all that boxes say.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Operator {
        Operator::with(addr, MqttOptions::new("operator", addr.ip().to_string(), addr.port()))
    }

    /// Connects in another way.
    #[track_caller]
    pub fn with(addr: SocketAddr, mut options: MqttOptions) -> Operator {
        options.set_max_packet_size(Some(PACKET_BYTES_MAX));
        options.set_keep_alive(Duration::from_secs(5));
        let (client, connection) = Client::new(options, 16);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (hears, listens) = (heard.clone(), client.clone());
        std::thread::spawn(move || listen(addr, connection, &listens, &hears));
        let operator = Operator { client, heard, sent: 0 };
        wait_until(SOON, "the operator is connected", || operator.heard().connections > 0);
        operator
    }

    /// Sends a retained message; the broker has it when this returns.
    #[track_caller]
    pub fn send(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        let payload = payload.as_ref().to_vec();
        self.client.publish(topic, QoS::AtLeastOnce, true, payload).expect("the client runs");
        self.sent += 1;
        wait_until(SOON, "the broker has it", || self.heard().acknowledged >= self.sent);
    }

    /// Sends retained messages, so many a second; the broker has all of them when this returns.
    #[track_caller]
    pub fn send_at(&mut self, per_second: u32, topic: &str, payloads: &[String]) {
        for payload in payloads {
            let sent = self.client.publish(topic, QoS::AtLeastOnce, true, payload.clone());
            sent.expect("the client runs");
            self.sent += 1;
            let due = Instant::now() + Duration::from_secs(1) / per_second;
            wait_until(SOON, "the next is due", || Instant::now() >= due);
        }
        wait_until(SOON, "the broker has them", || self.heard().acknowledged >= self.sent);
    }

    /// Sends a command that is answered on a topic of the operator's; the broker has it when this
    /// returns.
    #[track_caller]
    pub fn command(&mut self, topic: &str, command: &Value, answer_to: &str, retain: bool) {
        let (bytes, asks) = (command.to_string(), asks(answer_to));
        let sent =
            self.client.publish_with_properties(topic, QoS::AtLeastOnce, retain, bytes, asks);
        sent.expect("the client runs");
        self.sent += 1;
        wait_until(SOON, "the broker has it", || self.heard().acknowledged >= self.sent);
    }

    /// Sends commands one right after the other; the broker has all when this returns.
    #[track_caller]
    pub fn burst(&mut self, topic: &str, commands: &[Value], answer_to: &str) {
        for command in commands {
            let sent = self.client.publish_with_properties(
                topic,
                QoS::AtLeastOnce,
                false,
                command.to_string(),
                asks(answer_to),
            );
            sent.expect("the client runs");
            self.sent += 1;
        }
        wait_until(SOON, "the broker has them", || self.heard().acknowledged >= self.sent);
    }

    /// What was heard on a topic, oldest first.
    pub fn all(&self, topic: &str) -> Vec<Value> {
        let heard = self.heard();
        let of_topic = heard.messages.iter().filter(|(of, _)| of == topic);
        of_topic.map(|(_, message)| message.clone()).collect()
    }

    /// Events that were heard, by their kinds, oldest first; doubles too.
    pub fn events(&self) -> Vec<(String, Value)> {
        let kind = |topic: &str| topic.split_once("/event/").map(|(_, kind)| kind.to_owned());
        let heard = self.heard();
        let events =
            heard.messages.iter().filter_map(|(topic, event)| Some((kind(topic)?, event.clone())));
        events.collect()
    }

    /// Waits until the newest message of a topic is as wanted.
    #[track_caller]
    pub fn hear(
        &self,
        within: Duration,
        topic: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let newest = || self.all(topic).pop().filter(|message| wanted(message));
        match poll_for(within, newest) {
            Some(message) => message,
            None => panic!("not within {within:?}: {what}; last: {:#?}", self.all(topic).pop()),
        }
    }

    /// What the broker keeps on a topic.
    #[track_caller]
    pub fn kept(&self, topic: &str) -> Value {
        self.client.try_subscribe(topic, QoS::AtLeastOnce).expect("there is room");
        wait_for(SOON, "the broker sends what it keeps", || self.all(topic).pop())
    }

    /// Forgets what was heard.
    pub fn forget(&self) {
        self.heard().messages.clear();
    }

    /// Waits until it is connected once more than `before`.
    #[track_caller]
    pub fn back_after(&self, before: u64) {
        let again = || (self.heard().connections > before).then_some(());
        wait_for(SOON, "the operator is back", again);
    }

    /// How often it came to the broker.
    pub fn connections(&self) -> u64 {
        self.heard().connections
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("nobody panics with this lock")
    }
}

/// Properties of a command that is answered on a topic and worth nothing after a minute.
fn asks(answer_to: &str) -> PublishProperties {
    PublishProperties {
        response_topic: Some(answer_to.to_owned()),
        correlation_data: Some(format!("for {answer_to}").into()),
        message_expiry_interval: Some(60),
        ..PublishProperties::default()
    }
}

fn listen(addr: SocketAddr, mut connection: Connection, client: &Client, hears: &Mutex<Heard>) {
    loop {
        let event = match connection.recv() {
            Err(_) => return,
            Ok(Err(_)) => {
                // It would come back at once and without end.
                poll_for(SOON, || TcpStream::connect(addr).ok());
                continue;
            }
            Ok(Ok(event)) => event,
        };
        let mut heard = hears.lock().expect("nobody panics with this lock");
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                heard.connections += 1;
                for topic in LISTENED_TO {
                    client.try_subscribe(topic, QoS::AtLeastOnce).expect("there is room");
                }
            }
            Event::Incoming(Packet::PubAck(_)) => heard.acknowledged += 1,
            Event::Incoming(Packet::Publish(message)) => {
                let topic = String::from_utf8_lossy(&message.topic).into_owned();
                let value = serde_json::from_slice(&message.payload).expect("a box sends JSON");
                let properties = message.properties.unwrap_or_default();
                if let Some(correlation) = properties.correlation_data {
                    assert_eq!(correlation, format!("for {topic}"), "the answer to another one");
                }
                heard.messages.push((topic, value));
            }
            _ => {}
        }
    }
}
