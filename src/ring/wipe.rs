//! Takes a ring away with everything in it: media, queue, tasks, keys, ledgers.
//!
//! Procedure, so that a reset that is cut off is finished by the next one and a half wiped ring is
//! never opened: `ring.id` is renamed first, what lies in the folder is overwritten and removed, the
//! renamed file goes last. Files that are not of a ring stay.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use crate::platform::flash::{Flash, FlashLock, Open};
use crate::ring::RingError;
use crate::ring::identity::{RingIdentity, identity_path, lock};

/// Name of `ring.id` while the ring is wiped.
const BEING_WIPED: &str = "ring.id.wiped";
/// Bytes of zeros that are written at once.
const ZEROS_BYTES: usize = 1 << 20;
/// What the names of a ring's own files begin with, beside those of slots.
const OURS: [&str; 4] = ["state.db", "recovery.json", "edgerec.sock", "ring.id.new"];

/// What was wiped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wiped {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Wipes the ring at `path`. With `overwrite` each byte is written over before its file is removed,
/// which costs a write of the whole ring; what a flash chip keeps in blocks that it no longer shows
/// is out of reach.
///
/// # Errors
/// There is no ring, a box runs on it, or the flash fails; the rest is wiped by the next call.
pub fn wipe(flash: &dyn Flash, path: &Path, overwrite: bool) -> Result<Wiped, RingError> {
    let renamed = path.join(BEING_WIPED);
    // A ring that was made since a reset was cut off counts, not what that reset has left.
    let _lock: Option<Box<dyn FlashLock>> =
        if !flash.exists(&identity_path(path)) && flash.exists(&renamed) {
            None
        } else {
            RingIdentity::read(flash, path)?;
            let held = lock(flash, path)?;
            flash
                .rename(&identity_path(path), &renamed)
                .and_then(|()| flash.sync_dir(path))
                .map_err(RingError::flash("renaming ring.id"))?;
            Some(held)
        };
    let mut wiped = Wiped::default();
    let slots = path.join("slots");
    let mut files = listed(flash, &slots)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "mp4"));
    let ours = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        OURS.iter().any(|ours| name.starts_with(ours))
    };
    files.extend(listed(flash, path)?.into_iter().filter(ours));
    for file in files {
        let bytes = if overwrite { overwritten(flash, &file) } else { Ok(0) };
        let bytes = bytes.map_err(RingError::flash(format!("overwriting {}", file.display())))?;
        flash
            .remove_file(&file)
            .map_err(RingError::flash(format!("removing {}", file.display())))?;
        wiped.files += 1;
        wiped.bytes += bytes;
    }
    flash
        .remove_file(&renamed)
        .and_then(|()| flash.sync_dir(path))
        .map_err(RingError::flash("removing the last of the ring"))?;
    Ok(wiped)
}

fn listed(flash: &dyn Flash, folder: &Path) -> Result<Vec<PathBuf>, RingError> {
    if !flash.exists(folder) {
        return Ok(Vec::new());
    }
    flash.list(folder).map_err(RingError::flash(format!("listing {}", folder.display())))
}

/// Writes zeros over a file; says how many. What is no plain file (the socket) has no bytes.
fn overwritten(flash: &dyn Flash, path: &Path) -> std::io::Result<u64> {
    let Ok(file) = flash.open(path, Open::ReadWrite) else { return Ok(0) };
    let (len, zeros) = (file.len()?, vec![0; ZEROS_BYTES]);
    let mut at = 0;
    while at < len {
        let piece = usize::try_from(len - at).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
        file.write_all_at(&[IoSlice::new(&zeros[..piece])], at)?;
        at += piece as u64;
    }
    file.sync_data()?;
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::SlotIndex;
    use crate::platform::flash::SystemFlash;
    use crate::ring::identity::slot_path;

    fn ring() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("scratch");
        let plan = RingIdentity::plan(dir.path(), 16 << 20, 1 << 20).expect("fits");
        plan.create(&SystemFlash, dir.path()).expect("made");
        std::fs::write(dir.path().join("state.db"), "rows").expect("written");
        std::fs::write(dir.path().join("notes.txt"), "not ours").expect("written");
        dir
    }

    #[test]
    fn nothing_of_a_ring_is_left_and_nothing_else_is_touched() {
        let dir = ring();
        let wiped = wipe(&SystemFlash, dir.path(), true).expect("wiped");
        assert_eq!(wiped, Wiped { files: 9, bytes: (8 << 20) + 4 });
        let left = SystemFlash.list(dir.path()).expect("listed");
        assert_eq!(left, [dir.path().join("notes.txt"), dir.path().join("slots")]);
        assert!(SystemFlash.list(&left[1]).expect("listed").is_empty());
        let again = wipe(&SystemFlash, dir.path(), true);
        assert!(matches!(again, Err(RingError::Missing { .. })), "{again:?}");
        RingIdentity::plan(dir.path(), 16 << 20, 1 << 20)
            .and_then(|plan| plan.create(&SystemFlash, dir.path()))
            .expect("a new ring can be made");
    }

    #[test]
    fn a_box_that_runs_keeps_its_ring() {
        let dir = ring();
        let held = lock(&SystemFlash, dir.path()).expect("free");
        let refused = wipe(&SystemFlash, dir.path(), false);
        assert!(matches!(refused, Err(RingError::Busy { .. })), "{refused:?}");
        assert!(slot_path(dir.path(), SlotIndex(0)).exists());
        drop(held);
        assert_eq!(wipe(&SystemFlash, dir.path(), false).expect("wiped").bytes, 0);
    }

    #[test]
    fn what_a_reset_has_left_opens_no_ring_that_was_made_since() {
        let dir = ring();
        std::fs::write(dir.path().join(BEING_WIPED), "{}").expect("written");
        let held = lock(&SystemFlash, dir.path()).expect("free");
        let refused = wipe(&SystemFlash, dir.path(), false);
        assert!(matches!(refused, Err(RingError::Busy { .. })), "{refused:?}");
        assert!(slot_path(dir.path(), SlotIndex(0)).exists());
        drop(held);
        assert_eq!(wipe(&SystemFlash, dir.path(), false).expect("wiped").files, 9);
        assert!(!dir.path().join(BEING_WIPED).exists());
    }

    #[test]
    fn a_reset_that_was_cut_off_is_finished_and_its_ring_is_none() {
        let dir = ring();
        let renamed = dir.path().join(BEING_WIPED);
        std::fs::rename(identity_path(dir.path()), &renamed).expect("renamed");
        std::fs::remove_file(slot_path(dir.path(), SlotIndex(0))).expect("removed");
        let read = RingIdentity::read(&SystemFlash, dir.path());
        assert!(matches!(read, Err(RingError::Missing { .. })), "{read:?}");
        assert_eq!(wipe(&SystemFlash, dir.path(), false).expect("finished").files, 8);
        assert!(!renamed.exists());
    }
}
