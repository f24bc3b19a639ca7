//! The bench of ways to write: what a tick of slots costs on flash, by how it is written and made durable.
//!
//! Each tick a piece of every slot is written and made durable, tick after tick until the slots are full; on a
//! fresh ext4 of its own, into slots that have their space and were never written, and once more into the same.
//! Flushes, bytes and processor time are of the writes alone.
//!
//! `BENCH_SLOTS` (20), `BENCH_PIECE` (524288, bytes) and `BENCH_TICKS` (24) change the run. Needs root.

mod disk;
mod meter;
#[path = "../support/mod.rs"]
mod support;
mod traffic;

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use edgerec::platform::flash::{Flash, FlashFile, Open, SystemFlash};
use nix::fcntl::OFlag;

use disk::Disk;
use support::scratch;

/// What O_DIRECT asks of addresses and lengths.
const ALIGNED_TO: usize = 4096;

/// A way to write.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Through the cache; each file is made durable by itself.
    EachFile,
    /// Through the cache; the file system is made durable.
    FileSystem,
    /// As [`Way::FileSystem`], but the files are written out before: what edgerec does.
    OutThenFileSystem,
    /// As before, but only one of the files is made durable, which flushes the device.
    OutThenOneFile,
    /// Past the cache, then one of the files is made durable.
    DirectThenOneFile,
}

impl Way {
    const ALL: [Way; 5] = [
        Way::EachFile,
        Way::FileSystem,
        Way::OutThenFileSystem,
        Way::OutThenOneFile,
        Way::DirectThenOneFile,
    ];

    fn name(self) -> &'static str {
        match self {
            Way::EachFile => "fdatasync of each",
            Way::FileSystem => "syncfs",
            Way::OutThenFileSystem => "sync_file_range, syncfs",
            Way::OutThenOneFile => "sync_file_range, one fdatasync",
            Way::DirectThenOneFile => "O_DIRECT, one fdatasync",
        }
    }

    fn open(self, path: &Path) -> Slot {
        let direct = (self == Way::DirectThenOneFile).then(|| {
            let flags = OFlag::O_DIRECT.bits();
            OpenOptions::new().write(true).custom_flags(flags).open(path).expect("it is there")
        });
        Slot { file: SystemFlash.open(path, Open::ReadWrite).expect("it is there"), direct }
    }

    fn make_durable(self, slots: &[Slot]) {
        if matches!(self, Way::OutThenFileSystem | Way::OutThenOneFile) {
            slots.iter().for_each(|slot| slot.file.write_out().expect("written out"));
        }
        match self {
            Way::EachFile => {
                slots.iter().for_each(|slot| slot.file.sync_data().expect("made durable"));
            }
            Way::FileSystem | Way::OutThenFileSystem => {
                slots[0].file.sync_file_system().expect("made durable");
            }
            Way::OutThenOneFile | Way::DirectThenOneFile => {
                slots[0].file.sync_data().expect("made durable");
            }
        }
    }
}

struct Slot {
    file: Box<dyn FlashFile>,
    direct: Option<File>,
}

impl Slot {
    fn write(&self, piece: &[u8], offset: u64) {
        let written = match &self.direct {
            Some(direct) => direct.write_all_at(piece, offset),
            None => self.file.write_all_at(&[IoSlice::new(piece)], offset),
        };
        written.expect("there is room");
    }
}

fn main() {
    let number = |name: &str, usual: usize| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a BENCH_ number"))
    };
    let (slots, ticks) = (number("BENCH_SLOTS", 20), number("BENCH_TICKS", 24));
    let piece_bytes = number("BENCH_PIECE", 512 << 10).next_multiple_of(ALIGNED_TO);
    let room = vec![7; piece_bytes + ALIGNED_TO];
    let aligned = room.as_ptr().align_offset(ALIGNED_TO);
    let piece = &room[aligned..aligned + piece_bytes];
    println!("{slots} slots, {piece_bytes} bytes a slot and tick, {ticks} ticks");
    println!(
        "{:<32} {:>8} {:>12} {:>14} {:>10}",
        "way", "slots", "flushes/tick", "device B/byte", "CPU ms/tick"
    );
    for way in Way::ALL {
        let dir = scratch("writes");
        let slot_bytes = (piece_bytes * ticks) as u64;
        let disk = Disk::new(dir.path(), slots as u64 * slot_bytes + (256 << 20));
        let paths: Vec<PathBuf> =
            (0..slots).map(|slot| disk.mount.join(format!("{slot}"))).collect();
        for path in &paths {
            let file = SystemFlash.open(path, Open::CreateNew).expect("there is room");
            file.allocate(slot_bytes).expect("there is room");
        }
        for age in ["fresh", "turned"] {
            let slots: Vec<Slot> = paths.iter().map(|path| way.open(path)).collect();
            let before = disk.traffic();
            let cpu_before_s = own_cpu_s();
            for tick in 0..ticks {
                let offset = (tick * piece_bytes) as u64;
                slots.iter().for_each(|slot| slot.write(piece, offset));
                way.make_durable(&slots);
            }
            let cpu_s = own_cpu_s() - cpu_before_s;
            let spent = disk.traffic().since(before);
            println!(
                "{:<32} {age:>8} {:>12.1} {:>14.3} {:>10.1}",
                way.name(),
                spent.flushes as f64 / ticks as f64,
                spent.written_bytes as f64 / (slots.len() * ticks * piece_bytes) as f64,
                cpu_s * 1_000.0 / ticks as f64,
            );
        }
    }
}

fn own_cpu_s() -> f64 {
    meter::processes(&[std::process::id()]).expect("/proc is there").cpu_s
}
