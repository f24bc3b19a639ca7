//! A receiver of notices as a process (see `receiver.py`), and what it saw.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::{Process, Stdout};
use crate::support::wait::poll_for;
use crate::support::{scratch, tool};

pub const KEY: &str = "CallbackKeyExample01";
/// Everything that a test waits for happens within this time.
pub const SOON: Duration = Duration::from_secs(30);

/// The receiver; its log stays when it is stopped.
pub struct Receiver {
    dir: TempDir,
    pub port: u16,
    process: Option<Process>,
}

impl Receiver {
    /// A receiver that does not listen yet, with a port of its own.
    pub fn away() -> Receiver {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        Receiver { dir: scratch("receiver"), port, process: None }
    }

    /// A receiver that listens and has these faults.
    pub fn start(faults: &Value) -> Receiver {
        let mut receiver = Receiver::away();
        receiver.listen(faults);
        receiver
    }

    /// Begins to listen.
    pub fn listen(&mut self, faults: &Value) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/callbacks/receiver.py");
        let mut command = Command::new(tool("python3"));
        command.arg(script).args([&self.port.to_string(), KEY]).arg(self.log_path());
        command.arg(faults.to_string());
        let errors = self.dir.path().join("errors.log");
        let mut process = Process::start(&command, "receiver", &errors, Stdout::Piped);
        let stdout = process.child().stdout.take().expect("piped");
        let line = BufReader::new(stdout).lines().next().expect("it came up").expect("a line");
        assert_eq!(line, format!("ready {}", self.port));
        self.process = Some(process);
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?from=test", self.port)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits until `enough` of what was seen.
    #[track_caller]
    pub fn wait(&self, what: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        poll_for(SOON, || Some(self.seen()).filter(|seen| enough(seen)))
            .unwrap_or_else(|| panic!("not within {SOON:?}: {what}: {:#?}", self.seen()))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("requests.jsonl")
    }
}

/// The bodies that were taken.
pub fn taken(seen: &[Value]) -> Vec<&Value> {
    seen.iter().filter(|seen| seen["fault"] == "none").map(|seen| &seen["body"]).collect()
}
