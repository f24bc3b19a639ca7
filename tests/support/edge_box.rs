//! The box as its users meet it: the built binary, a configuration, a ring, addresses.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Process, Stdout, log_tail, run};
use super::scratch;
use super::wait::poll_for;

/// How long the box may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// Has the box killed at a system call that its sandbox does not list.
const KILL_AT_CALL: &str = "EDGEREC_PLANT_KILL_AT_CALL";

/// How a box is set up, before it is started.
pub struct BoxPlan {
    binary: PathBuf,
    ring: Option<PathBuf>,
    ring_settings: Vec<(String, String)>,
    board: Option<PathBuf>,
    box_settings: String,
    api_settings: String,
    push_key: String,
    id: String,
    timezone: String,
    sections: String,
    of_a_fleet: bool,
    rules: Value,
    environment: Vec<(String, String)>,
    listen: SocketAddr,
}

impl Default for BoxPlan {
    /// The binary of this build (or the one in `EDGEREC_BINARY`, such as a static build), a ring of
    /// 256 MiB in a scratch directory, every stream of the app `live` recorded as FLV.
    fn default() -> BoxPlan {
        let settings = [("capacity", "\"256MiB\""), ("slot", "\"4MiB\"")];
        BoxPlan {
            binary: binary(),
            ring: None,
            ring_settings: settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
            board: None,
            box_settings: String::new(),
            api_settings: String::new(),
            push_key: String::new(),
            id: "box-01".to_owned(),
            timezone: "Asia/Shanghai".to_owned(),
            sections: String::new(),
            of_a_fleet: false,
            rules: record_all(&["Flv"]),
            // A system call outside of the sandbox's list ends the box, and the test with it.
            environment: vec![(KILL_AT_CALL.to_owned(), "1".to_owned())],
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }
}

impl BoxPlan {
    /// Uses another build of the binary.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> BoxPlan {
        self.binary = path.into();
        self
    }

    /// Puts the ring here instead of in the scratch directory.
    pub fn ring(mut self, path: impl Into<PathBuf>) -> BoxPlan {
        self.ring = Some(path.into());
        self
    }

    /// Sets a key of `[ring]`; the value in TOML, so text with its quotes.
    pub fn ring_setting(mut self, key: &str, toml: &str) -> BoxPlan {
        self.ring_settings.retain(|(set, _)| set != key);
        self.ring_settings.push((key.to_owned(), toml.to_owned()));
        self
    }

    /// Runs it on the board of this folder.
    pub fn board(mut self, folder: &Path) -> BoxPlan {
        self.board = Some(folder.to_owned());
        self
    }

    /// Adds lines of `[box]`, in TOML.
    pub fn box_setting(mut self, toml: &str) -> BoxPlan {
        self.box_settings.push_str(toml);
        self
    }

    /// Adds lines of `[api]`, in TOML.
    pub fn api_setting(mut self, toml: &str) -> BoxPlan {
        self.api_settings.push_str(toml);
        self
    }

    /// Asks encoders for a `txSecret` made with this key.
    pub fn push_key(mut self, key: &str) -> BoxPlan {
        self.push_key = key.to_owned();
        self
    }

    /// Puts the box into a time zone.
    pub fn timezone(mut self, name: &str) -> BoxPlan {
        self.timezone = name.to_owned();
        self
    }

    /// Adds whole sections of edgerec.toml, such as `[upload]`.
    pub fn sections(mut self, toml: &str) -> BoxPlan {
        self.sections.push_str(toml);
        self.sections.push('\n');
        self
    }

    /// Makes it a box of a fleet: these are the lines of `[mqtt]`, in TOML. It has no file of rules.
    pub fn mqtt(mut self, toml: &str) -> BoxPlan {
        self.of_a_fleet = true;
        self.sections(&format!("[mqtt]\n{toml}"))
    }

    /// Calls it otherwise than `box-01`.
    pub fn id(mut self, id: &str) -> BoxPlan {
        id.clone_into(&mut self.id);
        self
    }

    /// One more line of the section that was added last.
    pub fn mqtt_line(self, toml: &str) -> BoxPlan {
        self.sections(toml)
    }

