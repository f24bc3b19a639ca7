//! New rules over a real broker reach live streams: by a restart that loses nothing, by a drop, when
//! the stream comes back, spread over a time; a storm of them makes few restarts; and the box goes back
//! from rules under which streams fail. A camera that moves is opened anew before its old connection is
//! closed.

mod support;

#[path = "fleet_restart/going_back.rs"]
mod going_back;
#[path = "fleet_restart/moving.rs"]
mod moving;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use support::broker::Broker;
use support::edge_box::{BoxPlan, EdgeBox};
use support::media::Clip;
use support::operator::Operator;
use support::packets::{Kind, Packet, of_kind, packets};
use support::push::{Pace, Pusher, push_file};
use support::wait::wait_until;

const TO_ALL: &str = "edgerec/v1/venue/config";
const STATE: &str = "edgerec/v1/venue/box/box-01/state";
const SOON: Duration = Duration::from_secs(30);
const CLIP: Clip =
    Clip { seconds: 12, fps: 25, gop: 25, b_frames: 2, video_kbps: 400, audio: true };

/// Outlasts a storm and the restarts after it.
const LONG: Clip = Clip { seconds: 22, ..CLIP };

/// A rule set that records all of the app `live` as FLV, in files of this length.
fn document(revision: u64, interval_s: u64, apply: Value) -> Value {
    json!({"revision": revision, "apply": apply,
        "templates": [{"TemplateName": "t", "FlvParam": {"Enable": 1, "RecordInterval": interval_s}}],
        "rules": [{"DomainName": "", "StreamName": "", "TemplateName": "t"}]})
}

/// A box and an operator on one broker, with revision 10 in force.
fn fleet_of_one(broker: &Broker) -> (Operator, EdgeBox) {
    let mut operator = Operator::connect(broker.addr());
    operator.send(TO_ALL, document(10, 1_800, json!({})).to_string());
    let mqtt = format!("url = \"mqtt://{}\"\nfleet = \"venue\"\n", broker.addr());
    let edge = BoxPlan::default().mqtt(&mqtt).start();
    let applied = |state: &Value| state["rules"]["fleet"]["applied"] == 10;
    operator.hear(SOON, STATE, "the first rules are in force", applied);
    (operator, edge)
}

fn push(edge: &EdgeBox, stream: &str, pace: Pace) -> Pusher {
    push_clip(CLIP, edge, stream, pace)
}

fn push_clip(clip: Clip, edge: &EdgeBox, stream: &str, pace: Pace) -> Pusher {
    let log = edge.dir().join(format!("{stream}.log"));
    let mut pusher = push_file(&clip.flv(), &edge.push_url(stream), pace, &log);
    wait_until(SOON, "two seconds are sent", || {
        assert!(pusher.process().is_running(), "{}", pusher.process().log_tail());
        pusher.sent_ms() >= 2_000
    });
    pusher
}

/// What the box says of a stream.
fn stream_of<'a>(state: &'a Value, stream: &str) -> &'a Value {
    let all = state["streams"].as_array().into_iter().flatten();
    all.into_iter().find(|row| row["stream"] == stream).unwrap_or(&Value::Null)
}

/// Waits until the live session of a stream has a revision.
fn hear_taken(operator: &Operator, stream: &str, revision: u64) -> Value {
    let what = format!("{stream} takes revision {revision}");
    let taken = |state: &Value| {
        let row = stream_of(state, stream);
        row["revision"] == revision && row["stale"] == false
    };
    stream_of(&operator.hear(SOON, STATE, &what, taken), stream).clone()
}

/// The finished files of the box, oldest first, once none grows.
fn files(edge: &EdgeBox) -> Vec<PathBuf> {
    wait_until(SOON, "no file grows", || {
        let rows = edge.ls();
        !rows.is_empty() && rows.iter().all(|row| row["state"] != "recording")
    });
    let mut rows = edge.ls();
    rows.sort_by_key(|row| row["start_ms"].as_i64());
    let export = |(number, row): (usize, &Value)| {
        let id = row["file_id"].as_str().expect("a row has a file id");
        edge.export_file(id, &format!("{number}.flv"))
    };
    rows.iter().enumerate().map(export).collect()
}

type Told = (Option<i64>, Option<i64>, bool, String);

/// Times, key flag and hash of each packet of one kind, file after file.
fn told(files: &[PathBuf], kind: Kind) -> Vec<Told> {
    let told = |packet: Packet| (packet.dts, packet.pts, packet.key, packet.hash);
    files.iter().flat_map(|file| of_kind(&packets(file), kind)).map(told).collect()
}

/// Fails the test unless the files hold what was sent, packet by packet, each beginning at a key
/// frame.
fn assert_whole(files: &[PathBuf], sent: &Path) {
    for kind in [Kind::Video, Kind::Audio] {
        assert_eq!(told(files, kind), told(&[sent.to_owned()], kind), "{kind:?}");
    }
    for file in files {
        let (_, _, key, _) = told(std::slice::from_ref(file), Kind::Video)[0];
        assert!(key, "{} begins with a key frame", file.display());
    }
}

#[test]
fn a_soft_restart_loses_no_packet_and_repeats_none() {
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker);
    let mut pusher = push(&edge, "cam", Pace::Real);
    let before =
        operator.hear(SOON, STATE, "it is live", |state| !stream_of(state, "cam").is_null());
    operator.send(TO_ALL, document(11, 900, json!({"mode": "restart"})).to_string());
    let after = hear_taken(&operator, "cam", 11);
    assert_ne!(stream_of(&before, "cam")["session"], after["session"], "a session of its own");
    pusher.finish_within(SOON);
    let files = files(&edge);
    assert_eq!(files.len(), 2, "one under each rule set");
    assert_whole(&files, &CLIP.flv());
}

