//! What is told of recordings (events 332 and 341) and of what is wrong with a stream (321), by a
//! whole box.

use serde_json::{Value, json};

use crate::receiver::{KEY, Receiver, SOON};
use crate::support::edge_box::{BoxPlan, EdgeBox, record_all};
use crate::support::media::Clip;
use crate::support::publisher::{Publisher, tags};
use crate::support::push::{Pace, push_file};

const CLIP: Clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };
/// `file_format` of a status.
const HLS: i64 = 2;
const MP4: i64 = 3;

fn start(receiver: &Receiver, rules: Value) -> EdgeBox {
    let section = format!("[callback]\nurl = \"{}\"\nkey = \"{KEY}\"\n", receiver.url());
    BoxPlan::default().rules(rules).sections(&section).start()
}

/// The notices of a kind. One that is told again, as its answer was lost with the box, counts once.
fn of_type(seen: &[Value], event_type: i64) -> Vec<&Value> {
    let bodies = seen.iter().map(|seen| &seen["body"]);
    let mut of_type: Vec<&Value> = bodies.filter(|body| body["event_type"] == event_type).collect();
    of_type.dedup_by_key(|body| &body["edgerec"]["id"]);
    of_type
}

/// What was told of the recordings in a format, in its order.
fn statuses(seen: &[Value], format: i64) -> Vec<&str> {
    let detail = |body: &Value| -> Value {
        serde_json::from_str(body["record_detail"].as_str().expect("text")).expect("JSON")
    };
    let of_format =
        of_type(seen, 332).into_iter().filter(|body| detail(body)["file_format"] == format);
    of_format.map(|body| body["record_event"].as_str().expect("text")).collect()
}

fn push(edge: &EdgeBox, round: u32) {
    let log = edge.dir().join(format!("push-{round}.log"));
    push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Fast, &log).finish_within(SOON);
}

#[test]
fn a_recording_is_told_from_its_start_over_a_splice_to_its_end() {
    let receiver = Receiver::start(&json!([]));
    let mut rules = record_all(&["Hls", "Mp4"]);
    rules["templates"][0]["HlsSpecialParam"] = json!({"FlowContinueDuration": 6});
    let edge = start(&receiver, rules);
    push(&edge, 1);
    let paused = |seen: &[Value]| statuses(seen, HLS).last() == Some(&"record_paused");
    receiver.wait("it waits for its stream", paused);
    push(&edge, 2);
    let ended = |seen: &[Value]| statuses(seen, HLS).last() == Some(&"record_ended");
    let seen = receiver.wait("its end", ended);
    assert_eq!(
        statuses(&seen, HLS),
        [
            "record_start_succeeded",
            "record_paused",
            "record_resumed",
            "record_paused",
            "record_ended"
        ]
    );
    // Only HLS goes on over a splice.
    let begins_and_ends = ["record_start_succeeded", "record_ended"];
    assert_eq!(statuses(&seen, MP4), begins_and_ends.repeat(2));
    let told = of_type(&seen, 332);
    assert!(told.iter().all(|body| body["session_id"] == told[0]["session_id"]), "{told:#?}");
    let seq = |body: &&Value| body["seq"].as_str().and_then(|seq| seq.parse::<u64>().ok());
    let numbers: Vec<u64> = told.iter().map(|body| seq(body).expect("a number")).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[test]
fn a_recording_that_the_box_did_not_survive_is_told_to_be_over() {
    let receiver = Receiver::start(&json!([]));
    let mut edge = start(&receiver, record_all(&["Mp4"]));
    let log = edge.dir().join("push.log");
    let _pusher = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Real, &log);
    receiver.wait("it is recorded", |seen| statuses(seen, MP4) == ["record_start_succeeded"]);
    edge.kill();
    edge.start_again();
    receiver.wait("it is over", |seen| {
        statuses(seen, MP4) == ["record_start_succeeded", "record_ended"]
    });
}

#[test]
fn times_that_jump_are_told_of_the_push_and_of_its_recording() {
    let receiver = Receiver::start(&json!([]));
    let edge = start(&receiver, record_all(&["Hls"]));
    let mut publisher = Publisher::publish(edge.rtmp(), "cam").expect("taken");
    let mut sent = tags(&CLIP.flv());
    for tag in sent.iter_mut().filter(|tag| tag.time_ms > 1_500) {
        tag.time_ms += 5_000;
    }
    sent.iter().for_each(|tag| publisher.send(tag));
    let seen = receiver
        .wait("both", |seen| !of_type(seen, 321).is_empty() && of_type(seen, 341).len() >= 2);
    publisher.finish();
    let exception = of_type(&seen, 321)[0];
    let events = exception["abnormal_event"].as_array().expect("a list");
    let types: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(types, [3, 4], "{exception}");
    let begin = of_type(&seen, 1)[0];
    assert_eq!(exception["sequence"], begin["sequence"]);
    let told = of_type(&seen, 341);
    let types: Vec<&Value> = told.iter().map(|body| &body["exception"]["type"]).collect();
    assert!(types.contains(&&json!(-8)) && types.contains(&&json!(-9)), "{told:#?}");
    let status = of_type(&seen, 332)[0];
    assert_eq!(told[0]["session_id"], status["session_id"]);
    assert_eq!(
        (&told[0]["file_format"], &told[0]["exception_level"]),
        (&json!("ts"), &json!("warning"))
    );
}
