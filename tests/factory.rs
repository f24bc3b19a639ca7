//! What the factory does with a box: it is given its identity, works, and is taken back with nothing
//! left of what it recorded.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use support::edge_box::binary;
use support::process::{Process, Stdout, log_tail, run, run_ok};
use support::wait::wait_until;
use support::{scratch, tool};

const SOON: Duration = Duration::from_secs(30);

/// A new box on a bench: a folder for everything.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        Bench(scratch("factory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("etc/edgerec.toml")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(words).arg("--config").arg(self.config());
        command
    }

    fn provision(&self, more: &[&str]) -> Output {
        let ring = self.path("ring");
        let ring = ring.to_str().expect("text");
        let words = ["provision", "--ring", ring, "--capacity", "192MiB", "--api", "127.0.0.1:0"];
        run(&self.command(&[&words[..], more].concat()))
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn one_line(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

/// An authority of its own with one certificate.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let mut openssl = Command::new(tool("openssl"));
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-subj", "/CN=box-17", "-days", "2"])
        .arg("-out")
        .arg(&cert)
        .arg("-keyout")
        .arg(&key);
    run_ok(&openssl);
    (cert, key)
}

#[test]
fn a_box_is_provisioned_once_works_and_is_taken_back() {
    let bench = Bench::new();
    let (cert, key) = certificate(bench.0.path());
    let (cert, key) = (cert.to_str().expect("text"), key.to_str().expect("text"));
    let fleet = ["--id", "box-17", "--broker", "mqtts://127.0.0.1:1", "--fleet", "venue"];
    let tls = ["--ca", cert, "--cert", cert, "--key", key];
    let told = one_line(&bench.provision(&[&fleet[..], &tls, &["--json"]].concat()));
    assert_eq!(told["box"], "box-17");
    let secret = told["secret_key"].as_str().expect("told").to_owned();
    assert_eq!(secret.len(), 48);

    let files = ["api.key", "edgerec.toml", "mqtt.ca.pem", "mqtt.cert.pem", "mqtt.key.pem"];
    assert_eq!(bench.names("etc"), files);
    for file in files {
        let mode = fs::metadata(bench.path("etc").join(file)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file} is for its owner only");
    }
    assert_eq!(fs::read_to_string(bench.path("etc/api.key")).expect("read"), secret);
    let text = fs::read_to_string(bench.config()).expect("read");
    assert!(!text.contains(&secret), "the key is not in the configuration");
    run_ok(&bench.command(&["check-config"]));

    // A second time nothing is touched, and it says why.
    let again = bench.provision(&[]);
    let why = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && why.contains("factory-reset"), "{why}");
    assert_eq!(fs::read_to_string(bench.config()).expect("read"), text);

    // The box runs with it, and keeps its ring while it does.
    let (log, command) = (bench.path("log"), bench.command(&["run"]));
    let mut process = Process::start(&command, "edgerec", &log, Stdout::Log);
    wait_until(SOON, "the box is ready", || log_tail(&log).contains("ready "));
    let refused = run(&bench.command(&["factory-reset", "--yes"]));
    assert!(!refused.status.success() && bench.path("ring/ring.id").exists(), "{refused:?}");
    process.terminate(SOON);

    let asked = run(&bench.command(&["factory-reset"]));
    assert_eq!(asked.status.code(), Some(2), "it wants to be sure: {asked:?}");
    let reset = one_line(&run(&bench.command(&["factory-reset", "--yes", "--json"])));
    assert!(reset["overwritten_bytes"].as_u64().expect("told") >= 128 << 20, "{reset}");
    assert_eq!(bench.names("etc"), Vec::<String>::new());
    assert_eq!(bench.names("ring"), ["slots"]);
    assert_eq!(bench.names("ring/slots"), Vec::<String>::new());
    // And it can be given to somebody else.
    assert_ne!(one_line(&bench.provision(&["--json"]))["secret_key"], secret.as_str());
}

#[test]
fn what_cannot_work_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let refused = |more: &[&str], words: &str| {
        let output = bench.provision(more);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && why.contains(words), "{more:?}: {why}");
        assert_eq!(bench.names("etc"), Vec::<String>::new(), "{more:?}");
    };
    refused(&["--id", "a/b"], "box.id");
    refused(&["--broker", "http://x", "--fleet", "venue"], "mqtt.url");
    refused(&["--broker", "mqtt://x:1"], "--fleet");
    refused(&["--broker", "mqtt://x:1", "--fleet", "v", "--ca", "/nowhere.pem"], "/nowhere.pem");
    refused(&["--broker", "mqtt://x:1", "--fleet", "v", "--rules-key", "x"], "rules_public_keys");
}

#[test]
fn a_reset_may_keep_the_identity_and_never_takes_what_somebody_wrote() {
    let bench = Bench::new();
    one_line(&bench.provision(&["--json"]));
    run_ok(&bench.command(&["factory-reset", "--yes", "--quick", "--keep-identity"]));
    assert_eq!(bench.names("etc"), ["api.key", "edgerec.toml"]);
    assert!(!bench.path("ring/ring.id").exists());

    let text = fs::read_to_string(bench.config()).expect("read");
    let by_hand = text.lines().skip(1).collect::<Vec<_>>().join("\n");
    fs::write(bench.config(), by_hand).expect("written");
    run_ok(&bench.command(&["format"]));
    run_ok(&bench.command(&["factory-reset", "--yes", "--quick"]));
    assert_eq!(bench.names("etc"), ["api.key", "edgerec.toml"]);
    assert!(!bench.path("ring/ring.id").exists());
}

#[test]
fn a_configuration_in_the_current_folder_is_as_good_as_one_elsewhere() {
    let bench = Bench::new();
    let here = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(words).args(["--config", "edgerec.toml"]).current_dir(bench.0.path());
        run_ok(&command)
    };
    here(&["provision", "--ring", "ring", "--capacity", "192MiB", "--api", "127.0.0.1:0"]);
    fs::write(bench.path("rules.json"), "{\"revision\": 1}").expect("written");
    here(&["check-config"]);
    here(&["factory-reset", "--yes", "--quick"]);
    assert_eq!(bench.names("."), ["ring"], "the rules are gone too");
}

#[test]
fn a_reset_that_was_cut_off_is_finished() {
    let bench = Bench::new();
    one_line(&bench.provision(&["--json"]));
    run_ok(&bench.command(&["factory-reset", "--yes", "--quick", "--keep-identity"]));
    // As after the first step of removing the identity.
    fs::rename(bench.config(), bench.path("etc/edgerec.toml.wiped")).expect("renamed");
    run_ok(&bench.command(&["factory-reset", "--yes", "--quick"]));
    assert_eq!(bench.names("etc"), Vec::<String>::new());
}
