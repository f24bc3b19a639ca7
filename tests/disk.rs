//! The disk of the ring goes while the box records: it is noticed at once and told, nothing is written
//! anywhere else, nothing that was kept is lost, and recording goes on when the disk is good again.
//!
//! The tests start the box again as `Restart=always` of its unit does, and push again as an encoder
//! does; both are looked at elsewhere.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::broker::Broker;
use support::edge_box::{BoxPlan, EdgeBox};
use support::media::Clip;
use support::mounts::{Mounted, enter_mount_namespace, make_file};
use support::operator::Operator;
use support::process::{run, run_ok};
use support::push::{Pace, Pusher, push_file};
use support::wait::wait_until;
use support::{scratch, tool};
use tempfile::TempDir;

const TO_ALL: &str = "edgerec/v1/venue/config";
const ONLINE: &str = "edgerec/v1/venue/box/box-01/online";
const DISK_BYTES: u64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);
/// A fault is noticed within a fragment (1 s); the rest is for a machine that does much else.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
const NOTICED: &str = "nothing can be recorded any more";
/// The first words of each run.
const STARTED: &str = "in the sandbox";
const CLIP: Clip = Clip { seconds: 4, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };

/// Disks and a place to mount them; below it is what the disk hides of the system's own.
struct Rig {
    dir: TempDir,
    broker: Broker,
    operator: Operator,
}

impl Rig {
    fn new() -> Rig {
        enter_mount_namespace();
        let dir = scratch("disk");
        // The worst that can be there: a folder where the ring would be.
        fs::create_dir_all(dir.path().join("mnt/ring")).expect("made");
        let broker = Broker::start();
        let mut operator = Operator::connect(broker.addr());
        let rules = json!({"revision": 1,
            "templates": [{"TemplateName": "t", "FlvParam": {"Enable": 1}}],
            "rules": [{"DomainName": "", "StreamName": "", "TemplateName": "t"}]});
        operator.send(TO_ALL, rules.to_string());
        Rig { dir, broker, operator }
    }