#[test]
fn next_start_waits_until_the_stream_comes_back_by_itself() {
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker);
    let mut pusher = push(&edge, "cam", Pace::Real);
    operator.send(TO_ALL, document(11, 900, json!({"mode": "next_start"})).to_string());
    let stale = |state: &Value| stream_of(state, "cam")["stale"] == true;
    let state = operator.hear(SOON, STATE, "it is stale", stale);
    let row = stream_of(&state, "cam");
    assert_eq!((&row["restart"], &row["revision"]), (&json!("next_start"), &json!(10)));
    pusher.finish_within(SOON);
    let seen = operator.all(STATE);
    let taken = |state: &Value| stream_of(state, "cam")["revision"] == 11;
    assert!(!seen.iter().any(taken), "it kept its rules to its end");
    let whole = files(&edge);
    assert_eq!(whole.len(), 1);
    assert_whole(&whole, &CLIP.flv());
    let _again = push(&edge, "cam", Pace::Real);
    hear_taken(&operator, "cam", 11);
}

#[test]
fn disconnect_drops_a_pusher_that_comes_back_each_time() {
    let broker = Broker::start();
    let (mut operator, mut edge) = fleet_of_one(&broker);
    let mut pusher = push(&edge, "cam", Pace::RealLooped);
    let drop = |revision| document(revision, 900 + revision, json!({"disconnect": true}));
    operator.send(TO_ALL, drop(11).to_string());
    pusher.end_within(SOON);
    operator.hear(SOON, STATE, "it is gone", |state| state["streams"] == json!([]));
    let mut pusher = push(&edge, "cam", Pace::RealLooped);
    hear_taken(&operator, "cam", 11);
    operator.send(TO_ALL, drop(12).to_string());
    pusher.end_within(SOON);
    assert_eq!(edge.log().matches("dropped, so that it comes back").count(), 2);
    // The box remembers over a kill that it is waited for, and that it came.
    edge.kill();
    edge.start_again();
    let mut pusher = push(&edge, "cam", Pace::RealLooped);
    hear_taken(&operator, "cam", 12);
    operator.send(TO_ALL, drop(13).to_string());
    pusher.end_within(SOON);
}

#[test]
fn restarts_are_spread_and_state_says_when_each_is() {
    const WITHIN_S: u64 = 6;
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker);
    let names = ["gate", "hall", "yard", "shop"];
    let _pushers = names.map(|name| push(&edge, name, Pace::RealLooped));
    let live = |state: &Value| state["streams"].as_array().is_some_and(|all| all.len() == 4);
    operator.hear(SOON, STATE, "all are live", live);
    operator.send(TO_ALL, document(11, 900, json!({"within_s": WITHIN_S})).to_string());
    let sessions = names.map(|name| hear_taken(&operator, name, 11));
    let told = operator.all(STATE);
    let time = |value: &Value| -> Timestamp {
        value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value}"))
    };
    let mut planned = Vec::new();
    for (name, session) in names.iter().zip(&sessions) {
        let of_stream = told.iter().map(|state| stream_of(state, name));
        let stale: Vec<&Value> = of_stream.filter(|row| row["stale"] == true).collect();
        let began = time(&session["began"]);
        // One that is restarted within the first second is perhaps never told as stale.
        for row in stale {
            let restart = time(&row["restart"]);
            let late_ms = began.as_millisecond() - restart.as_millisecond();
            assert!((-50..4_000).contains(&late_ms), "{name}: {late_ms} ms after its time");
            planned.push(restart.as_millisecond());
        }
    }
    planned.sort_unstable();
    planned.dedup_by(|a, b| (*a - *b).abs() < 50);
    assert!(planned.len() >= 2, "{planned:?} of {told:#?}");
    let began: Vec<i64> = sessions.iter().map(|row| time(&row["began"]).as_millisecond()).collect();
    let apart = began.iter().max().expect("four") - began.iter().min().expect("four");
    assert!(apart >= 1_000, "{began:?} lie apart");
}

#[test]
fn a_storm_of_rules_makes_one_restart_in_its_time_and_loses_nothing() {
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker);
    let mut pusher = push_clip(LONG, &edge, "cam", Pace::Real);
    let storm: Vec<String> = (11..311)
        .map(|revision| document(revision, 600 + revision, json!({})).to_string())
        .collect();
    let began = Instant::now();
    operator.send_at(100, TO_ALL, &storm);
    let stormed = began.elapsed();
    assert!(stormed < Duration::from_secs(9), "{stormed:?} for 300 documents is no storm");
    hear_taken(&operator, "cam", 310);
    // Five seconds lie between two restarts, however many documents come.
    let windows = began.elapsed().as_secs() / 5 + 1;
    let restarts = edge.log().matches("restarted under the rules in force").count();
    assert!(restarts >= 2, "the first at once, another for the newest: {restarts}");
    assert!(restarts as u64 <= windows, "{restarts} restarts in {windows} windows");
    pusher.finish_within(SOON);
    let files = files(&edge);
    assert_eq!(files.len(), restarts + 1);
    assert_whole(&files, &LONG.flv());
}
