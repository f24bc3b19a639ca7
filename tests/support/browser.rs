//! A real browser without a screen, and the small site that it plays from: a page of our own, the
//! player's code, and the place where the page says how it went.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::Value;

use super::process::{Process, Stdout};
use super::tool;

/// Longest report, in bytes.
const REPORT_BYTES_MAX: usize = 64 << 10;
/// A request must come within this time.
const REQUEST_WITHIN: Duration = Duration::from_secs(20);

/// The site. Its thread lives as long as the test's process.
pub struct PlayerSite {
    addr: SocketAddr,
    reports: Receiver<Value>,
}

impl PlayerSite {
    /// Serves the page on a free port of this machine.
    pub fn start() -> PlayerSite {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (tell, reports) = sync_channel(8);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let tell = tell.clone();
                // A browser opens connections that it never uses.
                std::thread::spawn(move || serve(stream, &tell));
            }
        });
        PlayerSite { addr, reports }
    }

    /// The page that plays `source`.
    pub fn page(&self, source: &str) -> String {
        let source = edgerec::domain::stream_key::percent_encode(source);
        format!("http://{}/?src={source}", self.addr)
    }

    /// What the page says; fails the test if it says nothing within `within`.
    #[track_caller]
    pub fn report_within(&self, within: Duration) -> Value {
        self.reports.recv_timeout(within).expect("the page tells how it went")
    }
}

fn serve(mut stream: TcpStream, tell: &SyncSender<Value>) {
    stream.set_read_timeout(Some(REQUEST_WITHIN)).expect("set");
    let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
    let mut first = String::new();
    if reader.read_line(&mut first).is_err() || first.is_empty() {
        return;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0).min(REPORT_BYTES_MAX);
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (kind, body) = match path.split('?').next().unwrap_or_default() {
        "/" => ("text/html", fs::read(players().join("page.html")).expect("the page")),
        "/hls.js" => ("text/javascript", fs::read(hls_js()).expect("hls.js")),
        "/report" => {
            let mut body = vec![0; length];
            let read = reader.read_exact(&mut body).ok();
            let report = read.and_then(|()| serde_json::from_slice(&body).ok());
            // Who waits for it may have gone.
            let _ = report.map(|report| tell.send(report));
            ("text/plain", Vec::new())
        }
        _ => ("text/plain", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn players() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/players")
}

/// The player's code, as `tests/run` installed it.
fn hls_js() -> PathBuf {
    let installed = "target/tools/players/node_modules/hls.js/dist/hls.min.js";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(installed);
    assert!(path.is_file(), "{installed} is not there; tests/run installs what tests need");
    path
}

/// Opens a page in Chromium, with a profile of its own in `dir`. It talks to nobody but the page's
/// own hosts, and plays without a click.
pub fn browse(page: &str, dir: &Path) -> Process {
    hls_js();
    let profile = dir.join("profile");
    let mut command = Command::new(tool("chromium"));
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
    ]);
    command.args(["--disable-background-networking", "--disable-component-update"]);
    command.args(["--disable-sync", "--disable-dev-shm-usage", "--mute-audio"]);
    command.arg("--autoplay-policy=no-user-gesture-required");
    command.arg(format!("--user-data-dir={}", profile.display()));
    // Its caches and settings lie below the scratch directory too.
    command.env("HOME", dir).arg(page);
    Process::start(&command, "chromium", &dir.join("chromium.log"), Stdout::Log)
}
