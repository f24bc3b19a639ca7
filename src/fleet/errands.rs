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

use crate::fleet::COMMANDS_WAITING_MAX;
use crate::fleet::link::{LinkStatus, Standing};
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

    /// Whether it is worth nothing any more.
    fn is_late(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now > until)
    }

    /// The message that answers it; `None`: it asks for none, or for one where none may go.
    pub(super) fn reply(
        &self,
        answer: Vec<u8>,
        standing: Standing,
        topics: &Topics,
    ) -> Option<Message> {
        let topic = self.answer_to.clone().filter(|topic| topics.may_be_answered(topic))?;
        let properties = PublishProperties {
            content_type: Some(envelope::ANSWER_CONTENT_TYPE.to_owned()),
            correlation_data: self.correlation.clone(),
            ..PublishProperties::default()
        };
        let payload = answer.into();
        let mut reply =
            Message { topic, qos: standing.qos, retain: false, payload, properties, event: None };
        if reply.packet_bytes_max() > standing.packet_bytes_max {
            let what = "the answer does not fit into a packet of the broker: ask for less";
            reply.payload = envelope::error_answer("ResourceInsufficient", what, "").into();
        }
        Some(reply)
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
            if errand.is_late(Instant::now()) {
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

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::QoS;

    use super::*;
    use crate::domain::fleet::document::Addressee;

    fn errand(properties: PublishProperties) -> Errand {
        let mut publish = Publish::new("c", QoS::AtLeastOnce, "{}", None);
        publish.properties = Some(properties);
        Errand::of(publish)
    }

    #[test]
    fn a_command_is_late_once_its_time_is_over() {
        let lasts = |s| PublishProperties { message_expiry_interval: s, ..Default::default() };
        let after = |s| Instant::now() + Duration::from_secs(s);
        let errand_of_five = errand(lasts(Some(5)));
        assert!(!errand_of_five.is_late(after(4)) && errand_of_five.is_late(after(6)));
        assert!(!errand(lasts(None)).is_late(after(1_000_000)), "it has no end");
    }

    #[test]
    fn an_answer_goes_where_it_may_and_fits_into_a_packet() {
        let topics = Topics::new(&Addressee { fleet: "venue".into(), box_id: "box-01".into() });
        let standing = Standing {
            connection: 1,
            packet_bytes_max: 1_000,
            qos: QoS::AtLeastOnce,
            retains: true,
        };
        let to = |topic: &str, answer: usize| {
            let properties = PublishProperties {
                response_topic: Some(topic.to_owned()),
                correlation_data: Some(Bytes::from_static(b"7")),
                ..Default::default()
            };
            errand(properties).reply(vec![b'x'; answer], standing, &topics)
        };
        let reply = to("edgerec/v1/venue/reply/7", 100).expect("it is asked for");
        assert_eq!((reply.topic.as_str(), reply.payload.len()), ("edgerec/v1/venue/reply/7", 100));
        assert_eq!(reply.properties.correlation_data.as_deref(), Some(&b"7"[..]));
        let long = to("ops/7", 2_000).expect("it is asked for");
        assert!(String::from_utf8_lossy(&long.payload).contains("ResourceInsufficient"));
        assert!(to("edgerec/v1/venue/config", 100).is_none(), "that means something to others");
        let unasked = errand(PublishProperties::default());
        assert!(unasked.reply(Vec::new(), standing, &topics).is_none());
    }
}
