//! The streams bench: what recording costs, side by side with peers in one run.
//!
//! 20 publishers push H.264 and AAC at 4 Mbit/s from one thread for a while to each recorder in turn, on a fresh
//! ext4 of its own. One table says processor time a stream-minute, memory, device bytes a media
//! byte and flushes a second. Times are printed, never asserted: machines differ, ratios matter.
//!
//! `BENCH_SECONDS` (60), `BENCH_STREAMS` (20), `BENCH_ROUNDS` (1) and `BENCH_ONLY` (a name) change
//! the run. Needs root for loop devices.

mod floor;
mod load;
mod meter;
mod recorders;
#[path = "../support/mod.rs"]
mod support;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgerec::cli::demo::reel::Reel;

use load::Load;
use recorders::Recorder;
use support::process::{run, run_ok};
use support::{scratch, tool};
use traffic::Traffic;

const DISK_BYTES: u64 = 2 << 30;

/// How a run is.
struct Plan {
    streams: usize,
    time: Duration,
    rounds: u32,
    only: Option<String>,
}

/// What a recorder cost.
struct Row {
    recorder: Recorder,
    cpu_s_per_stream_minute: f64,
    rss_mib: f64,
    device_per_media: f64,
    flushes_per_s: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, dir] = &arguments[..]
        && what == "floor"
    {
        floor::serve(Path::new(dir)).expect("the floor can listen");
        return;
    }
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a BENCH_ number"))
    };
    let plan = Plan {
        streams: usize::try_from(number("BENCH_STREAMS", 20)).expect("few streams"),
        time: Duration::from_secs(number("BENCH_SECONDS", 60)),
        rounds: u32::try_from(number("BENCH_ROUNDS", 1)).expect("few rounds"),
        only: std::env::var("BENCH_ONLY").ok(),
    };
    let reel = Arc::new(load::reel());
    let mut rows = Vec::new();
    for _ in 0..plan.rounds {
        for recorder in Recorder::ALL {
            // The floor always runs: ratios are to it.
            let chosen = plan.only.as_deref().is_none_or(|only| only == recorder.name());
            if chosen || recorder == Recorder::Floor {
                println!("{} ...", recorder.name());
                rows.push(measure(recorder, &plan, &reel));
            }
        }
    }
    print_table(&plan, &rows);
}

fn measure(recorder: Recorder, plan: &Plan, reel: &Arc<Reel>) -> Row {
    let dir = scratch("bench");
    let disk = Disk::new(dir.path());
    let running = recorder.start(plan.streams, &disk.mount, dir.path());
    let device_before = disk.traffic();
    let cpu_before_s = meter::processes(&running.ids()).expect("/proc is there").cpu_s;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let began = Instant::now();
    let (media_bytes, cost) = runtime.expect("the system gives a poller").block_on(async {
        let load = Load::begin(reel, 0..plan.streams, |stream| running.address(stream));
        // Nothing is waited for: this is the length of the run.
        let _ = tokio::time::timeout(plan.time, std::future::pending::<()>()).await;
        let cost = meter::processes(&running.ids()).expect("/proc is there");
        (load.end().await, cost)
    });
    let seconds = began.elapsed().as_secs_f64();
    running.stop();
    let traffic = disk.traffic().since(device_before);
    Row {
        recorder,
        cpu_s_per_stream_minute: (cost.cpu_s - cpu_before_s)
            / plan.streams as f64
            / (seconds / 60.0),
        rss_mib: cost.rss_kib_max as f64 / 1_024.0,
        device_per_media: traffic.written_bytes as f64 / media_bytes as f64,
        flushes_per_s: traffic.flushes as f64 / seconds,
    }
}

fn print_table(plan: &Plan, rows: &[Row]) {
    let floor: Vec<f64> = rows
        .iter()
        .filter(|row| row.recorder == Recorder::Floor)
        .map(|row| row.cpu_s_per_stream_minute)
        .collect();
    let floor = floor.iter().sum::<f64>() / floor.len() as f64;
    println!("\n{} x 4 Mbit/s RTMP, {} s each", plan.streams, plan.time.as_secs());
    println!(
        "{:<16} {:>16} {:>8} {:>10} {:>14} {:>10}",
        "recorder", "CPU s/stream-min", "x floor", "peak MiB", "device B/media", "flushes/s"
    );
    for row in rows {
        println!(
            "{:<16} {:>16.3} {:>8.2} {:>10.1} {:>14.3} {:>10.1}",
            row.recorder.name(),
            row.cpu_s_per_stream_minute,
            row.cpu_s_per_stream_minute / floor,
            row.rss_mib,
            row.device_per_media,
            row.flushes_per_s
        );
    }
}

/// A fresh ext4 on a loop device of its own; gone when dropped.
struct Disk {
    device: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn new(dir: &Path) -> Disk {
        let (image, mount) = (dir.join("disk.img"), dir.join("disk"));
        let file = fs::File::create_new(&image).expect("the image can be made");
        file.set_len(DISK_BYTES).expect("the image can be stretched");
        fs::create_dir(&mount).expect("the mount point can be made");
        // No initialization is left for later: it would be counted.
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        run_ok(Command::new(tool("mkfs.ext4")).args(["-q", "-F", "-E", eager]).arg(&image));
        let device = run_ok(Command::new(tool("losetup")).args(["--find", "--show"]).arg(&image));
        let device = PathBuf::from(String::from_utf8_lossy(&device).trim());
        let disk = Disk { device, mount };
        run_ok(Command::new(tool("mount")).arg(&disk.device).arg(&disk.mount));
        disk
    }

    /// The device's counters after everything was written out.
    fn traffic(&self) -> Traffic {
        run_ok(Command::new(tool("sync")).arg("-f").arg(&self.mount));
        traffic::device(&self.device).expect("the device has counters")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new(tool("umount")).arg("-l").arg(&self.mount));
        run(Command::new(tool("losetup")).arg("--detach").arg(&self.device));
    }
}
