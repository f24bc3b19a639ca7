//! `edgerec fleet` where what the broker keeps is not whole: rules that it has lost, that are signed,
//! or that nobody can read; and fleets that never fall silent. The boxes are only told of.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rumqttc::v5::MqttOptions;
use serde_json::{Value, json};

use super::support::edge_box::binary;
use super::support::operator::Operator;
use super::support::process::{Process, Stdout};
use super::support::wait::wait_until;
use super::{Desk, SOON, key, rules, text};

const TO_ALL: &str = "edgerec/v1/venue/config";
const OF_THE_FIRST: &str = "edgerec/v1/venue/box/box-01/config";

/// A fleet of which an operator tells the broker.
struct Told {
    desk: Desk,
    operator: Operator,
}

impl Told {
    fn new() -> Told {
        let desk = Desk::new();
        let operator = Operator::connect(desk.broker.addr());
        Told { desk, operator }
    }

    /// A box that is online and says this of its rules.
    fn stands(&mut self, id: &str, rules: &Value) {
        let topic = |kind: &str| format!("edgerec/v1/venue/box/{id}/{kind}");
        let state = json!({"rules": rules, "streams": [], "streams_left_out": 0});
        self.operator.send(&topic("state"), state.to_string());
        self.operator.send(&topic("online"), json!({"online": true}).to_string());
    }

    #[track_caller]
    fn wants_a_key(&self, arguments: &[&str]) {
        let said = self.desk.refused(2, arguments);
        assert!(said.contains("--sign-key is missing"), "{said}");
    }

    /// A rollout at work; its report is in its log.
    fn rollout(&self, file: &str, more: &[&str]) -> Process {
        self.process(&[&["rollout", file, "--json"], more].concat())
    }

    fn process(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(binary());
        command.arg("fleet").args(arguments);
        command.arg("--config").arg(self.desk.dir.path().join("fleet.toml"));
        Process::start(&command, "fleet", &self.desk.dir.path().join("fleet.log"), Stdout::Log)
    }

    /// What the process has told.
    fn events(&self, event: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(self.desk.dir.path().join("fleet.log"));
        let log = log.unwrap_or_default();
        let told = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        told.filter(|told| told["event"] == event).collect()
    }
}

/// A layer under a revision.
fn applied(revision: u64) -> Value {
    json!({"received": revision, "applied": revision, "refused": null})
}

#[test]
fn rules_that_the_broker_has_lost_still_count() {
    let mut told = Told::new();
    // It holds 60 and went back from it; 70 was refused, and is not held.
    let went_back = json!({"why": "streams_fail", "revision": 60, "reasons": []});
    let held = json!({"received": 60, "applied": 59, "refused": went_back});
    told.stands("box-01", &json!({"fleet": held, "box": {}}));
    let older = json!({"why": "malformed", "revision": 70, "reasons": []});
    let held = json!({"received": 70, "applied": 58, "refused": older});
    told.stands("box-02", &json!({"fleet": held, "box": applied(80)}));

    let next = told.desk.file("next.json", &rules(61, "next"));
    let refused = told.desk.refused(1, &["rollout", &next, "--within", "1"]);
    assert!(refused.contains("box-01 has fleet rules that the broker has lost"), "{refused}");
    let old = told.desk.file("old.json", &rules(41, "old"));
    let refused = told.desk.refused(1, &["push", &old]);
    assert!(refused.contains("revision 41 is older than 60"), "{refused}");
    let same = told.desk.file("same.json", &rules(60, "same"));
    assert!(told.desk.done(&["push", &same]).contains("revision 61 is published"));
    assert_eq!(told.operator.kept(TO_ALL)["revision"], 61);
    let refused = told.desk.refused(1, &["push", &old, "--box", "box-02"]);
    assert!(refused.contains("revision 41 is older than 80"), "{refused}");
    assert!(told.desk.done(&["push", &old, "--box", "box-01"]).contains("41 is published"));
}

