//! A scripted minute of two streams in which each operation of the flash fails in turn: once, and
//! from then on for a while; the minute itself, and the recovery after a power cut. Nothing that was
//! safe is lost, what is lost stands in the ledger, and recording goes on by itself.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use edgerec::sim::flash::{Operation, Trouble};

use crate::camera::Sent;
use crate::world::World;

/// Recorded before the minute in the long run: the ring is full, and slots are reused.
const FULL_MS: u64 = 300_000;
/// Recorded before it in the ordinary run: slots are changed in the minute.
const BEFORE_MS: u64 = 20_000;
const MINUTE_MS: u64 = 60_000;
/// A flash that fails for a while works again this long before the minute is over, …
const WELL_AGAIN_MS: u64 = 20_000;
/// … and this long after that everything is recorded again.
const SETTLE_MS: u64 = 10_000;
/// Fragment, tick and sync, and some steps of the simulation.
const LOSS_BOUND_MS: u64 = 3_500;
/// Of the recorded ones; the third camera is not recorded.
const CAMERAS: usize = 2;

/// So many more slots are begun at most: one that a stream's fault closed, and one kept at hand
/// for it.
const SLOTS_MAX: u64 = 2 * CAMERAS as u64;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What fails.
#[derive(Debug, Clone, Copy)]
struct Fault {
    /// The first operation that fails, from 1 on.
    first: u64,
    /// How many do, one after the other.
    count: u64,
    errno: i32,
}

/// Counts operations, and fails those of a fault.
#[derive(Clone, Default)]
struct Meter {
    operations: Arc<AtomicU64>,
    /// The world's own count of failures.
    troubles: Arc<AtomicU64>,
    /// What the first operation was that failed.
    hit: Arc<Mutex<Option<Operation>>>,
}

impl Meter {
    fn of(world: &World) -> Meter {
        Meter { troubles: world.flash_troubles.clone(), ..Meter::default() }
    }

    fn trouble(&self, fault: Fault) -> Trouble {
        let Meter { operations, troubles, hit } = self.clone();
        Box::new(move |operation| {
            let number = operations.fetch_add(1, Ordering::Relaxed) + 1;
            if number < fault.first || number - fault.first >= fault.count {
                return Ok(());
            }
            troubles.fetch_add(1, Ordering::Relaxed);
            hit.lock().expect("no panic inside").get_or_insert(operation);
            Err(io::Error::from_raw_os_error(fault.errno))
        })
    }

    fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    fn has_hit(&self) -> bool {
        self.hit.lock().expect("no panic inside").is_some()
    }
}

fn long() -> bool {
    std::env::var_os("EDGEREC_LONG").is_some()
}

/// A box that has two live cameras.
fn world() -> World {
    let mut world = World::calm(13);
    for index in 0..CAMERAS {
        world.begin_session(index);
        world.cameras[index].turns_at_ms = u64::MAX;
    }
    run_for(&mut world, if long() { FULL_MS } else { BEFORE_MS });
    let due = |index: usize| world.cameras[index].sent.iter().any(|sent| sent.due);
    assert!((0..CAMERAS).all(due), "the rules of this seed do not record both cameras");
    world
}

fn run_for(world: &mut World, time_ms: u64) {
    let end_ms = world.now_ms() + time_ms;
    while world.now_ms() < end_ms {
        world.step(true);
    }
}

/// Pictures of a time that are not on the flash; `safe` ones only.
fn missing(world: &World, index: usize, from_ms: u64, until_ms: u64) -> Vec<Sent> {
    let present = world.pictures_of(index);
    let sent = world.cameras[index].sent.iter();
    let due = sent.filter(|sent| sent.due && (from_ms..until_ms).contains(&sent.at_ms));
    due.filter(|sent| !present.contains(&sent.number)).copied().collect()
}

/// What a minute took.
struct Taken {
    /// Operations of the flash, in the minute and in the recovery.
    operations: u64,
    in_recovery: u64,
    /// Lives of slots that were begun.
    slots: u64,
}

