//! Through the whole box: a stream is watched over HTTP while it is pushed, and a task that asks
//! for sound only gives files without a picture, however they are had.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::http::{act, get};
use support::media::Clip;
use support::packets::{Kind, Packet, of_kind, packets, streams};
use support::push::{Pace, push_file};
use support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);
const CLIP: Clip =
    Clip { seconds: 12, fps: 25, gop: 25, b_frames: 2, video_kbps: 500, audio: true };

const ADTS_HEADER_BYTES: u64 = 7;

fn written(edge: &EdgeBox, name: &str, bytes: &[u8]) -> PathBuf {
    let path = edge.dir().join(name);
    fs::write(&path, bytes).expect("written");
    path
}

#[test]
fn a_stream_is_watched_from_a_key_frame_to_its_end_while_it_is_pushed() {
    let edge = BoxPlan::default().rules(record_all(&["Mp4"])).start();
    let target = "/live/127.0.0.1/live/cam.mp4";
    assert_eq!(get(&edge, target).0, 404, "nobody pushes yet");
    let log = edge.dir().join("push.log");
    let mut push = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Times(4), &log);
    let seen = wait_for(SOON, "the stream is live", || {
        let (status, body) = get(&edge, target);
        (status == 200).then_some(body)
    });
    push.finish_within(SOON);
    assert_eq!(get(&edge, target).0, 404, "it is over");

    let seen = packets(&written(&edge, "seen.mp4", &seen));
    let sent = packets(&CLIP.flv());
    let pictures = of_kind(&seen, Kind::Video);
    assert!(pictures.first().expect("pictures").key && pictures.len() > 100, "{}", pictures.len());
    for kind in [Kind::Video, Kind::Audio] {
        let hashes = |packets: &[Packet]| -> Vec<String> {
            of_kind(packets, kind).into_iter().map(|packet| packet.hash).collect()
        };
        let (seen, sent) = (hashes(&seen), hashes(&sent));
        assert!(sent.ends_with(&seen), "{kind:?}: {} of {} to the end", seen.len(), sent.len());
    }
}

#[test]
fn what_is_not_kept_cannot_be_watched() {
    let edge =
        BoxPlan::default().rules(json!({"revision": 1, "templates": [], "rules": []})).start();
    let log = edge.dir().join("push.log");
    let mut push = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Times(8), &log);
    wait_for(SOON, "the stream is known", || {
        let online = act(&edge, "DescribeLiveStreamOnlineList", json!({}));
        (online["TotalNum"] == 1).then_some(())
    });
    assert_eq!(get(&edge, "/live/127.0.0.1/live/cam.mp4").0, 404);
    push.finish_within(SOON);
}

/// The VOD API tells of no picture either.
fn told_as_sound(edge: &EdgeBox) {
    let of_sound = || {
        let asked = json!({"StreamIds": ["cam"], "Categories": ["Audio"]});
        let found = act(edge, "SearchMedia", asked)["MediaInfoSet"].clone();
        found.as_array().filter(|found| found.len() == 3).cloned()
    };
    for media in wait_for(SOON, "three files of sound are found", of_sound) {
        let meta = &media["MetaData"];
        assert_eq!(meta["VideoStreamSet"], json!([]), "{media}");
        assert_eq!(meta["AudioStreamSet"][0]["Codec"], "aac", "{media}");
    }
}

/// The packets of a file of sound, which holds nothing else.
fn sound_of(path: &Path) -> Vec<Packet> {
    let codecs: Vec<String> = streams(path).into_iter().map(|stream| stream.codec).collect();
    assert_eq!(codecs, ["aac"], "{}", path.display());
    packets(path)
}

#[test]
fn a_task_for_sound_gives_files_without_a_picture() {
    let edge = BoxPlan::default().rules(record_all(&["Flv"])).start();
    let asked = |format: &str| {
        let parameters = json!({"StreamName": "cam", "AppName": "live", "RecordType": "audio",
                                "FileFormat": format, "Highlight": 1});
        act(&edge, "CreateLiveRecord", parameters)["TaskId"].clone()
    };
    let log = edge.dir().join("push.log");
    let mut push = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Times(2), &log);
    wait_for(SOON, "the stream is live", || {
        act(&edge, "DescribeLiveStreamOnlineList", json!({}))["TotalNum"]
            .as_u64()
            .filter(|n| *n > 0)
    });
    let tasks = ["mp4", "flv", "hls"].map(asked);
    push.finish_within(SOON);
    for task in tasks {
        act(&edge, "StopLiveRecord", json!({"StreamName": "cam", "TaskId": task}));
    }
    told_as_sound(&edge);
    let sent = packets(&CLIP.flv());
    for format in ["mp4", "flv", "hls"] {
        let row = edge.file_within(SOON, |row| {
            row["format"] == format && row["state"] == "waiting" && row["tracks"] == json!(["aac"])
        });
        let id = row["file_id"].as_str().expect("an id");
        let exported = edge.export_file(id, &format!("{format}-exported.{format}"));
        let path = if format == "hls" { exported.join("index.m3u8") } else { exported.clone() };
        let kept = sound_of(&path);
        assert!(kept.len() > 50, "{format}: {}", kept.len());
        let frames = |packets: &[Packet], header| -> Vec<(u64, String)> {
            let hash =
                |packet: &Packet| if header == 0 { packet.hash.clone() } else { String::new() };
            packets.iter().map(|packet| (packet.size - header, hash(packet))).collect()
        };
        // In a transport stream each frame has a header, so only the lengths can be compared.
        let header = if format == "hls" { ADTS_HEADER_BYTES } else { 0 };
        let kept = frames(&kept, header);
        let mut sent = frames(&of_kind(&sent, Kind::Audio), 0);
        if header > 0 {
            sent.iter_mut().for_each(|(_, hash)| hash.clear());
        }
        let stretch = (0..sent.len()).any(|at| sent[at..].starts_with(&kept));
        assert!(stretch, "{format}: not one stretch of what was sent");
    }
}
