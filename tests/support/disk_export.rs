//! Disk images seen through qemu's storage daemon, which logs, slows down or spoils what is done to
//! them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::mounts::make_file;
use super::process::{Process, Stdout};
use super::tool;
use super::wait::wait_until;

/// The name of the file in its folder that is the disk.
pub const EXPORT: &str = "export";

/// Exports the node `node` of a block graph as the file [`EXPORT`] in `dir`, once it is there with
/// its `bytes`. `graph` are the daemon's arguments that make the graph.
#[track_caller]
pub fn export(dir: &Path, graph: &[String], node: &str, bytes: u64) -> Process {
    let at = dir.join(EXPORT);
    if !at.exists() {
        make_file(&at, 0);
    }
    let mut command = Command::new(tool("qemu-storage-daemon"));
    command.args(graph).arg("--export").arg(format!(
        "type=fuse,id=export,node-name={node},mountpoint={},writable=on,growable=off",
        at.display()
    ));
    let log = dir.join("qemu.log");
    let mut daemon = Process::start(&command, "qemu-storage-daemon", &log, Stdout::Log);
    wait_until(Duration::from_secs(10), "qemu-storage-daemon exports the disk", || {
        assert!(daemon.is_running(), "qemu-storage-daemon ended:\n{}", daemon.log_tail());
        fs::metadata(&at).is_ok_and(|file| file.len() == bytes)
    });
    daemon
}
