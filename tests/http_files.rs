//! Files and metrics over HTTP, through the whole box: what a plain client gets by any ranges is
//! what `export` gives, real players play it, and nobody gets what is not theirs.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edgerec::domain::ids::FileId;
use edgerec::ring::catalog::files::Confirmed;
use edgerec::ring::handle::Ring;
use serde_json::Value;

use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::ffmpeg::Ffmpeg;
use support::media::Clip;
use support::packets::packets;
use support::process::run_ok;
use support::push::{Pace, push_file};
use support::recorded_ring::{Recording, Sent, open};
use support::wait::{wait_for, wait_until};
use support::{scratch, tool};

const SOON: Duration = Duration::from_secs(60);
const SECRET_KEY: &str = "canary-secret-key";
/// Readers that the box allows at the same time.
const READERS: usize = 8;
const SMALL: Clip =
    Clip { seconds: 12, fps: 25, gop: 50, b_frames: 2, video_kbps: 1_000, audio: true };
/// More than fits between the box and a client that takes nothing.
const BIG: Clip =
    Clip { seconds: 12, fps: 25, gop: 25, b_frames: 0, video_kbps: 8_000, audio: true };

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends one request as it is written here and reads until the box closes.
fn ask(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = send(to, method, target, headers);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the box answers and closes");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers = lines.map(|line| line.split_once(": ").expect("a header"));
    Answer {
        status: status.parse().expect("a number"),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: bytes[end + 4..].to_vec(),
    }
}

