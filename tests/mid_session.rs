//! What changes while a stream is live: the parameters of its codecs, and who feeds it.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::ffmpeg::Ffmpeg;
use support::http::act;
use support::media::{Clip, made};
use support::packets::{Kind, Packet, of_kind, packets, streams};
use support::process::run_ok;
use support::publisher::{Publisher, Tag, tags};
use support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);
/// The first encoder's.
const CLIP: Clip = Clip { seconds: 6, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };

/// Another encoder's: a picture of another size, sound of another rate.
fn other_clip() -> PathBuf {
    let arguments = "-v error -y PICTURES SOUND -t 3 -c:v libx264 -g 25 -bf 0 -pix_fmt yuv420p \
                     -c:a aac -ar 32000 -flvflags no_duration_filesize -f flv";
    made(Ffmpeg::System, "other-encoder.flv", arguments)
}

/// Whether a tag tells parameters of a codec (AVC and AAC of FLV: the packet type is 0).
fn is_config(tag: &Tag) -> bool {
    tag.kind != 18 && tag.body.get(1) == Some(&0)
}

/// Tags of a stretch of a file, later by `later_ms`; what tells the codecs' parameters is always
/// in it.
fn stretch(path: &Path, from_ms: u32, until_ms: u32, later_ms: u32) -> Vec<Tag> {
    let wanted = |tag: &Tag| is_config(tag) || (from_ms..until_ms).contains(&tag.time_ms);
    let later = |tag: Tag| Tag { time_ms: tag.time_ms.max(from_ms) + later_ms, ..tag };
    tags(path).into_iter().filter(wanted).map(later).collect()
}

fn send(publisher: &mut Publisher, tags: &[Tag]) {
    tags.iter().for_each(|tag| publisher.send(tag));
}

fn hashes(packets: &[Packet], kind: Kind) -> Vec<String> {
    of_kind(packets, kind).into_iter().map(|packet| packet.hash).collect()
}

/// The finished files of a format, the oldest first.
fn finished(edge: &EdgeBox, format: &str, count: usize) -> Vec<PathBuf> {
    let rows = wait_for(SOON, "the files are finished", || {
        let mut rows = edge.ls();
        rows.retain(|row| row["format"] == format && row["state"] == "waiting");
        rows.sort_by_key(|row| row["start_ms"].as_i64());
        (rows.len() == count).then_some(rows)
    });
    let export = |row: &Value| {
        let id = row["file_id"].as_str().expect("digits");
        let path = edge.export_file(id, &format!("{id}.{format}"));
        if format == "hls" { path.join("index.m3u8") } else { path }
    };
    rows.iter().map(export).collect()
}

/// The same, with their packets.
fn files(edge: &EdgeBox, format: &str, count: usize) -> Vec<(PathBuf, Vec<Packet>)> {
    let paths = finished(edge, format, count).into_iter();
    paths.map(|path| (path.clone(), packets(&path))).collect()
}

