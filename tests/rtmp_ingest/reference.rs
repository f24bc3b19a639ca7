//! Files to send and their packets, made and read by ffmpeg.

use std::path::Path;
use std::process::Command;

use md5::{Digest, Md5};

use crate::support::ffmpeg::Ffmpeg;

/// One packet: what must be the same at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// 1 video, 2 audio (0 anything else).
    pub track: u8,
    pub dts: i64,
    pub pts: i64,
    pub key: bool,
    pub bytes: usize,
    pub md5: String,
}

impl Packet {
    pub fn new(track: u8, dts: i64, pts: i64, key: bool, data: &[u8]) -> Packet {
        let md5 = Md5::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
        Packet { track, dts, pts, key, bytes: data.len(), md5 }
    }
}

/// Runs a shell script to its end; what it printed. It has a minute.
fn shell(script: &str) -> String {
    let output =
        Command::new("timeout").args(["60", "sh", "-c", script]).output().expect("a shell");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}: {complaint}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a shell script without blocking the listener.
pub async fn run(script: &str) -> String {
    let script = script.to_owned();
    tokio::task::spawn_blocking(move || shell(&script)).await.expect("the script runs")
}

/// Makes a file.
pub async fn make(ffmpeg: Ffmpeg, args: &str, file: &Path) {
    let args = args.to_owned();
    let file = file.display().to_string();
    let script = move || shell(&format!("{} -v error {args} {file}", ffmpeg.program().display()));
    tokio::task::spawn_blocking(script).await.expect("the ffmpeg runs");
}

/// Pushes a file as fast as it goes.
pub async fn push(ffmpeg: Ffmpeg, file: &Path, url: &str) {
    let script = format!("-v error -copyts -i {} -c copy -map 0 -f flv {url}", file.display());
    let script = move || shell(&format!("{} {script}", ffmpeg.program().display()));
    tokio::task::spawn_blocking(script).await.expect("the ffmpeg runs");
}

/// The packets of an FLV file.
pub async fn packets(ffmpeg: Ffmpeg, file: &Path) -> Vec<Packet> {
    let file = file.display().to_string();
    let script = move || {
        let ffmpeg = ffmpeg.program();
        let read = |filter: &str| {
            shell(&format!(
                "{} -v error -copyts -i {file} -map 0 -c copy {filter} -f framehash -hash md5 -",
                ffmpeg.display()
            ))
        };
        let mut packets = parse_hashes(&read(""));
        // The list has no key flags: a second one without the other video packets tells.
        let keys = parse_hashes(&read("-bsf:v noise=drop='not(key)'"));
        for packet in packets.iter_mut().filter(|packet| packet.track == 1) {
            packet.key = keys.iter().any(|key| key.track == 1 && key.md5 == packet.md5);
        }
        packets
    };
    tokio::task::spawn_blocking(script).await.expect("ffmpeg reads it")
}

fn parse_hashes(hashes: &str) -> Vec<Packet> {
    let kinds: Vec<u8> = hashes
        .lines()
        .filter(|line| line.starts_with("#media_type "))
        .map(|line| match line.rsplit(' ').next() {
            Some("video") => 1,
            Some("audio") => 2,
            // Script data that comes again is a stream of its own to ffmpeg.
            _ => 0,
        })
        .collect();
    let lines = hashes.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| parse_line(line, &kinds)).filter(|packet| packet.track > 0).collect()
}

fn parse_line(line: &str, kinds: &[u8]) -> Packet {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [stream, dts, pts, _, bytes, md5, ..] = fields[..] else { panic!("{line}") };
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let track = kinds[number(stream) as usize];
    Packet {
        track,
        dts: number(dts),
        pts: number(pts),
        key: true,
        bytes: number(bytes) as usize,
        md5: md5.to_owned(),
    }
}
