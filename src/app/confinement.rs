//! What the sandbox leaves to the box: its ring, the folder it delivers to, and what it reads of
//! the system, all by the configuration.
//!
//! A path in the sandbox is what lies there when it is entered. A ring whose disk was taken out and
//! put back is another one: the box has ended by then (its writer could not go on) and is started
//! anew. A folder that is delivered to is on a disk that comes and goes, so the folder above it is
//! open too, unless that is the root.

use std::path::{Path, PathBuf};

use crate::config::{Config, Target};
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
    // It is replaced as networks come and go, so what counts is its folder.
    if let Ok(servers) = Path::new(NAME_SERVERS).canonicalize() {
        reads.extend(servers.parent().map(Path::to_owned));
    }
    // The file of rules is replaced too.
    let rules = config.rules.file.as_ref().and_then(|file| folder_of(&file.path));
    reads.extend(rules);

    let ring = &config.ring;
    let made_here = ring.create && !ring.path.exists();
    let mut writes = if made_here { above(&ring.path) } else { vec![ring.path.clone()] };
    if let Some(Target::Directory { path }) = config.upload.as_ref().map(|upload| &upload.target) {
        writes.push(path.clone());
        writes.extend(path.parent().filter(|above| above.parent().is_some()).map(Path::to_owned));
    }
    if let Some(led) = config.hardware.as_ref().and_then(|board| board.status_led.as_ref()) {
        writes.push(led.clone());
    }
    let listens = [config.rtmp.listen, config.api.listen];
    let listens = listens.into_iter().flatten().map(|addr| addr.port()).collect();
    Confinement { reads, writes, listens }
}

/// The folder that a file is in.
fn folder_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
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
    fn a_disk_may_be_put_back_but_never_is_the_root_open() {
        let ring = "[ring]\npath = \"/data/edgerec\"\ncapacity = \"1GiB\"\n";
        let to = |path: &str| {
            let upload = format!("[upload]\ntarget = \"directory\"\npath = \"{path}\"\n");
            confinement(&format!("{ring}{upload}")).writes
        };
        assert_eq!(to("/media/usb")[1..], [PathBuf::from("/media/usb"), PathBuf::from("/media")]);
        assert_eq!(to("/usb")[1..], [PathBuf::from("/usb")]);
    }
}
