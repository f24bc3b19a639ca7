//! The box as a service of systemd: what it tells the service manager, and the unit that it is run
//! with.

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use support::edge_box::{BoxPlan, EdgeBox};
use support::media::Clip;
use support::outbox::Outbox;
use support::process::{run, run_ok};
use support::push::{Pace, push_file};
use support::{scratch, tool};

const SOON: Duration = Duration::from_secs(30);
/// What the service manager of the tests asks for; the box tells it four times as often.
const INTERVAL: Duration = Duration::from_secs(2);
/// Exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE_MAX: u32 = 15;

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let dir = scratch("notify");
        let socket = UnixDatagram::bind(dir.path().join("socket")).expect("bound");
        Manager { socket, dir }
    }

    fn plan(&self) -> BoxPlan {
        let hang = self.hang_folder();
        std::fs::create_dir_all(&hang).expect("made");
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        BoxPlan::default()
            .env("NOTIFY_SOCKET", &text(self.dir.path().join("socket")))
            .env("WATCHDOG_USEC", &INTERVAL.as_micros().to_string())
            .env("EDGEREC_PLANT_HANG", &text(hang))
    }

    fn hang_folder(&self) -> PathBuf {
        self.dir.path().join("hang")
    }

    /// What is told next; `None`: nothing within this time.
    fn hear(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).expect("set");
        let mut buffer = [0; 512];
        match self.socket.recv(&mut buffer) {
            Ok(len) => Some(String::from_utf8_lossy(&buffer[..len]).trim().to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            Err(error) => panic!("the socket fails: {error}"),
        }
    }

    #[track_caller]
    fn expect(&self, wanted: &str) {
        let heard = self.hear(SOON);
        assert_eq!(heard.as_deref(), Some(wanted));
    }

    /// Hears that all is well, until that stops for a whole interval.
    #[track_caller]
    fn hear_it_stop(&self) {
        let deadline = Instant::now() + SOON;
        while let Some(heard) = self.hear(INTERVAL) {
            assert_eq!(heard, "WATCHDOG=1");
            assert!(Instant::now() < deadline, "it goes on to say that all is well");
        }
    }
}

#[test]
fn the_service_manager_is_told_when_the_box_is_ready_well_and_over() {
    let manager = Manager::new();
    let mut edge = manager.plan().start();
    manager.expect("READY=1");
    // Nothing is pushed and nothing delivered: parts that have nothing to do are well too.
    for _ in 0..12 {
        manager.expect("WATCHDOG=1");
    }
    edge.process().signal(Signal::SIGTERM);
    while let Some(heard) = manager.hear(SOON) {
        if heard == "STOPPING=1" {
            break;
        }
        assert_eq!(heard, "WATCHDOG=1");
    }
    assert_eq!(manager.hear(INTERVAL), None, "it is over");
}

/// The box does not say that all is well once a part of it hangs, and the log names the part.
fn hangs(part: &str, edge: &EdgeBox, manager: &Manager) {
    manager.expect("READY=1");
    manager.expect("WATCHDOG=1");
    std::fs::write(manager.hang_folder().join(part), "").expect("written");
    manager.hear_it_stop();
    let log = edge.log();
    // On a machine that is busy another part may have been late before.
    let named = log.lines().filter_map(|line| line.split_once("the watchdog is not fed parts="));
    assert!(named.into_iter().any(|(_, parts)| parts.contains(part)), "{log}");
}

#[test]
fn a_writer_that_hangs_is_noticed() {
    let manager = Manager::new();
    let mut edge = manager.plan().start();
    hangs("writer", &edge, &manager);
    edge.kill();
}

#[test]
fn a_recorder_that_hangs_is_noticed() {
    let manager = Manager::new();
    let mut edge = manager.plan().start();
    hangs("recorder", &edge, &manager);
    edge.kill();
}

#[test]
fn a_delivery_that_hangs_is_noticed() {
    let (manager, target) = (Manager::new(), Outbox::new());
    let mut edge = manager.plan().sections(&target.section()).start();
    hangs("delivery", &edge, &manager);
    edge.kill();
}

#[test]
fn a_task_of_the_fleet_that_hangs_is_noticed_and_one_without_a_broker_is_well() {
    for part in ["fleet link", "fleet errands"] {
        // Nobody listens there.
        let mqtt = "url = \"mqtt://127.0.0.1:9\"\nfleet = \"venue\"\n";
        let manager = Manager::new();
        let mut edge = manager.plan().mqtt(mqtt).start();
        hangs(part, &edge, &manager);
        edge.kill();
    }
}

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/edgerec.service")
}

/// The unit, for the program that was built, in a folder of its own.
fn installed() -> (tempfile::TempDir, PathBuf) {
    let dir = scratch("unit");
    let text = std::fs::read_to_string(unit()).expect("read");
    let program = support::edge_box::binary();
    let text = text.replace("/usr/bin/edgerec", program.to_str().expect("text"));
    let path = dir.path().join("edgerec.service");
    std::fs::write(&path, text).expect("written");
    (dir, path)
}

