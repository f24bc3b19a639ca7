//! The sandbox that the box enters by itself: what is denied in it is denied by the kernel.
//!
//! Every box of the tests runs in it, and a system call that its list does not have kills the box
//! there, so each of them shows that the list is long enough.

mod support;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use edgerec::platform::sandbox::{self, Confinement, Reach};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use serde_json::{Value, json};

use support::edge_box::BoxPlan;
use support::http::get;
use support::media::Clip;
use support::outbox::Outbox;
use support::process::run;
use support::push::{Pace, push_file};
use support::scratch;

const SOON: Duration = Duration::from_secs(60);
/// The folder that the attempts are made in, and what they are to do.
const PLACE: &str = "SANDBOX_TEST_PLACE";
const OUTSIDE: &str = "SANDBOX_TEST_STAY_OUTSIDE";
/// What stands before the report of the attempts.
const REPORT: &str = "attempts: ";

/// What an attempt came to: `null`, or the name of the error.
fn outcome<T>(attempt: io::Result<T>) -> Value {
    match attempt {
        Ok(_) => Value::Null,
        Err(error) => {
            let number = error.raw_os_error().map(nix::errno::Errno::from_raw);
            json!(number.map_or_else(|| error.to_string(), |errno| format!("{errno:?}")))
        }
    }
}

/// Tries what a program that was taken over would try, and what the box itself does.
#[test]
#[ignore = "is run by the other tests, in a process of its own"]
fn attempts() {
    let place = PathBuf::from(std::env::var_os(PLACE).expect("is run by another test"));
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let port = free.local_addr().expect("has one").port();
    drop(free);
    let confinement = Confinement {
        reads: vec![place.join("read")],
        writes: vec![place.join("write")],
        listens: vec![port],
    };
    if std::env::var_os(OUTSIDE).is_none() {
        let level = sandbox::enter(&confinement);
        assert_eq!((level.paths, level.calls), (Reach::Whole, Reach::Whole), "{level:?}");
    }
    let listens = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let report = json!({
        "reads its rules": outcome(fs::read(place.join("read/rules.json"))),
        "writes its ring": outcome(fs::write(place.join("write/new"), "x")),
        "renames in its ring": outcome(fs::rename(place.join("write/new"), place.join("write/old"))),
        "starts a thread": outcome(std::thread::Builder::new().spawn(|| {}).map(|t| t.join())),
        "connects": outcome(listens.as_ref().map_or_else(
            |error| Err(io::Error::other(error.to_string())),
            |listening| TcpStream::connect(listening.local_addr().expect("has one")),
        )),
        "listens": outcome(listens),
        "reads elsewhere": outcome(fs::read(place.join("elsewhere/secret"))),
        "writes elsewhere": outcome(fs::write(place.join("elsewhere/new"), "x")),
        "writes its rules": outcome(fs::write(place.join("read/rules.json"), "x")),
        "listens elsewhere": outcome(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))),
        "starts a program": outcome(Command::new("/bin/true").status()),
        "makes a namespace": outcome(unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from)),
        "asks the kernel's routes": outcome(
            socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::empty(),
                SockProtocol::NetlinkRoute,
            )
            .map_err(io::Error::from),
        ),
    });
    println!("{REPORT}{report}");
}

/// Runs the attempts in a process of their own, with these variables.
fn attempt(place: &Path, variables: &[(&str, &str)]) -> Output {
    for folder in ["read", "write", "elsewhere"] {
        fs::create_dir_all(place.join(folder)).expect("made");
    }
    fs::write(place.join("read/rules.json"), "{}").expect("written");
    fs::write(place.join("elsewhere/secret"), "s").expect("written");
    let mut command = Command::new(std::env::current_exe().expect("is a program"));
    command.args(["--exact", "attempts", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(PLACE, place).envs(variables.iter().copied());
    run(&command)
}

#[track_caller]
fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| Some(line.split_once(REPORT)?.1));
    serde_json::from_str(line.unwrap_or_else(|| panic!("{output:?}"))).expect("is JSON")
}

#[test]
fn what_the_box_does_not_need_is_denied() {
    let dir = scratch("sandbox");
    let inside = report(&attempt(dir.path(), &[]));
    let expected = json!({
        "reads its rules": null, "writes its ring": null, "renames in its ring": null,
        "starts a thread": null, "connects": null, "listens": null,
        "reads elsewhere": "EACCES", "writes elsewhere": "EACCES", "writes its rules": "EACCES",
        "listens elsewhere": "EACCES", "starts a program": "ENOSYS",
        "makes a namespace": "ENOSYS", "asks the kernel's routes": "ENOSYS",
    });
    assert_eq!(inside, expected);
    // All of it can be done outside: nothing but the sandbox denies it.
    let outside = report(&attempt(dir.path(), &[(OUTSIDE, "1")]));
    let denied: Vec<&str> = outside
        .as_object()
        .expect("an object")
        .iter()
        .filter_map(|(what, outcome)| (!outcome.is_null()).then_some(what.as_str()))
        .collect();
    let rootless = ["makes a namespace"];
    assert!(denied.iter().all(|what| rootless.contains(what)), "{denied:?}");
}

#[cfg(feature = "planted-faults")]
#[test]
fn the_switch_of_the_tests_kills_at_a_call_that_is_not_listed() {
    let dir = scratch("sandbox");
    let ended = attempt(dir.path(), &[("EDGEREC_PLANT_KILL_AT_CALL", "1")]).status;
    assert_eq!(ended.signal(), Some(Signal::SIGSYS as i32), "{ended:?}");
}

/// A line of what the kernel says of a process.
fn status_of(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the kernel has it").trim_matches([':', '\t', ' ']).to_owned()
}

#[test]
fn a_box_records_and_delivers_in_its_sandbox_and_says_so() {
    let target = Outbox::new();
    let mut edge = BoxPlan::default().sections(&target.section()).start();
    let clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };
    let log = edge.dir().join("push.log");
    push_file(&clip.flv(), &edge.push_url("cam"), Pace::Fast, &log).finish_within(SOON);
    edge.file_within(SOON, |row| row["state"] == "delivered");
    let pid = edge.process().id();
    assert_eq!(status_of(pid, "Seccomp"), "2");
    assert_eq!(status_of(pid, "NoNewPrivs"), "1");
    let said = edge.log();
    let line = said.lines().find(|line| line.contains("in the sandbox"));
    assert!(line.is_some_and(|line| line.contains("paths=whole calls=whole")), "{said}");
    let figures = String::from_utf8(get(&edge, "/metrics").1).expect("text");
    assert!(figures.contains("edgerec_sandbox_reach{part=\"calls\"} 2"), "{figures}");
}

#[test]
fn the_configuration_can_leave_the_sandbox_out() {
    let mut edge = BoxPlan::default().box_setting("sandbox = false\n").start();
    assert_eq!(status_of(edge.process().id(), "Seccomp"), "0");
    assert!(edge.log().contains("sandbox = false"), "{}", edge.log());
}
