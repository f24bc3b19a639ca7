//! A ring whose `state.db` is lost: recording begins after a few reads, however many slots there are;
//! what they hold is found while recording goes on, also if the power is cut meanwhile.

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use edgerec::domain::ids::SlotIndex;
use edgerec::platform::clock::SystemClock;
use edgerec::platform::flash::{Open, SystemFlash};
use edgerec::ring::catalog::open::{FileState, SlotState};
use edgerec::ring::handle::{Ring, StillRing};
use edgerec::ring::slots::Slots;
use support::edge_box::record_all;
use support::large_ring::{Pattern, fill, format, full_ring, scratch};
use support::media::Clip;
use support::recorded_ring::{Recording, Sent, copy_ring, open, open_on, settings};
use support::wait::wait_until;
use support::watched_flash::WatchedFlash;

const SOON: Duration = Duration::from_secs(120);
/// A slot and a half.
const LONG: Clip = Clip { seconds: 8, fps: 25, gop: 25, b_frames: 0, video_kbps: 700, audio: true };
const LIVE: &str = "d/live/now";

fn unread(ring: &Ring) -> u64 {
    let figures = ring.catalog.call_blocking(|state| state.figures()).expect("counted");
    figures.slots[SlotState::Unread as usize]
}

/// Files that are finished, of the past and of now. The ring is full, so that some are overwritten as
/// soon as it is known that they may be.
fn finished(ring: &Ring) -> (usize, usize) {
    let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
    let finished = [FileState::Waiting, FileState::Evicted];
    let done = files.iter().filter(|file| finished.contains(&file.state));
    let (now, then): (Vec<_>, Vec<_>) = done.partition(|file| file.key.stream() == "now");
    (then.len(), now.len())
}

fn record_live(ring: &Arc<Ring>, number: u64) {
    let mut recording = Recording::begin(ring, &record_all(&["Flv"]), LIVE, number);
    recording.feed(ring, &Sent::of_flv(&LONG.flv()));
    recording.end(ring);
}

/// All media of the newest files of a stream can be read and is what was sealed.
fn read_whole(ring: &Ring, wanted: &str, newest: usize) {
    let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
    let files = files.iter().rev().filter(|file| file.key.stream() == wanted);
    for file in files.take(newest) {
        let clip = Arc::new(ring.open_whole_file_clip(file.id).expect("all there"));
        let rendering = edgerec::media::render::open(file.format, clip).expect("opens");
        for (index, object) in rendering.objects().iter().enumerate() {
            let mut bytes = vec![0; usize::try_from(object.len).expect("small")];
            rendering.read_at(index, 0, &mut bytes).expect("good");
        }
    }
}

#[test]
fn recording_begins_after_a_few_reads_however_large_the_ring_is() {
    let long = std::env::var_os("EDGEREC_LONG").is_some();
    let pattern = Pattern::record();
    let sizes = if long { [1_000, 100_000] } else { [200, 2_000] };
    let reads = sizes.map(|slots| {
        let dir = scratch();
        full_ring(dir.path(), &pattern, slots);
        let flash = WatchedFlash::default();
        let began = std::time::Instant::now();
        let clock = Arc::new(SystemClock::new());
        let (mut state, _still) =
            StillRing::open(&settings(dir.path()), Arc::new(flash.clone()), clock).expect("opens");
        let ready = state.reserve(4).expect("answered");
        println!("{slots} slots: {} reads, {:?}", flash.reads(), began.elapsed());
        assert_eq!(ready.len(), 4, "slots to record to");
        let kept = ready.iter().all(|ready| ready.slot.0 >= slots - slots / 64 - 4);
        assert!(kept, "{ready:?} hold nothing");
        flash.reads()
    });
    assert!(reads[1] <= reads[0], "{reads:?} reads for {sizes:?} slots");
    assert!(reads[1] < 32, "{} reads", reads[1]);
}

#[test]
fn an_ordinary_start_reads_as_little_of_a_large_ring() {
    let long = std::env::var_os("EDGEREC_LONG").is_some();
    let sizes = if long { [1_000, 100_000] } else { [200, 2_000] };
    let reads = sizes.map(|slots| {
        let dir = scratch();
        format(dir.path(), slots);
        let flash = WatchedFlash::default();
        let start = || {
            let clock = Arc::new(SystemClock::new());
            StillRing::open(&settings(dir.path()), Arc::new(flash.clone()), clock).expect("opens")
        };
        drop(start());
        let path = dir.path().join("state.db");
        fill(&path);
        let before = flash.reads();
        let began = std::time::Instant::now();
        let (mut state, _still) = start();
        let opened = began.elapsed();
        assert_eq!(state.reserve(4).expect("answered").len(), 4, "slots to record to");
        let reads = flash.reads() - before;
        let bytes = fs::metadata(&path).expect("there").len();
        let reserved = began.elapsed();
        println!(
            "{slots} slots: {reads} reads, {opened:?}, {reserved:?} with slots, {bytes} bytes"
        );
        reads
    });
    assert!(reads[1] <= reads[0], "{reads:?} reads for {sizes:?} slots");
}

