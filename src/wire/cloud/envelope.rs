//! The envelope of the cloud API: requests of every form to one shape, and the answers.
//!
//! A request names its action in the header `X-TC-Action` or in a parameter `Action`; parameters
//! come as a JSON object, as a form, or in the query. All of query and body is read, nothing
//! twice. With the older signature headers do not count, because it does not cover them.
//!
//! Answers always have the status [`ANSWER_STATUS`] and exactly the content type
//! [`ANSWER_CONTENT_TYPE`]: with any other the official SDK loses errors.

use serde_json::{Map, Value, json};

use crate::wire::cloud::flat::FlatParameters;
use crate::wire::cloud::json_body;
use crate::wire::cloud::received::{Received, SigningStyle};

/// Status of every answer, failures included.
pub const ANSWER_STATUS: u16 = 200;
/// Content type of every answer, to the byte.
pub const ANSWER_CONTENT_TYPE: &str = "application/json";

/// Longest name of an action, version or region, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// What says how to read a request wherever there is no header for it.
const ADDRESSING: [&str; 3] = ["Action", "Version", "Region"];
/// Parameters of the older signature that are none of the action's.
const OF_THE_SIGNATURE: [&str; 8] = [
    "Nonce",
    "Timestamp",
    "SecretId",
    "SignatureMethod",
    "Signature",
    "Token",
    "Language",
    "RequestClient",
];

/// A request cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Neither GET nor POST, or a content type of no known form.
    #[error("only GET, and POST with JSON or a form, are understood")]
    UnsupportedForm,
    /// A GET with a body.
    #[error("a GET has no body")]
    BodyInGet,
    /// More than the limit of the query or the body.
    #[error("the query or the body is too long")]
    TooLong,
    /// More values than allowed.
    #[error("there are too many parameters")]
    TooMany,
    /// Too many levels.
    #[error("the parameters are nested too deep")]
    TooDeep,
    /// The same name twice.
    #[error("a parameter is given twice")]
    Duplicate,
    /// A header that counts stands there twice.
    #[error("a header is given twice")]
    RepeatedHeader,
    /// A dotted name with an empty part.
    #[error("the name of a parameter has an empty part")]
    BadName,
    /// A list with gaps or with names between its numbers.
    #[error("the numbers of a list are not 0, 1, 2 and so on")]
    BadList,
    /// A broken percent escape or no UTF-8.
    #[error("a percent escape is broken or the text is not UTF-8")]
    BadEscape,
    /// The body is no JSON object.
    #[error("the body is not a JSON object")]
    NotJson,
    /// No action.
    #[error("the request names no action")]
    NoAction,
    /// No name at all, or two different ones.
    #[error("the action, version or region is not a name, or given as two")]
    BadAddressing,
}

impl EnvelopeError {
    /// The code for the answer.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            EnvelopeError::UnsupportedForm => "UnsupportedProtocol",
            EnvelopeError::NoAction => "MissingParameter",
            EnvelopeError::BadAddressing => "InvalidAction",
            _ => "InvalidParameter",
        }
    }
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionRequest {
    /// The action's name: ASCII letters and digits, not empty; whether there is such an action is
    /// for others to say.
    pub action: String,
    /// The version of the API, if given.
    pub version: Option<String>,
    /// The region, if given.
    pub region: Option<String>,
    /// What the caller calls this machine (the `Host` header), if it came over HTTP.
    pub host: Option<String>,
    /// The action's own parameters. From a query or form every value is a text.
    pub parameters: Map<String, Value>,
}

impl ActionRequest {
    /// Reads a request that came over HTTP. Its signature is not looked at.
    ///
    /// # Errors
    /// It cannot be read, breaks a limit, or names no action.
    pub fn read(request: &Received<'_>) -> Result<Self, EnvelopeError> {
        let flat = FlatParameters::read(request)?;
        let json = json_members(request)?;
        let style = request.style()?;
        let header = |name| match style {
            SigningStyle::V1 => Ok(None),
            SigningStyle::Tc3 | SigningStyle::Unsigned => request.header(name),
        };
        let (action, version, region) =
            (header("x-tc-action")?, header("x-tc-version")?, header("x-tc-region")?);
        // With the header the parameters are the action's alone.
        let with_header = action.is_some();
        let mut parameters = flat.tree(|name| !with_header && OF_THE_SIGNATURE.contains(&name))?;
        for (name, value) in json {
            if parameters.insert(name, value).is_some() {
                return Err(EnvelopeError::Duplicate);
            }
        }
        let host = request.header("host")?.map(ToOwned::to_owned);
        Ok(ActionRequest { host, ..Self::address(parameters, [action, version, region])? })
    }

    /// Reads a JSON object that names its action itself, such as a command over MQTT.
    ///
    /// # Errors
    /// It cannot be read, breaks a limit, or names no action.
    pub fn from_json(body: &[u8]) -> Result<Self, EnvelopeError> {
        Self::address(json_body::parse(body)?, [None; 3])
    }

