//! Keys of push domains, with encoders that have the right one or not. The digests are Python's.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::cloud_api::unix_now;
use crate::support::process::run_ok;
use crate::support::publisher::Publisher;
use crate::support::tool;
use crate::walk::Proof::{Acts, Elsewhere, Refused, Shown};
use crate::walk::{Bench, Entry, Family, entries};

pub const FAMILY: Family = Family {
    actions: &[MODIFY, DESCRIBE],
    base,
    show,
    acts: &[
        ("each_domain_has_its_own_keys", each_domain_has_its_own_keys),
        ("who_has_a_key_may_push", who_has_a_key_may_push),
    ],
    table,
};
const MODIFY: &str = "ModifyLivePushAuthKey";
const DESCRIBE: &str = "DescribeLivePushAuthKey";
const BAD_VALUE: &str = "InvalidParameterValue";

fn base(bench: &Bench, action: &str) -> Value {
    match action {
        MODIFY => json!({"DomainName": bench.name(), "MasterAuthKey": "first1"}),
        _ => json!({"DomainName": bench.name()}),
    }
}

fn show(bench: &Bench, _: &str, request: &Value, _: &Value) -> Value {
    keys(bench, &request["DomainName"])
}

fn keys(bench: &Bench, domain: &Value) -> Value {
    bench.ok(DESCRIBE, &json!({"DomainName": domain}))["PushAuthKeyInfo"].clone()
}

fn table() -> Vec<Entry> {
    let mut table = Vec::new();
    for action in [MODIFY, DESCRIBE] {
        let own = || Acts("each_domain_has_its_own_keys");
        table.extend(entries(action, &["DomainName"], own));
        for wrong in [String::new(), "x".repeat(256)] {
            table.extend(entries(action, &["DomainName"], || Refused(json!(wrong), BAD_VALUE)));
        }
    }
    for (field, good, wrong) in [
        ("Enable", json!(0), json!(2)),
        ("Enable", json!(1), json!(-1)),
        ("MasterAuthKey", json!("key1"), json!("x".repeat(257))),
        ("BackupAuthKey", json!("key2"), json!("x".repeat(257))),
        ("AuthDelta", json!(3_600), json!(-1)),
    ] {
        let shown = || Shown(good.clone(), good.clone());
        table.extend(entries(MODIFY, &[field], shown));
        table.extend(entries(MODIFY, &[field], || Refused(wrong.clone(), BAD_VALUE)));
        table.extend(entries(MODIFY, &[field], || Acts("who_has_a_key_may_push")));
        let vectors = "keys_of_the_domain_decide_every_case_of_the_vectors";
        table.extend(entries(MODIFY, &[field], || Elsewhere("src/app/publish_check.rs", vectors)));
    }
    table
}

fn each_domain_has_its_own_keys(bench: &Bench) {
    let (one, other) = (json!(bench.name()), json!(bench.name()));
    bench.ok(MODIFY, &json!({"DomainName": one, "MasterAuthKey": "first1", "AuthDelta": 5}));
    let upper = json!(one.as_str().expect("text").to_uppercase());
    bench.ok(MODIFY, &json!({"DomainName": upper, "BackupAuthKey": "second2"}));
    let key = |keys: &Value| (keys["MasterAuthKey"].clone(), keys["BackupAuthKey"].clone());
    let whole = keys(bench, &one);
    assert_eq!(key(&whole), (json!("first1"), json!("second2")), "what is not given stays");
    assert_eq!((&whole["Enable"], &whole["AuthDelta"]), (&json!(1), &json!(5)));
    let none = keys(bench, &other);
    assert_eq!((key(&none), &none["Enable"]), ((json!(""), json!("")), &json!(0)));
    bench.refused(MODIFY, &json!({"DomainName": other, "Enable": 1}), BAD_VALUE);
}

fn who_has_a_key_may_push(bench: &Bench) {
    let domain = bench.name();
    let set = |mut keys: Value| {
        keys["DomainName"] = json!(domain);
        bench.ok(MODIFY, &keys);
    };
    let push = |key: Option<&str>, expires_s: i64| {
        let signed = key.map_or(String::new(), |key| signed(key, "gate", expires_s));
        let name = format!("gate?vhost={domain}{signed}");
        let told = Publisher::publish(bench.edge.rtmp(), &name);
        told.map(Publisher::finish).map_err(|told| {
            ["18/500", "18/501", "18/503"]
                .into_iter()
                .find(|code| told.contains(code))
                .unwrap_or("?")
        })
    };
    let (later, passed) = (unix_now() + 3_600, unix_now() - 60);
    assert_eq!(push(None, later), Ok(()), "nobody is asked yet");
    set(
        json!({"MasterAuthKey": "first1", "BackupAuthKey": "second2", "Enable": 1, "AuthDelta": 0}),
    );
    assert_eq!(push(None, later), Err("18/500"));
    assert_eq!(push(Some("first1"), later), Ok(()));
    assert_eq!(push(Some("second2"), later), Ok(()));
    assert_eq!(push(Some("third3"), later), Err("18/503"));
    assert_eq!(push(Some("first1"), passed), Err("18/501"));
    set(json!({"AuthDelta": 3_600}));
    assert_eq!(push(Some("first1"), passed), Ok(()), "late, but not too late");
    set(json!({"MasterAuthKey": "third3", "BackupAuthKey": ""}));
    assert_eq!(push(Some("third3"), later), Ok(()));
    assert_eq!(push(Some("second2"), later), Err("18/503"));
    set(json!({"Enable": 0}));
    assert_eq!(push(None, later), Ok(()));
}

/// The query of a push URL.
fn signed(key: &str, stream: &str, expires_s: i64) -> String {
    let time = format!("{expires_s:X}");
    let program = "import hashlib, sys; print(hashlib.md5(sys.argv[1].encode()).hexdigest())";
    let text = format!("{key}{stream}{time}");
    let digest = run_ok(Command::new(tool("python3")).args(["-c", program, &text]));
    format!("&txSecret={}&txTime={time}", String::from_utf8(digest).expect("text").trim())
}
