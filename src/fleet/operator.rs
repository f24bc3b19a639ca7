//! The operator's side of the link: sends documents and commands to boxes, and hears what boxes
//! say. For a program that does one thing and ends: what fails is told, not tried again.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, PubAckReason, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::fleet::{BrokerAccess, CONNECT_WITHIN_S, FleetError, PACKET_BYTES_MAX, options};
use crate::platform::random::random_u64;

/// What is asked of the broker must be answered within this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(CONNECT_WITHIN_S);
/// Messages that may wait to be heard.
const HEARD_MAX: usize = 1_024;
/// Requests to the connection at the same time.
const REQUESTS_MAX: usize = 8;

/// What goes wrong between operator and broker.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The link cannot be made as configured.
    #[error(transparent)]
    Settings(#[from] FleetError),
    /// The broker is not reached, or was lost.
    #[error("the broker: {0}")]
    Broker(String),
    /// The broker does not answer.
    #[error("the broker does not answer within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
    /// The broker does not let the operator do it.
    #[error("the broker refuses: {0}")]
    Refused(String),
}

/// A message as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its topic.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// What it answers.
    pub correlation: Option<Bytes>,
}

/// A command, and where its answer is to go.
#[derive(Debug, Clone)]
pub struct Question {
    /// The topic of the answer.
    pub answer_to: String,
    /// What tells the answer from others.
    pub correlation: Bytes,
    /// For how long it is worth anything, in seconds.
    pub expires_s: u32,
}

/// The topics of a fleet, as an operator has them.
#[derive(Debug, Clone)]
pub struct FleetTopics(String);

impl FleetTopics {
    /// Of the fleet of this name.
    #[must_use]
    pub fn of(fleet: &str) -> Self {
        FleetTopics(format!("edgerec/v1/{fleet}"))
    }

    /// Rules of all boxes, or of one.
    #[must_use]
    pub fn config(&self, box_id: Option<&str>) -> String {
        match box_id {
            None => format!("{}/config", self.0),
            Some(id) => format!("{}/box/{id}/config", self.0),
        }
    }

    /// Commands to a box.
    #[must_use]
    pub fn command(&self, box_id: &str) -> String {
        format!("{}/box/{box_id}/command", self.0)
    }

    /// Where answers of boxes can be sent to one operator.
    #[must_use]
    pub fn answers(&self, mark: &str) -> String {
        format!("{}/reply/{mark}", self.0)
    }

    /// What all boxes, or one, say of themselves: state, presence and events.
    #[must_use]
    pub fn said_by(&self, box_id: Option<&str>) -> Vec<String> {
        let id = box_id.unwrap_or("+");
        ["state", "online", "event/+"].map(|kind| format!("{}/box/{id}/{kind}", self.0)).into()
    }

    /// What all boxes say of how they stand: state and presence.
    #[must_use]
    pub fn standing(&self) -> Vec<String> {
        ["state", "online"].map(|kind| format!("{}/box/+/{kind}", self.0)).into()
    }

    /// Whose topic it is, and the rest of it.
    #[must_use]
    pub fn box_of<'a>(&self, topic: &'a str) -> Option<(&'a str, &'a str)> {
        topic.strip_prefix(self.0.as_str())?.strip_prefix("/box/")?.split_once('/')
    }
}

/// A connected operator.
pub struct Operator {
    client: AsyncClient,
    events: mpsc::Receiver<Result<Event, String>>,
    heard: Vec<Heard>,
}