    /// Takes action, version and region out of the parameters where no header gives them.
    fn address(
        mut parameters: Map<String, Value>,
        headers: [Option<&str>; 3],
    ) -> Result<Self, EnvelopeError> {
        let mut found = [None, None, None];
        for ((name, header), found) in ADDRESSING.iter().zip(headers).zip(&mut found) {
            // A header for the action leaves the parameters alone, but for one that contradicts.
            let given = match (headers[0], *name) {
                (Some(_), "Version" | "Region") => None,
                _ => parameters.shift_remove(*name),
            };
            let given = match given {
                None => None,
                Some(Value::String(text)) => Some(text),
                Some(_) => return Err(EnvelopeError::BadAddressing),
            };
            *found = match (header, given) {
                (Some(header), Some(given)) if header != given => {
                    return Err(EnvelopeError::BadAddressing);
                }
                (Some(header), _) => Some(header.to_owned()),
                (None, given) => given,
            };
            // Empty is as good as absent.
            *found = found.take().filter(|text| !text.is_empty());
            if !found.as_deref().is_none_or(is_name) {
                return Err(EnvelopeError::BadAddressing);
            }
        }
        let [action, version, region] = found;
        let action = action.ok_or(EnvelopeError::NoAction)?;
        if !action.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(EnvelopeError::BadAddressing);
        }
        Ok(ActionRequest { action, version, region, host: None, parameters })
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The members of a JSON body; none for a form or a GET.
fn json_members(request: &Received<'_>) -> Result<Map<String, Value>, EnvelopeError> {
    match request.method {
        "GET" if request.body.is_empty() => return Ok(Map::new()),
        "GET" => return Err(EnvelopeError::BodyInGet),
        "POST" => {}
        _ => return Err(EnvelopeError::UnsupportedForm),
    }
    if request.has_form()? {
        return Ok(Map::new());
    }
    let content_type = request.header("content-type")?.unwrap_or(ANSWER_CONTENT_TYPE);
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(EnvelopeError::UnsupportedForm);
    }
    json_body::parse(request.body)
}

/// The body of an answer: `{"Response": {..., "RequestId": "..."}}`.
#[must_use]
pub fn answer(mut fields: Map<String, Value>, request_id: &str) -> Vec<u8> {
    fields.insert("RequestId".to_owned(), Value::String(request_id.to_owned()));
    json!({ "Response": fields }).to_string().into_bytes()
}

/// The body of an answer that says no.
#[must_use]
pub fn error_answer(code: &str, message: &str, request_id: &str) -> Vec<u8> {
    let error = json!({"Code": code, "Message": message});
    answer(Map::from_iter([("Error".to_owned(), error)]), request_id)
}

