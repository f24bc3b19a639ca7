//! Bit rot: one bit of a ring at rest is flipped, hundreds of times, in media, seals, headers of segments
//! and in `state.db`. What is then read for upload is what was recorded, or is refused for damage; the
//! other files go on, and the box starts. The seed is printed; `EDGEREC_LONG` flips 10,000 bits.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgerec::delivery::error::{DeliveryError, ErrorClass};
use edgerec::delivery::ring_shelf::RingShelf;
use edgerec::delivery::shelf::Shelf;
use edgerec::domain::ids::{FileId, SlotIndex};
use edgerec::platform::flash::{Open, SystemFlash};
use edgerec::ring::catalog::open::FileState;
use edgerec::ring::handle::Ring;
use edgerec::ring::identity::RingIdentity;
use edgerec::ring::scan::{Depth, Scanner, any_life};
use edgerec::ring::slots::Slots;
use sha2::{Digest, Sha256};
use support::chance::Chance;
use support::edge_box::record_all;
use support::media::Clip;
use support::recorded_ring::{Recording, Sent, copy_ring, open};
use support::wait::wait_until;

const SOON: Duration = Duration::from_secs(60);
const SLOT_BYTES: u64 = 512 << 10;
const STREAMS: u32 = 3;
const SESSIONS: u32 = 2;
const FORMATS: [&str; 4] = ["Flv", "Hls", "Mp4", "Aac"];
const SMALL: Clip = Clip { seconds: 3, fps: 10, gop: 10, b_frames: 0, video_kbps: 60, audio: true };

/// What is read for upload: a checksum of all of a file's objects.
type Sum = [u8; 32];

/// A ring at rest with finished files: each stream in a slot of its own, which has room for more, and
/// in each slot two sessions.
struct Rested {
    dir: tempfile::TempDir,
    good: BTreeMap<FileId, Sum>,
    /// Where flips must be noticed, by what is there: slot and bytes.
    covered: Vec<(&'static str, SlotIndex, Range<u64>)>,
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a scratch directory")
}

impl Rested {
    fn record() -> Rested {
        let dir = scratch();
        let identity = RingIdentity::plan(dir.path(), (8 << 20) + 24 * SLOT_BYTES, SLOT_BYTES);
        let identity = Arc::new(identity.expect("fits"));
        identity.create(&SystemFlash, dir.path()).expect("made");
        let (ring, threads) = open(dir.path());
        for number in 0..STREAMS * SESSIONS {
            let key = format!("d/live/s{}", number / SESSIONS);
            let rules = record_all(&FORMATS);
            let mut recording = Recording::begin(&ring, &rules, &key, u64::from(number) + 1);
            recording.feed(&ring, &Sent::of_flv(&SMALL.flv()));
            recording.end(&ring);
            wait_finished(&ring, (number as usize + 1) * FORMATS.len());
        }
        let good = read_all(&ring).into_iter();
        let good = good.map(|(file, sum)| (file, sum.expect("nothing is damaged yet"))).collect();
        threads.close(&ring);
        let slots = Slots::new(Arc::new(SystemFlash), dir.path().to_owned(), identity.clone());
        let mut covered = Vec::new();
        for slot in (0..identity.slots).map(SlotIndex) {
            let file = slots.open(slot, Open::Read).expect("there");
            let scanner = Scanner::new(&*file, SLOT_BYTES, Depth::Checksums);
            for segment in scanner.slot(any_life(identity.directory, slot)).segments {
                // Up to the free box before the next page.
                let start = boxes(&*file, segment.offset, 3);
                covered.push(("header", slot, segment.offset..start));
                for fragment in &segment.fragments {
                    let media = fragment.offset + u64::from(fragment.seal.media_bytes);
                    covered.push(("media", slot, fragment.offset..media));
                    covered.push(("seal", slot, media..boxes(&*file, media, 1)));
                }
            }
        }
        let rested = Rested { dir, good, covered };
        assert_eq!(rested.good.len(), (STREAMS * SESSIONS) as usize * FORMATS.len());
        rested
    }

    /// A byte that a checksum covers, by the kind of what it is in, and a bit of it.
    fn choose(&self, chance: &mut Chance) -> (&'static str, SlotIndex, u64, u8) {
        let kind = ["header", "media", "seal"][chance.below(3) as usize];
        let of_kind: Vec<_> = self.covered.iter().filter(|(one, ..)| *one == kind).collect();
        let (_, slot, range) = of_kind[chance.below(of_kind.len() as u64) as usize];
        (kind, *slot, range.start + chance.below(range.end - range.start), chance.below(8) as u8)
    }

    /// A copy with one bit of a slot wrong, and which it is.
    fn flipped_copy(&self, chance: &mut Chance) -> (tempfile::TempDir, String) {
        let (kind, slot, offset, bit) = self.choose(chance);
        let dir = scratch();
        copy_ring(self.dir.path(), dir.path());
        flip(&slot_path(dir.path(), slot), offset, bit);
        (dir, format!("bit {bit} of byte {offset} of slot {slot} ({kind})"))
    }

