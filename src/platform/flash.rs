//! The flash seam: files of the ring and of delivery folders, and the few file system operations
//! that durability stands on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{
    FallocateFlags, Flock, FlockArg, OFlag, PosixFadviseAdvice, fallocate, posix_fadvise,
};
use nix::libc::{self, c_uint};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::sys::uio::pwritev;

use crate::domain::disk::DiskView;
use crate::platform::mounts;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Must exist; reading only.
    Read,
    /// Must exist; reading and writing.
    ReadWrite,
    /// Must not exist; reading and writing.
    CreateNew,
    /// Made if missing, emptied if not; reading and writing.
    Truncate,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that an ordinary user can still take.
    pub free_bytes: u64,
}

/// One open file. All offsets and lengths are bytes.
pub trait FlashFile: Send + Sync {
    /// Fills `buf` from `offset`; an end of file before that is `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all the slices, one after the other, at `offset`.
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes the file's data durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Brings what was written to the device, whose cache may still hold it (`sync_file_range`), so that what
    /// makes it durable has less to do; nothing where the system has no such call.
    fn write_out(&self) -> io::Result<()>;
    /// Makes everything written to the file's whole file system durable (`syncfs`).
    fn sync_file_system(&self) -> io::Result<()>;
    /// Drops what the system caches of the file's durable data, so that the next read comes from
    /// the medium; best effort.
    fn forget_cached(&self) {}
    /// Reserves the first `len` bytes on the device; the file is at least `len` long after it.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Reserves the first `len` bytes on the device; the file stays as long as it is.
    fn reserve(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// The length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A lock on a file, held until dropped.
pub trait FlashLock: Send + Sync {}

/// The file system as far as edgerec uses it.
pub trait Flash: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FlashFile>>;
    /// Makes a directory and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames a file over another, in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, in order.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether a path exists.
    fn exists(&self, path: &Path) -> bool;
    /// The path with all links followed; a file system without links gives the path itself.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
    /// When a file was last changed.
    fn modified(&self, path: &Path) -> io::Result<SystemTime>;
    /// Room on the file system of a path.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// The disk that a folder lies on; one that nothing can happen to is always the same.
    fn disk(&self, path: &Path) -> io::Result<DiskView> {
        let Space { total_bytes, .. } = self.space(path)?;
        Ok(DiskView { device: 0, folder: 0, read_only: false, total_bytes })
    }
    /// Takes the exclusive lock on a file that must exist; `WouldBlock` if another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FlashLock>>;
}

/// Replaces a small file whole: write new, sync, rename, sync the folder. After a power cut the
/// old or the new content is there, never a mixture.
///
/// # Errors
/// Whatever the file system says; the old content stays.
pub fn replace_file(flash: &dyn Flash, path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = parent.join(name);
    let file = flash.open(&temporary, Open::Truncate)?;
    file.write_all_at(&[IoSlice::new(content)], 0)?;
    file.sync_data()?;
    flash.rename(&temporary, path)?;
    flash.sync_dir(parent)
}

/// The machine's file systems.
#[derive(Debug, Default)]
pub struct SystemFlash;

impl Flash for SystemFlash {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FlashFile>> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_CLOEXEC.bits());
        match how {
            Open::Read => &mut options,
            Open::ReadWrite => options.write(true),
            Open::CreateNew => options.write(true).create_new(true),
            Open::Truncate => options.write(true).create(true).truncate(true),
        };
        Ok(Box::new(SystemFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        fs::metadata(path)?.modified()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = statvfs(path)?;
        let unit = stat.fragment_size();
        Ok(Space {
            total_bytes: bytes_of(stat.blocks(), unit),
            free_bytes: bytes_of(stat.blocks_available(), unit),
        })
    }

    fn disk(&self, path: &Path) -> io::Result<DiskView> {
        let (folder, stat) = (fs::metadata(path)?, statvfs(path)?);
        let device = folder.dev();
        Ok(DiskView {
            device,
            folder: folder.ino(),
            read_only: stat.flags().contains(FsFlags::ST_RDONLY) || mounts::takes_no_writes(device),
            total_bytes: bytes_of(stat.blocks(), stat.fragment_size()),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FlashLock>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Box::new(SystemLock(lock))),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

struct SystemFile(File);

impl FlashFile for SystemFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        write_all_vectored_at(slices, offset, |slices, offset| {
            let offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
            pwritev(&self.0, slices, offset)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    #[expect(unsafe_code, reason = "nix does not know this call")]
    fn write_out(&self) -> io::Result<()> {
        // SAFETY: takes numbers only, and the file is open.
        let result = unsafe { libc::sync_file_range(self.0.as_raw_fd(), 0, 0, WRITE_AND_WAIT) };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync_file_system(&self) -> io::Result<()> {
        Ok(nix::unistd::syncfs(&self.0)?)
    }

    fn forget_cached(&self) {
        // Where it is refused the read back is from memory, as it would be without it.
        let _ = posix_fadvise(&self.0, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
        Ok(fallocate(&self.0, FallocateFlags::empty(), 0, len)?)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
        Ok(fallocate(&self.0, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, len)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

struct SystemLock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

impl FlashLock for SystemLock {}

/// The whole of `sync_file_range(2)`: waits for what is under way, begins the rest and waits for it.
const WRITE_AND_WAIT: c_uint = libc::SYNC_FILE_RANGE_WAIT_BEFORE
    | libc::SYNC_FILE_RANGE_WRITE
    | libc::SYNC_FILE_RANGE_WAIT_AFTER;

/// The kernel takes at most this many slices at a time (`UIO_MAXIOV`).
const SLICES_PER_CALL_MAX: usize = 1024;

/// Loops over short writes and over more slices than one call takes.
fn write_all_vectored_at(
    slices: &[IoSlice<'_>],
    mut offset: u64,
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> nix::Result<usize>,
) -> io::Result<()> {
    let mut rest: Vec<IoSlice<'_>> =
        slices.iter().filter(|slice| !slice.is_empty()).map(|s| IoSlice::new(s)).collect();
    let mut rest = &mut rest[..];
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(SLICES_PER_CALL_MAX)];
        match write(batch, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Bytes of so many units of a file system. Both numbers have the width that the target gives them.
fn bytes_of(units: impl Into<u128>, unit: impl Into<u128>) -> u64 {
    u64::try_from(units.into() * unit.into()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_writes_leave_no_hole() {
        let mut out = Vec::new();
        let slices = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defgh")];
        write_all_vectored_at(&slices, 10, |slices, offset| {
            assert_eq!(offset, 10 + out.len() as u64);
            let all: Vec<u8> = slices.iter().flat_map(|s| s.to_vec()).collect();
            let taken = all.len().min(2);
            out.extend_from_slice(&all[..taken]);
            Ok(taken)
        })
        .expect("written");
        assert_eq!(out, b"abcdefgh");
    }

    #[test]
    fn replaced_file_has_the_new_content_and_no_leftover() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("small");
        for content in ["one", "two and more"] {
            replace_file(&SystemFlash, &path, content.as_bytes()).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("read"), content);
        }
        assert_eq!(SystemFlash.list(dir.path()).expect("list"), [path]);
    }

    #[test]
    fn a_second_lock_is_refused() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("lock");
        fs::write(&path, "").expect("made");
        let held = SystemFlash.lock(&path).expect("free");
        let again = SystemFlash.lock(&path).map(|_| ()).expect_err("held");
        assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        SystemFlash.lock(&path).expect("free again");
    }
}
