//! The state of the box as the fleet reads it: which rules it has and why others were refused, what
//! its streams do, and how ring, queue, flash and link stand.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::domain::fleet::refused::Refused;
use crate::domain::ids::BootId;
use crate::domain::service::layers::SentLayer;
use crate::domain::time::{BootTime, ClockQuality, Instant};
use crate::domain::wear::WearFigures;
use crate::fleet::notebook::{LayerNotes, Notes};
use crate::fleet::port::{BoxFigures, Restart, StreamReport};

/// Reasons of one refusal that are told; of more only the count is.
const REASONS_MAX: usize = 16;

/// How the rules of a layer stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerStanding {
    pub(super) layer: SentLayer,
    /// The revision that the box has.
    pub(super) received: Option<u64>,
    /// The revision in force.
    pub(super) applied: Option<u64>,
    /// Why the box went back from what it has.
    pub(super) went_back: Option<Refused>,
}

/// What the state is made of.
pub(super) struct State<'a> {
    pub(super) boot_id: BootId,
    pub(super) now: Instant,
    pub(super) notes: &'a Notes,
    pub(super) layers: &'a [LayerStanding; 2],
    pub(super) streams: &'a [StreamReport],
    pub(super) figures: Option<&'a BoxFigures>,
}

impl State<'_> {
    /// The whole of it, or without the streams where that has more than `bytes_max`.
    pub(super) fn to_json(&self, bytes_max: usize) -> String {
        let whole = self.value(self.streams).to_string();
        if whole.len() <= bytes_max { whole } else { self.value(&[]).to_string() }
    }

    fn value(&self, streams: &[StreamReport]) -> Value {
        let rules: serde_json::Map<String, Value> = self
            .layers
            .iter()
            .map(|standing| {
                let notes = match standing.layer {
                    SentLayer::Fleet => &self.notes.fleet,
                    SentLayer::Box => &self.notes.of_box,
                };
                (standing.layer.word().to_owned(), layer_value(notes, standing))
            })
            .collect();
        let clock = match self.now.wall.quality {
            ClockQuality::Trusted => "trusted",
            ClockQuality::Untrusted => "untrusted",
        };
        let mut state = json!({
            "boot_id": self.boot_id.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "time": self.time(self.now.boot),
            "clock": clock,
            "rules": rules,
            "streams": streams.iter().map(|stream| self.stream(stream)).collect::<Vec<_>>(),
            "streams_left_out": self.streams.len() - streams.len(),
            "link": {
                "connections": self.notes.connections,
                "taken_over": self.notes.taken_over,
                "denied": self.notes.denied,
                "documents_put_off": self.notes.put_off,
                "last_loss": self.notes.last_loss,
            },
        });
        if let Some(figures) = self.figures {
            state["ring"] = json!({
                "capacity_bytes": figures.ring.capacity_bytes,
                "slots": figures.ring.slots,
                "slots_spare": figures.ring.slots_spare,
                "slots_failed": figures.ring.slots_failed,
                "slots_unread": figures.ring.slots_unread,
                "gaps": figures.ring.gaps,
                "losses": figures.ring.losses,
                "safe_offline_s": figures.retention.safe_offline_s,
            });
            state["queue"] = json!({
                "files": figures.queue.files,
                "bytes": figures.queue.bytes,
                "failed": figures.queue.failed,
            });
            state["flash"] = json!({
                "free_bytes": figures.flash_free_bytes,
                "wear": figures.wear.as_ref().map(wear_value),
            });
        }
        state
    }

    fn stream(&self, stream: &StreamReport) -> Value {
        let matched = stream.decision.matched();
        let retention = self.figures.and_then(|one| one.retention.streams.get(&stream.key));
        json!({
            "domain": stream.key.domain(),
            "app": stream.key.app(),
            "stream": stream.key.stream(),
            "session": stream.session.to_string(),
            "began": self.time(stream.began),
            "decision": stream.decision.word(),
            "template": matched.map(|matched| &matched.template.name),
            "layer": matched.map(|matched| matched.layer.to_string()),
            "revision": matched.map(|matched| matched.revision),
            "bytes_per_s": retention.map(|(bytes_per_s, _)| bytes_per_s),
            "keeps_s": retention.and_then(|(_, keeps_s)| *keeps_s),
            "stale": stream.stale.is_some(),
            "restart": stream.stale.map(|restart| match restart {
                Restart::From(at) => self.time(at),
                Restart::NextStart => "next_start".to_owned(),
            }),
        })
    }

    /// A time of this boot, by what the clock says now: it may have been set since.
    fn time(&self, at: BootTime) -> String {
        let boot_ms = |time: BootTime| i64::try_from(time.0).unwrap_or(i64::MAX);
        let unix_ms = self.now.wall.unix.0.saturating_add(boot_ms(at) - boot_ms(self.now.boot));
        Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string()
    }
}

