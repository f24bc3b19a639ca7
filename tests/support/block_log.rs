//! The log of every write and flush that a block device got, and the disk as it was at any entry
//! of it. The format is that of dm-log-writes, written by qemu's `blklogwrites`.
//!
//! Layout, little-endian: one sector with magic, version, number of entries (u64 each) and sector
//! size (u32); then per entry one sector with first sector, sectors, flags and data length (u64
//! each), followed by the data unless the entry is a discard. Positions count log sectors.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::chance::Chance;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLAG_FLUSH: u64 = 1;
const FLAG_FUA: u64 = 2;
const FLAG_DISCARD: u64 = 4;
/// Copied at once, in bytes.
const CHUNK_BYTES: u64 = 1 << 20;
/// What a torn write keeps is a multiple of this, in bytes.
const TORN_UNIT_BYTES: u64 = 512;

/// One write or flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where it wrote, in bytes from the start of the device.
    pub offset: u64,
    /// How much it wrote, in bytes.
    pub len: u64,
    flags: u64,
    /// Where its data lies in the log, in bytes.
    data_at: u64,
}

impl Entry {
    /// Whether everything before it had reached the medium.
    pub fn is_flush(&self) -> bool {
        self.flags & FLAG_FLUSH != 0
    }

    /// Whether it was itself on the medium when it was done.
    pub fn is_forced(&self) -> bool {
        self.flags & FLAG_FUA != 0
    }

    /// Whether it carries data.
    pub fn is_write(&self) -> bool {
        self.len > 0 && self.flags & FLAG_DISCARD == 0
    }
}

/// What the device's volatile cache had done with unflushed writes when the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// All are there.
    Prefix,
    /// A random half is there.
    RandomHalf,
    /// All are there, but the last ends in the middle.
    TornLast,
}

impl Cache {
    /// All models.
    pub const ALL: [Cache; 3] = [Cache::Prefix, Cache::RandomHalf, Cache::TornLast];
}

/// A parsed log.
pub struct BlockLog {
    file: File,
    entries: Vec<Entry>,
}

impl BlockLog {
    /// Reads the entries of a log; their data stays in the file.
    ///
    /// # Errors
    /// The file cannot be read or is no such log.
    pub fn open(path: &Path) -> io::Result<BlockLog> {
        let file = File::open(path)?;
        let log_bytes = file.metadata()?.len();
        let mut head = [0; 28];
        file.read_exact_at(&mut head, 0)?;
        if u64_at(&head, 0) != MAGIC || u64_at(&head, 8) != VERSION {
            return Err(bad("no block log of version 1"));
        }
        let sector = u64::from(u32::from_le_bytes([head[24], head[25], head[26], head[27]]));
        if !(512..=1 << 20).contains(&sector) || !sector.is_power_of_two() {
            return Err(bad("odd sector size"));
        }
        let mut entries = Vec::new();
        let mut at = sector;
        for _ in 0..u64_at(&head, 16) {
            let entry = read_entry(&file, at, sector)?;
            let held = if entry.is_write() { entry.len } else { 0 };
            at = entry.data_at.checked_add(held).ok_or_else(|| bad("entry too long"))?;
            if at > log_bytes {
                return Err(bad("entry longer than the log"));
            }
            entries.push(entry);
        }
        Ok(BlockLog { file, entries })
    }

    /// All entries, in the order in which the device got them.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many of the first `end` entries are certainly on the medium: those before the last
    /// flush.
    pub fn flushed_before(&self, end: usize) -> usize {
        self.entries[..end].iter().rposition(Entry::is_flush).unwrap_or(0)
    }

    /// The first bytes of an entry's data, at most `max`.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn data_start(&self, entry: &Entry, max: u64) -> io::Result<Vec<u8>> {
        let len = if entry.is_write() { entry.len.min(max) } else { 0 };
        let mut data = vec![0; usize::try_from(len).map_err(|_| bad("too long"))?];
        self.file.read_exact_at(&mut data, entry.data_at)?;
        Ok(data)
    }

    /// Writes entries `from..end` to a disk image, in order.
    ///
    /// # Errors
    /// Reading the log or writing the image failed.
    pub fn apply(&self, image: &File, from: usize, end: usize) -> io::Result<()> {
        self.entries[from..end].iter().try_for_each(|entry| self.write(image, entry, entry.len))
    }

    /// Writes entries `from..end`, none of them flushed, as a cache model leaves them.
    ///
    /// # Errors
    /// Reading the log or writing the image failed.
    pub fn apply_unflushed(
        &self,
        image: &File,
        from: usize,
        end: usize,
        cache: Cache,
        chance: &mut Chance,
    ) -> io::Result<()> {
        let unflushed = &self.entries[from..end];
        let torn = unflushed.iter().rposition(|entry| entry.is_write() && !entry.is_forced());
        for (at, entry) in unflushed.iter().enumerate() {
            let kept = match cache {
                _ if entry.is_forced() => entry.len,
                Cache::RandomHalf if chance.coin() => 0,
                Cache::TornLast if torn == Some(at) => {
                    chance.below(entry.len.div_ceil(TORN_UNIT_BYTES)) * TORN_UNIT_BYTES
                }
                _ => entry.len,
            };
            self.write(image, entry, kept)?;
        }
        Ok(())
    }

    fn write(&self, image: &File, entry: &Entry, kept: u64) -> io::Result<()> {
        if !entry.is_write() {
            return Ok(());
        }
        let mut buffer = Vec::new();
        let mut done = 0;
        while done < kept {
            let step = (kept - done).min(CHUNK_BYTES);
            buffer.resize(usize::try_from(step).map_err(|_| bad("too long"))?, 0);
            self.file.read_exact_at(&mut buffer, entry.data_at + done)?;
            image.write_all_at(&buffer, entry.offset + done)?;
            done += step;
        }
        Ok(())
    }
}

fn read_entry(file: &File, at: u64, sector: u64) -> io::Result<Entry> {
    let mut head = [0; 32];
    file.read_exact_at(&mut head, at)?;
    let in_bytes = |sectors: u64| {
        let bytes = sectors.checked_mul(sector).filter(|bytes| *bytes < 1 << 50);
        bytes.ok_or_else(|| bad("entry too long"))
    };
    Ok(Entry {
        offset: in_bytes(u64_at(&head, 0))?,
        len: in_bytes(u64_at(&head, 8))?,
        flags: u64_at(&head, 16),
        data_at: at + sector,
    })
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
