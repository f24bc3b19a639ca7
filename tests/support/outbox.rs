//! The folder that a box delivers to, as the one who looks into it sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::scratch;
use super::wait::poll_for;

/// A folder target.
pub struct Outbox {
    dir: TempDir,
}

/// What a delivered file is named by.
pub const FORMATS: [&str; 4] = ["flv", "hls", "mp4", "aac"];

impl Outbox {
    /// An empty folder.
    pub fn new() -> Outbox {
        Outbox { dir: scratch("outbox") }
    }

    /// The section of edgerec.toml that delivers here.
    pub fn section(&self) -> String {
        let path = serde_json::to_string(&self.dir.path().to_string_lossy()).expect("text");
        format!("[upload]\ntarget = \"directory\"\npath = {path}\n")
    }

    /// What is there of a stream (`domain/app/stream`) in a format, oldest first: the files, or
    /// the playlists of HLS.
    pub fn files(&self, stream: &str, format: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join(stream)).into_iter().flatten();
        let paths = entries.map(|entry| entry.expect("the folder can be read").path());
        let mut found: Vec<PathBuf> = if format == "hls" {
            paths.map(|path| path.join("index.m3u8")).filter(|path| path.exists()).collect()
        } else {
            paths.filter(|path| path.extension().is_some_and(|e| e == format)).collect()
        };
        found.sort();
        found
    }

    /// Waits until there are `count` files of a stream in a format.
    #[track_caller]
    pub fn wait(&self, stream: &str, format: &str, count: usize, within: Duration) -> Vec<PathBuf> {
        let enough = || Some(self.files(stream, format)).filter(|files| files.len() >= count);
        poll_for(within, enough).unwrap_or_else(|| {
            panic!("{count} {format} of {stream} not within {within:?}: {:#?}", self.all())
        })
    }

    /// Every file, by its path in the folder.
    pub fn all(&self) -> Vec<PathBuf> {
        fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { collect(&path, into) } else { into.push(path) }
            }
        }
        let mut found = Vec::new();
        collect(self.dir.path(), &mut found);
        found.sort();
        found
    }
}

/// The lines of a playlist that name segments, as paths; and its map, if any.
#[track_caller]
pub fn segments(playlist: &Path) -> (Option<PathBuf>, Vec<PathBuf>) {
    let text = fs::read_to_string(playlist).expect("the playlist can be read");
    let dir = playlist.parent().expect("a playlist lies in a folder");
    let map = text.lines().find_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\""));
    let map = map.map(|rest| dir.join(rest.split('"').next().expect("a name")));
    let named = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    (map, named.map(|name| dir.join(name)).collect())
}

/// All segments of a playlist as one file in `dir`; TS, or fragmented MP4 if there is a map.
#[track_caller]
pub fn joined(playlist: &Path, dir: &Path) -> PathBuf {
    let (map, segments) = segments(playlist);
    let path = dir.join(if map.is_some() { "joined.mp4" } else { "joined.ts" });
    let parts = map.iter().chain(&segments);
    let bytes: Vec<u8> =
        parts.flat_map(|part| fs::read(part).expect("the segment is there")).collect();
    fs::write(&path, bytes).expect("written");
    path
}
