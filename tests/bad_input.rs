//! What people and machines get wrong: the box says what is wrong and where, harms nothing, and
//! goes on where it can.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use support::edge_box::{BoxPlan, record_all};
use support::ffmpeg::Ffmpeg;
use support::media::made;
use support::outbox::Outbox;
use support::publisher::{Publisher, Tag, tags};
use support::push::{Pace, push_file};
use support::units::{Audio, assert_same, read};
use support::wait::wait_until;

const SOON: Duration = Duration::from_secs(20);
/// Exit code of a bad configuration.
const BAD_CONFIGURATION: i32 = 64;

const SOUND: &str = "SOUND -c:a aac -t 4 -flvflags no_duration_filesize";

#[test]
fn bad_rules_at_the_start_are_all_told_with_their_places() {
    let mut rules = record_all(&["Flv"]);
    rules["templates"][0]["Mp4Param"] = json!({"Enable": 1, "RecordInterval": 5});
    rules["rules"][0]["TemplateName"] = json!("nobody");
    rules["unknown"] = json!(1);
    let edge = BoxPlan::default().rules(rules).prepare();
    edge.cli_ok(&["format"]);
    let (status, log) = edge.run_to_its_end(SOON);
    assert_eq!(status.code(), Some(BAD_CONFIGURATION), "{log}");
    for place in ["templates[0].Mp4Param.RecordInterval", "rules[0].TemplateName", "unknown"] {
        assert!(log.contains(&format!("{place}: ")), "{place} is not told:\n{log}");
    }
}

#[test]
fn bad_configuration_is_told_with_its_places() {
    let edge = BoxPlan::default().ring_setting("slot", "\"1KiB\"").ring_setting("what", "1");
    let (status, log) = edge.prepare().run_to_its_end(SOON);
    assert_eq!(status.code(), Some(BAD_CONFIGURATION), "{log}");
    for place in ["ring.slot: ", "ring.what: "] {
        assert!(log.contains(place), "{place} is not told:\n{log}");
    }
}

#[test]
fn bad_new_rules_change_nothing_and_are_told() {
    let outbox = Outbox::new();
    let edge = BoxPlan::default().sections(&outbox.section()).start();
    let mut rules = record_all(&["Mp4"]);
    rules["revision"] = json!(2);
    rules["rules"][0]["TemplateName"] = json!("nobody");
    edge.write_rules(&rules);
    let told = "rules[0].TemplateName";
    wait_until(SOON, told, || edge.log().contains(told));
    let log = edge.log();
    assert!(log.contains("the old ones stay"), "{log}");

    let file = made(Ffmpeg::System, "sound.flv", SOUND);
    let log = edge.dir().join("push.log");
    push_file(&file, &edge.push_url("s"), Pace::Fast, &log).finish_within(SOON);
    outbox.wait(&edge.stream_key("s"), "flv", 1, SOON);

    // Good ones are still taken after that.
    rules["revision"] = json!(3);
    rules["rules"][0]["TemplateName"] = json!("all");
    edge.write_rules(&rules);
    wait_until(SOON, "new rules", || edge.log().contains("new rules"));
    push_file(&file, &edge.push_url("t"), Pace::Fast, &log).finish_within(SOON);
    outbox.wait(&edge.stream_key("t"), "mp4", 1, SOON);
    assert!(outbox.files(&edge.stream_key("t"), "flv").is_empty());
}

#[test]
fn garbage_on_the_rtmp_port_harms_no_stream() {
    let outbox = Outbox::new();
    let edge = BoxPlan::default().sections(&outbox.section()).start();
    let file = made(Ffmpeg::System, "sound.flv", SOUND);
    let mut publisher = Publisher::publish(edge.rtmp(), "s").expect("it may publish");
    let tags = tags(&file);
    let (before, after) = tags.split_at(tags.len() / 2);
    before.iter().for_each(|tag| publisher.send(tag));

    let bad_chunk = [&[3][..], &[0; 3072], b"\x04\0\0\0\xff\xff\xff\x09\x01\0\0\0"].concat();
    let garbage: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\nHost: box\r\n\r\n", &[0xff; 5_000], &[3; 5_000], &bad_chunk];
    for bytes in garbage {
        let mut stream = TcpStream::connect(edge.rtmp()).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("a socket option");
        // The box may close before all is sent.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let closed = stream.read_to_end(&mut answer);
        let kind = closed.err().map(|error| error.kind());
        assert!(
            matches!(kind, None | Some(std::io::ErrorKind::ConnectionReset)),
            "{:?}... is not closed: {kind:?}",
            &bytes[..4]
        );
    }

    after.iter().for_each(|tag| publisher.send(tag));
    publisher.finish();
    let path = outbox.wait(&edge.stream_key("s"), "flv", 1, SOON).swap_remove(0);
    let units = |path| read(Ffmpeg::System, path, None, Some(Audio::Aac)).audio.units;
    assert_same("the stream beside it", &units(&path), &units(&file));
}

#[test]
fn a_folder_that_is_no_ring_is_refused_and_not_touched() {
    let edge = BoxPlan::default().prepare();
    let refused = || {
        let (status, log) = edge.run_to_its_end(SOON);
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("edgerec format"), "what to do is not told:\n{log}");
    };
    refused();
    assert!(!edge.ring().exists(), "a missing ring is not made");

    fs::create_dir(edge.ring()).expect("made");
    fs::write(edge.ring().join("holiday.jpg"), "precious").expect("written");
    refused();
    let there = || -> Vec<_> {
        let entries = fs::read_dir(edge.ring()).expect("still there");
        entries.map(|entry| entry.expect("readable").file_name()).collect()
    };
    assert_eq!(there(), ["holiday.jpg"]);

    fs::write(edge.ring().join("ring.id"), "not an identity").expect("written");
    let (status, log) = edge.run_to_its_end(SOON);
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(there().len(), 2);
    assert_eq!(fs::read(edge.ring().join("ring.id")).expect("there"), b"not an identity");
}

#[test]
fn a_track_of_an_unknown_codec_is_left_out_and_said() {
    let outbox = Outbox::new();
    let edge = BoxPlan::default().sections(&outbox.section()).start();
    let file = made(Ffmpeg::System, "sound.flv", SOUND);
    let mut publisher = Publisher::publish(edge.rtmp(), "s").expect("it may publish");
    let av1 = |kind: u8, time_ms: u32| {
        let body = [&[0x90 | kind][..], b"av01", &[0x81, 0, 0, 0]].concat();
        Tag { kind: 9, time_ms, body }
    };
    publisher.send(&av1(0, 0));
    for tag in &tags(&file) {
        publisher.send(tag);
        publisher.send(&av1(1, tag.time_ms));
    }
    publisher.finish();
    let path = outbox.wait(&edge.stream_key("s"), "flv", 1, SOON).swap_remove(0);
    let units = |path| read(Ffmpeg::System, path, None, Some(Audio::Aac)).audio.units;
    assert_same("sound", &units(&path), &units(&file));
    let log = edge.log();
    assert!(log.contains("left out") && log.contains("av01"), "{log}");
}
