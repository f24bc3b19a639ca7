//! The power-cut rig is trusted only because it can go red: a writer that never syncs must lose
//! much, one that syncs every second must not.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::chance::Chance;
use support::power_rig::{Cut, PowerRig};

const STREAMS: usize = 4;
/// 2 Mbit/s a stream.
const PART_BYTES: usize = 250_000;
const PART: Duration = Duration::from_secs(1);
const PARTS: i64 = 22;
/// Cuts are made in the later part of the run.
const CUTS_FROM_MS: u64 = 8_000;
const CUTS: usize = 30;

#[test]
fn a_writer_that_never_syncs_makes_the_rig_go_red() {
    let lost = losses_of_writer("power-red", false);
    let much = lost.iter().filter(|ms| **ms > 5_000).count();
    assert!(lost.iter().max() > Some(&10_000), "lost at most 10 s: {lost:?}");
    assert!(much * 2 > lost.len(), "most cuts lost less than 5 s: {lost:?}");
}

#[test]
fn a_writer_that_syncs_each_second_stays_within_the_bound() {
    let lost = losses_of_writer("power-green", true);
    assert!(lost.iter().max() <= Some(&2_500), "lost more than 2.5 s: {lost:?}");
    assert!(lost.iter().max() > Some(&0), "a rig that never loses anything measures nothing");
}

/// Runs four writers in parts of a second, cuts, and counts what each cut lost of each stream, in
/// milliseconds.
fn losses_of_writer(name: &str, sync: bool) -> Vec<i64> {
    let mut chance = Chance::from_env(name);
    let mut rig = PowerRig::start(name, 256 << 20);
    let sent: Vec<Arc<AtomicI64>> = (0..STREAMS).map(|_| Arc::default()).collect();
    let clocks = sent.clone();
    rig.start_beacons(move || clocks.iter().map(|ms| ms.load(Ordering::SeqCst)).collect());
    write_streams(rig.mount(), &sent, sync);
    let log = rig.stop();
    let cuts = log.choose_cuts(CUTS, CUTS_FROM_MS, &mut chance);
    let lost = log.replay(&cuts, &mut chance, |cut: &Cut, mount| {
        let kept: Vec<i64> = (0..STREAMS).map(|stream| kept_ms(mount, stream)).collect();
        cut.lost_ms(&kept)
    });
    let mut lost = lost.concat();
    lost.sort_unstable();
    println!("{name}: median {} ms, most {} ms", lost[lost.len() / 2], lost[lost.len() - 1]);
    lost
}

/// Each stream: media arrives all the time (the sender's clock), and is written once a part is
/// whole.
fn write_streams(mount: &Path, sent: &[Arc<AtomicI64>], sync: bool) {
    let mut files: Vec<File> = (0..STREAMS)
        .map(|stream| File::create_new(mount.join(stream.to_string())).expect("a file is made"))
        .collect();
    let (_never, clock) = mpsc::channel::<()>();
    let began = Instant::now();
    let mut part = 0;
    while part < PARTS {
        let elapsed = began.elapsed();
        let elapsed_ms = i64::try_from(elapsed.as_millis()).expect("tests are short");
        sent.iter().for_each(|ms| ms.store(elapsed_ms, Ordering::SeqCst));
        if elapsed >= PART * u32::try_from(part + 1).expect("few parts") {
            part += 1;
            for file in &mut files {
                file.write_all(&whole_part(part)).expect("a part is written");
                if sync {
                    file.sync_data().expect("a part is synced");
                }
            }
        }
        let tick = clock.recv_timeout(Duration::from_millis(10));
        assert_eq!(tick, Err(mpsc::RecvTimeoutError::Timeout));
    }
}

/// A part names itself in every word, so that a torn one is seen.
fn whole_part(part: i64) -> Vec<u8> {
    part.to_le_bytes().repeat(PART_BYTES / 8)
}

/// Media time up to the last whole part, in milliseconds.
fn kept_ms(mount: &Path, stream: usize) -> i64 {
    let bytes = fs::read(mount.join(stream.to_string())).unwrap_or_default();
    let whole = bytes.chunks(PART_BYTES).zip(1..).take_while(|(b, part)| *b == whole_part(*part));
    i64::try_from(whole.count()).expect("few parts") * 1_000
}
