//! A walk over every field of every action of the contract (`live_api_fields.json`): none is
//! passed over in silence. Of each field a table says how that is known, and each word of it is
//! tried on a real box; a field without a line is found, and so is a line that is not true.

mod support;

#[path = "cloud_fields/callbacks.rs"]
mod callbacks;
#[path = "cloud_fields/contract.rs"]
mod contract;
#[path = "cloud_fields/mixes.rs"]
mod mixes;
#[path = "cloud_fields/push_keys.rs"]
mod push_keys;
#[path = "cloud_fields/quotas.rs"]
mod quotas;
#[path = "cloud_fields/streams.rs"]
mod streams;
#[path = "cloud_fields/tasks.rs"]
mod tasks;
#[path = "cloud_fields/templates.rs"]
mod templates;
#[path = "cloud_fields/walk.rs"]
mod walk;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use contract::Contract;
use walk::Proof::{Acts, Elsewhere, Refused, Shown};
use walk::{Bench, Entry, Family, gaps, try_entry, walk};

const FAMILIES: [&Family; 6] = [
    &callbacks::FAMILY,
    &mixes::FAMILY,
    &push_keys::FAMILY,
    &streams::FAMILY,
    &tasks::FAMILY,
    &templates::FAMILY,
];

fn no_rules() -> Value {
    json!({"revision": 1, "templates": [], "rules": []})
}

#[test]
fn every_field_of_the_contract_has_a_line_that_is_tried() {
    let gaps = gaps(&Contract::read(), &FAMILIES);
    assert!(gaps.is_empty(), "{gaps:#?}");
}

/// A walk that finds nothing proves nothing: each kind of untrue line is found.
#[test]
fn what_is_not_true_is_found() {
    let found = gaps(&Contract::read(), &FAMILIES[1..]);
    let missing = |line: &str| found.iter().any(|gap| gap == line);
    assert!(missing("CreateLiveCallbackTemplate is in no family"), "{found:#?}");
    assert!(missing("CreateLiveCallbackRule AppName has no line"), "{found:#?}");

    let bench = Bench::start(no_rules());
    let rule = "CreateLiveRecordRule";
    let template = "CreateLiveRecordTemplate";
    for (action, field, proof) in [
        (template, "Description", Refused(json!("x"), "InvalidParameterValue")),
        (template, "Description", Refused(json!("x".repeat(2_000)), "MissingParameter")),
        (template, "HlsParam.RecordInterval", Shown(json!(60), json!(60))),
        (template, "Nothing", Shown(json!(1), json!(1))),
        (rule, "TemplateId", Acts("no such act")),
        (rule, "TemplateId", Acts("there_is_no_slow_live")),
        (rule, "TemplateId", Elsewhere("tests/splice.rs", "no_such_test")),
        (rule, "TemplateId", Elsewhere("tests/splice.rs", "splice")),
        (rule, "TemplateId", Elsewhere("tests/nowhere.rs", "with_sound")),
    ] {
        let entry = Entry { action, field: field.to_owned(), proof };
        let tried = AssertUnwindSafe(|| try_entry(&templates::FAMILY, &bench, &entry));
        assert!(catch_unwind(tried).is_err(), "{action} {field} is taken for true");
    }
}

#[test]
fn callbacks_pass_no_field_over() {
    walk(&callbacks::FAMILY, &Bench::start(no_rules()));
}

#[test]
fn templates_and_rules_pass_no_field_over() {
    walk(&templates::FAMILY, &Bench::start(no_rules()));
}

#[test]
fn tasks_pass_no_field_over() {
    walk(&tasks::FAMILY, &Bench::start(no_rules()));
}

#[test]
fn streams_pass_no_field_over() {
    walk(&streams::FAMILY, &Bench::start(no_rules()));
}

#[test]
fn push_keys_pass_no_field_over() {
    walk(&push_keys::FAMILY, &Bench::start(no_rules()));
}

#[test]
fn mixes_pass_no_field_over() {
    walk(&mixes::FAMILY, &Bench::start(no_rules()));
}
