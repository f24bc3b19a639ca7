//! What the sandbox leaves to the box: its ring, the folder it delivers to, and what it reads of
//! the system, all by the configuration.
//!
//! A path in the sandbox is what lies there when it is entered. A ring whose disk was taken out and
//! put back is another one: the box has ended by then (its writer could not go on) and is started
//! anew. A folder that is delivered to is on a disk that comes and goes: what is below a mount is held
//! to the folder that was mounted on, so the folders above it are open too, but for the root.

use std::path::{Path, PathBuf};

use crate::config::{Config, Target, folder_of};
use crate::platform::sandbox::Confinement;

/// What libraries read: names of hosts and how to find them, the clock's zone, the kernel's files,
/// random numbers.
const READS: [&str; 11] = [
    "/proc",
    "/sys",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/etc/hosts",
    "/etc/services",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/localtime",
    "/usr/share/zoneinfo",
];
/// Who the name servers are.
const NAME_SERVERS: &str = "/etc/resolv.conf";
/// Where a C library that is not in the program has the rest of itself.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"];

/// The sandbox of a box with this configuration.
#[must_use]
pub fn of(config: &Config) -> Confinement {
    let mut reads: Vec<PathBuf> = READS.iter().map(PathBuf::from).collect();
    if cfg!(not(target_env = "musl")) {
        reads.extend(LIBRARIES.iter().map(PathBuf::from));
    }
    reads.extend(name_servers(Path::new(NAME_SERVERS)));
    // The file of rules is replaced too.
    reads.extend(config.rules.file.as_ref().map(|file| folder_of(&file.path)));

    let ring = &config.ring;
    let made_here = ring.create && !ring.path.exists();
    let mut writes = if made_here { above(&ring.path) } else { vec![ring.path.clone()] };
    if let Some(Target::Directory { path }) = config.upload.as_ref().map(|upload| &upload.target) {
        let folders = path.ancestors().filter(|folder| folder.parent().is_some());
        writes.extend(folders.map(Path::to_owned));
    }
    if let Some(led) = config.hardware.as_ref().and_then(|board| board.status_led.as_ref()) {
        writes.push(led.clone());
    }
    let listens = [config.rtmp.listen, config.api.listen];
    let listens = listens.into_iter().flatten().map(|addr| addr.port()).collect();
    Confinement { reads, writes, listens }
}

/// The folder of the list of name servers, which is replaced as networks come and go; where it is a
/// link to what is not there yet, the nearest folder that is.
fn name_servers(list: &Path) -> Vec<PathBuf> {
    let to = list.read_link().map_or_else(|_| list.to_owned(), |to| folder_of(list).join(to));
    above(&to)
}

/// The nearest folder above that is there.
fn above(path: &Path) -> Vec<PathBuf> {
    path.ancestors()
        .skip(1)
        .find(|folder| folder.exists())
        .map(Path::to_owned)
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::flash::SystemFlash;

    fn confinement(text: &str) -> Confinement {
        of(&Config::parse(text, Path::new("/etc/edgerec"), &SystemFlash).expect("parses"))
    }

    #[test]
    fn a_box_gets_its_ring_its_ports_and_the_folder_of_its_rules() {
        let given = confinement(
            "[ring]\npath = \"/data/edgerec\"\ncapacity = \"1GiB\"\n\
             [rtmp]\nlisten = \"0.0.0.0:1935\"\n[api]\nlisten = \"127.0.0.1:8080\"\n",
        );
        assert_eq!(given.writes, [Path::new("/data/edgerec")]);
        assert_eq!(given.listens, [1_935, 8_080]);
        assert!(given.reads.contains(&PathBuf::from("/etc/edgerec")), "{given:?}");
    }

    #[test]
    fn name_servers_may_be_known_later() {
        let dir = tempfile::tempdir().expect("scratch");
        let (etc, run) = (dir.path().join("etc"), dir.path().join("run"));
        std::fs::create_dir(&etc).expect("made");
        std::fs::create_dir(&run).expect("made");
        let list = etc.join("resolv.conf");
        std::os::unix::fs::symlink("../run/network/resolv.conf", &list).expect("linked");
        assert_eq!(name_servers(&list)[0].canonicalize().expect("there"), run);
        std::fs::remove_file(&list).expect("removed");
        std::fs::write(&list, "").expect("written");
        assert_eq!(name_servers(&list), [etc]);
    }

    #[test]
    fn a_disk_may_be_put_back_but_never_is_the_root_open() {
        let ring = "[ring]\npath = \"/data/edgerec\"\ncapacity = \"1GiB\"\n";
        let to = |path: &str| {
            let upload = format!("[upload]\ntarget = \"directory\"\npath = \"{path}\"\n");
            confinement(&format!("{ring}{upload}")).writes
        };
        assert_eq!(to("/media/usb")[1..], [PathBuf::from("/media/usb"), PathBuf::from("/media")]);
        let below = ["/media/usb/rec", "/media/usb", "/media"].map(PathBuf::from);
        assert_eq!(to("/media/usb/rec")[1..], below);
        assert_eq!(to("/usb")[1..], [PathBuf::from("/usb")]);
    }
}
