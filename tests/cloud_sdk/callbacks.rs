//! Callback templates and rules: set up with the SDK, and then told to a receiver.

use std::fs;

use edgerec::domain::contract_time::TimeForm;
use edgerec::domain::time::UnixMillis;
use serde_json::{Value, json};

use crate::receiver::{KEY, Receiver, taken};
use crate::support::edge_box::BoxPlan;
use crate::support::media::Clip;
use crate::support::outbox::Outbox;
use crate::support::push::Pace;
use crate::support::sdk::Sdk;
use crate::support::wait::wait_until;
use crate::{DOMAIN, SOON, from_now, push, record, start, start_with, wait_files};

const CLIP: Clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };

fn template(sdk: &mut Sdk, number: &Value) -> Value {
    sdk.live("DescribeLiveCallbackTemplate", json!({"TemplateId": number}))["Template"].take()
}

fn rule(number: &Value) -> Value {
    json!({"DomainName": DOMAIN, "AppName": "live", "TemplateId": number})
}

#[test]
fn a_push_and_its_delivered_file_are_told_where_the_template_says() {
    let receiver = Receiver::start(&json!([]));
    let target = Outbox::new();
    let no_rules = json!({"revision": 1, "templates": [], "rules": []});
    let (edge, mut sdk) =
        start_with(BoxPlan::default().sections(&target.section()).rules(no_rules));
    record(&mut sdk, "", json!({"TemplateName": "all", "Mp4Param": {"Enable": 1}}));
    let url = receiver.url();
    let hooks = json!({"TemplateName": "hooks", "StreamBeginNotifyUrl": url,
        "StreamEndNotifyUrl": url, "RecordNotifyUrl": url, "CallbackKey": KEY});
    let number = sdk.live("CreateLiveCallbackTemplate", hooks)["TemplateId"].clone();
    sdk.live("CreateLiveCallbackRule", rule(&number));

    push(&edge, &CLIP.flv(), "cam?room=7", Pace::Fast).finish_within(SOON);
    let seen = receiver.wait("begin, end and the file", |seen| taken(seen).len() >= 3);
    assert!(seen.iter().all(|seen| seen["signed"] == true), "{seen:#?}");
    let of = |event: u32| {
        let bodies = taken(&seen);
        bodies.into_iter().find(|body| body["event_type"] == event).expect("it was told").clone()
    };
    assert_eq!((&of(1)["stream_id"], &of(0)["stream_param"]), (&json!("cam"), &json!("room=7")));
    let file = of(100);
    let files = wait_files(&mut sdk, "cam", 1);
    assert_eq!(file["file_id"], files[0]["FileId"]);
    let delivered = target.wait(&edge.stream_key("cam"), "mp4", 1, SOON);
    let len = fs::metadata(&delivered[0]).expect("a file").len();
    assert_eq!((&file["file_size"], &files[0]["MetaData"]["Size"]), (&json!(len), &json!(len)));

    let utc = |seconds| TimeForm::Utc.show(UnixMillis(from_now(seconds) * 1_000));
    let day = json!({"StartTime": utc(-3_600), "EndTime": utc(3_600), "StreamName": "cam",
        "PageNum": 1, "PageSize": 10, "ResultCode": 0});
    wait_until(SOON, "the log has all three", || {
        let log = sdk.live("DescribeCallbackRecordsList", day.clone());
        log["TotalNum"] == 3 && log["DataInfoList"][0]["StreamId"] == "cam"
    });
    sdk.live("DeleteLiveCallbackRule", json!({"DomainName": DOMAIN, "AppName": "live"}));
    push(&edge, &CLIP.flv(), "cam", Pace::Fast).finish_within(SOON);
    wait_files(&mut sdk, "cam", 2);
    assert_eq!(receiver.seen().len(), seen.len(), "no rule, so nothing is told");
}

#[test]
fn callback_templates_and_rules_are_made_shown_changed_and_taken_away() {
    let (_edge, mut sdk) = start();
    let asked = json!({"TemplateName": "hooks", "Description": "场馆",
        "RecordNotifyUrl": "http://10.0.0.7/hook?a=b", "RecordStatusNotifyUrl": "http://10.0.0.7/",
        "PushExceptionNotifyUrl": "https://10.0.0.7/p", "RecordExceptionNotifyUrl": "http://h/x",
        "SnapshotNotifyUrl": "http://h/s", "CallbackKey": "abc123",
        "RecordExceptionLevels": ["error", "warning"]});
    let number = sdk.live("CreateLiveCallbackTemplate", asked.clone())["TemplateId"].clone();
    let shown = template(&mut sdk, &number);
    for (name, value) in asked.as_object().expect("an object") {
        // The SDK's model of the answer has no such member.
        if name != "RecordStatusNotifyUrl" {
            assert_eq!(shown[name], *value, "{name}");
        }
    }
    let change = json!({"TemplateId": number, "RecordNotifyUrl": "http://10.0.0.8/",
        "SnapshotNotifyUrl": ""});
    sdk.live("ModifyLiveCallbackTemplate", change);
    let shown = template(&mut sdk, &number);
    assert_eq!(shown["RecordNotifyUrl"], "http://10.0.0.8/");
    assert_eq!(
        (&shown["SnapshotNotifyUrl"], &shown["CallbackKey"]),
        (&json!(""), &json!("abc123"))
    );
    let all = sdk.live("DescribeLiveCallbackTemplates", json!({}));
    assert_eq!(all["Templates"], json!([shown]));

    sdk.live("CreateLiveCallbackRule", rule(&number));
    let rules = sdk.live("DescribeLiveCallbackRules", json!({}))["Rules"].take();
    assert_eq!(
        (&rules[0]["TemplateId"], &rules[0]["DomainName"], &rules[0]["AppName"]),
        (&number, &json!(DOMAIN), &json!("live"))
    );
    let pair = json!({"DomainName": DOMAIN, "AppName": "live"});
    let url = |url: &str| json!({"TemplateName": "t", "RecordNotifyUrl": url});
    for (action, parameters, code) in [
        ("CreateLiveCallbackTemplate", json!({"TemplateName": "t"}), "InvalidParameterValue"),
        ("CreateLiveCallbackTemplate", json!({"RecordNotifyUrl": "http://h"}), "MissingParameter"),
        ("CreateLiveCallbackTemplate", url("ftp://h/"), "InvalidParameter.UrlNotSafe"),
        ("ModifyLiveCallbackTemplate", json!({"TemplateId": 9}), "FailedOperation.NotFound"),
        ("DescribeLiveCallbackTemplate", json!({"TemplateId": 9}), "FailedOperation.NotFound"),
        ("CreateLiveCallbackRule", rule(&json!(9)), "InvalidParameter.ConfNotFound"),
        ("CreateLiveCallbackRule", rule(&number), "FailedOperation.RuleAlreadyExist"),
        ("DeleteLiveCallbackTemplate", json!({"TemplateId": number}), "FailedOperation.ConfInUsed"),
    ] {
        let raised = sdk.live_raises(action, parameters.clone());
        assert_eq!(raised.code, code, "{action} {parameters}: {raised:?}");
    }
    sdk.live("DeleteLiveCallbackRule", pair.clone());
    let raised = sdk.live_raises("DeleteLiveCallbackRule", pair);
    assert_eq!(raised.code, "FailedOperation.NotFound");
    sdk.live("DeleteLiveCallbackTemplate", json!({"TemplateId": number}));
    assert_eq!(sdk.live("DescribeLiveCallbackTemplates", json!({}))["Templates"], json!([]));
}
