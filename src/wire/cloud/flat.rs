//! Parameters of a query and a form: pairs, and the tree that dotted names mean
//! (`FlvParam.Enable=1`, `InputStreamList.0.LayoutParams.ImageLayer=1`).
//!
//! Every value is a text, as the sender wrote it. Lists are counted from 0 without gaps.

use serde_json::{Map, Value};

use crate::domain::stream_key::percent_decode;
use crate::wire::cloud::envelope::EnvelopeError;
use crate::wire::cloud::received::Received;
use crate::wire::cloud::{BODY_BYTES_MAX, DEPTH_MAX, PARAMETERS_MAX, QUERY_BYTES_MAX};

/// The pairs of the query and of the form in the body, decoded, in the order of their names (byte
/// by byte). No name stands there twice.
#[derive(Clone, PartialEq, Eq)]
pub struct FlatParameters(Vec<(String, String)>);

impl FlatParameters {
    /// Reads them; a body that is no form adds none.
    ///
    /// # Errors
    /// Too long, too many, a name twice, a broken escape, or no UTF-8.
    pub fn read(request: &Received<'_>) -> Result<Self, EnvelopeError> {
        if request.query.len() > QUERY_BYTES_MAX || request.body.len() > BODY_BYTES_MAX {
            return Err(EnvelopeError::TooLong);
        }
        let form = match request.has_form()? {
            true => std::str::from_utf8(request.body).map_err(|_| EnvelopeError::BadEscape)?,
            false => "",
        };
        let mut pairs = Vec::new();
        for pair in request.query.split('&').chain(form.split('&')) {
            if pair.is_empty() {
                continue;
            }
            if pairs.len() == PARAMETERS_MAX {
                return Err(EnvelopeError::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        pairs.sort_unstable();
        if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err(EnvelopeError::Duplicate);
        }
        Ok(FlatParameters(pairs))
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// All pairs, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The tree that the dotted names mean, without the names that `left_out` takes.
    ///
    /// # Errors
    /// Too deep; a name is both a value and a level; a list has gaps.
    pub fn tree(
        &self,
        left_out: impl Fn(&str) -> bool,
    ) -> Result<Map<String, Value>, EnvelopeError> {
        let mut root = Map::new();
        for (name, value) in self.iter().filter(|(name, _)| !left_out(name)) {
            insert(&mut root, name, value)?;
        }
        let mut values = 0;
        root.into_iter().map(|(name, value)| Ok((name, with_lists(value, &mut values)?))).collect()
    }
}

/// Names only: values may be secrets.
impl std::fmt::Debug for FlatParameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

fn decode(text: &str) -> Result<String, EnvelopeError> {
    percent_decode(&text.replace('+', " ")).ok_or(EnvelopeError::BadEscape)
}

/// Puts a value at its dotted name; lists are still objects then.
fn insert(root: &mut Map<String, Value>, name: &str, value: &str) -> Result<(), EnvelopeError> {
    let mut level = root;
    let mut parts = name.split('.').peekable();
    let mut depth = 0;
    while let Some(part) = parts.next() {
        if part.is_empty() {
            return Err(EnvelopeError::BadName);
        }
        depth += 1;
        if depth > DEPTH_MAX {
            return Err(EnvelopeError::TooDeep);
        }
        if parts.peek().is_none() {
            let taken = level.insert(part.to_owned(), Value::String(value.to_owned())).is_some();
            return if taken { Err(EnvelopeError::Duplicate) } else { Ok(()) };
        }
        let below = level.entry(part).or_insert_with(|| Value::Object(Map::new()));
        level = below.as_object_mut().ok_or(EnvelopeError::Duplicate)?;
    }
    Err(EnvelopeError::BadName)
}

/// Turns objects whose names are numbers into lists. Recursion is bounded by [`DEPTH_MAX`].
fn with_lists(value: Value, values: &mut usize) -> Result<Value, EnvelopeError> {
    *values += 1;
    if *values > PARAMETERS_MAX {
        return Err(EnvelopeError::TooMany);
    }
    let Value::Object(members) = value else { return Ok(value) };
    let numbered = members.keys().filter(|name| name.bytes().all(|b| b.is_ascii_digit())).count();
    if numbered == 0 {
        let members = members.into_iter();
        let members = members.map(|(name, value)| Ok((name, with_lists(value, values)?)));
        return Ok(Value::Object(members.collect::<Result<_, _>>()?));
    }
    let mut list = vec![Value::Null; members.len()];
    for (name, value) in members {
        let place = name.parse::<usize>().ok().filter(|index| index.to_string() == name);
        let place = place.and_then(|index| list.get_mut(index)).ok_or(EnvelopeError::BadList)?;
        *place = with_lists(value, values)?;
    }
    Ok(Value::Array(list))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn query(query: &str) -> Result<Value, EnvelopeError> {
        let request = Received { method: "GET", path: "/", query, headers: &[], body: b"" };
        FlatParameters::read(&request)?.tree(|_| false).map(Value::Object)
    }

    #[test]
    fn dotted_names_are_levels_and_numbers_are_lists() {
        let parsed = query(
            "FlvParam.Enable=1&FlvParam.RecordInterval=1800&Name=%E5%BD%95+x%2By&Empty=&Bare&\
             InputStreamList.1.LayoutParams.ImageLayer=2&InputStreamList.0.InputStreamName=a%26b&\
             InputStreamList.0.LayoutParams.ImageLayer=1&Ids.0=a",
        );
        let expected = json!({
            "FlvParam": {"Enable": "1", "RecordInterval": "1800"},
            "Name": "录 x+y", "Empty": "", "Bare": "",
            "InputStreamList": [
                {"InputStreamName": "a&b", "LayoutParams": {"ImageLayer": "1"}},
                {"LayoutParams": {"ImageLayer": "2"}}],
            "Ids": ["a"],
        });
        assert_eq!(parsed, Ok(expected));
    }

    #[test]
    fn what_is_not_one_tree_is_refused() {
        let deepest = vec!["a"; DEPTH_MAX].join(".");
        assert!(query(&deepest).is_ok());
        let cases = [
            ("a=1&a=2", EnvelopeError::Duplicate),
            ("a=1&%61=2", EnvelopeError::Duplicate),
            ("a=1&a.b=2", EnvelopeError::Duplicate),
            ("a.b=2&a=1", EnvelopeError::Duplicate),
            ("a.0=1&a.2=1", EnvelopeError::BadList),
            ("a.0=1&a.00=1", EnvelopeError::BadList),
            ("a.0=1&a.b=1", EnvelopeError::BadList),
            ("a.99999999999999999999=1", EnvelopeError::BadList),
            ("a..b=1", EnvelopeError::BadName),
            (".=1", EnvelopeError::BadName),
            ("=1", EnvelopeError::BadName),
            ("a=%zz", EnvelopeError::BadEscape),
            ("a=%ff", EnvelopeError::BadEscape),
            ("a=%", EnvelopeError::BadEscape),
            (&format!("{deepest}.a=1"), EnvelopeError::TooDeep),
        ];
        for (text, expected) in cases {
            assert_eq!(query(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn length_and_count_are_bounded() {
        let many = |count: usize| (0..count).map(|i| format!("a{i}=1&")).collect::<String>();
        assert!(query(&many(PARAMETERS_MAX)).is_ok());
        assert_eq!(query(&many(PARAMETERS_MAX + 1)), Err(EnvelopeError::TooMany));
        // Levels count as values too: short names cannot make a large tree.
        let deep = (0..PARAMETERS_MAX / 4).map(|i| format!("a{i}.b.c.d.e.f=&")).collect::<String>();
        assert_eq!(query(&deep), Err(EnvelopeError::TooMany));
        assert_eq!(query(&"a".repeat(QUERY_BYTES_MAX + 1)), Err(EnvelopeError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "[ab.0123&=%+]{0,80}") {
            if let Ok(tree) = query(&text) {
                prop_assert!(tree.is_object());
            }
        }
    }
}
