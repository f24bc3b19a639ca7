//! A ring whose `state.db` is lost: recording begins after a few reads, however many slots there are;
//! what they hold is found while recording goes on, also if the power is cut meanwhile.

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgerec::domain::ids::{FragmentSequence, SessionId, SlotGeneration, SlotIndex};
use edgerec::platform::clock::SystemClock;
use edgerec::platform::flash::{Open, SystemFlash};
use edgerec::ring::catalog::open::{FileState, SlotState};
use edgerec::ring::handle::{Ring, StillRing};
use edgerec::ring::identity::RingIdentity;
use edgerec::ring::layout::{
    SlotPlace, decode_segment_start, encode_seal, encode_segment_start, free_head, padding,
};
use edgerec::ring::scan::{Depth, Scanner, any_life};
use edgerec::ring::slots::Slots;
use support::edge_box::record_all;
use support::media::Clip;
use support::recorded_ring::{Recording, Sent, copy_ring, open, open_on, settings};
use support::wait::wait_until;
use support::watched_flash::WatchedFlash;

const SLOT_BYTES: u64 = 512 << 10;
const SOON: Duration = Duration::from_secs(120);
const TINY: Clip = Clip { seconds: 2, fps: 5, gop: 5, b_frames: 0, video_kbps: 50, audio: false };
/// A slot and a half.
const LONG: Clip = Clip { seconds: 8, fps: 25, gop: 25, b_frames: 0, video_kbps: 700, audio: true };
const LIVE: &str = "d/live/now";

/// In memory: nothing here is about what a power cut leaves of the page cache.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a scratch directory")
}

fn format(path: &Path, slots: u32) -> Arc<RingIdentity> {
    let mut identity = RingIdentity::plan(path, 64 << 20, SLOT_BYTES).expect("fits");
    identity.slots = slots;
    identity.create(&WatchedFlash::default(), path).expect("made");
    Arc::new(identity)
}

/// A slot with one short recording in it, as the box wrote it, to be written for other places.
struct Pattern {
    header: edgerec::ring::layout::SegmentHeader,
    init: Vec<u8>,
    seal: edgerec::ring::layout::Seal,
    media: Vec<u8>,
}

impl Pattern {
    fn record() -> Pattern {
        let dir = scratch();
        let identity = format(dir.path(), 8);
        let (ring, threads) = open(dir.path());
        let mut recording = Recording::begin(&ring, &record_all(&["Flv"]), "d/live/then", 1);
        recording.feed(&ring, &Sent::of_flv(&TINY.flv()));
        recording.end(&ring);
        threads.close(&ring);
        let slots = Slots::new(Arc::new(SystemFlash), dir.path().to_owned(), identity.clone());
        let file = slots.open(SlotIndex(0), Open::Read).expect("there");
        let scanner = Scanner::new(&*file, SLOT_BYTES, Depth::Checksums);
        let found = scanner.slot(any_life(identity.directory, SlotIndex(0)));
        let fragment = &found.segments[0].fragments[0];
        let mut bytes = vec![0; fragment.end as usize];
        file.read_exact_at(&mut bytes, 0).expect("there");
        let (header, init, _) = decode_segment_start(&bytes).expect("good");
        let media =
            fragment.offset as usize..fragment.offset as usize + fragment.seal.media_bytes as usize;
        Pattern {
            header,
            init: bytes[..init].to_vec(),
            seal: fragment.seal.clone(),
            media: bytes[media].to_vec(),
        }
    }

    /// Writes a slot with a session and a recording of its own.
    fn write(&self, path: &Path, identity: &RingIdentity, slot: u32) {
        let session = SessionId(1_000_000 + u64::from(slot));
        let place = SlotPlace {
            directory: identity.directory,
            slot: SlotIndex(slot),
            generation: SlotGeneration(3),
        };
        let mut header = self.header.clone();
        (header.place, header.session) = (place, session);
        header.began.wall.unix.0 += 10_000 * i64::from(slot);
        let mut bytes = encode_segment_start(&self.init, &header);
        let mut seal = self.seal.clone();
        (seal.place, seal.session) = (place, session);
        (seal.segment_offset, seal.sequence) = (0, FragmentSequence(0));
        seal.first_arrival.wall.unix.0 += 10_000 * i64::from(slot);
        for recording in &mut seal.recordings {
            recording.recording.0 = 1_000_000 + u64::from(slot);
        }
        bytes.extend(&self.media);
        bytes.extend(encode_seal(&seal, crc32c::crc32c(&self.media)));
        bytes.extend(padding(bytes.len() as u64));
        bytes.extend(free_head(SLOT_BYTES - bytes.len() as u64));
        let file =
            fs::OpenOptions::new().write(true).open(path.join(format!("slots/{slot:06}.mp4")));
        std::os::unix::fs::FileExt::write_all_at(&file.expect("made"), &bytes, 0).expect("written");
    }
}

/// A ring without a catalog, full but for what is kept blank.
fn full_ring(path: &Path, pattern: &Pattern, slots: u32) -> Arc<RingIdentity> {
    let identity = format(path, slots);
    for slot in 0..identity.kept_blank_from().0 {
        pattern.write(path, &identity, slot);
    }
    identity
}

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

/// Changes the catalog at `path` as if each slot had been filled with a session and a file of its own.
fn fill(path: &Path) {
    let db = rusqlite::Connection::open(path).expect("there");
    db.execute_batch(
        "BEGIN;
         UPDATE slot SET state = 3, generation = 1, age = slot + 1;
         INSERT INTO stream VALUES (1, 'd', 'live', 'then');
         INSERT INTO session SELECT slot + 1000, 1, zeroblob(16), 0, slot * 10000, 1, 'rtmp', '',
             slot * 10000 + 9000, 'finished' FROM slot;
         INSERT INTO segment SELECT slot, 0, 1, slot + 1000, 4096, 500000, 0, slot * 10000,
             slot * 10000 + 9000, NULL FROM slot;
         INSERT INTO file (id, recording, stream, session, format, state, first_sequence,
             start_boot_ms, start_ms, trusted, end_ms, media_start_ms, duration_ms, storage_s,
             name_pattern, queue_number) SELECT slot + 1000, slot + 1000, 1, slot + 1000, 0, 1, 0,
             0, slot * 10000, 1, slot * 10000 + 9000, 0, 9000, 0, '', slot FROM slot;
         INSERT INTO span SELECT slot + 1000, 0, slot, 1, 0, 4096, 500000, 0 FROM slot;
         COMMIT;",
    )
    .expect("filled");
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
