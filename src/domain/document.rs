//! JSON documents of foreign origin, read member by member: every fault is collected with its
//! place. Size and depth are bounded; duplicate and unknown members are faults.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::domain::faults::{Fault, FaultKind, Faults, quoted};

/// Objects and arrays inside each other.
const DEPTH_MAX: usize = 16;

/// A JSON value; members of objects as written, duplicates included.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a whole document of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Too long, too deep, or not JSON.
    pub fn parse(bytes: &[u8], bytes_max: usize) -> Result<Json, Fault> {
        let whole = |what: String| Fault { kind: FaultKind::Value, place: String::new(), what };
        if bytes.len() > bytes_max {
            return Err(whole(format!("has {} bytes, {bytes_max} are allowed", bytes.len())));
        }
        let not_json = |error: serde_json::Error| whole(format!("is not valid JSON: {error}"));
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let json = Level(0).deserialize(&mut deserializer).map_err(not_json)?;
        deserializer.end().map_err(not_json)?;
        Ok(json)
    }

    /// From a value that was parsed elsewhere, within limits of its own.
    #[must_use]
    pub fn from_value(value: serde_json::Value) -> Json {
        match value {
            serde_json::Value::Null => Json::Null,
            serde_json::Value::Bool(value) => Json::Bool(value),
            serde_json::Value::Number(number) => Json::Number(number),
            serde_json::Value::String(text) => Json::Text(text),
            serde_json::Value::Array(list) => {
                Json::List(list.into_iter().map(Json::from_value).collect())
            }
            serde_json::Value::Object(members) => Json::Object(
                members.into_iter().map(|(name, value)| (name, Json::from_value(value))).collect(),
            ),
        }
    }

    /// The kind of value, for faults.
    fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "true or false",
            Json::Number(_) => "a number",
            Json::Text(_) => "a string",
            Json::List(_) => "an array",
            Json::Object(_) => "an object",
        }
    }
}

/// Reads a value at a depth.
struct Level(usize);

impl Level {
    fn below<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.0 < DEPTH_MAX {
            Ok(self.0 + 1)
        } else {
            Err(E::custom(format!("deeper than {DEPTH_MAX} levels")))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("no finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let depth = self.below()?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(Level(depth))? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let depth = self.below()?;
        let mut members = Vec::new();
        while let Some(name) = access.next_key::<String>()? {
            if name.len() > 255 {
                return Err(A::Error::custom("a member's name has more than 255 bytes"));
            }
            members.push((name, access.next_value_seed(Level(depth))?));
        }
        Ok(Json::Object(members))
    }
}

/// The members of one object while they are taken. What nobody took is an unknown field.
#[derive(Debug)]
pub struct Fields<'a> {
    place: String,
    members: Vec<(&'a str, &'a Json)>,
    null_is_absent: bool,
}

impl<'a> Fields<'a> {
    /// Opens the object at `place` (empty for the whole document); `None` if it is no object.
    pub fn open(json: &'a Json, place: impl Into<String>, faults: &mut Faults) -> Option<Self> {
        let place = place.into();
        let Json::Object(list) = json else {
            faults.add(place, format!("is {}, an object is expected", json.kind()));
            return None;
        };
        let mut seen = HashSet::with_capacity(list.len());
        let mut fields = Fields { place, members: Vec::new(), null_is_absent: false };
        for (name, value) in list {
            if seen.insert(name.as_str()) {
                fields.members.push((name, value));
            } else {
                faults.add(fields.place_of(name), "is given twice");
            }
        }
        Some(fields)
    }

    /// Takes `null` for a member that is not there, as the contract has it for templates.
    #[must_use]
    pub fn null_is_absent(mut self) -> Self {
        self.null_is_absent = true;
        self
    }

    /// The place of a member.
    #[must_use]
    pub fn place_of(&self, name: &str) -> String {
        // Names we know are plain; foreign ones are shown as foreign text.
        let plain =
            name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let name = if plain { name.to_owned() } else { quoted(name) };
        if self.place.is_empty() { name } else { format!("{}.{name}", self.place) }
    }

