//! AMF0 (Adobe AMF 0 specification): the values of commands and metadata.

use bytes::{BufMut, BytesMut};

/// Objects and arrays inside each other.
const DEPTH_MAX: usize = 16;
/// Values in one message.
pub const VALUES_MAX: usize = 128;

const NUMBER: u8 = 0x00;
const BOOLEAN: u8 = 0x01;
const STRING: u8 = 0x02;
const OBJECT: u8 = 0x03;
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const REFERENCE: u8 = 0x07;
const ECMA_ARRAY: u8 = 0x08;
const OBJECT_END: u8 = 0x09;
const STRICT_ARRAY: u8 = 0x0a;
const DATE: u8 = 0x0b;
const LONG_STRING: u8 = 0x0c;
const UNSUPPORTED: u8 = 0x0d;
const XML_DOCUMENT: u8 = 0x0f;
const TYPED_OBJECT: u8 = 0x10;

/// A value. What recording has no use for (dates, references …) is read as [`Value::Undefined`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A double.
    Number(f64),
    /// A truth value.
    Boolean(bool),
    /// Text; bytes that are not UTF-8 are replaced.
    String(String),
    /// Named values, in order (object, typed object or ECMA array).
    Object(Vec<(String, Value)>),
    /// Values in order.
    Array(Vec<Value>),
    /// Nothing.
    Null,
    /// Not set, or not of interest.
    Undefined,
}

/// AMF0 cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmfError {
    /// The bytes end inside a value.
    #[error("a value is cut short")]
    Truncated,
    /// A type that AMF0 does not have.
    #[error("unknown value type {0}")]
    UnknownType(u8),
    /// Objects inside each other.
    #[error("values are nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// Too many values.
    #[error("more than {VALUES_MAX} values")]
    TooMany,
}

impl Value {
    /// Text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A named value of an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Object(fields) => {
                fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// A string value.
    #[must_use]
    pub fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    /// An object from names and values.
    #[must_use]
    pub fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
        Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }
}

