//! A file system on flash that is fast at first and slow from then on.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::disk_export::{EXPORT, export};
use super::mounts::{Mounted, empty_disk};
use super::process::Process;

/// An ext4 in an image file, mounted.
pub struct SlowDisk {
    // Dropped in this order: mount, daemon, files.
    mounted: Option<Mounted>,
    daemon: Option<Process>,
    dir: TempDir,
    bytes: u64,
}

impl SlowDisk {
    /// An empty disk, fast. Fails the test when it does not run as root.
    #[track_caller]
    pub fn new(name: &str, bytes: u64) -> SlowDisk {
        let (dir, mounted) = empty_disk(name, bytes);
        SlowDisk { mounted: Some(mounted), daemon: None, dir, bytes }
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mounted.as_ref().expect("mounted").at
    }

    /// Takes it out and puts it back: nothing of it is in memory, and from now on it moves so many
    /// bytes a second, read and written together. Nothing may be open there.
    #[track_caller]
    pub fn slow_down(&mut self, bytes_per_s: u64) {
        self.mounted.take().expect("mounted").unmount();
        let image = self.dir.path().join("disk.img");
        let graph = [
            "--object".to_owned(),
            format!("throttle-group,id=slow,x-bps-total={bytes_per_s}"),
            "--blockdev".to_owned(),
            format!("driver=file,node-name=disk,filename={}", image.display()),
            "--blockdev".to_owned(),
            "driver=throttle,node-name=slow,throttle-group=slow,file=disk".to_owned(),
        ];
        self.daemon = Some(export(self.dir.path(), &graph, "slow", self.bytes));
        let at = self.dir.path().join("mnt");
        self.mounted = Some(Mounted::new(&self.dir.path().join(EXPORT), &at));
    }

    /// Unmounts it and waits until the daemon has ended.
    #[track_caller]
    pub fn take_out(mut self) {
        self.mounted.take().expect("mounted").unmount();
        if let Some(mut daemon) = self.daemon.take() {
            daemon.terminate(Duration::from_secs(60));
        }
    }
}
