//! Good documents are in force and told about; poison changes nothing and costs no connection.

use std::time::Instant;

use serde_json::{Value, json};

use super::support::broker::Broker;
use super::support::media::Clip;
use super::support::push::{Pace, push_file};
use super::{
    APPLIED_WITHIN, BACK_WITHIN, CLIENT, SOON, STATE, TO_ALL, TO_BOX, decided, decided_of,
    document, fleet_of_one, hear_applied,
};

fn named(template: &str, layer: &str, revision: u64) -> (String, String, u64) {
    (template.to_owned(), layer.to_owned(), revision)
}

#[test]
fn documents_of_fleet_and_box_are_in_force_and_told_about() {
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker, "");
    assert_eq!(decided(&edge), named("ten", "fleet", 10));
    operator.send(TO_BOX, document(3, "own").to_string());
    let state = hear_applied(&operator, APPLIED_WITHIN, "box", 3);
    assert_eq!(decided(&edge), named("own", "box", 3), "the box's layer lies over the fleet's");
    let fleet = json!({"received": 10, "applied": 10, "refused": null});
    assert_eq!(state["rules"]["fleet"], fleet);
    assert_eq!(state["clock"], "trusted");
    assert_eq!(state["link"]["connections"], 1);
    assert!(state["ring"]["slots_spare"].as_u64().is_some_and(|spare| spare > 0), "{state}");
    assert!(state["flash"]["free_bytes"].as_u64().is_some_and(|free| free > 0), "{state}");

    let mut wrong = document(11, "eleven");
    wrong["rules"][0]["TemplateName"] = json!("nobody");
    wrong["templates"][0]["FlvParam"]["Enable"] = json!(7);
    operator.send(TO_ALL, wrong.to_string());
    let refused = |state: &Value| state["rules"]["fleet"]["refused"].is_object();
    let state = operator.hear(APPLIED_WITHIN, STATE, "the refusal is told", refused);
    let fleet = &state["rules"]["fleet"];
    assert_eq!((&fleet["received"], &fleet["applied"]), (&json!(11), &json!(10)));
    let reasons = fleet["refused"]["reasons"].as_array().expect("reasons");
    let places: Vec<&Value> = reasons.iter().map(|reason| &reason["place"]).collect();
    assert_eq!(places, ["templates[0].FlvParam.Enable", "rules[0].TemplateName"], "{state:#}");
}

#[test]
fn live_streams_are_told_with_what_was_decided_about_them() {
    const CLIP: Clip =
        Clip { seconds: 10, fps: 25, gop: 25, b_frames: 0, video_kbps: 500, audio: true };
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker, "");
    let log = edge.dir().join("push.log");
    let mut pusher = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Real, &log);
    let live = |state: &Value| state["streams"][0]["stream"] == "cam";
    let state = operator.hear(SOON, STATE, "the stream is told", live);
    let stream = &state["streams"][0];
    assert_eq!((&stream["decision"], &stream["template"]), (&json!("record"), &json!("ten")));
    assert_eq!((&stream["layer"], &stream["revision"]), (&json!("fleet"), &json!(10)));
    assert_eq!(stream["stale"], false);

    let mut later = document(11, "eleven");
    later["templates"][0]["FlvParam"]["RecordInterval"] = json!(900);
    later["apply"] = json!({"mode": "next_start"});
    operator.send(TO_ALL, later.to_string());
    let stale = |state: &Value| state["streams"][0]["restart"] == "next_start";
    let state = operator.hear(APPLIED_WITHIN, STATE, "the stream is stale", stale);
    assert_eq!(
        (&state["streams"][0]["stale"], &state["streams"][0]["revision"]),
        (&json!(true), &json!(10))
    );
    pusher.finish_within(SOON);
    operator.hear(SOON, STATE, "the stream is gone", |state| state["streams"] == json!([]));
}

