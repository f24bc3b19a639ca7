//! What is mounted where, as the kernel shows it.
//!
//! # Specification
//! Linux `Documentation/filesystems/proc.rst`, section 3.5 (`/proc/PID/mountinfo`).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

/// Where the kernel shows the mounts of this process.
const MOUNTS: &str = "/proc/self/mountinfo";
/// What a file system says that takes no writes any more: mounted so, or by itself after a fault.
/// The latter is not in the flags of `statvfs(2)` since Linux 6.15.
const NO_WRITES: [&str; 3] = ["ro", "emergency_ro", "shutdown"];

/// Whether something is mounted on a folder.
///
/// # Errors
/// The folder cannot be looked at.
pub fn is_mount_point(folder: &Path) -> io::Result<bool> {
    let here = fs::metadata(folder)?;
    let above = fs::metadata(folder.join(".."))?;
    Ok(here.dev() != above.dev() || here.ino() == above.ino())
}

/// Whether the file system of a device says that it takes no writes; `false` where the kernel shows
/// nothing of it.
pub(super) fn takes_no_writes(device: u64) -> bool {
    let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
    takes_no_writes_in(&mounts, &format!("{}:{}", major(device), minor(device)))
}

fn takes_no_writes_in(mounts: &str, device: &str) -> bool {
    mounts.lines().filter(|line| line.split(' ').nth(2) == Some(device)).any(|line| {
        // The options of the file system are the last word; those of one mount of it say nothing.
        let options = line.rsplit(' ').next().unwrap_or_default();
        options.split(',').any(|option| NO_WRITES.contains(&option))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_no_mount_point_and_the_root_is_one() {
        let dir = tempfile::tempdir().expect("scratch");
        assert!(!is_mount_point(dir.path()).expect("there"));
        assert!(is_mount_point(Path::new("/")).expect("there"));
        assert!(is_mount_point(Path::new("/proc")).expect("there"));
    }

    #[test]
    fn a_file_system_that_gave_up_is_found_by_its_device() {
        let mounts = "\
            63 43 7:0 / /data rw,relatime - ext4 /dev/loop0 rw,abort,emergency_ro\n\
            64 43 7:1 / /media/usb rw,relatime shared:2 - ext4 /dev/loop1 rw\n\
            65 43 7:2 / /mnt rw - vfat /dev/loop2 ro,errors=remount-ro\n\
            66 43 7:3 / /srv ro - ext4 /dev/loop3 rw,errors=remount-ro\n";
        for (device, given_up) in
            [("7:0", true), ("7:1", false), ("7:2", true), ("7:3", false), ("7:9", false)]
        {
            assert_eq!(takes_no_writes_in(mounts, device), given_up, "{device}");
        }
    }
}
