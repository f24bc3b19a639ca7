//! Who is measured: the box, ffmpeg, GStreamer, nginx with its RTMP module, and the bare floor.

#![allow(dead_code, reason = "each bench uses its part")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::cloud_api::{ask_ok, unix_now};
use crate::support::edge_box::{binary, record_all};
use crate::support::process::{Process, Stdout};
use crate::support::tool;
use crate::support::wait::wait_until;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// The state of such a socket in the kernel's table.
const LISTENING: u16 = 10;
/// The box's ring for as many streams as the usual run has, in MiB.
const RING_MIB_MIN: usize = 1_536;
/// Room in the ring for each stream where there are more: four slots.
const RING_MIB_PER_STREAM: usize = 64;

/// The capacity of the box's ring for this many streams, in MiB.
pub fn ring_mib(streams: usize) -> usize {
    RING_MIB_MIN.max(RING_MIB_PER_STREAM * streams)
}

/// A kind of recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorder {
    /// Reads sockets, writes files.
    Floor,
    /// The box.
    Edgerec,
    /// The box with eight recordings of each stream at the same time, one of them in four formats.
    EdgerecEight,
    /// nginx-rtmp, `record all`.
    NginxRtmp,
    /// nginx-rtmp with eight `recorder` blocks.
    NginxEight,
    /// One `ffmpeg -listen 1 -c copy` a stream.
    Ffmpeg,
    /// One `gst-launch-1.0 … splitmuxsink` a stream, with a new file every 10 s: one that is not closed cannot be
    /// played. It cannot listen: it plays from an nginx-rtmp that records nothing, whose cost does not count and
    /// which holds some seconds for it, so that it seems to keep up for longer than it does.
    Gstreamer,
}

impl Recorder {
    /// All, the floor first: the others are compared to it.
    pub const ALL: [Recorder; 7] = [
        Recorder::Floor,
        Recorder::Edgerec,
        Recorder::NginxRtmp,
        Recorder::Ffmpeg,
        Recorder::Gstreamer,
        Recorder::EdgerecEight,
        Recorder::NginxEight,
    ];

    /// As printed, and as chosen by `BENCH_ONLY`.
    pub fn name(self) -> &'static str {
        match self {
            Recorder::Floor => "floor",
            Recorder::Edgerec => "edgerec",
            Recorder::EdgerecEight => "edgerec x 8",
            Recorder::NginxRtmp => "nginx-rtmp",
            Recorder::NginxEight => "nginx-rtmp x 8",
            Recorder::Ffmpeg => "ffmpeg -c copy",
            Recorder::Gstreamer => "splitmuxsink",
        }
    }

    /// Starts it: media goes below `disk`, configuration and logs below `aside`.
    pub fn start(self, streams: usize, disk: &Path, aside: &Path) -> Running {
        match self {
            Recorder::Floor => start_floor(disk, aside),
            Recorder::Edgerec => start_edgerec(streams, disk, aside, 0),
            Recorder::EdgerecEight => start_edgerec(streams, disk, aside, 7),
            Recorder::NginxRtmp => start_nginx(aside, &record_blocks(1, disk)),
            Recorder::NginxEight => start_nginx(aside, &record_blocks(8, disk)),
            Recorder::Ffmpeg => start_ffmpeg(streams, disk, aside),
            Recorder::Gstreamer => start_gstreamer(streams, disk, aside),
        }
    }
}

/// A recorder that listens.
pub struct Running {
    processes: Vec<Process>,
    /// What it needs beside it.
    _beside: Option<Process>,
    /// One for all streams, or one each.
    addresses: Vec<SocketAddr>,
}

impl Running {
    /// Where a stream is pushed.
    pub fn address(&self, stream: usize) -> SocketAddr {
        self.addresses[stream % self.addresses.len()]
    }

    /// The most bytes that wait in one of its sockets, at either end.
    pub fn waiting_bytes(&self) -> usize {
        let ours = |socket: &Socket| self.addresses.iter().any(|a| socket.ends.contains(&a.port()));
        let most = sockets().filter(ours).map(|socket| socket.waiting).max();
        most.unwrap_or_default()
    }

