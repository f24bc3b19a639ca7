//! The commands as their users meet them: the built binary over rings that the library made.

mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use edgerec::api::control::{BoxKnowledge, ControlSocket, socket_path};
use edgerec::api::report::Transfer;
use edgerec::domain::matching::Decision;
use edgerec::domain::stream_key::StreamKey;
use edgerec::platform::flash::{Flash, FlashFile, FlashLock, Open, Space, SystemFlash};
use edgerec::ring::catalog::files::FileRecord;
use edgerec::ring::fsck;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use support::edge_box::{BoxPlan, EdgeBox, binary, record_all};
use support::media::Clip;
use support::packets::{assert_stretch_of, packets};
use support::process::run;
use support::recorded_ring::{BEGAN_MS, Recording, Sent, open};
use support::scratch;
use support::wait::wait_until;

const KEY: &str = "cams/live/gate";

/// A box that does not run, over a small ring; rules record FLV, MP4 and HLS.
fn still_box() -> EdgeBox {
    let plan = BoxPlan::default()
        .ring_setting("capacity", "\"32MiB\"")
        .ring_setting("slot", "\"1MiB\"")
        .rules(record_all(&["Flv", "Mp4", "Hls"]));
    let edge = plan.prepare();
    edge.cli_ok(&["format"]);
    edge
}

/// Made once, also when the tests are threads of one process.
fn clip() -> PathBuf {
    static MADE: LazyLock<PathBuf> =
        LazyLock::new(|| Clip { seconds: 12, b_frames: 2, ..Clip::default() }.flv());
    MADE.clone()
}

/// Records the clip into the ring of a box that does not run.
fn record(edge: &EdgeBox) {
    let (ring, threads) = open(edge.ring());
    let rules = record_all(&["Flv", "Mp4", "Hls"]);
    let mut recording = Recording::begin(&ring, &rules, KEY, 1);
    recording.feed(&ring, &Sent::of_flv(&clip()));
    recording.end(&ring);
    threads.close(&ring);
}

fn edgerec(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments);
    run(&command)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every file below a folder, with its content and time of change.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("listed") {
            let path = entry.expect("listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let changed = path.metadata().and_then(|meta| meta.modified()).expect("read");
                found.insert(path.clone(), (fs::read(&path).expect("read"), changed));
            }
        }
    }
    found
}

fn row_of<'a>(rows: &'a [Value], format: &str) -> &'a Value {
    rows.iter().find(|row| row["format"] == format).expect("a row of that format")
}

