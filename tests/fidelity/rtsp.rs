//! Cameras over RTSP: the reference is the camera's own account of what it sent.

use serde_json::{Value, json};

use crate::clip::{Codecs, DELIVERED_WITHIN, assert_frames};
use crate::support::camera::Camera;
use crate::support::edge_box::{BoxPlan, record_all};
use crate::support::outbox::{Outbox, joined};
use crate::support::scratch;
use crate::support::units::{Audio, Media, Units, Video, hex};

const SECONDS: u32 = 6;
/// RTP time is rounded once by the camera's payloader, and the tracks are aligned by its reports.
const ALIGNED_WITHIN_S: f64 = 0.000_1;
/// The camera's account times G.711 by buffers that need not end where packets do.
const OCTETS_ALIGNED_WITHIN_S: f64 = 0.020;

const MOUNTS: [(&str, Codecs); 3] = [
    ("h264-aac", Codecs::H264_AAC),
    ("bframes-aac", Codecs::H264_AAC),
    ("h265-pcma", Codecs { video: Some(Video::H265), audio: Some(Audio::G711) }),
];

#[test]
fn cameras_over_tcp() {
    pull_and_compare("tcp");
}

#[test]
fn cameras_over_udp() {
    pull_and_compare("udp");
}

fn pull_and_compare(transport: &str) {
    let camera = Camera::start(SECONDS);
    let mut rules = record_all(&["Flv", "Hls", "Mp4", "Aac"]);
    let source = |(mount, _): &(&str, Codecs)| {
        let url = camera.url(&format!("/{mount}"));
        json!({"DomainName": "cams", "AppName": "live", "StreamName": mount,
               "Url": url.as_str(), "Transport": transport})
    };
    rules["sources"] = MOUNTS.iter().map(source).collect();
    let outbox = Outbox::new();
    let edge = BoxPlan::default().sections(&outbox.section()).rules(rules).start();
    for (mount, codecs) in MOUNTS {
        let sent = Sent::of(&camera, &outbox, mount, codecs);
        sent.compare(&outbox);
    }
    drop(edge);
}

/// What the camera says of the first session of a mount.
struct Sent {
    stream: String,
    codecs: Codecs,
    account: Vec<Value>,
}

impl Sent {
    /// Waits for the first file, so that the account is whole.
    fn of(camera: &Camera, outbox: &Outbox, mount: &str, codecs: Codecs) -> Sent {
        let stream = format!("cams/live/{mount}");
        outbox.wait(&stream, "flv", 1, DELIVERED_WITHIN);
        let mut account = camera.account(&format!("/{mount}"));
        let session = account[0]["session"].clone();
        account.retain(|entry| entry["session"] == session);
        Sent { stream, codecs, account }
    }

    fn compare(&self, outbox: &Outbox) {
        let first = |format: &str| {
            let path = outbox.wait(&self.stream, format, 1, DELIVERED_WITHIN).swap_remove(0);
            self.codecs.reader().assert_decodes(&path);
            path
        };
        let mp4 = self.codecs.read(&first("mp4"));
        self.assert_units("mp4", &mp4);
        self.assert_rtp_times(&mp4);
        let flv = self.codecs.read(&first("flv"));
        self.assert_units("flv", &flv);
        let scratch = scratch("joined");
        let hls = self.codecs.read(&joined(&first("hls"), scratch.path()));
        self.assert_units("hls", &hls);
        if self.codecs.audio == Some(Audio::Aac) {
            assert_frames("aac", &first("aac"), &mp4.audio.units);
        }
    }

    fn entries(&self, kind: &str, track: &str) -> Vec<&Value> {
        let wanted = |entry: &&Value| entry["kind"] == kind && entry["track"] == track;
        self.account.iter().filter(wanted).collect()
    }

    /// Every unit came once, in order and whole, from the first one kept to the last one sent; and
    /// one shift brings all times of both tracks onto the camera's, within a tick.
    fn assert_units(&self, what: &str, seen: &Media) {
        let what = format!("{} {what}", self.stream);
        let mut shifts = Shifts::default();
        let pictures = self.entries("unit", "video");
        let kept = kept_units(&what, &seen.video, &pictures);
        for (unit, sent) in seen.video.units.iter().zip(kept) {
            assert_eq!(unit.key, sent["key"] == true, "{what}: {unit:?}");
            shifts.add(unit.pts, sent["pts"].as_i64(), seen.video.ticks_per_s);
            shifts.add(unit.dts, sent["dts"].as_i64(), seen.video.ticks_per_s);
        }
        if self.codecs.audio == Some(Audio::Aac) {
            let frames = self.entries("unit", "audio");
            let kept = kept_units(&what, &seen.audio, &frames);
            for (unit, sent) in seen.audio.units.iter().zip(kept) {
                shifts.add(unit.pts, sent["pts"].as_i64(), seen.audio.ticks_per_s);
            }
            shifts.assert_one(&what, ALIGNED_WITHIN_S);
        } else {
            self.assert_octets(&what, &seen.audio, &mut shifts);
            shifts.assert_one(&what, OCTETS_ALIGNED_WITHIN_S);
        }
    }

