//! Unix sockets by path: made for their owner alone, and reached whatever the length of the path.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket address holds 107 bytes of path; longer ones go by way of their open folder.
const PLAIN_PATH_BYTES_MAX: usize = 100;

/// Listens at `path`, mode 0600. What stands there is replaced: the caller knows that nobody
/// serves it any more. On a full disk its place is the one that is left.
///
/// # Errors
/// Whatever the file system says.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_extension("sock.new");
    remove_if_there(&fresh)?;
    let reached = Reached::by(&fresh)?;
    let listener = match UnixListener::bind(&reached.path) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            remove_if_there(path)?;
            UnixListener::bind(&reached.path)?
        }
        bound => bound?,
    };
    // Nobody can connect under the real name before the mode is right.
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Connects to `path`.
///
/// # Errors
/// Nobody listens, or whatever the file system says.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(&Reached::by(path)?.path)
}

/// Removes a socket that is no longer served.
///
/// # Errors
/// Whatever the file system says, but that it was not there.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A path that fits into a socket address.
struct Reached {
    path: PathBuf,
    _folder: Option<File>,
}

impl Reached {
    fn by(path: &Path) -> io::Result<Reached> {
        if path.as_os_str().len() <= PLAIN_PATH_BYTES_MAX {
            return Ok(Reached { path: path.to_owned(), _folder: None });
        }
        let name = path.file_name().unwrap_or_default();
        let folder = File::open(path.parent().unwrap_or_else(|| Path::new(".")))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Reached { path, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn talks(path: &Path) {
        let listener = listen(path).expect("listens");
        let mut client = connect(path).expect("connects");
        let (mut server, _) = listener.accept().expect("accepted");
        client.write_all(b"x").expect("sent");
        let mut got = [0; 1];
        server.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"x");
        let mode = fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_only_the_owner_may_connect() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("edgerec.sock");
        talks(&path);
        let stale = connect(&path).expect_err("nobody listens");
        assert_eq!(stale.kind(), io::ErrorKind::ConnectionRefused);
        talks(&path);
    }

    #[test]
    fn a_path_too_long_for_an_address_works() {
        let dir = tempfile::tempdir().expect("scratch");
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).expect("made");
        talks(&deep.join("edgerec.sock"));
    }
}
