//! Events of the box's own: what its ledgers have, and what became of rule sets. A fleet is told of
//! them, receivers of the cloud's notices never.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::domain::files::FileFormat;
use crate::domain::fleet::refused::Refused;
use crate::domain::ids::FileId;
use crate::domain::notice::body::{Origin, ours};
use crate::domain::notice::{EventKind, NoticeSeq};
use crate::domain::service::layers::SentLayer;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;

/// Reasons of one refusal that an event tells; of more only the count is.
const REASONS_MAX: usize = 4;

/// An event of the box's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxEvent {
    /// When it happened.
    pub at: UnixMillis,
    /// What.
    pub what: BoxNews,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoxNews {
    /// An entry of the gap ledger begins, or is complete.
    Gap(Gap),
    /// An entry of the loss ledger.
    Loss(Loss),
    /// A rule set of the fleet is in force.
    Applied {
        /// Its layer.
        layer: SentLayer,
        /// Its revision.
        revision: u64,
    },
    /// A rule set of the fleet is refused, and the one before stays.
    Refused {
        /// Its layer.
        layer: SentLayer,
        /// Why.
        refused: Refused,
    },
}

/// An entry of the gap ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Its number in the ledger.
    pub number: u64,
    /// The stream.
    pub key: StreamKey,
    /// Where it begins.
    pub from: UnixMillis,
    /// Where it ends; `None` while it lasts.
    pub until: Option<UnixMillis>,
    /// Media that is missing, in milliseconds; `None` while it lasts.
    pub media_ms: Option<i64>,
    /// Why, in words.
    pub cause: String,
}

/// An entry of the loss ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Its number in the ledger.
    pub number: u64,
    /// Why, in words.
    pub reason: String,
    /// What is lost.
    pub lost: Lost,
}

/// What is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// A file that was not delivered.
    File {
        /// Which.
        file: FileId,
        /// Its stream; `None` if nobody knows it any more.
        key: Option<StreamKey>,
        /// Its format; `None` likewise.
        format: Option<FileFormat>,
        /// Media that it had, in milliseconds.
        media_ms: i64,
    },
    /// Events that were not told.
    Events {
        /// The first.
        first: NoticeSeq,
        /// The last.
        last: NoticeSeq,
        /// How many: those between them that were told are not lost.
        count: u64,
    },
}

impl BoxEvent {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self.what {
            BoxNews::Gap(_) => EventKind::Gap,
            BoxNews::Loss(_) => EventKind::Loss,
            BoxNews::Applied { .. } | BoxNews::Refused { .. } => EventKind::Config,
        }
    }

    /// The stream it is of, if of one.
    #[must_use]
    pub fn key(&self) -> Option<&StreamKey> {
        match &self.what {
            BoxNews::Gap(gap) => Some(&gap.key),
            BoxNews::Loss(Loss { lost: Lost::File { key, .. }, .. }) => key.as_ref(),
            _ => None,
        }
    }

    /// The same however often this event is told; entered twice, it is told once. A document that
    /// is refused for the same reasons again, as one that the broker keeps is at each connection, is
    /// the same event.
    #[must_use]
    pub fn id(&self) -> String {
        let number = self.kind().number();
        match &self.what {
            BoxNews::Gap(gap) => {
                let step = if gap.until.is_some() { "end" } else { "begin" };
                format!("{number}-{}-{step}", gap.number)
            }
            BoxNews::Loss(loss) => format!("{number}-{}", loss.number),
            BoxNews::Applied { layer, revision } => {
                format!("{number}-{}-{revision}-applied-{}", layer.word(), self.at.0)
            }
            BoxNews::Refused { layer, refused } => {
                let (layer, why) = (layer.word(), refused.why.word());
                let revision = refused.revision.map(|r| r.to_string()).unwrap_or_default();
                let reasons = Sha256::digest(refused.told(REASONS_MAX).to_string());
                let reasons: String =
                    reasons[..4].iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{number}-{layer}-{revision}-{why}-{reasons}")
            }
        }
    }

    /// The body, as JSON text.
    #[must_use]
    pub fn body(&self, origin: Origin<'_>, seq: NoticeSeq) -> String {
        let mut body = match &self.what {
            BoxNews::Gap(gap) => json!({
                "domain": gap.key.domain(),
                "app": gap.key.app(),
                "stream": gap.key.stream(),
                "gap": gap.number,
                "from_ms": gap.from.0,
                "until_ms": gap.until.map(|until| until.0),
                "media_ms": gap.media_ms,
                "cause": gap.cause,
            }),
            BoxNews::Loss(loss) => json!({
                "loss": loss.number,
                "reason": loss.reason,
                "file": file_value(&loss.lost),
                "events": events_value(&loss.lost),
            }),
            BoxNews::Applied { layer, revision } => json!({
                "layer": layer.word(),
                "revision": revision,
                "outcome": "applied",
                "refused": null,
            }),
            BoxNews::Refused { layer, refused } => json!({
                "layer": layer.word(),
                "revision": refused.revision,
                "outcome": "refused",
                "refused": refused.told(REASONS_MAX),
            }),
        };
        body["event_type"] = self.kind().number().into();
        body["event_time"] = self.at.0.div_euclid(1_000).into();
        body["edgerec"] = ours(&self.id(), origin, seq);
        body.to_string()
    }
}

