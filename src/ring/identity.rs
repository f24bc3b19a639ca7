//! `ring.id`: which ring a directory holds, and the shape that `format` gave it. Written once.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::ids::{DirectoryId, SlotIndex};
use crate::platform::flash::{Flash, FlashLock, Open, Space, replace_file};
use crate::platform::random::random_bytes;
use crate::ring::RingError;
use crate::ring::layout::FORMAT_VERSION;

/// Says that `state.db` was found to be damaged.
pub(super) const DAMAGE_MARK: &str = "state.db.is-damaged";
/// `ring.id` is never longer than this.
const IDENTITY_BYTES_MAX: u64 = 4_096;
/// The smallest reserve: room for the catalog and its write-ahead log.
const RESERVE_BYTES_MIN: u64 = 8 << 20;
/// The largest reserve.
const RESERVE_BYTES_MAX: u64 = 256 << 20;

/// A ring with no more slots than this is small.
const SMALL_RING_SLOTS_MAX: u32 = 64;
/// So many slots of a large ring are kept blank at least.
const KEPT_BLANK_MIN: u32 = 4;

/// The identity and shape of a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingIdentity {
    /// Random, made by `format`.
    pub directory: DirectoryId,
    /// The box's identity if the configuration gives none.
    pub box_id: String,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Slots in the ring.
    pub slots: u32,
    /// The budget: slots, catalog and reserve together.
    pub capacity_bytes: u64,
}

/// The file as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format_version: u8,
    directory: String,
    box_id: String,
    slot_bytes: u64,
    slots: u32,
    capacity_bytes: u64,
}

impl RingIdentity {
    /// A new ring inside `capacity_bytes` with slots of `slot_bytes`: the reserve (a fiftieth,
    /// from 8 to 256 MiB) is kept for the catalog, the rest is slots.
    ///
    /// # Errors
    /// The capacity is too small for two slots beside the reserve.
    pub fn plan(path: &Path, capacity_bytes: u64, slot_bytes: u64) -> Result<Self, RingError> {
        let reserve = (capacity_bytes / 50).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
        let slots = capacity_bytes.saturating_sub(reserve) / slot_bytes;
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        if slots < 2 {
            return Err(RingError::NoRoom {
                path: path.to_owned(),
                free_bytes: capacity_bytes,
                need_bytes: reserve + 2 * slot_bytes,
            });
        }
        let directory = DirectoryId(random_bytes());
        let box_id = format!("box-{}", &directory.to_string()[..12]);
        Ok(RingIdentity { directory, box_id, slot_bytes, slots, capacity_bytes })
    }

