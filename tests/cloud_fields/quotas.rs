//! How much callers may ask for: the contract's numbers (`live_limits.json`) where nothing is
//! configured, others where it is.

use serde_json::{Value, json};

use crate::support::cloud_api::{ask, ask_ok, code, unix_now};
use crate::support::edge_box::{BoxPlan, EdgeBox};

const NOWHERE: &str = "http://127.0.0.1:9/";

fn limit(path: &str) -> u64 {
    let text = include_str!("../data/contracts/live_limits.json");
    let limits: Value = serde_json::from_str(text).expect("JSON");
    limits.pointer(path).and_then(Value::as_u64).expect("a number")
}

/// Makes so many, each unlike the others, and one more.
#[track_caller]
fn fill(edge: &EdgeBox, action: &str, most: u64, refused: &str, make: impl Fn(u64) -> Value) {
    for number in 0..most {
        ask_ok(edge.api(), action, &make(number));
    }
    let answer = ask(edge.api(), action, &make(most));
    assert_eq!(code(&answer), refused, "one more than {most}: {action} {answer}");
}

fn timed(number: u64) -> Value {
    json!({"StreamName": format!("gate{number}"), "StartTime": "2030-01-01 10:00:00",
           "EndTime": "2030-01-01 11:00:00"})
}

#[test]
fn nothing_configured_is_as_much_as_the_cloud_allows() {
    let edge = EdgeBox::start();
    let full = "InternalError.ConfOutLimit";
    let most = limit("/templates_max/current");
    let template =
        |number| json!({"TemplateName": format!("t{number}"), "FlvParam": {"Enable": 1}});
    fill(&edge, "CreateLiveRecordTemplate", most, full, template);
    let shown = ask_ok(edge.api(), "DescribeLiveRecordTemplates", &json!({}));
    let shown = shown["Templates"].as_array().expect("a list").clone();
    let number = shown.last().expect("made")["TemplateId"].clone();
    let rule = |at| json!({"DomainName": format!("d{at}"), "TemplateId": number});
    fill(&edge, "CreateLiveRecordRule", limit("/rules_max/current"), full, rule);
    let hook = |at| json!({"TemplateName": format!("c{at}"), "RecordNotifyUrl": NOWHERE});
    fill(&edge, "CreateLiveCallbackTemplate", most, full, hook);
    let task = |_| {
        json!({"StreamName": "gate", "DomainName": "cams", "AppName": "live",
                          "EndTime": unix_now() + 600})
    };
    let overlapping = limit("/create_record_task/max_overlapping_started");
    let running = "LimitExceeded.MaximumRunningTask";
    fill(&edge, "CreateRecordTask", overlapping, running, task);
    let other = json!({"StreamName": "hall", "DomainName": "cams", "AppName": "live",
                       "EndTime": unix_now() + 600});
    ask_ok(edge.api(), "CreateRecordTask", &other);
}

#[test]
fn what_is_configured_holds() {
    let limits = "[limits]\ntasks_per_day = 3\nrunning_tasks = 2\n";
    let edge = BoxPlan::default().sections(limits).start();
    let to = edge.api();
    let first = ask_ok(to, "CreateLiveRecord", &timed(1_000));
    fill(&edge, "CreateLiveRecord", 2, "LimitExceeded.MaximumTask", timed);
    // A deleted one does not count.
    let first = json!({"StreamName": "gate1000", "TaskId": first["TaskId"]});
    ask_ok(to, "DeleteLiveRecord", &first);
    ask_ok(to, "CreateLiveRecord", &timed(1_001));
    let open = |number| {
        json!({"StreamName": format!("hall{number}"), "DomainName": "cams",
                               "AppName": "live", "EndTime": unix_now() + 600})
    };
    fill(&edge, "CreateRecordTask", 2, "LimitExceeded.MaximumRunningTask", open);
}
