//! Notices of a whole box: set up by the API, of a file that it really delivered, over kills.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edgerec::domain::contract_time::TimeForm;
use edgerec::domain::time::UnixMillis;
use serde_json::{Value, json};

use crate::receiver::{Receiver, SOON, taken};
use crate::support::edge_box::{BoxPlan, EdgeBox};
use crate::support::http::try_act;
use crate::support::media::Clip;
use crate::support::outbox::Outbox;
use crate::support::push::{Pace, push_file};
use crate::support::wait::wait_for;

const CLIP: Clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };

fn code(answer: &Value) -> &str {
    answer["Error"]["Code"].as_str().unwrap_or("none")
}

/// A template for event 100 and a rule for every stream.
fn set_up(edge: &EdgeBox, url: &str) -> Value {
    let template = json!({"TemplateName": "hooks", "RecordNotifyUrl": url,
        "CallbackKey": crate::receiver::KEY, "RecordExceptionLevels": ["error"]});
    let made = try_act(edge, "CreateLiveCallbackTemplate", template);
    let number = made["TemplateId"].clone();
    assert!(number.is_i64(), "{made}");
    let rule = json!({"DomainName": "", "AppName": "live", "TemplateId": number.to_string()});
    assert_eq!(code(&try_act(edge, "CreateLiveCallbackRule", rule)), "none");
    number
}

#[test]
fn a_delivered_file_is_told_though_the_box_is_killed_while_it_tells() {
    let receiver = Receiver::start(&json!([{"fault": "hang", "times": 1}]));
    let target = Outbox::new();
    let sections = format!("{}[callback]\nappid = 1250000000\n", target.section());
    let mut edge = BoxPlan::default().sections(&sections).start();
    set_up(&edge, &receiver.url());
    let url = format!("{}?txTime=6553FE10", edge.push_url("cam"));
    let log = edge.dir().join("push.log");
    push_file(&CLIP.flv(), &url, Pace::Fast, &log).finish_within(SOON);
    receiver.wait("the first attempt", |seen| seen.len() == 1);
    edge.kill();
    edge.start_again();
    let seen = receiver.wait("the file", |seen| !taken(seen).is_empty());
    assert_eq!(seen.len(), 2, "one attempt repeated: {seen:#?}");
    assert_eq!(seen[0]["body"]["edgerec"], seen[1]["body"]["edgerec"]);
    assert_eq!(seen[1]["signed"], true);

    let files = target.wait(&edge.stream_key("cam"), "flv", 1, SOON);
    let body = &seen[1]["body"];
    let row = edge.file_within(SOON, |row| row["state"] == "delivered");
    assert_eq!(body["file_size"], fs::metadata(&files[0]).expect("a file").len());
    assert_eq!((&body["video_url"], &body["file_format"]), (&row["url"], &json!("flv")));
    assert_eq!((&body["event_type"], &body["appid"]), (&json!(100), &json!(1_250_000_000)));
    assert_eq!((&body["stream_id"], &body["appname"]), (&json!("cam"), &json!("live")));
    assert_eq!(body["stream_param"], "txTime=6553FE10");
    assert_eq!(body["duration"], CLIP.seconds);
    let extended: Value =
        serde_json::from_str(body["callback_ext"].as_str().expect("text")).expect("JSON");
    assert_eq!(extended["video_codec"], "h264");

    let told = wait_for(SOON, "the log of the API has it", || {
        let day = json!({"StartTime": from_now(-3_600), "EndTime": from_now(3_600),
            "StreamName": "cam", "PageNum": "1", "PageSize": 10, "ResultCode": 0});
        let told = try_act(&edge, "DescribeCallbackRecordsList", day.clone());
        (told["TotalNum"] == 1).then_some(told)
    });
    let entry = &told["DataInfoList"][0];
    assert_eq!((&entry["EventType"], &entry["Response"]), (&json!(100), &json!("{\"code\":0}")));
    assert!(edge.terminate(Duration::from_secs(5)).success());
}

/// The time so many seconds from now, as ISO 8601.
fn from_now(seconds: i64) -> String {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let moment = i64::try_from(unix).expect("small") + seconds;
    TimeForm::Utc.show(UnixMillis(moment * 1_000))
}