    /// Whether a member is there, not taken yet.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let there = |value: &Json| !(self.null_is_absent && *value == Json::Null);
        self.members.iter().any(|(member, value)| *member == name && there(value))
    }

    /// Takes a member whatever it is.
    pub fn take(&mut self, name: &str) -> Option<&'a Json> {
        let index = self.members.iter().position(|(member, _)| *member == name)?;
        let (_, value) = self.members.swap_remove(index);
        (!(self.null_is_absent && *value == Json::Null)).then_some(value)
    }

    /// A member that is not given is a fault.
    pub fn require(&self, name: &str, faults: &mut Faults) {
        if !self.has(name) {
            faults.add_kind(FaultKind::Missing, self.place_of(name), "is missing");
        }
    }

    /// Opens a member that is an object.
    pub fn object(&mut self, name: &str, faults: &mut Faults) -> Option<Fields<'a>> {
        let value = self.take(name)?;
        let mut fields = Fields::open(value, self.place_of(name), faults)?;
        fields.null_is_absent = self.null_is_absent;
        Some(fields)
    }

    /// A member that is a string of at most `bytes_max` bytes without control characters.
    pub fn text(&mut self, name: &str, bytes_max: usize, faults: &mut Faults) -> Option<&'a str> {
        let place = self.place_of(name);
        match self.take(name)? {
            Json::Text(text) if text.len() > bytes_max => {
                faults.add(place, format!("has {} bytes, {bytes_max} are allowed", text.len()));
                None
            }
            Json::Text(text) if text.chars().any(char::is_control) => {
                faults.add(place, "has a control character");
                None
            }
            Json::Text(text) => Some(text),
            other => {
                faults.add(place, format!("is {}, a string is expected", other.kind()));
                None
            }
        }
    }

    /// A string that must be there.
    pub fn required_text(
        &mut self,
        name: &str,
        bytes_max: usize,
        faults: &mut Faults,
    ) -> Option<&'a str> {
        self.require(name, faults);
        self.text(name, bytes_max, faults)
    }

    /// A whole number inside `range`, also written as a string.
    pub fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
        faults: &mut Faults,
    ) -> Option<i64> {
        let place = self.place_of(name);
        let value = self.take(name)?;
        let (number, shown) = match value {
            Json::Number(number) => (number.as_i64(), number.to_string()),
            Json::Text(text) => (decimal(text), quoted(text)),
            other => (None, other.kind().to_owned()),
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            Some(number) => {
                let (low, high) = range.into_inner();
                faults.add(place, format!("{number} is outside {low}..={high}"));
                None
            }
            None => {
                faults.add(place, format!("is {shown}, a whole number is expected"));
                None
            }
        }
    }

    /// A whole number that must be there.
    pub fn required_integer(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
        faults: &mut Faults,
    ) -> Option<i64> {
        self.require(name, faults);
        self.integer(name, range, faults)
    }

    /// `true` or `false`, also written as a string; with a capital too, as Python writes them and so
    /// its SDK of the cloud in a query or a form.
    pub fn flag(&mut self, name: &str, faults: &mut Faults) -> Option<bool> {
        let place = self.place_of(name);
        match self.take(name)? {
            Json::Bool(value) => Some(*value),
            Json::Text(text) if text == "true" || text == "True" => Some(true),
            Json::Text(text) if text == "false" || text == "False" => Some(false),
            other => {
                faults.add(place, format!("is {}, true or false is expected", other.kind()));
                None
            }
        }
    }

    /// The elements of an array of at most `max` elements, each with its place. Not there is empty.
    pub fn list(&mut self, name: &str, max: usize, faults: &mut Faults) -> Vec<(String, &'a Json)> {
        let place = self.place_of(name);
        match self.take(name) {
            None => Vec::new(),
            Some(Json::List(list)) if list.len() > max => {
                faults.add(place, format!("has {} elements, {max} are allowed", list.len()));
                Vec::new()
            }
            Some(Json::List(list)) => list
                .iter()
                .enumerate()
                .map(|(index, value)| (format!("{place}[{index}]"), value))
                .collect(),
            Some(other) => {
                faults.add(place, format!("is {}, an array is expected", other.kind()));
                Vec::new()
            }
        }
    }

    /// Everything has been taken; what is left is unknown.
    pub fn finish(self, faults: &mut Faults) {
        for (name, _) in &self.members {
            faults.add_kind(FaultKind::Unknown, self.place_of(name), "is not a known field");
        }
    }
}

