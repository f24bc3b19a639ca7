//! The bench of a power cut: what a player still finds of each recorder's streams when the power goes, beside
//! the bytes that the recorder wrote for them.
//!
//! Four publishers push for a while to each recorder in turn, on the logged device of the power-cut rig. The power is
//! then cut at some instants of the last quarter, when the kernel has begun to write out what nobody flushed. Found
//! is each picture of the sender that ffprobe reads from the files; the box is started on the cut disk and exports.
//!
//! `BENCH_SECONDS` (44, at most 58), `BENCH_CUTS` (6) and `BENCH_ONLY` (a name) change the run. Needs root.

mod load;
mod recorders;
#[path = "../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use edgerec::cli::demo::reel::Reel;

use load::Load;
use recorders::Recorder;
use support::chance::Chance;
use support::edge_box::BoxPlan;
use support::packets::{Kind, packets, readable_packets};
use support::power_rig::{PowerLog, PowerRig};
use support::scratch;

const STREAMS: usize = 4;
const IMAGE_BYTES: u64 = 2 << 30;
/// Length of what is pushed; longer than the run, so that no picture comes twice.
const CLIP_SECONDS: u32 = 60;
const FRAME_MS: i64 = 40;
/// What writes files that a player opens.
const RECORDERS: [Recorder; 4] =
    [Recorder::Edgerec, Recorder::NginxRtmp, Recorder::Ffmpeg, Recorder::Gstreamer];

fn main() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a BENCH_ number"))
    };
    let time = Duration::from_secs(number("BENCH_SECONDS", 44).min(58));
    let cuts = usize::try_from(number("BENCH_CUTS", 6)).expect("few cuts");
    let only = std::env::var("BENCH_ONLY").ok();
    let clip = load::clip(CLIP_SECONDS);
    let reel = Arc::new(load::reel_of(&clip));
    let sent = packets(&clip).into_iter().filter(|packet| packet.kind == Kind::Video);
    let sent: HashSet<String> = sent.map(|packet| packet.hash).collect();

    println!(
        "{STREAMS} x 4 Mbit/s RTMP, {cuts} power cuts in the last quarter of {} s",
        time.as_secs()
    );
    println!(
        "{:<16} {:>14} {:>13} {:>11}",
        "recorder", "device B/media", "lost s, median", "lost s, most"
    );
    for recorder in RECORDERS {
        if only.as_deref().is_none_or(|only| only == recorder.name()) {
            let (log, media_bytes) = record(recorder, time, &reel);
            let lost_ms = cut(recorder, &log, cuts, time, &sent);
            let seconds = |ms: i64| ms as f64 / 1_000.0;
            println!(
                "{:<16} {:>14.3} {:>13.2} {:>11.2}",
                recorder.name(),
                log.written_bytes() as f64 / media_bytes as f64,
                seconds(lost_ms[lost_ms.len() / 2]),
                seconds(lost_ms[lost_ms.len() - 1]),
            );
        }
    }
}

/// Records on a logged device until the recorder is killed: the log, and the bytes of media sent.
fn record(recorder: Recorder, time: Duration, reel: &Arc<Reel>) -> (PowerLog, u64) {
    let mut rig = PowerRig::start("bench-power", IMAGE_BYTES);
    let aside = scratch("bench-power-aside");
    let running = recorder.start(STREAMS, rig.mount(), aside.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let media_bytes = runtime.expect("the system gives a poller").block_on(async {
        let load = Load::begin(reel, 0..STREAMS, |stream| running.address(stream));
        let played = load.played();
        rig.start_beacons(move || {
            played.iter().map(|played| played.media_ms().cast_signed() + FRAME_MS).collect()
        });
        // Nothing is waited for: this is the length of the run.
        let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
        // The recorder goes first: what publishers do without it is not looked at.
        running.kill();
        load.played().iter().map(|played| played.media_bytes()).sum()
    });
    (rig.stop(), media_bytes)
}

/// What each cut lost of each stream, in milliseconds, in order.
fn cut(
    recorder: Recorder,
    log: &PowerLog,
    count: usize,
    time: Duration,
    sent: &HashSet<String>,
) -> Vec<i64> {
    let mut chance = Chance::from_env("bench-power");
    let from_ms = u64::try_from(time.as_millis() * 3 / 4).expect("a short run");
    let cuts = log.choose_cuts(count, from_ms, &mut chance);
    let lost = log.replay(&cuts, &mut chance, |cut, mount| {
        let dir = scratch("bench-power-cut");
        let files = match recorder {
            Recorder::Edgerec => exported(mount, dir.path()),
            _ => mount.to_owned(),
        };
        let kept: Vec<i64> = (0..STREAMS).map(|stream| found_ms(&files, stream, sent)).collect();
        cut.lost_ms(&kept)
    });
    let mut lost = lost.concat();
    lost.sort_unstable();
    lost
}

/// Lets the box recover, and export each stream to a folder.
fn exported(mount: &Path, dir: &Path) -> PathBuf {
    let plan = BoxPlan::default().ring(mount.join("ring"));
    let plan = plan.ring_setting("capacity", "\"1536MiB\"").ring_setting("slot", "\"16MiB\"");
    let mut edge = plan.start();
    for stream in 0..STREAMS {
        let name = format!("cam{stream}");
        let file = dir.join(format!("{name}.flv"));
        let exported = edge.export_all(&edge.stream_key(&name), "flv", &file.to_string_lossy());
        if let Err(why) = exported {
            println!("{name}: nothing kept: {why}");
        }
    }
    edge.terminate(Duration::from_secs(20));
    dir.to_owned()
}

/// The length of the sender's pictures that a player finds of a stream, in milliseconds.
fn found_ms(dir: &Path, stream: usize, sent: &HashSet<String>) -> i64 {
    let begin = [format!("cam{stream}."), format!("cam{stream}-")];
    let files = fs::read_dir(dir).expect("the folder can be read").map_while(Result::ok);
    let files = files.filter(|file| {
        let name = file.file_name();
        begin.iter().any(|begin| name.to_string_lossy().starts_with(begin))
    });
    let found: HashSet<String> = files
        .flat_map(|file| readable_packets(&file.path()))
        .map(|packet| packet.hash)
        .filter(|hash| sent.contains(hash))
        .collect();
    i64::try_from(found.len()).expect("few pictures") * FRAME_MS
}
