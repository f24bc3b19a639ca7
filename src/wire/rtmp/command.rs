//! Commands: a name, a transaction number and AMF0 values (RTMP 1.0, section 7.2).

use bytes::BytesMut;

use crate::wire::rtmp::amf0::{self, AmfError, Value};

/// A command as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What is called.
    pub name: String,
    /// Number of the call; the answer carries it too.
    pub transaction: f64,
    /// Arguments from the command object on.
    pub arguments: Vec<Value>,
}

impl Command {
    /// Reads a command. Arguments end at the first that cannot be read.
    ///
    /// # Errors
    /// The name cannot be read, or a limit is broken.
    pub fn parse(body: &[u8]) -> Result<Self, AmfError> {
        let mut reader = amf0::Reader::new(body);
        let Some(Value::String(name)) = reader.value()? else { return Err(AmfError::Truncated) };
        let transaction = reader.value()?.as_ref().and_then(Value::as_number).unwrap_or(0.0);
        let mut arguments = Vec::new();
        loop {
            match reader.value() {
                Ok(Some(value)) => arguments.push(value),
                Ok(None) | Err(AmfError::UnknownType(_) | AmfError::Truncated) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Command { name, transaction, arguments })
    }

    /// A text argument by its place.
    #[must_use]
    pub fn text(&self, index: usize) -> Option<&str> {
        self.arguments.get(index).and_then(Value::as_str)
    }
}

/// The body of a command.
#[must_use]
pub fn command_body(name: &str, transaction: f64, arguments: &[Value]) -> BytesMut {
    let mut body = BytesMut::new();
    amf0::write(&mut body, &Value::text(name));
    amf0::write(&mut body, &Value::Number(transaction));
    arguments.iter().for_each(|argument| amf0::write(&mut body, argument));
    body
}

/// The object that tells how something went.
#[must_use]
pub fn status(level: &str, code: &str, description: &str) -> Value {
    Value::object([
        ("level", Value::text(level)),
        ("code", Value::text(code)),
        ("description", Value::text(description)),
    ])
}

/// A command may stand behind one byte that says AMF3; the AMF0 begins after it.
#[must_use]
pub fn strip_amf3_prefix(body: &[u8]) -> &[u8] {
    body.strip_prefix(&[0]).unwrap_or(body)
}