fn file_value(lost: &Lost) -> Value {
    let Lost::File { file, key, format, media_ms } = lost else { return Value::Null };
    json!({
        "domain": key.as_ref().map(StreamKey::domain),
        "app": key.as_ref().map(StreamKey::app),
        "stream": key.as_ref().map(StreamKey::stream),
        "file_id": file.to_string(),
        "file_format": format.map(FileFormat::name),
        "media_ms": media_ms,
    })
}

fn events_value(lost: &Lost) -> Value {
    let Lost::Events { first, last, count } = lost else { return Value::Null };
    json!({"first_seq": first.0, "last_seq": last.0, "count": count})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fleet::refused::Why;

    fn event(what: BoxNews) -> BoxEvent {
        BoxEvent { at: UnixMillis(1_700_000_000_999), what }
    }

    fn body(what: BoxNews) -> Value {
        let origin = Origin { appid: 0, box_id: "box-01", outbox: "0badcafe" };
        serde_json::from_str(&event(what).body(origin, NoticeSeq(7))).expect("JSON")
    }

    #[test]
    fn begin_and_end_of_a_gap_are_two_events_of_one_entry() {
        let begin = Gap {
            number: 3,
            key: "d/live/cam".parse().expect("a key"),
            from: UnixMillis(1_000),
            until: None,
            media_ms: None,
            cause: "the camera did not deliver".into(),
        };
        let end = Gap { until: Some(UnixMillis(4_000)), media_ms: Some(3_000), ..begin.clone() };
        let (begin, end) = (BoxNews::Gap(begin), BoxNews::Gap(end));
        assert_ne!(event(begin.clone()).id(), event(end.clone()).id());
        let (begin, end) = (body(begin), body(end));
        assert_eq!((&begin["gap"], &begin["until_ms"]), (&json!(3), &Value::Null));
        assert_eq!((&end["gap"], &end["until_ms"]), (&json!(3), &json!(4_000)));
        assert_eq!(
            (&end["event_type"], &end["event_time"]),
            (&json!(10_001), &json!(1_700_000_000))
        );
        let ours = json!({"seq": 7, "id": "10001-3-end", "box": "box-01", "outbox": "0badcafe"});
        assert_eq!(end["edgerec"], ours);
    }

    #[test]
    fn the_same_refusal_is_the_same_event_and_no_longer_than_a_few_reasons() {
        let mut refused = Refused::new(Why::Malformed, Some(5), "rules[0]", "is wrong");
        (1..9).for_each(|number| refused.faults.add(format!("rules[{number}]"), "is wrong"));
        let other = Refused::new(Why::Malformed, Some(5), "rules[0]", "is another");
        let refused_for = |refused: &Refused| {
            BoxEvent {
                at: UnixMillis(0),
                what: BoxNews::Refused { layer: SentLayer::Fleet, refused: refused.clone() },
            }
            .id()
        };
        assert_eq!(refused_for(&refused), refused_for(&refused));
        assert_ne!(refused_for(&refused), refused_for(&other));
        let what = BoxNews::Refused { layer: SentLayer::Fleet, refused };
        let again = BoxEvent { at: UnixMillis(0), what: what.clone() };
        assert_eq!(again.id(), event(what.clone()).id());
        let body = body(what);
        assert_eq!(body["refused"]["reasons"].as_array().map(Vec::len), Some(REASONS_MAX));
        assert_eq!((&body["refused"]["more"], &body["revision"]), (&json!(5), &json!(5)));
    }

    #[test]
    fn a_loss_is_of_a_file_or_of_events() {
        let loss = |lost| Loss { number: 2, reason: "r".into(), lost };
        let (key, format) = (None, None);
        let file = Lost::File { file: FileId(11), key, format, media_ms: 60_000 };
        let of_file = body(BoxNews::Loss(loss(file)));
        assert_eq!((&of_file["file"]["file_id"], &of_file["events"]), (&json!("11"), &Value::Null));
        let events = Lost::Events { first: NoticeSeq(4), last: NoticeSeq(9), count: 5 };
        let of_events = body(BoxNews::Loss(loss(events)));
        let expected = json!({"first_seq": 4, "last_seq": 9, "count": 5});
        assert_eq!((&of_events["file"], &of_events["events"]), (&Value::Null, &expected));
    }
}
