//! Where an export lands: under a name that nobody takes for a whole one, and renamed when every
//! byte is there and safe.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::api::report::ExportHeader;
use crate::cli::outcome::Failure;
use crate::platform::flash::{Flash, Open, SystemFlash};

/// An export on its way. Dropped before [`finish`](Self::finish), it takes away what it made.
pub struct Landing {
    target: PathBuf,
    partial: PathBuf,
    header: ExportHeader,
    /// A folder with a file for each object; else one file.
    folder: bool,
    /// The object that is being written, and what it lacks.
    current: Option<File>,
    index: usize,
    missing_bytes: u64,
    landed_bytes: u64,
    finished: bool,
}

impl Landing {
    /// Makes the file or folder beside `target`.
    ///
    /// # Errors
    /// It cannot be made, or something is in its way.
    pub fn begin(target: &Path, header: ExportHeader) -> Result<Self, Failure> {
        let folder = header.objects.iter().any(|object| !object.name.is_empty());
        let sound =
            |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if folder && !header.objects.iter().all(|object| sound(&object.name)) {
            return Err(Failure::failed("the export has a name that no file can have"));
        }
        let in_the_way = if folder {
            target.exists() && fs::read_dir(target).map_or(true, |mut list| list.next().is_some())
        } else {
            target.is_dir()
        };
        if in_the_way {
            return Err(Failure::failed(format!("{} is in the way", target.display())));
        }
        let Some(name) = target.file_name() else {
            return Err(Failure::failed(format!("{} is no name for a file", target.display())));
        };
        let name = format!(".{}.{}.partial", name.to_string_lossy(), std::process::id());
        let partial = target.with_file_name(name);
        if folder {
            fs::create_dir(&partial).map_err(|error| unwritten(target, &error))?;
        }
        let mut landing = Landing {
            target: target.to_owned(),
            partial,
            header,
            folder,
            current: None,
            index: 0,
            missing_bytes: 0,
            landed_bytes: 0,
            finished: false,
        };
        landing.next_object()?;
        Ok(landing)
    }

    /// Takes the next bytes of the export, in order.
    ///
    /// # Errors
    /// They cannot be written, or are more than was announced.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let Some(file) = self.current.as_mut() else {
                return Err(Failure::failed("more came than was announced"));
            };
            let fits = usize::try_from(self.missing_bytes).unwrap_or(usize::MAX).min(bytes.len());
            file.write_all(&bytes[..fits]).map_err(|error| unwritten(&self.target, &error))?;
            bytes = &bytes[fits..];
            self.missing_bytes -= fits as u64;
            self.landed_bytes += fits as u64;
            if self.missing_bytes == 0 {
                self.next_object()?;
            }
        }
        Ok(())
    }

    /// Makes everything durable and gives it its name.
    ///
    /// # Errors
    /// Bytes are missing, or the file system says no.
    pub fn finish(mut self) -> Result<(), Failure> {
        if self.current.is_some() {
            let all: u64 = self.header.objects.iter().map(|object| object.bytes).sum();
            let what = format!("it broke off after {} of {all} bytes", self.landed_bytes);
            return Err(Failure::failed(what));
        }
        self.land().map_err(|error| unwritten(&self.target, &error))?;
        self.finished = true;
        Ok(())
    }

    fn land(&self) -> io::Result<()> {
        let flash = SystemFlash;
        flash.open(&self.partial, Open::Read)?.sync_file_system()?;
        flash.rename(&self.partial, &self.target)?;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        flash.sync_dir(parent.unwrap_or_else(|| Path::new(".")))
    }

    /// Begins the next object that has bytes; one without is made whole at once.
    fn next_object(&mut self) -> Result<(), Failure> {
        self.current = None;
        while let Some(object) = self.header.objects.get(self.index) {
            self.index += 1;
            let path =
                if self.folder { self.partial.join(&object.name) } else { self.partial.clone() };
            let file = File::create(path).map_err(|error| unwritten(&self.target, &error))?;
            if object.bytes > 0 {
                self.missing_bytes = object.bytes;
                self.current = Some(file);
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.current = None;
        // What cannot be removed has a name that says what it is.
        let _ = if self.folder {
            fs::remove_dir_all(&self.partial)
        } else {
            fs::remove_file(&self.partial)
        };
    }
}

fn unwritten(target: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{} cannot be written: {error}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::report::ExportObject;

    fn header(objects: &[(&str, u64)]) -> ExportHeader {
        let object =
            |(name, bytes): &(&str, u64)| ExportObject { name: (*name).to_owned(), bytes: *bytes };
        ExportHeader {
            format: "mp4".to_owned(),
            objects: objects.iter().map(object).collect(),
            dropped_tracks: Vec::new(),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = SystemFlash.list(dir).expect("listed");
        names.iter().map(|path| path.file_name().expect("named").to_string_lossy().into()).collect()
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("a.mp4");
        let mut landing = Landing::begin(&path, header(&[("", 5)])).expect("begun");
        landing.take(b"abc").expect("taken");
        assert!(!path.exists());
        let broken = landing.finish().expect_err("two bytes are missing");
        assert_eq!(broken, Failure::failed("it broke off after 3 of 5 bytes"));
        assert_eq!(names(dir.path()), [""; 0]);
        let mut landing = Landing::begin(&path, header(&[("", 5)])).expect("begun");
        landing.take(b"abcde").expect("taken");
        assert!(landing.take(b"f").is_err());
        landing.finish().expect("whole");
        assert_eq!(fs::read(&path).expect("there"), b"abcde");
        assert_eq!(names(dir.path()), ["a.mp4"]);
    }

    #[test]
    fn objects_are_told_apart_by_their_lengths() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("clip");
        let objects = header(&[("0.ts", 3), ("1.ts", 0), ("index.m3u8", 2)]);
        let mut landing = Landing::begin(&path, objects.clone()).expect("begun");
        landing.take(b"abcd").expect("taken");
        landing.take(b"e").expect("taken");
        landing.finish().expect("whole");
        assert_eq!(names(&path), ["0.ts", "1.ts", "index.m3u8"]);
        assert_eq!(fs::read(path.join("index.m3u8")).expect("there"), b"de");
        // What is there is not mixed with something else.
        assert!(Landing::begin(&path, objects).is_err());
        assert_eq!(names(dir.path()), ["clip"]);
    }

    #[test]
    fn names_from_outside_stay_inside() {
        let dir = tempfile::tempdir().expect("scratch");
        for name in ["../a", "/a", "..", ".", "a/b", "a\0"] {
            let path = dir.path().join("clip");
            assert!(Landing::begin(&path, header(&[(name, 1)])).is_err(), "{name}");
        }
        assert_eq!(names(dir.path()), [""; 0]);
    }
}
