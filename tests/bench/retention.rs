//! The retention bench: what encoders that come and go every 10 s waste of the ring.
//!
//! 20 encoders of 4 Mbit/s push until the ring has turned: without a break, coming back every 10 s under
//! their names, and under a new name each time. What the ring holds of media is compared to the first.
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
    println!("{ENCODERS} encoders of 4 Mbit/s for {} s", rounds as u64 * STAY.as_secs());
    println!("{:<26} {:>9} {:>9} {:>10}", "", "sent MiB", "kept MiB", "x the first");
    let ways = [
        ("without a break", 1, STAY * u32::try_from(rounds).expect("few"), false),
        ("back every 10 s", rounds, STAY, false),
        ("new names every 10 s", rounds, STAY, true),
    ];
    let mut first = None;
    for (what, rounds, stay, anew) in ways {
        let plan = BoxPlan::default().ring_setting("capacity", &format!("\"{CAPACITY_MIB}MiB\""));
        let edge = plan.ring_setting("slot", "\"4MiB\"").start();
        let sent = come_and_go(&edge, &reel, (rounds, stay), anew);
        let [sent, kept] = [sent, held(&edge)].map(|bytes| bytes as f64 / (1 << 20) as f64);
        let ideal = *first.get_or_insert(kept);
        println!("{what:<26} {sent:>9.0} {kept:>9.0} {:>10.2}", kept / ideal);
    }
}

/// Bytes of media that were sent.
fn come_and_go(
    edge: &EdgeBox,
    reel: &Arc<Reel>,
    (rounds, stay): (usize, Duration),
    anew: bool,
) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system gives a poller").block_on(async {
        let mut sent = 0;
        for round in 0..rounds {
            let first = if anew { round * ENCODERS } else { 0 };
            let load = Load::begin(reel, first..first + ENCODERS, |_| edge.rtmp());
            // Nothing is waited for: this is how long they stay.
            let _ = tokio::time::timeout(stay, std::future::pending::<()>()).await;
            let ended = load.end().await;
            assert_eq!(ended.failed, 0, "the box takes all");
            sent += ended.media_bytes;
        }
        sent
    })
}

/// Bytes of media in the ring.
fn held(edge: &EdgeBox) -> u64 {
    let db = rusqlite::Connection::open(edge.ring().join("state.db")).expect("opens");
    let held = "SELECT sum(end - media) FROM segment";
    db.query_row(held, [], |row| row.get::<_, i64>(0)).expect("a number").cast_unsigned()
}
