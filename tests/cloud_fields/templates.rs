//! Recording templates and rules.

use serde_json::{Value, json};

use crate::walk::Proof::{Acts, Elsewhere, Refused, Shown};
use crate::walk::{Bench, Entry, Family, Proof, entries};

pub const FAMILY: Family = Family {
    actions: &[
        "CreateLiveRecordTemplate",
        "ModifyLiveRecordTemplate",
        "DeleteLiveRecordTemplate",
        "DescribeLiveRecordTemplate",
        "DescribeLiveRecordTemplates",
        "CreateLiveRecordRule",
        "DeleteLiveRecordRule",
        "DescribeLiveRecordRules",
    ],
    base,
    show,
    acts: &[
        ("numbers_name_one_template", numbers_name_one_template),
        ("there_is_no_slow_live", there_is_no_slow_live),
        ("a_rule_decides_about_what_it_names", a_rule_decides_about_what_it_names),
        ("a_rule_goes_by_exactly_its_names", a_rule_goes_by_exactly_its_names),
        ("the_cases_of_the_contract_decide", the_cases_of_the_contract_decide),
    ],
    table,
};
const CREATE: &str = "CreateLiveRecordTemplate";
const MODIFY: &str = "ModifyLiveRecordTemplate";
const CREATE_RULE: &str = "CreateLiveRecordRule";
const DELETE_RULE: &str = "DeleteLiveRecordRule";
/// What the box leaves to its own configuration, or cannot do.
const NOT_HERE: &str = "UnsupportedOperation";
const BAD_VALUE: &str = "InvalidParameterValue";

fn template(bench: &Bench) -> Value {
    let made = json!({"TemplateName": bench.name(), "FlvParam": {"Enable": 1}});
    bench.ok(CREATE, &made)["TemplateId"].clone()
}

fn base(bench: &Bench, action: &str) -> Value {
    match action {
        CREATE => json!({"TemplateName": bench.name()}),
        MODIFY | "DeleteLiveRecordTemplate" | "DescribeLiveRecordTemplate" => {
            json!({"TemplateId": template(bench)})
        }
        CREATE_RULE => json!({"DomainName": bench.name(), "TemplateId": template(bench)}),
        DELETE_RULE => {
            let domain = bench.name();
            bench.ok(CREATE_RULE, &json!({"DomainName": domain, "TemplateId": template(bench)}));
            json!({"DomainName": domain})
        }
        _ => json!({}),
    }
}

/// The template that was made or changed.
fn show(bench: &Bench, _: &str, request: &Value, response: &Value) -> Value {
    let number = response.get("TemplateId").unwrap_or(&request["TemplateId"]);
    described(bench, number)
}

fn described(bench: &Bench, number: &Value) -> Value {
    bench.ok("DescribeLiveRecordTemplate", &json!({"TemplateId": number}))["Template"].clone()
}

