//! The sandbox that the box enters by itself: what is denied in it is denied by the kernel.
//!
//! Every box of the tests runs in it, and a system call that its list does not have kills the box
//! there, so each of them shows that the list is long enough.

mod support;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use edgerec::platform::sandbox::{self, Confinement, Reach};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use serde_json::{Value, json};

use support::edge_box::{BoxPlan, EdgeBox};
use support::http::get;
use support::media::Clip;
use support::mounts::{Mounted, enter_mount_namespace, make_file};
use support::outbox::Outbox;
use support::process::run_ok;
use support::push::{Pace, push_file};
use support::{scratch, tool};

const SOON: Duration = Duration::from_secs(60);
/// Kernels from which Landlock denies what we ask for: ports, and all of it.
const DENIES_PORTS: (u32, u32) = (6, 7);
const DENIES_ALL: (u32, u32) = (6, 10);

/// Major and minor version of the kernel.
fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    let mut numbers = text.split(['.', '-']).map(|number| number.trim().parse().unwrap_or(0));
    (numbers.next().expect("one at least"), numbers.next().unwrap_or(0))
}

/// How far this kernel can confine paths and ports.
fn reach_of_paths() -> Reach {
    if kernel() >= DENIES_ALL { Reach::Whole } else { Reach::Part }
}

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

/// A folder to read, one to write and one that is nobody's business, and a port that is free.
struct Place {
    dir: tempfile::TempDir,
    port: u16,
}

impl Place {
    fn new() -> Place {
        let dir = scratch("sandbox");
        for folder in ["read", "write", "elsewhere"] {
            fs::create_dir(dir.path().join(folder)).expect("made");
        }
        fs::write(dir.path().join("read/rules.json"), "{}").expect("written");
        fs::write(dir.path().join("elsewhere/secret"), "s").expect("written");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        Place { port: free.local_addr().expect("has one").port(), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn confinement(&self) -> Confinement {
        Confinement {
            reads: vec![self.path("read")],
            writes: vec![self.path("write")],
            listens: vec![self.port],
        }
    }

    /// Tries what a program that was taken over would try, and what the box itself does.
    fn attempts(&self) -> Value {
        let listens = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port));
        let connects = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let routes = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::empty(),
            SockProtocol::NetlinkRoute,
        );
        let (new, old) = (self.path("write/new"), self.path("write/old"));
        json!({
            "reads its rules": outcome(fs::read(self.path("read/rules.json"))),
            "writes its ring": outcome(fs::write(&new, "x")),
            "renames in its ring": outcome(fs::rename(&new, &old)),
            "starts a thread": outcome(thread::Builder::new().spawn(|| {}).map(|t| t.join())),
            "connects": outcome(connects),
            "listens": outcome(listens),
            "reads elsewhere": outcome(fs::read(self.path("elsewhere/secret"))),
            "writes elsewhere": outcome(fs::write(self.path("elsewhere/new"), "x")),
            "writes its rules": outcome(fs::write(self.path("read/rules.json"), "x")),
            "listens elsewhere": outcome(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))),
            "starts a program": outcome(Command::new("/bin/true").status()),
            "makes a namespace": outcome(unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from)),
            "asks the kernel's routes": outcome(routes.map_err(io::Error::from)),
        })
    }
}

#[test]
fn what_the_box_does_not_need_is_denied() {
    let place = Place::new();
    // The sandbox holds for the thread that enters it.
    let inside = || {
        let level = sandbox::enter(&place.confinement());
        (level, place.attempts())
    };
    let (level, inside) = thread::scope(|scope| scope.spawn(inside).join()).expect("no panic");
    assert_eq!((level.paths, level.calls), (reach_of_paths(), Reach::Whole), "{level:?}");
    let expected = json!({
        "reads its rules": null, "writes its ring": null, "renames in its ring": null,
        "starts a thread": null, "connects": null, "listens": null,
        "reads elsewhere": "EACCES", "writes elsewhere": "EACCES", "writes its rules": "EACCES",
        "listens elsewhere": (kernel() >= DENIES_PORTS).then_some("EACCES"), "starts a program": "ENOSYS",
        "makes a namespace": "ENOSYS", "asks the kernel's routes": "ENOSYS",
    });
    assert_eq!(inside, expected);
    // All of it can be done outside: nothing but the sandbox denies it.
    let outside = thread::scope(|scope| scope.spawn(|| place.attempts()).join()).expect("no panic");
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
fn a_call_that_is_not_listed_fails_and_kills_the_boxes_of_the_tests() {
    let planted = || BoxPlan::default().env("EDGEREC_PLANT_UNLISTED_CALL", "1");
    let edge = planted().prepare();
    edge.cli_ok(&["format"]);
    let (ended, log) = edge.run_to_its_end(SOON);
    assert_eq!(ended.signal(), Some(Signal::SIGSYS as i32), "{ended:?} {log}");
    // Without the switch of the tests, as a box of a customer, it goes on.
    let mut edge = planted().lives_with_unlisted_calls().start();
    assert_eq!(status_of(edge.process().id(), "Seccomp"), "2");
    assert!(edge.log().contains("the planted call: ENOSYS"), "{}", edge.log());
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
    let reached = format!("paths={} calls=whole", reach_of_paths());
    assert!(line.is_some_and(|line| line.contains(&reached)), "{said}");
    let figures = String::from_utf8(get(&edge, "/metrics").1).expect("text");
    assert!(figures.contains("edgerec_sandbox_reach{part=\"calls\"} 2"), "{figures}");
}

#[test]
fn the_configuration_can_leave_the_sandbox_out() {
    let mut edge = BoxPlan::default().box_setting("sandbox = false\n").start();
    assert_eq!(status_of(edge.process().id(), "Seccomp"), "0");
    assert!(edge.log().contains("sandbox = false"), "{}", edge.log());
}

#[test]
fn a_disk_that_was_taken_out_and_put_back_is_delivered_to_again() {
    enter_mount_namespace();
    let dir = scratch("disk");
    let (image, mount) = (dir.path().join("disk.img"), dir.path().join("usb"));
    make_file(&image, 64 << 20);
    run_ok(Command::new(tool("mkfs.ext4")).args(["-q", "-F"]).arg(&image));
    let disk = Mounted::new(&image, &mount);
    let target = mount.join("recordings");
    fs::create_dir(&target).expect("made");
    let section = format!("[upload]\ntarget = \"directory\"\npath = {target:?}\n");
    let mut edge = BoxPlan::default().sections(&section).start();
    let clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };
    let deliver = |edge: &mut EdgeBox, stream: &str| {
        let log = edge.dir().join("push.log");
        push_file(&clip.flv(), &edge.push_url(stream), Pace::Fast, &log).finish_within(SOON);
        edge.file_within(SOON, |row| row["stream"] == stream && row["state"] == "delivered");
    };
    deliver(&mut edge, "before");
    disk.unmount();
    let _disk = Mounted::new(&image, &mount);
    deliver(&mut edge, "behind");
}
