//! Streams that worked fail under new rules: the box goes back by itself and says so.

use std::net::TcpListener;
use std::time::Duration;

use edgerec::domain::fleet::trial::FAILURES_MAX;
use serde_json::{Value, json};

use super::support::broker::{Broker, free_addr};
use super::support::camera::Camera;
use super::support::edge_box::{BoxPlan, EdgeBox};
use super::support::operator::Operator;
use super::support::wait::wait_until;
use super::{SOON, STATE, TO_ALL, stream_of};

/// Three attempts with their pauses, and a kill in between.
const BACK_WITHIN: Duration = Duration::from_secs(90);

/// A rule set that pulls a camera and records it in files of this length.
pub fn rules(revision: u64, url: &str, interval_s: u64) -> Value {
    rules_of(revision, &[("gate", url.to_owned())], interval_s)
}

/// The same for cameras of these names and addresses.
pub fn rules_of(revision: u64, cameras: &[(&str, String)], interval_s: u64) -> Value {
    let source = |(name, url): &(&str, String)| json!({"DomainName": "cams", "AppName": "live", "StreamName": name, "Url": url});
    let sources: Vec<Value> = cameras.iter().map(source).collect();
    json!({"revision": revision,
        "templates": [{"TemplateName": "t", "Mp4Param": {"Enable": 1, "RecordInterval": interval_s}}],
        "rules": [{"DomainName": "cams", "AppName": "live", "StreamName": "", "TemplateName": "t"}],
        "sources": sources})
}

pub fn start(broker: &Broker, operator: &mut Operator, first: &Value) -> EdgeBox {
    operator.send(TO_ALL, first.to_string());
    let mqtt = format!("url = \"mqtt://{}\"\nfleet = \"venue\"\n", broker.addr());
    BoxPlan::default().mqtt(&mqtt).start()
}

/// Waits until the camera is recorded under a revision that is in force.
pub fn hear_recorded(operator: &Operator, received: u64, applied: u64) -> Value {
    hear_all_recorded(operator, received, applied, &["gate"])
}

/// The same of cameras of these names.
pub fn hear_all_recorded(
    operator: &Operator,
    received: u64,
    applied: u64,
    names: &[&str],
) -> Value {
    let what = format!("recorded under {applied}, received {received}");
    operator.hear(BACK_WITHIN, STATE, &what, |state| {
        let fleet = &state["rules"]["fleet"];
        let recorded = |name: &&str| stream_of(state, name)["decision"] == "record";
        fleet["received"] == received && fleet["applied"] == applied && names.iter().all(recorded)
    })
}

/// Fails the test if the box said that it went back.
pub fn assert_never_went_back(operator: &Operator) {
    for state in operator.all(STATE) {
        assert_eq!(state["rules"]["fleet"]["refused"], Value::Null, "{state:#}");
    }
}

#[test]
fn a_box_whose_camera_fails_under_new_rules_goes_back_also_over_a_kill_and_takes_the_next() {
    let camera = Camera::start(4);
    let url = camera.url("/endless");
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let mut edge = start(&broker, &mut operator, &rules(10, url.as_str(), 1_800));
    hear_recorded(&operator, 10, 10);

    let nowhere = format!("rtsp://{}/endless", free_addr());
    operator.send(TO_ALL, rules(11, &nowhere, 900).to_string());
    // The camera cannot be opened anew, and in the middle of it the plug is pulled.
    wait_until(SOON, "an attempt fails", || edge.log().contains("camera cannot be opened anew"));
    let in_the_middle = operator.all(STATE).pop().expect("it has told");
    assert_eq!(in_the_middle["rules"]["fleet"]["refused"], Value::Null, "it has not gone back yet");
    edge.kill();
    operator.forget();
    edge.start_again();
    let state = hear_recorded(&operator, 11, 10);
    let refused = &state["rules"]["fleet"]["refused"];
    assert_eq!((&refused["why"], &refused["revision"]), (&json!("streams_fail"), &json!(11)));
    let reason = &refused["reasons"][0];
    assert_eq!(reason["place"], "cams/live/gate", "{state:#}");
    assert!(reason["what"].as_str().is_some_and(|what| what.contains("DESCRIBE")), "{state:#}");

    wait_until(SOON, "an event tells of it", || {
        let said = operator.events();
        said.iter()
            .any(|(kind, event)| kind == "config" && event["refused"]["why"] == "streams_fail")
    });

    // The broker still has what failed, and shows it again: it is not tried again.
    edge.kill();
    operator.forget();
    edge.start_again();
    let state = hear_recorded(&operator, 11, 10);
    assert_eq!(state["rules"]["fleet"]["refused"]["why"], "streams_fail");
    let tried = edge.log().matches("camera delivers").count();
    operator.send(TO_ALL, rules(12, url.as_str(), 900).to_string());
    let state = hear_recorded(&operator, 12, 12);
    assert_eq!(state["rules"]["fleet"]["refused"], Value::Null);
    assert_eq!(edge.log().matches("camera delivers").count(), tried, "its connection went on");
}

#[test]
fn while_a_new_address_fails_the_old_connection_is_recorded_without_a_gap() {
    let camera = Camera::start(4);
    let url = camera.url("/endless");
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let edge = start(&broker, &mut operator, &rules(10, url.as_str(), 1_800));
    let before = hear_recorded(&operator, 10, 10);
    let nowhere = format!("rtsp://{}/endless", free_addr());
    operator.send(TO_ALL, rules(11, &nowhere, 1_800).to_string());
    let after = hear_recorded(&operator, 11, 10);
    let session = |state: &Value| stream_of(state, "gate")["session"].clone();
    assert_eq!(session(&before), session(&after));
    let log = edge.log();
    assert_eq!(log.matches("camera delivers").count(), 1, "it was never let go");
    assert_eq!(log.matches("session ends").count(), 0);
    assert!(log.matches("its old connection goes on").count() >= 3, "{log}");
}

#[test]
fn a_camera_that_loses_power_turns_no_rules_back_that_leave_it_where_it_is() {
    let camera = Camera::start(4);
    let (url, port) = (camera.url("/endless"), camera.port);
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let _edge = start(&broker, &mut operator, &rules(10, url.as_str(), 1_800));
    hear_recorded(&operator, 10, 10);
    operator.send(TO_ALL, rules(11, url.as_str(), 900).to_string());
    hear_recorded(&operator, 11, 11);
    drop(camera);
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("its port is free again");
    for attempt in 0..FAILURES_MAX {
        drop(listener.accept().unwrap_or_else(|error| panic!("attempt {attempt}: {error}")));
    }
    drop(listener);
    let _camera = Camera::start_on(port, 4);
    assert_never_went_back(&operator);
    operator.forget();
    hear_recorded(&operator, 11, 11);
    assert_never_went_back(&operator);
}