    /// Everything that is given out is what was recorded, and what is not is refused for damage. Tells
    /// how many files are given out, are refused, and are not listed.
    fn check(&self, ring: &Arc<Ring>, flip: &str) -> [usize; 3] {
        let read = read_all(ring);
        let mut given = 0;
        for (file, sum) in &read {
            match sum {
                Ok(sum) => {
                    assert_eq!(Some(sum), self.good.get(file), "{flip}: file {file} is wrong");
                    given += 1;
                }
                Err(error) => {
                    let class = error.class();
                    assert_eq!(class, ErrorClass::Quarantine, "{flip}: file {file}: {error:?}");
                }
            }
        }
        [given, read.len() - given, self.good.len().saturating_sub(read.len())]
    }
}

fn wait_finished(ring: &Ring, count: usize) {
    wait_until(SOON, "the files are finished", || {
        let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
        files.len() == count && files.iter().all(|file| file.state != FileState::Recording)
    });
}

/// The end of so many boxes that follow each other.
fn boxes(file: &dyn edgerec::platform::flash::FlashFile, from: u64, count: usize) -> u64 {
    (0..count).fold(from, |at, _| {
        let mut size = [0; 4];
        file.read_exact_at(&mut size, at).expect("there");
        at + u64::from(u32::from_be_bytes(size))
    })
}

/// Reads all files that are listed as the delivery does.
fn read_all(ring: &Arc<Ring>) -> Vec<(FileId, Result<Sum, DeliveryError>)> {
    let shelf = RingShelf::new(ring.clone());
    let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
    files.iter().map(|file| (file.id, read(&shelf, file.id))).collect()
}

fn read(shelf: &RingShelf, file: FileId) -> Result<Sum, DeliveryError> {
    let rendering = shelf.open(file)?;
    let mut sum = Sha256::new();
    for (index, object) in rendering.objects().iter().enumerate() {
        let mut bytes = vec![0; usize::try_from(object.len).expect("small")];
        rendering.read_at(index, 0, &mut bytes).map_err(DeliveryError::Render)?;
        sum.update(object.len.to_be_bytes());
        sum.update(&bytes);
    }
    Ok(sum.finalize().into())
}

fn flip(path: &Path, offset: u64, bit: u8) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("there");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, offset).expect("written");
}

fn slot_path(ring: &Path, slot: SlotIndex) -> std::path::PathBuf {
    ring.join(format!("slots/{:06}.mp4", slot.0))
}

/// Flips for a test.
fn flips(ordinary: u64) -> u64 {
    if std::env::var_os("EDGEREC_LONG").is_some() { ordinary * 64 } else { ordinary }
}

#[test]
fn a_flipped_bit_in_media_or_its_headers_is_never_given_out_and_stops_no_other_file() {
    let rested = Rested::record();
    let mut chance = Chance::from_env("bit rot in slots");
    let (ring, threads) = open(rested.dir.path());
    for _ in 0..flips(80) {
        let (kind, slot, offset, bit) = rested.choose(&mut chance);
        let told = format!("bit {bit} of byte {offset} of slot {slot} ({kind})");
        let path = slot_path(rested.dir.path(), slot);
        flip(&path, offset, bit);
        let [given, refused, missing] = rested.check(&ring, &told);
        assert!(refused > 0, "{told}: nobody noticed");
        assert_eq!(given, rested.good.len() - FORMATS.len(), "{told}: other sessions go on");
        assert_eq!(missing, 0, "{told}");
        flip(&path, offset, bit);
    }
    assert_eq!(rested.check(&ring, "nothing flipped"), [rested.good.len(), 0, 0]);
    threads.close(&ring);
}

/// Found by 10,000 flips: a file of sound only took a fragment whose sound had got another track's number
/// for one without sound, and nobody read the rest of it.
#[test]
fn a_track_whose_number_is_flipped_is_not_taken_for_silence() {
    let rested = Rested::record();
    let (ring, threads) = open(rested.dir.path());
    let mut flips = 0;
    for (_, slot, range) in rested.covered.iter().filter(|(kind, ..)| *kind == "media") {
        let path = slot_path(rested.dir.path(), *slot);
        let slot = fs::read(&path).expect("there");
        let media = &slot[range.start as usize..range.end as usize];
        // Type, version and flags, then the number: ISO/IEC 14496-12, 8.8.7.
        let heads = media.windows(4).enumerate().filter(|(_, word)| *word == b"tfhd");
        for (at, _) in heads {
            let number = range.start + at as u64 + 11;
            flip(&path, number, 7);
            let told = format!("track number at byte {number} of {}", path.display());
            let [_, refused, _] = rested.check(&ring, &told);
            assert!(refused > 0, "{told}: nobody noticed");
            flip(&path, number, 7);
            flips += 1;
        }
    }
    assert!(flips >= 2 * STREAMS * SESSIONS, "{flips} tracks");
    threads.close(&ring);
}

