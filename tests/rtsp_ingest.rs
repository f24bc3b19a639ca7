//! RTSP ingest against a real RTSP server. The reference is what the server says it sent: access
//! units before its payloader, RTP headers after it.

#[path = "support/camera.rs"]
mod camera;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgerec::domain::sample::{Codec, Sample, Track};
use edgerec::domain::stream_key::StreamKey;
use edgerec::ingest::intake::{EndCause, Protocol};
use edgerec::ingest::rtsp::{Source, Transport, pull};
use edgerec::media::codec::nal::{NalUnits, h264_type, h265_type};
use edgerec::platform::clock::SystemClock;
use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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
        let source = Source::new(key, url, transport).expect("a camera address");
        let capture = Capture::new();
        let shutdown = CancellationToken::new();
        let clock = Arc::new(SystemClock::new());
        let task = tokio::spawn(pull(source, capture.clone(), clock, shutdown.clone()));
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

    let times = sent_timestamps(account, name);
    assert_eq!(times.len(), sent.len(), "one marked packet for each {name} unit");
    let origin = stream.origin(track.id);
    for (sample, rtp) in samples.iter().zip(&times[start..]) {
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
        assert!((sample.dts - sent - shift).abs() <= 1, "dts {} for {sent}", sample.dts);
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
    assert!((video - audio).abs() <= 21_000, "video {video} us, audio {audio} us");
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