/// What must change nothing: where it is sent, what, and in which word it is refused; `None`: the
/// box does not even see it.
fn poisons() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let with = |name: &str, value: Value| {
        let mut document = document(99, "poison");
        document[name] = value;
        document.to_string().into_bytes()
    };
    let good = document(99, "poison").to_string();
    let deep =
        format!("{{\"revision\": 99, \"templates\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let twice = good.replacen('{', "{\"revision\": 98, ", 1);
    // The packet may have 1 MiB, its topic and header included.
    let nonsense = vec![0xb5; (1 << 20) - 256];
    vec![
        (TO_ALL, nonsense, Some("malformed")),
        (TO_ALL, vec![b'['; (1 << 20) - 256], Some("malformed")),
        (TO_ALL, vec![b' '; 2 << 20], None),
        (TO_ALL, b"{\"revision\": 99,".to_vec(), Some("malformed")),
        (TO_ALL, deep.into_bytes(), Some("malformed")),
        (TO_ALL, twice.into_bytes(), Some("malformed")),
        (TO_ALL, format!("\u{feff}{good}").into_bytes(), Some("malformed")),
        (TO_ALL, with("revision", json!("99")), Some("malformed")),
        (TO_ALL, with("surprise", json!(1)), Some("malformed")),
        (TO_ALL, document(4, "poison").to_string().into_bytes(), Some("older")),
        (TO_ALL, with("fleet", json!("other")), Some("foreign")),
        (TO_BOX, with("box", json!("box-02")), Some("foreign")),
        (TO_ALL, with("box", json!("box-01")), Some("foreign")),
        (TO_ALL, with("expires", json!("2026-01-01T00:00:00Z")), Some("expired")),
        (TO_ALL, Vec::new(), Some("empty")),
    ]
}

#[test]
fn poison_changes_nothing_and_the_next_good_document_is_in_force_at_once() {
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker, "");
    let mut revision = 10;
    for (topic, poison, why) in poisons() {
        let before = decided(&edge);
        operator.send(topic, &poison);
        let layer = if topic == TO_ALL { "fleet" } else { "box" };
        if let Some(why) = why {
            let refused = |state: &Value| state["rules"][layer]["refused"]["why"] == why;
            operator.hear(APPLIED_WITHIN, STATE, why, refused);
        }
        assert_eq!(decided(&edge), before, "{why:?} changes nothing");
        revision += 1;
        let sent = Instant::now();
        operator.send(TO_ALL, document(revision, &format!("good-{revision}")).to_string());
        hear_applied(&operator, APPLIED_WITHIN, "fleet", revision);
        assert!(sent.elapsed() <= APPLIED_WITHIN, "{:?} after {why:?}", sent.elapsed());
    }
    let other = document(revision, "other_content");
    operator.send(TO_ALL, other.to_string());
    let refused = |state: &Value| state["rules"]["fleet"]["refused"]["why"] == "other_content";
    operator.hear(APPLIED_WITHIN, STATE, "the same revision means one content", refused);
    assert_eq!(decided(&edge), named(&format!("good-{revision}"), "fleet", revision));
    assert_eq!(broker.connections_of(CLIENT), 1, "no connection was lost over it");
}

#[test]
fn a_storm_of_documents_ends_in_the_newest() {
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker, "");
    for revision in 11..=210 {
        operator.send(TO_ALL, document(revision, "storm").to_string());
    }
    let state = hear_applied(&operator, APPLIED_WITHIN, "fleet", 210);
    assert_eq!(decided(&edge), named("storm", "fleet", 210));
    let put_off = state["link"]["documents_put_off"].as_u64().expect("a number");
    assert!(put_off > 0, "most of them never reached the flash");
    assert_eq!(broker.connections_of(CLIENT), 1);
}

#[test]
fn rules_outlive_a_kill_and_are_in_force_without_a_link() {
    let mut broker = Broker::start();
    let (mut operator, mut edge) = fleet_of_one(&broker, "");
    let mut own = document(3, "own");
    own["rules"][0]["StreamName"] = json!("cam");
    operator.send(TO_BOX, own.to_string());
    hear_applied(&operator, APPLIED_WITHIN, "box", 3);
    edge.kill();
    broker.kill();
    assert_eq!(decided(&edge), named("own", "box", 3), "its ring says it while it is down");
    edge.start_again();
    assert_eq!(decided(&edge), named("own", "box", 3), "nobody is there to send it again");
    assert_eq!(decided_of(&edge, "other"), named("ten", "fleet", 10));

    // What an older backup of the broker has does not take the box back.
    let before = operator.connections();
    broker.start_again();
    operator.back_after(before);
    operator.send(TO_ALL, document(9, "nine").to_string());
    let refused = |state: &Value| state["rules"]["fleet"]["refused"]["why"] == "older";
    let state = operator.hear(BACK_WITHIN, STATE, "the older one is refused", refused);
    assert_eq!(state["rules"]["fleet"]["applied"], 10);
    operator.send(TO_ALL, document(12, "twelve").to_string());
    hear_applied(&operator, APPLIED_WITHIN, "fleet", 12);
    assert_eq!(decided_of(&edge, "other"), named("twelve", "fleet", 12));
}
