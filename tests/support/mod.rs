//! What the tests share: the box as a process, real tools around it, waiting, media, and the
//! power-cut rig.
//!
//! Each test binary includes this tree with `mod support;` and uses its part. Everything made here
//! lies below Cargo's `target/tmp`; every process and mount has a guard that ends it on drop. A
//! missing tool is a failure, never a skipped test.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod block_log;
pub mod broker;
pub mod browser;
pub mod camera;
pub mod chance;
pub mod cloud_api;
pub mod disk_export;
pub mod edge_box;
pub mod fake_vod;
pub mod ffmpeg;
pub mod guest;
pub mod http;
pub mod json_schema;
pub mod large_ring;
pub mod media;
pub mod memory_shelf;
pub mod mounts;
pub mod mqtt_relay;
pub mod network;
pub mod operator;
pub mod outbox;
pub mod packets;
pub mod power_rig;
pub mod process;
pub mod publisher;
pub mod push;
pub mod recorded_ring;
pub mod relay;
pub mod s3_server;
pub mod sdk;
pub mod slow_disk;
pub mod units;
pub mod wait;
pub mod watched_flash;

use std::path::{Path, PathBuf};

/// Where tests may write; below `target/`.
pub fn work_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// A directory of this test alone, removed when dropped.
pub fn scratch(name: &str) -> tempfile::TempDir {
    std::fs::create_dir_all(work_dir()).expect("target/tmp can be made");
    tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .tempdir_in(work_dir())
        .expect("a scratch directory can be made in target/tmp")
}

/// Finds a program, or fails the test by saying what is missing.
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("`{name}` is not installed; tests/run installs what tests need"))
}

/// The Python with what the tests import, as `tests/run` installed it.
pub fn python() -> PathBuf {
    let installed = "target/tools/python/bin/python";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(installed);
    assert!(path.is_file(), "{installed} is not there; tests/run installs what tests need");
    path
}
