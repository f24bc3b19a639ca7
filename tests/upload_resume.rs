//! Uploads to a bucket through the whole box: what is there is what was sent, under the agreed
//! names, and a box that dies in the middle of an upload sends at most one part again. What was
//! sent again is read from the server's log.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::media::Clip;
use support::outbox::joined;
use support::packets::{Kind, assert_stretch_of, of_kind, packets};
use support::push::{Pace, push_file};
use support::relay::Relay;
use support::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, Seen};
use support::scratch;
use support::units::{Audio, Video, assert_same, read};
use support::wait::wait_until;

const SOON: Duration = Duration::from_secs(60);
const PREFIX: &str = "boxes/one";
/// The box sends parts of this size.
const PART_BYTES: u64 = 8 << 20;
/// Big enough for five parts.
const BIG: Clip =
    Clip { seconds: 20, fps: 25, gop: 25, b_frames: 0, video_kbps: 16_000, audio: true };
const SMALL: Clip =
    Clip { seconds: 10, fps: 25, gop: 50, b_frames: 2, video_kbps: 1_000, audio: true };

/// A box that delivers to a bucket.
fn box_for(port: u16, format: &str) -> EdgeBox {
    let section = format!(
        "[upload]\ntarget = \"s3\"\nendpoint = \"http://127.0.0.1:{port}\"\nbucket = \"{BUCKET}\"\n\
         access_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n\
         prefix = \"{PREFIX}\"\n"
    );
    BoxPlan::default().sections(&section).rules(record_all(&[format])).start()
}

fn push(edge: &EdgeBox, clip: &Path, pace: Pace) {
    let log = edge.dir().join("push.log");
    push_file(clip, &edge.push_url("s"), pace, &log).finish_within(SOON);
}

/// The row of the stream's only file, once it is delivered.
fn delivered(edge: &EdgeBox) -> serde_json::Value {
    edge.file_within(SOON, |row| row["state"] == "delivered")
}

/// How often each part was asked to be stored.
fn parts_sent(log: &[Seen]) -> BTreeMap<u32, usize> {
    let mut parts = BTreeMap::new();
    for seen in log.iter().filter(|seen| seen.on == "part") {
        let number = seen.part.as_deref().and_then(|part| part.parse().ok()).expect("a number");
        *parts.entry(number).or_default() += 1;
    }
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_killed_in_an_upload_sends_at_most_one_part_again() {
    let server = S3Server::start().await;
    let relay = Relay::start(server.port, 2 * PART_BYTES + PART_BYTES / 2);
    let mut edge = box_for(relay.port(), "Flv");
    // Slower than flash takes it, faster than the media.
    push(&edge, &BIG.flv(), Pace::Times(8));
    wait_until(SOON, "the middle of the third part", || relay.is_stopped());
    edge.kill();
    relay.open();
    edge.start_again();
    let row = delivered(&edge);

    let log = server.log().await;
    let parts = parts_sent(&log);
    let again: usize = parts.values().map(|times| times - 1).sum();
    assert!(parts.len() >= 5, "parts: {parts:?}");
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), (1..=5).collect::<Vec<u32>>());
    assert!(again <= 1, "parts sent: {parts:?}");
    assert_eq!(server.count("POST", "create").await, 1, "one upload");
    assert_eq!(server.count("POST", "complete").await, 1, "completed once");
    assert_eq!(server.open_uploads().await, 0);

    let key = only_key(&log);
    let name = row["file_id"].as_str().expect("an id");
    let stream = edge.stream_key("s");
    assert!(key.starts_with(&format!("{PREFIX}/{stream}/s_")), "{key}");
    assert!(key.ends_with(&format!("-{}.flv", short(name))), "{key} is not of {name}");
    let object = server.object(&key).await.expect("the object is there");
    let export = edge.export_file(name, "export.flv");
    assert!(object == fs::read(&export).expect("read"), "the object is not the export");
    let sent = packets(&BIG.flv());
    let kept = packets(&export);
    assert_stretch_of(&kept, &sent, "object");
    // Sound before the first key frame is not recorded; nothing else is missing.
    let from_key = sent.iter().position(|packet| packet.kind == Kind::Video).expect("pictures");
    for kind in [Kind::Video, Kind::Audio] {
        assert_eq!(of_kind(&kept, kind).len(), of_kind(&sent[from_key..], kind).len(), "{kind:?}");
    }
}

/// The part of a file's id that its names have: the first 8 digits in hex.
fn short(id: &str) -> String {
    let id: u64 = id.parse().expect("a number");
    format!("{id:016x}")[..8].to_owned()
}

/// The key under which everything was stored.
fn only_key(log: &[Seen]) -> String {
    let mut keys: Vec<&str> = log.iter().map(|seen| seen.key.as_str()).collect();
    keys.dedup();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn hls_objects_lie_side_by_side_and_play() {
    let server = S3Server::start().await;
    let edge = box_for(server.port, "Hls");
    push(&edge, &SMALL.flv(), Pace::Times(8));
    let row = delivered(&edge);

    let log = server.log().await;
    let puts = log.iter().filter(|seen| seen.method == "PUT");
    let keys: Vec<&str> = puts.map(|seen| seen.key.as_str()).collect();
    let playlist = *keys.last().expect("something was stored");
    let (folder, name) = playlist.rsplit_once('/').expect("a folder");
    assert_eq!(name, "index.m3u8", "the playlist comes last: {keys:?}");
    let id = row["file_id"].as_str().expect("an id");
    let stream = edge.stream_key("s");
    assert!(folder.starts_with(&format!("{PREFIX}/{stream}/s_")), "{folder}");
    assert!(folder.ends_with(&format!("-{}", short(id))), "{folder} is not of {id}");
    assert!(keys.iter().all(|key| key.rsplit_once('/').is_some_and(|(dir, _)| dir == folder)));

    // What a player would fetch, and nothing else, is what the encoder sent.
    let dir = scratch("objects");
    for key in &keys {
        let object = server.object(key).await.expect("the object is there");
        fs::write(dir.path().join(&key[folder.len() + 1..]), object).expect("written");
    }
    let ts = joined(&dir.path().join("index.m3u8"), dir.path());
    let ffmpeg = support::ffmpeg::Ffmpeg::System;
    ffmpeg.assert_decodes(&dir.path().join("index.m3u8"));
    let units = |path: &Path| read(ffmpeg, path, Some(Video::H264), Some(Audio::Aac));
    let (seen, mut sent) = (units(&ts), units(&SMALL.flv()));
    for unit in sent.video.units.iter_mut().chain(&mut sent.audio.units) {
        *unit = unit.at(unit.dts * 90, unit.pts * 90);
    }
    assert_same("pictures", &seen.video.units, &sent.video.units);
    assert_same("sound", &seen.audio.units, &sent.audio.units);
}
