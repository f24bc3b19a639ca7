//! What is written to the card is counted as the kernel counts it, over restarts and kills, and a card
//! that will not last is warned of.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};
use support::broker::Broker;
use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::http::metric;
use support::media::Clip;
use support::mounts::LoopDisk;
use support::operator::Operator;
use support::push::{Pace, push_file};
use support::wait::{wait_for, wait_until};

const TO_ALL: &str = "edgerec/v1/venue/config";
const STATE: &str = "edgerec/v1/venue/box/box-01/state";
const SOON: Duration = Duration::from_secs(60);
const CLIP: Clip = Clip { seconds: 4, fps: 25, gop: 25, b_frames: 0, video_kbps: 500, audio: true };

/// Bytes written to the device under a folder, and its flushes: `Documentation/block/stat.rst`.
fn counted(folder: &Path) -> [u64; 2] {
    let device = fs::metadata(folder).expect("there").dev();
    let stat = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
    let stat = fs::read_to_string(stat).expect("a block device");
    let fields: Vec<u64> = stat.split_whitespace().map(|field| field.parse().expect("n")).collect();
    [fields[6] * 512, fields[15]]
}

/// What the box has counted since its ring was made.
fn told(edge: &EdgeBox) -> [u64; 2] {
    ["edgerec_flash_written_bytes_total", "edgerec_flash_flushes_total"]
        .map(|name| wait_for(SOON, &format!("{name} is told"), || metric(edge, name)))
}

/// The box looks when it starts: its account is then what the kernel has at that time.
#[track_caller]
fn starts_exact(edge: &mut EdgeBox, folder: &Path) {
    let before = counted(folder);
    edge.start_again();
    let (told, after) = (told(edge), counted(folder));
    for which in 0..2 {
        let range = before[which]..=after[which];
        assert!(range.contains(&told[which]), "{told:?}, the kernel: {before:?} to {after:?}");
    }
}

fn record(edge: &EdgeBox, stream: &str) {
    let log = edge.dir().join(format!("{stream}.log"));
    push_file(&CLIP.flv(), &edge.push_url(stream), Pace::Times(4), &log).finish_within(SOON);
    edge.file_within(SOON, |row| row["stream"] == stream && row["state"] == "waiting");
}

#[test]
fn the_account_is_that_of_the_kernel_over_restarts_and_kills() {
    let disk = LoopDisk::new("wear", 64 << 20);
    let plan = BoxPlan::default().ring(disk.mount().join("ring")).rules(record_all(&["Flv"]));
    let plan = plan.ring_setting("capacity", "\"48MiB\"").ring_setting("slot", "\"1MiB\"");
    let mut edge = plan.start();
    let first = told(&edge);
    record(&edge, "one");
    edge.terminate(SOON);
    starts_exact(&mut edge, disk.mount());
    record(&edge, "two");
    edge.kill();
    starts_exact(&mut edge, disk.mount());
    let media = fs::metadata(CLIP.flv()).expect("there").len();
    assert!(told(&edge)[0] - first[0] > media, "two clips were written");
    edge.kill();
    drop(edge);
}

#[test]
fn a_card_that_the_rules_wear_out_too_early_is_warned_of() {
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let rules = |revision: u32, enable: u32| {
        json!({"revision": revision,
            "templates": [{"TemplateName": "t", "FlvParam": {"Enable": enable}}],
            "rules": [{"DomainName": "", "StreamName": "", "TemplateName": "t"}]})
        .to_string()
    };
    operator.send(TO_ALL, rules(1, 0));
    let disk = LoopDisk::new("wear", 64 << 20);
    let mqtt = format!("url = \"mqtt://{}\"\nfleet = \"venue\"\n", broker.addr());
    let plan = BoxPlan::default().mqtt(&mqtt).ring(disk.mount().join("ring"));
    let plan = plan.ring_setting("capacity", "\"48MiB\"").ring_setting("slot", "\"1MiB\"");
    // 60 kB a second are 5 GB a day.
    let plan = plan.ring_setting("endurance", "\"200GB\"").ring_setting("warn_wear", "\"365d\"");
    let edge = plan.start();
    let log = edge.dir().join("push.log");
    let _pusher = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::RealLooped, &log);
    let warning = || metric(&edge, "edgerec_flash_wear_warning");
    wait_for(SOON, "the wear is told", warning);
    let applied =
        |revision: u64| move |state: &Value| state["rules"]["fleet"]["applied"] == revision;
    operator.hear(SOON, STATE, "nothing is recorded", applied(1));
    // The rate of the stream is measured, and the rules have it recorded from now on.
    operator.send(TO_ALL, rules(2, 1));
    operator.hear(SOON, STATE, "it is recorded", applied(2));
    wait_until(SOON, "the warning", || warning() == Some(1));
    assert!(edge.log().contains("worn out before its time"), "{}", edge.log());
    let by_rules = metric(&edge, "edgerec_flash_days_left{by=\"rules\"}").expect("known");
    assert!((20..60).contains(&by_rules), "{by_rules} days");
}
