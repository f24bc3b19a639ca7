//! An S3 server (moto behind a gate, see `s3_server.py`) as a child process, with its request log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use edgerec::delivery::settings::S3Settings;
use edgerec::domain::secret::Secret;
use serde::Deserialize;

use super::python;

pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub const SECRET_KEY: &str = "a-secret/with+signs";
pub const BUCKET: &str = "box-files";

/// One request as the server saw it.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    pub method: String,
    pub key: String,
    /// `object`, `create`, `part` or `complete`.
    pub on: String,
    pub part: Option<String>,
    /// 0 if the answer was dropped.
    pub status: u16,
    /// Length as the client declared it.
    #[serde(default)]
    pub declared: Option<String>,
}

pub struct S3Server {
    child: Child,
    pub port: u16,
}

impl S3Server {
    /// Starts a server on a free port.
    pub async fn start() -> Self {
        Self::start_on(0).await
    }

    /// Starts a server on a port, 0 for any.
    pub async fn start_on(port: u16) -> Self {
        tokio::task::spawn_blocking(move || Self::launch(port, &[])).await.expect("launched")
    }

    /// Starts a server that speaks TLS with this certificate and key (PEM files).
    pub async fn start_tls(certificate: PathBuf, key: PathBuf) -> Self {
        let launch = move || Self::launch(0, &[certificate, key]);
        tokio::task::spawn_blocking(launch).await.expect("launched")
    }

    fn launch(port: u16, tls: &[PathBuf]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/s3_server.py");
        let mut child = Command::new(python())
            .arg(script)
            .args([&port.to_string(), ACCESS_KEY, SECRET_KEY, BUCKET])
            .args(tls)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = lines.next().expect("server came up").expect("a line");
        let ready: serde_json::Value = serde_json::from_str(&first).expect("JSON");
        let port = u16::try_from(ready["ready"].as_u64().expect("a port")).expect("a port");
        S3Server { child, port }
    }

    /// Settings of a box that delivers to this server.
    pub fn settings(&self) -> S3Settings {
        settings(self.port)
    }

    /// All requests so far.
    pub async fn log(&self) -> Vec<Seen> {
        let log = self.control(&serde_json::json!({"op": "log"})).await;
        serde_json::from_slice(&log).expect("a log")
    }

    /// How often a request of this kind came.
    pub async fn count(&self, method: &str, on: &str) -> usize {
        let log = self.log().await;
        log.iter().filter(|seen| seen.method == method && seen.on == on).count()
    }

    /// The next `times` requests of this kind meet a fault.
    pub async fn fault(&self, kind: &str, method: &str, on: &str, times: u32) {
        let order = serde_json::json!({
            "op": "fault", "kind": kind, "method": method, "on": on, "times": times });
        self.control(&order).await;
    }

    /// As [`fault`](Self::fault), for one part.
    pub async fn fault_on_part(&self, kind: &str, part: &str, times: u32) {
        let order = serde_json::json!({
            "op": "fault", "kind": kind, "method": "PUT", "part": part, "times": times });
        self.control(&order).await;
    }

    /// No more faults.
    pub async fn clear_faults(&self) {
        self.control(&serde_json::json!({"op": "clear"})).await;
    }

    /// The store forgets all uploads that are open.
    pub async fn abort_uploads(&self) {
        self.control(&serde_json::json!({"op": "abort"})).await;
    }

    /// How many uploads are open.
    pub async fn open_uploads(&self) -> usize {
        let answer = self.control(&serde_json::json!({"op": "uploads"})).await;
        serde_json::from_slice::<Vec<serde_json::Value>>(&answer).expect("a list").len()
    }

    /// The stored bytes of an object, asked for without edgerec's own code.
    pub async fn object(&self, key: &str) -> Option<Vec<u8>> {
        let path = format!("/__object/{}", key.replace('%', "%25"));
        let (status, body) = self.http("GET", path, Vec::new()).await;
        (status == 200).then_some(body)
    }

    async fn control(&self, order: &serde_json::Value) -> Vec<u8> {
        let order = serde_json::to_vec(order).expect("JSON");
        let (status, body) = self.http("POST", "/__control".into(), order).await;
        assert_eq!(status, 200);
        body
    }

    async fn http(&self, method: &'static str, path: String, body: Vec<u8>) -> (u16, Vec<u8>) {
        let port = self.port;
        let work = move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
            let len = body.len();
            let head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {len}\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("sent");
            stream.write_all(&body).expect("sent");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("answered");
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
            let head = String::from_utf8_lossy(&answer[..end]).into_owned();
            let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
            (status, answer.split_off(end + 4))
        };
        tokio::task::spawn_blocking(work).await.expect("asked")
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Settings for a server on a port of this machine.
pub fn settings(port: u16) -> S3Settings {
    S3Settings {
        endpoint: format!("http://127.0.0.1:{port}"),
        bucket: BUCKET.into(),
        region: "us-east-1".into(),
        access_key_id: ACCESS_KEY.into(),
        secret_access_key: Secret::new(SECRET_KEY),
        prefix: "boxes/one".into(),
    }
}
