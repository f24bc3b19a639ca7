//! A JSON object of foreign origin as parameters. Depth, values and bytes are counted while it is
//! read, so a small body cannot become a large tree; a member that stands there twice is refused.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::wire::cloud::envelope::EnvelopeError;
use crate::wire::cloud::{BODY_BYTES_MAX, DEPTH_MAX, PARAMETERS_MAX};

/// Reads a whole body; an empty one is an object without members.
///
/// # Errors
/// Too long, too deep, too many values, a member twice, or no JSON object.
pub fn parse(body: &[u8]) -> Result<Map<String, Value>, EnvelopeError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(EnvelopeError::TooLong);
    }
    if body.is_empty() {
        return Ok(Map::new());
    }
    let fault = Cell::new(EnvelopeError::NotJson);
    let left = Cell::new(PARAMETERS_MAX + 1);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Level { depth: 0, left: &left, fault: &fault }
        .deserialize(&mut deserializer)
        .map_err(|_| fault.get())?;
    deserializer.end().map_err(|_| EnvelopeError::NotJson)?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(EnvelopeError::NotJson),
    }
}

/// Reads a value at a depth.
#[derive(Clone, Copy)]
struct Level<'a> {
    depth: usize,
    /// Values that may still come.
    left: &'a Cell<usize>,
    /// What the error of the deserializer means.
    fault: &'a Cell<EnvelopeError>,
}

impl Level<'_> {
    fn fail<E: serde::de::Error>(&self, fault: EnvelopeError) -> E {
        self.fault.set(fault);
        E::custom("a limit")
    }

    fn below<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(self.fail(EnvelopeError::TooDeep));
        }
        Ok(Level { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(self.fail(EnvelopeError::TooMany)),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("no finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let level = self.below()?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(level)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let level = self.below()?;
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(level)?;
            if members.insert(name, value).is_some() {
                return Err(self.fail(EnvelopeError::Duplicate));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(body: &str) -> Result<Value, EnvelopeError> {
        parse(body.as_bytes()).map(Value::Object)
    }

    #[test]
    fn an_object_is_read_as_it_stands() {
        let body = r#"{"A": "\u5f55", "B": [1, -2, 0.5, true, null], "C": {"D": {}}}"#;
        let expected = json!({"A": "录", "B": [1, -2, 0.5, true, null], "C": {"D": {}}});
        assert_eq!(text(body), Ok(expected));
        assert_eq!(text(""), Ok(json!({})));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["[]", "1", "null", "{", "{}x", "{\"a\":1,}", "\u{feff}{}", "{\"a\":1e999}"] {
            assert_eq!(text(body), Err(EnvelopeError::NotJson), "{body}");
        }
        assert_eq!(parse(b"{\"a\":\"\xff\"}"), Err(EnvelopeError::NotJson));
        assert_eq!(text(r#"{"a":1,"a":1}"#), Err(EnvelopeError::Duplicate));
        assert_eq!(text(r#"{"b":{"a":1,"\u0061":1}}"#), Err(EnvelopeError::Duplicate));
    }

    #[test]
    fn depth_values_and_bytes_are_bounded() {
        let nested =
            |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(text(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(text(&nested(DEPTH_MAX + 1)), Err(EnvelopeError::TooDeep));
        assert_eq!(text(&nested(70_000)), Err(EnvelopeError::TooDeep));
        let list = |len: usize| format!("{{\"a\":[{}]}}", vec!["0"; len].join(","));
        assert!(text(&list(PARAMETERS_MAX - 1)).is_ok());
        assert_eq!(text(&list(PARAMETERS_MAX)), Err(EnvelopeError::TooMany));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(BODY_BYTES_MAX));
        assert_eq!(text(&long), Err(EnvelopeError::TooLong));
    }
}
