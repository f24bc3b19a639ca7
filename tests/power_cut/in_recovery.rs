//! The power goes again while the box recovers, three times over: what is kept in the end is what a
//! recovery that was left alone keeps.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::support::chance::Chance;
use super::support::edge_box::BoxPlan;
use super::support::mounts::Mounted;
use super::support::packets::{Packet, packets};
use super::support::power_rig::{Cut, PowerRig};
use super::support::scratch;
use super::support::wait::wait_until;
use super::{CLIP, CUTS_FROM_MS, STREAMS, broken_files, cut_count, kept_ms, record, ring_plan};

/// How often the power goes before the box is left alone.
const DEPTH: usize = 3;
const SOON: Duration = Duration::from_secs(10);

#[test]
fn power_that_goes_again_during_recovery_costs_nothing_more() {
    let mut chance = Chance::from_env("in-recovery");
    let mut again = Chance::from_env("in-recovery-again");
    let log = record(BoxPlan::default());
    let sent = packets(&CLIP.flv());
    let cuts = log.choose_cuts(cut_count(20).div_ceil(5), CUTS_FROM_MS, &mut chance);
    log.rebuild(&cuts, &mut chance, |cut: &Cut| {
        let dir = scratch("again");
        let [alone, again_and_again] = ["alone.img", "again.img"].map(|name| dir.path().join(name));
        for image in [&alone, &again_and_again] {
            fs::copy(log.cut_image(), image).expect("an image can be copied");
        }
        let entries: Vec<usize> =
            (0..DEPTH).map(|_| cut_in_recovery(&again_and_again, &mut again)).collect();
        let kept = recover(&again_and_again, &sent);
        println!("{:?} at {} ms, again after {entries:?} writes: {kept:?}", cut.cache, cut.at_ms);
        assert_eq!(kept, recover(&alone, &sent), "{cut:?}");
    });
}

/// Lets a box recover on the disk of an image, and cuts its power meanwhile: the image is as it was
/// then. Tells how many writes and flushes the disk had got.
fn cut_in_recovery(image: &Path, chance: &mut Chance) -> usize {
    let mut rig = PowerRig::go_on("again", image);
    rig.start_beacons(Vec::new);
    rig.mount_it();
    let report = rig.mount().join("ring/recovery.json");
    let written = || fs::metadata(&report).and_then(|report| report.modified()).ok();
    let before = written();
    let mut edge = ring_plan(BoxPlan::default(), rig.mount()).start();
    wait_until(SOON, "the box has recovered", || written() != before);
    edge.kill();
    let log = rig.stop();
    let cuts = log.choose_cuts(2, 0, chance);
    // An odd one is at a random write.
    log.rebuild(&cuts[1..], chance, |cut| {
        fs::copy(log.cut_image(), image).expect("an image can be copied");
        cut.entries
    })[0]
}

/// What a box that recovers on the disk of an image has of each stream, in milliseconds, and how many
/// files. All of them must decode, and nothing be damaged.
fn recover(image: &Path, sent: &[Packet]) -> (Vec<i64>, usize) {
    let mounted = Mounted::new(image, &image.with_extension("mnt"));
    let mut edge = ring_plan(BoxPlan::default(), &mounted.at).start();
    let kept = (0..STREAMS).map(|stream| kept_ms(&edge, stream, sent)).collect();
    let broken = broken_files(&edge);
    assert!(broken.is_empty(), "{broken:#?}");
    let files = edge.ls().len();
    assert!(edge.terminate(SOON).success());
    edge.cli_ok(&["fsck"]);
    drop(edge);
    mounted.unmount();
    (kept, files)
}
