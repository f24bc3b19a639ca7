//! The walk over the fields of actions: a table says of each field how it is known that the box
//! does not ignore it, and every word of the table is tried on a real box.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::contract::{Contract, find, of_wrong_kind, put, remove};
use crate::support::cloud_api::{ask, code};
use crate::support::edge_box::{BoxPlan, EdgeBox};

/// How it is known that a field is not ignored.
pub enum Proof {
    /// With this value the request is refused with this code.
    Refused(Value, &'static str),
    /// With this value the request is taken, and the box shows this in the field's place.
    Shown(Value, Value),
    /// This function of the family tries it.
    Acts(&'static str),
    /// This test, in this file, tries what comes of it; beside another proof only.
    Elsewhere(&'static str, &'static str),
}

/// A line of the table.
pub struct Entry {
    pub action: &'static str,
    pub field: String,
    pub proof: Proof,
}

/// Lines for some fields of an action.
pub fn entries(
    action: &'static str,
    fields: &[&str],
    proof: impl Fn() -> Proof,
) -> impl Iterator<Item = Entry> {
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    let proofs: Vec<Proof> = fields.iter().map(|_| proof()).collect();
    fields.into_iter().zip(proofs).map(move |(field, proof)| Entry { action, field, proof })
}

/// Codes that the contract knows (its section 11), though its lists leave them out with many
/// actions: what is not there, and what nobody knows or the box cannot do.
const OF_EVERY_ACTION: [&str; 3] = ["MissingParameter", "UnknownParameter", "UnsupportedOperation"];

/// Something that is tried on a box.
pub type Act = fn(&Bench);
/// What shows a request that was taken, in the form of the request; from action, request, answer.
pub type Show = fn(&Bench, &str, &Value, &Value) -> Value;

/// Actions about one matter.
pub struct Family {
    pub actions: &'static [&'static str],
    /// A good request of an action; what it needs is made before.
    pub base: fn(&Bench, &str) -> Value,
    pub show: Show,
    pub acts: &'static [(&'static str, Act)],
    pub table: fn() -> Vec<Entry>,
}

/// A box that is asked, and what it was asked.
pub struct Bench {
    pub edge: EdgeBox,
    contract: Contract,
    names: Cell<u32>,
    /// Requests that were taken.
    taken: RefCell<Vec<(String, Value)>>,
    /// Those of each act that was done.
    acts: RefCell<BTreeMap<&'static str, Vec<(String, Value)>>>,
    /// Kinds of objects in its answers.
    seen: RefCell<BTreeSet<String>>,
}

impl Bench {
    /// A box with as good as no limits, under these rules.
    pub fn start(rules: Value) -> Bench {
        let limits = "[limits]\nrequests_per_second = 100000\ntemplates = 1000\nrules = 1000\n\
                      callback_templates = 1000\nrunning_tasks = 1000\noverlapping_tasks = 1000\n";
        Bench {
            edge: BoxPlan::default().rules(rules).sections(limits).start(),
            contract: Contract::read(),
            names: Cell::new(0),
            taken: RefCell::default(),
            acts: RefCell::default(),
            seen: RefCell::default(),
        }
    }

    /// A name that was not given out before.
    pub fn name(&self) -> String {
        self.names.set(self.names.get() + 1);
        format!("name{}", self.names.get())
    }

    /// Asks; a good answer must be as the contract says.
    #[track_caller]
    pub fn ask(&self, action: &str, request: &Value) -> Value {
        let response = ask(self.edge.api(), action, request);
        if code(&response) == "ok" {
            let (faults, seen) = self.contract.check(action, &response);
            assert!(faults.is_empty(), "{action} {request}: {faults:#?}\n{response}");
            self.seen.borrow_mut().extend(seen);
            self.taken.borrow_mut().push((action.to_owned(), request.clone()));
        }
        response
    }

    /// Asks for what must not be refused.
    #[track_caller]
    pub fn ok(&self, action: &str, request: &Value) -> Value {
        let response = self.ask(action, request);
        assert_eq!(code(&response), "ok", "{action} {request}: {response}");
        response
    }

    /// Asks for what must be refused so.
    #[track_caller]
    pub fn refused(&self, action: &str, request: &Value, expected: &str) {
        let response = self.ask(action, request);
        assert_eq!(code(&response), expected, "{action} {request}: {response}");
    }

    /// What the box has stored durably: an entry of a kind whose content `wanted` likes.
    pub fn stored(&self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let path = self.edge.ring().join("state.db");
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let db = db.expect("the box's state can be read");
        let mut query = db.prepare("SELECT content FROM entry WHERE kind = ?1").expect("a query");
        let rows = query.query_map([kind], |row| row.get::<_, String>(0)).expect("rows");
        let content = |row: rusqlite::Result<String>| {
            serde_json::from_str::<Value>(&row.expect("a row")).expect("JSON")
        };
        rows.map(content).find(|content| wanted(content))
    }
}

/// Walks a family on a box.
pub fn walk(family: &Family, bench: &Bench) {
    for (name, act) in family.acts {
        let from = bench.taken.borrow().len();
        act(bench);
        let taken = bench.taken.borrow()[from..].to_vec();
        bench.acts.borrow_mut().insert(name, taken);
    }
    let table = (family.table)();
    for action in family.actions {
        every_field_is_read(family, bench, action);
        for entry in table.iter().filter(|entry| entry.action == *action) {
            try_entry(family, bench, entry);
        }
    }
    every_object_was_answered(family, bench);
}

