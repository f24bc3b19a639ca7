//! The demo through the built binary: files on stdout, nothing left behind, and a second time.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

mod support;

use nix::sys::signal::Signal;
use support::edge_box::binary;
use support::process::{Process, Stdout, run_ok};
use support::wait::wait_until;
use support::{scratch, tool};

/// What is pushed on the command line of the tests, in seconds.
const SECONDS: f64 = 5.0;
const READY_WITHIN: Duration = Duration::from_secs(20);
const END_WITHIN: Duration = Duration::from_secs(60);

/// Where a demo of one test runs.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = scratch("demo");
        fs::create_dir(dir.path().join("tmp")).expect("made");
        Place { dir }
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(binary());
        command.arg("demo").args(arguments).arg("--dir").arg(self.dir.path().join("out"));
        command.env("TMPDIR", self.dir.path().join("tmp"));
        Process::start(&command, "edgerec demo", &self.log(), Stdout::Piped)
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("stderr.log")
    }

    fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Waits for the end; everything on stdout is a path. Nothing may be left in the temporary
    /// folder.
    #[track_caller]
    fn delivered(&self, mut demo: Process) -> Vec<PathBuf> {
        let status = demo.end_within(END_WITHIN);
        assert!(status.success(), "{status}: {}", demo.log_tail());
        let mut stdout = String::new();
        let mut pipe = demo.child().stdout.take().expect("stdout is piped");
        pipe.read_to_string(&mut stdout).expect("text");
        let left: Vec<_> = fs::read_dir(self.dir.path().join("tmp")).expect("there").collect();
        assert!(left.is_empty(), "{left:?}");
        stdout.lines().map(PathBuf::from).collect()
    }
}

/// What ffprobe says of a file: kinds of its tracks, and its length in seconds.
fn probe(path: &Path) -> (Vec<String>, f64) {
    let mut command = Command::new(tool("ffprobe"));
    command.args(["-v", "error", "-of", "json", "-show_entries", "stream=codec_name"]);
    command.args(["-show_entries", "packet=pts_time", "-show_packets"]).arg(path);
    let json: serde_json::Value =
        serde_json::from_slice(&run_ok(&command)).expect("ffprobe prints JSON");
    let mut tracks: Vec<String> = json["streams"]
        .as_array()
        .expect("streams")
        .iter()
        .map(|stream| stream["codec_name"].as_str().expect("named").to_owned())
        .collect();
    tracks.sort();
    let times = json["packets"].as_array().expect("packets").iter();
    let times: Vec<f64> =
        times.filter_map(|packet| packet["pts_time"].as_str()?.parse().ok()).collect();
    let first = times.iter().copied().fold(f64::INFINITY, f64::min);
    let last = times.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (tracks, last - first)
}

/// Checks one file of each format; gives their extensions.
#[track_caller]
fn check(paths: &[PathBuf], seconds: std::ops::Range<f64>) {
    let mut formats = Vec::new();
    for path in paths {
        let extension = path.extension().expect("a file").to_string_lossy().into_owned();
        let (tracks, length) = probe(path);
        let both = ["aac", "h264"];
        let expected = if extension == "aac" { &both[..1] } else { &both[..] };
        assert_eq!(tracks, expected, "{}", path.display());
        assert!(seconds.contains(&length), "{}: {length} s", path.display());
        formats.push(extension);
    }
    formats.sort();
    assert_eq!(formats, ["aac", "flv", "m3u8", "mp4"]);
}

/// A user's first minute, twice into the same folder.
#[test]
fn a_demo_delivers_a_file_of_each_format_and_leaves_nothing_behind() {
    let place = Place::new();
    let first = place.delivered(place.start(&["--seconds", "5"]));
    check(&first, SECONDS - 0.5..SECONDS + 0.5);
    let playlist = first.iter().find(|path| path.ends_with("index.m3u8"));
    assert!(playlist.is_some(), "{first:?}");
    let second = place.delivered(place.start(&["--seconds", "5"]));
    check(&second, SECONDS - 0.5..SECONDS + 0.5);
    assert!(second.iter().all(|path| !first.contains(path)));
    check(&first, SECONDS - 0.5..SECONDS + 0.5);
    assert!(place.logged().contains("4 files delivered"), "{}", place.logged());
}

/// Ctrl-C in the middle, with a stream of the user's own that is still on.
#[test]
fn an_interrupted_demo_delivers_what_there_is() {
    let place = Place::new();
    let demo = place.start(&[]);
    let push_line = || {
        let log = place.logged();
        let line = log.lines().find(|line| line.contains("ffmpeg -re"))?;
        Some(line.split_whitespace().last()?.to_owned())
    };
    let mut url = String::new();
    wait_until(READY_WITHIN, "the line that says how to push", || {
        url = push_line().unwrap_or_default();
        url.ends_with("/live/mine")
    });
    let clip = support::media::Clip { seconds: 30, ..Default::default() }.flv();
    let pace = support::push::Pace::Real;
    let log = place.dir.path().join("push.log");
    let pusher = support::push::push_file(&clip, &url, pace, &log);
    wait_until(READY_WITHIN, "three seconds of the user's stream", || pusher.sent_ms() >= 3_000);
    demo.signal(Signal::SIGINT);
    let paths = place.delivered(demo);
    let (mine, clip): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.into_iter().partition(|path| path.to_string_lossy().contains("/live/mine/"));
    check(&mine, 2.0..8.0);
    check(&clip, 2.0..20.0);
}

/// Nothing but a line of why, and exit code 1, when the ring has no room.
#[test]
fn without_room_the_demo_says_what_it_needs() {
    let place = Place::new();
    let mut command = Command::new(binary());
    command.args(["demo", "--seconds", "1", "--dir"]).arg(place.dir.path().join("out"));
    // This file system never has room.
    command.env("TMPDIR", "/proc");
    let output = support::process::run(&command);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the demo needs 272.0 MiB free in /proc"), "{stderr}");
}
