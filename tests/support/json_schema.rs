//! JSON Schemas, judged by Python's jsonschema: not our code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::process::run_ok;
use super::{python, scratch};

/// Where the documents about MQTT are.
pub fn contract(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fleet/contract").join(name)
}

/// Documents to be judged by the schema at a path, or by one of its `$defs`.
pub struct Case {
    pub schema: PathBuf,
    pub part: Option<String>,
    pub documents: Vec<Value>,
}

/// What is wrong with each document of each case; nothing, if it is valid. The schemas must
/// themselves be good ones.
pub fn judge(cases: &[Case]) -> Vec<Vec<Option<String>>> {
    const PROGRAM: &str = "import json, sys, jsonschema\n\
        def told(case):\n\
        \x20   schema = json.load(open(case['schema']))\n\
        \x20   kind = jsonschema.validators.validator_for(schema)\n\
        \x20   kind.check_schema(schema)\n\
        \x20   if case['part']:\n\
        \x20       assert case['part'] in schema['$defs'], case['part']\n\
        \x20       schema = {k: v for k, v in schema.items() if k != 'oneOf'}\n\
        \x20       schema['$ref'] = '#/$defs/' + case['part']\n\
        \x20   validator = kind(schema)\n\
        \x20   for document in case['documents']:\n\
        \x20       fault = next(validator.iter_errors(document), None)\n\
        \x20       yield fault and fault.json_path + ': ' + fault.message[:300]\n\
        print(json.dumps([list(told(case)) for case in json.load(open(sys.argv[1]))]))";
    let dir = scratch("schema");
    let path = dir.path().join("cases.json");
    let case = |case: &Case| json!({"schema": case.schema, "part": case.part, "documents": case.documents});
    let text = Value::Array(cases.iter().map(case).collect()).to_string();
    std::fs::write(&path, text).expect("written");
    let said = run_ok(Command::new(python()).args(["-c", PROGRAM]).arg(&path));
    serde_json::from_slice(&said).expect("a list")
}

/// What is wrong with each document by the schema at a path.
pub fn faults(schema: &Path, documents: &[Value]) -> Vec<Option<String>> {
    let (schema, documents) = (schema.to_owned(), documents.to_vec());
    judge(&[Case { schema, part: None, documents }]).remove(0)
}

/// Documents that differ from a good one by a member that is missing, and with `rename` by one that
/// has another name. Members at the places in `optional` are not left out.
pub fn planted(good: &Value, optional: &[&str], rename: bool) -> Vec<Value> {
    let mut changed = Vec::new();
    for place in members("", good) {
        let (within, name) = place.rsplit_once('/').expect("a place begins with a slash");
        let change = |add: bool| {
            let mut document = good.clone();
            let object = document.pointer_mut(within).and_then(Value::as_object_mut);
            let object = object.expect("what was found is there");
            let member = object.remove(name).expect("what was found is there");
            if add {
                object.insert(format!("{name}_2"), member);
            }
            document
        };
        if !optional.contains(&place.as_str()) {
            changed.push(change(false));
        }
        if rename {
            changed.push(change(true));
        }
    }
    changed
}

/// One document of each shape: those that have the same members are as good as one another.
pub fn shapes(documents: &[Value]) -> Vec<&Value> {
    let of_each: BTreeMap<Vec<String>, &Value> =
        documents.iter().map(|document| (members("", document), document)).collect();
    of_each.into_values().collect()
}

/// The places of all members of objects, as JSON pointers.
fn members(place: &str, value: &Value) -> Vec<String> {
    let within = |name: &str, value: &Value| members(&format!("{place}/{name}"), value);
    match value {
        Value::Object(object) => object
            .iter()
            .flat_map(|(name, member)| {
                let mut places = within(name, member);
                places.push(format!("{place}/{name}"));
                places
            })
            .collect(),
        Value::Array(elements) => {
            elements.iter().enumerate().flat_map(|(at, one)| within(&at.to_string(), one)).collect()
        }
        _ => Vec::new(),
    }
}
