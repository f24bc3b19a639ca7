//! The disk that a ring lies on: whether what is at its path is still what was there when the ring
//! was opened. Pure: what the system shows comes in.

/// What is at the path of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskView {
    /// The file system, by the number of its device.
    pub device: u64,
    /// The folder in it, by its inode.
    pub folder: u64,
    /// Nothing can be written there.
    pub read_only: bool,
    /// Bytes of the file system in all.
    pub total_bytes: u64,
}

/// Why a disk cannot be recorded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskFault {
    /// Nothing is mounted, or the folder is not there.
    Missing,
    /// It is another one than the ring was opened on.
    Swapped,
    /// It takes no writes.
    ReadOnly,
    /// It is smaller than the ring.
    Shrunken,
}

impl DiskFault {
    /// As it is told, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            DiskFault::Missing => "disk missing",
            DiskFault::Swapped => "disk swapped",
            DiskFault::ReadOnly => "disk read-only",
            DiskFault::Shrunken => "disk too small",
        }
    }
}

/// Whether a ring that needs so many bytes can be recorded to on this disk.
#[must_use]
pub fn fault_of(now: Option<DiskView>, need_bytes: u64) -> Option<DiskFault> {
    match now {
        None => Some(DiskFault::Missing),
        Some(view) if view.read_only => Some(DiskFault::ReadOnly),
        Some(view) if view.total_bytes < need_bytes => Some(DiskFault::Shrunken),
        Some(_) => None,
    }
}

/// Whether a ring that was opened on one disk can go on with what is there now; `None` is nothing.
#[must_use]
pub fn fault_since(opened: DiskView, now: Option<DiskView>, need_bytes: u64) -> Option<DiskFault> {
    match now {
        Some(view) if (view.device, view.folder) != (opened.device, opened.folder) => {
            Some(DiskFault::Swapped)
        }
        other => fault_of(other, need_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: DiskView = DiskView { device: 7, folder: 12, read_only: false, total_bytes: 100 };

    #[test]
    fn each_fault_is_told_from_the_others() {
        let judged = |now| fault_since(OPENED, now, 90);
        assert_eq!(judged(Some(OPENED)), None);
        assert_eq!(judged(None), Some(DiskFault::Missing));
        let read_only = DiskView { read_only: true, ..OPENED };
        assert_eq!(judged(Some(read_only)), Some(DiskFault::ReadOnly));
        let small = DiskView { total_bytes: 89, ..OPENED };
        assert_eq!(judged(Some(small)), Some(DiskFault::Shrunken));
        assert_eq!(judged(Some(DiskView { total_bytes: 90, ..OPENED })), None);
    }

    #[test]
    fn another_disk_is_another_whatever_its_folder_is_called() {
        let device = DiskView { device: 8, ..OPENED };
        // The folder below the mount point, of the file system that the system itself is on.
        let folder = DiskView { folder: 13, ..OPENED };
        // What else is wrong with it says nothing: it is not ours.
        let and_small = DiskView { total_bytes: 1, read_only: true, ..device };
        for other in [device, folder, and_small] {
            assert_eq!(fault_since(OPENED, Some(other), 90), Some(DiskFault::Swapped));
        }
        assert_eq!(fault_of(Some(device), 90), None, "a start takes what is there");
    }
}
