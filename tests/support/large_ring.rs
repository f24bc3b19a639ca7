//! Rings of many slots that take no room until they are written, full of what never came over a stream.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use edgerec::domain::ids::{FragmentSequence, SessionId, SlotGeneration, SlotIndex};
use edgerec::platform::flash::{Open, SystemFlash};
use edgerec::ring::identity::RingIdentity;
use edgerec::ring::layout::{
    Seal, SegmentHeader, SlotPlace, decode_segment_start, encode_seal, encode_segment_start,
    free_head, padding,
};
use edgerec::ring::scan::{Depth, Scanner, any_life};
use edgerec::ring::slots::Slots;

use super::edge_box::record_all;
use super::media::Clip;
use super::recorded_ring::{Recording, Sent, open};
use super::watched_flash::WatchedFlash;

/// Bytes of a slot.
pub const SLOT_BYTES: u64 = 512 << 10;
const TINY: Clip = Clip { seconds: 2, fps: 5, gop: 5, b_frames: 0, video_kbps: 50, audio: false };

/// In memory: nothing here is about what a power cut leaves of the page cache.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a scratch directory")
}

/// A ring of so many slots.
pub fn format(path: &Path, slots: u32) -> Arc<RingIdentity> {
    let mut identity = RingIdentity::plan(path, 64 << 20, SLOT_BYTES).expect("fits");
    identity.slots = slots;
    identity.create(&WatchedFlash::default(), path).expect("made");
    Arc::new(identity)
}

/// A slot with one short recording in it, as the box wrote it, to be written for other places.
pub struct Pattern {
    header: SegmentHeader,
    init: Vec<u8>,
    seal: Seal,
    media: Vec<u8>,
}

impl Pattern {
    /// Records it.
    pub fn record() -> Pattern {
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
    pub fn write(&self, path: &Path, identity: &RingIdentity, slot: u32) {
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
        file.expect("made").write_all_at(&bytes, 0).expect("written");
    }
}

/// A ring without a catalog, full but for what is kept blank.
pub fn full_ring(path: &Path, pattern: &Pattern, slots: u32) -> Arc<RingIdentity> {
    let identity = format(path, slots);
    for slot in 0..identity.kept_blank_from().0 {
        pattern.write(path, &identity, slot);
    }
    identity
}

/// Changes the catalog at `path` as if each slot had been filled with a session and a file of its own.
pub fn fill(path: &Path) {
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
