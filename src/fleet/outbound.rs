//! What goes out over the link, and which acknowledgement is whose.
//!
//! The library numbers a message when it sends it, and tells numbers in the order in which messages
//! were requested. So all requests go through here: each is noted in the moment it is made, and the
//! link reads the notes as it is told of numbers. What was noted holds for one connection: the link
//! takes back what a lost one had not sent or not had acknowledged, and what is worth it is asked
//! for anew, in its order, with new numbers.
//!
//! When each was sent is noted too, whatever it tells: a broker that answers probes and acknowledges
//! nothing would make the box mute once the library's table is full.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::notice::NoticeSeq;
use crate::fleet::PACKET_OVERHEAD_BYTES;

/// A message to a topic.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) payload: Bytes,
    pub(super) properties: PublishProperties,
    /// The event that it tells; the herald hears of its acknowledgement.
    pub(super) event: Option<NoticeSeq>,
}

impl Message {
    /// How large its packet may be.
    pub(super) fn packet_bytes_max(&self) -> usize {
        let correlation = self.properties.correlation_data.as_ref().map_or(0, Bytes::len);
        self.topic.len() + self.payload.len() + correlation + PACKET_OVERHEAD_BYTES
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requested {
    /// The link sends it.
    Yes,
    /// There is no room yet.
    Full,
    /// That connection does not stand any more.
    Away,
}

/// The way out.
pub(super) struct Outbound {
    client: AsyncClient,
    /// A message that is not acknowledged for so long is late.
    acknowledged_within: Duration,
    notes: Mutex<Notes>,
    room: Notify,
}

/// The notes of one connection.
#[derive(Debug, Default)]
struct Notes {
    /// The number of the connection, while it stands.
    connection: Option<u64>,
    /// What each message tells that was requested and has no number yet.
    requested: VecDeque<Option<NoticeSeq>>,
    /// What waits for its acknowledgement, the oldest first.
    sent: Vec<Sent>,
}

/// A message that waits for its acknowledgement.
#[derive(Debug)]
struct Sent {
    number: u16,
    event: Option<NoticeSeq>,
    at: Instant,
}

impl Outbound {
    pub(super) fn new(client: AsyncClient, acknowledged_within: Duration) -> Self {
        Outbound { client, acknowledged_within, notes: Mutex::default(), room: Notify::new() }
    }

    /// Requests a message of a connection, and waits for room; `false`: it does not stand any more.
    pub(super) async fn publish(&self, connection: u64, message: Message) -> bool {
        loop {
            let room = self.room.notified();
            let mut room = std::pin::pin!(room);
            // What becomes free from here on is not missed.
            room.as_mut().enable();
            match self.try_publish(connection, &message) {
                Requested::Yes => return true,
                Requested::Away => return false,
                Requested::Full => room.await,
            }
        }
    }

    /// Requests a message if there is room for it.
    pub(super) fn try_publish(&self, connection: u64, message: &Message) -> Requested {
        let Message { topic, qos, retain, payload, properties, event } = message;
        let mut notes = self.notes();
        if notes.connection != Some(connection) {
            return Requested::Away;
        }
        let (topic, properties) = (topic.as_str(), properties.clone());
        let requested = self.client.try_publish_with_properties(
            topic,
            *qos,
            *retain,
            payload.clone(),
            properties,
        );
        if requested.is_err() {
            return Requested::Full;
        }
        notes.requested.push_back(*event);
        Requested::Yes
    }

    /// Asks the broker to end the connection, if there is room for that.
    pub(super) fn try_disconnect(&self) {
        // Without it the connection ends too, only less politely.
        let _ = self.client.try_disconnect();
    }

    /// A connection stands; nothing is requested of it yet.
    pub(super) fn open(&self, connection: u64) {
        *self.notes() = Notes { connection: Some(connection), ..Notes::default() };
    }

    /// The connection is lost: nothing more can be requested of it.
    pub(super) fn close(&self) {
        *self.notes() = Notes::default();
        self.room.notify_waiters();
    }

    /// The message that was requested first was sent under a number; 0 is none.
    pub(super) fn sent(&self, number: u16) {
        let mut notes = self.notes();
        if let Some(event) = notes.requested.pop_front()
            && number != 0
        {
            notes.sent.push(Sent { number, event, at: Instant::now() });
        }
        drop(notes);
        self.room.notify_waiters();
    }

    /// The broker acknowledges a number; gives the event, if it was one.
    pub(super) fn acknowledged(&self, number: u16) -> Option<NoticeSeq> {
        let mut notes = self.notes();
        let place = notes.sent.iter().position(|sent| sent.number == number)?;
        notes.sent.remove(place).event
    }

    /// When the oldest message that is on its way is late; `None`: nothing is.
    pub(super) fn late_at(&self) -> Option<Instant> {
        self.notes().sent.first().map(|oldest| oldest.at + self.acknowledged_within)
    }

    /// Nothing panics while it holds the lock.
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::MqttOptions;

    use super::*;

    const LATE: Duration = Duration::from_secs(30);

    fn message(event: Option<u64>) -> Message {
        Message {
            topic: "t".into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            payload: Bytes::new(),
            properties: PublishProperties::default(),
            event: event.map(NoticeSeq),
        }
    }

    #[test]
    fn an_acknowledgement_is_of_the_message_that_had_its_turn() {
        let (client, _polled) = AsyncClient::new(MqttOptions::new("a", "localhost", 1), 8);
        let outbound = Outbound::new(client, LATE);
        assert_eq!(outbound.try_publish(1, &message(Some(7))), Requested::Away);
        outbound.open(1);
        for event in [Some(7), None, Some(8), Some(9)] {
            assert_eq!(outbound.try_publish(1, &message(event)), Requested::Yes);
        }
        for number in [5, 6, 1] {
            outbound.sent(number);
        }
        assert!(outbound.late_at().is_some());
        assert_eq!(outbound.acknowledged(6), None, "that was no event");
        assert_eq!(outbound.acknowledged(1), Some(NoticeSeq(8)));
        assert_eq!(outbound.acknowledged(5), Some(NoticeSeq(7)));
        assert_eq!(outbound.acknowledged(5), None, "once");
        assert_eq!(outbound.late_at(), None);
        outbound.sent(0);
        assert_eq!(outbound.late_at(), None, "nobody acknowledges what has no number");
        outbound.close();
        outbound.open(2);
        assert_eq!(outbound.try_publish(1, &message(Some(7))), Requested::Away);
        assert_eq!(outbound.try_publish(2, &message(Some(7))), Requested::Yes);
        outbound.sent(1);
        assert_eq!(outbound.acknowledged(1), Some(NoticeSeq(7)), "what was before is forgotten");
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_when_there_is_some_and_when_the_link_is_lost() {
        let (client, mut polled) = AsyncClient::new(MqttOptions::new("a", "localhost", 1), 1);
        let outbound = Outbound::new(client, LATE);
        outbound.open(1);
        assert!(outbound.publish(1, message(Some(7))).await);
        assert_eq!(outbound.try_publish(1, &message(Some(8))), Requested::Full);
        let room = async {
            tokio::task::yield_now().await;
            polled.clean();
            outbound.sent(1);
        };
        let (requested, ()) = tokio::join!(outbound.publish(1, message(Some(8))), room);
        assert!(requested);
        let lost = async {
            tokio::task::yield_now().await;
            outbound.close();
        };
        let (requested, ()) = tokio::join!(outbound.publish(1, message(Some(9))), lost);
        assert!(!requested);
    }
}
