//! RTSP ingest against a real RTSP server. The reference is what the server says it sent: access
//! units before its payloader, RTP headers after it.

#[path = "support/camera.rs"]
mod camera;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgerec::domain::sample::{Codec, Sample, Track};
use edgerec::domain::source::Transport;
use edgerec::domain::stream_key::StreamKey;
use edgerec::ingest::admission::Admission;
use edgerec::ingest::intake::{EndCause, Protocol};
use edgerec::ingest::rtsp::pull;
use edgerec::media::codec::nal::{NalUnits, h264_type, h265_type};
use edgerec::platform::clock::SystemClock;
use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use camera::{Camera, Capture, Stream};

/// Long enough for a busy machine; a wait that succeeds takes a fraction.
const LIMIT: Duration = Duration::from_secs(60);
/// Length of streams with an end.
const SECONDS: u32 = 3;

/// A pull on its own task.
struct Pull {
    capture: Arc<Capture>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Pull {
    fn start(url: &url::Url, transport: Transport) -> Pull {
        let key = StreamKey::new("cams", "live", "gate").expect("valid");
        let source = camera::source(key, url, transport);
        let capture = Capture::new();
        let shutdown = CancellationToken::new();
        let clock = Arc::new(SystemClock::new());
        let admission = Admission::new(clock.clone());
        let task = tokio::spawn(pull(source, capture.clone(), admission, clock, shutdown.clone()));
        Pull { capture, shutdown, task }
    }

    /// The first stream, once it has ended.
    async fn first_ended(&self) -> Stream {
        let ended = |streams: &[Stream]| streams.first().is_some_and(|s| s.end().is_some());
        self.capture.wait("the end of a stream", LIMIT, ended).await.swap_remove(0)
    }

    /// Waits until the newest of `streams` streams has some samples.
    async fn delivering(&self, streams: usize) {
        let delivers = |seen: &[Stream]| {
            seen.len() >= streams && seen.last().is_some_and(|last| last.sample_count() >= 20)
        };
        self.capture.wait("samples", LIMIT, delivers).await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LIMIT, self.task).await.expect("pull returns").expect("no panic");
    }
}

// ---------------------------------------------------------------------------------------------
// Comparing with the camera's account