#[test]
fn another_picture_and_sound_begin_files_of_their_own_and_lose_nothing() {
    let edge = BoxPlan::default().rules(record_all(&["Hls", "Mp4", "Flv"])).start();
    let mut publisher = Publisher::publish(edge.rtmp(), "cam").expect("taken");
    send(&mut publisher, &stretch(&CLIP.flv(), 0, 3_000, 0));
    send(&mut publisher, &stretch(&other_clip(), 0, 10_000, 3_000));
    publisher.finish();

    // A recording begins with a key frame.
    let first = packets(&CLIP.flv()).into_iter();
    let first: Vec<Packet> = first.skip_while(|one| one.kind != Kind::Video).collect();
    let other = packets(&other_clip());
    let sent = |kind| {
        let before = of_kind(&first, kind).into_iter().filter(|one| one.dts_ms() < Some(3_000));
        let before: Vec<String> = before.map(|packet| packet.hash).collect();
        [before, hashes(&other, kind)].concat()
    };
    let made = files(&edge, "mp4", 2);
    let all: Vec<Packet> = made.iter().flat_map(|(_, packets)| packets.clone()).collect();
    for kind in [Kind::Video, Kind::Audio] {
        assert!(hashes(&all, kind) == sent(kind), "{kind:?} of MP4 is not what was sent");
    }
    made.iter().for_each(|(path, _)| Ffmpeg::System.assert_decodes(path));
    let widths: Vec<u64> = made.iter().map(|(path, _)| width(path)).collect();
    assert_eq!(widths, [640, 192]);
    // FLV tells new parameters in the middle of a file. ffmpeg's parser complains about pictures
    // that it looks at with the old ones; its decoder takes the new ones.
    let flv = &finished(&edge, "flv", 1)[0];
    assert_eq!(decoded_pictures(flv), sent(Kind::Video).len());
    let kept = tags(flv);
    for (kind, packets) in [(9, sent(Kind::Video)), (8, sent(Kind::Audio))] {
        let (configs, media): (Vec<&Tag>, Vec<&Tag>) =
            kept.iter().filter(|tag| tag.kind == kind).partition(|tag| is_config(tag));
        assert_eq!((configs.len(), media.len()), (2, packets.len()), "tags of kind {kind}");
        assert_ne!(configs[0].body, configs[1].body);
    }
    let hls = files(&edge, "hls", 1);
    for kind in [Kind::Video, Kind::Audio] {
        assert_eq!(of_kind(&hls[0].1, kind).len(), sent(kind).len(), "{kind:?} of one HLS file");
    }
    let playlist = std::fs::read_to_string(&hls[0].0).expect("a playlist");
    assert_eq!(playlist.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{playlist}");
}

fn decoded_pictures(path: &Path) -> usize {
    let mut player = Ffmpeg::System.command();
    player.args(["-v", "fatal", "-i"]).arg(path).args(["-map", "0:v", "-fps_mode", "passthrough"]);
    let frames = run_ok(player.args(["-f", "framemd5", "-"]));
    let frames = String::from_utf8(frames).expect("text");
    frames.lines().filter(|line| !line.starts_with('#')).count()
}

fn width(path: &Path) -> u64 {
    let video = streams(path).into_iter().find(|stream| stream.kind == Kind::Video);
    video.expect("a picture").width
}

fn declare(edge: &EdgeBox, output: &str, kind: u8) {
    let input = |name: &str, layer: u8| json!({"InputStreamName": name, "LayoutParams": {"ImageLayer": layer}});
    let mix = json!({"MixStreamSessionId": "show", "InputStreamList": [input("cam", 1),
        input("guest", 2)],
        "OutputParams": {"OutputStreamName": output, "OutputStreamType": kind}});
    act(edge, "CreateCommonMixStream", mix);
}

/// Waits until so much of a stream is on flash.
fn wait_for_media(edge: &EdgeBox, stream: &str, duration_ms: i64) {
    wait_for(SOON, "what was sent is on flash", || {
        let has = |row: &Value| {
            row["stream"] == stream && row["duration_ms"].as_i64() >= Some(duration_ms)
        };
        edge.ls().iter().any(has).then_some(())
    });
}

/// How many feed the first stream of the online list.
fn publishers(online: &Value) -> usize {
    online["OnlineInfo"][0]["PublishTimeList"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_mixer_takes_over_a_stream_and_gives_it_back_when_its_mix_is_cancelled() {
    let edge = BoxPlan::default().rules(record_all(&["Hls", "Flv"])).start();
    let mut original = Publisher::publish(edge.rtmp(), "cam").expect("taken");
    send(&mut original, &stretch(&CLIP.flv(), 0, 2_000, 0));
    assert!(Publisher::publish(edge.rtmp(), "cam?mix=show").is_err(), "nobody declared it");
    wait_for_media(&edge, "cam", 1_900);

    declare(&edge, "cam", 0);
    let mut mixer = Publisher::publish(edge.rtmp(), "cam?mix=show").expect("taken beside it");
    send(&mut mixer, &stretch(&other_clip(), 0, 10_000, 0));
    wait_for_media(&edge, "cam", 4_900);
    let online = act(&edge, "DescribeLiveStreamOnlineList", json!({}));
    assert_eq!((&online["TotalNum"], publishers(&online)), (&json!(1), 2), "{online}");
    // What the original sends meanwhile is nobody's.
    send(&mut original, &stretch(&CLIP.flv(), 2_000, 4_000, 0));
    act(&edge, "CancelCommonMixStream", json!({"MixStreamSessionId": "show"}));
    let online = wait_for(SOON, "the mixer is gone", || {
        send(&mut mixer, &stretch(&other_clip(), 0, 40, 3_000));
        let online = act(&edge, "DescribeLiveStreamOnlineList", json!({}));
        assert_eq!(online["TotalNum"], 1, "one stream, whoever feeds it");
        (publishers(&online) == 1).then_some(online)
    });
    assert_eq!(online["OnlineInfo"][0]["StreamName"], "cam");
    send(&mut original, &stretch(&CLIP.flv(), 4_000, 6_000, 0));
    original.finish();

    let first = packets(&CLIP.flv());
    let of_first = |from_ms: i64, until_ms: i64| -> Vec<String> {
        let inside =
            |one: &Packet| one.dts_ms().is_some_and(|dts_ms| (from_ms..until_ms).contains(&dts_ms));
        of_kind(&first, Kind::Video).into_iter().filter(inside).map(|one| one.hash).collect()
    };
    let mixed = hashes(&packets(&other_clip()), Kind::Video);
    let made = files(&edge, "flv", 3);
    let pictures = |file: usize| hashes(&made[file].1, Kind::Video);
    assert_eq!(pictures(0), of_first(0, 2_000), "the original first");
    let between = pictures(1);
    assert!(between.starts_with(&mixed), "then the mixer, from its first key frame");
    assert!(between[mixed.len()..].iter().all(|hash| mixed.contains(hash)), "and nobody else");
    assert_eq!(pictures(2), of_first(4_000, 6_000), "the original from its next key frame on");
    let (path, kept) = &files(&edge, "hls", 1)[0];
    let all: usize = (0..3).map(|file| pictures(file).len()).sum();
    assert_eq!(of_kind(kept, Kind::Video).len(), all, "one HLS file of all");
    let playlist = std::fs::read_to_string(path).expect("a playlist");
    assert_eq!(playlist.matches("#EXT-X-DISCONTINUITY\n").count(), 2, "{playlist}");
}

#[test]
fn a_mix_with_a_name_of_its_own_is_recorded_beside_its_inputs() {
    let edge = BoxPlan::default().rules(record_all(&["Flv"])).start();
    declare(&edge, "mixed", 1);
    let window = |stream: &str| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_s = now.expect("after 1970").as_secs();
        json!({"DomainName": "127.0.0.1", "AppName": "live", "StreamName": stream,
            "StreamType": 1, "StartTime": now_s - 60, "EndTime": now_s + 600})
    };
    for stream in ["cam", "mixed"] {
        act(&edge, "CreateRecordTask", window(stream));
    }
    for (stream, clip) in [("cam", CLIP.flv()), ("mixed", other_clip())] {
        let mut publisher = Publisher::publish(edge.rtmp(), stream).expect("taken");
        send(&mut publisher, &stretch(&clip, 0, 10_000, 0));
        publisher.finish();
    }
    let rows = wait_for(SOON, "both streams and the task are recorded", || {
        let rows = edge.ls();
        let finished = rows.iter().filter(|row| row["state"] == "waiting");
        let finished: Vec<(&Value, bool)> =
            finished.map(|row| (&row["stream"], row["task_id"].is_null())).collect();
        let wanted = [(&json!("cam"), true), (&json!("mixed"), true), (&json!("mixed"), false)];
        wanted.iter().all(|one| finished.contains(one)).then_some(rows)
    });
    let tasks: Vec<&Value> = rows.iter().filter(|row| !row["task_id"].is_null()).collect();
    assert!(tasks.iter().all(|row| row["stream"] == "mixed"), "only the mix: {tasks:#?}");
}
