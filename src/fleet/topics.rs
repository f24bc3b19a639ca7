//! The topics of a box: `edgerec/v1/{fleet}/…`.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Filter;

use crate::domain::fleet::document::Addressee;
use crate::domain::notice::EventKind;
use crate::domain::service::layers::SentLayer;

/// The topics of one box.
#[derive(Debug)]
pub(super) struct Topics {
    config_of_fleet: String,
    config_of_box: String,
    commands: String,
    replies: String,
    events: String,
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
            commands: of_box("command"),
            replies: format!("{fleet}/reply/"),
            events: of_box("event/"),
            state: of_box("state"),
            online: of_box("online"),
        }
    }

    /// What may be missed, because it comes again.
    pub(super) fn of_rules(&self) -> Vec<Filter> {
        [&self.config_of_fleet, &self.config_of_box].map(|topic| listen(topic)).into()
    }

    /// What is said in our name; the last that was said comes at once.
    pub(super) fn of_presence(&self) -> Filter {
        listen(&self.online)
    }

    /// Where commands come from.
    pub(super) fn of_commands(&self) -> Filter {
        listen(&self.commands)
    }

    pub(super) fn is_command(&self, topic: &[u8]) -> bool {
        topic == self.commands.as_bytes()
    }

    /// Where events of a kind are told.
    pub(super) fn event(&self, kind: EventKind) -> String {
        format!("{}{}", self.events, kind.word())
    }

    /// Whether a message is an answer, which nobody says again unasked: state, presence and events
    /// are told anew on each connection.
    pub(super) fn is_answer(&self, topic: &[u8]) -> bool {
        let ours = [&self.state, &self.online].into_iter().any(|ours| topic == ours.as_bytes());
        !ours && !topic.starts_with(self.events.as_bytes())
    }

    /// Whether an answer may go to a topic: the box must not be made to speak on topics that mean
    /// something to others. Of our own topics only `edgerec/v1/{fleet}/reply/…` are for answers.
    pub(super) fn may_be_answered(&self, topic: &str) -> bool {
        let ours = topic.split('/').next() == Some("edgerec");
        let plain = !topic.is_empty() && !topic.contains(['#', '+', '\0']);
        plain && !topic.starts_with('$') && (!ours || topic.starts_with(&self.replies))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn answers_go_to_topics_that_are_for_answers() {
        let us = Addressee { fleet: "venue".into(), box_id: "box-01".into() };
        let topics = Topics::new(&us);
        for good in ["ops/7", "edgerec/v1/venue/reply/7"] {
            assert!(topics.may_be_answered(good), "{good}");
        }
        let bad =
            ["", "#", "ops/+", "$SYS/x", "edgerec/v1/venue/config", "edgerec/v1/other/reply/7"];
        for bad in bad {
            assert!(!topics.may_be_answered(bad), "{bad}");
        }
    }

    #[test]
    fn the_description_has_these_topics_and_no_others() {
        let us = Addressee { fleet: "{fleet}".into(), box_id: "{box}".into() };
        let topics = Topics::new(&us);
        let mut ours: BTreeSet<String> =
            EventKind::ALL.into_iter().map(|kind| topics.event(kind)).collect();
        // Taken apart, so that a new one cannot be forgotten here.
        let Topics { config_of_fleet, config_of_box, commands, replies, events: _, state, online } =
            topics;
        let replies = format!("{replies}{{mark}}");
        ours.extend([config_of_fleet, config_of_box, commands, replies, state, online]);
        let description: Value =
            serde_json::from_str(include_str!("contract/asyncapi.json")).expect("JSON");
        let channels = description["channels"].as_object().expect("channels");
        let described: BTreeSet<String> = channels
            .values()
            .map(|channel| channel["address"].as_str().expect("text").to_owned())
            .collect();
        assert_eq!(ours, described);
    }
}
