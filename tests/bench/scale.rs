//! The scale bench: what a stream costs where there are one, 20, 100 and more of them, until a recorder no longer
//! takes all: a publisher falls behind or is refused, or media is dropped.
//!
//! Publishers and recorder share the machine, so the floor shows where the machine ends. ffmpeg and GStreamer want
//! a process for each stream; where memory does not reach for them they are not started, and the table says so.
//!
//! `BENCH_SECONDS` (10, each step), `BENCH_MOST` (512 streams) and `BENCH_ONLY` (a name) change the run. Needs root for
//! loop devices.

mod disk;
mod floor;
mod load;
mod meter;
mod recorders;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
mod trial;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use recorders::Recorder;

/// The box admits 256 streams.
const STEPS: [usize; 6] = [1, 20, 100, 200, 256, 512];
const RECORDERS: [Recorder; 5] = [
    Recorder::Floor,
    Recorder::Edgerec,
    Recorder::NginxRtmp,
    Recorder::Ffmpeg,
    Recorder::Gstreamer,
];

fn main() {
    if floor::serves() {
        return;
    }
    let number = |name: &str, usual: usize| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a BENCH_ number"))
    };
    let (seconds, most) = (number("BENCH_SECONDS", 10), number("BENCH_MOST", 512));
    let only = std::env::var("BENCH_ONLY").ok();
    let reel = Arc::new(load::reel());
    println!("4 Mbit/s RTMP a stream, {seconds} s each");
    println!(
        "{:<16} {:>8} {:>16} {:>10} {:>11} {:>14} {:>10}",
        "recorder",
        "streams",
        "CPU s/stream-min",
        "peak MiB",
        "MiB/stream",
        "device B/media",
        "flushes/s"
    );
    let chosen = |recorder: &Recorder| only.as_deref().is_none_or(|only| only == recorder.name());
    for recorder in RECORDERS.into_iter().filter(chosen) {
        let mut with_one_mib = 0.0;
        for streams in STEPS.into_iter().filter(|streams| *streams <= most) {
            if let Some(why) = too_many(recorder, streams, with_one_mib) {
                println!("{:<16} {streams:>8}  not started: {why}", recorder.name());
                break;
            }
            let time = Duration::from_secs(seconds as u64);
            let trial = trial::run(recorder, streams, time, &reel);
            if let Some(fault) = trial.fault {
                println!("{:<16} {streams:>8}  too many: {fault}", recorder.name());
                break;
            }
            if streams == 1 {
                with_one_mib = trial.rss_mib;
            }
            let each_mib = (trial.rss_mib - with_one_mib) / (streams - 1).max(1) as f64;
            println!(
                "{:<16} {streams:>8} {:>16.3} {:>10.1} {each_mib:>11.2} {:>14.3} {:>10.1}",
                recorder.name(),
                trial.cpu_s_per_stream_minute,
                trial.rss_mib,
                trial.device_per_media,
                trial.flushes_per_s
            );
        }
    }
}

/// Why a recorder with a process for each stream cannot be started for so many.
fn too_many(recorder: Recorder, streams: usize, with_one_mib: f64) -> Option<String> {
    if !matches!(recorder, Recorder::Ffmpeg | Recorder::Gstreamer) {
        return None;
    }
    let text = fs::read_to_string("/proc/meminfo").expect("the kernel tells");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("told");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    let (wanted_mib, free_mib) = (with_one_mib * streams as f64, kib / 1_024.0);
    (wanted_mib > free_mib / 2.0).then(|| {
        format!("{streams} processes of {with_one_mib:.0} MiB, {free_mib:.0} MiB are free")
    })
}
