//! Uploads to the VOD platform through the whole box. The stand-in for it is first shown to be
//! right: the official upload SDK works with it, and it refuses what is not signed as it should
//! be. What a killed box sent again is read from its log.

mod support;

#[path = "callbacks/receiver.rs"]
mod receiver;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use receiver::{KEY, Receiver, taken};
use serde_json::{Value, json};
use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::fake_vod::{FakeVod, SECRET_ID, SECRET_KEY, Seen};
use support::ffmpeg::Ffmpeg;
use support::http::get;
use support::media::Clip;
use support::packets::{Kind, assert_stretch_of, of_kind, packets};
use support::push::{Pace, push_file};
use support::relay::Relay;
use support::scratch;
use support::wait::wait_until;

const SOON: Duration = Duration::from_secs(60);
/// The box sends parts of this size.
const PART_BYTES: u64 = 8 << 20;
/// Big enough for five parts.
const BIG: Clip =
    Clip { seconds: 20, fps: 25, gop: 25, b_frames: 0, video_kbps: 16_000, audio: true };
const SMALL: Clip =
    Clip { seconds: 10, fps: 25, gop: 50, b_frames: 2, video_kbps: 1_000, audio: true };

/// A box that delivers to the platform; its objects go to `storage_port`.
fn box_for(vod: &FakeVod, storage_port: u16, rules: Value, sections: &str) -> EdgeBox {
    let section = format!(
        "[upload]\ntarget = \"tencent-vod\"\nendpoint = \"http://127.0.0.1:{}\"\n\
         storage_endpoint = \"http://127.0.0.1:{storage_port}\"\nsub_app_id = 1500000001\n\
         access_key_id = \"{SECRET_ID}\"\nsecret_access_key = \"{SECRET_KEY}\"\n{sections}",
        vod.port
    );
    BoxPlan::default().sections(&section).rules(rules).start()
}

fn push(edge: &EdgeBox, clip: &Path, pace: Pace) {
    let log = edge.dir().join("push.log");
    push_file(clip, &edge.push_url("s"), pace, &log).finish_within(SOON);
}

/// How often each part was sent, as far as anything of it arrived.
fn parts_sent(log: &[Seen]) -> BTreeMap<u32, usize> {
    let mut parts = BTreeMap::new();
    for seen in log.iter().filter(|seen| seen.on == "part") {
        let number = seen.part.as_deref().and_then(|part| part.parse().ok()).expect("a number");
        *parts.entry(number).or_default() += 1;
    }
    parts
}

/// Bytes of an object of committed media.
fn object(vod: &FakeVod, media: &Value, index: usize) -> Vec<u8> {
    vod.object(media["Objects"][index].as_str().expect("a path")).expect("it is stored")
}