#[test]
fn a_signature_is_renewed_and_never_lost() {
    let mut told = Told::new();
    let (ours, _) = key(told.desk.dir.path(), "ours.pem");
    let sign = ["--sign-key", &text(&ours)];
    let file = told.desk.file("rules.json", &rules(1, "one"));
    told.desk.done(&["push", &file]);
    let signed = |revision: u64| {
        let file = told.desk.file("rules.json", &rules(revision - 1, "one"));
        let said = told.desk.done(&[&["push", file.as_str()], &sign[..]].concat());
        assert!(said.contains(&format!("revision {revision} is published")), "{said}");
    };
    // What nobody has signed is signed, and what is signed lasts longer from then on.
    signed(2);
    signed(3);

    told.wants_a_key(&["push", &file]);
    let next = told.desk.file("next.json", &rules(4, "next"));
    told.wants_a_key(&["push", &next]);
    told.wants_a_key(&["rollout", &next]);
    assert!(told.operator.kept(TO_ALL)["payload"].is_string(), "it is signed still");

    // The same for what one box has for itself.
    told.operator.send(TO_ALL, rules(4, "unsigned").to_string());
    told.stands("box-01", &json!({"fleet": applied(4), "box": applied(2)}));
    let own = told.desk.file("own.json", &rules(2, "own"));
    told.desk.done(&[&["push", &own, "--box", "box-01"], &sign[..]].concat());
    told.wants_a_key(&["push", &own, "--box", "box-01"]);
    let last = told.desk.file("last.json", &rules(5, "last"));
    told.stands("box-01", &json!({"fleet": applied(4), "box": applied(3)}));
    told.wants_a_key(&["rollout", &last]);
    assert!(told.operator.kept(OF_THE_FIRST)["payload"].is_string(), "it is signed still");
}

#[test]
fn what_nobody_can_read_blocks_no_operator() {
    let mut told = Told::new();
    told.stands("box-01", &json!({"fleet": {}, "box": {}}));
    told.operator.send("edgerec/v1/venue/box/box-09/config", "{");
    let file = told.desk.file("rules.json", &rules(1, "one"));
    let mut rollout = told.rollout(&file, &["--hold", "600"]);
    wait_until(SOON, "the step begins", || told.events("step").len() == 1);
    let notes = told.events("note");
    let about = notes
        .iter()
        .any(|told| told["note"].as_str().is_some_and(|note| note.contains("box/box-09/config")));
    assert!(about, "{notes:#?}");
    rollout.kill();
    told.operator.send(OF_THE_FIRST, "{");
    told.desk.done(&["rollout", &file, "--back"]);

    // A push takes its place, above what the box has.
    told.stands("box-01", &json!({"fleet": {}, "box": applied(7)}));
    let own = told.desk.file("own.json", &rules(7, "own"));
    let said = told.desk.done(&["push", &own, "--box", "box-01"]);
    assert!(said.contains("revision 8 is published"), "{said}");
}

#[test]
fn without_boxes_to_try_them_rules_go_to_nobody() {
    let mut told = Told::new();
    // What it has for itself the broker has lost.
    told.stands("box-01", &json!({"fleet": {}, "box": applied(5)}));
    let file = told.desk.file("rules.json", &rules(1, "one"));
    let refused = told.desk.refused(1, &["rollout", &file, "--within", "1", "--hold", "0"]);
    assert!(refused.contains("no box can try the rules first"), "{refused}");

    told.stands("box-02", &json!({"fleet": {}, "box": {}}));
    let _rollout = told.rollout(&file, &["--canary", "100%", "--hold", "600"]);
    wait_until(SOON, "the step begins", || told.events("step").len() == 1);
    let notes = told.events("note");
    let fewer = |told: &Value| told["note"].as_str().is_some_and(|note| note.contains("1 of 2"));
    assert!(notes.iter().any(fewer), "{notes:#?}");
}

#[test]
fn a_fleet_that_is_never_silent_is_shown_all_the_same() {
    let mut told = Told::new();
    told.stands("box-01", &json!({}));
    let addr = told.desk.broker.addr();
    let mut status = told.process(&["status"]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let options = MqttOptions::new("busy", addr.ip().to_string(), addr.port());
            let mut busy = Operator::with(addr, options);
            while !over.load(Ordering::Relaxed) {
                busy.send("edgerec/v1/venue/box/box-01/event/file", "{}");
            }
        });
        // The busy one ends in any case.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert!(status.end_within(Duration::from_secs(15)).success());
        }));
        over.store(true, Ordering::Relaxed);
        ended.expect("it ended while boxes told of events");
    });
}
