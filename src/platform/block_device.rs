//! The block device under a file system, as the kernel shows it: what was written to it, and how worn
//! it says that it is.
//!
//! # Specification
//! Linux `Documentation/block/stat.rst`, `Documentation/driver-api/mmc/mmc-dev-attrs.rst`; JEDEC
//! JESD84-B51 (e.MMC 5.1), 7.4.37 to 7.4.39. SD cards tell nothing of their health, and what NVMe
//! disks know is not shown in sysfs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::domain::wear::{CardHealth, WearReading};

/// Where the kernel shows block devices by their numbers.
const DEVICES: &str = "/sys/dev/block";
/// The kernel counts in these, whatever the device has.
const SECTOR_BYTES: u64 = 512;
/// Fields of `stat`: sectors written, and flushes done (since Linux 5.5).
const SECTORS_WRITTEN: usize = 6;
const FLUSHES: usize = 15;

/// A whole device: the disk that a partition is of.
#[derive(Debug, Clone)]
pub struct BlockDevice {
    folder: PathBuf,
}

impl BlockDevice {
    /// The device under a folder.
    ///
    /// # Errors
    /// There is none, as under a file system in memory.
    pub fn under(folder: &Path) -> io::Result<Self> {
        let device = fs::metadata(folder)?.dev();
        BlockDevice::numbered(Path::new(DEVICES), major(device), minor(device))
    }

    fn numbered(devices: &Path, major: u64, minor: u64) -> io::Result<Self> {
        let folder = fs::canonicalize(devices.join(format!("{major}:{minor}")))?;
        let whole = folder.parent().filter(|_| folder.join("partition").exists());
        Ok(BlockDevice { folder: whole.map_or(folder.clone(), Path::to_owned) })
    }

    /// What was written to it since it appeared.
    ///
    /// # Errors
    /// It is gone.
    pub fn read(&self) -> io::Result<WearReading> {
        let text = fs::read_to_string(self.folder.join("stat"))?;
        let field = |number: usize| text.split_whitespace().nth(number)?.parse::<u64>().ok();
        let sectors = field(SECTORS_WRITTEN).ok_or(io::ErrorKind::InvalidData)?;
        // One that is put in anew has another number, and counts from nothing.
        let number = self.number("diskseq", 10).unwrap_or(0);
        Ok(WearReading {
            appearance: number,
            bytes: sectors.saturating_mul(SECTOR_BYTES),
            flushes: field(FLUSHES).unwrap_or(0),
        })
    }

    /// How worn it says that it is; `None` where it says nothing.
    #[must_use]
    pub fn health(&self) -> Option<CardHealth> {
        let text = fs::read_to_string(self.folder.join("device/life_time")).ok()?;
        let steps = text.split_whitespace().filter_map(hex);
        let worst = steps.max().filter(|step| *step > 0)?;
        let spare = self.number("device/pre_eol_info", 16);
        Some(CardHealth::from_registers(worst, spare.unwrap_or(0)))
    }

    fn number(&self, name: &str, radix: u32) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join(name)).ok()?;
        let text = text.trim();
        match radix {
            16 => hex(text),
            _ => text.parse().ok(),
        }
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as a kernel with an eMMC of two partitions shows it.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("scratch");
        let disk = dir.path().join("devices/mmc0/block/mmcblk0");
        fs::create_dir_all(disk.join("mmcblk0p2")).expect("made");
        fs::create_dir_all(disk.join("device")).expect("made");
        fs::create_dir_all(dir.path().join("dev")).expect("made");
        let write = |name: &str, text: &str| fs::write(disk.join(name), text).expect("written");
        write("stat", "   1 2 3 4 5 6 2000 8 9 10 11 12 13 14 15   77 17\n");
        write("diskseq", "5\n");
        write("device/life_time", "0x03 0x02\n");
        write("device/pre_eol_info", "0x02\n");
        write("mmcblk0p2/partition", "2\n");
        write("mmcblk0p2/stat", "1 2 3 4 5 6 7 8\n");
        for (number, to) in [("179:0", "mmcblk0"), ("179:2", "mmcblk0/mmcblk0p2")] {
            let to = Path::new("../devices/mmc0/block").join(to);
            std::os::unix::fs::symlink(to, dir.path().join("dev").join(number)).expect("linked");
        }
        dir
    }

    #[test]
    fn a_partition_wears_out_the_whole_card() {
        let dir = tree();
        for minor in [0, 2] {
            let device = BlockDevice::numbered(&dir.path().join("dev"), 179, minor);
            let device = device.expect("there");
            let reading = WearReading { appearance: 5, bytes: 2_000 * 512, flushes: 77 };
            assert_eq!(device.read().expect("there"), reading);
            let health = device.health().expect("it tells");
            assert_eq!((health.used_percent, health.pre_eol), (30, "warning"));
        }
        assert!(BlockDevice::numbered(&dir.path().join("dev"), 8, 0).is_err());
    }

    #[test]
    fn a_card_that_tells_nothing_has_no_health() {
        let dir = tree();
        let device = BlockDevice::numbered(&dir.path().join("dev"), 179, 0).expect("there");
        let life_time = dir.path().join("devices/mmc0/block/mmcblk0/device/life_time");
        fs::write(&life_time, "0x00 0x00\n").expect("written");
        assert_eq!(device.health(), None, "the register is not in use");
        fs::remove_file(&life_time).expect("removed");
        assert_eq!(device.health(), None);
    }
}
