//! The contract's list of actions and fields, and whether an answer is as it says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Members of answers that may be `null`: a template for which none was given.
const NULLABLE: [&str; 1] = ["VodSubAppId"];

/// The list.
pub struct Contract(Value);

/// A field of a request, with its place: parts joined by dots, a list is its first element.
#[derive(Debug, Clone)]
pub struct Field {
    pub path: String,
    pub kind: String,
    /// It must be given, and so must all objects that it is in.
    pub required: bool,
    /// It has no fields of its own.
    pub leaf: bool,
}

impl Contract {
    pub fn read() -> Contract {
        let text = include_str!("../data/contracts/live_api_fields.json");
        Contract(serde_json::from_str(text).expect("JSON"))
    }

    /// Every action.
    pub fn actions(&self) -> Vec<&str> {
        self.0["actions"].as_object().expect("an object").keys().map(String::as_str).collect()
    }

    /// Every field of the requests of an action, at all levels.
    #[track_caller]
    pub fn fields(&self, action: &str) -> Vec<Field> {
        let mut fields = Vec::new();
        self.collect(&self.0["actions"][action]["request"], "", true, &mut fields);
        fields
    }

    fn collect(&self, list: &Value, within: &str, required: bool, into: &mut Vec<Field>) {
        for field in list.as_array().expect("a list of fields") {
            let name = text(&field["name"]);
            let path = if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") };
            let kind = text(&field["type"]);
            let required = required && field["required"] == true;
            let inner = &self.0["objects"][element_of(kind).unwrap_or(kind)];
            let leaf = inner.is_null();
            into.push(Field { path: path.clone(), kind: kind.to_owned(), required, leaf });
            if !leaf {
                let within = if element_of(kind).is_some() { format!("{path}.0") } else { path };
                self.collect(inner, &within, required, into);
            }
        }
    }

    /// The codes that an action may answer with.
    pub fn codes(&self, action: &str) -> Vec<&str> {
        let codes = self.0["actions"][action]["error_codes"].as_array().expect("codes");
        codes.iter().map(text).collect()
    }

    /// Kinds of objects that answers of an action hold.
    pub fn objects_of_answers(&self, action: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.objects_in(&self.0["actions"][action]["response"], &mut found);
        found
    }

    fn objects_in(&self, list: &Value, found: &mut BTreeSet<String>) {
        for field in list.as_array().expect("a list of fields") {
            let kind = text(&field["type"]);
            let kind = element_of(kind).unwrap_or(kind);
            let inner = &self.0["objects"][kind];
            if !inner.is_null() && found.insert(kind.to_owned()) {
                self.objects_in(inner, found);
            }
        }
    }

    /// What is wrong with an answer, and which kinds of objects are in it.
    pub fn check(&self, action: &str, response: &Value) -> (Vec<String>, BTreeSet<String>) {
        let (mut faults, mut seen) = (Vec::new(), BTreeSet::new());
        let fields = &self.0["actions"][action]["response"];
        self.compare(fields, response, action, &mut faults, &mut seen);
        (faults, seen)
    }

    fn compare(
        &self,
        fields: &Value,
        given: &Value,
        place: &str,
        faults: &mut Vec<String>,
        seen: &mut BTreeSet<String>,
    ) {
        for field in fields.as_array().expect("a list of fields") {
            let (name, kind) = (text(&field["name"]), text(&field["type"]));
            let place = format!("{place}.{name}");
            let value = &given[name];
            if value.is_null() && !NULLABLE.contains(&name) {
                faults.push(format!("{place} is not there"));
            }
            let elements: Vec<&Value> = match element_of(kind) {
                Some(_) => value.as_array().into_iter().flatten().collect(),
                None => vec![value],
            };
            if element_of(kind).is_some() && !value.is_array() {
                faults.push(format!("{place} is no list"));
            }
            let kind = element_of(kind).unwrap_or(kind);
            for element in elements.into_iter().filter(|element| !element.is_null()) {
                let inner = &self.0["objects"][kind];
                if !inner.is_null() {
                    seen.insert(kind.to_owned());
                    self.compare(inner, element, &place, faults, seen);
                } else if !is_of_kind(element, kind) {
                    faults.push(format!("{place}: {element} is no {kind}"));
                }
            }
        }
    }
}

fn is_of_kind(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "bool" => value.is_boolean(),
        "int64" => value.is_i64(),
        "uint64" => value.is_u64(),
        "float" => value.is_number(),
        other => panic!("the contract has a kind {other}"),
    }
}

/// The kind of the elements of a list.
fn element_of(kind: &str) -> Option<&str> {
    kind.strip_prefix("array<")?.strip_suffix('>')
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// A value that is wrong for any field of this kind.
pub fn of_wrong_kind(kind: &str) -> Value {
    match kind {
        "string" | "bool" | "int64" | "uint64" | "float" => json!({}),
        _ => json!("x"),
    }
}

/// Puts a value at a place of a request; objects and lists on the way are made.
pub fn put(request: &mut Value, path: &str, value: Value) {
    let mut at = request;
    for part in path.split('.') {
        at = match part.parse::<usize>() {
            Ok(index) => {
                let list = made(at, json!([])).as_array_mut().expect("a list");
                while list.len() <= index {
                    list.push(json!({}));
                }
                &mut list[index]
            }
            Err(_) => &mut made(at, json!({}))[part],
        };
    }
    *at = value;
}

fn made(at: &mut Value, empty: Value) -> &mut Value {
    if at.is_null() {
        *at = empty;
    }
    at
}

/// What stands at a place; `None` if nothing does.
pub fn find<'a>(request: &'a Value, path: &str) -> Option<&'a Value> {
    request.pointer(&format!("/{}", path.replace('.', "/")))
}

/// Takes away what stands at a place.
pub fn remove(request: &mut Value, path: &str) {
    let (within, name) = path.rsplit_once('.').unwrap_or(("", path));
    let within = if within.is_empty() {
        Some(request)
    } else {
        request.pointer_mut(&format!("/{}", within.replace('.', "/")))
    };
    if let Some(members) = within.and_then(Value::as_object_mut) {
        members.remove(name);
    }
}
