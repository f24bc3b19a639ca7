//! What goes out over the link, and which acknowledgement is whose.
//!
//! The library numbers a message when it sends it, and tells numbers in the order in which messages
//! were requested. So all requests go through here: each is noted in the moment it is made, and the
//! link reads the notes as it is told of numbers. What was noted holds for one connection: the link
//! takes back what a lost one had not sent or not had acknowledged, and what is worth it is asked
//! for anew, in its order, with new numbers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tokio::sync::Notify;

use crate::domain::notice::NoticeSeq;

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
    /// Events that wait for their acknowledgement, by their numbers.
    sent: Vec<(u16, NoticeSeq)>,
    /// Acknowledgements do not come: the link is to be made anew.
    silent: bool,
}

impl Outbound {
    pub(super) fn new(client: AsyncClient) -> Self {
        Outbound { client, notes: Mutex::default(), room: Notify::new() }
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
        if let Some(Some(event)) = notes.requested.pop_front()
            && number != 0
        {
            notes.sent.push((number, event));
        }
        drop(notes);
        self.room.notify_waiters();
    }

    /// The broker acknowledges a number; gives the event that it was.
    pub(super) fn acknowledged(&self, number: u16) -> Option<NoticeSeq> {
        let mut notes = self.notes();
        let place = notes.sent.iter().position(|(sent, _)| *sent == number)?;
        Some(notes.sent.remove(place).1)
    }

    /// Acknowledgements do not come though they should have long ago. The link sees it at the next
    /// thing that it sends or hears, a probe at the latest; if there is room, that is at once.
    pub(super) fn note_silence(&self) {
        self.notes().silent = true;
        self.try_disconnect();
    }

    /// Whether the link is to be made anew.
    pub(super) fn is_silent(&self) -> bool {
        self.notes().silent
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
        let outbound = Outbound::new(client);
        assert_eq!(outbound.try_publish(1, &message(Some(7))), Requested::Away);
        outbound.open(1);
        for event in [Some(7), None, Some(8), Some(9)] {
            assert_eq!(outbound.try_publish(1, &message(event)), Requested::Yes);
        }
        for number in [5, 6, 1] {
            outbound.sent(number);
        }
        assert_eq!(outbound.acknowledged(6), None, "that was no event");
        assert_eq!(outbound.acknowledged(1), Some(NoticeSeq(8)));
        assert_eq!(outbound.acknowledged(5), Some(NoticeSeq(7)));
        assert_eq!(outbound.acknowledged(5), None, "once");
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
        let outbound = Outbound::new(client);
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
