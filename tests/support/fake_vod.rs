//! A stand-in for the VOD platform and its object storage (see `fake_vod.py`) as a child process,
//! and the official upload SDK as a client of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use super::power_rig::Marks;
use super::process::run;
use super::python;

pub const SECRET_ID: &str = "AKIDEXAMPLE";
pub const SECRET_KEY: &str = "canary-secret-of-the-account";

/// One request as the stand-in saw it.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    /// Name of the action, or what is done with an object: `put`, `create`, `part`, `complete`,
    /// `abort`, `head`, `get`, `uploads`, `parts`.
    pub on: String,
    pub key: String,
    pub part: Option<String>,
    /// Bytes of the body that came.
    pub bytes: u64,
    /// 0 if there was no answer.
    pub status: u16,
    /// Code of a refusal.
    pub code: String,
    /// The fault that it met.
    pub fault: Option<String>,
    /// What the action was asked.
    #[serde(default)]
    pub asked: Value,
}

pub struct FakeVod {
    child: Child,
    pub port: u16,
}

impl FakeVod {
    /// Starts it on a free port.
    pub fn start() -> FakeVod {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake_vod.py");
        let mut child = Command::new(python())
            .arg(script)
            .args(["0", SECRET_ID, SECRET_KEY])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = lines.next().expect("it came up").expect("a line");
        let ready: Value = serde_json::from_str(&first).expect("JSON");
        let port = u16::try_from(ready["ready"].as_u64().expect("a port")).expect("a port");
        FakeVod { child, port }
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Seen> {
        serde_json::from_value(self.order(&json!({"op": "log"}))).expect("a log")
    }

    /// How many requests there were so far.
    pub fn requests(&self) -> u64 {
        self.order(&json!({"op": "requests"})).as_u64().expect("a number")
    }

    /// How often a request of this kind came.
    pub fn count(&self, on: &str) -> usize {
        self.log().iter().filter(|seen| seen.on == on).count()
    }

    /// What was committed.
    pub fn media(&self) -> Vec<Value> {
        serde_json::from_value(self.order(&json!({"op": "media"}))).expect("a list")
    }

    /// How many multipart uploads are open.
    pub fn open_uploads(&self) -> usize {
        self.order(&json!({"op": "uploads"})).as_array().expect("a list").len()
    }

    /// The next `times` requests of this kind meet a fault.
    pub fn fault(&self, kind: &str, on: &str, times: u32) {
        self.order(&json!({"op": "fault", "kind": kind, "on": on, "times": times}));
    }

    /// As [`fault`](Self::fault), for one part.
    pub fn fault_on_part(&self, kind: &str, part: &str, times: u32) {
        self.order(
            &json!({"op": "fault", "kind": kind, "on": "part", "part": part, "times": times}),
        );
    }

    /// From now on each request leaves a mark of the kind `vod` in the log of a power rig, which was
    /// started before the stand-in.
    pub fn leave_marks(&self, marks: &Marks) {
        let Marks { device, offset } = marks;
        self.order(&json!({"op": "marks", "device": device, "offset": offset}));
    }

    /// All is as it was at a mark, and no more marks are left.
    pub fn rewind(&self, mark: u64) {
        self.order(&json!({"op": "rewind", "to": mark}));
    }

    /// Changes a setting.
    pub fn set(&self, name: &str, value: impl Into<Value>) {
        self.order(&json!({"op": "set", name: value.into()}));
    }

    /// Gives an order (see the script).
    pub fn order(&self, order: &Value) -> Value {
        let (status, body) = self.http("POST", "/__control", order.to_string().as_bytes());
        assert_eq!(status, 200, "{order}");
        serde_json::from_slice(&body).expect("JSON")
    }

    /// The stored bytes of an object.
    pub fn object(&self, path: &str) -> Option<Vec<u8>> {
        let (status, body) = self.http("GET", &format!("/__object{path}"), &[]);
        (status == 200).then_some(body)
    }

    /// Uploads a file, or a playlist with its segments, with the official SDK; what it got or
    /// raised.
    pub fn upload_with_sdk(&self, path: &Path, secret_key: &str, request: &Value) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/vod_sdk.py");
        let mut command = Command::new(python());
        command.arg(script).args([&self.port.to_string(), SECRET_ID, secret_key]);
        let output = run(command.arg(path).arg(request.to_string()));
        let told = String::from_utf8_lossy(&output.stdout);
        let last = told.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|_| {
            panic!("the SDK said {told}{}", String::from_utf8_lossy(&output.stderr))
        })
    }

    fn http(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connected");
        let len = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\
             Content-Length: {len}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, answer.split_off(end + 4))
    }
}

impl Drop for FakeVod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
