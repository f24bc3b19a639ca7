//! A client of the box's HTTP interface on the same machine: no secret, nothing signed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use super::edge_box::EdgeBox;

/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The status of an answer, and its body as far as it came: an HTTP/1.0 client has it without
/// chunks.
pub fn ask(edge: &EdgeBox, method: &str, target: &str, body: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(edge.api()).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let request = format!(
        "{method} {target} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        edge.api(),
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the box answers and closes");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), bytes.split_off(end + 4))
}

/// What is at an address.
pub fn get(edge: &EdgeBox, target: &str) -> (u16, Vec<u8>) {
    ask(edge, "GET", target, "")
}

/// An action of the API, and the `Response` of its answer, which may be an error.
pub fn try_act(edge: &EdgeBox, action: &str, mut parameters: Value) -> Value {
    parameters["Action"] = json!(action);
    let (status, body) = ask(edge, "POST", "/", &parameters.to_string());
    let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(status, 200, "{action}: {answer}");
    answer["Response"].take()
}

/// An action of the API that is done.
#[track_caller]
pub fn act(edge: &EdgeBox, action: &str, parameters: Value) -> Value {
    let response = try_act(edge, action, parameters);
    assert!(response["Error"].is_null(), "{action}: {response}");
    response
}

/// A number on the page of metrics; `None` if it is not on it.
pub fn metric<T: FromStr>(edge: &EdgeBox, name: &str) -> Option<T> {
    let (_, page) = get(edge, "/metrics");
    let page = String::from_utf8(page).expect("text");
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
