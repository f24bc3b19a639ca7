//! The folder that files are delivered to, as the demo watches it.
//!
//! A file has its name only once all of it is there, and the playlist of an HLS file comes after
//! its segments: a name that is new is a file delivered.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::domain::files::FileFormat;
use crate::platform::flash::Flash;

/// Folders above a file: domain, app, stream.
const DEPTH: usize = 3;
/// Entries looked at in one go; a demo has a handful.
const ENTRIES_MAX: usize = 100_000;
/// The playlist of an HLS file, in a folder of its own.
const PLAYLIST: &str = "index.m3u8";

/// The folder, and what it held when it was last looked at.
pub(super) struct Folder<'a> {
    flash: &'a dyn Flash,
    root: PathBuf,
    seen: HashSet<PathBuf>,
}

impl<'a> Folder<'a> {
    /// Watches `root`; what lies there already is not told.
    pub(super) fn watch(flash: &'a dyn Flash, root: &Path) -> Self {
        let mut folder = Folder { flash, root: root.to_owned(), seen: HashSet::new() };
        folder.look();
        folder
    }

    /// Files delivered since the last look, in the order of their paths.
    pub(super) fn look(&mut self) -> Vec<PathBuf> {
        let mut level = vec![self.root.clone()];
        for _ in 0..DEPTH {
            level = level.iter().flat_map(|folder| self.names(folder)).take(ENTRIES_MAX).collect();
        }
        let files = level.iter().flat_map(|folder| self.names(folder)).take(ENTRIES_MAX);
        let whole: Vec<PathBuf> = files.filter_map(|path| self.whole(path)).collect();
        whole.into_iter().filter(|path| self.seen.insert(path.clone())).collect()
    }

    /// Names in a folder, without those of files that are still written. What is no folder has
    /// none.
    fn names(&self, folder: &Path) -> Vec<PathBuf> {
        let mut names = self.flash.list(folder).unwrap_or_default();
        let hidden = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        };
        names.retain(|path| !hidden(path));
        names
    }

    fn whole(&self, path: PathBuf) -> Option<PathBuf> {
        if format_of(&path).is_some() {
            return Some(path);
        }
        let playlist = path.join(PLAYLIST);
        self.flash.exists(&playlist).then_some(playlist)
    }
}

/// The format of a delivered file.
pub(super) fn format_of(path: &Path) -> Option<FileFormat> {
    match path.extension()?.to_str()? {
        "m3u8" => Some(FileFormat::Hls),
        extension => extension.parse().ok().filter(|format| *format != FileFormat::Hls),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::platform::flash::SystemFlash;

    #[test]
    fn only_what_is_new_and_whole_is_told() {
        let root = tempfile::tempdir().expect("scratch");
        let put = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            fs::write(&path, "x").expect("written");
            path
        };
        put("d/a/s/old.mp4");
        put("readme.mp4");
        let mut folder = Folder::watch(&SystemFlash, root.path());
        assert!(folder.look().is_empty());
        put("d/a/s/.new.mp4.part");
        put("d/a/s/x/0.ts");
        put("d/a/s/notes.txt");
        assert!(folder.look().is_empty());
        let new = [put("d/a/s/new.mp4"), put("d/a/s/x/index.m3u8"), put("d/b/s/new.aac")];
        assert_eq!(folder.look(), new);
        assert!(folder.look().is_empty());
        let formats = new.map(|path| format_of(&path).expect("known").name());
        assert_eq!(formats, ["mp4", "hls", "aac"]);
    }
}