fn table() -> Vec<Entry> {
    let mut table = Vec::new();
    for action in [CREATE, MODIFY] {
        formats(action, &mut table);
        let mut line = |field: &str, proof: Proof| {
            table.push(Entry { action, field: field.to_owned(), proof });
        };
        let name = format!("{}_门-1", if action == CREATE { "a" } else { "b" });
        line("TemplateName", Shown(json!(name), json!(name)));
        line("TemplateName", Refused(json!("a b"), BAD_VALUE));
        line("TemplateName", Refused(json!("all x"), BAD_VALUE));
        line("Description", Shown(json!("入口, left"), json!("入口, left")));
        line("Description", Refused(json!("x".repeat(1_025)), BAD_VALUE));
        line("RemoveWatermark", Shown(json!(true), json!(true)));
        line("FlvSpecialParam.UploadInRecording", Shown(json!(false), json!(false)));
        line("FlvSpecialParam.UploadInRecording", Refused(json!(true), NOT_HERE));
        let join = "HlsSpecialParam.FlowContinueDuration";
        let [low, high] = range("/flow_continue_duration_seconds/current");
        line(join, Shown(json!(high), json!(high)));
        line(join, Refused(json!(low - 1), BAD_VALUE));
        line(join, Refused(json!(high + 1), BAD_VALUE));
        line(join, Elsewhere("tests/splice.rs", "with_sound"));
    }
    for field in ["IsDelayLive", "CosStore"] {
        table.extend(entries(CREATE, &[field], || Shown(json!(0), json!(0))));
        table.extend(entries(CREATE, &[field], || Refused(json!(1), NOT_HERE)));
    }
    let number = &["TemplateId"];
    for (action, unknown) in [
        (MODIFY, "FailedOperation.NotFound"),
        ("DescribeLiveRecordTemplate", "FailedOperation.NotFound"),
        ("DeleteLiveRecordTemplate", "InternalError.ConfNotFound"),
        (CREATE_RULE, "InvalidParameter.ConfNotFound"),
    ] {
        table.extend(entries(action, number, || Refused(json!(404), unknown)));
    }
    for action in [MODIFY, "DescribeLiveRecordTemplate", "DeleteLiveRecordTemplate"] {
        table.extend(entries(action, number, || Acts("numbers_name_one_template")));
    }
    let slow = "DescribeLiveRecordTemplates";
    table.extend(entries(slow, &["IsDelayLive"], || Acts("there_is_no_slow_live")));
    table.extend(entries(slow, &["IsDelayLive"], || Refused(json!(2), BAD_VALUE)));
    rules(&mut table);
    table
}

fn rules(table: &mut Vec<Entry>) {
    let pattern = ["DomainName", "AppName", "StreamName"];
    let all = ["DomainName", "AppName", "StreamName", "TemplateId"];
    table.extend(entries(CREATE_RULE, &all, || Acts("a_rule_decides_about_what_it_names")));
    table.extend(entries(CREATE_RULE, &all, || Acts("the_cases_of_the_contract_decide")));
    table.extend(entries(DELETE_RULE, &pattern, || Acts("a_rule_goes_by_exactly_its_names")));
    for action in [CREATE_RULE, DELETE_RULE] {
        let bad = || Refused(json!("http://a"), "InvalidParameter.DomainFormatError");
        table.extend(entries(action, &["DomainName"], bad));
        let long = || Refused(json!("x".repeat(256)), BAD_VALUE);
        table.extend(entries(action, &["AppName", "StreamName"], long));
    }
}

/// A range of `live_limits.json`.
fn range(path: &str) -> [i64; 2] {
    let text = include_str!("../data/contracts/live_limits.json");
    let limits: Value = serde_json::from_str(text).expect("JSON");
    let range = limits.pointer(path).and_then(Value::as_array).expect("a range");
    [0, 1].map(|end| range[end].as_i64().expect("a number"))
}