fn wear_value(wear: &WearFigures) -> Value {
    json!({
        "written_bytes": wear.total.bytes,
        "flushes": wear.total.flushes,
        "written_bytes_today": wear.today.bytes,
        "flushes_today": wear.today.flushes,
        "used_percent": wear.health.map(|health| health.used_percent),
        "pre_eol": wear.health.map(|health| health.pre_eol),
        "days_left": wear.days_left,
        "days_left_by_rules": wear.days_left_by_rules,
        "warning": wear.warning,
    })
}

fn layer_value(notes: &LayerNotes, standing: &LayerStanding) -> Value {
    let refused = notes.refused.as_ref().or(standing.went_back.as_ref());
    json!({
        // After a start nothing may have come yet of what the box has.
        "received": notes.received.or(standing.received),
        "applied": standing.applied,
        "refused": refused.map(|refused| refused.told(REASONS_MAX)),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::domain::faults::Faults;
    use crate::domain::fleet::refused::{Refused, Why};
    use crate::domain::ids::SessionId;
    use crate::domain::matching::Decision;
    use crate::domain::stream_key::StreamKey;
    use crate::domain::time::{UnixMillis, WallTime};

    fn standing(layer: SentLayer, revision: Option<u64>) -> LayerStanding {
        LayerStanding { layer, received: revision, applied: revision, went_back: None }
    }

    static LAYERS: LazyLock<[LayerStanding; 2]> =
        LazyLock::new(|| [standing(SentLayer::Fleet, Some(4)), standing(SentLayer::Box, None)]);

    fn state_of<'a>(notes: &'a Notes, streams: &'a [StreamReport]) -> State<'a> {
        State {
            boot_id: BootId([7; 16]),
            now: Instant {
                boot: BootTime(60_000),
                wall: WallTime {
                    unix: UnixMillis(1_800_000_000_000),
                    quality: ClockQuality::Trusted,
                },
            },
            notes,
            layers: &LAYERS,
            streams,
            figures: None,
        }
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn a_refusal_is_told_with_its_reasons_and_how_many_more_there_are() {
        let mut faults = Faults::new();
        (0..100).for_each(|number| faults.add(format!("rules[{number}]"), "is wrong"));
        let refused = Refused { why: Why::Malformed, revision: Some(5), faults };
        let mut notes = Notes::default();
        *notes.layer(SentLayer::Fleet) = LayerNotes { received: Some(5), refused: Some(refused) };
        let state = parsed(&state_of(&notes, &[]).to_json(1 << 20));
        let fleet = &state["rules"]["fleet"];
        assert_eq!((&fleet["received"], &fleet["applied"]), (&json!(5), &json!(4)));
        assert_eq!(
            fleet["refused"]["reasons"][0],
            json!({"place": "rules[0]", "what": "is wrong"})
        );
        assert_eq!(fleet["refused"]["reasons"].as_array().map(Vec::len), Some(REASONS_MAX));
        assert_eq!(fleet["refused"]["more"], json!(100 - REASONS_MAX));
        let of_box = json!({"received": null, "applied": null, "refused": null});
        assert_eq!(state["rules"]["box"], of_box);
    }

    #[test]
    fn a_return_is_told_as_long_as_nothing_newer_is_refused() {
        let went_back = Refused::new(Why::StreamsFail, Some(5), "d/live/s", "no answer");
        let layers = [
            LayerStanding {
                received: Some(5),
                went_back: Some(went_back),
                ..standing(SentLayer::Fleet, Some(4))
            },
            standing(SentLayer::Box, None),
        ];
        let mut notes = Notes::default();
        let told = |notes: &Notes| {
            let state = State { layers: &layers, ..state_of(notes, &[]) };
            parsed(&state.to_json(1 << 20))["rules"]["fleet"].take()
        };
        let fleet = told(&notes);
        assert_eq!((&fleet["received"], &fleet["applied"]), (&json!(5), &json!(4)));
        assert_eq!(fleet["refused"]["why"], "streams_fail");
        assert_eq!(
            fleet["refused"]["reasons"],
            json!([{"place": "d/live/s", "what": "no answer"}])
        );
        let older = Refused::new(Why::Older, Some(3), "revision", "is older");
        *notes.layer(SentLayer::Fleet) = LayerNotes { received: Some(3), refused: Some(older) };
        assert_eq!(told(&notes)["refused"]["why"], "older");
    }

    #[test]
    fn streams_that_do_not_fit_into_a_packet_are_counted() {
        let stream = |number: u32| StreamReport {
            key: StreamKey::new("d", "live", &format!("s{number}")).expect("a key"),
            session: SessionId(7),
            began: BootTime(59_000),
            decision: Decision::Unmatched,
            stale: Some(Restart::NextStart),
        };
        let streams: Vec<StreamReport> = (0..20).map(stream).collect();
        let notes = Notes::default();
        let state = state_of(&notes, &streams);
        let whole = parsed(&state.to_json(1 << 20));
        assert_eq!(whole["streams"][19]["restart"], "next_start");
        assert_eq!(whole["streams"][0]["began"], "2027-01-15T07:59:59Z");
        assert_eq!(whole["streams_left_out"], 0);
        let short = parsed(&state.to_json(1_000));
        assert_eq!((&short["streams"], &short["streams_left_out"]), (&json!([]), &json!(20)));
    }
}