impl Operator {
    /// Connects. Must be called inside the runtime.
    ///
    /// # Errors
    /// The broker cannot be reached as configured.
    pub async fn connect(access: &BrokerAccess) -> Result<Operator, OperatorError> {
        let mut options = options(access, format!("edgerec-operator-{:016x}", random_u64()))?;
        options.set_clean_start(true);
        let (client, mut polled) = AsyncClient::new(options, REQUESTS_MAX);
        let (events_in, events) = mpsc::channel(HEARD_MAX);
        // A poll must not be cut off half way, so it has a task of its own.
        tokio::spawn(async move {
            loop {
                let polled = polled.poll().await.map_err(|problem| problem.to_string());
                let over = polled.is_err();
                if events_in.send(polled).await.is_err() || over {
                    return;
                }
            }
        });
        let mut operator = Operator { client, events, heard: Vec::new() };
        operator.wait_for(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await?;
        Ok(operator)
    }

    /// Listens to topics from now on.
    ///
    /// # Errors
    /// The broker is lost, or does not allow it.
    pub async fn listen(&mut self, topics: &[String]) -> Result<(), OperatorError> {
        let filters = topics.iter().map(|topic| Filter::new(topic.clone(), QoS::AtLeastOnce));
        self.client.subscribe_many(filters).await.map_err(gone)?;
        let codes = self.wait_for(|packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes.clone()),
            _ => None,
        });
        let codes = codes.await?;
        let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
        match codes.iter().find(|code| !granted(code)) {
            None => Ok(()),
            Some(code) => Err(OperatorError::Refused(format!("listening: {code:?}"))),
        }
    }

    /// Sends a document that the broker keeps; it has it when this returns.
    ///
    /// # Errors
    /// The broker is lost, or does not take it.
    pub async fn keep(&mut self, topic: &str, payload: String) -> Result<(), OperatorError> {
        let sent = self.client.publish(topic, QoS::AtLeastOnce, true, payload);
        sent.await.map_err(gone)?;
        self.acknowledged().await
    }

    /// Sends a command; the broker has it when this returns.
    ///
    /// # Errors
    /// The broker is lost, or does not take it.
    pub async fn ask(
        &mut self,
        topic: &str,
        payload: String,
        question: Question,
    ) -> Result<(), OperatorError> {
        let properties = PublishProperties {
            response_topic: Some(question.answer_to),
            correlation_data: Some(question.correlation),
            message_expiry_interval: Some(question.expires_s),
            ..PublishProperties::default()
        };
        let once = QoS::AtLeastOnce;
        let sent = self.client.publish_with_properties(topic, once, false, payload, properties);
        sent.await.map_err(gone)?;
        self.acknowledged().await
    }

    /// The next message; `None`: none came until then.
    ///
    /// # Errors
    /// The broker is lost.
    pub async fn hear(&mut self, until: Instant) -> Result<Option<Heard>, OperatorError> {
        loop {
            if !self.heard.is_empty() {
                return Ok(Some(self.heard.remove(0)));
            }
            let Ok(event) = timeout_at(until, self.events.recv()).await else { return Ok(None) };
            self.note(event)?;
        }
    }

    async fn acknowledged(&mut self) -> Result<(), OperatorError> {
        let reason = self.wait_for(|packet| match packet {
            Packet::PubAck(ack) => Some(ack.reason),
            _ => None,
        });
        match reason.await? {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
            other => Err(OperatorError::Refused(format!("sending: {other:?}"))),
        }
    }

    /// Waits for a packet; messages that come meanwhile are kept.
    async fn wait_for<T>(
        &mut self,
        wanted: impl Fn(&Packet) -> Option<T>,
    ) -> Result<T, OperatorError> {
        let answered = async {
            loop {
                let event = self.events.recv().await;
                if let Some(packet) = self.note(event)?
                    && let Some(found) = wanted(&packet)
                {
                    return Ok(found);
                }
            }
        };
        timeout(ANSWER_WITHIN, answered).await.map_err(|_| OperatorError::Silent)?
    }

    /// Keeps a message; gives every other packet back.
    fn note(
        &mut self,
        event: Option<Result<Event, String>>,
    ) -> Result<Option<Packet>, OperatorError> {
        match event {
            None => Err(OperatorError::Broker("the connection is gone".to_owned())),
            Some(Err(problem)) => Err(OperatorError::Broker(problem)),
            Some(Ok(Event::Outgoing(_))) => Ok(None),
            Some(Ok(Event::Incoming(Packet::Publish(message)))) => {
                let correlation = message.properties.and_then(|given| given.correlation_data);
                let topic = String::from_utf8_lossy(&message.topic).into_owned();
                self.heard.push(Heard { topic, payload: message.payload, correlation });
                Ok(None)
            }
            Some(Ok(Event::Incoming(packet))) => Ok(Some(packet)),
        }
    }
}

fn gone(_: rumqttc::v5::ClientError) -> OperatorError {
    OperatorError::Broker("the connection is gone".to_owned())
}

/// The largest document that boxes take, in bytes, with room for the topic.
pub const DOCUMENT_BYTES_MAX: usize = PACKET_BYTES_MAX as usize - 1_024;