    /// The rule set to begin with.
    pub fn rules(mut self, rules: Value) -> BoxPlan {
        self.rules = rules;
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> BoxPlan {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A system call outside of the sandbox's list fails, as for a customer, and kills nothing.
    pub fn lives_with_unlisted_calls(mut self) -> BoxPlan {
        self.environment.retain(|(name, _)| name != KILL_AT_CALL);
        self
    }

    /// Writes the configuration, makes the ring unless there is one, and starts the box.
    #[track_caller]
    pub fn start(self) -> EdgeBox {
        let mut edge = self.prepare();
        if !edge.ring.join("ring.id").exists() {
            edge.cli_ok(&["format"]);
        }
        edge.start_again();
        edge
    }

    /// Writes the configuration only: no ring is made and nothing is started.
    pub fn prepare(self) -> EdgeBox {
        let dir = scratch("box");
        let ring = self.ring.clone().unwrap_or_else(|| dir.path().join("ring"));
        let edge = EdgeBox {
            config: dir.path().join("edgerec.toml"),
            log: dir.path().join("edgerec.log"),
            rtmp: self.listen,
            api: self.listen,
            plan: self,
            process: None,
            ring,
            dir,
        };
        edge.write_rules(&edge.plan.rules);
        edge.write_config();
        edge
    }
}

/// The binary under test: the one of this build unless `EDGEREC_BINARY` names another.
pub fn binary() -> PathBuf {
    std::env::var_os("EDGEREC_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_edgerec")), PathBuf::from)
}

/// A rule set that records every stream of the app `live` in these formats (`Flv`, `Hls`, `Mp4`,
/// `Aac`).
pub fn record_all(formats: &[&str]) -> Value {
    let mut template = json!({"TemplateName": "all"});
    for format in formats {
        template[format!("{format}Param")] = json!({"Enable": 1});
    }
    json!({
        "revision": 1,
        "templates": [template],
        "rules": [{"DomainName": "", "AppName": "live", "StreamName": "", "TemplateName": "all"}],
    })
}

/// A box with its configuration and ring; running or not. Dropping it kills the process and, when
/// the test failed, shows the log.
pub struct EdgeBox {
    plan: BoxPlan,
    config: PathBuf,
    ring: PathBuf,
    log: PathBuf,
    rtmp: SocketAddr,
    api: SocketAddr,
    process: Option<Process>,
    dir: TempDir,
}

impl EdgeBox {
    /// A running box with the default plan.
    #[track_caller]
    pub fn start() -> EdgeBox {
        BoxPlan::default().start()
    }

