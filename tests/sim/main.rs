//! Simulated box-days: the production code of recorder, ring, delivery and rules under power cuts,
//! kills, failing and slow flash, clocks that step, links that go, and a fleet that says everything
//! twice. One seed is one course of events; a failure prints the seed that brings it back.
//!
//! `EDGEREC_SIM_SEED` runs the world of one seed only, `EDGEREC_SIM_DAYS` sets its days, and
//! `EDGEREC_LONG` runs ten times as many worlds.

mod broker;
mod camera;
mod checks;
mod every_operation;
mod life;
mod tasks;
mod trace;
mod vod;
mod world;

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use world::World;

/// Days of a world.
const DAYS: u64 = 4;
/// Worlds of each of the four tests that run box-days.
const WORLDS: u64 = 7;

/// What must have happened, in all worlds of a test, for each of its worlds, times ten.
const LEAST: [(&str, u64); 9] = [
    ("power cut", 40),
    ("kill", 15),
    ("flash trouble", 20),
    ("clock", 20),
    ("rules", 80),
    ("refused", 80),
    ("task", 30),
    ("pictures of tasks", 400),
    ("upload", 300),
];

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// The course of one world, down to its digest.
fn run(seed: u64, days: u64) -> (String, BTreeMap<&'static str, u64>) {
    let mut world = World::new(seed);
    world.run_days(days);
    world.come_to_rest();
    (world.trace.digest(), world.trace.counts().clone())
}

fn box_days(first_seed: u64) {
    let days = number("EDGEREC_SIM_DAYS").unwrap_or(DAYS);
    let worlds = if env::var_os("EDGEREC_LONG").is_some() { 10 * WORLDS } else { WORLDS };
    let seeds: Vec<u64> = match number("EDGEREC_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (first_seed..first_seed + worlds).collect(),
    };
    let mut all: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in &seeds {
        let (digest, counts) = run(*seed, days);
        println!("seed {seed}: {digest} {counts:?}");
        counts.into_iter().for_each(|(kind, count)| *all.entry(kind).or_default() += count);
    }
    println!("{} worlds of {days} days: {all:?}", seeds.len());
    if seeds.len() as u64 == worlds && days >= DAYS {
        for (kind, least) in LEAST {
            let count = all.get(kind).copied().unwrap_or(0);
            let least = least * worlds / 10;
            assert!(count >= least, "only {count} of {kind}, at least {least} must come");
        }
        for kind in ["slots reused", "lost undelivered"] {
            assert!(all.get(kind).is_some_and(|count| *count > 0), "no {kind}");
        }
    }
}

#[test]
fn box_days_a() {
    box_days(1_000);
}

#[test]
fn box_days_b() {
    box_days(2_000);
}

#[test]
fn box_days_c() {
    box_days(3_000);
}

#[test]
fn box_days_d() {
    box_days(4_000);
}

#[test]
fn one_seed_replays_bit_for_bit() {
    let seed = number("EDGEREC_SIM_SEED").unwrap_or(7);
    let (first, counts) = run(seed, 1);
    assert!(counts.values().sum::<u64>() > 500, "{counts:?}");
    assert_eq!(run(seed, 1).0, first);
    assert_ne!(run(seed + 1, 1).0, first);
}

/// Found by the simulation: 14 s in which the flash took nothing cost the ring all its slots, as
/// each fragment gave up two of them for good.
#[test]
fn a_flash_that_takes_nothing_for_a_while_costs_no_slot() {
    let (given_up, missing) = World::new(11).suffer_full_flash(30_000);
    assert_eq!(given_up, 0);
    assert!(missing <= 5, "recording does not go on: {missing} pictures are missing");
}

/// Runs box-days with a bug planted, and has them say what they found.
fn find_planted(variable: &str, words: &[&str]) {
    let program = env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["box_days_a", "--exact", "--nocapture"])
        .env(variable, "1")
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let found = words.iter().any(|words| text.contains(words));
    assert!(!output.status.success() && found, "{variable} was not found: {text}");
}

#[cfg(feature = "planted-faults")]
mod planted {
    use super::find_planted;

    #[test]
    fn without_sync_media_is_lost() {
        find_planted("EDGEREC_PLANT_NO_SYNC", &["pictures: Sent", "fsck: "]);
    }

    #[test]
    fn undelivered_media_that_counts_as_delivered_is_lost() {
        find_planted("EDGEREC_PLANT_EVICT_UNDELIVERED", &["undelivered media was overwritten"]);
    }

    #[test]
    fn a_task_that_forgets_what_it_has_recorded_has_it_twice() {
        find_planted("EDGEREC_PLANT_FORGET_RECORDED", &["is in Some(FileRecord"]);
    }

    #[test]
    fn a_delivery_that_is_forgotten_is_made_twice() {
        find_planted("EDGEREC_PLANT_FORGET_DELIVERY", &["is delivered twice"]);
    }

    #[test]
    fn media_that_is_dropped_without_a_word_is_missed() {
        find_planted("EDGEREC_PLANT_NO_GAP", &["is in no gap of"]);
    }
}