#[test]
fn a_box_killed_in_an_upload_goes_on_in_its_session_and_tells_the_platforms_id() {
    let vod = FakeVod::start();
    let receiver = Receiver::start(&json!([]));
    let relay = Relay::start(vod.port, 2 * PART_BYTES + PART_BYTES / 2);
    let callback = format!("[callback]\nurl = \"{}\"\nkey = \"{KEY}\"\n", receiver.url());
    let mut edge = box_for(&vod, relay.port(), record_all(&["Flv"]), &callback);
    // Slower than flash takes it, faster than the media.
    push(&edge, &BIG.flv(), Pace::Times(4));
    wait_until(SOON, "the middle of the third part", || relay.is_stopped());
    edge.kill();
    relay.open();
    // The first answer to the commit does not arrive, and the second time the key is not taken.
    vod.set("repeat", "refused");
    vod.fault("lost", "CommitUpload", 1);
    edge.start_again();
    let row = edge.file_within(SOON, |row| row["state"] == "delivered");

    let parts = parts_sent(&vod.log());
    let again: usize = parts.values().map(|times| times - 1).sum();
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), (1..=5).collect::<Vec<u32>>());
    assert!(again <= 1, "parts sent: {parts:?}");
    let counts = ["ApplyUpload", "create", "complete", "CommitUpload"].map(|on| vod.count(on));
    assert_eq!(counts, [1, 1, 1, 2], "{:#?}", vod.log());
    assert_eq!(vod.open_uploads(), 0);

    let media = vod.media();
    assert_eq!(media.len(), 1, "nothing twice: {media:#?}");
    let media = &media[0];
    let id = row["file_id"].as_str().expect("an id");
    assert_eq!(row["url"], media["MediaUrl"]);
    assert_eq!(media["SourceContext"], json!(format!("edgerec-file:{id}")));
    let body = object(&vod, media, 0);
    assert_eq!(row["size"], json!(body.len()));
    let export = edge.export_file(id, "export.flv");
    assert!(body == fs::read(&export).expect("read"), "the object is not the export");
    let arrived = edge.dir().join("arrived.flv");
    fs::write(&arrived, body).expect("written");
    let (kept, sent) = (packets(&arrived), packets(&BIG.flv()));
    assert_stretch_of(&kept, &sent, "object");
    // Sound before the first key frame is not recorded; nothing else is missing.
    let from_key = sent.iter().position(|packet| packet.kind == Kind::Video).expect("pictures");
    for kind in [Kind::Video, Kind::Audio] {
        assert_eq!(of_kind(&kept, kind).len(), of_kind(&sent[from_key..], kind).len(), "{kind:?}");
    }

    let told = |seen: &[Value]| taken(seen).iter().any(|body| body["event_type"] == 100);
    let seen = receiver.wait("event 100", told);
    let told: Vec<&Value> =
        taken(&seen).into_iter().filter(|body| body["event_type"] == 100).collect();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["video_url"], &told[0]["file_id"]), (&row["url"], &media["FileId"]));
    assert_eq!(told[0]["record_file_id"], json!(id));
    assert!(!edge.log().contains(SECRET_KEY) && !edge.log().contains("TEMPSECRET"));
}

#[test]
fn what_the_template_asks_for_arrives_and_hls_plays() {
    let vod = FakeVod::start();
    let mut rules = record_all(&["Hls", "Mp4"]);
    rules["templates"][0]["HlsParam"] = json!({"Enable": 1, "ClassId": 3, "Procedure": "flow"});
    rules["templates"][0]["Mp4Param"] = json!({"Enable": 1, "VodSubAppId": 7, "StorageTime": 86_400, "VodFileName": "x_{StreamID}"});
    let edge = box_for(&vod, vod.port, rules, "");
    push(&edge, &SMALL.flv(), Pace::Times(8));
    for format in ["hls", "mp4"] {
        edge.file_within(SOON, |row| row["state"] == "delivered" && row["format"] == format);
    }
    let media = vod.media();
    let of_type = |kind: &str| {
        media.iter().find(|media| media["MediaType"] == kind).expect("it was committed")
    };
    let (hls, mp4) = (of_type("m3u8"), of_type("mp4"));
    assert_eq!(media.len(), 2);
    assert_eq!((&hls["ClassId"], &hls["Procedure"]), (&json!(3), &json!("flow")));
    assert_eq!((&hls["SubAppId"], &hls["ExpireTime"]), (&json!(1_500_000_001), &Value::Null));
    assert_eq!((&mp4["SubAppId"], &mp4["MediaName"]), (&json!(7), &json!("x_s")));
    let expires = mp4["ExpireTime"].as_str().expect("a time");
    let expires: jiff::Timestamp = expires.parse().expect("ISO 8601");
    let left_s = expires.as_second() - jiff::Timestamp::now().as_second();
    assert!((86_340..=86_400).contains(&left_s), "a day after its end: {expires}");

    let dir = scratch("objects");
    let paths = hls["Objects"].as_array().expect("a list");
    assert!(paths.len() >= 3, "a playlist and segments: {paths:?}");
    for (index, path) in paths.iter().enumerate() {
        let name = path.as_str().expect("a path").rsplit('/').next().expect("a name").to_owned();
        fs::write(dir.path().join(name), object(&vod, hls, index)).expect("written");
    }
    Ffmpeg::System.assert_decodes(&dir.path().join("f0.m3u8"));
    let file = dir.path().join("x.mp4");
    fs::write(&file, object(&vod, mp4, 0)).expect("written");
    Ffmpeg::System.assert_decodes(&file);
    let sent = of_kind(&packets(&SMALL.flv()), Kind::Video).len();
    for path in [dir.path().join("f0.m3u8"), file] {
        assert_eq!(of_kind(&packets(&path), Kind::Video).len(), sent, "{}", path.display());
    }
}

