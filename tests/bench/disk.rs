//! The disk that a recorder is measured on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::{run, run_ok};
use crate::support::tool;
use crate::traffic::{self, Traffic};

/// A fresh ext4 on a loop device of its own; gone when dropped.
pub struct Disk {
    device: PathBuf,
    /// Where it is mounted.
    pub mount: PathBuf,
}

impl Disk {
    /// Makes and mounts one of so many bytes; its image lies in `dir` and is sparse.
    pub fn new(dir: &Path, bytes: u64) -> Disk {
        let (image, mount) = (dir.join("disk.img"), dir.join("disk"));
        let file = fs::File::create_new(&image).expect("the image can be made");
        file.set_len(bytes).expect("the image can be stretched");
        fs::create_dir(&mount).expect("the mount point can be made");
        // No initialization is left for later: it would be counted.
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        run_ok(Command::new(tool("mkfs.ext4")).args(["-q", "-F", "-E", eager]).arg(&image));
        let device = run_ok(Command::new(tool("losetup")).args(["--find", "--show"]).arg(&image));
        let device = PathBuf::from(String::from_utf8_lossy(&device).trim());
        let disk = Disk { device, mount };
        run_ok(Command::new(tool("mount")).arg(&disk.device).arg(&disk.mount));
        disk
    }

    /// The device's counters after everything was written out.
    pub fn traffic(&self) -> Traffic {
        run_ok(Command::new(tool("sync")).arg("-f").arg(&self.mount));
        traffic::device(&self.device).expect("the device has counters")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new(tool("umount")).arg("-l").arg(&self.mount));
        run(Command::new(tool("losetup")).arg("--detach").arg(&self.device));
    }
}