#[test]
fn what_is_not_understood_says_2_and_what_is_misconfigured_says_64() {
    for bad in [&["sing"][..], &[], &["export"], &["ls", "--wath"], &["explain", "a/b"]] {
        let output = edgerec(bad);
        assert_eq!(output.status.code(), Some(2), "{bad:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{bad:?}");
    }
    assert!(stdout(&edgerec(&["--version"])).contains(env!("CARGO_PKG_VERSION")));
    let dir = scratch("config");
    let path = dir.path().join("edgerec.toml");
    fs::write(&path, "[ring]\nslot = \"3 bytes\"\nsize = 1\n[rtmp]\nlisten = 7\n")
        .expect("written");
    let config = path.to_string_lossy().into_owned();
    for command in ["run", "format", "ls", "fsck", "check-config"] {
        let output = edgerec(&[command, "--config", &config]);
        assert_eq!(output.status.code(), Some(64), "{command}: {}", stderr(&output));
        for fault in ["ring.slot", "ring.size", "rtmp.listen", "line 2", "line 3", "line 5"] {
            assert!(stderr(&output).contains(fault), "{command}: {}", stderr(&output));
        }
    }
    let output = edgerec(&["check-config", "--json", "--config", &config]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(stdout(&output).lines().count(), 4);
    let output = edgerec(&["ls", "--config", "no/such/file.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("no/such/file.toml"));
}

#[test]
fn a_ring_is_made_once_and_a_missing_one_is_named() {
    let edge = BoxPlan::default().ring_setting("capacity", "\"32MiB\"").prepare();
    let ring = edge.ring().display().to_string();
    for command in [&["ls"][..], &["fsck"], &["export", "--file", "7", "-o", "x"]] {
        let output = edge.cli(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(&ring), "{}", stderr(&output));
    }
    let made: Value = serde_json::from_str(&edge.cli_ok(&["format", "--json"])).expect("JSON");
    assert_eq!((&made["slots"], &made["capacity_bytes"]), (&6.into(), &(32 << 20).into()));
    let before = tree(edge.ring());
    let again = edge.cli(&["format"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("already holds a ring"), "{}", stderr(&again));
    assert_eq!(edge.ls(), [] as [Value; 0]);
    assert!(edge.cli_ok(&["fsck"]).contains("no damage"));
    assert_eq!(tree(edge.ring()), before);
}

#[test]
fn a_ring_at_rest_is_listed_explained_and_exported_and_not_touched() {
    let edge = still_box();
    record(&edge);
    let before = tree(edge.ring());
    let rows = edge.ls();
    assert_eq!(rows.len(), 3, "{rows:#?}");
    let flv = row_of(&rows, "flv");
    assert_eq!((flv["domain"].as_str(), flv["state"].as_str()), (Some("cams"), Some("waiting")));
    assert_eq!(flv["start_ms"], BEGAN_MS);
    let media_bytes = clip().metadata().expect("there").len();
    assert!(flv["size"].as_u64() > Some(media_bytes * 9 / 10), "{flv}");
    assert_eq!(flv["tracks"], serde_json::json!(["h264", "aac"]));
    assert!(edge.cli_ok(&["ls"]).contains(KEY));

    let sent = packets(&clip());
    let file = edge.export_file(flv["file_id"].as_str().expect("text"), "file.flv");
    assert_eq!(packets(&file).len(), sent.len());
    assert_stretch_of(&packets(&file), &sent, "the file");
    let range = edge.export_all(KEY, "flv", "range.flv").expect("exported");
    assert_stretch_of(&packets(&range), &sent, "the range");
    let mp4 = edge.export_all(KEY, "mp4", "range.mp4").expect("exported");
    assert_eq!(packets(&mp4).len(), sent.len());
    let hls = edge.export_all(KEY, "hls", "range").expect("exported");
    assert!(packets(&hls.join("index.m3u8")).len() >= sent.len());

    let key = ["export", KEY, "--format", "flv", "-o"];
    let nothing = edge.dir().join("nothing.flv").to_string_lossy().into_owned();
    let early = [&key[..], &[&nothing, "--to", "2020-01-01T00:00:00Z"]].concat();
    let output = edge.cli(&early);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nothing of cams/live/gate"), "{}", stderr(&output));
    let output = edge.cli(&["export", "--file", "7", "-o", &nothing]);
    assert!(stderr(&output).contains("file 7"), "{}", stderr(&output));
    assert!(!Path::new(&nothing).exists());

    let then = edge.cli_ok(&["explain", KEY, "--at", "2027-01-15T08:00:05Z", "--json"]);
    let then: Value = serde_json::from_str(&then).expect("JSON");
    assert_eq!((&then["decision"], &then["template"]), (&"record".into(), &"all".into()));
    let now = edge.cli_ok(&["explain", "cams/other/gate", "--json"]);
    let now: Value = serde_json::from_str(&now).expect("JSON");
    assert_eq!((&now["decision"], &now["rule"]), (&"unmatched".into(), &Value::Null));
    assert!(edge.cli_ok(&["fsck"]).contains("no damage"));
    assert_eq!(tree(edge.ring()), before, "something was written below the ring");
    let left = fs::read_dir(edge.dir()).expect("listed");
    let partial = left.filter(|entry| {
        let name = entry.as_ref().expect("listed").file_name();
        name.to_string_lossy().ends_with(".partial")
    });
    assert_eq!(partial.count(), 0);
}

#[test]
fn what_a_crash_left_is_seen_without_repairing_it() {
    let edge = still_box();
    let (ring, threads) = open(edge.ring());
    let mut recording = Recording::begin(&ring, &record_all(&["Flv"]), KEY, 1);
    recording.feed(&ring, &Sent::of_flv(&clip()));
    // A second box whose ring is what a power cut would leave of the first.
    let crashed = BoxPlan::default().prepare();
    for (path, (content, _)) in tree(edge.ring()) {
        let to = crashed.ring().join(path.strip_prefix(edge.ring()).expect("below"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::write(to, content).expect("copied");
    }
    recording.end(&ring);
    threads.close(&ring);
    let before = tree(crashed.ring());
    let rows = crashed.ls();
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let duration_ms = rows[0]["duration_ms"].as_i64().expect("a number");
    assert!(duration_ms >= 9_000, "only {duration_ms} ms are seen");
    let file = crashed.export_file(rows[0]["file_id"].as_str().expect("text"), "crashed.flv");
    assert_stretch_of(&packets(&file), &packets(&clip()), "after the crash");
    let fsck = crashed.cli(&["fsck"]);
    assert_eq!(fsck.status.code(), Some(0), "{}{}", stdout(&fsck), stderr(&fsck));
    assert_eq!(tree(crashed.ring()), before);
}

/// Where fragments and segments begin in a slot.
fn boxes(slot: &[u8], kind: &[u8; 4]) -> Vec<usize> {
    (0..slot.len()).step_by(4_096).filter(|at| &slot[at + 4..at + 8] == kind).collect()
}

#[test]
fn fsck_names_the_slot_and_the_place_of_a_flipped_bit() {
    let edge = still_box();
    record(&edge);
    assert_eq!(edge.cli(&["fsck"]).status.code(), Some(0));
    let mut flips = 0;
    for index in 0..24 {
        let path = edge.ring().join(format!("slots/{index:06}.mp4"));
        let whole = fs::read(&path).expect("read");
        let fragments = boxes(&whole, b"moof");
        let Some(first) = fragments.first() else { continue };
        let middle = fragments[fragments.len() / 2];
        let flipped = [
            // Media, a moof, the head of a segment, each told where its box begins.
            (middle + 3_000, middle),
            (middle + 20, middle),
            (*first + 5, *first),
            (100, 0),
        ];
        for (at, begins) in flipped {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).expect("written");
            let output = edge.cli(&["fsck", "--json"]);
            assert_eq!(output.status.code(), Some(1), "slot {index} byte {at}");
            let lines = stdout(&output);
            let first: Value =
                serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
            assert_eq!(
                (&first["slot"], &first["offset"]),
                (&index.into(), &begins.into()),
                "{lines}"
            );
            flips += 1;
        }
        fs::write(&path, &whole).expect("written");
    }
    assert!(flips >= 8, "the recording fills two slots at least, {flips} bits were flipped");
    let output = edge.cli(&["fsck"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));

    let slot = edge.ring().join("slots/000000.mp4");
    let whole = fs::read(&slot).expect("read");
    fs::write(&slot, &whole[..5_000]).expect("cut");
    let output = edge.cli(&["fsck"]);
    assert!(stdout(&output).contains("slot 0 byte 5000: the file is too short"), "{output:?}");
    fs::write(&slot, &whole).expect("written");
    fs::write(edge.ring().join("state.db"), vec![7; 9_000]).expect("damaged");
    let output = edge.cli(&["fsck"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("catalog: state.db is damaged"), "{}", stdout(&output));
    fs::remove_file(edge.ring().join("state.db")).expect("removed");
    let output = edge.cli(&["fsck"]);
    assert!(stdout(&output).contains("catalog: state.db is missing"), "{}", stdout(&output));
    assert!(!edge.ring().join("state.db").exists(), "fsck repairs nothing");
}

#[test]
fn a_slot_that_grows_is_good_up_to_its_last_seal_and_whole_before_it() {
    let edge = BoxPlan::default().ring_setting("capacity", "\"64MiB\"").prepare();
    edge.cli_ok(&["format"]);
    let (ring, threads) = open(edge.ring());
    let mut recording = Recording::begin(&ring, &record_all(&["Flv"]), KEY, 1);
    recording.feed(&ring, &Sent::of_flv(&clip()));
    // One slot holds it all, and the catalog has no row of it yet.
    let slot = edge.ring().join("slots/000000.mp4");
    let whole = fs::read(&slot).expect("read");
    let fragments = boxes(&whole, b"moof");
    let (second, last) = (fragments[1], fragments[fragments.len() - 1]);
    let flip = |at: usize| {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&slot, &damaged).expect("written");
        edge.cli(&["fsck"])
    };
    let torn = flip(last + 3_000);
    assert_eq!(torn.status.code(), Some(0), "a torn end is no damage: {}", stdout(&torn));
    let broken = flip(second + 3_000);
    assert_eq!(broken.status.code(), Some(1));
    let place = format!("slot 0 byte {second}: the checksum does not agree");
    assert!(stdout(&broken).contains(&place), "{}", stdout(&broken));
    fs::write(&slot, &whole).expect("written");
    recording.end(&ring);
    threads.close(&ring);
}

/// A file system on which the box reuses slot 0 the moment that somebody begins to read it.
struct Reusing {
    ring: PathBuf,
    reused: AtomicBool,
}

impl Flash for Reusing {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FlashFile>> {
        if path.ends_with("slots/000000.mp4") && !self.reused.swap(true, Ordering::Relaxed) {
            let db = rusqlite::Connection::open(self.ring.join("state.db")).expect("opens");
            db.execute_batch(
                "UPDATE slot SET generation = generation + 1, state = 1 WHERE slot = 0;
                 DELETE FROM segment WHERE slot = 0; DELETE FROM span WHERE slot = 0;
                 UPDATE file SET state = 6",
            )
            .expect("entered");
            fs::write(path, vec![0; 1 << 20]).expect("written");
        }
        SystemFlash.open(path, how)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        panic!("{} is made", path.display())
    }

    fn rename(&self, from: &Path, _: &Path) -> io::Result<()> {
        panic!("{} is renamed", from.display())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        panic!("{} is removed", path.display())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        SystemFlash.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        SystemFlash.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        SystemFlash.exists(path)
    }

    fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        SystemFlash.modified(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        SystemFlash.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FlashLock>> {
        SystemFlash.lock(path)
    }
}

#[test]
fn a_slot_that_is_reused_while_it_is_read_is_read_again() {
    let edge = still_box();
    record(&edge);
    let reusing = Reusing { ring: edge.ring().to_owned(), reused: AtomicBool::new(false) };
    let reusing = Arc::new(reusing);
    let flash: Arc<dyn Flash> = reusing.clone();
    let found = fsck::check(&flash, edge.ring(), Duration::from_secs(1)).expect("checked");
    assert!(reusing.reused.load(Ordering::Relaxed), "slot 0 was never read");
    assert_eq!(found.damages, []);
    assert!(found.slots >= 1 && found.fragments > 0, "{found:?}");
}

/// What a box would know beside its ring.
struct Known;

impl BoxKnowledge for Known {
    fn decision(&self, _: &StreamKey) -> Option<Decision> {
        Some(Decision::Unmatched)
    }

    fn transfer(&self, _: &FileRecord) -> Option<Transfer> {
        None
    }
}

#[test]
fn a_running_box_is_asked_and_its_ring_may_be_checked_while_it_turns() {
    let edge = still_box();
    let (ring, threads) = open(edge.ring());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let socket = runtime.block_on(async { ControlSocket::bind(edge.ring()) }).expect("bound");
    let served = socket.run(ring.clone(), Arc::new(Known), tasks.clone(), shutdown.clone());
    runtime.spawn(tasks.track_future(served));

    let sent = Sent::of_flv(&clip());
    let mut recording = Recording::begin(&ring, &record_all(&["Flv", "Hls"]), KEY, 1);
    recording.feed(&ring, &sent);
    let rows = edge.ls();
    let flv = row_of(&rows, "flv");
    assert_eq!(flv["state"], "recording", "the box knows what grows");
    let file = edge.export_file(flv["file_id"].as_str().expect("text"), "growing.flv");
    assert_stretch_of(&packets(&file), &packets(&clip()), "a growing file");
    let hls = edge.export_all(KEY, "hls", "growing").expect("exported");
    assert!(!packets(&hls.join("index.m3u8")).is_empty());
    let refused = edge.export_all("cams/live/none", "mp4", "none.mp4").expect_err("nothing there");
    assert!(refused.contains("nothing of cams/live/none"), "{refused}");
    let explained = edge.cli_ok(&["explain", KEY]);
    assert!(explained.contains("no rule matches"), "the box was not asked: {explained}");
    let then = edge.cli_ok(&["explain", KEY, "--at", "2027-01-15T08:00:02Z"]);
    assert!(then.contains("cams/live/gate: record"), "{then}");

    // Questions that are none, and a client that goes away in the middle of an export.
    for (asked, answer) in [("{}\n", "no question"), ("x", "breaks off"), ("[1]\n", "no question")]
    {
        let mut stream = UnixStream::connect(socket_path(edge.ring())).expect("connects");
        stream.write_all(asked.as_bytes()).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("answered");
        assert!(line.starts_with(r#"{"error":"#) && line.contains(answer), "{line}");
    }
    let mut stream = UnixStream::connect(socket_path(edge.ring())).expect("connects");
    let order = format!("{{\"request\":\"export\",\"stream\":\"{KEY}\",\"format\":\"mp4\"}}\n");
    stream.write_all(order.as_bytes()).expect("sent");
    let mut header = String::new();
    BufReader::new(&stream).read_line(&mut header).expect("answered");
    assert!(header.starts_with(r#"{"format":"mp4","objects""#), "{header}");
    drop(stream);
    wait_until(Duration::from_secs(10), "the export gives up", || tasks.len() == 1);

    // The ring turns over more than once while it is checked.
    let turning = std::thread::scope(|scope| {
        let (ring, sent) = (&ring, &sent);
        let feeding = scope.spawn(move || {
            for _ in 0..20 {
                recording.feed(ring, sent);
            }
            recording
        });
        let mut checks = 0;
        while !feeding.is_finished() || checks == 0 {
            let output = edge.cli(&["fsck"]);
            let said = stdout(&output);
            assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
            checks += 1;
        }
        assert!(checks > 1, "the ring was checked only once");
        feeding.join().expect("fed")
    });
    let rows = edge.ls();
    let formats: HashSet<&str> = rows.iter().filter_map(|row| row["format"].as_str()).collect();
    assert_eq!(formats, HashSet::from(["flv", "hls"]));
    turning.end(&ring);
    shutdown.cancel();
    tasks.close();
    let all_end = async { tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await };
    runtime.block_on(all_end).expect("nobody keeps the ring");
    assert!(!socket_path(edge.ring()).exists());
    threads.close(&ring);
    assert!(edge.cli_ok(&["fsck"]).contains("no damage"));
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let edge = still_box();
    let socket = UnixListener::bind(socket_path(edge.ring())).expect("bound");
    let path = edge.dir().join("broken.mp4").to_string_lossy().into_owned();
    let header = r#"{"format":"mp4","objects":[{"name":"","bytes":10}],"dropped_tracks":[]}"#;
    let half = format!("{header}\nhalf!");
    let told = |answer: &str, command: &[&str]| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = socket.accept().expect("accepted");
                BufReader::new(&client).read_line(&mut String::new()).expect("asked");
                client.write_all(answer.as_bytes()).expect("answered");
            });
            let output = edge.cli(command);
            assert_eq!(output.status.code(), Some(1), "{command:?}: {}", stdout(&output));
            stderr(&output)
        })
    };
    let export = ["export", "--file", "7", "-o", &path];
    assert!(told(&half, &export).contains("broke off after 5 of 10 bytes"));
    assert!(told(header, &export).contains("broke off its answer"));
    assert!(told("{}\n", &export).contains("another version"));
    let mut names =
        fs::read_dir(edge.dir()).expect("listed").map(|e| e.expect("listed").file_name());
    assert!(names.all(|name| !name.to_string_lossy().contains("broken")));
    assert!(told("", &["ls"]).contains("broke off its answer"));
    assert!(told("{\"listed\":3}\n", &["ls"]).contains("not whole"));
    assert!(told("{\"error\":\"no \\u001b[2J\"}\n", &["ls"]).contains("no \\u{1b}[2J"));
}
