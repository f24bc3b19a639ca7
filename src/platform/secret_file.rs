//! Files that only their owner may read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Read and written by the owner, nobody else.
const OWNER_ONLY: u32 = 0o600;

/// Writes a file that only its owner may read, in place of one that is there; durable when it
/// returns, but for its name.
///
/// # Errors
/// Whatever the file system says.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(OWNER_ONLY).open(path)?;
    // One that was there keeps its mode otherwise.
    fs::set_permissions(path, fs::Permissions::from_mode(OWNER_ONLY))?;
    file.write_all(content)?;
    file.sync_all()
}