/// Reads values one after the other.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl<'a> Reader<'a> {
    /// Over the values in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, values_left: VALUES_MAX }
    }

    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// The bytes are no AMF0 or break a limit.
    pub fn value(&mut self) -> Result<Option<Value>, AmfError> {
        if self.rest.is_empty() { Ok(None) } else { self.nested(0).map(Some) }
    }

    /// All values to the end, or to the first that cannot be read.
    #[must_use]
    pub fn readable_values(mut self) -> Vec<Value> {
        let mut values = Vec::new();
        while let Ok(Some(value)) = self.value() {
            values.push(value);
        }
        values
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn nested(&mut self, depth: usize) -> Result<Value, AmfError> {
        if depth > DEPTH_MAX {
            return Err(AmfError::TooDeep);
        }
        self.values_left = self.values_left.checked_sub(1).ok_or(AmfError::TooMany)?;
        let [kind] = self.take()?;
        Ok(match kind {
            NUMBER => Value::Number(f64::from_be_bytes(self.take()?)),
            BOOLEAN => Value::Boolean(self.take::<1>()? != [0]),
            STRING => Value::String(self.short_string()?),
            LONG_STRING => Value::String(self.long_string()?),
            OBJECT => Value::Object(self.fields(depth)?),
            ECMA_ARRAY => {
                // The count is a hint that many encoders get wrong; the end marker counts.
                self.take::<4>()?;
                Value::Object(self.fields(depth)?)
            }
            TYPED_OBJECT => {
                self.short_string()?;
                Value::Object(self.fields(depth)?)
            }
            STRICT_ARRAY => self.strict_array(depth)?,
            NULL => Value::Null,
            UNDEFINED | UNSUPPORTED => Value::Undefined,
            REFERENCE => self.take::<2>().map(|_| Value::Undefined)?,
            DATE => self.take::<10>().map(|_| Value::Undefined)?,
            XML_DOCUMENT => self.long_string().map(|_| Value::Undefined)?,
            other => return Err(AmfError::UnknownType(other)),
        })
    }

    fn strict_array(&mut self, depth: usize) -> Result<Value, AmfError> {
        let count = u32::from_be_bytes(self.take()?) as usize;
        if count > self.rest.len() {
            return Err(AmfError::Truncated);
        }
        if count > self.values_left {
            return Err(AmfError::TooMany);
        }
        (0..count).map(|_| self.nested(depth + 1)).collect::<Result<_, _>>().map(Value::Array)
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<(String, Value)>, AmfError> {
        let mut fields = Vec::new();
        loop {
            // Some encoders leave out the end marker of the last array.
            if self.rest.is_empty() {
                return Ok(fields);
            }
            let name = self.short_string()?;
            if name.is_empty() && self.rest.first() == Some(&OBJECT_END) {
                self.take::<1>()?;
                return Ok(fields);
            }
            fields.push((name, self.nested(depth + 1)?));
        }
    }

    fn short_string(&mut self) -> Result<String, AmfError> {
        let len = u16::from_be_bytes(self.take()?);
        self.text(usize::from(len))
    }

    fn long_string(&mut self) -> Result<String, AmfError> {
        let len = u32::from_be_bytes(self.take()?);
        self.text(len as usize)
    }

    fn text(&mut self, len: usize) -> Result<String, AmfError> {
        let (text, rest) = self.rest.split_at_checked(len).ok_or(AmfError::Truncated)?;
        self.rest = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(AmfError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Appends a value. Names and texts are cut to 65,535 bytes.
pub fn write(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Number(number) => {
            out.put_u8(NUMBER);
            out.put_f64(*number);
        }
        Value::Boolean(truth) => out.put_slice(&[BOOLEAN, u8::from(*truth)]),
        Value::String(text) => {
            out.put_u8(STRING);
            put_text(out, text);
        }
        Value::Object(fields) => {
            out.put_u8(OBJECT);
            for (name, value) in fields {
                put_text(out, name);
                write(out, value);
            }
            out.put_slice(&[0, 0, OBJECT_END]);
        }
        Value::Array(values) => {
            out.put_u8(STRICT_ARRAY);
            out.put_u32(values.len() as u32);
            values.iter().for_each(|value| write(out, value));
        }
        Value::Null => out.put_u8(NULL),
        Value::Undefined => out.put_u8(UNDEFINED),
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Value>, AmfError> {
        Reader::new(bytes).value()
    }

    #[test]
    fn metadata_of_an_encoder_is_read() {
        let bytes =
            b"\x08\xff\xff\xff\xff\0\x05width\0\x40\x74\0\0\0\0\0\0\0\x06stereo\x01\x01\0\0\t";
        let value = read(bytes).expect("readable").expect("one");
        assert_eq!(value.get("width").and_then(Value::as_number), Some(320.0));
        assert_eq!(value.get("stereo"), Some(&Value::Boolean(true)));
        assert_eq!(value.get("height"), None);
    }

    #[test]
    fn nesting_is_capped() {
        let nested = |depth: usize| [b"\x0a\0\0\0\x01".repeat(depth), vec![NULL]].concat();
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(read(&nested(DEPTH_MAX + 1)), Err(AmfError::TooDeep));
        assert_eq!(read(&nested(70_000)), Err(AmfError::TooDeep));
        assert_eq!(read(&b"\x03\0\x01a".repeat(70_000)), Err(AmfError::TooDeep));
    }

    #[test]
    fn counts_are_checked_before_anything_is_made() {
        assert_eq!(read(b"\x0a\xff\xff\xff\xff\x05"), Err(AmfError::Truncated));
        let many = [&b"\x0a\0\0\x10\0"[..], &[NULL; 4096]].concat();
        assert_eq!(read(&many), Err(AmfError::TooMany));
        let fields = [&b"\x03"[..], &b"\0\0\x05".repeat(VALUES_MAX + 1)].concat();
        assert_eq!(read(&fields), Err(AmfError::TooMany));
        assert_eq!(read(b"\x0c\xff\xff\xff\xffabc"), Err(AmfError::Truncated));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (-1e9..1e9f64).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            "[a-zA-Z0-9 ]{0,12}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(("[a-z]{1,6}", inner.clone()), 0..4)
                    .prop_map(Value::Object),
                proptest::collection::vec(inner, 0..4).prop_map(Value::Array),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any_value()) {
            let mut bytes = BytesMut::new();
            write(&mut bytes, &value);
            prop_assert_eq!(read(&bytes), Ok(Some(value)));
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let values = Reader::new(&bytes).readable_values();
            prop_assert!(values.len() <= VALUES_MAX);
        }
    }
}