/// The RecordParam of every format.
fn formats(action: &'static str, table: &mut Vec<Entry>) {
    let [_, longest] = range("/storage_time_seconds/current");
    for format in ["Flv", "Hls", "Mp4", "Aac", "Mp3"] {
        let had = format != "Mp3";
        let mut line = |field: &str, proof: Proof| {
            let shows = matches!(proof, Shown(..));
            // MP3 cannot be turned on, and what a format that is off was given is not kept.
            if had || !shows {
                let field = format!("{format}Param.{field}");
                table.push(Entry { action, field, proof });
            }
        };
        line("Enable", Shown(json!(1), json!(1)));
        line("Enable", Refused(json!(2), BAD_VALUE));
        let unrecorded = "no_byte_of_a_norecord_stream_reaches_the_disk";
        line("Enable", Elsewhere("tests/norecord.rs", unrecorded));
        for (field, good) in [
            ("StorageTime", json!(86_400)),
            ("VodSubAppId", json!(7)),
            ("VodFileName", json!("{StreamID}-{StartYear}")),
            ("Procedure", json!("flow")),
            ("StorageMode", json!("normal")),
            ("ClassId", json!(3)),
        ] {
            line(field, Shown(good.clone(), good));
        }
        line("StorageTime", Refused(json!(longest + 1), BAD_VALUE));
        line("StorageTime", Refused(json!(-1), BAD_VALUE));
        line("VodSubAppId", Refused(json!(-1), BAD_VALUE));
        line("VodFileName", Refused(json!("{Nope}"), "InvalidParameter.InvalidVodFileName"));
        line("Procedure", Refused(json!("x".repeat(256)), BAD_VALUE));
        line("StorageMode", Refused(json!("cold"), NOT_HERE));
        line("StorageMode", Refused(json!("warm"), BAD_VALUE));
        line("ClassId", Refused(json!(-1), BAD_VALUE));
        for field in ["CosBucketName", "CosBucketRegion", "CosBucketPath"] {
            line(field, Refused(json!("/x"), NOT_HERE));
            line(field, Shown(json!(""), json!("")));
        }
        match format {
            // Ignored, as the contract has it: one file from begin to end.
            "Hls" => line("RecordInterval", Shown(json!(60), json!(1_800))),
            _ => {
                let like = if had { format.to_lowercase() } else { "aac".to_owned() };
                let [low, high] = range(&format!("/record_interval_seconds/current/{like}"));
                line("RecordInterval", Shown(json!(high), json!(high)));
                line("RecordInterval", Refused(json!(low - 1), BAD_VALUE));
                line("RecordInterval", Refused(json!(high + 1), BAD_VALUE));
            }
        }
        let interval = "clips_are_cut_at_key_frames_and_hold_every_packet_once";
        line("RecordInterval", Elsewhere("tests/fidelity/interval.rs", interval));
        line("VodFileName", Elsewhere("src/domain/file_name.rs", "contract_cases"));
        let expired = "order_is_expired_delivered_ring_only_undelivered";
        line("StorageTime", Elsewhere("src/domain/eviction.rs", expired));
        if !had {
            line("Enable", Refused(json!(1), NOT_HERE));
        }
    }
}

fn numbers_name_one_template(bench: &Bench) {
    let (one, other) = (template(bench), template(bench));
    bench.ok(MODIFY, &json!({"TemplateId": one, "Description": "changed"}));
    let description = |number| described(bench, number)["Description"].clone();
    assert_eq!((description(&one), description(&other)), (json!("changed"), json!("")));
    bench.ok("DeleteLiveRecordTemplate", &json!({"TemplateId": one}));
    bench.refused(MODIFY, &json!({"TemplateId": one}), "FailedOperation.NotFound");
    assert_eq!(described(bench, &other)["TemplateId"], other);
    let bound = json!({"DomainName": bench.name(), "TemplateId": other});
    bench.ok(CREATE_RULE, &bound);
    let delete = json!({"TemplateId": other});
    bench.refused("DeleteLiveRecordTemplate", &delete, "FailedOperation.ConfInUsed");
}

fn there_is_no_slow_live(bench: &Bench) {
    let one = template(bench);
    let shown = |slow: u8| {
        let asked = json!({"IsDelayLive": slow});
        let all = bench.ok("DescribeLiveRecordTemplates", &asked)["Templates"].clone();
        let all = all.as_array().expect("a list").clone();
        all.iter().filter(|template| template["TemplateId"] == one).count()
    };
    assert_eq!((shown(0), shown(1)), (1, 0));
}

/// What `edgerec explain` says about a stream: the rule and the template that decide.
fn decides(bench: &Bench, stream: &str) -> Value {
    let told = bench.edge.cli_ok(&["explain", stream, "--json"]);
    serde_json::from_str(told.lines().next().expect("a line")).expect("JSON")
}

