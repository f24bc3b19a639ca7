//! What the box refuses is the SDK's own exception, with the code that the cloud has for it.

use serde_json::{Value, json};

use crate::support::edge_box::{BoxPlan, record_all};
use crate::support::sdk::Style;
use crate::support::wait::wait_until;
use crate::{DOMAIN, SOON, from_now, named, named_with, record, start, start_with};

fn template(more: &Value) -> Value {
    let mut template = json!({"TemplateName": "t"});
    for (name, value) in more.as_object().expect("an object") {
        template[name] = value.clone();
    }
    template
}

/// Wrong templates and rules, beside a template 1 that a rule binds.
fn of_recording(bound: &Value) -> Vec<(&'static str, Value, &'static str)> {
    let flv = |params: Value| template(&json!({"FlvParam": params}));
    let rule = |domain: &str, number: &Value| {
        let mut rule = named("");
        (rule["DomainName"], rule["TemplateId"]) = (json!(domain), number.clone());
        rule
    };
    let unknown = json!({"TemplateId": 4_040});
    let create = "CreateLiveRecordTemplate";
    vec![
        (create, json!({}), "MissingParameter"),
        (create, json!({"TemplateName": "a b"}), "InvalidParameterValue"),
        (create, flv(json!({"Enable": 2})), "InvalidParameterValue"),
        (create, flv(json!({"Enable": "yes"})), "InvalidParameterValue"),
        (create, flv(json!({"Enable": 1, "RecordInterval": 59})), "InvalidParameterValue"),
        (create, flv(json!({"Enable": 1, "RecordInterval": 43_201})), "InvalidParameterValue"),
        (create, flv(json!({"Enable": 1, "StorageTime": -1})), "InvalidParameterValue"),
        (
            create,
            flv(json!({"Enable": 1, "VodFileName": "{Nothing}"})),
            "InvalidParameter.InvalidVodFileName",
        ),
        (
            create,
            template(&json!({"HlsSpecialParam": {"FlowContinueDuration": 1_801}})),
            "InvalidParameterValue",
        ),
        (create, template(&json!({"Mp3Param": {"Enable": 1}})), "UnsupportedOperation"),
        ("ModifyLiveRecordTemplate", json!({"TemplateName": "t"}), "MissingParameter"),
        ("ModifyLiveRecordTemplate", unknown.clone(), "FailedOperation.NotFound"),
        ("DescribeLiveRecordTemplate", unknown.clone(), "FailedOperation.NotFound"),
        ("DeleteLiveRecordTemplate", unknown, "InternalError.ConfNotFound"),
        ("DeleteLiveRecordTemplate", json!({"TemplateId": bound}), "FailedOperation.ConfInUsed"),
        ("CreateLiveRecordRule", json!({"TemplateId": bound}), "MissingParameter"),
        ("CreateLiveRecordRule", rule(DOMAIN, &json!(4_040)), "InvalidParameter.ConfNotFound"),
        ("CreateLiveRecordRule", rule(DOMAIN, bound), "FailedOperation.RuleAlreadyExist"),
        ("CreateLiveRecordRule", rule("a b", bound), "InvalidParameter.DomainFormatError"),
        ("DeleteLiveRecordRule", named("other"), "FailedOperation.NotFound"),
    ]
}

/// Wrong tasks, and wrong questions about streams.
fn of_tasks_and_streams() -> Vec<(&'static str, Value, &'static str)> {
    let task = |start: i64, end: i64| {
        named_with("cam", &json!({"StartTime": from_now(start), "EndTime": from_now(end)}))
    };
    let timed = |more: Value| {
        let mut asked =
            json!({"StartTime": "2099-01-01 10:00:00", "EndTime": "2099-01-01 11:00:00"});
        for (name, value) in more.as_object().expect("an object") {
            asked[name] = value.clone();
        }
        named_with("cam", &asked)
    };
    let (create, live) = ("CreateRecordTask", "CreateLiveRecord");
    vec![
        (create, named("cam"), "InvalidParameter"),
        (create, task(60, 30), "InvalidParameter"),
        (create, task(-90, -30), "InvalidParameter"),
        (create, task(0, 86_460), "InvalidParameter"),
        (create, task(604_000, 605_000), "InvalidParameter"),
        ("StopRecordTask", json!({"TaskId": "7"}), "InvalidParameter"),
        ("DeleteRecordTask", json!({}), "InvalidParameter"),
        ("DescribeRecordTask", json!({"StartTime": 5}), "InvalidParameter"),
        (live, named("cam"), "MissingParameter"),
        (live, named_with("cam", &json!({"StartTime": "2099-01-01 10:00:00"})), "MissingParameter"),
        (live, timed(json!({"EndTime": "2099-01-01 09:59:59"})), "InvalidParameterValue"),
        (live, timed(json!({"EndTime": "tomorrow"})), "InvalidParameterValue"),
        (live, timed(json!({"FileFormat": "avi"})), "InvalidParameterValue"),
        (live, timed(json!({"FileFormat": "mp3"})), "UnsupportedOperation"),
        (live, timed(json!({"StreamParam": "record_interval=60"})), "InvalidParameterValue"),
        ("StopLiveRecord", json!({"StreamName": "cam", "TaskId": 9}), "ResourceNotFound.TaskId"),
        ("DeleteLiveRecord", json!({"StreamName": "cam"}), "MissingParameter"),
        ("DescribeLiveStreamState", json!({"AppName": "live"}), "MissingParameter"),
        ("DescribeLiveStreamOnlineList", json!({"PageSize": 9}), "InvalidParameterValue"),
        ("DropLiveStream", json!({"StreamName": "cam"}), "MissingParameter"),
        (
            "ForbidLiveStream",
            named_with("cam", &json!({"ResumeTime": "soon"})),
            "InvalidParameterValue",
        ),
    ]
}

