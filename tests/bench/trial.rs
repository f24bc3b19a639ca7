//! A trial: a recorder takes streams for a while, on a disk of its own, and what that cost.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgerec::cli::demo::reel::Reel;
use rusqlite::Connection;

use crate::disk::Disk;
use crate::load::Load;
use crate::meter;
use crate::recorders::{Recorder, ring_mib};
use crate::support::scratch;

/// A publisher that is this far behind its media's time does not get rid of it.
const BEHIND_MAX: Duration = Duration::from_secs(2);
/// The kernel holds more than this for a recorder that does not keep up: two seconds of a stream.
const WAITING_BYTES_MAX: usize = 1_000_000;
/// What a second of a stream takes at most on disk, in KiB, eight times over.
const KIB_PER_S: u64 = 8 * 512;

/// What a recorder cost.
pub struct Trial {
    /// Processor time for a minute of a stream, in seconds.
    pub cpu_s_per_stream_minute: f64,
    /// Peak memory.
    pub rss_mib: f64,
    /// Bytes written to the device for each byte of media sent.
    pub device_per_media: f64,
    /// Flushes of the device.
    pub flushes_per_s: f64,
    /// What it did not take, if it did not take all.
    pub fault: Option<String>,
}

/// Pushes `streams` streams to a recorder for `time`.
pub fn run(recorder: Recorder, streams: usize, time: Duration, reel: &Arc<Reel>) -> Trial {
    let dir = scratch("bench");
    let media_kib = streams as u64 * time.as_secs() * KIB_PER_S;
    let disk = Disk::new(dir.path(), ((ring_mib(streams) as u64 + 512) << 20) + (media_kib << 10));
    let running = recorder.start(streams, &disk.mount, dir.path());
    let device_before = disk.traffic();
    let cpu_before_s = meter::processes(&running.ids()).expect("/proc is there").cpu_s;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let began = Instant::now();
    let (sent, cost, behind, waiting) =
        runtime.expect("the system gives a poller").block_on(async {
            let load = Load::begin(reel, 0..streams, |stream| running.address(stream));
            // Nothing is waited for: this is the length of the run.
            let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
            let cost = meter::processes(&running.ids()).expect("/proc is there");
            let (behind, waiting) = (load.behind(), running.waiting_bytes());
            (load.end().await, cost, behind, waiting)
        });
    let seconds = began.elapsed().as_secs_f64();
    running.stop();
    let traffic = disk.traffic().since(device_before);
    let dropped_ms = dropped_ms(&disk.mount.join("ring/state.db"));
    let fault = if sent.failed > 0 {
        Some(format!("{} publishers were refused or cut off", sent.failed))
    } else if behind > BEHIND_MAX {
        Some(format!("a publisher is {:.1} s behind", behind.as_secs_f64()))
    } else if waiting > WAITING_BYTES_MAX {
        Some(format!("{waiting} bytes of a stream wait to be read"))
    } else {
        (dropped_ms > 0).then(|| format!("{dropped_ms} ms of media dropped"))
    };
    Trial {
        cpu_s_per_stream_minute: (cost.cpu_s - cpu_before_s) / streams as f64 / (seconds / 60.0),
        rss_mib: cost.rss_kib_max as f64 / 1_024.0,
        device_per_media: traffic.written_bytes as f64 / sent.media_bytes as f64,
        flushes_per_s: traffic.flushes as f64 / seconds,
        fault,
    }
}

/// What the box's ledger says that it dropped, in milliseconds of media; nothing where there is no box.
fn dropped_ms(state: &Path) -> i64 {
    if !state.exists() {
        return 0;
    }
    let db = Connection::open(state).expect("opens");
    let query = "SELECT coalesce(sum(media_ms), 0) FROM gap WHERE cause = 'flash did not keep up'";
    db.query_row(query, [], |row| row.get(0)).expect("a number")
}
