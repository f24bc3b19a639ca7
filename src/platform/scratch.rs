//! A folder of this process alone in the system's temporary directory, removed when dropped.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::platform::random::random_bytes;

/// Names that are tried; two of them never meet but by intent.
const TRIES: usize = 4;

/// The folder; nobody else can read it.
#[derive(Debug)]
pub struct ScratchDir(PathBuf);

impl ScratchDir {
    /// Makes one.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn new() -> io::Result<Self> {
        let mut made = Ok(());
        for _ in 0..TRIES {
            let name = u64::from_be_bytes(random_bytes());
            let path = std::env::temp_dir().join(format!("edgerec-{name:016x}"));
            made = DirBuilder::new().mode(0o700).create(&path);
            match &made {
                Ok(()) => return Ok(ScratchDir(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => break,
            }
        }
        Err(made.err().unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // What is left behind lies in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_scratch_folder_is_private_and_goes_with_its_owner() {
        let scratch = ScratchDir::new().expect("made");
        let path = scratch.path().to_owned();
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(path.join("a"), "b").expect("written");
        drop(scratch);
        assert!(!path.exists());
    }
}