    /// The octets are those sent to the end, and time runs with them.
    fn assert_octets(&self, what: &str, seen: &Units, shifts: &mut Shifts) {
        let entries = self.entries("octets", "audio");
        let data = |entry: &&Value| entry["data"].as_str().expect("hex").to_owned();
        let sent: String = entries.iter().map(data).collect();
        let got: String = seen.units.iter().map(|unit| hex(&unit.data)).collect();
        assert!(sent.ends_with(&got), "{what}: octets differ");
        assert!(got.len() * 10 > sent.len() * 9, "{what}: at least nine tenths are kept");
        let begin = entries[0]["pts"].as_i64().expect("ns");
        let mut octets = (sent.len() - got.len()) / 2;
        for unit in &seen.units {
            let at_ns = begin + i64::try_from(octets).expect("few") * 125_000;
            shifts.add(unit.pts, Some(at_ns), seen.ticks_per_s);
            octets += unit.data.len();
        }
    }

    /// In the ticks of the source nothing is rounded at all.
    fn assert_rtp_times(&self, mp4: &Media) {
        assert_rtp(&self.stream, &mp4.video, &self.rtp_times("video"));
        if self.codecs.audio == Some(Audio::Aac) {
            assert_rtp(&self.stream, &mp4.audio, &self.rtp_times("audio"));
        }
    }

    /// RTP timestamps as sent, one for each access unit or frame.
    fn rtp_times(&self, track: &str) -> Vec<u32> {
        let packets = self.entries("packet", track).into_iter();
        let last_of_unit = packets.filter(|packet| track == "audio" || packet["marker"] == true);
        let rtp = |packet: &Value| packet["rtp"].as_u64().and_then(|rtp| rtp.try_into().ok());
        last_of_unit.map(|packet| rtp(packet).expect("32 bits")).collect()
    }
}

/// The part of the account that was kept. Both end together; how a stream begins tells nothing,
/// for silence is like silence.
#[track_caller]
fn kept_units<'a>(what: &str, seen: &Units, sent: &'a [&'a Value]) -> &'a [&'a Value] {
    assert!(seen.units.len() <= sent.len(), "{what}: more units than were sent");
    let start = sent.len() - seen.units.len();
    for (at, (unit, sent)) in seen.units.iter().zip(&sent[start..]).enumerate() {
        assert_eq!(sent["sha256"], unit.sha256(), "{what}: unit {at} of {start} + {unit:?}");
    }
    assert!(start * 10 < sent.len(), "{what}: {start} units at the start are missing");
    &sent[start..]
}

#[track_caller]
fn assert_rtp(what: &str, seen: &Units, sent: &[u32]) {
    let sent = &sent[sent.len() - seen.units.len()..];
    for (unit, rtp) in seen.units.iter().zip(sent) {
        let elapsed = rtp.wrapping_sub(sent[0]).cast_signed();
        let shown = unit.pts - seen.units[0].pts;
        assert_eq!(shown, i64::from(elapsed), "{what}: {unit:?} in ticks of {}", seen.ticks_per_s);
    }
}

/// Differences between times seen and sent.
#[derive(Default)]
struct Shifts {
    seconds: Vec<f64>,
    tick_s: f64,
}

impl Shifts {
    fn add(&mut self, ticks: i64, sent_ns: Option<i64>, ticks_per_s: i64) {
        let tick_s = 1.0 / ticks_per_s as f64;
        let sent_s = sent_ns.expect("a time") as f64 / 1e9;
        self.seconds.push(ticks as f64 * tick_s - sent_s);
        self.tick_s = self.tick_s.max(tick_s);
    }

    /// All are the same but for a tick and `slack_s`.
    #[track_caller]
    fn assert_one(&self, what: &str, slack_s: f64) {
        let min = self.seconds.iter().copied().fold(f64::MAX, f64::min);
        let max = self.seconds.iter().copied().fold(f64::MIN, f64::max);
        let spread = max - min;
        assert!(spread <= self.tick_s + slack_s, "{what}: times are {spread} s apart");
    }
}