/// Fails unless a line is true.
pub fn try_entry(family: &Family, bench: &Bench, entry: &Entry) {
    let Entry { action, field, proof } = entry;
    match proof {
        Proof::Refused(value, code) => {
            let mut request = (family.base)(bench, action);
            put(&mut request, field, value.clone());
            bench.refused(action, &request, code);
            let listed = bench.contract.codes(action).contains(code);
            assert!(listed || OF_EVERY_ACTION.contains(code), "{action} never says {code}");
        }
        Proof::Shown(value, shown) => is_shown(family, bench, entry, value, shown),
        Proof::Acts(name) => {
            let acts = bench.acts.borrow();
            let taken = acts.get(name).unwrap_or_else(|| panic!("no act {name}"));
            let mut requests = taken.iter().filter(|(asked, _)| asked == action);
            let given = requests.any(|(_, request)| find(request, field).is_some());
            assert!(given, "{name} never gives {action} {field}");
        }
        Proof::Elsewhere(file, function) => is_test(file, function),
    }
}

/// A wrong kind of value is refused in every place, what must be given is missed, and what nobody
/// knows is refused: so nothing is passed over.
fn every_field_is_read(family: &Family, bench: &Bench, action: &str) {
    bench.ok(action, &(family.base)(bench, action));
    let fields = bench.contract.fields(action);
    let codes = bench.contract.codes(action);
    for field in &fields {
        let mut wrong = (family.base)(bench, action);
        put(&mut wrong, &field.path, of_wrong_kind(&field.kind));
        let response = bench.ask(action, &wrong);
        let told = code(&response);
        let value = ["InvalidParameterValue", "InvalidParameter"].contains(&told);
        assert!(value && codes.contains(&told), "{action} {wrong}: {response}");
        let words = response["Error"]["Message"].as_str().expect("words");
        let name = field.path.rsplit('.').find(|part| part.parse::<u32>().is_err());
        assert!(words.contains(name.expect("a name")), "{action} {wrong}: {words}");
        if field.required {
            let mut without = (family.base)(bench, action);
            remove(&mut without, &field.path);
            let response = bench.ask(action, &without);
            let missed = ["MissingParameter", "InvalidParameter"].contains(&code(&response));
            assert!(missed, "{action} {without}: {response}");
        }
    }
    let objects = fields.iter().filter(|field| !field.leaf).map(|field| {
        let list = if field.kind.starts_with("array<") { ".0" } else { "" };
        format!("{}{list}.Extra", field.path)
    });
    for unknown in objects.chain(["Extra".to_owned()]) {
        let mut request = (family.base)(bench, action);
        put(&mut request, &unknown, json!(1));
        bench.refused(action, &request, "UnknownParameter");
    }
}

/// Numbers and booleans may be texts too, as in the contract's own sample.
fn is_shown(family: &Family, bench: &Bench, entry: &Entry, value: &Value, shown: &Value) {
    let text = (value.is_number() || value.is_boolean()).then(|| json!(value.to_string()));
    for value in [value.clone()].into_iter().chain(text) {
        let mut request = (family.base)(bench, entry.action);
        put(&mut request, &entry.field, value);
        // What is said of a format counts while the format is on.
        if let Some((format, member)) = entry.field.split_once("Param.")
            && member != "Enable"
            && !format.ends_with("Special")
        {
            put(&mut request, &format!("{format}Param.Enable"), json!(1));
        }
        let response = bench.ok(entry.action, &request);
        let all = (family.show)(bench, entry.action, &request, &response);
        let there = find(&all, &entry.field);
        assert_eq!(there, Some(shown), "{} {}: {request}", entry.action, entry.field);
    }
}

/// The test is there.
fn is_test(file: &str, function: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let head = format!("fn {function}(");
    let before = text.split_once(&head).map(|(before, _)| before.trim_end());
    let before = before.unwrap_or_else(|| panic!("{file} has no {function}"));
    let before = before.strip_suffix("async").unwrap_or(before).trim_end();
    let mut attributes = before.lines().rev().take_while(|line| line.trim().starts_with("#["));
    assert!(attributes.any(|line| line.contains("test]")), "{file}: {function} is no test");
}

/// Of everything that the answers can hold something was answered.
fn every_object_was_answered(family: &Family, bench: &Bench) {
    for action in family.actions {
        for object in bench.contract.objects_of_answers(action) {
            let seen = bench.seen.borrow().contains(&object);
            assert!(seen, "no {object} was ever answered to {action}");
        }
    }
}

/// Fields without a line that is tried on the box, and lines without a field.
pub fn gaps(contract: &Contract, families: &[&Family]) -> Vec<String> {
    let mut gaps = Vec::new();
    let table: Vec<Entry> = families.iter().flat_map(|family| (family.table)()).collect();
    let tried: BTreeSet<(&str, &str)> = table
        .iter()
        .filter(|entry| !matches!(entry.proof, Proof::Elsewhere(..)))
        .map(|entry| (entry.action, entry.field.as_str()))
        .collect();
    for action in contract.actions() {
        if !families.iter().any(|family| family.actions.contains(&action)) {
            gaps.push(format!("{action} is in no family"));
        }
        for field in contract.fields(action).into_iter().filter(|field| field.leaf) {
            if !tried.contains(&(action, field.path.as_str())) {
                gaps.push(format!("{action} {} has no line", field.path));
            }
        }
    }
    for entry in &table {
        let fields = contract.actions().contains(&entry.action);
        let fields = if fields { contract.fields(entry.action) } else { Vec::new() };
        if !fields.iter().any(|field| field.leaf && field.path == entry.field) {
            gaps.push(format!("{} {} is no field", entry.action, entry.field));
        }
    }
    gaps
}