    fn mount_point(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn image(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A disk with the folder that a ring is to be made in.
    fn make(&self, name: &str, bytes: u64) {
        make_file(&self.image(name), bytes);
        let mut mkfs = Command::new(tool("mkfs.ext4"));
        mkfs.args(["-q", "-F", "-d"]).arg(self.mount_point()).arg(self.image(name));
        run_ok(&mkfs);
    }

    fn mount(&self, name: &str) -> Mounted {
        Mounted::new(&self.image(name), &self.mount_point())
    }

    /// A box that has its ring on what is mounted, and makes one on a disk that has none.
    fn start(&self) -> EdgeBox {
        let mount = toml(&self.mount_point());
        let mqtt = format!("url = \"mqtt://{}\"\nfleet = \"venue\"\n", self.broker.addr());
        let plan = BoxPlan::default().mqtt(&mqtt).ring(self.mount_point().join("ring"));
        let plan = plan.ring_setting("mount", &mount).ring_setting("create", "true");
        plan.ring_setting("capacity", "\"48MiB\"").ring_setting("slot", "\"1MiB\"").start()
    }

    /// The box notices, says why to the fleet, and ends.
    fn notices(&self, edge: &mut EdgeBox, why: &str) {
        let began = Instant::now();
        let words = format!("fault=\"{why}\"");
        let noticed = |line: &str| line.contains(NOTICED) && line.contains(&words);
        let starts = edge.log().matches(STARTED).count();
        let of_this_run = || edge.log().rsplit(STARTED).next().unwrap_or_default().to_owned();
        wait_until(NOTICED_WITHIN, why, || of_this_run().lines().any(noticed));
        assert_eq!(edge.log().matches(STARTED).count(), starts, "it was the same run");
        println!("{why}: noticed after {:?}", began.elapsed());
        let told = |said: &Value| said["cause"] == why;
        self.operator.hear(SOON, ONLINE, &format!("a farewell: {why}"), told);
        let status = edge.process().end_within(SOON);
        assert_eq!(status.code(), Some(1), "{}", edge.log());
        edge.kill();
    }

    /// What the system's own file system has got below the mount point, while nothing is mounted.
    fn bytes_beside_the_disk(&self) -> Vec<PathBuf> {
        fs::read_dir(self.mount_point().join("ring"))
            .expect("there")
            .map(|entry| entry.expect("readable").path())
            .collect()
    }
}

fn toml(path: &Path) -> String {
    format!("{path:?}")
}

/// The box started as by the service manager refuses, and says why.
fn refuses(edge: &EdgeBox, why: &str) {
    let (status, log) = edge.run_to_its_end(SOON);
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(why), "{why} is not what it says: {last}");
}

fn push(edge: &EdgeBox, stream: &str) -> Pusher {
    let log = edge.dir().join(format!("{stream}.log"));
    push_file(&CLIP.flv(), &edge.push_url(stream), Pace::RealLooped, &log)
}

/// Milliseconds that are kept of a stream.
fn kept_ms(edge: &EdgeBox, stream: &str) -> i64 {
    let files = edge.ls().into_iter().filter(|row| row["stream"] == stream);
    files.map(|row| row["duration_ms"].as_i64().expect("a number")).sum()
}

/// Pushes until something is kept.
fn record(edge: &EdgeBox, stream: &str) -> (Pusher, i64) {
    let pusher = push(edge, stream);
    wait_until(SOON, &format!("{stream} is recorded"), || kept_ms(edge, stream) >= 2_000);
    (pusher, kept_ms(edge, stream))
}

/// The encoder is told, by its connection.
fn ends(mut pusher: Pusher) {
    pusher.end_within(SOON);
}

#[test]
fn a_disk_that_is_taken_out_is_missed_and_recorded_to_when_it_is_back() {
    let rig = Rig::new();
    rig.make("disk.img", DISK_BYTES);
    let disk = rig.mount("disk.img");
    let mut edge = rig.start();
    let (pusher, before_ms) = record(&edge, "before");
    disk.pull_out();
    rig.notices(&mut edge, "disk missing");
    ends(pusher);
    // It is to make a ring where there is none, but not beside its disk.
    (0..2).for_each(|_| refuses(&edge, "disk missing"));
    let beside = rig.bytes_beside_the_disk();
    assert!(beside.is_empty(), "on the system's own disk: {beside:?}");

    let _disk = rig.mount("disk.img");
    edge.start_again();
    record(&edge, "behind");
    assert!(kept_ms(&edge, "before") >= before_ms, "{:#?}", edge.ls());
}

#[test]
fn a_disk_that_takes_no_writes_any_more_is_left_and_recorded_to_when_it_is_mended() {
    let rig = Rig::new();
    rig.make("disk.img", DISK_BYTES);
    let disk = rig.mount("disk.img");
    let mut edge = rig.start();
    let (pusher, before_ms) = record(&edge, "before");
    // What ext4 does by itself when its journal cannot be written.
    run_ok(Command::new(tool("mount")).args(["-o", "remount,abort"]).arg(rig.mount_point()));
    rig.notices(&mut edge, "disk read-only");
    ends(pusher);
    refuses(&edge, "disk read-only");
    disk.unmount();
    // It has what to mend, and says so.
    run(Command::new(tool("e2fsck")).arg("-p").arg(rig.image("disk.img")));

    let _disk = rig.mount("disk.img");
    edge.start_again();
    record(&edge, "behind");
    assert!(kept_ms(&edge, "before") >= before_ms, "{:#?}", edge.ls());
}

#[test]
fn a_disk_that_is_exchanged_gets_its_own_ring_and_the_first_one_loses_nothing() {
    let rig = Rig::new();
    ["one.img", "two.img"].iter().for_each(|name| rig.make(name, DISK_BYTES));
    rig.make("small.img", DISK_BYTES / 2);
    let one = rig.mount("one.img");
    let mut edge = rig.start();
    let (pusher, one_ms) = record(&edge, "one");
    let identity = fs::read(edge.ring().join("ring.id")).expect("read");
    // One over the other: at no time nothing is there.
    let two = rig.mount("two.img");
    rig.notices(&mut edge, "disk swapped");
    ends(pusher);
    edge.start_again();
    let (pusher, two_ms) = record(&edge, "two");
    assert_eq!(kept_ms(&edge, "one"), 0, "it is on the other disk");

    // A copy of the first ring on a smaller card: its slots would not find their space.
    let small = rig.mount("small.img");
    fs::write(edge.ring().join("ring.id"), identity).expect("written");
    rig.notices(&mut edge, "disk swapped");
    ends(pusher);
    refuses(&edge, "disk too small");
    assert_eq!(fs::read_dir(edge.ring()).expect("there").count(), 1, "nothing was written");
    [small, two, one].into_iter().for_each(Mounted::unmount);

    for (name, stream, before_ms) in [("one.img", "one", one_ms), ("two.img", "two", two_ms)] {
        let disk = rig.mount(name);
        edge.start_again();
        assert!(kept_ms(&edge, stream) >= before_ms, "{stream}: {:#?}", edge.ls());
        edge.terminate(SOON);
        disk.unmount();
    }
}
