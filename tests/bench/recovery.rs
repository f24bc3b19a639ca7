//! The recovery bench: how long a start takes until there are slots to record to, by the size of the ring;
//! where all is in order, and where `state.db` is lost. And how long the next slots take, in either. In memory, so flash counts as reads only.
//!
//! `BENCH_SLOTS` (100000) is the largest ring; one of that size takes 2 GB without its `state.db`.

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgerec::platform::clock::SystemClock;
use edgerec::ring::handle::StillRing;

use support::large_ring::{Pattern, fill, format, full_ring, scratch};
use support::recorded_ring::settings;
use support::watched_flash::WatchedFlash;

/// Slots that are asked for.
const WANTED: usize = 4;

fn main() {
    let most = std::env::var("BENCH_SLOTS").map_or(100_000, |n| n.parse().expect("a number"));
    let pattern = Pattern::record();
    println!("time until slots are there to be recorded to, and reads of slots");
    println!("{:>8} {:>38} {:>38}", "slots", "in order", "without state.db");
    for slots in [100, 1_000, 10_000, 100_000].into_iter().filter(|slots| *slots <= most) {
        let dir = scratch();
        format(dir.path(), slots);
        start(dir.path());
        fill(&dir.path().join("state.db"));
        let in_order = start(dir.path());
        drop(dir);
        let dir = scratch();
        full_ring(dir.path(), &pattern, slots);
        let lost = start(dir.path());
        let told = |(time, reads, next): (Duration, u64, Duration)| {
            let [time, next] = [time, next].map(|time| time.as_secs_f64() * 1_000.0);
            format!("{time:>9.1} ms {reads:>5} reads, next {next:>6.1} ms")
        };
        println!("{slots:>8} {:>38} {:>38}", told(in_order), told(lost));
    }
}

/// Opens the ring at `path` and asks for slots: how long that took, how many reads, and how long it takes
/// when slots are asked for again.
fn start(path: &Path) -> (Duration, u64, Duration) {
    let flash = WatchedFlash::default();
    let began = Instant::now();
    let clock = Arc::new(SystemClock::new());
    let (mut state, _still) =
        StillRing::open(&settings(path), Arc::new(flash.clone()), clock).expect("opens");
    let slots = state.reserve(WANTED).expect("answered");
    let took = began.elapsed();
    assert_eq!(slots.len(), WANTED, "slots to record to");
    let reads = flash.reads();
    let again = Instant::now();
    state.reserve(WANTED).expect("answered");
    (took, reads, again.elapsed())
}
