//! The retention bench: how much of the ring holds media where encoders come and go every 10 s.
//!
//! 20 encoders of 4 Mbit/s go away after 10 s, all at once, and come again, until the ring has turned; under the
//! same names, and under a new name each time. What the files in the ring hold is compared to all
//! its slots.
//!
//! `BENCH_ROUNDS` (12) changes how often they come. Needs no other tool.

mod load;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use edgerec::cli::demo::reel::Reel;

use load::Load;
use support::edge_box::{BoxPlan, EdgeBox};

const ENCODERS: usize = 20;
const STAY: Duration = Duration::from_secs(10);
const CAPACITY_MIB: u64 = 640;

fn main() {
    let rounds = std::env::var("BENCH_ROUNDS").map_or(12, |n| n.parse().expect("a number"));
    let reel = Arc::new(load::reel());
    println!("{ENCODERS} encoders of 4 Mbit/s that come for {} s, {rounds} times", STAY.as_secs());
    println!(
        "{:<16} {:>9} {:>9} {:>10} {:>8}",
        "names", "sent MiB", "kept MiB", "slots MiB", "kept"
    );
    for (names, anew) in [("the same", false), ("new each time", true)] {
        let plan = BoxPlan::default().ring_setting("capacity", &format!("\"{CAPACITY_MIB}MiB\""));
        let edge = plan.ring_setting("slot", "\"4MiB\"").start();
        let sent = come_and_go(&edge, &reel, rounds, anew);
        let (kept, slots) = held(&edge);
        let [sent, kept, slots] = [sent, kept, slots].map(|bytes| bytes as f64 / (1 << 20) as f64);
        println!(
            "{names:<16} {sent:>9.0} {kept:>9.0} {slots:>10.0} {:>7.1}%",
            100.0 * kept / slots
        );
    }
}

/// Bytes of media that were sent.
fn come_and_go(edge: &EdgeBox, reel: &Arc<Reel>, rounds: usize, anew: bool) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system gives a poller").block_on(async {
        let mut sent = 0;
        for round in 0..rounds {
            let first = if anew { round * ENCODERS } else { 0 };
            let load = Load::begin(reel, first..first + ENCODERS, |_| edge.rtmp());
            // Nothing is waited for: this is how long they stay.
            let _ = tokio::time::timeout(STAY, std::future::pending::<()>()).await;
            sent += load.end().await;
        }
        sent
    })
}

/// Bytes of media in the ring, and of its slots.
fn held(edge: &EdgeBox) -> (u64, u64) {
    let query = "SELECT sum(end - media) FROM segment";
    let db = rusqlite::Connection::open(edge.ring().join("state.db")).expect("opens");
    let number = |text| db.query_row(text, [], |row| row.get::<_, i64>(0)).expect("a number");
    (number(query).cast_unsigned(), number("SELECT count(*) FROM slot").cast_unsigned() * (4 << 20))
}
