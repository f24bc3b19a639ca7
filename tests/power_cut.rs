//! The box loses its power at any write: what it kept, against what the encoders had sent.

mod support;

#[path = "power_cut/f2fs.rs"]
mod f2fs;
#[path = "power_cut/in_recovery.rs"]
mod in_recovery;
#[path = "power_cut/promises.rs"]
mod promises;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use support::chance::Chance;
use support::edge_box::{BoxPlan, EdgeBox};
use support::ffmpeg::Ffmpeg;
use support::media::Clip;
use support::packets::{Packet, assert_stretch_of, packets, video_end_ms};
use support::power_rig::{Cut, PowerLog, PowerRig};
use support::push::{Pace, Pusher, push_file};
use support::scratch;
use support::wait::wait_until;

const STREAMS: usize = 4;
const IMAGE_BYTES: u64 = 512 << 20;
/// The encoders run this long, in milliseconds of media.
const RUN_MS: i64 = 25_000;
/// Cuts are made from here on, in milliseconds after the first encoder was started.
const CUTS_FROM_MS: u64 = 6_000;
/// The promise, in milliseconds.
const LOST_MS_MAX: i64 = 2_500;
/// An encoder's report of what it sent is at most this old, in milliseconds.
const REPORT_AGE_MS: i64 = 100;
/// How long a recovering box may take to be ready.
const READY_MS_MAX: u128 = 3_000;

/// The clip of each stream: longer than the run, so that no packet comes twice.
const CLIP: Clip =
    Clip { seconds: 60, fps: 25, gop: 50, b_frames: 2, video_kbps: 2_000, audio: true };

/// Length of a picture of the clip, in milliseconds.
const FRAME_MS: i64 = 40;

#[test]
fn a_power_cut_loses_at_most_the_promise_and_breaks_nothing() {
    let mut chance = Chance::from_env("power-cut");
    let log = record(BoxPlan::default());
    let states = cut_and_recover(&log, cut_count(20), &mut chance);
    let broken: Vec<&String> = states.iter().flat_map(|state| &state.broken).collect();
    assert!(broken.is_empty(), "broken: {broken:#?}");
    let lost: Vec<i64> = states.iter().flat_map(|state| state.lost_ms.clone()).collect();
    assert!(lost.iter().max() <= Some(&LOST_MS_MAX), "lost more than the promise: {lost:?}");
    assert!(lost.iter().max() > Some(&0), "a rig that never loses anything measures nothing");
}

/// The control: the same box with its group sync left out must lose much, or name what is gone.
#[cfg(feature = "planted-faults")]
#[test]
fn without_its_sync_the_box_makes_the_rig_go_red() {
    let mut chance = Chance::from_env("power-cut-red");
    let log = record(BoxPlan::default().env("EDGEREC_PLANT_NO_SYNC", "1"));
    let states = cut_and_recover(&log, 20, &mut chance);
    let red = |state: &&State| {
        state.lost_ms.iter().any(|ms| *ms > LOST_MS_MAX) || !state.broken.is_empty()
    };
    let red = states.iter().filter(red).count();
    println!("without its sync: {red} of {} states are red", states.len());
    assert!(red * 100 >= states.len() * 95, "the rig did not go red: {states:#?}");
}

/// How many cuts: more in long runs.
fn cut_count(ordinary: usize) -> usize {
    std::env::var("EDGEREC_CUTS")
        .map_or(ordinary, |count| count.parse().expect("EDGEREC_CUTS is a number"))
}

/// Records four encoders on a logged device.
fn record(plan: BoxPlan) -> PowerLog {
    let mut rig = PowerRig::start("power-cut", IMAGE_BYTES);
    let plan = ring_plan(plan, rig.mount());
    let mut edge = plan.start();
    let clip = CLIP.flv();
    let pushers = encode(&mut rig, |stream| {
        let log = edge.dir().join(format!("push-{stream}.log"));
        push_file(&clip, &edge.push_url(&name(stream)), Pace::Real, &log)
    });
    // The box goes first: what the encoders do without it is not looked at.
    edge.kill();
    drop(pushers);
    rig.stop()
}