    /// Starts the box again after a kill, on the same addresses; returns how long it took to be
    /// ready.
    #[track_caller]
    pub fn start_again(&mut self) -> Duration {
        assert!(self.process.is_none(), "the box runs already");
        self.write_config();
        let began = Instant::now();
        let mut command = self.run_command();
        command.env("RUST_BACKTRACE", "1");
        let mut process = Process::start(&command, "edgerec", &self.log, Stdout::Piped);
        let stdout = process.child().stdout.take().expect("stdout is piped");
        let (line_out, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // After the ready line nobody listens; the pipe is still kept empty.
                let _ = line_out.send(line);
            }
        });
        let Ok(line) = lines.recv_timeout(READY_WITHIN) else {
            panic!("edgerec run did not become ready; its log:\n{}", log_tail(&self.log));
        };
        let (rtmp, api) = parse_ready(&line)
            .unwrap_or_else(|| panic!("not a ready line: `{line}`; log:\n{}", process.log_tail()));
        (self.rtmp, self.api) = (rtmp, api);
        self.process = Some(process);
        began.elapsed()
    }

    /// Starts a box that is to refuse; gives its exit code and what it said.
    #[track_caller]
    pub fn run_to_its_end(&self, within: Duration) -> (ExitStatus, String) {
        let command = self.run_command();
        let mut process = Process::start(&command, "edgerec", &self.log, Stdout::Log);
        let status = process.end_within(within);
        (status, self.log())
    }

    /// Ends the box at once (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks the box to end (SIGTERM) and waits for it.
    #[track_caller]
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.process.take().expect("the box runs").terminate(within)
    }

    /// The process of the running box.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the box runs")
    }

    /// Where it listens for RTMP.
    pub fn rtmp(&self) -> SocketAddr {
        self.rtmp
    }

    /// Where it listens for HTTP.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where an encoder pushes a stream of the app `live`; its key is [`Self::stream_key`].
    pub fn push_url(&self, stream: &str) -> String {
        format!("rtmp://{}/live/{stream}", self.rtmp)
    }

    /// The key of a stream pushed to [`Self::push_url`].
    pub fn stream_key(&self, stream: &str) -> String {
        format!("{}/live/{stream}", self.rtmp.ip())
    }

    /// The ring's directory.
    pub fn ring(&self) -> &Path {
        &self.ring
    }

    /// A place for the test's own files beside the configuration.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the box logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Replaces the rule set file; the running box takes it by itself.
    pub fn write_rules(&self, rules: &Value) {
        let text = serde_json::to_vec_pretty(rules).expect("JSON can be written");
        let new = self.dir.path().join("rules.json.new");
        fs::write(&new, text).expect("the rules can be written");
        fs::rename(&new, self.dir.path().join("rules.json")).expect("the rules can be renamed");
    }

    /// Runs a subcommand with this box's configuration.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        run(&self.command(arguments))
    }

    /// Runs a subcommand; fails the test unless it says 0; returns its stdout.
    #[track_caller]
    pub fn cli_ok(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(
            output.status.success(),
            "edgerec {arguments:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("edgerec prints UTF-8")
    }

    /// The rows of `edgerec ls --json`.
    #[track_caller]
    pub fn ls(&self) -> Vec<Value> {
        let rows = self.cli_ok(&["ls", "--json"]);
        rows.lines().map(|row| serde_json::from_str(row).expect("a row of ls is JSON")).collect()
    }

    /// Waits for a row of `ls` that `wanted` likes.
    #[track_caller]
    pub fn file_within(&self, within: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        match poll_for(within, || self.ls().into_iter().find(|row| wanted(row))) {
            Some(row) => row,
            None => panic!("no such file within {within:?}; there are {:#?}", self.ls()),
        }
    }

    /// Exports a file of `ls` by its id to a path beside the configuration.
    #[track_caller]
    pub fn export_file(&self, file_id: &str, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        self.cli_ok(&["export", "--file", file_id, "-o", &path.to_string_lossy()]);
        path
    }

    /// Exports everything the ring has of a stream.
    ///
    /// # Errors
    /// The box has nothing of it, or cannot; its words.
    pub fn export_all(&self, key: &str, format: &str, name: &str) -> Result<PathBuf, String> {
        let path = self.dir.path().join(name);
        let to = path.to_string_lossy();
        let ever = ["--from", "2000-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"];
        let output =
            self.cli(&[&["export", key], &ever[..], &["--format", format, "-o", &to]].concat());
        if output.status.success() {
            Ok(path)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn run_command(&self) -> Command {
        let mut command = self.command(&["run"]);
        if let Some(board) = &self.plan.board {
            command.arg("--board").arg(board);
        }
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.plan.binary);
        command.args(arguments).arg("--config").arg(&self.config);
        command.envs(self.plan.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn write_config(&self) {
        let rules = toml_text(&self.dir.path().join("rules.json"));
        let rules = if self.plan.of_a_fleet { String::new() } else { format!("file = {rules}\n") };
        let mut toml = format!(
            "[box]\nid = \"{}\"\ntimezone = \"{}\"\n{}\n\
             [rtmp]\nlisten = \"{}\"\npush_key = \"{}\"\n\n\
             [api]\nlisten = \"{}\"\n{}\n[rules]\n{rules}\n[ring]\npath = {}\n",
            self.plan.id,
            self.plan.timezone,
            self.plan.box_settings,
            self.rtmp,
            self.plan.push_key,
            self.api,
            self.plan.api_settings,
            toml_text(&self.ring),
        );
        for (key, value) in &self.plan.ring_settings {
            toml.push_str(&format!("{key} = {value}\n"));
        }
        toml.push('\n');
        toml.push_str(&self.plan.sections);
        fs::write(&self.config, toml).expect("the configuration can be written");
    }
}

/// `ready rtmp=ADDR api=ADDR`
fn parse_ready(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = line.strip_prefix("ready ")?.split_whitespace();
    let mut address = |name: &str| words.next()?.strip_prefix(name)?.parse().ok();
    Some((address("rtmp=")?, address("api=")?))
}

/// A path as a TOML string.
fn toml_text(path: &Path) -> String {
    // JSON's string escapes are TOML's too.
    serde_json::to_string(&path.to_string_lossy()).expect("text can be quoted")
}