/// Runs the minute under a fault, takes the power away at its end, and looks at what is there.
fn minute(fault: Option<Fault>, in_recovery: Option<Fault>) -> Taken {
    let mut world = world();
    let (meter, recovery) = (Meter::of(&world), Meter::of(&world));
    let began_ms = world.now_ms();
    let none = Fault { first: u64::MAX, count: 0, errno: 0 };
    let fault = fault.unwrap_or(none);
    world.flash.set_trouble(Some(meter.trouble(fault)));
    let mut hit_ms = None;
    while world.now_ms() < began_ms + MINUTE_MS {
        if world.now_ms() >= began_ms + MINUTE_MS - WELL_AGAIN_MS && fault.count > 1 {
            world.flash.set_trouble(None);
        }
        world.step(true);
        if hit_ms.is_none() && meter.has_hit() {
            hit_ms = Some(world.now_ms());
        }
    }
    let down_ms = world.now_ms();
    let well_ms = down_ms - WELL_AGAIN_MS + SETTLE_MS;
    world.trouble_at_start = Some(recovery.trouble(in_recovery.unwrap_or(none)));
    world.restart(false);
    for index in 0..CAMERAS {
        let say = |what: &str, missing: &[Sent]| {
            if let Some(first) = missing.first() {
                let (hit, count) = (meter.hit.lock().expect("no panic inside"), missing.len());
                world.fail(&format!(
                    "{fault:?} of {hit:?} at {hit_ms:?}, {in_recovery:?}: {count} pictures of camera \
                     {index} are missing {what}: {first:?}"
                ));
            }
        };
        let safe_until_ms = down_ms - LOSS_BOUND_MS;
        let of_before = began_ms..hit_ms.unwrap_or(down_ms).saturating_sub(LOSS_BOUND_MS);
        say("from before", &missing(&world, index, of_before.start, of_before.end));
        if fault.count <= 1 {
            say("after a fault", &missing(&world, index, began_ms, safe_until_ms));
        } else {
            say("from after", &missing(&world, index, well_ms, safe_until_ms));
            let gaps = world.gaps_of(index);
            let mut unsaid = missing(&world, index, began_ms, safe_until_ms);
            unsaid.retain(|sent| !crate::checks::is_in_ledger(&gaps, sent));
            say(&format!("without a word in {gaps:?}"), &unsaid);
        }
    }
    // It records again.
    world.begin_session(0);
    world.cameras[0].turns_at_ms = u64::MAX;
    let again_ms = world.now_ms();
    run_for(&mut world, 15_000);
    world.end_session(0);
    run_for(&mut world, 5_000);
    let lost = missing(&world, 0, again_ms, again_ms + 10_000);
    assert!(lost.is_empty(), "{fault:?}, {in_recovery:?}: not recorded again: {lost:?}");
    Taken {
        operations: meter.operations(),
        in_recovery: recovery.operations(),
        slots: world.slots_begun(),
    }
}

/// A fault takes a slot of each stream, and none of those that hold what was recorded before.
#[track_caller]
fn assert_none_used_up(taken: &Taken, without: &Taken) {
    let (slots, most) = (taken.slots, without.slots + SLOTS_MAX);
    assert!(slots <= most, "{slots} slots were begun, {} without a fault", without.slots);
}

/// Each operation in the long run, else one of so many.
fn stride(ordinary: usize) -> usize {
    if long() { 1 } else { ordinary }
}

#[test]
fn each_operation_fails_once() {
    let without = minute(None, None);
    assert!(without.operations > 150, "only {} operations", without.operations);
    for errno in [EIO, ENOSPC] {
        for first in (1..=without.operations).step_by(stride(17)) {
            let taken = minute(Some(Fault { first, count: 1, errno }), None);
            assert_none_used_up(&taken, &without);
        }
    }
    println!("{} operations", without.operations);
}

#[test]
fn the_flash_fails_from_each_operation_on() {
    let without = minute(None, None);
    for errno in [EIO, ENOSPC] {
        for first in (1..=without.operations * 2 / 3).step_by(stride(17)) {
            let taken = minute(Some(Fault { first, count: u64::MAX, errno }), None);
            assert_none_used_up(&taken, &without);
        }
    }
}

#[test]
fn each_operation_of_the_recovery_fails_once_and_again_after_a_fault() {
    let without = minute(None, None);
    assert!(without.in_recovery > 5, "only {} operations", without.in_recovery);
    for first in (1..=without.in_recovery).step_by(stride(5)) {
        let fault = Fault { first, count: 1, errno: EIO };
        minute(None, Some(fault));
        let before = first * without.operations / without.in_recovery;
        minute(Some(Fault { first: before, count: 1, errno: EIO }), Some(fault));
    }
    println!("{} operations", without.in_recovery);
}