/// A number in decimal digits, without plus sign or blanks.
fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json, Fault> {
        Json::parse(text.as_bytes(), 1000)
    }

    #[test]
    fn size_depth_and_syntax_are_bounded() {
        let deep = format!("{}{}", "[".repeat(16), "]".repeat(16));
        assert!(parse(&deep).is_ok());
        let deeper = format!("[{deep}]");
        assert!(parse(&deeper).expect_err("deep").what.contains("deeper than 16 levels"));
        assert!(parse(&"[".repeat(900)).expect_err("deep").what.contains("deeper than 16"));
        assert!(parse(&" ".repeat(1001)).expect_err("long").what.contains("1000 are allowed"));
        for bad in ["", "{", "NaN", "\u{feff}{}", "{} {}", "{\"a\":1e999}", "{\"a\":01}"] {
            assert!(parse(bad).expect_err(bad).what.starts_with("is not valid JSON"), "{bad}");
        }
        assert!(Json::parse(b"\"\xff\"", 1000).is_err());
    }

    #[test]
    fn every_fault_of_an_object_is_found() {
        let json = parse(
            r#"{"n": 5, "n": 6, "x\n": 1, "big": "70", "half": 1.5, "flag": "TRUE", "t": null}"#,
        )
        .expect("JSON");
        let mut faults = Faults::new();
        let mut fields = Fields::open(&json, "a[0]", &mut faults).expect("object");
        assert_eq!(fields.integer("n", 0..=9, &mut faults), Some(5));
        assert_eq!(fields.integer("big", 0..=9, &mut faults), None);
        assert_eq!(fields.integer("half", 0..=9, &mut faults), None);
        assert_eq!(fields.flag("flag", &mut faults), None);
        assert_eq!(fields.text("t", 9, &mut faults), None);
        assert_eq!(fields.required_text("gone", 9, &mut faults), None);
        fields.finish(&mut faults);
        assert_eq!(
            faults.to_string(),
            "a[0].n: is given twice\n\
             a[0].big: 70 is outside 0..=9\n\
             a[0].half: is 1.5, a whole number is expected\n\
             a[0].flag: is a string, true or false is expected\n\
             a[0].t: is null, a string is expected\n\
             a[0].gone: is missing\n\
             a[0].`x\\u{a}`: is not a known field"
        );
    }

    #[test]
    fn numbers_and_booleans_may_be_strings() {
        let json = r#"{"a": "12", "b": "false", "c": "+1", "d": null, "e": "True", "f": "False"}"#;
        let json = parse(json).expect("JSON");
        let mut faults = Faults::new();
        let mut fields = Fields::open(&json, "", &mut faults).expect("object").null_is_absent();
        assert_eq!(fields.integer("a", 0..=99, &mut faults), Some(12));
        assert_eq!(fields.flag("b", &mut faults), Some(false));
        assert_eq!(fields.flag("e", &mut faults), Some(true));
        assert_eq!(fields.flag("f", &mut faults), Some(false));
        assert_eq!(fields.integer("c", 0..=99, &mut faults), None);
        assert_eq!(fields.text("d", 9, &mut faults), None);
        fields.finish(&mut faults);
        assert_eq!(faults.to_string(), "c: is `+1`, a whole number is expected");
    }

    #[test]
    fn null_is_missing_where_it_is_absent() {
        let json = parse(r#"{"a": null, "b": null}"#).expect("JSON");
        let mut faults = Faults::new();
        let mut fields = Fields::open(&json, "", &mut faults).expect("object").null_is_absent();
        assert_eq!(fields.required_text("a", 9, &mut faults), None);
        assert_eq!(fields.required_integer("b", 0..=9, &mut faults), None);
        assert_eq!(fields.required_integer("c", 0..=9, &mut faults), None);
        fields.finish(&mut faults);
        assert_eq!(faults.to_string(), "a: is missing\nb: is missing\nc: is missing");
    }
}
