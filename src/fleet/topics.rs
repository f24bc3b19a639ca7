//! The topics of a box: `edgerec/v1/{fleet}/…`.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Filter;

use crate::domain::fleet::document::Addressee;
use crate::domain::service::layers::SentLayer;

/// The topics of one box.
#[derive(Debug)]
pub(super) struct Topics {
    config_of_fleet: String,
    config_of_box: String,
    /// How the box stands.
    pub(super) state: String,
    /// Whether the box is there.
    pub(super) online: String,
}

impl Topics {
    pub(super) fn new(us: &Addressee) -> Self {
        let fleet = format!("edgerec/v1/{}", us.fleet);
        let of_box = |name: &str| format!("{fleet}/box/{}/{name}", us.box_id);
        Topics {
            config_of_fleet: format!("{fleet}/config"),
            config_of_box: of_box("config"),
            state: of_box("state"),
            online: of_box("online"),
        }
    }

    /// Where rule sets come from.
    pub(super) fn of_rules(&self) -> Vec<Filter> {
        [&self.config_of_fleet, &self.config_of_box].map(|topic| listen(topic)).into()
    }

    /// What is said in our name; the last that was said comes at once.
    pub(super) fn of_presence(&self) -> Filter {
        listen(&self.online)
    }

    /// The layer whose rule sets come on a topic.
    pub(super) fn layer_of(&self, topic: &[u8]) -> Option<SentLayer> {
        match topic {
            _ if topic == self.config_of_fleet.as_bytes() => Some(SentLayer::Fleet),
            _ if topic == self.config_of_box.as_bytes() => Some(SentLayer::Box),
            _ => None,
        }
    }
}

fn listen(topic: &str) -> Filter {
    Filter::new(topic, QoS::AtLeastOnce)
}
