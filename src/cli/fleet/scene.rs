//! What the broker tells of a fleet: how boxes stand, and which rule sets are published.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::fleet::boxes::Boxes;
use crate::cli::fleet::document::{Press, is_signed, revision, unwrapped};
use crate::cli::fleet::{Fleet, failed};
use crate::cli::outcome::Failure;
use crate::domain::fleet::refused::Why;
use crate::domain::fleet::rollout::Report;
use crate::fleet::operator::{Heard, Operator};

/// A broker sends what it keeps one after the other; after such a pause it has sent all.
const PAUSE: Duration = Duration::from_secs(2);
/// A fleet that is never silent has said enough after this time.
const ENOUGH: Duration = Duration::from_secs(30);

/// What was heard, and who hears it.
pub(super) struct Scene<'a> {
    fleet: &'a Fleet<'a>,
    operator: Operator,
    boxes: Boxes,
    /// What is published on the topics of rules.
    published: BTreeMap<String, Bytes>,
}

impl<'a> Scene<'a> {
    /// Listens to how boxes stand, and to these topics of rules, until the broker has told what it
    /// keeps.
    pub(super) async fn open(fleet: &'a Fleet<'a>, rules: &[String]) -> Result<Self, Failure> {
        let mut operator = fleet.connect().await?;
        if !rules.is_empty() {
            operator.listen(rules).await.map_err(failed)?;
        }
        operator.listen(&fleet.topics.standing()).await.map_err(failed)?;
        let (boxes, published) = (Boxes::default(), BTreeMap::new());
        let mut scene = Scene { fleet, operator, boxes, published };
        let enough = Instant::now() + ENOUGH;
        while scene.hear(enough.min(Instant::now() + PAUSE)).await? {}
        Ok(scene)
    }

    /// Takes the next message; `false`: none came until then.
    pub(super) async fn hear(&mut self, until: Instant) -> Result<bool, Failure> {
        if Instant::now() >= until {
            return Ok(false);
        }
        let heard = self.operator.hear(until).await.map_err(failed)?;
        let heard_one = heard.is_some();
        heard.into_iter().for_each(|heard| self.take(heard));
        Ok(heard_one)
    }

    fn take(&mut self, heard: Heard) {
        let of_rules = match self.fleet.topics.box_of(&heard.topic) {
            Some((_, kind)) => kind == "config",
            None => heard.topic == self.fleet.topics.config(None),
        };
        if of_rules {
            self.published.insert(heard.topic, heard.payload);
        } else {
            self.boxes.take(self.fleet, &heard);
        }
    }

    /// Publishes a rule set for all boxes or one; the broker has it when this returns.
    pub(super) async fn publish(
        &mut self,
        box_id: Option<&str>,
        text: String,
    ) -> Result<(), Failure> {
        let topic = self.fleet.topics.config(box_id);
        self.operator.keep(&topic, text.clone()).await.map_err(failed)?;
        self.published.insert(topic, text.into());
        Ok(())
    }

    /// The rule set that is published for all boxes or one.
    pub(super) fn published(&self, box_id: Option<&str>) -> Result<Option<Value>, Failure> {
        let topic = self.fleet.topics.config(box_id);
        self.published.get(&topic).map_or(Ok(None), |kept| unwrapped(&topic, kept))
    }

    /// The rule set that is published for all boxes or one, if that is one.
    pub(super) fn readable(&self, box_id: Option<&str>) -> Option<Value> {
        self.published(box_id).ok().flatten()
    }

    /// What is wrong with topics of rules on which something else is published.
    pub(super) fn unreadable(&self) -> Vec<Failure> {
        let read = self.published.iter().map(|(topic, kept)| unwrapped(topic, kept));
        read.filter_map(Result::err).collect()
    }

    /// What is signed stays signed: boxes that check signatures would refuse anything else.
    ///
    /// # Errors
    /// What is published is signed, and what comes would not be.
    pub(super) fn check_signature(
        &self,
        box_id: Option<&str>,
        press: &Press<'_>,
    ) -> Result<(), Failure> {
        let topic = self.fleet.topics.config(box_id);
        if press.signs() || !self.published.get(&topic).is_some_and(|kept| is_signed(kept)) {
            return Ok(());
        }
        Err(Failure::Usage(format!("--sign-key is missing: {topic} is signed")))
    }

    /// The name of the fleet.
    pub(super) fn fleet_name(&self) -> &str {
        &self.fleet.mqtt.fleet
    }

    /// What the boxes have said of themselves.
    pub(super) fn boxes(&self) -> &Boxes {
        &self.boxes
    }

