//! The streams bench: what recording costs, side by side with peers in one run.
//!
//! 20 publishers push H.264 and AAC at 4 Mbit/s from one thread for a while to each recorder in turn, on a fresh
//! ext4 of its own. One table says processor time a stream-minute, memory, device bytes a media
//! byte and flushes a second. Times are printed, never asserted: machines differ, ratios matter.
//!
//! `BENCH_SECONDS` (30), `BENCH_STREAMS` (20), `BENCH_ROUNDS` (1) and `BENCH_ONLY` (a name) change
//! the run. Needs root for loop devices.

mod disk;
mod floor;
mod load;
mod meter;
mod recorders;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
mod trial;

use std::sync::Arc;
use std::time::Duration;

use recorders::Recorder;
use trial::Trial;

fn main() {
    if floor::serves() {
        return;
    }
    let number = |name: &str, usual: usize| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a BENCH_ number"))
    };
    let (streams, seconds) = (number("BENCH_STREAMS", 20), number("BENCH_SECONDS", 30));
    let only = std::env::var("BENCH_ONLY").ok();
    let reel = Arc::new(load::reel());
    let mut rows = Vec::new();
    for _ in 0..number("BENCH_ROUNDS", 1) {
        for recorder in Recorder::ALL {
            // The floor always runs: ratios are to it.
            let chosen = only.as_deref().is_none_or(|only| only == recorder.name());
            if chosen || recorder == Recorder::Floor {
                println!("{} ...", recorder.name());
                let time = Duration::from_secs(seconds as u64);
                rows.push((recorder, trial::run(recorder, streams, time, &reel)));
            }
        }
    }
    println!("\n{streams} x 4 Mbit/s RTMP, {seconds} s each");
    print_table(&rows);
}

fn print_table(rows: &[(Recorder, Trial)]) {
    let floor: Vec<f64> = rows
        .iter()
        .filter(|(recorder, _)| *recorder == Recorder::Floor)
        .map(|(_, trial)| trial.cpu_s_per_stream_minute)
        .collect();
    let floor = floor.iter().sum::<f64>() / floor.len() as f64;
    println!(
        "{:<16} {:>16} {:>8} {:>10} {:>14} {:>10}",
        "recorder", "CPU s/stream-min", "x floor", "peak MiB", "device B/media", "flushes/s"
    );
    for (recorder, trial) in rows {
        println!(
            "{:<16} {:>16.3} {:>8.2} {:>10.1} {:>14.3} {:>10.1}  {}",
            recorder.name(),
            trial.cpu_s_per_stream_minute,
            trial.cpu_s_per_stream_minute / floor,
            trial.rss_mib,
            trial.device_per_media,
            trial.flushes_per_s,
            trial.fault.as_deref().unwrap_or_default()
        );
    }
}