/// A RequestId (a random UUID) from random bytes.
#[must_use]
pub fn request_id(mut random: [u8; 16]) -> String {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let hex = crate::wire::cloud::mac::hex(&random);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: (&str, &str) = ("Content-Type", "application/json");
    const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
    const ACTION: (&str, &str) = ("X-TC-Action", "CreateLiveRecordTemplate");

    fn read(
        method: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<ActionRequest, EnvelopeError> {
        let body = body.as_bytes();
        ActionRequest::read(&Received { method, path: "/", query, headers, body })
    }

    fn parameters(request: Result<ActionRequest, EnvelopeError>) -> Value {
        Value::Object(request.expect("a request").parameters)
    }

    #[test]
    fn every_form_gives_the_same_request() {
        let dotted = "FlvParam.Enable=1&TemplateName=box-a";
        let named = format!("Action=CreateLiveRecordTemplate&Version=2018-08-01&{dotted}");
        let signed = format!(
            "{named}&Nonce=1&Timestamp=2&SecretId=i&SignatureMethod=HmacSHA1&Language=zh-CN&\
             RequestClient=c&Token=t&Signature=s"
        );
        let json = r#"{"TemplateName":"box-a","FlvParam":{"Enable":"1"}}"#;
        let json_named = r#"{"Action":"CreateLiveRecordTemplate","Version":"2018-08-01",
                             "TemplateName":"box-a","FlvParam":{"Enable":"1"}}"#;
        let version = ("x-tc-version", "2018-08-01");
        let requests = [
            read("GET", dotted, &[ACTION, version, FORM], ""),
            read("GET", &named, &[], ""),
            read("GET", &signed, &[], ""),
            read("POST", "", &[FORM], &signed),
            read("POST", "", &[ACTION, version, FORM], dotted),
            read("POST", "", &[ACTION, version, JSON], json),
            read("POST", "", &[("content-type", "application/json; charset=utf-8")], json_named),
            ActionRequest::from_json(json_named.as_bytes()),
        ];
        let expected = json!({"FlvParam": {"Enable": "1"}, "TemplateName": "box-a"});
        for (index, request) in requests.into_iter().enumerate() {
            let request = request.expect("a request");
            assert_eq!(request.action, "CreateLiveRecordTemplate", "{index}");
            assert_eq!(request.version.as_deref(), Some("2018-08-01"), "{index}");
            assert_eq!(request.region, None, "{index}");
            assert_eq!(Value::Object(request.parameters), expected, "{index}");
        }
    }

    #[test]
    fn with_the_header_all_parameters_are_the_actions_own() {
        let headers = [ACTION, JSON, ("X-TC-Region", "ap-guangzhou")];
        let request = read("POST", "", &headers, r#"{"Region":"r","Token":"t"}"#);
        assert_eq!(request.as_ref().expect("a request").region.as_deref(), Some("ap-guangzhou"));
        assert_eq!(parameters(request), json!({"Region": "r", "Token": "t"}));
        let request = read("POST", "Extra=1", &headers, r#"{"Limit":2}"#);
        assert_eq!(parameters(request), json!({"Extra": "1", "Limit": 2}));
    }

    #[test]
    fn a_header_that_the_older_signature_does_not_cover_does_not_count() {
        let query = "Action=DescribeLiveRecordRules&SecretId=i&Signature=s";
        let request = read("GET", query, &[("X-TC-Action", "DeleteLiveRecordTemplate")], "");
        assert_eq!(request.expect("a request").action, "DescribeLiveRecordRules");
        let request = read("GET", "SecretId=i&Signature=s", &[ACTION], "");
        assert_eq!(request, Err(EnvelopeError::NoAction));
    }

    #[test]
    fn what_is_unclear_is_refused() {
        let cases = [
            (read("GET", "", &[], ""), EnvelopeError::NoAction),
            (read("GET", "Action=", &[], ""), EnvelopeError::NoAction),
            (read("GET", "Action=a%20b", &[], ""), EnvelopeError::BadAddressing),
            (read("GET", "Action.x=1", &[], ""), EnvelopeError::BadAddressing),
            (read("GET", "Action=Other", &[ACTION], ""), EnvelopeError::BadAddressing),
            (read("GET", "", &[ACTION, ACTION], ""), EnvelopeError::RepeatedHeader),
            (read("GET", "", &[ACTION], "{}"), EnvelopeError::BodyInGet),
            (read("PUT", "", &[ACTION, JSON], "{}"), EnvelopeError::UnsupportedForm),
            (
                read("POST", "", &[ACTION, ("content-type", "a/b")], ""),
                EnvelopeError::UnsupportedForm,
            ),
            (read("POST", "a=1", &[ACTION, JSON], r#"{"a":1}"#), EnvelopeError::Duplicate),
            (read("POST", "a=1", &[ACTION, FORM], "a=1"), EnvelopeError::Duplicate),
            (read("POST", "", &[ACTION, JSON], "[]"), EnvelopeError::NotJson),
        ];
        for (index, (request, expected)) in cases.into_iter().enumerate() {
            assert_eq!(request, Err(expected), "{index}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        assert_eq!(
            read("GET", &format!("Action={long}"), &[], ""),
            Err(EnvelopeError::BadAddressing)
        );
    }

    /// Every vector says what the official SDK makes of an answer.
    #[test]
    fn the_official_sdk_understands_our_answers() {
        let vectors = include_str!("../../../tests/data/contracts/sdk_client_behaviour.json");
        let vectors: Value = serde_json::from_str(vectors).expect("JSON");
        let told = |body: &[u8]| {
            let body = std::str::from_utf8(body).expect("text");
            let mut cases = vectors["cases"].as_array().expect("cases").iter();
            cases
                .find(|case| {
                    case["body"] == body
                        && case["content_type"] == ANSWER_CONTENT_TYPE
                        && case["status"] == ANSWER_STATUS
                })
                .unwrap_or_else(|| panic!("the SDK was never given {body}"))
        };
        let fields = Map::from_iter([("TemplateId".to_owned(), json!(5))]);
        let good = told(&answer(fields, "x"));
        assert_eq!(good["value"], json!({"TemplateId": 5, "RequestId": "x"}));
        let bad = told(&error_answer("InvalidParameterValue", "bad", "r-1"));
        assert_eq!(bad["outcome"], "exception");
        assert_eq!(
            (&bad["code"], &bad["message"], &bad["request_id"]),
            (&json!("InvalidParameterValue"), &json!("bad"), &json!("r-1"))
        );
    }

    #[test]
    fn a_request_id_is_a_uuid() {
        assert_eq!(request_id([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(
            post: bool, form: bool, query in "[aA.01&=%]{0,40}", body: Vec<u8>,
        ) {
            let method = if post { "POST" } else { "GET" };
            let headers = [if form { FORM } else { JSON }];
            let request =
                Received { method, path: "/", query: &query, headers: &headers, body: &body };
            if let Ok(request) = ActionRequest::read(&request) {
                prop_assert!(!request.action.is_empty());
            }
        }
    }
}