/// Size and SHA-256 of a sample in the camera's normal form: without delimiters (parameter sets
/// are not in samples anyway, which this would show).
fn fingerprint(codec: Codec, sample: &Sample) -> (u64, String) {
    let mut out = Vec::new();
    if codec.is_video() {
        for unit in NalUnits::new(&sample.data, 4) {
            let unit = unit.expect("a whole NAL unit");
            let delimiter = match codec {
                Codec::H264 => h264_type(unit) == Some(9),
                _ => h265_type(unit) == Some(35),
            };
            if !delimiter {
                out.extend_from_slice(&u32::try_from(unit.len()).expect("small").to_be_bytes());
                out.extend_from_slice(unit);
            }
        }
    } else {
        out.extend_from_slice(&sample.data);
    }
    (out.len() as u64, hex(&Sha256::digest(&out)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entries<'a>(account: &'a [Value], kind: &str, track: &str) -> Vec<&'a Value> {
    account.iter().filter(|entry| entry["kind"] == kind && entry["track"] == track).collect()
}

/// Nanoseconds to ticks, rounded down as the payloader does.
fn ticks(ns: i64, timescale: u32) -> i64 {
    let scaled = i128::from(ns) * i128::from(timescale);
    i64::try_from(scaled.div_euclid(1_000_000_000)).expect("fits")
}

/// RTP timestamps as sent, one per access unit.
fn sent_timestamps(account: &[Value], track: &str) -> Vec<u32> {
    entries(account, "packet", track)
        .into_iter()
        .filter(|packet| packet["marker"] == true || track == "audio")
        .map(|packet| u32::try_from(packet["rtp"].as_u64().expect("a number")).expect("32 bits"))
        .collect()
}

/// Every access unit or frame arrived whole, once, in order, from `start` of what was sent to its
/// end, with the sender's timestamps; returns `start`.
fn check_units(stream: &Stream, track: &Track, account: &[Value], name: &str) -> usize {
    let sent = entries(account, "unit", name);
    let samples = stream.samples(track.id);
    let prints: Vec<_> = samples.iter().map(|sample| fingerprint(track.codec, sample)).collect();
    let sent_prints: Vec<_> = sent
        .iter()
        .map(|unit| {
            let size = unit["size"].as_u64().expect("a size");
            (size, unit["sha256"].as_str().expect("a hash").to_owned())
        })
        .collect();
    let start = sent_prints.iter().position(|print| *print == prints[0]).expect("first is known");
    assert_eq!(prints, sent_prints[start..], "{name} of {:?}", stream.arrival.key);

    // Both accounts end with the stream; a unit before the first that came may have no packet.
    let times = sent_timestamps(account, name);
    assert!(times.len() <= sent.len() && times.len() >= samples.len(), "{name}: a marker a unit");
    let times = &times[times.len() - samples.len()..];
    let origin = stream.origin(track.id);
    for (sample, rtp) in samples.iter().zip(times) {
        assert_eq!((origin + sample.pts) as u32, *rtp, "RTP time of {name}");
    }
    let keys: Vec<bool> = samples.iter().map(|sample| sample.key).collect();
    let sent_keys: Vec<bool> = sent[start..].iter().map(|unit| unit["key"] == true).collect();
    assert_eq!(keys, sent_keys, "keys of {name}");
    start
}

/// The dts are the encoder's but for a constant.
fn check_dts(stream: &Stream, track: &Track, account: &[Value], start: usize) {
    let sent: Vec<i64> = entries(account, "unit", "video")[start..]
        .iter()
        .map(|unit| ticks(unit["dts"].as_i64().expect("ns"), track.timescale))
        .collect();
    let samples = stream.samples(track.id);
    let shift = samples[0].dts - sent[0];
    for (sample, sent) in samples.iter().zip(sent) {
        assert_eq!(sample.dts, sent + shift);
        assert!(sample.dts <= sample.pts && sample.dts >= 0);
    }
}

/// G.711: the octets are a stretch of those sent up to the end, with the packets' timestamps.
fn check_octets(stream: &Stream, track: &Track, account: &[Value]) {
    let sent: String = entries(account, "octets", "audio")
        .iter()
        .map(|entry| entry["data"].as_str().expect("hex").to_owned())
        .collect();
    let samples = stream.samples(track.id);
    let got: String = samples.iter().map(|sample| hex(&sample.data)).collect();
    assert!(sent.ends_with(&got), "octets differ");
    assert!(got.len() * 10 > sent.len() * 9, "at least nine tenths arrive");
    let times = sent_timestamps(account, "audio");
    let origin = stream.origin(track.id);
    let skipped = times.len() - samples.len();
    for (sample, rtp) in samples.iter().zip(&times[skipped..]) {
        assert_eq!((origin + sample.pts) as u32, *rtp);
    }
}

/// Audio and video lie on one axis as on the sender's: the same constant separates the running
/// time of both from the samples' time.
fn check_alignment(stream: &Stream, account: &[Value]) {
    let (tracks, _) = stream.tracks();
    let shift_us = |track: &Track, kind: &str, name: &str| {
        let last = entries(account, kind, name).pop().expect("sent")["pts"].as_i64().expect("ns");
        let sample = *stream.samples(track.id).last().expect("came");
        // The account has the last buffer; the last G.711 packet may begin inside it.
        sample.pts * 1_000_000 / i64::from(track.timescale) - last / 1_000
    };
    let video = shift_us(&tracks[0], "unit", "video");
    let kind = if tracks[1].codec == Codec::Aac { "unit" } else { "octets" };
    let audio = shift_us(&tracks[1], kind, "audio");
    let slack = if kind == "unit" { 100 } else { 20_000 };
    assert!((video - audio).abs() <= slack, "video {video} us, audio {audio} us");
}

fn check_session(stream: &Stream, account: &[Value], codecs: &[Codec]) {
    assert_eq!(stream.end(), Some(&EndCause::Finished));
    assert_eq!(stream.arrival.protocol, Protocol::Rtsp);
    let (tracks, _) = stream.tracks();
    assert_eq!(tracks.iter().map(|track| track.codec).collect::<Vec<_>>(), codecs);
    let start = check_units(stream, &tracks[0], account, "video");
    assert!(start <= 2, "{start} pictures at the start are missing");
    check_dts(stream, &tracks[0], account, start);
    match codecs.get(1) {
        Some(Codec::Aac) => {
            check_units(stream, &tracks[1], account, "audio");
            check_alignment(stream, account);
        }
        Some(_) => {
            check_octets(stream, &tracks[1], account);
            check_alignment(stream, account);
        }
        None => {}
    }
}

// ---------------------------------------------------------------------------------------------
// Tests

async fn every_codec_pair(transport: Transport) {
    let camera = Camera::start(SECONDS);
    let mounts: [(&str, &[Codec]); 4] = [
        ("/h264-aac", &[Codec::H264, Codec::Aac]),
        ("/h265-pcma", &[Codec::H265, Codec::PcmAlaw]),
        ("/h264-pcmu", &[Codec::H264, Codec::PcmUlaw]),
        ("/bframes-aac", &[Codec::H264, Codec::Aac]),
    ];
    for (mount, codecs) in mounts {
        let pull = Pull::start(&camera.url(mount), transport);
        let stream = pull.first_ended().await;
        // Only the first session's part of the account: the pull may have begun another.
        let mut account = camera.account(mount);
        let session = account[0]["session"].clone();
        account.retain(|entry| entry["session"] == session);
        check_session(&stream, &account, codecs);
        pull.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_pair_arrives_as_sent_over_tcp() {
    every_codec_pair(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_pair_arrives_as_sent_over_udp() {
    every_codec_pair(Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_track_that_cannot_be_carried_is_left_out_and_named() {
    let camera = Camera::start(1);
    let pull = Pull::start(&camera.url("/h264-opus"), Transport::Tcp);
    let stream = pull.first_ended().await;
    check_session(&stream, &camera.account("/h264-opus"), &[Codec::H264]);
    assert_eq!(stream.tracks().1, ["audio/opus: cannot be carried"]);
    pull.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_client_of_a_shared_pipeline_gets_the_same_units() {
    let camera = Camera::start(1);
    for transport in [Transport::Tcp, Transport::Udp] {
        let early = Pull::start(&camera.url("/shared"), transport);
        early.delivering(1).await;
        let late = Pull::start(&camera.url("/shared"), transport);
        late.delivering(1).await;
        let streams =
            [early.capture.streams().swap_remove(0), late.capture.streams().swap_remove(0)];
        early.stop().await;
        late.stop().await;
        let account = camera.account("/shared");
        for stream in &streams {
            let (tracks, _) = stream.tracks();
            let samples = stream.samples(tracks[0].id);
            let mut sent = entries(&account, "unit", "video").into_iter();
            // The server seeks back to the start for the second client: what was on its way to
            // the first one then is not sent.
            for sample in samples {
                let (_, print) = fingerprint(tracks[0].codec, sample);
                assert!(sent.any(|unit| unit["sha256"] == print), "{transport:?}: not in order");
            }
            assert!(stream.events.iter().all(|event| match event {
                camera::Event::Sample(sample) => sample.dts >= 0 && sample.dts < 10 * 90_000,
                _ => true,
            }));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_dies_is_pulled_again_when_it_is_back() {
    let camera = Camera::start(1);
    let port = camera.port;
    let pull = Pull::start(&camera.url("/endless"), Transport::Tcp);
    pull.delivering(1).await;
    drop(camera);
    let stream = pull.first_ended().await;
    assert!(matches!(stream.end(), Some(EndCause::Disconnected(_))), "{:?}", stream.end());
    let camera = Camera::start_on(port, 1);
    pull.delivering(2).await;
    drop(camera);
    pull.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_freezes_is_silent_after_ten_seconds_and_pulled_again() {
    let camera = Camera::start(1);
    let pull = Pull::start(&camera.url("/endless"), Transport::Udp);
    pull.delivering(1).await;
    camera.signal(Signal::SIGSTOP);
    assert_eq!(pull.first_ended().await.end(), Some(&EndCause::Silent));
    camera.signal(Signal::SIGCONT);
    pull.delivering(2).await;
    pull.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_sink_tears_down_and_the_camera_is_pulled_again() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let camera = Camera::start(1);
        let pull = Pull::start(&camera.url("/endless"), transport);
        pull.delivering(1).await;
        pull.capture.streams()[0].cancelled.cancel();
        assert_eq!(pull.first_ended().await.end(), Some(&EndCause::Cancelled));
        pull.delivering(2).await;
        let goodbyes = |camera: &Camera| {
            camera.account("/endless").iter().filter(|entry| entry["kind"] == "teardown").count()
        };
        assert_eq!(goodbyes(&camera), 1, "{transport:?}");
        let capture = pull.capture.clone();
        pull.stop().await;
        assert_eq!(capture.streams()[1].end(), Some(&EndCause::Cancelled));
        assert_eq!(goodbyes(&camera), 2, "{transport:?}");
    }
}

/// Takes connections and never answers; counts them.
async fn black_hole() -> (url::Url, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
            count.send_replace(held.len());
        }
    });
    (url::Url::parse(&format!("rtsp://127.0.0.1:{port}/")).expect("an address"), counted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_never_answers_disturbs_no_other_and_is_tried_again() {
    let (url, mut connections) = black_hole().await;
    let stuck = Pull::start(&url, Transport::Tcp);
    connections.changed().await.expect("a first connection");

    let camera = Camera::start(1);
    let pull = Pull::start(&camera.url("/h264"), Transport::Tcp);
    let stream = pull.first_ended().await;
    check_session(&stream, &camera.account("/h264"), &[Codec::H264]);
    pull.stop().await;

    let again = connections.wait_for(|count| *count >= 2);
    tokio::time::timeout(LIMIT, again).await.expect("tried again").expect("still counting");
    assert!(stuck.capture.streams().is_empty());
    stuck.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_said_once_and_tried_again_and_again() {
    let camera = Camera::start(1);
    let lines = LogLines::default();
    let _logged = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(lines.clone())
            .finish(),
    );
    let mut url = camera.url("/h264");
    url.set_password(Some("canary-word")).expect("has a host");
    let pull = Pull::start(&url, Transport::Tcp);
    let said = |level: &str| {
        let words = "the camera refuses the user or password";
        lines.text().lines().filter(|line| line.contains(words) && line.contains(level)).count()
    };
    let deadline = tokio::time::Instant::now() + LIMIT;
    let mut changed = lines.changed.subscribe();
    while said("DEBUG") < 2 {
        tokio::time::timeout_at(deadline, changed.changed())
            .await
            .expect("tried again")
            .expect("lines");
    }
    assert_eq!(said("WARN"), 1);
    assert!(pull.capture.streams().is_empty());
    pull.stop().await;
    let text = lines.text();
    assert!(!text.contains("canary-word"), "{text}");
}

/// Collects what is logged.
#[derive(Clone)]
struct LogLines {
    bytes: Arc<Mutex<Vec<u8>>>,
    changed: watch::Sender<()>,
}

impl Default for LogLines {
    fn default() -> Self {
        LogLines { bytes: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl LogLines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("not poisoned")).into_owned()
    }
}

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.lock().expect("not poisoned").extend_from_slice(bytes);
        self.changed.send_replace(());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LogLines;

    fn make_writer(&'a self) -> LogLines {
        self.clone()
    }
}