fn of_media() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("DescribeMediaInfos", json!({}), "MissingParameter"),
        ("DescribeMediaInfos", json!({"FileIds": []}), "InvalidParameterValue.FileIdsEmpty"),
        (
            "DescribeMediaInfos",
            json!({"FileIds": vec!["7"; 21]}),
            "InvalidParameterValue.FileIdsOverLimit",
        ),
        ("DeleteMedia", json!({"FileId": "7"}), "ResourceNotFound"),
        ("SearchMedia", json!({"Categories": ["Smell"]}), "InvalidParameterValue.Categories"),
        ("SearchMedia", json!({"Limit": 5_001}), "InvalidParameterValue.Offset"),
    ]
}

#[test]
fn wrong_parameters_raise_the_code_of_the_cloud() {
    let (_edge, mut sdk) = start();
    let bound = record(&mut sdk, "", json!({"TemplateName": "bound"}));
    let live = of_recording(&bound).into_iter().chain(of_tasks_and_streams());
    let cases = live.map(|case| ("live", case)).chain(of_media().into_iter().map(|c| ("vod", c)));
    let mut wrong = Vec::new();
    for (service, (action, parameters, code)) in cases {
        let raised = sdk.raises(service, action, parameters.clone());
        assert!(!raised.request_id.is_empty() && !raised.message.is_empty(), "{raised:?}");
        if raised.code != code {
            wrong.push(format!("{action} {parameters}: {code} expected, {raised:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// What the SDK's models cannot say.
#[test]
fn unknown_actions_and_parameters_are_told_in_every_way_of_sending() {
    let (_edge, mut sdk) = start();
    for style in Style::all() {
        sdk.style = style;
        let raised = sdk.call_untyped("live", "DescribeNothing", json!({})).expect_err("refused");
        assert_eq!(raised.code, "InvalidAction", "{style:?}");
        let beside = json!({"TemplateId": 1, "Colour": "red"});
        let raised = sdk.call_untyped("live", "DescribeLiveRecordTemplate", beside);
        assert_eq!(raised.expect_err("refused").code, "UnknownParameter", "{style:?}");
        sdk.token = "temporary".to_owned();
        let raised = sdk.live_raises("DescribeLiveRecordRules", json!({}));
        assert_eq!(raised.code, "AuthFailure.TokenFailure", "{style:?}");
        sdk.token = String::new();
    }
}

#[test]
fn there_are_as_many_of_each_as_the_cloud_has() {
    let (_edge, mut sdk) = start();
    for number in 0..50 {
        let name = format!("t{number}");
        sdk.live("CreateLiveRecordTemplate", json!({"TemplateName": name}));
        let url = json!({"TemplateName": name, "RecordNotifyUrl": "http://10.0.0.7/hook"});
        sdk.live("CreateLiveCallbackTemplate", url);
    }
    let url = json!({"TemplateName": "t50", "RecordNotifyUrl": "http://10.0.0.7/hook"});
    for (action, parameters) in [
        ("CreateLiveRecordTemplate", json!({"TemplateName": "t50"})),
        ("CreateLiveCallbackTemplate", url),
    ] {
        let raised = sdk.live_raises(action, parameters);
        assert_eq!(raised.code, "InternalError.ConfOutLimit", "{action}");
    }
    let all = sdk.live("DescribeLiveRecordTemplates", json!({}));
    assert_eq!(all["Templates"].as_array().expect("a list").len(), 50);

    let task = named_with("cam", &json!({"EndTime": from_now(600)}));
    for _ in 0..3 {
        sdk.live("CreateRecordTask", task.clone());
    }
    let raised = sdk.live_raises("CreateRecordTask", task);
    assert_eq!(raised.code, "LimitExceeded.MaximumRunningTask");
    wait_until(SOON, "more than twenty calls in a second are too many", || {
        let raised = sdk.live_raises("StopRecordTask", json!({"TaskId": "7"}));
        raised.code == "RequestLimitExceeded"
    });
}

/// What comes from the rule set is shown, and is not the API's to change.
#[test]
fn the_rule_set_is_shown_and_cannot_be_changed() {
    let (_edge, mut sdk) = start_with(BoxPlan::default().rules(record_all(&["Flv"])));
    let all = sdk.live("DescribeLiveRecordTemplates", json!({}));
    let number = all["Templates"][0]["TemplateId"].clone();
    assert_eq!(all["Templates"][0]["FlvParam"]["Enable"], 1);
    let rules = sdk.live("DescribeLiveRecordRules", json!({}));
    assert_eq!(rules["Rules"][0]["TemplateId"], number);
    let rule = json!({"DomainName": "", "AppName": "live", "StreamName": ""});
    for (action, parameters) in [
        ("ModifyLiveRecordTemplate", json!({"TemplateId": number, "Description": "mine"})),
        ("DeleteLiveRecordTemplate", json!({"TemplateId": number})),
        ("DeleteLiveRecordRule", rule),
    ] {
        assert_eq!(sdk.live_raises(action, parameters).code, "UnsupportedOperation", "{action}");
    }
}
