//! A stream that is not to be recorded leaves no byte on flash: the raw disk is searched for what
//! it carried, and for what a recorded stream beside it carried.

mod support;

use std::time::Duration;

use serde_json::json;

use support::edge_box::{BoxPlan, EdgeBox};
use support::ffmpeg::Ffmpeg;
use support::media::made;
use support::mounts::LoopDisk;
use support::publisher::{Publisher, Tag, tags};
use support::wait::wait_until;

const DISK_BYTES: u64 = 128 << 20;
/// Unlikely to be anywhere by chance, and in no file of this project.
const CANARY_BYTES: usize = 16;
/// As often in each sample.
const COPIES: usize = 8;

#[test]
fn no_byte_of_a_norecord_stream_reaches_the_disk() {
    let disk = LoopDisk::new("norecord", DISK_BYTES);
    let rules = json!({
        "revision": 1,
        "templates": [{"TemplateName": "all", "FlvParam": {"Enable": 1}, "HlsParam": {"Enable": 1}},
                      {"TemplateName": "norecord"}],
        "rules": [
            {"DomainName": "", "AppName": "live", "StreamName": "", "TemplateName": "all"},
            {"DomainName": "", "AppName": "live", "StreamName": "secret",
             "TemplateName": "norecord"}],
    });
    // What no rule wants is kept in the ring; what a rule does not want is not.
    let plan = BoxPlan::default().rules(rules).ring(disk.mount().join("ring"));
    let plan = plan.ring_setting("capacity", "\"64MiB\"").ring_setting("slot", "\"1MiB\"");
    let mut edge = plan.ring_setting("keep_all", "true").start();

    let (secret, kept) = (canary(), canary());
    push_both(&edge, [("secret", &secret), ("kept", &kept)]);
    assert!(edge.terminate(Duration::from_secs(10)).success());
    let log = edge.log();
    assert!(log.contains("decision=\"norecord\""), "{log}");
    drop(edge);

    let image = disk.into_bytes();
    assert!(count(&image, &kept) >= COPIES * 100, "the recorded stream is not found either");
    assert_eq!(count(&image, &secret), 0, "bytes of the norecord stream are on the disk");
}

/// Pushes both at the same time, sample by sample.
fn push_both(edge: &EdgeBox, streams: [(&str, &[u8]); 2]) {
    let arguments = "PICTURES SOUND -c:v libx264 -preset ultrafast -g 25 -c:a aac -t 8 \
                     -pix_fmt yuv420p -flvflags no_duration_filesize";
    let tags = tags(&made(Ffmpeg::System, "norecord.flv", arguments));
    let mut publishers = streams.map(|(name, canary)| {
        (Publisher::publish(edge.rtmp(), name).expect("it may publish"), canary)
    });
    for tag in &tags {
        for (publisher, canary) in &mut publishers {
            publisher.send(&with_canary(tag, canary));
        }
    }
    publishers.into_iter().for_each(|(publisher, _)| publisher.finish());
    for (name, _) in streams {
        let end = format!("publish ends key={}", edge.stream_key(name));
        wait_until(Duration::from_secs(10), &end, || edge.log().contains(&end));
    }
}

/// The tag with the canary in its media; configurations stay as they are.
fn with_canary(tag: &Tag, canary: &[u8]) -> Tag {
    let body = match (tag.kind, &tag.body[..]) {
        (9, [_, 1, ..]) => {
            let unit = [&[6], &canary.repeat(COPIES)[..]].concat();
            let len = u32::try_from(unit.len()).expect("small").to_be_bytes();
            [&tag.body[..], &len, &unit].concat()
        }
        (8, [_, 1, ..]) => [&tag.body[..2], &canary.repeat(COPIES)].concat(),
        _ => tag.body.clone(),
    };
    Tag { body, ..tag.clone() }
}

/// Fresh random bytes.
fn canary() -> Vec<u8> {
    let mut bytes = vec![0; CANARY_BYTES];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

fn count(image: &[u8], canary: &[u8]) -> usize {
    image.windows(canary.len()).filter(|window| *window == canary).count()
}