#[test]
fn a_file_that_outlived_its_storage_time_is_a_loss_and_is_not_sent() {
    let vod = FakeVod::start();
    vod.fault("busy", "ApplyUpload", u32::MAX);
    let mut rules = record_all(&["Flv"]);
    rules["templates"][0]["FlvParam"] = json!({"Enable": 1, "StorageTime": 1});
    let edge = box_for(&vod, vod.port, rules, "");
    push(&edge, &SMALL.flv(), Pace::Fast);
    let row = edge.file_within(SOON, |row| row["state"] == "failed");
    assert_eq!(row["why"], "StorageTime was over before it could be sent");
    let (status, metrics) = get(&edge, "/metrics");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert_eq!(status, 200);
    assert!(metrics.lines().any(|line| line == "edgerec_losses_total 1"), "{metrics}");
    vod.order(&json!({"op": "clear"}));
    assert!(vod.log().iter().all(|seen| seen.status == 503), "{:#?}", vod.log());
    assert!(vod.media().is_empty());
}

/// Bytes that are not all the same.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn the_official_upload_sdk_works_with_the_stand_in() {
    let vod = FakeVod::start();
    let dir = scratch("sdk");
    let path = |name: &str| dir.path().join(name);
    for (name, len) in
        [("small.mp4", 5_000), ("big.flv", 3_500_000), ("seg0.ts", 9_400), ("seg1.ts", 800)]
    {
        fs::write(path(name), noise(len)).expect("written");
    }
    let playlist = "#EXTM3U\n#EXTINF:4.0,\nseg0.ts\n#EXTINF:4.0,\nseg1.ts\n#EXT-X-ENDLIST\n";
    fs::write(path("index.m3u8"), playlist).expect("written");
    for (name, objects) in [("small.mp4", 1), ("big.flv", 1), ("index.m3u8", 3)] {
        let request =
            json!({"MediaName": name, "SubAppId": 7, "SourceContext": "box", "ClassId": 3});
        let got = vod.upload_with_sdk(&path(name), SECRET_KEY, &request);
        let media = vod.media().pop().expect("committed");
        assert_eq!((&got["FileId"], &media["MediaName"]), (&media["FileId"], &json!(name)));
        assert_eq!((&media["SubAppId"], &media["ClassId"]), (&json!(7), &json!(3)));
        let stored = media["Objects"].as_array().expect("a list");
        assert_eq!(stored.len(), objects);
        let names = if objects == 1 { vec![name] } else { vec![name, "seg0.ts", "seg1.ts"] };
        for (object, name) in stored.iter().zip(names) {
            let bytes = vod.object(object.as_str().expect("a path")).expect("stored");
            assert!(bytes == fs::read(path(name)).expect("read"), "{name}");
        }
    }
    assert_eq!(vod.count("part"), 4, "parts of 1 MiB");
    assert!(vod.log().iter().all(|seen| seen.code.is_empty()), "{:#?}", vod.log());
}

#[test]
fn the_stand_in_believes_no_wrong_signature_and_no_old_credentials() {
    let vod = FakeVod::start();
    let dir = scratch("sdk");
    let file = dir.path().join("x.mp4");
    fs::write(&file, noise(100)).expect("written");
    let request = json!({"MediaName": "x"});
    let raised = vod.upload_with_sdk(&file, "another key", &request);
    assert!(raised["raised"].to_string().contains("AuthFailure.SignatureFailure"), "{raised}");
    vod.set("skew_s", 301);
    let raised = vod.upload_with_sdk(&file, SECRET_KEY, &request);
    assert!(raised["raised"].to_string().contains("AuthFailure.SignatureExpire"), "{raised}");
    vod.set("skew_s", 0);
    vod.set("life_s", -1);
    let raised = vod.upload_with_sdk(&file, SECRET_KEY, &request);
    assert!(raised["raised"].to_string().contains("ExpiredToken"), "{raised}");
    assert!(vod.media().is_empty(), "nothing came through");
}
