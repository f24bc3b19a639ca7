//! What a media file holds, packet by packet, as ffprobe sees it: the reference of every proof
//! that media came through unchanged.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::process::run;
use super::tool;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Data, subtitles.
    Other,
}

/// One packet of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Index of its stream in the file.
    pub stream: u64,
    /// What the stream carries.
    pub kind: Kind,
    /// Decoding time in ticks of the time base; none if the container has none.
    pub dts: Option<i64>,
    /// Presentation time in ticks of the time base; none if the container has none.
    pub pts: Option<i64>,
    /// Ticks per second of the stream's time base.
    pub ticks_per_s: i64,
    /// Whether decoding can start here.
    pub key: bool,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, in hex. FLV and MP4 hold the same bytes for the same sample; TS holds
    /// H.264 in another form.
    pub hash: String,
}

impl Packet {
    /// Decoding time in milliseconds, cut down.
    pub fn dts_ms(&self) -> Option<i64> {
        Some(self.dts? * 1_000 / self.ticks_per_s)
    }
}

/// One stream of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// What it carries.
    pub kind: Kind,
    /// ffmpeg's name of the codec.
    pub codec: String,
    /// SHA-256 of the codec configuration, in hex; empty if there is none.
    pub config_hash: String,
    /// Ticks per second of its time base.
    pub ticks_per_s: i64,
    /// Width of its picture, in pixels; 0 without one.
    pub width: u64,
}

/// All packets of a file in file order; fails the test when ffprobe finds a fault.
#[track_caller]
pub fn packets(path: &Path) -> Vec<Packet> {
    try_packets(path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

/// All packets of a file in file order.
///
/// # Errors
/// ffprobe cannot open the file or complains about it; its words.
pub fn try_packets(path: &Path) -> Result<Vec<Packet>, String> {
    let report = probe(path, &["-show_packets", "-show_streams"])?;
    let ticks: Vec<i64> = rows(&report, "streams").iter().map(ticks_per_s).collect();
    rows(&report, "packets").iter().map(|row| packet(row, &ticks)).collect()
}

/// The packets that ffprobe can read of a file, whatever it says of the rest.
pub fn readable_packets(path: &Path) -> Vec<Packet> {
    let output = run(&prober(path, &["-show_packets", "-show_streams"]));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let ticks: Vec<i64> = rows(&report, "streams").iter().map(ticks_per_s).collect();
    rows(&report, "packets").iter().filter_map(|row| packet(row, &ticks).ok()).collect()
}

/// The streams of a file; fails the test when ffprobe finds a fault.
#[track_caller]
pub fn streams(path: &Path) -> Vec<Stream> {
    let report = probe(path, &["-show_streams"])
        .unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
    rows(&report, "streams")
        .iter()
        .map(|row| Stream {
            kind: kind(row),
            codec: text(row, "codec_name"),
            config_hash: hash(row, "extradata_hash"),
            ticks_per_s: ticks_per_s(row),
            width: row["width"].as_u64().unwrap_or(0),
        })
        .collect()
}

/// The packets of one kind.
pub fn of_kind(packets: &[Packet], kind: Kind) -> Vec<Packet> {
    packets.iter().filter(|packet| packet.kind == kind).cloned().collect()
}

/// Fails the test unless pictures and sound of `kept` are, packet for packet and with the same
/// times, one stretch of what was `sent`. Both in the same time base, as FLV to FLV.
#[track_caller]
pub fn assert_stretch_of(kept: &[Packet], sent: &[Packet], name: &str) {
    for kind in [Kind::Video, Kind::Audio] {
        let of = |packets: &[Packet]| -> Vec<(Option<i64>, Option<i64>, String)> {
            let of_kind = packets.iter().filter(|packet| packet.kind == kind);
            of_kind.map(|packet| (packet.dts, packet.pts, packet.hash.clone())).collect()
        };
        let (kept, sent) = (of(kept), of(sent));
        let first = sent.iter().position(|packet| Some(packet) == kept.first());
        let first = first.unwrap_or_else(|| panic!("{name}: no first {kind:?} packet as sent"));
        if let Some(at) = kept.iter().zip(&sent[first..]).position(|(kept, sent)| kept != sent) {
            panic!(
                "{name}: {kind:?} packet {at} of {} is {:?}, sent was {:?}",
                kept.len(),
                kept[at],
                sent[first + at]
            );
        }
        assert!(kept.len() <= sent.len() - first, "{name}: more {kind:?} packets than sent");
    }
}

/// Where the pictures end, in milliseconds: the last one with the length of a frame.
#[track_caller]
pub fn video_end_ms(packets: &[Packet], frame_ms: i64) -> i64 {
    let last = packets.iter().rfind(|packet| packet.kind == Kind::Video);
    last.and_then(Packet::dts_ms).expect("there are pictures with times") + frame_ms
}

fn prober(path: &Path, what: &[&str]) -> Command {
    let mut command = Command::new(tool("ffprobe"));
    command.args(["-v", "error", "-show_data_hash", "sha256", "-of", "json"]).args(what).arg(path);
    command
}

fn probe(path: &Path, what: &[&str]) -> Result<Value, String> {
    let output = run(&prober(path, what));
    let complaints = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !complaints.trim().is_empty() {
        return Err(format!("ffprobe: {} {complaints}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|fault| format!("ffprobe's JSON: {fault}"))
}

fn rows<'a>(report: &'a Value, name: &str) -> &'a [Value] {
    report[name].as_array().map_or(&[], Vec::as_slice)
}

fn packet(row: &Value, ticks: &[i64]) -> Result<Packet, String> {
    let stream = row["stream_index"].as_u64().ok_or("a packet without a stream")?;
    let at = usize::try_from(stream).map_err(|fault| fault.to_string())?;
    Ok(Packet {
        stream,
        kind: kind(row),
        dts: row["dts"].as_i64(),
        pts: row["pts"].as_i64(),
        ticks_per_s: *ticks.get(at).ok_or("a packet of an unknown stream")?,
        key: text(row, "flags").starts_with('K'),
        size: text(row, "size").parse().map_err(|_| "a packet without a size")?,
        hash: hash(row, "data_hash"),
    })
}

fn kind(row: &Value) -> Kind {
    match row["codec_type"].as_str() {
        Some("video") => Kind::Video,
        Some("audio") => Kind::Audio,
        _ => Kind::Other,
    }
}

fn ticks_per_s(row: &Value) -> i64 {
    let base = text(row, "time_base");
    base.strip_prefix("1/").and_then(|ticks| ticks.parse().ok()).unwrap_or(1)
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

fn hash(row: &Value, name: &str) -> String {
    text(row, name).rsplit(':').next().unwrap_or_default().to_owned()
}