    /// Whether the slots are few enough to be read before recording begins, should the catalog be lost.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.slots <= SMALL_RING_SLOTS_MAX
    }

    /// The first of the slots that are kept blank for recording while a lost catalog is made anew: a
    /// sixty-fourth of a large ring, at its end; none of a small one.
    #[must_use]
    pub fn kept_blank_from(&self) -> SlotIndex {
        let kept = if self.is_small() { 0 } else { (self.slots / 64).max(KEPT_BLANK_MIN) };
        SlotIndex(self.slots - kept)
    }

    /// Reads the identity of the ring at `path`.
    ///
    /// # Errors
    /// There is none, or it is damaged or of another version.
    pub fn read(flash: &dyn Flash, path: &Path) -> Result<Self, RingError> {
        let file_path = identity_path(path);
        if !flash.exists(&file_path) {
            return Err(RingError::Missing { path: path.to_owned() });
        }
        let failed = || format!("reading {}", file_path.display());
        let file = flash.open(&file_path, Open::Read).map_err(RingError::flash(failed()))?;
        let len = file.len().map_err(RingError::flash(failed()))?.min(IDENTITY_BYTES_MAX);
        let mut text = vec![0; usize::try_from(len).expect("small")];
        file.read_exact_at(&mut text, 0).map_err(RingError::flash(failed()))?;
        let foreign = |what: String| RingError::Foreign { path: path.to_owned(), what };
        let file: IdentityFile = serde_json::from_slice(&text)
            .map_err(|error| foreign(format!("ring.id is not readable: {error}")))?;
        if file.format_version != FORMAT_VERSION {
            return Err(foreign(format!(
                "it has format version {}, this program works on version {FORMAT_VERSION}",
                file.format_version
            )));
        }
        let directory = parse_directory(&file.directory)
            .ok_or_else(|| foreign("its directory identity is damaged".to_owned()))?;
        Ok(RingIdentity {
            directory,
            box_id: file.box_id,
            slot_bytes: file.slot_bytes,
            slots: file.slots,
            capacity_bytes: file.capacity_bytes,
        })
    }

    /// Makes the ring on flash: folder, slots with their space, and `ring.id` last, so that a
    /// ring that was only half made is none.
    ///
    /// # Errors
    /// A ring is there already, the room is not there, or the flash fails.
    pub fn create(&self, flash: &dyn Flash, path: &Path) -> Result<(), RingError> {
        if flash.exists(&identity_path(path)) {
            return Err(RingError::Exists { path: path.to_owned() });
        }
        let slots = path.join("slots");
        flash
            .create_dir_all(&slots)
            .map_err(RingError::flash(format!("making {}", slots.display())))?;
        let Space { free_bytes, .. } =
            flash.space(path).map_err(RingError::flash("reading the free space"))?;
        if free_bytes < self.capacity_bytes {
            let (free_bytes, need_bytes) = (free_bytes, self.capacity_bytes);
            return Err(RingError::NoRoom { path: path.to_owned(), free_bytes, need_bytes });
        }
        for slot in 0..self.slots {
            let slot_path = slot_path(path, SlotIndex(slot));
            let made = || format!("making {}", slot_path.display());
            let file = flash.open(&slot_path, Open::Truncate).map_err(RingError::flash(made()))?;
            file.allocate(self.slot_bytes).map_err(RingError::flash(made()))?;
            file.write_all_at(&[IoSlice::new(&[0; 4096])], 0).map_err(RingError::flash(made()))?;
        }
        flash.sync_dir(&slots).map_err(RingError::flash("syncing the slots' folder"))?;
        let text = serde_json::to_string_pretty(&IdentityFile {
            format_version: FORMAT_VERSION,
            directory: self.directory.to_string(),
            box_id: self.box_id.clone(),
            slot_bytes: self.slot_bytes,
            slots: self.slots,
            capacity_bytes: self.capacity_bytes,
        })
        .expect("plain fields");
        replace_file(flash, &identity_path(path), text.as_bytes())
            .map_err(RingError::flash("writing ring.id"))
    }
}

/// Takes the ring's lock, which a running box holds.
///
/// # Errors
/// Another process holds it.
pub fn lock(flash: &dyn Flash, path: &Path) -> Result<Box<dyn FlashLock>, RingError> {
    flash.lock(&identity_path(path)).map_err(|error| {
        if error.kind() == std::io::ErrorKind::WouldBlock {
            RingError::Busy { path: path.to_owned() }
        } else {
            RingError::Flash { what: "locking ring.id".to_owned(), source: error }
        }
    })
}

/// Where `ring.id` is.
#[must_use]
pub fn identity_path(ring: &Path) -> PathBuf {
    ring.join("ring.id")
}

/// Where a slot is.
#[must_use]
pub fn slot_path(ring: &Path, slot: SlotIndex) -> PathBuf {
    ring.join("slots").join(format!("{:06}.mp4", slot.0))
}

fn parse_directory(text: &str) -> Option<DirectoryId> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(DirectoryId(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::flash::SystemFlash;

    #[test]
    fn a_ring_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().expect("scratch");
        let plan = RingIdentity::plan(dir.path(), 16 << 20, 1 << 20).expect("fits");
        assert_eq!(plan.slots, 8);
        plan.create(&SystemFlash, dir.path()).expect("made");
        assert_eq!(RingIdentity::read(&SystemFlash, dir.path()).expect("there"), plan);
        let slot = SystemFlash.open(&slot_path(dir.path(), SlotIndex(7)), Open::Read);
        assert_eq!(slot.expect("there").len().expect("len"), 1 << 20);
        let again = plan.create(&SystemFlash, dir.path());
        assert!(matches!(again, Err(RingError::Exists { .. })), "{again:?}");
    }

    #[test]
    fn what_is_no_ring_is_refused() {
        let dir = tempfile::tempdir().expect("scratch");
        let none = RingIdentity::read(&SystemFlash, dir.path());
        assert!(matches!(none, Err(RingError::Missing { .. })), "{none:?}");
        std::fs::write(identity_path(dir.path()), "{\"format_version\": 99}").expect("written");
        let foreign = RingIdentity::read(&SystemFlash, dir.path());
        assert!(matches!(foreign, Err(RingError::Foreign { .. })), "{foreign:?}");
    }
}
