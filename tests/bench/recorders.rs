//! Who is measured: the box, ffmpeg, nginx with its RTMP module, and the bare floor.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::edge_box::binary;
use crate::support::process::{Process, Stdout};
use crate::support::tool;
use crate::support::wait::wait_until;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A kind of recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorder {
    /// Reads sockets, writes files.
    Floor,
    /// The box.
    Edgerec,
    /// nginx-rtmp, `record all`.
    NginxRtmp,
    /// One `ffmpeg -listen 1 -c copy` a stream.
    Ffmpeg,
}

impl Recorder {
    /// All, the floor first: the others are compared to it.
    pub const ALL: [Recorder; 4] =
        [Recorder::Floor, Recorder::Edgerec, Recorder::NginxRtmp, Recorder::Ffmpeg];

    /// As printed, and as chosen by `BENCH_ONLY`.
    pub fn name(self) -> &'static str {
        match self {
            Recorder::Floor => "floor",
            Recorder::Edgerec => "edgerec",
            Recorder::NginxRtmp => "nginx-rtmp",
            Recorder::Ffmpeg => "ffmpeg -c copy",
        }
    }

    /// Starts it: media goes below `disk`, configuration and logs below `aside`.
    pub fn start(self, streams: usize, disk: &Path, aside: &Path) -> Running {
        match self {
            Recorder::Floor => start_floor(disk, aside),
            Recorder::Edgerec => start_edgerec(disk, aside),
            Recorder::NginxRtmp => start_nginx(disk, aside),
            Recorder::Ffmpeg => start_ffmpeg(streams, disk, aside),
        }
    }
}

/// A recorder that listens.
pub struct Running {
    processes: Vec<Process>,
    /// One for all streams, or one each.
    addresses: Vec<SocketAddr>,
}

impl Running {
    /// Where a stream is pushed.
    pub fn address(&self, stream: usize) -> SocketAddr {
        self.addresses[stream % self.addresses.len()]
    }

    /// Ids of its first processes.
    pub fn ids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    /// Asks it to end and waits.
    pub fn stop(mut self) {
        for process in &mut self.processes {
            process.terminate(Duration::from_secs(20));
        }
    }
}

fn start_floor(disk: &Path, aside: &Path) -> Running {
    let mut command = Command::new(std::env::current_exe().expect("we know our own file"));
    command.arg("floor").arg(disk);
    let mut process = Process::start(&command, "floor", &aside.join("floor.log"), Stdout::Piped);
    let line = first_line(&mut process);
    let address = line.strip_prefix("ready ").and_then(|text| text.trim().parse().ok());
    Running { processes: vec![process], addresses: vec![address.expect("the floor is ready")] }
}

fn start_edgerec(disk: &Path, aside: &Path) -> Running {
    let binary = binary();
    let (config, rules) = (aside.join("edgerec.toml"), aside.join("rules.json"));
    let toml = format!(
        "[ring]\npath = {:?}\ncapacity = \"1536MiB\"\ncreate = true\n[rtmp]\nlisten = \"127.0.0.1:0\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\n[rules]\nfile = {:?}\n",
        disk.join("ring"),
        rules
    );
    fs::write(&config, toml).expect("the configuration can be written");
    let all = serde_json::json!({
        "revision": 1,
        "templates": [{"TemplateName": "all", "FlvParam": {"Enable": 1}}],
        "rules": [{"DomainName": "", "AppName": "live", "StreamName": "", "TemplateName": "all"}],
    });
    fs::write(&rules, all.to_string()).expect("the rules can be written");
    let mut command = Command::new(&binary);
    command.arg("run").arg("--config").arg(&config);
    let log = aside.join("edgerec.log");
    let mut process = Process::start(&command, "edgerec", &log, Stdout::Piped);
    let line = first_line(&mut process);
    let rtmp = line.split_whitespace().find_map(|word| word.strip_prefix("rtmp=")?.parse().ok());
    Running { processes: vec![process], addresses: vec![rtmp.expect("the box is ready")] }
}

fn start_nginx(disk: &Path, aside: &Path) -> Running {
    let address = free_address();
    let module = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
    let config = aside.join("nginx.conf");
    let text = format!(
        "load_module {module};\ndaemon off;\nworker_processes 1;\nuser root;\n\
         pid {aside}/nginx.pid;\nerror_log {aside}/nginx-error.log;\n\
         events {{ worker_connections 256; }}\n\
         rtmp {{ server {{ listen {address}; chunk_size 4096; access_log off;\n\
         application live {{ live on; record all; record_path {disk}; }} }} }}\n",
        aside = aside.display(),
        disk = disk.display()
    );
    fs::write(&config, text).expect("the configuration can be written");
    let mut command = Command::new(tool("nginx"));
    command.arg("-c").arg(&config).arg("-p").arg(aside);
    let process = Process::start(&command, "nginx", &aside.join("nginx.log"), Stdout::Log);
    wait_until(READY_WITHIN, "nginx listens", || is_listening(address));
    Running { processes: vec![process], addresses: vec![address] }
}

fn start_ffmpeg(streams: usize, disk: &Path, aside: &Path) -> Running {
    let addresses: Vec<SocketAddr> = (0..streams).map(|_| free_address()).collect();
    let processes = addresses
        .iter()
        .enumerate()
        .map(|(stream, address)| {
            let mut command = Command::new(tool("ffmpeg"));
            command.args(["-v", "warning", "-nostdin", "-listen", "1", "-i"]);
            command.arg(format!("rtmp://{address}/live/cam{stream}")).args(["-c", "copy"]);
            command.args(["-f", "flv"]).arg(disk.join(format!("cam{stream}.flv")));
            let log = aside.join(format!("ffmpeg-{stream}.log"));
            Process::start(&command, "ffmpeg", &log, Stdout::Log)
        })
        .collect();
    wait_until(READY_WITHIN, "ffmpeg listens", || addresses.iter().all(|a| is_listening(*a)));
    Running { processes, addresses }
}

fn first_line(process: &mut Process) -> String {
    let stdout = process.child().stdout.take().expect("stdout is piped");
    let mut lines = BufReader::new(stdout);
    let mut line = String::new();
    lines.read_line(&mut line).expect("the recorder says that it is ready");
    line
}

/// A port that nobody listens on now.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    listener.local_addr().expect("a bound port is known")
}

/// Looks in the kernel's table: a try to connect would be taken for the one publisher.
fn is_listening(address: SocketAddr) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel lists its sockets");
    let local = format!("0100007F:{:04X}", address.port());
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&"0A")
    })
}
