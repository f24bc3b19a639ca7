//! A guest: Debian's kernel in an emulated x86-64 machine with a shell, for file systems that this
//! machine's own kernel need not have. Its one disk is whatever the test gives it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, Command};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::edge_box::binary;
use super::process::{Process, run_ok};
use super::{tool, work_dir};

/// Emulation on a busy machine.
const BOOT_WITHIN: Duration = Duration::from_secs(300);
const COMMAND_WITHIN: Duration = Duration::from_secs(120);
const IS_THERE: &str = "the shell is there";
const ENDED: &str = "ended with ";

/// A running guest. Dropping it takes its power away.
pub struct Guest {
    process: Process,
    keyboard: ChildStdin,
    console: Receiver<String>,
}

impl Guest {
    /// Boots a guest whose disk `/dev/vda` is this file, which others may write to meanwhile. The
    /// folder `share` is `/share` there; `edgerec` is on its path. `ports` are pairs of an address
    /// here and a port there.
    #[track_caller]
    pub fn boot(share: &Path, disk: &Path, ports: &[(SocketAddr, u16)]) -> Guest {
        let system = work_dir().join("guest");
        let maker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/guest/system");
        run_ok(Command::new(maker).arg(&system));
        put_binary(share);
        let forwards: String =
            ports.iter().map(|(here, there)| format!(",hostfwd=tcp:{here}-:{there}")).collect();
        let mut command = Command::new(tool("qemu-system-x86_64"));
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
        command.args(["-nodefaults", "-display", "none", "-serial", "stdio"]);
        command.arg("-kernel").arg(system.join("kernel"));
        command.arg("-initrd").arg(system.join("initrd"));
        command.args(["-append", "console=ttyS0 net.ifnames=0 quiet"]);
        command
            .arg("-blockdev")
            .arg(format!("driver=file,node-name=disk,locking=off,filename={}", disk.display()));
        command.args(["-device", "virtio-blk-pci,drive=disk"]);
        command
            .arg("-virtfs")
            .arg(format!("local,path={},mount_tag=share,security_model=none", share.display()));
        command.arg("-netdev").arg(format!("user,id=net{forwards}"));
        command.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        let mut process = Process::converse(&command, "qemu", &share.join("qemu.log"));
        let keyboard = process.child().stdin.take().expect("stdin is piped");
        let stdout = process.child().stdout.take().expect("stdout is piped");
        let (said, console) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                // After the test nobody listens.
                let _ = said.send(line);
            }
        });
        let mut guest = Guest { process, keyboard, console };
        guest.lines_to(BOOT_WITHIN, |line| line == IS_THERE);
        guest
    }

    /// What a command says; fails the test unless it succeeds.
    #[track_caller]
    pub fn does(&mut self, command: &str) -> String {
        match self.tries(command) {
            (0, said) => said,
            (status, said) => panic!("`{command}` ends with {status} in the guest: {said}"),
        }
    }

    /// The status of a command, and what it says.
    #[track_caller]
    pub fn tries(&mut self, command: &str) -> (i32, String) {
        let line =
            format!("{{ {command}\n}} 2>&1 </dev/null; status=$?; echo; echo {ENDED}$status\n");
        self.keyboard.write_all(line.as_bytes()).expect("the guest listens");
        let mut lines = self.lines_to(COMMAND_WITHIN, |line| line.starts_with(ENDED));
        let last = lines.pop().expect("the last was looked for");
        let status = last[ENDED.len()..].parse().expect("a status");
        (status, lines.join("\n").trim().to_owned())
    }

    /// Takes its power away.
    pub fn cut(mut self) {
        self.process.kill();
    }

    /// What it says up to a line.
    #[track_caller]
    fn lines_to(&mut self, within: Duration, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let deadline = Instant::now() + within;
        let mut lines = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.console.recv_timeout(left) else {
                panic!("the guest says nothing more:\n{}", lines.join("\n"));
            };
            lines.push(line);
            if lines.last().is_some_and(|line| is_last(line)) {
                return lines;
            }
        }
    }
}

/// Puts the binary under test and the libraries that it is linked to into the share.
fn put_binary(share: &Path) {
    let libraries = share.join("lib");
    if libraries.exists() {
        return;
    }
    fs::create_dir(&libraries).expect("a folder can be made");
    let stripped = share.join("edgerec");
    run_ok(Command::new(tool("strip")).arg("-o").arg(&stripped).arg(binary()));
    let needed = run_ok(Command::new(tool("ldd")).arg(binary()));
    for path in String::from_utf8_lossy(&needed).split_whitespace().filter(|w| w.starts_with('/')) {
        let name = Path::new(path).file_name().expect("a library has a name");
        fs::copy(path, libraries.join(name)).expect("a library can be copied");
    }
}
