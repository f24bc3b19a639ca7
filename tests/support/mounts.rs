//! File systems in image files, mounted where nobody else sees them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::process::{run, run_ok};
use super::{scratch, tool};

/// An ext4 in an image file, mounted; nothing of it is left behind, even if the test is killed.
pub struct LoopDisk {
    mounted: Mounted,
    dir: TempDir,
}

impl LoopDisk {
    /// Makes and mounts an empty disk. Fails the test when it does not run as root.
    #[track_caller]
    pub fn new(name: &str, bytes: u64) -> LoopDisk {
        let (dir, mounted) = empty_disk(name, bytes);
        LoopDisk { mounted, dir }
    }

    /// The mounted file system.
    pub fn mount(&self) -> &Path {
        &self.mounted.at
    }

    /// Unmounts, and gives the raw bytes of the disk.
    #[track_caller]
    pub fn into_bytes(self) -> Vec<u8> {
        let LoopDisk { mounted, dir } = self;
        mounted.unmount();
        fs::read(dir.path().join("disk.img")).expect("the image can be read")
    }
}

/// A mounted disk image, unmounted when dropped.
pub struct Mounted {
    pub at: PathBuf,
    done: bool,
}

impl Mounted {
    /// Mounts an image at a folder, which is made.
    #[track_caller]
    pub fn new(image: &Path, at: &Path) -> Mounted {
        fs::create_dir_all(at).expect("the mount point can be made");
        run_ok(Command::new(tool("mount")).args(["-o", "loop"]).arg(image).arg(at));
        Mounted { at: at.to_owned(), done: false }
    }

    /// Takes it away from its folder, whatever is open there; what is stays so.
    #[track_caller]
    pub fn pull_out(mut self) {
        run_ok(Command::new(tool("umount")).arg("-l").arg(&self.at));
        self.done = true;
    }

    /// Unmounts; nothing may be open there any more.
    #[track_caller]
    pub fn unmount(mut self) {
        run_ok(Command::new(tool("umount")).arg(&self.at));
        self.done = true;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.done {
            // Lazily: the failed test may still have something open there.
            run(Command::new(tool("umount")).arg("-l").arg(&self.at));
        }
    }
}

/// Makes an ext4 in the image file `disk.img` of a new folder, and mounts it at `mnt` there.
#[track_caller]
pub fn empty_disk(name: &str, bytes: u64) -> (TempDir, Mounted) {
    enter_mount_namespace();
    let dir = scratch(name);
    let image = dir.path().join("disk.img");
    make_file(&image, bytes);
    run_ok(Command::new(tool("mkfs.ext4")).args(["-q", "-F"]).arg(&image));
    let mounted = Mounted::new(&image, &dir.path().join("mnt"));
    (dir, mounted)
}

/// Gives the calling thread, and what it starts, mounts of its own.
#[track_caller]
pub fn enter_mount_namespace() {
    if let Err(fault) = unshare(CloneFlags::CLONE_NEWNS) {
        panic!("this test mounts file systems and must run as root: {fault}");
    }
    run_ok(Command::new(tool("mount")).args(["--make-rprivate", "/"]));
}

/// Makes a sparse file.
pub fn make_file(path: &Path, bytes: u64) {
    let file = File::create_new(path).expect("the file can be made");
    file.set_len(bytes).expect("the file can be stretched");
}
