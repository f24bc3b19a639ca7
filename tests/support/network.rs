//! Two networks with a cable between them: the test and its broker on one side, the box on the other.
//! The cable can be pulled, and the far end can fall silent without a word.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::process::{Process, Stdout, run_ok};
use super::tool;
use super::wait::wait_until;

/// Our end and that of the box.
const OURS: &str = "10.99.0.1";
const THEIRS: &str = "10.99.0.2";

/// The cable. Its networks go with the processes that are in them.
pub struct Cable {
    /// Keeps the network of the box.
    keeper: Process,
}

impl Cable {
    /// Puts the calling thread, and what it starts, into a network of its own with a cable to
    /// another one. Fails the test when it does not run as root.
    #[track_caller]
    pub fn new(dir: &Path) -> Cable {
        if let Err(fault) = unshare(CloneFlags::CLONE_NEWNET) {
            panic!("this test makes networks and must run as root: {fault}");
        }
        let mut command = Command::new(tool("unshare"));
        command.args(["--net", "sleep", "infinity"]);
        let keeper = Process::start(&command, "sleep", &dir.join("keeper.log"), Stdout::Log);
        let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let (ours, pid) = (network("thread-self"), keeper.id().to_string());
        wait_until(Duration::from_secs(10), "the other network is there", || {
            network(&pid).is_some() && network(&pid) != ours
        });
        let cable = Cable { keeper };
        ip("link set lo up");
        ip("link add ours type veth peer name theirs");
        ip(&format!("link set theirs netns {pid}"));
        ip(&format!("addr add {OURS}/24 dev ours"));
        cable.plug();
        cable.in_their_network("link set lo up");
        cable.in_their_network(&format!("addr add {THEIRS}/24 dev theirs"));
        cable.in_their_network("link set theirs up");
        cable
    }

    /// The address of our end, as the box reaches it.
    pub fn address(&self) -> &'static str {
        OURS
    }

    /// A program that runs another one in the network of the box.
    pub fn wrap(&self, program: &Path, dir: &Path) -> PathBuf {
        let script = dir.join("in-their-network");
        let (nsenter, pid) = (tool("nsenter"), self.keeper.id());
        let text = format!(
            "#!/bin/sh\nexec {} --net=/proc/{pid}/ns/net {} \"$@\"\n",
            nsenter.display(),
            program.display()
        );
        std::fs::write(&script, text).expect("written");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, executable).expect("may be run");
        script
    }

    /// Pulls the cable.
    pub fn unplug(&self) {
        ip("link set ours down");
    }

    /// Plugs it in again.
    pub fn plug(&self) {
        ip("link set ours up");
    }

    /// What comes to our end is dropped without an answer.
    pub fn fall_silent(&self) {
        ip(&format!("addr del {OURS}/24 dev ours"));
    }

    /// It is answered again.
    pub fn answer_again(&self) {
        ip(&format!("addr add {OURS}/24 dev ours"));
    }

    fn in_their_network(&self, arguments: &str) {
        let mut command = Command::new(tool("nsenter"));
        command.arg(format!("--net=/proc/{}/ns/net", self.keeper.id())).arg(tool("ip"));
        run_ok(command.args(arguments.split(' ')));
    }
}

fn ip(arguments: &str) {
    run_ok(Command::new(tool("ip")).args(arguments.split(' ')));
}
