//! The parameters of an action: read member by member, with every fault turned into the code that
//! the cloud API has for it.

use serde_json::{Map, Value};

use crate::domain::document::{Fields, Json};
use crate::domain::faults::{Fault, FaultKind, Faults};
use crate::domain::service::Refusal;

/// Which codes an action's list has for wrong values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// `MissingParameter` and `InvalidParameterValue`.
    Full,
    /// `InvalidParameter` for everything, as with the RecordTask actions.
    Plain,
}

/// The parameters of one request.
#[derive(Debug)]
pub struct Params(Json);

impl Params {
    /// From the parameters as they came. Numbers and booleans may be texts, `null` is "not given".
    #[must_use]
    pub fn new(parameters: Map<String, Value>) -> Self {
        Params(Json::from_value(Value::Object(parameters)))
    }

    /// Has `read` take every parameter that the action knows; one that is left is unknown.
    ///
    /// # Errors
    /// The first fault by weight, with all of them in its words.
    pub fn read<'a, T>(
        &'a self,
        codes: Codes,
        read: impl FnOnce(&mut Fields<'a>, &mut Faults) -> T,
    ) -> Result<T, Refusal> {
        let mut faults = Faults::new();
        let mut value = None;
        if let Some(fields) = Fields::open(&self.0, "", &mut faults) {
            let mut fields = fields.null_is_absent();
            value = Some(read(&mut fields, &mut faults));
            fields.finish(&mut faults);
        }
        match value {
            Some(value) if faults.is_empty() => Ok(value),
            _ => Err(refusal(codes, &faults)),
        }
    }
}

/// What the faults of a document are in an answer.
#[must_use]
pub fn refusal(codes: Codes, faults: &Faults) -> Refusal {
    // What is missing is told before what is wrong; what the box does not do comes last, as it may
    // only follow from the rest.
    let weight = |fault: &&Fault| match fault.kind {
        FaultKind::Missing => 0,
        FaultKind::Unknown => 1,
        FaultKind::Value => 2,
        FaultKind::VodFileName => 3,
        FaultKind::Unsupported => 4,
    };
    let kind = faults.iter().min_by_key(weight).map_or(FaultKind::Value, |fault| fault.kind);
    let code = match (kind, codes) {
        (FaultKind::Missing, Codes::Full) => "MissingParameter",
        (FaultKind::Value, Codes::Full) => "InvalidParameterValue",
        (FaultKind::Missing | FaultKind::Value, Codes::Plain) => "InvalidParameter",
        (FaultKind::Unknown, _) => "UnknownParameter",
        (FaultKind::VodFileName, _) => "InvalidParameter.InvalidVodFileName",
        (FaultKind::Unsupported, _) => "UnsupportedOperation",
    };
    Refusal::new(code, faults.to_string().replace('\n', "; "))
}