fn send(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("set");
    let mut request = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request.push_str(&format!("Host: {to}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).expect("sent");
    stream
}

fn fetch(edge: &EdgeBox, target: &str) -> Answer {
    ask(edge.api(), "GET", target, &[])
}

/// Where `/files/ID` leads to, as a path of the box.
fn path_of(edge: &EdgeBox, file_id: &str) -> String {
    let answer = fetch(edge, &format!("/files/{file_id}"));
    assert_eq!(answer.status, 302, "{answer:?}");
    let location = answer.header("location");
    assert!(location.starts_with(&format!("{file_id}/")), "relative: {location}");
    format!("/files/{location}")
}

/// Pushes a clip and waits until its files are finished.
fn record(edge: &EdgeBox, clip: &Path, files: usize) -> Vec<Value> {
    let log = edge.dir().join("push.log");
    push_file(clip, &edge.push_url("s"), Pace::Times(8), &log).finish_within(SOON);
    wait_for(SOON, "the files are finished", || {
        let rows = edge.ls();
        let finished = rows.iter().all(|row| row["state"] == "waiting");
        (rows.len() == files && finished).then_some(rows)
    })
}

fn id_of(rows: &[Value], format: &str) -> String {
    let row = rows.iter().find(|row| row["format"] == format).expect("a file of the format");
    row["file_id"].as_str().expect("digits").to_owned()
}

/// The value of every line of `/metrics`; fails the test at a line that Prometheus would refuse.
fn metrics(edge: &EdgeBox) -> BTreeMap<String, f64> {
    let answer = fetch(edge, "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body).expect("text");
    let mut typed = "";
    let mut values = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            typed = rest.split(' ').next().expect("a name");
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert_eq!(name.split('{').next(), Some(typed), "{line}");
        let value: f64 = value.parse().expect("a number");
        assert!(values.insert(name.to_owned(), value).is_none(), "twice: {line}");
    }
    values
}

#[test]
fn ranges_of_a_file_add_up_to_what_export_gives() {
    let edge = BoxPlan::default().rules(record_all(&["Flv", "Mp4", "Aac"])).start();
    let rows = record(&edge, &SMALL.flv(), 3);
    for (format, content_type) in
        [("flv", "video/x-flv"), ("mp4", "video/mp4"), ("aac", "audio/aac")]
    {
        let id = id_of(&rows, format);
        let expected = fs::read(edge.export_file(&id, &format!("e.{format}"))).expect("read");
        let path = path_of(&edge, &id);
        let whole = fetch(&edge, &path);
        assert_eq!((whole.status, whole.header("content-type")), (200, content_type));
        assert_eq!(whole.header("content-length"), expected.len().to_string());
        assert_eq!(whole.header("accept-ranges"), "bytes");
        assert!(whole.body == expected, "{format}: the whole file differs");
        let name = path.rsplit('/').next().expect("a name");
        let disposition = whole.header("content-disposition");
        assert!(disposition.contains(&format!("filename=\"{name}\"")), "{disposition}");

        let mut joined = Vec::new();
        let step = expected.len() / 7 + 1;
        while joined.len() < expected.len() {
            let range = format!("bytes={}-{}", joined.len(), joined.len() + step - 1);
            let answer = ask(edge.api(), "GET", &path, &[("Range", &range)]);
            assert_eq!(answer.status, 206);
            let last = (joined.len() + step).min(expected.len()) - 1;
            let told = format!("bytes {}-{last}/{}", joined.len(), expected.len());
            assert_eq!(answer.header("content-range"), told);
            joined.extend(answer.body);
        }
        assert!(joined == expected, "{format}: the ranges differ");
    }
}

#[test]
fn the_edges_of_ranges_and_tags() {
    let edge = BoxPlan::default().rules(record_all(&["Mp4"])).start();
    let rows = record(&edge, &SMALL.flv(), 1);
    let path = path_of(&edge, &id_of(&rows, "mp4"));
    let whole = fetch(&edge, &path);
    let (len, tag) = (whole.body.len(), whole.header("etag").to_owned());
    let get = |headers: &[(&str, &str)]| ask(edge.api(), "GET", &path, headers);

    let tail = get(&[("Range", "bytes=-10")]);
    assert_eq!((tail.status, &tail.body[..]), (206, &whole.body[len - 10..]));
    let one = get(&[("Range", &format!("bytes={}-", len - 1)), ("If-Range", &tag)]);
    assert_eq!((one.status, &one.body[..]), (206, &whole.body[len - 1..]));
    for behind in [format!("bytes={len}-"), "bytes=-0".to_owned()] {
        let answer = get(&[("Range", &behind)]);
        assert_eq!((answer.status, answer.body.len()), (416, 0), "{behind}");
        assert_eq!(answer.header("content-range"), format!("bytes */{len}"));
    }
    for whole_again in [
        &[("Range", "bytes=0-1"), ("If-Range", "\"other\"")][..],
        &[("Range", "bytes=0-1,5-6")],
        &[("Range", "bytes=9-1")],
    ] {
        let answer = get(whole_again);
        assert_eq!((answer.status, answer.body.len()), (200, len), "{whole_again:?}");
    }
    let known = get(&[("If-None-Match", &tag)]);
    assert_eq!((known.status, known.body.len()), (304, 0));
    let head = ask(edge.api(), "HEAD", &path, &[("Range", "bytes=0-1")]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), len.to_string());
    assert_eq!(head.header("etag"), tag);
    assert_eq!(ask(edge.api(), "POST", &path, &[]).status, 405);
}

#[test]
fn players_play_the_mp4_and_the_playlist() {
    let edge = BoxPlan::default().rules(record_all(&["Mp4", "Hls"])).start();
    let rows = record(&edge, &SMALL.flv(), 2);
    for (format, playlist) in [("mp4", ""), ("hls", "/index.m3u8")] {
        let id = id_of(&rows, format);
        let url = format!("http://{}/files/{id}{playlist}", edge.api());
        let exported = edge.export_file(&id, format);
        let exported = if format == "hls" { exported.join("index.m3u8") } else { exported };
        assert_eq!(packets(Path::new(&url)), packets(&exported), "{format}");
        Ffmpeg::System.assert_decodes(Path::new(&url));
    }
    let id = id_of(&rows, "hls");
    assert_eq!(path_of(&edge, &id), format!("/files/{id}/index.m3u8"));
    for entry in fs::read_dir(edge.dir().join("hls")).expect("listed") {
        let path = entry.expect("listed").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let answer = fetch(&edge, &format!("/files/{id}/{name}"));
        assert_eq!(answer.status, 200, "{name}");
        assert!(answer.body == fs::read(&path).expect("read"), "{name} differs");
    }
}

#[test]
fn what_is_not_there_and_who_may_not_ask() {
    let edge = BoxPlan::default().rules(record_all(&["Flv", "Hls"])).start();
    let rows = record(&edge, &SMALL.flv(), 2);
    let (flv, hls) = (id_of(&rows, "flv"), id_of(&rows, "hls"));
    for missing in [
        "/files/7".to_owned(),
        "/files/7/a.flv".to_owned(),
        "/files/x".to_owned(),
        "/files/-7".to_owned(),
        "/files/99999999999999999999999".to_owned(),
        format!("/files/+{flv}"),
        format!("/files/{flv}/a.mp4"),
        format!("/files/{flv}/.flv"),
        format!("/files/{flv}/a/b.flv"),
        format!("/files/{hls}/100000.ts"),
        format!("/files/{hls}/..%2Findex.m3u8"),
        format!("/files/{hls}/"),
        "/files".to_owned(),
    ] {
        let answer = fetch(&edge, &missing);
        assert_eq!(answer.status, 404, "{missing}");
    }
    let file = path_of(&edge, &flv);
    for target in [&file[..], &format!("/files/{flv}"), "/metrics"] {
        for (name, value) in [("Host", "evil.example"), ("Origin", "http://evil.example")] {
            let answer = ask(edge.api(), "GET", target, &[(name, value)]);
            assert_eq!(answer.status, 403, "{target} {name}");
            assert!(answer.body.len() < 200, "only why");
        }
    }
    assert_eq!(fetch(&edge, &file).status, 200);
}

/// The query that opens a path, by somebody else's HMAC.
fn signed(path: &str, expires_s: u64) -> String {
    let program = "import hmac,sys; print(hmac.new(sys.argv[1].encode(), \
                   sys.argv[2].encode(), 'sha256').hexdigest())";
    let mut command = Command::new(tool("python3"));
    command.args(["-c", program, SECRET_KEY, &format!("{path}?expires={expires_s}")]);
    let sig = String::from_utf8(run_ok(&command)).expect("hex");
    format!("expires={expires_s}&sig={}", sig.trim())
}

#[test]
fn with_a_secret_only_signed_urls_are_served() {
    let secret = format!("secret_id = \"me\"\nsecret_key = \"{SECRET_KEY}\"\n");
    let edge = BoxPlan::default().api_setting(&secret).rules(record_all(&["Mp4", "Hls"])).start();
    let rows = record(&edge, &SMALL.flv(), 2);
    let (mp4, hls) = (id_of(&rows, "mp4"), id_of(&rows, "hls"));
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for open in ["/healthz", "/metrics"] {
        assert_eq!(ask(edge.api(), "GET", open, &[("Host", "box.example")]).status, 200, "{open}");
    }

    let folder = format!("/files/{mp4}");
    let good = signed(&folder, now_s + 600);
    let expired = signed(&folder, now_s - 1);
    let file = format!("{folder}/x.mp4");
    let (kept, last) = good.split_at(good.len() - 1);
    let flipped = format!("{kept}{}", if last == "0" { "1" } else { "0" });
    for (target, status) in [
        (folder.clone(), 403),
        (file.clone(), 403),
        ("/files/7".to_owned(), 403),
        (format!("{folder}?{good}"), 302),
        (format!("{file}?{good}"), 200),
        (format!("{file}?{expired}"), 403),
        (format!("{file}?{}", good.replace("expires=1", "expires=2")), 403),
        (format!("{file}?{flipped}"), 403),
        (format!("/files/{hls}/index.m3u8?{good}"), 403),
        (format!("{file}?{}", signed(&file, now_s + 600)), 200),
        (format!("{folder}/y.mp4?{}", signed(&file, now_s + 600)), 403),
        (format!("{file}?{}", signed("/files", now_s + 600)), 403),
    ] {
        let answer = ask(edge.api(), "GET", &target, &[("Host", "box.example")]);
        assert_eq!(answer.status, status, "{target}");
    }

    let plays = |url: String, exported: &Path| {
        assert_eq!(packets(Path::new(&url)), packets(exported), "{url}");
    };
    let exported = edge.export_file(&mp4, "e.mp4");
    plays(format!("http://{}{folder}?{good}", edge.api()), &exported);
    let exported = edge.export_file(&hls, "e.hls").join("index.m3u8");
    let query = signed(&format!("/files/{hls}"), now_s + 600);
    let url = format!("http://{}/files/{hls}?{query}", edge.api());
    // Newer players look harder at the names of segments.
    Ffmpeg::Newest.assert_decodes(Path::new(&url));
    plays(url, &exported);
    // A signature for the playlist alone opens what the playlist names, and only until then.
    let path = format!("/files/{hls}/index.m3u8");
    let query = signed(&path, now_s + 600);
    plays(format!("http://{}{path}?{query}", edge.api()), &exported);
    assert_eq!(fetch(&edge, &format!("/files/{hls}/0.ts?{query}")).status, 403);
    assert!(!edge.log().contains(SECRET_KEY));
}

/// Slots that nothing was ever written to.
fn spare_slots(ring: &Arc<Ring>) -> usize {
    let figures = ring.catalog.call_blocking(|state| state.figures()).expect("counted");
    usize::try_from(figures.slots[0]).expect("few")
}

fn overwrite(ring: &Arc<Ring>, slots: usize) {
    let count = spare_slots(ring) + slots;
    let taken = ring.catalog.call_blocking(move |state| state.reserve(count)).expect("reserved");
    assert_eq!(taken.len(), count, "the plan finds as many");
}

fn deliver(ring: &Arc<Ring>, id: &str, url: &'static str, size: u64) {
    let id = FileId(id.parse().expect("digits"));
    let confirmed = Confirmed { url, size, sha256: "00", target_file_id: None };
    let delivered = ring.catalog.call_blocking(move |state| state.delivered(id, confirmed));
    delivered.expect("entered");
}

#[test]
fn media_that_left_the_ring_is_where_it_was_delivered_or_gone() {
    let plan = BoxPlan::default()
        .ring_setting("capacity", "\"32MiB\"")
        .ring_setting("slot", "\"1MiB\"")
        .rules(record_all(&["Flv"]));
    let mut edge = plan.prepare();
    edge.cli_ok(&["format"]);
    let (ring, threads) = open(edge.ring());
    let rules = record_all(&["Flv", "Mp4", "Hls", "Aac"]);
    let clip = Clip { video_kbps: 2_000, ..SMALL }.flv();
    let mut recording = Recording::begin(&ring, &rules, "cams/live/gate", 1);
    recording.feed(&ring, &Sent::of_flv(&clip));
    recording.end(&ring);
    let rows = edge.ls();
    let mut later = Recording::begin(&ring, &record_all(&["Flv", "Mp4"]), "cams/live/door", 2);
    later.feed(&ring, &Sent::of_flv(&SMALL.flv()));
    later.end(&ring);
    let door: Vec<Value> = edge.ls().into_iter().filter(|row| row["stream"] == "door").collect();
    let ids = ["flv", "mp4", "hls", "aac"].map(|format| id_of(&rows, format));
    let [flv, mp4, hls, aac] = &ids;
    let mp4_size = fs::metadata(edge.export_file(mp4, "e.mp4")).expect("there").len();
    deliver(&ring, mp4, "https://s3.example/box/a-1.mp4", mp4_size);
    deliver(&ring, hls, "http://s3.example/box/n-1/index.m3u8", 7);
    deliver(&ring, aac, "file:///media/usb/a-1.aac", 7);
    // Delivered with more than the ring has now: what is there is not all of it.
    deliver(&ring, &id_of(&door, "flv"), "https://s3.example/box/d-2.flv", 7);
    // Only the oldest slot: most of the media is still there, but no file is whole.
    overwrite(&ring, 1);
    threads.close(&ring);
    drop(ring);
    edge.start_again();
    let to = |target: String| {
        let answer = fetch(&edge, &target);
        (answer.status, answer.header("location").to_owned())
    };
    for target in [format!("/files/{mp4}"), format!("/files/{mp4}/x.mp4")] {
        assert_eq!(to(target), (302, "https://s3.example/box/a-1.mp4".to_owned()));
    }
    for (name, there) in [("", "index.m3u8"), ("/index.m3u8", "index.m3u8"), ("/0.ts", "0.ts")] {
        let there = format!("http://s3.example/box/n-1/{there}");
        assert_eq!(to(format!("/files/{hls}{name}")), (302, there));
    }
    let short = format!("/files/{}/x.flv", id_of(&door, "flv"));
    assert_eq!(to(short), (302, "https://s3.example/box/d-2.flv".to_owned()));
    assert_eq!(to(format!("/files/{}/x.mp4", id_of(&door, "mp4"))), (200, String::new()));
    for gone in [format!("/files/{flv}"), format!("/files/{flv}/x.flv"), format!("/files/{aac}")] {
        assert_eq!(to(gone.clone()), (410, String::new()), "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stop_reading_do_not_hold_up_the_box() {
    let edge = BoxPlan::default().start();
    let rows = record(&edge, &BIG.flv(), 1);
    let path = path_of(&edge, &id_of(&rows, "flv"));
    let mut stalled = Vec::new();
    for _ in 0..READERS {
        stalled.push(stalled_reader(edge.api(), &path).await);
    }
    let busy = fetch(&edge, &path);
    assert_eq!(busy.status, 503, "{}", String::from_utf8_lossy(&busy.body));
    assert!(busy.header("retry-after").parse::<u32>().is_ok_and(|wait_s| wait_s > 0));
    assert_eq!(fetch(&edge, "/healthz").status, 200);

    let before = metrics(&edge);
    let log = edge.dir().join("second.log");
    push_file(&SMALL.flv(), &edge.push_url("t"), Pace::Times(8), &log).finish_within(SOON);
    wait_until(SOON, "the other stream is recorded", || edge.ls().len() == 2);
    let after = metrics(&edge);
    assert_eq!(after["edgerec_fragments_dropped_total"], 0.0);
    let bytes = "edgerec_media_written_bytes_total";
    assert!(after[bytes] > before[bytes] + 1_000_000.0, "{before:?} {after:?}");

    drop(stalled);
    let whole = wait_for(SOON, "the readers that are gone make room", || {
        let answer = fetch(&edge, &path);
        (answer.status == 200).then_some(answer)
    });
    let exported = edge.export_file(&id_of(&rows, "flv"), "e.flv");
    assert!(whole.body == fs::read(exported).expect("read"));
}

/// Asks for a file, reads the start of the answer, and takes nothing any more.
async fn stalled_reader(to: SocketAddr, path: &str) -> tokio::net::TcpStream {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("set");
    let mut stream = socket.connect(to).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("answered");
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[test]
fn metrics_move_with_what_happens() {
    let outbox = scratch("outbox");
    let section =
        format!("[upload]\ntarget = \"directory\"\npath = {:?}", outbox.path().to_string_lossy());
    let edge = BoxPlan::default().sections(&section).rules(record_all(&["Mp4"])).start();
    let before = metrics(&edge);
    for zero in [
        "edgerec_media_written_bytes_total",
        "edgerec_fragments_written_total",
        "edgerec_delivered_bytes_total",
        "edgerec_live_sessions{decision=\"record\"}",
        "edgerec_files{state=\"recording\"}",
        "edgerec_sync_failures_total",
        "edgerec_upload_queue_files",
    ] {
        assert_eq!(before[zero], 0.0, "{zero}");
    }
    let version = format!("edgerec_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(before[&version], 1.0);
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let up_s = now_s - before["edgerec_start_time_seconds"];
    assert!((0.0..SOON.as_secs_f64()).contains(&up_s), "{up_s}");
    assert!(before["edgerec_catalog_bytes"] > 0.0);

    let clip = SMALL.flv();
    let log = edge.dir().join("push.log");
    let mut pusher = push_file(&clip, &edge.push_url("s"), Pace::RealLooped, &log);
    let live = wait_for(SOON, "a file grows", || {
        let now = metrics(&edge);
        (now["edgerec_files{state=\"recording\"}"] == 1.0).then_some(now)
    });
    assert_eq!(live["edgerec_live_sessions{decision=\"record\"}"], 1.0);
    assert!(live["edgerec_sync_age_seconds"] < 10.0);
    assert!(live["edgerec_slots{state=\"open\"}"] >= 1.0);
    // What is recorded can be fetched as it stands.
    let growing = fetch(&edge, &path_of(&edge, &id_of(&edge.ls(), "mp4")));
    assert_eq!((growing.status, growing.header("cache-control")), (200, "no-store"));
    let copy = edge.dir().join("growing.mp4");
    fs::write(&copy, growing.body).expect("written");
    Ffmpeg::System.assert_decodes(&copy);
    pusher.process().kill();

    let row = edge.file_within(SOON, |row| row["state"] == "delivered");
    let after = metrics(&edge);
    let size = row["size"].as_f64().expect("a number");
    assert_eq!(after["edgerec_delivered_bytes_total"], size);
    assert_eq!(after["edgerec_delivered_files_total"], 1.0);
    assert_eq!(after["edgerec_files{state=\"delivered\"}"], 1.0);
    assert_eq!(after["edgerec_live_sessions{decision=\"record\"}"], 0.0);
    assert!(after["edgerec_media_written_bytes_total"] > 0.9 * size, "{size} {after:?}");
    assert!(after["edgerec_syncs_total"] >= 1.0 && after["edgerec_fragments_written_total"] >= 1.0);
}