    /// The newest revision of the rules for all boxes, or of its own, that a box holds; 0 for none.
    pub(super) fn newest_held(&self, box_id: Option<&str>) -> u64 {
        let of_all = || self.boxes.0.values().filter_map(|said| held(said, "fleet")).max();
        let of_one = |id: &str| held(self.boxes.0.get(id)?, "box");
        box_id.map_or_else(of_all, of_one).unwrap_or(0)
    }

    /// A box that holds rules for all under a higher revision than this.
    pub(super) fn ahead_of(&self, revision: u64) -> Option<&str> {
        let mut boxes = self.boxes.0.iter();
        let ahead = boxes.find(|(_, said)| held(said, "fleet").is_some_and(|held| held > revision));
        ahead.map(|(id, _)| id.as_str())
    }

    /// Boxes that are there.
    pub(super) fn online(&self) -> Vec<String> {
        let online = self.boxes.0.iter().filter(|(_, said)| said["online"]["online"] == true);
        online.map(|(id, _)| id.clone()).collect()
    }

    /// What is published for a box alone; `None`: nobody can tell what it has.
    pub(super) fn own(&self, id: &str) -> Option<Option<Value>> {
        let own = self.published(Some(id)).ok()?;
        let applied = self.boxes.0.get(id)?["state"]["rules"]["box"]["applied"].as_u64();
        (own.as_ref().map(revision) == applied).then_some(own)
    }

    /// Streams of a box that are live.
    pub(super) fn live(&self, id: &str) -> Vec<String> {
        let streams = self.report(id, "box").streams;
        streams.map(|streams| streams.into_keys().collect()).unwrap_or_default()
    }

    /// How a box stands with a layer of rules.
    pub(super) fn report(&self, id: &str, layer: &str) -> Report {
        self.boxes.0.get(id).map_or_else(Report::default, |said| report(said, layer))
    }
}

/// The revision of a layer that a box holds: the one in force, or the one that it went back from. What
/// it refused for another reason it has not.
fn held(said: &Value, layer: &str) -> Option<u64> {
    let rules = &said["state"]["rules"][layer];
    let refused = &rules["refused"];
    let gone = refused["revision"].as_u64().filter(|_| refused["why"] == Why::StreamsFail.word());
    rules["applied"].as_u64().max(gone)
}

fn report(said: &Value, layer: &str) -> Report {
    let state = &said["state"];
    let rules = &state["rules"][layer];
    let refused = rules["refused"]["why"].as_str().map(|why| {
        let reason = &rules["refused"]["reasons"][0];
        let reason = [&reason["place"], &reason["what"]].map(|part| part.as_str().unwrap_or(""));
        (rules["refused"]["revision"].as_u64(), format!("{why}: {}", reason.join(" ")))
    });
    let stream = |stream: &Value| {
        let part = |name: &str| stream[name].as_str().unwrap_or("").to_owned();
        let key = ["domain", "app", "stream"].map(part).join("/");
        (key, stream["stale"] == true && stream["restart"] != "next_start")
    };
    let all_told = state["streams_left_out"] == 0;
    let streams = state["streams"].as_array().filter(|_| all_told);
    Report {
        online: said["online"]["online"] == true,
        received: rules["received"].as_u64(),
        applied: rules["applied"].as_u64(),
        refused,
        streams: streams.map(|streams| streams.iter().map(stream).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_what_the_box_said() {
        let stream = |name: &str, stale: bool, restart: &Value| {
            json!({"domain": "d", "app": "live",
            "stream": name, "stale": stale, "restart": restart})
        };
        let said = json!({"online": {"online": true}, "state": {
            "rules": {"box": {"received": 9, "applied": 8, "refused": {"why": "malformed",
                "revision": 9, "reasons": [{"place": "rules[0]", "what": "is wrong"}]}}},
            "streams": [stream("a", true, &json!("2027-01-15T08:00:00Z")),
                stream("b", true, &json!("next_start")), stream("c", false, &Value::Null)],
            "streams_left_out": 0}});
        let told = report(&said, "box");
        assert_eq!((told.online, told.received, told.applied), (true, Some(9), Some(8)));
        assert_eq!(told.refused, Some((Some(9), "malformed: rules[0] is wrong".to_owned())));
        let waits = [("d/live/a", true), ("d/live/b", false), ("d/live/c", false)];
        let waits = waits.map(|(key, waits)| (key.to_owned(), waits));
        assert_eq!(told.streams, Some(BTreeMap::from(waits)));
        let mut short = said.clone();
        (short["state"]["streams"], short["state"]["streams_left_out"]) = (json!([]), json!(3));
        assert_eq!(report(&short, "box").streams, None);
        assert_eq!(report(&said, "fleet").applied, None);
        assert_eq!(report(&json!({}), "box"), Report::default());
    }
}