    /// Ids of its first processes.
    pub fn ids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    /// Ends it at once, as a power cut does.
    pub fn kill(mut self) {
        for process in &mut self.processes {
            process.kill();
        }
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
    Running {
        processes: vec![process],
        _beside: None,
        addresses: vec![address.expect("the floor is ready")],
    }
}

/// The box; with `tasks` of each stream beside the rule, and then files in all formats.
fn start_edgerec(streams: usize, disk: &Path, aside: &Path, tasks: usize) -> Running {
    let binary = binary();
    let (config, rules) = (aside.join("edgerec.toml"), aside.join("rules.json"));
    let toml = format!(
        "[ring]\npath = {:?}\ncapacity = \"{}MiB\"\ncreate = true\n[rtmp]\nlisten = \"127.0.0.1:0\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\n[rules]\nfile = {:?}\n\
         [limits]\noverlapping_tasks = 7\nrunning_tasks = 1000\nrequests_per_second = 1000\n",
        disk.join("ring"),
        ring_mib(streams),
        rules
    );
    fs::write(&config, toml).expect("the configuration can be written");
    let mut all = record_all(if tasks > 0 { &["Flv", "Hls", "Mp4", "Aac"] } else { &["Flv"] });
    all["revision"] = 1.into();
    fs::write(&rules, all.to_string()).expect("the rules can be written");
    let mut command = Command::new(&binary);
    command.arg("run").arg("--config").arg(&config);
    let log = aside.join("edgerec.log");
    let mut process = Process::start(&command, "edgerec", &log, Stdout::Piped);
    let line = first_line(&mut process);
    let address = |name: &str| -> SocketAddr {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
        word.and_then(|word| word.parse().ok()).expect("the box is ready")
    };
    let end = unix_now() + 3_600;
    for stream in (0..streams).flat_map(|stream| std::iter::repeat_n(stream, tasks)) {
        let task = json!({"DomainName": "127.0.0.1", "AppName": "live",
            "StreamName": format!("cam{stream}"), "EndTime": end});
        ask_ok(address("api="), "CreateRecordTask", &task);
    }
    Running { processes: vec![process], _beside: None, addresses: vec![address("rtmp=")] }
}

/// So many recordings of each stream, as nginx-rtmp is configured.
fn record_blocks(count: usize, disk: &Path) -> String {
    let path = disk.display();
    if count == 1 {
        return format!("record all; record_path {path};");
    }
    (0..count)
        .map(|number| {
            format!(
                "recorder r{number} {{ record all; record_path {path}; record_suffix -{number}.flv; }}\n"
            )
        })
        .collect()
}

fn start_nginx(aside: &Path, record: &str) -> Running {
    let (process, address) = nginx(aside, record);
    Running { processes: vec![process], _beside: None, addresses: vec![address] }
}

fn nginx(aside: &Path, record: &str) -> (Process, SocketAddr) {
    let address = free_addresses(1)[0];
    let module = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
    let config = aside.join("nginx.conf");
    let text = format!(
        "load_module {module};\ndaemon off;\nmaster_process off;\nuser root;\n\
         pid {aside}/nginx.pid;\nerror_log {aside}/nginx-error.log info;\n\
         events {{ worker_connections 1024; }}\n\
         rtmp {{ server {{ listen {address}; chunk_size 4096; access_log off;\n\
         application live {{ live on; {record} }} }} }}\n",
        aside = aside.display(),
    );
    fs::write(&config, text).expect("the configuration can be written");
    let mut command = Command::new(tool("nginx"));
    command.arg("-c").arg(&config).arg("-p").arg(aside);
    let process = Process::start(&command, "nginx", &aside.join("nginx.log"), Stdout::Log);
    wait_until(READY_WITHIN, "nginx listens", || is_listening(address));
    (process, address)
}

fn start_gstreamer(streams: usize, disk: &Path, aside: &Path) -> Running {
    let (relay, address) = nginx(aside, "");
    let processes: Vec<Process> = (0..streams)
        .map(|stream| {
            let mut command = Command::new(tool("gst-launch-1.0"));
            command.args(["-q", "rtmp2src"]);
            command.arg(format!("location=rtmp://{address}/live/cam{stream}"));
            command.args(["!", "flvdemux", "name=d", "splitmuxsink", "name=m"]);
            command.arg("max-size-time=10000000000");
            command.arg(format!("location={}/cam{stream}-%05d.mp4", disk.display()));
            command.args(["d.video", "!", "queue", "!", "h264parse", "!", "m.video"]);
            command.args(["d.audio", "!", "queue", "!", "aacparse", "!", "m.audio_0"]);
            let log = aside.join(format!("gst-{stream}.log"));
            Process::start(&command, "gst-launch", &log, Stdout::Log)
        })
        .collect();
    // One that comes when its stream runs already does not always begin.
    wait_until(READY_WITHIN, "GStreamer plays", || {
        let log = fs::read_to_string(aside.join("nginx-error.log")).expect("nginx logs");
        log.matches(" play: name=").count() == streams
    });
    Running { processes, _beside: Some(relay), addresses: vec![address] }
}

fn start_ffmpeg(streams: usize, disk: &Path, aside: &Path) -> Running {
    let addresses = free_addresses(streams);
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
    Running { processes, _beside: None, addresses }
}

fn first_line(process: &mut Process) -> String {
    let stdout = process.child().stdout.take().expect("stdout is piped");
    let mut lines = BufReader::new(stdout);
    let mut line = String::new();
    lines.read_line(&mut line).expect("the recorder says that it is ready");
    line
}

/// Ports that nobody listens on now.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    // All at the same time, or one would be found twice.
    let listeners: Vec<TcpListener> = (0..count).map(bind).collect();
    let address = |of: &TcpListener| of.local_addr().expect("a bound port is known");
    listeners.iter().map(address).collect()
}

/// Looks in the kernel's table: a try to connect would be taken for the one publisher.
fn is_listening(address: SocketAddr) -> bool {
    sockets().any(|socket| socket.ends[0] == address.port() && socket.state == LISTENING)
}

/// A line of the kernel's table of sockets.
struct Socket {
    /// Its port, and that of the other end.
    ends: [u16; 2],
    state: u16,
    /// Bytes that wait to be taken by the other end or to be read.
    waiting: usize,
}

fn sockets() -> impl Iterator<Item = Socket> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel lists its sockets");
    let sockets: Vec<Socket> = table.lines().skip(1).filter_map(socket).collect();
    sockets.into_iter()
}

fn socket(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |at: usize| u16::from_str_radix(fields.get(at)?.split_once(':')?.1, 16).ok();
    let (unsent, unread) = fields.get(4)?.split_once(':')?;
    let bytes = |text| usize::from_str_radix(text, 16).ok();
    Some(Socket {
        ends: [port(1)?, port(2)?],
        state: u16::from_str_radix(fields.get(3)?, 16).ok()?,
        waiting: bytes(unsent)? + bytes(unread)?,
    })
}
