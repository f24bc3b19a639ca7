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

use crate::fleet::PACKET_OVERHEAD_BYTES;
use crate::fleet::link::LinkStatus;
use crate::fleet::outbound::{Message, Outbound};
use crate::fleet::port::FleetBox;
use crate::fleet::topics::Topics;
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
            let answer_to = errand.answer_to.filter(|topic| self.topics.may_be_answered(topic));
            let answer = self.us.command(errand.bytes).await;
            let Some(topic) = answer_to else { continue };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.answer(topic, errand.correlation, answer) => {}
            }
        }
    }

    async fn answer(&self, topic: String, correlation: Option<Bytes>, answer: Vec<u8>) {
        let LinkStatus::Up(standing) = *self.status.borrow() else { return };
        let beside = topic.len() + correlation.as_ref().map_or(0, Bytes::len);
        let room = standing.packet_bytes_max.saturating_sub(beside + PACKET_OVERHEAD_BYTES);
        let answer = if answer.len() <= room {
            answer
        } else {
            let what = "the answer does not fit into a packet of the broker: ask for less";
            envelope::error_answer("ResourceInsufficient", what, "")
        };
        let properties = PublishProperties {
            content_type: Some(envelope::ANSWER_CONTENT_TYPE.to_owned()),
            correlation_data: correlation,
            ..PublishProperties::default()
        };
        let message = Message {
            topic,
            qos: standing.qos,
            retain: false,
            payload: answer.into(),
            properties,
            event: None,
        };
        // It fails only when the link is lost, and then nobody is there to hear it.
        self.outbound.publish(standing.connection, message).await;
    }
}
