//! What the fleet orders of a box: a stream restarted, files delivered now, a range of the ring made
//! a file.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::commands::ask;
use super::support::broker::Broker;
use super::support::edge_box::{BoxPlan, EdgeBox};
use super::support::http::{act, try_act};
use super::support::media::Clip;
use super::support::operator::Operator;
use super::support::packets::{Kind, Packet, of_kind, packets};
use super::support::push::{Pace, Pusher, push_file};
use super::support::scratch;
use super::support::wait::wait_until;
use super::{SOON, STATE, TO_ALL, document, fleet_of_one, hear_applied, mqtt};

const CLIP: Clip =
    Clip { seconds: 10, fps: 25, gop: 25, b_frames: 2, video_kbps: 500, audio: true };
/// What the window had last may be on its way to the ring for 12 s.
const EXPORTED_WITHIN: Duration = Duration::from_secs(60);

fn push(edge: &EdgeBox) -> Pusher {
    push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Real, &edge.dir().join("push.log"))
}

/// An action about the stream `cam`.
fn about_cam(edge: &EdgeBox, action: &str, more: &[(&str, Value)]) -> Value {
    let domain = edge.rtmp().ip().to_string();
    let mut asked = json!({"Action": action, "DomainName": domain, "AppName": "live",
        "StreamName": "cam", "ClientToken": format!("{action}-1")});
    for (name, value) in more {
        asked[*name] = value.clone();
    }
    asked
}

fn code(answer: &Value) -> &str {
    answer["Error"]["Code"].as_str().unwrap_or_default()
}

#[test]
fn a_stream_is_restarted_at_a_key_frame_and_loses_no_packet() {
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker, "");
    let restart = about_cam(&edge, "RestartLiveStream", &[]);
    let refused = ask(&mut operator, &restart, "a", 1);
    assert_eq!(code(&refused), "ResourceUnavailable.StreamNotExist", "{refused}");
    let mut pusher = push(&edge);
    wait_until(SOON, "four seconds are sent", || pusher.sent_ms() >= 4_000);
    // What was refused may come again; what was done is done once.
    for count in 2..=3 {
        let done = ask(&mut operator, &restart, "a", count);
        assert!(done["Error"].is_null(), "{done}");
    }
    pusher.finish_within(SOON);
    wait_until(SOON, "no file grows", || edge.ls().iter().all(|row| row["state"] != "recording"));
    let rows = edge.ls();
    assert_eq!(rows.len(), 2, "{rows:#?}");
    let file = |(number, row): (usize, &Value)| {
        edge.export_file(row["file_id"].as_str().expect("an id"), &format!("{number}.flv"))
    };
    let files: Vec<_> = rows.iter().enumerate().map(file).collect();
    let told = |packet: Packet| (packet.dts, packet.pts, packet.key, packet.hash);
    for kind in [Kind::Video, Kind::Audio] {
        let of =
            |file: &Path| of_kind(&packets(file), kind).into_iter().map(told).collect::<Vec<_>>();
        let parts: Vec<_> = files.iter().map(|file| of(file)).collect();
        assert!(parts.iter().all(|part| !part.is_empty()));
        assert!(kind == Kind::Audio || parts[1][0].2, "it begins at a key frame");
        assert_eq!(parts.concat(), of(&CLIP.flv()), "{kind:?}");
    }
}

#[test]
fn a_source_is_cut_off_where_a_new_connection_is_asked_for() {
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker, "");
    let mut pusher = push(&edge);
    wait_until(SOON, "a second is sent", || pusher.sent_ms() >= 1_000);
    let restart = about_cam(&edge, "RestartLiveStream", &[("Reconnect", json!(1))]);
    let done = ask(&mut operator, &restart, "a", 1);
    assert!(done["Error"].is_null(), "{done}");
    assert!(!pusher.end_within(SOON).success(), "the encoder was cut off");
    let (now, hour) = (Timestamp::now(), jiff::SignedDuration::from_hours(1));
    let asked = json!({"StartTime": (now - hour).to_string(), "EndTime": (now + hour).to_string(),
        "DomainName": edge.rtmp().ip().to_string()});
    wait_until(SOON, "the end of the push is listed with its reason", || {
        let listed = act(&edge, "DescribeLiveStreamPublishedList", asked.clone());
        listed["PublishInfo"][0]["StopReason"] == "stream restarted"
    });
}

