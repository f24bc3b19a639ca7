//! Why a stream is recorded or not: the running box says it on its socket and by its API, the ring
//! of a box that is down says it too, also about the past.

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use support::edge_box::{BoxPlan, EdgeBox};
use support::http::{act, try_act};
use support::media::Clip;
use support::push::{Pace, push_file};
use support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);
const CLIP: Clip =
    Clip { seconds: 12, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: false };

fn rules() -> Value {
    json!({
        "revision": 5,
        "templates": [
            {"TemplateName": "all", "FlvParam": {"Enable": 1}},
            {"TemplateName": "never"},
        ],
        "rules": [
            {"DomainName": "", "AppName": "live", "StreamName": "", "TemplateName": "all"},
            {"DomainName": "", "AppName": "live", "StreamName": "secret", "TemplateName": "never"},
        ],
    })
}

fn explain(edge: &EdgeBox, stream: &str, more: &[&str]) -> Value {
    let key = edge.stream_key(stream);
    let text = edge.cli_ok(&[&["explain", &key, "--json"], more].concat());
    serde_json::from_str(&text).expect("JSON")
}

/// The same question by the API; its members are those of the command.
fn ask(edge: &EdgeBox, stream: &str) -> Value {
    let asked = json!({"DomainName": "127.0.0.1", "AppName": "live", "StreamName": stream});
    act(edge, "ExplainLiveStream", asked)
}

fn reason(report: &Value) -> &str {
    report["reason"].as_str().or(report["Reason"].as_str()).expect("text")
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn rules_tasks_bans_and_gaps_are_named_now_and_later() {
    let mut edge = BoxPlan::default().rules(rules()).start();
    let away = ask(&edge, "cam");
    assert_eq!((&away["Decision"], &away["Layer"]), (&json!("record"), &json!("fleet")));
    assert!(reason(&away).ends_with("; the stream is not live"), "{away}");
    let never = explain(&edge, "secret", &[]);
    assert_eq!((&never["decision"], &never["rule"]), (&json!("norecord"), &json!("*/live/secret")));

    // A task asks for what is not there, and then for a stream that no rule wants.
    let task = json!({"DomainName": "127.0.0.1", "AppName": "live", "StreamName": "secret",
        "StartTime": unix_s(), "EndTime": unix_s() + 3_600});
    let task = act(&edge, "CreateRecordTask", task)["TaskId"].clone();
    let missing = "what is due is missing: a task was open and the stream was not live";
    let waits = wait_for(SOON, "the gap is entered", || {
        let report = explain(&edge, "secret", &[]);
        reason(&report).contains(missing).then_some(report)
    });
    assert_eq!((&waits["decision"], &waits["tasks"]), (&json!("norecord"), &json!([task])));
    let in_gap = unix_s();

    let log = edge.dir().join("push.log");
    let push = push_file(&CLIP.flv(), &edge.push_url("secret"), Pace::Real, &log);
    let live = wait_for(SOON, "it is recorded", || {
        let report = ask(&edge, "secret");
        let live = !reason(&report).contains("not live") && !reason(&report).contains(missing);
        live.then_some(report)
    });
    assert!(
        reason(&live).contains(&format!("task {} records it until", task.as_str().expect("t")))
    );
    let while_live = wait_for(SOON, "a second of it", || {
        (edge.ls().iter().any(|row| row["duration_ms"].as_i64() > Some(2_000))).then(unix_s)
    });
    assert_eq!(ask(&edge, "secret")["Stale"], false);

    // Rules that change are told beside those that the session began with.
    let mut changed = rules();
    changed["revision"] = json!(6);
    changed["apply"] = json!({"mode": "next_start"});
    changed["rules"][1]["TemplateName"] = json!("all");
    edge.write_rules(&changed);
    let stale = wait_for(SOON, "the new rules are in force", || {
        let report = explain(&edge, "secret", &[]);
        (report["stale"] == true).then_some(report)
    });
    assert_eq!(stale["decision"], "norecord");
    assert!(reason(&stale).contains("the next session: rule */live/secret"), "{stale}");

    let ban = json!({"DomainName": "127.0.0.1", "AppName": "live", "StreamName": "secret",
        "Reason": "maintenance"});
    act(&edge, "ForbidLiveStream", ban);
    let forbidden = wait_for(SOON, "it is cut off and missing", || {
        let report = ask(&edge, "secret");
        reason(&report).contains("missing: the stream was forbidden").then_some(report)
    });
    assert!(reason(&forbidden).contains("it is forbidden to push the stream: maintenance"));
    drop(push);
    edge.kill();
    then(&edge, in_gap, while_live, &task);
}

/// A box that is down tells of the past from its ring, and of now by its file and its ring.
fn then(edge: &EdgeBox, in_gap: u64, while_live: u64, task: &Value) {
    let at = |unix_s: u64| {
        let time = jiff::Timestamp::from_second(unix_s.cast_signed()).expect("in range");
        explain(edge, "secret", &["--at", &time.to_string()])
    };
    let gap = at(in_gap);
    assert!(reason(&gap).contains("a task was open and the stream was not live"), "{gap}");
    assert_eq!(gap["tasks"], json!([task]));
    let live = at(while_live);
    assert_eq!((&live["decision"], &live["revision"]), (&json!("norecord"), &json!(5)), "{live}");
    assert_eq!(live["tasks"], json!([task]));
    let long_ago = at(86_400);
    assert!(reason(&long_ago).starts_with("nothing is known of the stream at that time"));
    let now = explain(edge, "secret", &[]);
    assert_eq!((&now["decision"], &now["revision"]), (&json!("record"), &json!(6)), "{now}");
    assert!(reason(&now).contains("it is forbidden to push the stream: maintenance"), "{now}");
}

#[test]
fn what_the_api_has_made_counts_for_a_box_that_is_down_too() {
    let mut edge = BoxPlan::default().rules(rules()).start();
    let template = json!({"TemplateName": "mine", "Mp4Param": {"Enable": 1}});
    let number = act(&edge, "CreateLiveRecordTemplate", template)["TemplateId"].clone();
    let rule = json!({"DomainName": "", "AppName": "live", "StreamName": "secret",
        "TemplateId": number});
    act(&edge, "CreateLiveRecordRule", rule);
    let running = explain(&edge, "secret", &[]);
    edge.kill();
    let down = explain(&edge, "secret", &[]);
    for report in [&running, &down] {
        assert_eq!((&report["layer"], &report["template"]), (&json!("local"), &json!("mine")));
    }
    assert!(!reason(&down).contains("not live"), "nobody knows: {down}");
}

#[test]
fn what_is_asked_wrongly_is_named() {
    let edge = BoxPlan::default().rules(rules()).start();
    let of = |parameters| try_act(&edge, "ExplainLiveStream", parameters)["Error"].clone();
    let part = of(json!({"DomainName": "d", "AppName": "live"}));
    assert_eq!(part["Code"], "MissingParameter");
    assert!(part["Message"].as_str().expect("text").contains("StreamName"), "{part}");
    let time = of(json!({"DomainName": "d", "AppName": "live", "StreamName": "s", "Time": "noon"}));
    assert_eq!(time["Code"], "InvalidParameterValue");
    assert!(time["Message"].as_str().expect("text").contains("Time"), "{time}");
}
