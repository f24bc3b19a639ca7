//! Boards: each folder is one that the box can be started with, and the box does what its board says.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use edgerec::config::Hardware;
use edgerec::platform::flash::SystemFlash;

use support::edge_box::BoxPlan;
use support::media::Clip;
use support::process::run;
use support::push::{Pace, push_file};
use support::wait::wait_until;
use support::{scratch, tool};

const SOON: Duration = Duration::from_secs(30);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("board")).expect("there");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("read").path()).collect();
    folders.sort();
    folders
}

/// A unit with a drop-in, as `systemd-analyze verify` wants them.
fn verify(dir: &Path, drop_in: &str) {
    let unit = fs::read_to_string(root().join("systemd/edgerec.service")).expect("read");
    let program = support::edge_box::binary();
    let here = |text: &str| text.replace("/usr/bin/edgerec", program.to_str().expect("text"));
    let path = dir.join("edgerec.service");
    fs::write(&path, here(&unit)).expect("written");
    let folder = dir.join("edgerec.service.d");
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("50-board.conf"), here(drop_in)).expect("written");
    let verified = run(Command::new(tool("systemd-analyze"))
        .args(["verify", "--man=no"])
        .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.display()))
        .arg(&path));
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
}

#[test]
fn every_board_is_whole_and_its_files_agree() {
    let folders = folders();
    assert!(folders.len() >= 6, "{folders:?}");
    for folder in folders {
        let name = folder.file_name().expect("named").to_str().expect("text").to_owned();
        let board = Hardware::load(&SystemFlash, folder.to_str().expect("text")).expect(&name);
        let read = |file: &str| fs::read_to_string(folder.join(file));
        let drop_in = read("edgerec.conf").expect("there is a drop-in");
        assert!(drop_in.contains(&format!("--board {name}\n")), "{name}: {drop_in}");
        verify(scratch("board").path(), &drop_in);
        if let Some(led) = &board.status_led {
            let led = led.to_str().expect("text");
            assert!(drop_in.contains(&format!("ReadWritePaths=-{led}/\n")), "{name}: {drop_in}");
            let kernel = Path::new(led).file_name().expect("named").to_str().expect("text");
            let rules = read("99-edgerec.rules").expect("the light may be switched");
            assert!(rules.contains(&format!("KERNEL==\"{kernel}\"")), "{name}: {rules}");
        }
        if let Some(watchdog) = &board.watchdog {
            let fed = read("watchdog.conf").expect("somebody feeds it");
            assert!(fed.contains(&format!("WatchdogDevice={}\n", watchdog.display())), "{fed}");
            assert!(fed.contains("RuntimeWatchdogSec="), "{name}: {fed}");
        }
    }
}

#[test]
fn the_data_partition_is_mounted_by_its_uuid_only() {
    let mount = root().join("systemd/data.mount");
    let verified =
        run(Command::new(tool("systemd-analyze")).args(["verify", "--man=no"]).arg(&mount));
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    let text = fs::read_to_string(mount).expect("read");
    let uuid = text.lines().find_map(|line| line.strip_prefix("What=/dev/disk/by-uuid/"));
    let name = fs::read_dir(root().join("systemd"))
        .expect("there")
        .map(|entry| entry.expect("read").file_name().into_string().expect("text"))
        .find(|name| name.ends_with("-edgerec-data.rules"));
    let name = name.expect("there are rules");
    // Which reads the UUID; rules are in the order of their names.
    assert!(name.as_str() > "60-persistent-storage.rules", "{name}");
    let rules = fs::read_to_string(root().join("systemd").join(name)).expect("read");
    let uuid = uuid.expect("by its UUID");
    assert!(rules.contains(&format!("ENV{{ID_FS_UUID}}==\"{uuid}\"")), "{rules}");
}

/// A board in a folder, with an LED of plain files.
fn plan(dir: &Path, mount: &Path) -> BoxPlan {
    let led = dir.join("led");
    fs::create_dir_all(&led).expect("made");
    fs::write(led.join("trigger"), "[heartbeat] none").expect("written");
    fs::write(led.join("brightness"), "0").expect("written");
    let toml = format!(
        "name = \"Bench\"\n[data]\nmount = {:?}\n[leds]\nstatus = {led:?}\n[thermal]\nzones = []\n",
        mount.to_str().expect("text")
    );
    fs::write(dir.join("board.toml"), toml).expect("written");
    BoxPlan::default().board(dir)
}

/// Where the scratch directories are mounted.
fn mount_point(path: &Path) -> PathBuf {
    let found = run(Command::new("findmnt").args(["-n", "-o", "TARGET", "--target"]).arg(path));
    PathBuf::from(String::from_utf8(found.stdout).expect("text").trim_end())
}

#[test]
fn the_light_tells_whether_the_box_waits_or_records() {
    let dir = scratch("board");
    let edge = plan(dir.path(), &mount_point(dir.path())).start();
    let led = dir.path().join("led");
    let lit = || fs::read_to_string(led.join("brightness")).expect("read") == "1";
    let trigger = || fs::read_to_string(led.join("trigger")).expect("read");
    wait_until(SOON, "the box took the light", || trigger() == "none");
    // It blinks while it waits.
    wait_until(SOON, "it is lit", lit);
    wait_until(SOON, "it is dark", || !lit());
    let clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: false };
    let log = edge.dir().join("push.log");
    let _pusher = push_file(&clip.flv(), &edge.push_url("cam"), Pace::RealLooped, &log);
    wait_until(SOON, "it is lit", lit);
    // On for longer than a blink and its pause.
    let mut looks = 0;
    wait_until(SOON, "it stays lit", || {
        looks = if lit() { looks + 1 } else { 0 };
        looks > 150
    });
}

#[test]
fn a_ring_beside_the_data_partition_is_refused() {
    let dir = scratch("board");
    let refused = |mount: &Path| {
        let edge = plan(dir.path(), mount).prepare();
        edge.cli_ok(&["format"]);
        let (status, said) = edge.run_to_its_end(SOON);
        assert_eq!(status.code(), Some(64), "{said}");
        said
    };
    let elsewhere = refused(Path::new("/proc"));
    assert!(elsewhere.contains("Bench keeps its ring on /proc, and [ring] path is"), "{elsewhere}");
    let unmounted = refused(dir.path().parent().expect("in a folder"));
    assert!(unmounted.contains("which is not mounted"), "{unmounted}");
}