#[test]
fn what_is_behind_a_flipped_bit_in_a_slot_that_was_open_is_not_overwritten() {
    let rested = Rested::record();
    let mut chance = Chance::from_env("bit rot in open slots");
    for number in 0..flips(12) {
        let (dir, told) = rested.flipped_copy(&mut chance);
        let (ring, threads) = open(dir.path());
        for stream in 0..STREAMS {
            let key = format!("d/live/s{stream}");
            let session = 100 + number * u64::from(STREAMS) + u64::from(stream);
            let mut recording = Recording::begin(&ring, &record_all(&["Flv"]), &key, session);
            recording.feed(&ring, &Sent::of_flv(&SMALL.flv()));
            recording.end(&ring);
            wait_finished(&ring, rested.good.len() + stream as usize + 1);
        }
        let given = read_all(&ring)
            .into_iter()
            .filter(|(file, sum)| sum.as_ref().is_ok_and(|sum| rested.good.get(file) == Some(sum)));
        let others = rested.good.len() - FORMATS.len();
        assert_eq!(given.count(), others, "{told}: other sessions go on");
        threads.close(&ring);
    }
}

#[test]
fn a_flipped_bit_in_a_slot_is_never_given_out_by_a_catalog_that_is_made_anew() {
    let rested = Rested::record();
    let mut chance = Chance::from_env("bit rot in slots without a catalog");
    for _ in 0..flips(24) {
        let (dir, told) = rested.flipped_copy(&mut chance);
        fs::remove_file(dir.path().join("state.db")).expect("lost");
        let (ring, threads) = open(dir.path());
        let [given, refused, missing] = rested.check(&ring, &told);
        assert!(refused + missing > 0, "{told}: nobody noticed");
        let others = rested.good.len() - SESSIONS as usize * FORMATS.len();
        assert!(given >= others, "{told}: other streams go on");
        threads.close(&ring);
    }
}

#[test]
fn a_flipped_bit_in_the_rows_of_a_file_sets_it_aside() {
    let rested = Rested::record();
    let mut chance = Chance::from_env("bit rot in rows of files");
    let columns = [
        ("span", "slot"),
        ("span", "generation"),
        ("span", "segment"),
        ("span", "start"),
        ("span", "end"),
        ("file", "recording"),
        ("file", "stream"),
        ("file", "session"),
        ("file", "format"),
        ("file", "first_sequence"),
        ("file", "start_ms"),
        ("file", "end_ms"),
    ];
    let key = |table| if table == "span" { "file" } else { "id" };
    let ids: Vec<i64> = rested.good.keys().map(|id| id.0.cast_signed()).collect();
    for (table, column) in columns {
        let id = ids[chance.below(ids.len() as u64) as usize];
        // Few enough for another slot, page, format or stream that is there.
        let bit = if ["segment", "start", "end"].contains(&column) { 12 } else { 0 };
        let bit = bit + chance.below(2);
        let told = format!("bit {bit} of {column} in the {table} of {id}");
        let dir = scratch();
        copy_ring(rested.dir.path(), dir.path());
        let db = rusqlite::Connection::open(dir.path().join("state.db")).expect("there");
        let (at, flip) = (key(table), 1_i64 << bit);
        let text = format!(
            "UPDATE {table} SET {column} = ({column} | ?1) - ({column} & ?1) WHERE {at} = ?2"
        );
        assert_eq!(db.execute(&text, (flip, id)).expect("flipped"), 1, "{told}");
        drop(db);
        let (ring, threads) = open(dir.path());
        let [_, refused, missing] = rested.check(&ring, &told);
        threads.close(&ring);
        assert!(refused + missing > 0, "{told}: nobody noticed");
    }
}

#[test]
fn a_flipped_bit_in_the_catalog_gives_out_nothing_wrong_and_the_box_starts() {
    let rested = Rested::record();
    let mut chance = Chance::from_env("bit rot in state.db");
    let catalog = fs::read(rested.dir.path().join("state.db")).expect("there");
    let dir = scratch();
    copy_ring(rested.dir.path(), dir.path());
    let (mut anew, mut refusals, mut unlisted) = (0, 0, 0);
    let count = flips(40);
    for _ in 0..count {
        for name in fs::read_dir(dir.path()).expect("listed") {
            let path = name.expect("listed").path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"state.db"))
            {
                fs::remove_file(path).expect("removed");
            }
        }
        let path = dir.path().join("state.db");
        fs::write(&path, &catalog).expect("written");
        let (offset, bit) = (chance.below(catalog.len() as u64), chance.below(8) as u8);
        flip(&path, offset, bit);
        let told = format!("bit {bit} of byte {offset} of state.db");
        println!("{told}");
        let (ring, threads) = open(dir.path());
        let [_, refused, missing] = rested.check(&ring, &told);
        threads.close(&ring);
        anew += u64::from(dir.path().join("state.db.damaged").exists());
        refusals += u64::from(refused > 0);
        unlisted += u64::from(missing > 0);
    }
    println!(
        "{count} flips: {anew} catalogs made anew, {refusals} with files set aside, {unlisted} with files lost"
    );
}
