//! Many small files through faults and kills: none missing, none twice, none damaged, and little
//! sent in vain. What was sent is read from the log of the platform.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use edgerec::delivery::settings::{DeliverySettings, Rest};
use edgerec::platform::clock::SystemClock;
use serde_json::json;

use crate::bench::{Running, vod_target};
use crate::support::chance::Chance;
use crate::support::fake_vod::FakeVod;
use crate::support::memory_shelf::{MadeUp, MemoryShelf};
use crate::support::wait::wait_until;

/// Requests that meet a fault, in percent.
const FAULTED: u64 = 30;
/// Bytes sent in vain, in percent of the files.
const WASTED_MAX: f64 = 5.0;

fn long() -> bool {
    std::env::var_os("EDGEREC_LONG").is_some()
}

/// The numbers begin with 1; a file has 20 to 60 kB.
fn made_up(number: u64) -> MadeUp {
    MadeUp::single(number, 20_000 + number * 7_919 % 40_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_through_faults_and_kills_arrive_once_and_cost_little_more() {
    let (files, kills) = if long() { (10_000, 100) } else { (300, 8) };
    let mut chance = Chance::from_env("backlog");
    let vod = FakeVod::start();
    vod.set("repeat", "refused");
    vod.set("chance", FAULTED);
    let shelf = MemoryShelf::new();
    let ids: Vec<_> = (1..=files).map(|number| shelf.put(number, made_up(number))).collect();
    let rest = |ms| Rest { first: Duration::from_millis(1), longest: Duration::from_millis(ms) };
    let settings = || DeliverySettings {
        target_rest: rest(5),
        file_rest: rest(20),
        ..DeliverySettings::default()
    };
    let start = || {
        let target = vod_target(&vod, Arc::new(SystemClock::new()));
        Running::start_with(&shelf, target, settings())
    };
    for kill in 1..=kills {
        let running = start();
        // A file takes four requests with such faults; the kills fall into the first part.
        let requests = (kill - 1) * files * 3 / kills + chance.below(files * 3 / kills);
        wait_until(Duration::from_secs(1_200), "requests", || vod.requests() >= requests);
        running.kill().await;
    }
    let running = start();
    for id in &ids {
        shelf.delivered_within(*id, Duration::from_secs(3_600)).await;
    }
    running.kill().await;

    let media = vod.media();
    let contexts: HashSet<_> = media.iter().map(|media| media["SourceContext"].clone()).collect();
    assert_eq!((media.len(), contexts.len()), (ids.len(), ids.len()), "none missing, none twice");
    let mut useful = 0;
    for (number, id) in (1..).zip(&ids) {
        let context = json!(format!("edgerec-file:{id}"));
        let found = media.iter().find(|media| media["SourceContext"] == context);
        let path = found.expect("committed")["Objects"][0].as_str().expect("a path").to_owned();
        let wanted = made_up(number);
        assert!(vod.object(&path).expect("stored") == wanted.bytes(0), "{path} is damaged");
        assert_eq!(shelf.fate(*id).receipt.expect("delivered").sha256, wanted.sha256());
        useful += wanted.objects[0].len;
    }
    let log = vod.log();
    let faulted = log.iter().filter(|seen| seen.fault.is_some()).count();
    assert!(faulted * 100 >= log.len() * 20, "the faults were there: {faulted} of {}", log.len());
    let sent: u64 = log.iter().filter(|seen| seen.on == "put").map(|seen| seen.bytes).sum();
    let wasted = (sent - useful) as f64 * 100.0 / useful as f64;
    println!("{files} files, {kills} kills, {} requests: {wasted:.2} % wasted", log.len());
    assert!(wasted <= WASTED_MAX, "{wasted} % sent in vain");
}
