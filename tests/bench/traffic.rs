//! Bytes and flushes of a block device.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const SECTOR_BYTES: u64 = 512;

/// What a block device did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes.
    pub flushes: u64,
}

impl Traffic {
    /// What came after an earlier look.
    pub fn since(self, earlier: Traffic) -> Traffic {
        Traffic {
            written_bytes: self.written_bytes - earlier.written_bytes,
            flushes: self.flushes - earlier.flushes,
        }
    }
}

/// Reads the counters of a block device such as `/dev/loop3`.
pub fn device(device: &Path) -> io::Result<Traffic> {
    let name = device.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let text = fs::read_to_string(PathBuf::from("/sys/block").join(name).join("stat"))?;
    let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let [written, flushes] = [6, 15].map(|at| fields.get(at).copied());
    let (Some(sectors), Some(flushes)) = (written, flushes) else {
        return Err(io::Error::other("the kernel counts no flushes (older than 5.5)"));
    };
    Ok(Traffic { written_bytes: sectors * SECTOR_BYTES, flushes })
}
