//! A child process with a guard: it never outlives its test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tool;
use super::wait::wait_for;

/// Shown of a log when a test fails, in bytes.
const LOG_TAIL_BYTES: usize = 8 << 10;

/// A running child. Dropping it kills it; the kernel kills it when the thread that started it is
/// gone (so start it from the test's own thread).
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program. Its stderr goes to `log`; so does its stdout unless the command pipes it
    /// with `piped`.
    pub fn start(command: &Command, name: &str, log: &Path, stdout: Stdout) -> Process {
        let file = File::options().create(true).append(true).open(log).expect("the log opens");
        let mut tied = tied(command);
        tied.stdin(Stdio::null());
        match stdout {
            Stdout::Log => tied.stdout(file.try_clone().expect("the log opens twice")),
            Stdout::Piped => tied.stdout(Stdio::piped()),
        };
        let child = tied.stderr(file).spawn().expect("the program starts");
        Process { child, name: name.to_owned(), log: log.to_owned() }
    }

    /// Starts a program to talk with: its stdin and stdout are pipes, its stderr goes to `log`.
    pub fn converse(command: &Command, name: &str, log: &Path) -> Process {
        let file = File::options().create(true).append(true).open(log).expect("the log opens");
        let mut tied = tied(command);
        tied.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let child = tied.spawn().expect("the program starts");
        Process { child, name: name.to_owned(), log: log.to_owned() }
    }

    /// The child itself, to take its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are positive");
        kill(Pid::from_raw(id), signal).expect("our own child takes signals");
    }

    /// Ends it at once (SIGKILL) and waits for its end.
    pub fn kill(&mut self) -> ExitStatus {
        if self.is_running() {
            self.child.kill().expect("our own child can be killed");
        }
        self.child.wait().expect("a killed child ends")
    }

    /// Asks it to end (SIGTERM); fails the test when it does not within `within`.
    #[track_caller]
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        if self.is_running() {
            self.signal(Signal::SIGTERM);
        }
        self.end_within(within)
    }

    /// Waits for its end; fails the test when it has not ended within `within`.
    #[track_caller]
    pub fn end_within(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}; its log:\n{}", self.name, self.log_tail());
        wait_for(within, &what, || self.child.try_wait().expect("a child can be asked"))
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do for a child that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- log of {} ---\n{}", self.name, self.log_tail());
        }
    }
}

/// Where a child's stdout goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    /// Into the log, with stderr.
    Log,
    /// Into a pipe that the test reads.
    Piped,
}

/// Runs a program to its end and gives back what it said.
pub fn run(command: &Command) -> Output {
    tied(command).stdin(Stdio::null()).output().expect("the program starts")
}

/// Runs a program to its end; fails the test unless it says 0.
#[track_caller]
pub fn run_ok(command: &Command) -> Vec<u8> {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The same command, killed by the kernel when our thread is gone.
fn tied(command: &Command) -> Command {
    let mut tied = Command::new(tool("setpriv"));
    tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        tied.current_dir(dir);
    }
    tied
}

/// The last part of a log file, as text.
pub fn log_tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}