#[test]
fn the_unit_has_no_fault_and_leaves_little_open() {
    let (_dir, path) = installed();
    let analyze = || Command::new(tool("systemd-analyze"));
    let verified = run(analyze().args(["verify", "--man=no"]).arg(&path));
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let options = ["security", "--offline=true", "--no-pager", &threshold];
    let rated = run(analyze().args(options).arg(&path));
    assert!(rated.status.success(), "{}", String::from_utf8_lossy(&rated.stdout));
    let open = ["security", "--offline=true", "--no-pager", "--threshold=1"];
    assert!(!run(analyze().args(open).arg(&path)).status.success(), "the threshold counts");
}

/// System calls of a set, with those of the sets in it.
fn calls_of(set: &str) -> BTreeSet<String> {
    let listed = run_ok(Command::new(tool("systemd-analyze")).args(["syscall-filter", set]));
    let listed = String::from_utf8(listed).expect("text");
    let names = listed.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut calls = BTreeSet::new();
    for name in names.skip(1).filter(|name| !name.is_empty()) {
        if name.starts_with('@') {
            calls.extend(calls_of(name));
        } else {
            calls.insert(name.to_owned());
        }
    }
    calls
}

/// What a word of a filter stands for: a set, or one call.
fn calls(word: &str) -> BTreeSet<String> {
    if word.starts_with('@') { calls_of(word) } else { BTreeSet::from([word.to_owned()]) }
}

/// The box with its system calls in a file; other commands as they are.
fn under_strace(dir: &Path, calls: &Path) -> PathBuf {
    let (program, strace) = (support::edge_box::binary(), tool("strace"));
    // The tracer stands aside, so that signals go to the box.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = run ] || exec '{}' \"$@\"\n\
         exec '{}' -D -f -qq -e signal=none -o '{}' '{}' \"$@\"\n",
        program.display(),
        strace.display(),
        calls.display(),
        program.display()
    );
    let path = dir.join("edgerec");
    std::fs::write(&path, script).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("set");
    path
}

#[test]
fn the_unit_allows_every_system_call_that_recording_and_delivering_makes() {
    let text = std::fs::read_to_string(unit()).expect("read");
    let mut allowed = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        match line.strip_prefix('~') {
            Some(denied) => {
                let denied: BTreeSet<String> =
                    denied.split_whitespace().flat_map(calls_of).collect();
                allowed.retain(|call| !denied.contains(call));
            }
            None => allowed.extend(line.split_whitespace().flat_map(calls)),
        }
    }
    assert!(allowed.len() > 100 && !allowed.contains("reboot"), "{}", allowed.len());

    let (dir, target) = (scratch("calls"), Outbox::new());
    let calls = dir.path().join("calls");
    let traced = under_strace(dir.path(), &calls);
    let mut edge = BoxPlan::default().binary(traced).sections(&target.section()).start();
    let clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };
    let log = edge.dir().join("push.log");
    push_file(&clip.flv(), &edge.push_url("cam"), Pace::Fast, &log).finish_within(SOON);
    edge.file_within(SOON, |row| row["state"] == "delivered");
    assert!(edge.terminate(SOON).success());
    let made = std::fs::read_to_string(&calls).expect("the calls are there");
    // `PID name(...` or `PID <... name resumed>`; the first is how it was started.
    let name = |line: &str| -> Option<String> {
        let call = line.split_whitespace().nth(1)?;
        Some(call.split_once('(')?.0.to_owned())
    };
    let mut made: BTreeSet<String> = made.lines().filter_map(name).collect();
    // SQLite gives its files to the owner of the folder where it is root; the service is not.
    made.remove("fchown");
    assert!(made.contains("syncfs") && made.contains("accept4"), "{made:?}");
    let denied: Vec<&String> = made.difference(&allowed).collect();
    assert!(denied.is_empty(), "not allowed: {denied:?}");
}

#[test]
fn the_unit_may_write_where_the_readme_says_that_files_go() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(unit()).expect("read");
    let writable: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("ReadWritePaths="))
        .flat_map(str::split_whitespace)
        .map(|path| path.trim_start_matches('-'))
        .collect();
    let readme = std::fs::read_to_string(root.join("README.md")).expect("read");
    let paths = readme.lines().filter_map(|line| line.strip_prefix("path = \"")?.split('"').next());
    let paths: Vec<&str> = paths.collect();
    assert!(paths.contains(&"/media/usb") && paths.contains(&"/data/edgerec"), "{paths:?}");
    for path in paths {
        assert!(writable.iter().any(|open| Path::new(path).starts_with(open)), "{path}");
    }
    // The folders are made with their owner, the configuration's too.
    let made = std::fs::read_to_string(root.join("systemd/edgerec.tmpfiles")).expect("read");
    for folder in ["/etc/edgerec", "/data/edgerec"] {
        assert!(made.contains(&format!("d {folder} 0750 edgerec edgerec -")), "{made}");
    }
}