/// Starts an encoder for each stream, and beacons of what they have sent; until that is enough.
fn encode(rig: &mut PowerRig, push: impl Fn(usize) -> Pusher) -> Vec<Pusher> {
    let mut pushers: Vec<Pusher> = (0..STREAMS).map(push).collect();
    let clocks: Vec<_> = pushers.iter().map(Pusher::sent_clock).collect();
    rig.start_beacons(move || {
        clocks.iter().map(|clock| clock.load(Ordering::Relaxed) + REPORT_AGE_MS).collect()
    });
    wait_until(Duration::from_secs(90), "the encoders have sent enough", || {
        for pusher in &mut pushers {
            assert!(pusher.process().is_running(), "{}", pusher.process().log_tail());
        }
        pushers.iter().all(|pusher| pusher.sent_ms() >= RUN_MS)
    });
    pushers
}

fn ring_plan(plan: BoxPlan, mount: &Path) -> BoxPlan {
    plan.ring(mount.join("ring")).ring_setting("capacity", "\"320MiB\"")
}

fn name(stream: usize) -> String {
    format!("cam{stream}")
}

/// What a box has after a power cut.
#[derive(Debug)]
struct State {
    /// What is lost of each stream, in milliseconds.
    lost_ms: Vec<i64>,
    /// What is not as it should be.
    broken: Vec<String>,
}

/// What each cut left.
fn cut_and_recover(log: &PowerLog, count: usize, chance: &mut Chance) -> Vec<State> {
    let sent = packets(&CLIP.flv());
    let cuts = log.choose_cuts(count, CUTS_FROM_MS, chance);
    let states = log.replay(&cuts, chance, |cut: &Cut, mount| {
        let began = Instant::now();
        let mut edge = ring_plan(BoxPlan::default(), mount).start();
        let ready = began.elapsed().as_millis();
        assert!(ready <= READY_MS_MAX, "{cut:?}: ready after {ready} ms");
        let kept: Vec<i64> = (0..STREAMS).map(|stream| kept_ms(&edge, stream, &sent)).collect();
        let mut broken = broken_files(&edge);
        assert!(edge.terminate(Duration::from_secs(5)).success());
        let fsck = edge.cli(&["fsck"]);
        if !fsck.status.success() {
            broken.push(format!("fsck: {}", String::from_utf8_lossy(&fsck.stdout)));
        }
        let lost_ms = cut.lost_ms(&kept);
        println!(
            "{:?} at {} ms: lost {lost_ms:?} ms, {} broken, ready after {ready} ms",
            cut.cache,
            cut.at_ms,
            broken.len()
        );
        State { lost_ms, broken }
    });
    let mut lost: Vec<i64> = states.iter().flat_map(|state| state.lost_ms.clone()).collect();
    lost.sort_unstable();
    println!("{count} cuts: median {} ms, most {} ms", lost[lost.len() / 2], lost[lost.len() - 1]);
    states
}

/// How far a stream was kept, in milliseconds. What was kept must be, packet for packet, what the
/// encoder sent.
fn kept_ms(edge: &EdgeBox, stream: usize, sent: &[Packet]) -> i64 {
    let name = name(stream);
    let path = match edge.export_all(&edge.stream_key(&name), "flv", &format!("{name}.flv")) {
        Ok(path) => path,
        Err(why) => {
            println!("{name}: nothing kept: {why}");
            return 0;
        }
    };
    let kept = packets(&path);
    assert_stretch_of(&kept, sent, &name);
    video_end_ms(&kept, FRAME_MS)
}

/// Files that the box lists and that do not open or decode.
fn broken_files(edge: &EdgeBox) -> Vec<String> {
    let dir = scratch("files");
    let mut broken = Vec::new();
    for row in edge.ls() {
        let id = row["file_id"].as_str().expect("a row has a file id");
        let path = dir.path().join(id);
        let output = edge.cli(&["export", "--file", id, "-o", &path.to_string_lossy()]);
        if !output.status.success() {
            broken.push(format!("{id}: {}", String::from_utf8_lossy(&output.stderr)));
        } else if let Err(fault) = Ffmpeg::System.decode(&path) {
            broken.push(format!("{id}: {fault}"));
        }
    }
    broken
}
