//! `src/domain/rule_set.schema.json` says what the box takes: both judge the same documents, one
//! with every member and thousands that differ from it in one place.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use edgerec::domain::rule_set::RuleSet;
use serde_json::{Value, json};

use support::process::run_ok;
use support::{python, scratch};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/domain/rule_set.schema.json");

/// A rule set with every member there is.
fn whole() -> Value {
    let record = json!({"Enable": 1, "RecordInterval": 60, "StorageTime": 7,
        "VodFileName": "{StreamID}", "VodSubAppId": 1, "Procedure": "flow", "ClassId": 1,
        "StorageMode": "normal", "CosBucketName": "", "CosBucketRegion": "", "CosBucketPath": ""});
    let mut off = record.clone();
    off["Enable"] = json!(0);
    json!({
        "revision": 1,
        "apply": {"mode": "next_start", "within_s": 60, "disconnect": true},
        "fleet": "venue", "box": "box-01", "expires": "2030-01-01T00:00:00Z",
        "templates": [
            {"TemplateName": "venue", "FlvParam": {"Enable": 1}},
            {"TemplateName": "all", "Description": "d", "FlvParam": record, "HlsParam": record,
             "Mp4Param": record, "AacParam": record, "Mp3Param": off, "RemoveWatermark": false,
             "HlsSpecialParam": {"FlowContinueDuration": 300}, "IsDelayLive": 0, "CosStore": 0,
             "FlvSpecialParam": {"UploadInRecording": false}},
        ],
        "rules": [{"DomainName": "d", "AppName": "a", "StreamName": "s", "TemplateName": "venue"}],
        "sources": [{"DomainName": "cams", "AppName": "live", "StreamName": "gate",
                     "Url": "rtsp://10.0.0.8/main", "Transport": "udp",
                     "OnFull": "keep_undelivered"}],
        "callbacks": [{"DomainName": "d", "AppName": "a", "Url": "https://a.example/", "Key": "K1"}],
    })
}

/// What a member is replaced with.
fn strangers() -> Vec<Value> {
    let long = "x".repeat(300);
    vec![
        Value::Null,
        json!([]),
        json!({}),
        json!([[]]),
        json!(""),
        json!("text"),
        json!("a b"),
        json!("tab\there"),
        json!(long),
        json!("60"),
        json!("true"),
        json!("True"),
        json!("cold"),
        json!("normal"),
        json!("rtsp://h/"),
        json!("http://h/"),
        json!("2030-01-01"),
        json!("2030-01-01T08:00:00+08:00"),
        json!(true),
        json!(false),
        json!(-1),
        json!(0),
        json!(1),
        json!(1.5),
        json!(59),
        json!(60),
        json!(1_801),
        json!(7_201),
        json!(43_201),
        json!(86_401),
        json!(129_600_001),
        json!(i64::MAX),
    ]
}

/// Every document that differs from `value` in one place, with that place. `put` makes the whole
/// document of a changed part.
fn each_change(
    place: &str,
    value: &Value,
    put: &dyn Fn(Value) -> Value,
    take: &mut dyn FnMut(&str, Value),
) {
    if !place.is_empty() {
        strangers().into_iter().for_each(|stranger| take(place, put(stranger)));
    }
    match value {
        Value::Object(members) => {
            let mut more = members.clone();
            more.insert("Surprise".to_owned(), json!(1));
            take(&format!("{place}.Surprise"), put(Value::Object(more)));
            for (name, member) in members {
                let mut less = members.clone();
                less.remove(name);
                take(&format!("{place}.{name} left out"), put(Value::Object(less)));
                let put_member = |changed| {
                    let mut members = members.clone();
                    members.insert(name.clone(), changed);
                    put(Value::Object(members))
                };
                each_change(&format!("{place}.{name}"), member, &put_member, take);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let put_element = |changed| {
                    let mut elements = elements.clone();
                    elements[index] = changed;
                    put(Value::Array(elements))
                };
                each_change(&format!("{place}[{index}]"), element, &put_element, take);
            }
        }
        _ => {}
    }
}

/// What a schema cannot say: a rule whose template is not there. (Nor can it bound numbers that are
/// written as texts: the one among the strangers is in every range.)
fn is_beyond_a_schema(place: &str) -> bool {
    let of_the_template_in_use = [".templates", ".templates left out", ".templates[0]"];
    of_the_template_in_use.contains(&place)
        || place.starts_with(".templates[0].TemplateName")
        || place == ".rules[0].TemplateName"
}

/// What the schema says of each document.
fn judged(documents: &[Value]) -> Vec<bool> {
    let dir = scratch("schema");
    let path = dir.path().join("documents.json");
    std::fs::write(&path, Value::from(documents.to_vec()).to_string()).expect("written");
    let program = "import json, sys, jsonschema\n\
                   schema = json.load(open(sys.argv[1]))\n\
                   jsonschema.Draft202012Validator.check_schema(schema)\n\
                   validator = jsonschema.Draft202012Validator(schema)\n\
                   print(json.dumps([validator.is_valid(d) for d in json.load(open(sys.argv[2]))]))";
    let said = run_ok(Command::new(python()).args(["-c", program, SCHEMA]).arg(&path));
    serde_json::from_slice(&said).expect("a list")
}

#[test]
fn the_schema_and_the_box_take_the_same_rule_sets() {
    let mut places = vec!["as it is".to_owned()];
    let mut documents = vec![whole()];
    each_change("", &whole(), &|changed| changed, &mut |place, document| {
        if !is_beyond_a_schema(place) {
            places.push(place.to_owned());
            documents.push(document);
        }
    });
    let by_schema = judged(&documents);
    assert!(by_schema[0] && documents.len() > 2_000, "{} documents", documents.len());
    let mut differ = BTreeSet::new();
    for ((place, document), by_schema) in places.iter().zip(&documents).zip(by_schema) {
        let by_box = RuleSet::parse(document.to_string().as_bytes());
        if by_box.is_ok() != by_schema {
            let why = by_box.err().map_or("taken".to_owned(), |faults| faults.to_string());
            let at = document.pointer(&pointer(place)).map_or(String::new(), Value::to_string);
            differ.insert(format!("{place} = {at:.60}: the box: {why}; the schema: {by_schema}"));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}

/// A place as a JSON pointer.
fn pointer(place: &str) -> String {
    place.replace("].", "/").replace(['.', '['], "/").replace(']', "")
}

#[test]
fn every_member_of_the_schema_is_tried() {
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(Path::new(SCHEMA)).expect("read"))
            .expect("JSON");
    let (mut of_schema, mut of_whole) = (BTreeSet::new(), BTreeSet::new());
    names_in(&schema, true, &mut of_schema);
    names_in(&whole(), false, &mut of_whole);
    assert_eq!(of_schema, of_whole);
}

/// Names of members: of a schema those that it has properties for.
fn names_in(value: &Value, of_schema: bool, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if !of_schema {
                    names.insert(name.clone());
                } else if name == "properties" {
                    names.extend(member.as_object().expect("properties").keys().cloned());
                }
                names_in(member, of_schema, names);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|one| names_in(one, of_schema, names)),
        _ => {}
    }
}
