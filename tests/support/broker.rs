//! A real mosquitto on a free port of the loopback, to be killed and started again.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::{Process, Stdout};
use super::wait::wait_until;
use super::{scratch, tool};

const SOON: Duration = Duration::from_secs(10);

/// A broker. Dropping it kills it.
pub struct Broker {
    addr: SocketAddr,
    // Before the folder that its log is in.
    process: Option<Process>,
    dir: TempDir,
}

impl Broker {
    /// A broker for everybody that forgets everything when it ends.
    #[track_caller]
    pub fn start() -> Broker {
        Broker::with("allow_anonymous true\n")
    }

    /// A broker that keeps sessions and retained messages over an orderly end.
    #[track_caller]
    pub fn start_persistent() -> Broker {
        Broker::with("allow_anonymous true\npersistence true\n")
    }

    /// A broker with more lines of configuration; `{dir}` is its folder.
    #[track_caller]
    pub fn with(settings: &str) -> Broker {
        Broker::in_dir(scratch("broker"), settings)
    }

    /// A broker for everybody on another address than the loopback's.
    #[track_caller]
    pub fn reached_at(host: &str) -> Broker {
        Broker::in_dir_at(scratch("broker"), host, "allow_anonymous true\n")
    }

    /// A broker in a folder that holds what its settings name.
    #[track_caller]
    pub fn in_dir(dir: TempDir, settings: &str) -> Broker {
        Broker::in_dir_at(dir, "127.0.0.1", settings)
    }

    /// The same on another address of this machine.
    #[track_caller]
    pub fn in_dir_at(dir: TempDir, host: &str, settings: &str) -> Broker {
        let host: IpAddr = host.parse().expect("an address");
        let settings = settings.replace("{dir}", &dir.path().to_string_lossy());
        let mut broker = Broker { addr: SocketAddr::new(host, 0), dir, process: None };
        // Another test may take the port that was free.
        while !broker.is_started() {
            let free = TcpListener::bind((host, 0)).expect("a free port");
            broker.addr = free.local_addr().expect("bound");
            let config = format!(
                "per_listener_settings true\nuser root\nlog_dest stderr\nlog_type all\n\
                 persistence_location {}/\nlistener {} {host}\n{settings}",
                broker.dir.path().display(),
                broker.addr.port(),
            );
            fs::write(broker.dir.path().join("mosquitto.conf"), config).expect("written");
            drop(free);
            broker.launch();
        }
        broker
    }

    /// Starts it, and waits until it listens or has ended.
    #[track_caller]
    fn launch(&mut self) {
        let mut command = Command::new(tool("mosquitto"));
        command.arg("-c").arg(self.dir.path().join("mosquitto.conf"));
        let before = self.runs();
        let process = Process::start(&command, "mosquitto", &self.log_path(), Stdout::Log);
        self.process = Some(process);
        wait_until(SOON, "the broker listens", || self.runs() > before || !self.is_started());
    }

    /// How often it has come to run. It says so once it has its port.
    fn runs(&self) -> usize {
        self.log().lines().filter(|line| line.ends_with(" running")).count()
    }

    fn is_started(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Adds a line of configuration for the next start.
    pub fn add_setting(&self, line: &str) {
        let path = self.dir.path().join("mosquitto.conf");
        let config = fs::read_to_string(&path).expect("it was written");
        fs::write(path, config + line).expect("written");
    }

    /// Starts it again on the same port.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.launch();
        assert!(self.is_started(), "{}", self.log());
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Ends it in order.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.process.take().expect("it runs").terminate(SOON);
    }

    /// Lets it read its access list again; who is connected stays so.
    #[track_caller]
    pub fn reload(&self) {
        let reloads = || self.log().matches("Reloading config").count();
        let before = reloads();
        self.process.as_ref().expect("it runs").signal(Signal::SIGHUP);
        wait_until(SOON, "the broker has read its files again", || reloads() > before);
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How often a client came, since the broker was first started: by the broker's own log.
    pub fn connections_of(&self, client: &str) -> usize {
        let words = format!(" as {client} (");
        let log = self.log();
        let came = |line: &&str| line.contains("New client connected") && line.contains(&words);
        log.lines().filter(came).count()
    }

    /// Its log; each line begins with the time.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.dir.path().join("mosquitto.log")
    }
}

/// An address of the loopback that nobody has now.
pub fn free_addr() -> SocketAddr {
    let free = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    free.local_addr().expect("bound")
}
