//! Callback templates and rules, and the log of what was told; that notices go where these say is
//! shown in `tests/callbacks.rs`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde_json::{Value, json};

use crate::support::cloud_api::unix_now;
use crate::support::publisher::Publisher;
use crate::support::wait::wait_for;
use crate::walk::Proof::{Acts, Elsewhere, Refused, Shown};
use crate::walk::{Bench, Entry, Family, Proof, entries};

pub const FAMILY: Family = Family {
    actions: &[
        CREATE,
        MODIFY,
        "DeleteLiveCallbackTemplate",
        "DescribeLiveCallbackTemplate",
        "DescribeLiveCallbackTemplates",
        CREATE_RULE,
        DELETE_RULE,
        "DescribeLiveCallbackRules",
        LOG,
    ],
    base,
    show,
    acts: &[
        ("numbers_name_one_template", numbers_name_one_template),
        ("a_rule_is_for_a_domain_and_an_app", a_rule_is_for_a_domain_and_an_app),
        ("a_change_keeps_what_it_does_not_name", a_change_keeps_what_it_does_not_name),
        ("notices_are_logged_by_stream_time_and_kind", notices_are_logged_by_stream_time_and_kind),
    ],
    table,
};
const CREATE: &str = "CreateLiveCallbackTemplate";
const MODIFY: &str = "ModifyLiveCallbackTemplate";
const CREATE_RULE: &str = "CreateLiveCallbackRule";
const DELETE_RULE: &str = "DeleteLiveCallbackRule";
const LOG: &str = "DescribeCallbackRecordsList";
const BAD_VALUE: &str = "InvalidParameterValue";
const SOON: Duration = Duration::from_secs(20);
/// Nobody listens there: a low port that only a privileged program could take.
const NOBODY: &str = "http://127.0.0.1:9/";
const URLS: [&str; 10] = [
    "StreamBeginNotifyUrl",
    "StreamEndNotifyUrl",
    "RecordNotifyUrl",
    "RecordStatusNotifyUrl",
    "SnapshotNotifyUrl",
    "PornCensorshipNotifyUrl",
    "StreamMixNotifyUrl",
    "PushExceptionNotifyUrl",
    "AudioAuditNotifyUrl",
    "RecordExceptionNotifyUrl",
];

fn template(bench: &Bench) -> Value {
    let made = json!({"TemplateName": bench.name(), "StreamBeginNotifyUrl": NOBODY});
    bench.ok(CREATE, &made)["TemplateId"].clone()
}

fn base(bench: &Bench, action: &str) -> Value {
    match action {
        CREATE => json!({"TemplateName": bench.name(), "StreamBeginNotifyUrl": NOBODY}),
        MODIFY | "DeleteLiveCallbackTemplate" | "DescribeLiveCallbackTemplate" => {
            json!({"TemplateId": template(bench)})
        }
        CREATE_RULE => rule(bench),
        DELETE_RULE => {
            let mut made = rule(bench);
            bench.ok(CREATE_RULE, &made);
            made.as_object_mut().expect("an object").shift_remove("TemplateId");
            made
        }
        LOG => log_of("gate"),
        _ => json!({}),
    }
}

fn rule(bench: &Bench) -> Value {
    json!({"DomainName": bench.name(), "AppName": "live", "TemplateId": template(bench)})
}

/// The log of a stream, an hour to both sides.
fn log_of(stream: &str) -> Value {
    json!({"StartTime": utc(-3_600), "EndTime": utc(3_600), "StreamName": stream,
           "PageNum": 1, "PageSize": 10})
}