#[test]
fn a_range_of_the_ring_is_delivered_once_also_over_a_kill() {
    let broker = Broker::start();
    let out = scratch("out");
    let mut operator = Operator::connect(broker.addr());
    operator.send(TO_ALL, document(10, "ten").to_string());
    let upload = format!(
        "[upload]\ntarget = \"directory\"\npath = {}\n",
        json!(out.path().to_string_lossy())
    );
    let mut edge = BoxPlan::default().mqtt(&mqtt(&broker)).sections(&upload).start();
    hear_applied(&operator, SOON, "fleet", 10);
    let mut pusher = push(&edge);
    wait_until(SOON, "three seconds are sent", || pusher.sent_ms() >= 3_000);
    let from = Timestamp::now();
    wait_until(SOON, "six seconds are sent", || pusher.sent_ms() >= 6_000);
    let until = Timestamp::now();
    pusher.finish_within(SOON);
    let range = |from: &str, until: &str| {
        let times = [("StartTime", json!(from)), ("EndTime", json!(until))];
        about_cam(&edge, "ExportLiveStream", &times)
    };
    let export = range(&from.to_string(), &until.to_string());
    let nothing = range("2020-01-01T00:00:00Z", "2020-01-01T00:00:09Z");
    for (bad, why) in [
        (nothing, "ResourceNotFound"),
        (range(&until.to_string(), &from.to_string()), "InvalidParameterValue"),
        (range(&from.to_string(), "2100-01-01T00:00:00Z"), "InvalidParameterValue"),
    ] {
        let mut parameters = bad.clone();
        for member in ["Action", "ClientToken"] {
            parameters.as_object_mut().expect("members").remove(member);
        }
        let refused = try_act(&edge, "ExportLiveStream", parameters);
        assert_eq!(code(&refused), why, "{refused}");
    }
    let first = ask(&mut operator, &export, "a", 1);
    let task = first["TaskId"].as_u64().expect("a task").to_string();

    operator.forget();
    edge.kill();
    edge.start_again();
    operator.hear(SOON, STATE, "the box is back", |state| state["clock"] == "trusted");
    assert_eq!(ask(&mut operator, &export, "b", 1), first, "it is not done again");
    let row = edge.file_within(EXPORTED_WITHIN, |row| {
        row["task_id"] == task.as_str() && row["state"] == "delivered"
    });
    assert_eq!(row["format"], "mp4");
    let made = edge.ls().into_iter().filter(|row| row["format"] == "mp4");
    assert_eq!(made.count(), 1);
    let file = row["url"].as_str().expect("an address").trim_start_matches("file://").to_owned();
    let pictures = |path: &Path| -> Vec<String> {
        of_kind(&packets(path), Kind::Video).into_iter().map(|packet| packet.hash).collect()
    };
    let (got, sent) = (pictures(file.as_ref()), pictures(&CLIP.flv()));
    assert!(sent.windows(got.len()).any(|stretch| stretch == got), "one stretch of what was sent");
    let seconds = got.len() / 25;
    assert!((3..=5).contains(&seconds), "three seconds from a key frame on: {seconds}");
}

#[test]
fn files_that_wait_are_made_urgent_and_others_are_told_apart() {
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    operator.send(TO_ALL, document(10, "ten").to_string());
    let dir = scratch("out");
    let there = dir.path().join("later");
    let upload =
        format!("[upload]\ntarget = \"directory\"\npath = {}\n", json!(there.to_string_lossy()));
    let edge = BoxPlan::default().mqtt(&mqtt(&broker)).sections(&upload).start();
    hear_applied(&operator, SOON, "fleet", 10);
    push(&edge).finish_within(SOON);
    let row = edge.file_within(SOON, |row| row["state"] == "queued");
    let id = row["file_id"].as_str().expect("an id");
    let all = ask(&mut operator, &about_cam(&edge, "UploadMediaNow", &[]), "a", 1);
    assert_eq!(all["Files"], 1, "{all}");
    let of = |id: &str| json!({"Action": "UploadMediaNow", "FileId": id});
    let one = ask(&mut operator, &of(id), "a", 2);
    assert_eq!(one["Files"], 1, "{one}");
    let unknown = ask(&mut operator, &of("170"), "a", 3);
    assert_eq!(code(&unknown), "ResourceNotFound", "{unknown}");
    std::fs::create_dir(&there).expect("the target comes back");
    edge.file_within(SOON, |row| row["state"] == "delivered");
    let late = ask(&mut operator, &of(id), "a", 4);
    assert_eq!(code(&late), "FailedOperation", "{late}");
    let bad = ask(&mut operator, &of("x"), "a", 5);
    assert_eq!(code(&bad), "InvalidParameterValue", "{bad}");
}
