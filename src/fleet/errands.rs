//! Commands: done one after the other, in the order in which they came, and answered where the
//! command asks for it. One whose time was over before its turn came is not done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::fleet::link::{LinkStatus, Standing};
use crate::fleet::outbound::{Message, Outbound};
use crate::fleet::port::FleetBox;
use crate::fleet::topics::Topics;
use crate::fleet::{COMMANDS_WAITING_MAX, PACKET_OVERHEAD_BYTES};
use crate::wire::cloud::envelope;

/// A command and where its answer goes.
#[derive(Debug)]
pub(super) struct Errand {
    bytes: Bytes,
    answer_to: Option<String>,
    correlation: Option<Bytes>,
    /// When it must have begun.
    until: Option<Instant>,
}

impl Errand {
    /// What came on the topic of commands.
    pub(super) fn of(publish: Publish) -> Self {
        let properties = publish.properties.unwrap_or_default();
        let expiry = properties.message_expiry_interval;
        Errand {
            bytes: publish.payload,
            answer_to: properties.response_topic,
            correlation: properties.correlation_data,
            until: expiry.map(|s| Instant::now() + Duration::from_secs(s.into())),
        }
    }

    /// The message that answers it; `None`: it asks for none, or for one where none may go.
    pub(super) fn reply(
        &self,
        answer: Vec<u8>,
        standing: Standing,
        topics: &Topics,
    ) -> Option<Message> {
        let topic = self.answer_to.clone().filter(|topic| topics.may_be_answered(topic))?;
        let beside = topic.len() + self.correlation.as_ref().map_or(0, Bytes::len);
        let room = standing.packet_bytes_max.saturating_sub(beside + PACKET_OVERHEAD_BYTES);
        let body = if answer.len() <= room {
            answer
        } else {
            let what = "the answer does not fit into a packet of the broker: ask for less";
            envelope::error_answer("ResourceInsufficient", what, "")
        };
        let properties = PublishProperties {
            content_type: Some(envelope::ANSWER_CONTENT_TYPE.to_owned()),
            correlation_data: self.correlation.clone(),
            ..PublishProperties::default()
        };
        Some(Message {
            topic,
            qos: standing.qos,
            retain: false,
            payload: body.into(),
            properties,
            event: None,
        })
    }
}

/// The answer to a command that finds as many waiting as may.
pub(super) fn turned_away() -> Vec<u8> {
    let what = format!("{COMMANDS_WAITING_MAX} commands wait already, this one is not done");
    envelope::error_answer("RequestLimitExceeded", &what, "")
}

/// The task.
pub struct Errands {
    pub(super) arriving: mpsc::Receiver<Errand>,
    pub(super) us: Arc<dyn FleetBox>,
    pub(super) outbound: Arc<Outbound>,
    pub(super) status: watch::Receiver<LinkStatus>,
    pub(super) topics: Arc<Topics>,
}

impl Errands {
    /// Does commands until `shutdown`. One that is at work is finished first.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let errand = tokio::select! {
                () = shutdown.cancelled() => return,
                errand = self.arriving.recv() => errand,
            };
            let Some(errand) = errand else { return };
            if errand.until.is_some_and(|until| Instant::now() > until) {
                warn!("a command of the fleet came too late");
                continue;
            }
            let answer = self.us.command(errand.bytes.clone()).await;
            let LinkStatus::Up(standing) = *self.status.borrow() else { continue };
            let Some(reply) = errand.reply(answer, standing, &self.topics) else { continue };
            tokio::select! {
                () = shutdown.cancelled() => return,
                // It fails only when the link is lost, and then nobody is there to hear it.
                _ = self.outbound.publish(standing.connection, reply) => {}
            }
        }
    }
}