#[test]
fn what_the_slots_hold_is_found_while_recording_goes_on_and_after_a_power_cut_in_between() {
    const SLOTS: u32 = 300;
    let pattern = Pattern::record();
    let (dir, cut) = (scratch(), scratch());
    let identity = full_ring(dir.path(), &pattern, SLOTS);
    let old = identity.kept_blank_from().0 as usize;
    let flash = WatchedFlash::default();
    flash.let_read(Some(0));
    let (ring, threads) = open_on(dir.path(), Arc::new(flash.clone()));
    record_live(&ring, 1);
    assert_eq!(finished(&ring), (0, 1), "recorded before anything was read");
    assert!(unread(&ring) >= old as u64);
    // Into the second pass, in which files are entered.
    let entered = |ring: &Ring| {
        let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
        files.len() - 1
    };
    wait_until(SOON, "a part of the old files is entered", || {
        if flash.is_held() {
            flash.let_read(Some(100));
        }
        entered(&ring) > old / 3
    });
    wait_until(SOON, "it is held", || flash.is_held());
    assert_eq!(finished(&ring), (0, 1), "nothing is finished before all is known");
    copy_ring(dir.path(), cut.path());
    assert!(entered(&ring) < old, "not all was entered");
    flash.let_read(None);
    wait_until(SOON, "all old files are there", || finished(&ring) == (old, 1));
    assert_eq!(unread(&ring), 0);
    read_whole(&ring, "then", old - 40);
    read_whole(&ring, "now", 1);
    threads.close(&ring);

    let (ring, threads) = open(cut.path());
    record_live(&ring, 2);
    wait_until(SOON, "all old files are there", || finished(&ring) == (old, 2));
    assert_eq!(unread(&ring), 0);
    read_whole(&ring, "then", old - 40);
    read_whole(&ring, "now", 1);
    threads.close(&ring);
    let (ring, threads) = open(cut.path());
    assert_eq!((finished(&ring), unread(&ring)), ((old, 2), 0), "and stay there");
    threads.close(&ring);
}

#[test]
fn a_large_ring_keeps_slots_blank_also_after_they_were_recorded_to() {
    const SLOTS: u32 = 66;
    let pattern = Pattern::record();
    let dir = scratch();
    let identity = full_ring(dir.path(), &pattern, SLOTS);
    let kept = identity.kept_blank_from();
    let slots = Slots::new(Arc::new(SystemFlash), dir.path().to_owned(), identity.clone());
    let blank = || {
        let kept = (kept.0..SLOTS).map(SlotIndex);
        let page = |slot| {
            let mut page = [0; 4096];
            let file = slots.open(slot, Open::Read).expect("there");
            file.read_exact_at(&mut page, 0).expect("read");
            page
        };
        kept.filter(|slot| page(*slot) == [0; 4096]).count()
    };
    let flash = WatchedFlash::default();
    flash.let_read(Some(0));
    let (ring, threads) = open_on(dir.path(), Arc::new(flash.clone()));
    assert_eq!(blank(), 4);
    record_live(&ring, 1);
    assert!(blank() < 4, "they are recorded to while the catalog is made anew");
    flash.let_read(None);
    wait_until(SOON, "all is read", || unread(&ring) == 0);
    // Once around the ring.
    for number in 2..60 {
        record_live(&ring, number);
    }
    assert_eq!(blank(), 4, "and blank again when what they held was overwritten");
    threads.close(&ring);
}

#[test]
fn damage_of_a_large_catalog_is_found_while_the_box_runs_and_the_next_start_makes_it_anew() {
    let dir = scratch();
    format(dir.path(), 6_000);
    let (ring, threads) = open(dir.path());
    threads.close(&ring);
    let path = dir.path().join("state.db");
    fill(&path);
    let (ring, threads) = open(dir.path());
    assert!(!threads.damage().is_cancelled(), "it is whole");
    threads.close(&ring);
    // An index that says something else than its table.
    let db = rusqlite::Connection::open(&path).expect("there");
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'file_start'";
    let page: u64 = db.query_row(root, [], |row| row.get::<_, u32>(0)).expect("there").into();
    drop(db);
    let file = fs::File::options().read(true).write(true).open(&path).expect("there");
    let (mut last, at) = ([0; 2], page * 4_096 - 2);
    file.read_exact_at(&mut last, at).expect("there");
    file.write_all_at(&[last[0] ^ 1, last[1]], at).expect("written");
    let (ring, threads) = open(dir.path());
    wait_until(SOON, "the damage is found", || threads.damage().is_cancelled());
    record_live(&ring, 1);
    threads.close(&ring);
    let (ring, threads) = open(dir.path());
    assert!(dir.path().join("state.db.damaged").exists(), "it is kept to be looked at");
    assert!(!threads.damage().is_cancelled());
    threads.close(&ring);
    assert!(!dir.path().join("state.db.is-damaged").exists(), "it is made anew once");
}
