//! Callers of the cloud API: requests byte by byte as they are written here, answers as they came.
//! Signatures are Python's (`cloud_sign.py`), not the box's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::process::run_ok;
use super::tool;

/// How long the box may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The version of the live API.
pub const VERSION: &str = "2018-08-01";

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// Without `Host`, the box is called by its address.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    /// An action with its parameters in a JSON body, not signed.
    pub fn json(action: &str, parameters: &Value) -> Request {
        let headers = [
            ("Content-Type", "application/json"),
            ("X-TC-Action", action),
            ("X-TC-Version", VERSION),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let body = parameters.to_string();
        Request { method: "POST", target: "/".to_owned(), headers, body }
    }

    /// A GET.
    pub fn get(target: &str) -> Request {
        let (target, headers, body) = (target.to_owned(), Vec::new(), String::new());
        Request { method: "GET", target, headers, body }
    }

    /// A form.
    pub fn form(target: &str, form: &str) -> Request {
        let content_type = "application/x-www-form-urlencoded".to_owned();
        let headers = vec![("Content-Type".to_owned(), content_type)];
        Request { method: "POST", target: target.to_owned(), headers, body: form.to_owned() }
    }

    /// With this header, in the place of any other of the name.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another body; what was signed stays.
    pub fn body(mut self, body: impl Into<String>) -> Request {
        self.body = body.into();
        self
    }

    fn given(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The values of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let given = self.headers.iter().filter(|(given, _)| given == name);
        given.map(|(_, value)| value.as_str()).collect()
    }

    /// The body.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    /// The members of the envelope.
    #[track_caller]
    pub fn response(&self) -> Value {
        self.json()["Response"].take()
    }

    /// The code of an error, or `ok`.
    #[track_caller]
    pub fn code(&self) -> String {
        code(&self.response()).to_owned()
    }
}

/// The code of the error among the members of an envelope, or `ok`.
#[track_caller]
pub fn code(response: &Value) -> &str {
    assert!(response["RequestId"].is_string(), "no RequestId: {response}");
    response["Error"]["Code"].as_str().unwrap_or("ok")
}

/// Sends a request and reads the answer.
#[track_caller]
pub fn send(to: SocketAddr, request: &Request) -> Answer {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    if request.given("Host").is_none() {
        head.push_str(&format!("Host: {to}\r\n"));
    }
    if request.method == "POST" && request.given("Transfer-Encoding").is_none() {
        head.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
    }
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    send_raw(to, format!("{head}Connection: close\r\n\r\n{}", request.body).as_bytes())
}

/// Sends bytes and reads the answer.
#[track_caller]
pub fn send_raw(to: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).expect("the API listens");
    stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a socket option");
    // A box that has heard enough may close; its answer is read all the same.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        panic!("no answer: {ended:?} {}", String::from_utf8_lossy(&bytes));
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers = lines.map(|line| line.split_once(": ").expect("a header"));
    Answer {
        status: status.parse().expect("a number"),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: bytes[end + 4..].to_vec(),
    }
}

/// Asks a box that wants no signature; the members of the envelope.
#[track_caller]
pub fn ask(to: SocketAddr, action: &str, parameters: &Value) -> Value {
    send(to, &Request::json(action, parameters)).response()
}

/// Asks such a box for what it must not refuse.
#[track_caller]
pub fn ask_ok(to: SocketAddr, action: &str, parameters: &Value) -> Value {
    let response = ask(to, action, parameters);
    assert_eq!(code(&response), "ok", "{action} {parameters}: {response}");
    response
}

/// Who signs.
#[derive(Debug, Clone)]
pub struct Signer {
    pub id: String,
    pub key: String,
    /// Of the TC3 scope.
    pub service: String,
    /// Unix seconds.
    pub time: i64,
}

impl Signer {
    /// Of the live API, now.
    pub fn new(id: &str, key: &str) -> Signer {
        let (id, key, service) = (id.to_owned(), key.to_owned(), "live".to_owned());
        Signer { id, key, service, time: unix_now() }
    }

    /// With its clock so far off, in seconds.
    pub fn off_by(mut self, seconds: i64) -> Signer {
        self.time = unix_now() + seconds;
        self
    }

    /// A request with a TC3 signature, as the official SDK makes it.
    pub fn tc3(&self, to: SocketAddr, request: Request) -> Request {
        let host = request.given("Host").map_or_else(|| to.to_string(), ToOwned::to_owned);
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let content_type = request.given("Content-Type").expect("it is signed").to_owned();
        let asked = json!({"id": self.id, "key": self.key, "service": self.service,
            "time": self.time, "method": request.method, "query": query, "host": host,
            "content_type": content_type, "body": request.body});
        let authorization = sign("tc3", &asked);
        let time = self.time.to_string();
        request.header("Authorization", &authorization).header("X-TC-Timestamp", &time)
    }

    /// The query or form of an action with the older signature.
    pub fn v1(&self, to: SocketAddr, method: &str, params: &Value) -> String {
        let mut params = params.clone();
        params["SecretId"] = json!(self.id);
        params["Timestamp"] = json!(self.time.to_string());
        let asked = json!({"key": self.key, "method": method, "host": to.to_string(), "path": "/",
            "params": params});
        sign("v1", &asked)
    }
}

fn sign(how: &str, asked: &Value) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/cloud_sign.py");
    let output = run_ok(Command::new(tool("python3")).arg(script).args([how, &asked.to_string()]));
    String::from_utf8(output).expect("text").trim().to_owned()
}

/// Unix seconds.
pub fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("small")
}