/// So many seconds from now.
fn utc(off_s: i64) -> String {
    let time = Timestamp::from_second(unix_now() + off_s).expect("in range");
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn beijing(off_s: i64) -> String {
    let time = Timestamp::from_second(unix_now() + off_s).expect("in range");
    Offset::constant(8).to_datetime(time).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn show(bench: &Bench, _: &str, request: &Value, response: &Value) -> Value {
    described(bench, response.get("TemplateId").unwrap_or(&request["TemplateId"]))
}

fn described(bench: &Bench, number: &Value) -> Value {
    let asked = json!({"TemplateId": number});
    bench.ok("DescribeLiveCallbackTemplate", &asked)["Template"].clone()
}

fn table() -> Vec<Entry> {
    let mut table = Vec::new();
    for action in [CREATE, MODIFY] {
        let mut line = |field: &str, proof: Proof| {
            table.push(Entry { action, field: field.to_owned(), proof });
        };
        line("TemplateName", Shown(json!("门_a-1"), json!("门_a-1")));
        line("TemplateName", Refused(json!("a b"), BAD_VALUE));
        line("TemplateName", Refused(json!("x".repeat(256)), BAD_VALUE));
        line("Description", Shown(json!("入口-2"), json!("入口-2")));
        line("Description", Refused(json!("a b"), BAD_VALUE));
        line("Description", Refused(json!("x".repeat(1_025)), BAD_VALUE));
        line("CallbackKey", Shown(json!("Key9"), json!("Key9")));
        line("CallbackKey", Refused(json!("a-b"), BAD_VALUE));
        line("CallbackKey", Refused(json!("x".repeat(33)), BAD_VALUE));
        let signed = "every_event_arrives_in_order_signed_and_with_the_members_of_the_contract";
        line("CallbackKey", Elsewhere("tests/callbacks.rs", signed));
        let some = json!(["error", "warning"]);
        line("RecordExceptionLevels", Shown(some.clone(), some));
        line("RecordExceptionLevels", Shown(json!([]), json!([])));
        line("RecordExceptionLevels", Refused(json!(["loud"]), BAD_VALUE));
        line("RecordExceptionLevels", Refused(json!([1]), BAD_VALUE));
        for url in URLS.into_iter().filter(|url| action == CREATE || *url != "StreamMixNotifyUrl") {
            let good = json!("https://10.0.0.7:8443/hook?a=b");
            line(url, Shown(good.clone(), good));
            for bad in ["ftp://h/", "http://u:p@h/", "hook"] {
                line(url, Refused(json!(bad), "InvalidParameter.UrlNotSafe"));
            }
        }
        let told = "a_delivered_file_is_told_though_the_box_is_killed_while_it_tells";
        line("RecordNotifyUrl", Elsewhere("tests/callbacks/on_a_box.rs", told));
    }
    let number = &["TemplateId"];
    for action in [MODIFY, "DescribeLiveCallbackTemplate", "DeleteLiveCallbackTemplate"] {
        table.extend(entries(action, number, || Acts("numbers_name_one_template")));
        let unknown = || Refused(json!(404), "FailedOperation.NotFound");
        table.extend(entries(action, number, unknown));
    }
    table.extend(entries(MODIFY, number, || Acts("a_change_keeps_what_it_does_not_name")));
    let pair = ["DomainName", "AppName"];
    for action in [CREATE_RULE, DELETE_RULE] {
        table.extend(entries(action, &pair, || Acts("a_rule_is_for_a_domain_and_an_app")));
        let long = || Refused(json!("x".repeat(256)), BAD_VALUE);
        table.extend(entries(action, &pair, long));
    }
    table.extend(entries(CREATE_RULE, number, || Acts("a_rule_is_for_a_domain_and_an_app")));
    let unbound = || Refused(json!(404), "InvalidParameter.ConfNotFound");
    table.extend(entries(CREATE_RULE, number, unbound));
    let decides = "the_most_specific_rule_decides_alone";
    let decides = || Elsewhere("src/domain/service/callbacks.rs", decides);
    table.extend(entries(CREATE_RULE, &pair, decides));
    log_lines(&mut table);
    table
}

fn log_lines(table: &mut Vec<Entry>) {
    let logged = || Acts("notices_are_logged_by_stream_time_and_kind");
    let fields = ["StartTime", "EndTime", "StreamName", "PageNum", "PageSize", "EventType"];
    table.extend(entries(LOG, &fields, logged));
    table.extend(entries(LOG, &["ResultCode"], logged));
    for (field, wrong) in [
        ("StartTime", json!("2018-13-01 00:00:00")),
        ("StartTime", json!(utc(-15 * 86_400))),
        ("StartTime", json!(utc(-23 * 3_600 - 60))),
        ("EndTime", json!("soon")),
        ("EndTime", json!(utc(-7_200))),
        ("StreamName", json!("x".repeat(256))),
        ("PageNum", json!(0)),
        ("PageSize", json!(0)),
        ("PageSize", json!(1_001)),
        ("EventType", json!(-1)),
        ("ResultCode", json!(-1)),
    ] {
        table.extend(entries(LOG, &[field], || Refused(wrong.clone(), BAD_VALUE)));
    }
}

fn numbers_name_one_template(bench: &Bench) {
    let (one, other) = (template(bench), template(bench));
    bench.ok(MODIFY, &json!({"TemplateId": one, "Description": "changed"}));
    let description = |number| described(bench, number)["Description"].clone();
    assert_eq!((description(&one), description(&other)), (json!("changed"), json!("")));
    bench.ok("DeleteLiveCallbackTemplate", &json!({"TemplateId": one}));
    bench.refused(MODIFY, &json!({"TemplateId": one}), "FailedOperation.NotFound");
    let all = bench.ok("DescribeLiveCallbackTemplates", &json!({}))["Templates"].clone();
    let all: Vec<&Value> =
        all.as_array().expect("a list").iter().map(|shown| &shown["TemplateId"]).collect();
    assert!(all.contains(&&other) && !all.contains(&&one), "{all:?}");
}

fn a_change_keeps_what_it_does_not_name(bench: &Bench) {
    let number = template(bench);
    let before = described(bench, &number);
    bench.ok(MODIFY, &json!({"TemplateId": number, "RecordNotifyUrl": NOBODY}));
    let mut after = described(bench, &number);
    assert_eq!(after["RecordNotifyUrl"].take(), NOBODY);
    after["RecordNotifyUrl"] = before["RecordNotifyUrl"].clone();
    assert_eq!(after, before);
    // Given empty, a URL is taken away; one must be left.
    bench.ok(MODIFY, &json!({"TemplateId": number, "RecordNotifyUrl": ""}));
    assert_eq!(described(bench, &number), before);
    bench.refused(MODIFY, &json!({"TemplateId": number, "StreamBeginNotifyUrl": ""}), BAD_VALUE);
}

fn a_rule_is_for_a_domain_and_an_app(bench: &Bench) {
    let made = rule(bench);
    bench.ok(CREATE_RULE, &made);
    bench.refused(CREATE_RULE, &made, "FailedOperation.RuleAlreadyExist");
    let number = json!({"TemplateId": made["TemplateId"]});
    bench.refused("DeleteLiveCallbackTemplate", &number, "FailedOperation.ConfInUsed");
    let shown = || {
        let all = bench.ok("DescribeLiveCallbackRules", &json!({}))["Rules"].clone();
        let mut all = all.as_array().expect("a list").clone();
        all.retain(|shown| shown["DomainName"] == made["DomainName"]);
        all
    };
    let rules = shown();
    assert_eq!((rules.len(), &rules[0]["AppName"]), (1, &json!("live")));
    assert_eq!(rules[0]["TemplateId"], made["TemplateId"]);
    for (domain, app) in [(made["DomainName"].clone(), "vod"), (json!("other"), "live")] {
        let other = json!({"DomainName": domain, "AppName": app});
        bench.refused(DELETE_RULE, &other, "FailedOperation.NotFound");
    }
    bench.ok(DELETE_RULE, &json!({"DomainName": made["DomainName"], "AppName": "live"}));
    assert_eq!(shown().len(), 0);
    bench.ok("DeleteLiveCallbackTemplate", &number);
}

fn notices_are_logged_by_stream_time_and_kind(bench: &Bench) {
    let stream = bench.name();
    // Of one stream the second notice waits for the first; a namesake's does not.
    for domain in [bench.name(), bench.name()] {
        let bound = json!({"DomainName": domain, "AppName": "live", "TemplateId": template(bench)});
        bench.ok(CREATE_RULE, &bound);
        let name = format!("{stream}?vhost={domain}");
        Publisher::publish(bench.edge.rtmp(), &name).expect("taken").finish();
    }
    let log = |filter: Value| {
        let mut asked = log_of(&stream);
        let filter = filter.as_object().expect("an object").clone();
        asked.as_object_mut().expect("an object").extend(filter);
        let answer = bench.ok(LOG, &asked);
        let rows = answer["DataInfoList"].as_array().expect("a list").clone();
        (rows, answer)
    };
    let rows = wait_for(SOON, "both begins are in the log", || {
        let (rows, _) = log(json!({}));
        (rows.len() == 2).then_some(rows)
    });
    for row in &rows {
        assert_eq!((&row["EventType"], &row["StreamId"]), (&json!(1), &json!(stream)));
        assert_eq!(row["ResultCode"], 1, "nobody has it: {row}");
        let body: Value =
            serde_json::from_str(row["Request"].as_str().expect("text")).expect("JSON");
        assert_eq!(body["stream_id"], stream.as_str());
        let time = row["EventTime"].as_str().expect("text");
        assert!(time.ends_with('Z'), "in the form of the question: {time}");
    }
    let (second, answer) = log(json!({"PageNum": 2, "PageSize": 1}));
    assert_eq!(
        (second.len(), &answer["TotalNum"], &answer["TotalPage"]),
        (1, &json!(2), &json!(2))
    );
    let count = |filter: Value| log(filter).0.len();
    for (filter, expected) in [
        (json!({"EventType": 1}), 2),
        (json!({"EventType": 0}), 0),
        (json!({"EventType": 200}), 0),
        (json!({"ResultCode": 1}), 2),
        (json!({"ResultCode": 0}), 0),
        (json!({"StreamName": &stream[..stream.len() - 1]}), 0),
        (json!({"StartTime": utc(60)}), 0),
        (json!({"EndTime": utc(-60)}), 0),
        (json!({"StartTime": beijing(-60), "EndTime": beijing(60)}), 2),
    ] {
        assert_eq!(count(filter.clone()), expected, "{filter}");
    }
}
