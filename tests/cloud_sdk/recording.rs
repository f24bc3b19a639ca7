//! From a template and a rule by the API to the files that a VOD program finds and downloads.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::ffmpeg::Ffmpeg;
use crate::support::media::Clip;
use crate::support::packets::{Kind, Packet, of_kind, packets, streams};
use crate::support::push::Pace;
use crate::{
    DOMAIN, SOON, download, downloaded, duration, media_url, named, of_type, push, record, start,
    wait_files,
};

/// Longer than two of the shortest intervals.
const LONG: Clip =
    Clip { seconds: 130, fps: 25, gop: 50, b_frames: 2, video_kbps: 200, audio: true };
const SHORT: Clip =
    Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };

fn hashes(packets: &[Packet], kind: Kind) -> Vec<String> {
    of_kind(packets, kind).into_iter().map(|packet| packet.hash).collect()
}

#[test]
fn what_a_rule_of_the_api_records_is_found_downloaded_and_deleted() {
    let (edge, mut sdk) = start();
    let each = json!({"Enable": 1, "RecordInterval": 60, "StorageTime": 86_400});
    let hls = json!({"Enable": 1, "VodFileName": "{StreamID}-whole"});
    record(&mut sdk, "", json!({"TemplateName": "hall", "Mp4Param": each, "HlsParam": hls}));
    push(&edge, &LONG.flv(), "hall", Pace::Times(20)).finish_within(SOON);

    // A minute, a minute, the rest; and one playlist of it all.
    let files = wait_files(&mut sdk, "hall", 4);
    let clips = of_type(&files, "mp4");
    let lengths: Vec<i64> = clips.iter().map(|file| duration(file).round() as i64).collect();
    assert_eq!(lengths, [60, 60, 10]);
    let sent = packets(&LONG.flv());
    let mut kept = Vec::new();
    for file in &clips {
        let path = downloaded(&edge, file);
        let len = std::fs::metadata(&path).expect("downloaded").len();
        let told = file["MetaData"]["Size"].as_u64().expect("a size");
        assert!(told.abs_diff(len) < len / 20, "told {told} of {len}: not delivered, so about");
        Ffmpeg::System.assert_decodes(&path);
        kept.extend(packets(&path));
        let source = &file["BasicInfo"]["SourceInfo"]["LiveRecordInfo"];
        assert_eq!(
            (&source["Domain"], &source["Path"], &source["StreamId"]),
            (&json!(DOMAIN), &json!("live"), &json!("hall"))
        );
    }
    for kind in [Kind::Video, Kind::Audio] {
        assert!(hashes(&kept, kind) == hashes(&sent, kind), "{kind:?} is not all that was sent");
    }
    let playlist = of_type(&files, "m3u8")[0];
    assert_eq!(playlist["BasicInfo"]["Name"], "hall-whole");
    let url = Path::new(media_url(playlist));
    let codecs: Vec<String> = streams(url).into_iter().map(|stream| stream.codec).collect();
    assert_eq!(codecs, ["h264", "aac"]);
    let pictures = of_kind(&packets(url), Kind::Video).len();
    assert_eq!(pictures, of_kind(&sent, Kind::Video).len(), "the playlist has every picture");

    let first = clips[0];
    let unsigned = media_url(first).split_once('?').expect("a signed address").0;
    assert_eq!(download(unsigned, &edge.dir().join("none")), 403);
    let ids = json!({"FileIds": [first["FileId"], clips[1]["FileId"]]});
    let told = sdk.vod("DescribeMediaInfos", ids.clone());
    assert_eq!(told["MediaInfoSet"][0]["MetaData"], first["MetaData"]);
    sdk.vod("DeleteMedia", json!({"FileId": first["FileId"]}));
    let told = sdk.vod("DescribeMediaInfos", ids);
    assert_eq!(told["NotExistFileIdSet"], json!([first["FileId"]]));
    assert_eq!(download(media_url(first), &edge.dir().join("none")), 410, "gone for good");
    assert_eq!(wait_files(&mut sdk, "hall", 3).len(), 3);
    // It shared its media with the playlist.
    assert_eq!(of_kind(&packets(url), Kind::Video).len(), pictures);
}

/// The template of the stream decides before that of the domain, for what is pushed from then on.
#[test]
fn a_template_without_a_format_keeps_a_stream_from_being_recorded() {
    let (edge, mut sdk) = start();
    let flv = json!({"TemplateName": "all", "FlvParam": {"Enable": 1}});
    let all = record(&mut sdk, "", flv);
    let none = record(&mut sdk, "dark", json!({"TemplateName": "none"}));
    for stream in ["dark", "lit"] {
        push(&edge, &SHORT.flv(), stream, Pace::Fast).finish_within(SOON);
    }
    wait_files(&mut sdk, "lit", 1);
    assert_eq!(sdk.vod("SearchMedia", json!({"StreamIds": ["dark"]}))["TotalCount"], 0);
    let rules = sdk.live("DescribeLiveRecordRules", json!({}))["Rules"].clone();
    let bound: Vec<(&Value, &Value)> = rules
        .as_array()
        .expect("a list")
        .iter()
        .map(|rule| (&rule["StreamName"], &rule["TemplateId"]))
        .collect();
    assert_eq!(bound.len(), 2, "{rules}");
    assert!(bound.contains(&(&json!(""), &all)) && bound.contains(&(&json!("dark"), &none)));

    sdk.live("DeleteLiveRecordRule", named("dark"));
    sdk.live("DeleteLiveRecordTemplate", json!({"TemplateId": none}));
    let aac = json!({"TemplateId": all, "FlvParam": {"Enable": 0}, "AacParam": {"Enable": 1}});
    sdk.live("ModifyLiveRecordTemplate", aac);
    push(&edge, &SHORT.flv(), "dark", Pace::Fast).finish_within(SOON);
    let files = wait_files(&mut sdk, "dark", 1);
    assert_eq!(files[0]["BasicInfo"]["Type"], "aac", "as the template says by now");
}