#[test]
fn templates_and_rules_are_made_shown_changed_and_taken_away() {
    let edge = BoxPlan::default().start();
    let number = set_up(&edge, "http://10.0.0.7/hook");
    let shown = try_act(&edge, "DescribeLiveCallbackTemplate", json!({"TemplateId": number}));
    let template = &shown["Template"];
    assert_eq!(template["RecordNotifyUrl"], "http://10.0.0.7/hook");
    assert_eq!(template["RecordExceptionLevels"], json!(["error"]));
    let change = json!({"TemplateId": number, "RecordNotifyUrl": "http://10.0.0.8/",
        "RecordExceptionLevels": []});
    assert_eq!(code(&try_act(&edge, "ModifyLiveCallbackTemplate", change)), "none");
    let all = try_act(&edge, "DescribeLiveCallbackTemplates", json!({}));
    assert_eq!(all["Templates"][0]["RecordNotifyUrl"], "http://10.0.0.8/");
    assert_eq!(all["Templates"][0]["RecordExceptionLevels"], json!([]));
    let rules = try_act(&edge, "DescribeLiveCallbackRules", json!({}));
    assert_eq!(rules["Rules"][0]["TemplateId"], number);
    assert_eq!(rules["Rules"][0]["AppName"], "live");
    for (action, parameters, expected) in [
        ("CreateLiveCallbackTemplate", json!({"TemplateName": "none"}), "InvalidParameterValue"),
        ("CreateLiveCallbackTemplate", json!({"RecordNotifyUrl": "http://h/"}), "MissingParameter"),
        (
            "CreateLiveCallbackTemplate",
            json!({"TemplateName": "t", "RecordNotifyUrl": "ftp://h/"}),
            "InvalidParameter.UrlNotSafe",
        ),
        (
            "ModifyLiveCallbackTemplate",
            json!({"TemplateId": number, "StreamMixNotifyUrl": "http://h/"}),
            "UnknownParameter",
        ),
        ("DescribeLiveCallbackTemplate", json!({"TemplateId": 9}), "FailedOperation.NotFound"),
        (
            "CreateLiveCallbackRule",
            json!({"DomainName": "d", "AppName": "a", "TemplateId": 9}),
            "InvalidParameter.ConfNotFound",
        ),
        ("DeleteLiveCallbackTemplate", json!({"TemplateId": number}), "FailedOperation.ConfInUsed"),
        (
            "DeleteLiveCallbackRule",
            json!({"DomainName": "d", "AppName": "live"}),
            "FailedOperation.NotFound",
        ),
        (
            "DescribeCallbackRecordsList",
            json!({"StartTime": "2023-11-15 00:00:00", "EndTime": "2023-11-16 00:00:01",
                "StreamName": "cam", "PageNum": 1, "PageSize": 10}),
            "InvalidParameterValue",
        ),
        ("DeleteLiveCallbackRule", json!({"DomainName": "", "AppName": "live"}), "none"),
        ("DeleteLiveCallbackTemplate", json!({"TemplateId": number}), "none"),
    ] {
        let answer = try_act(&edge, action, parameters.clone());
        assert_eq!(code(&answer), expected, "{action} {parameters}: {answer}");
    }
}

#[test]
fn pushes_are_told_from_begin_to_end_also_one_that_the_box_did_not_survive() {
    let receiver = Receiver::start(&json!([]));
    let key = crate::receiver::KEY;
    let section = format!("[callback]\nurl = \"{}\"\nkey = \"{key}\"\n", receiver.url());
    // Of recordings there is nothing to tell.
    let no_rules = json!({"revision": 1, "templates": [], "rules": []});
    let mut edge = BoxPlan::default().sections(&section).rules(no_rules).start();
    let url = format!("{}?room=7", edge.push_url("cam"));
    let log = edge.dir().join("push.log");
    push_file(&CLIP.flv(), &url, Pace::Fast, &log).finish_within(SOON);
    let seen = receiver.wait("begin and end", |seen| seen.len() == 2);
    let (begin, end) = (&seen[0]["body"], &seen[1]["body"]);
    assert_eq!((&begin["event_type"], &end["event_type"]), (&json!(1), &json!(0)));
    assert_eq!(begin["sequence"], end["sequence"]);
    assert_eq!(
        (&begin["user_ip"], &begin["stream_param"]),
        (&json!("127.0.0.1"), &json!("room=7"))
    );
    assert_eq!((&begin["app"], &begin["stream_id"]), (&json!("127.0.0.1"), &json!("cam")));
    assert_eq!((&seen[0]["signed"], &seen[1]["signed"]), (&json!(true), &json!(true)));

    let log = edge.dir().join("cut-off.log");
    let _pusher = push_file(&CLIP.flv(), &edge.push_url("gone"), Pace::Real, &log);
    receiver.wait("the next begin", |seen| seen.len() == 3);
    edge.kill();
    edge.start_again();
    let of_it =
        |seen: &Value| seen["body"]["stream_id"] == "gone" && seen["body"]["event_type"] == 0;
    let seen = receiver.wait("its end", |seen| seen.last().is_some_and(of_it));
    // The box may have been killed before it knew that the begin was told.
    let again = &seen[2..seen.len() - 1];
    assert!(again.iter().all(|one| one["body"] == seen[2]["body"]), "{seen:#?}");
    let (begin, end) = (&seen[2]["body"], &seen[seen.len() - 1]["body"]);
    assert_eq!((&begin["sequence"], &end["errcode"]), (&end["sequence"], &json!(5)));
}