fn a_rule_decides_about_what_it_names(bench: &Bench) {
    let (domain, number) = (bench.name(), template(bench));
    let name = described(bench, &number)["TemplateName"].clone();
    let whole = json!({"DomainName": domain, "AppName": "vod", "StreamName": "gate",
                       "TemplateId": number});
    bench.ok(CREATE_RULE, &whole);
    bench.refused(CREATE_RULE, &whole, "FailedOperation.RuleAlreadyExist");
    let decision = |stream: &str| {
        let told = decides(bench, &format!("{domain}{stream}"));
        (told["decision"].clone(), told["template"].clone())
    };
    assert_eq!(decision("/vod/gate"), (json!("record"), name.clone()));
    for other in ["/vod/hall", "/live/gate", "x/vod/gate"] {
        assert_eq!(decision(other).0, json!("unmatched"), "{other}");
    }
    // Not given is `live`; empty is every app.
    bench.ok(CREATE_RULE, &json!({"DomainName": domain, "TemplateId": number}));
    assert_eq!(decision("/live/hall"), (json!("record"), name.clone()));
    assert_eq!(decision("/vod/hall").0, json!("unmatched"));
    bench.ok(CREATE_RULE, &json!({"DomainName": domain, "AppName": "", "TemplateId": number}));
    assert_eq!(decision("/vod/hall"), (json!("record"), name));
    let shown = bench.ok("DescribeLiveRecordRules", &json!({}))["Rules"].clone();
    let mut ours = shown.as_array().expect("a list").clone();
    ours.retain(|rule| rule["DomainName"] == domain.as_str());
    let names = |rule: &Value| (rule["AppName"].to_string(), rule["StreamName"].to_string());
    let mut names: Vec<_> = ours.iter().map(names).collect();
    names.sort();
    let expected = [("", ""), ("live", ""), ("vod", "gate")];
    assert_eq!(names, expected.map(|(a, s)| (json!(a).to_string(), json!(s).to_string())));
    assert!(ours.iter().all(|rule| rule["TemplateId"] == number && rule["Layer"] == "local"));
}

fn a_rule_goes_by_exactly_its_names(bench: &Bench) {
    let (domain, number) = (bench.name(), template(bench));
    let rule = |app: &str, stream: &str| json!({"DomainName": domain, "AppName": app, "StreamName": stream});
    for (app, stream) in [("", ""), ("vod", "gate")] {
        let mut made = rule(app, stream);
        made["TemplateId"] = number.clone();
        bench.ok(CREATE_RULE, &made);
    }
    // Not given is `live`, not every app.
    for other in [json!({"DomainName": domain}), rule("vod", ""), rule("", "gate")] {
        bench.refused(DELETE_RULE, &other, "FailedOperation.NotFound");
    }
    let mut foreign = rule("vod", "gate");
    foreign["DomainName"] = json!(bench.name());
    bench.refused(DELETE_RULE, &foreign, "FailedOperation.NotFound");
    bench.ok(DELETE_RULE, &rule("vod", "gate"));
    assert_eq!(decides(bench, &format!("{domain}/vod/gate"))["rule"]["StreamName"], Value::Null);
    bench.ok(DELETE_RULE, &rule("", ""));
    assert_eq!(decides(bench, &format!("{domain}/vod/gate"))["decision"], "unmatched");
}

/// `rule_priority.json`, with rules that the API made.
fn the_cases_of_the_contract_decide(bench: &Bench) {
    let text = include_str!("../data/rule_priority.json");
    let cases: Value = serde_json::from_str(text).expect("JSON");
    let rules = cases["rules"].as_array().expect("rules");
    for case in cases["tests"].as_array().expect("tests") {
        let wanted = case["rules"].as_array().expect("ids");
        let mut made = Vec::new();
        for rule in rules.iter().filter(|rule| wanted.contains(&rule["id"])) {
            let template = json!({"TemplateName": rule["id"], "HlsParam": {"Enable": 1}});
            let number = bench.ok(CREATE, &template)["TemplateId"].clone();
            let mut pattern = rule.clone();
            pattern.as_object_mut().expect("an object").retain(|name, _| name.ends_with("Name"));
            let mut whole = pattern.clone();
            whole["TemplateId"] = number.clone();
            bench.ok(CREATE_RULE, &whole);
            made.push((pattern, number));
        }
        let part = |name: &str| case[name].as_str().expect("text");
        let stream = format!("{}/{}/{}", part("domain"), part("app"), part("stream"));
        let told = decides(bench, &stream);
        assert_eq!(told["template"], case["expect_rule"], "{}: {told}", case["basis"]);
        for (pattern, number) in made {
            bench.ok(DELETE_RULE, &pattern);
            bench.ok("DeleteLiveRecordTemplate", &json!({"TemplateId": number}));
        }
    }
}
