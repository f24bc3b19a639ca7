//! What a media file holds in a form that no container changes: access units as NAL units without
//! parameter sets and delimiters (which a container may move), AAC frames without ADTS headers,
//! G.711 octets; each with its own time. Read by ffmpeg, not by us.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

use super::ffmpeg::Ffmpeg;
use super::process::run;
use super::scratch;

/// Codecs of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Video {
    H264,
    H265,
}

/// Codecs of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audio {
    Aac,
    G711,
}

/// One access unit or audio frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Unit {
    /// Decoding time in ticks of the track.
    pub dts: i64,
    /// Presentation time in ticks of the track.
    pub pts: i64,
    /// Whether decoding can start here.
    pub key: bool,
    /// Its bytes in normal form: each NAL unit behind a length of 4 bytes.
    pub data: Vec<u8>,
    /// Its place among all packets of the file.
    pub place: usize,
}

impl Unit {
    /// SHA-256 of the bytes, in hex.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(&self.data))
    }

    /// The same unit at another time.
    pub fn at(&self, dts: i64, pts: i64) -> Unit {
        Unit { dts, pts, ..self.clone() }
    }

    /// What must be the same at both ends.
    fn essence(&self) -> (i64, i64, bool, &[u8]) {
        (self.dts, self.pts, self.key, &self.data)
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key { " key" } else { "" };
        let sum = &self.sha256()[..12];
        write!(f, "[dts {} pts {}{key} {} bytes {sum}]", self.dts, self.pts, self.data.len())
    }
}

/// A track.
#[derive(Debug, Clone, Default)]
pub struct Units {
    /// In the order of the file.
    pub units: Vec<Unit>,
    /// Ticks per second of its times.
    pub ticks_per_s: i64,
}

/// A file.
#[derive(Debug, Clone, Default)]
pub struct Media {
    /// Pictures; empty if there are none.
    pub video: Units,
    /// Sound; empty if there is none.
    pub audio: Units,
}

/// Reads a file of these codecs; its times are not touched.
#[track_caller]
pub fn read(ffmpeg: Ffmpeg, path: &Path, video: Option<Video>, audio: Option<Audio>) -> Media {
    let dir = scratch("units");
    let at = |name: &str| dir.path().join(name);
    let mut command = ffmpeg.command();
    command.arg("-copyts").arg("-i").arg(path);
    demand(&mut command, &at("all"), "", video, audio);
    demand(&mut command, &at("keys"), "noise=drop='not(key)',", video, audio);
    for (name, video, audio) in [("video", video, None), ("audio", None, audio)] {
        if video.is_some() || audio.is_some() {
            select(&mut command, "", video, audio);
            command.args(["-f", "data"]).arg(at(name));
        }
    }
    let output = run(&command);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaints.trim().is_empty(),
        "{}: {}\n{complaints}",
        path.display(),
        output.status
    );
    let bytes = |name: &str| fs::read(at(name)).unwrap_or_default();
    let text = |name: &str| String::from_utf8(bytes(name)).expect("framehash writes text");
    let keys: HashSet<(usize, i64, i64)> =
        lines(&text("keys")).map(|line| (line.stream, line.dts, line.pts)).collect();
    let mut media = Media::default();
    let all = text("all");
    let (mut pictures, mut sound) = (&bytes("video")[..], &bytes("audio")[..]);
    for (place, line) in lines(&all).enumerate() {
        let is_video = video.is_some() && line.stream == 0;
        let (track, rest) = if is_video {
            (&mut media.video, &mut pictures)
        } else {
            (&mut media.audio, &mut sound)
        };
        let (packet, after) = rest.split_at(line.bytes);
        *rest = after;
        let data = if is_video { normal_form(packet) } else { packet.to_vec() };
        let key = keys.contains(&(line.stream, line.dts, line.pts));
        track.units.push(Unit { dts: line.dts, pts: line.pts, key, data, place });
    }
    assert!(pictures.is_empty() && sound.is_empty(), "the lists agree");
    let bases = time_bases(&all);
    if video.is_some() {
        media.video.ticks_per_s = bases[0];
    }
    if audio.is_some() {
        media.audio.ticks_per_s = bases[bases.len() - 1];
    }
    media
}

/// Asks for a list of packets.
fn demand(
    command: &mut Command,
    to: &Path,
    first_filter: &str,
    video: Option<Video>,
    audio: Option<Audio>,
) {
    select(command, first_filter, video, audio);
    command.args(["-f", "framehash", "-hash", "adler32"]).arg(to);
}

/// Selects pictures first, then sound, both brought into normal form.
fn select(command: &mut Command, first_filter: &str, video: Option<Video>, audio: Option<Audio>) {
    if let Some(video) = video {
        let moved = match video {
            Video::H264 => "7-9",
            Video::H265 => "32-35",
        };
        let filter = format!("{first_filter}filter_units=remove_types={moved}");
        command.args(["-map", "0:v:0", "-bsf:v", &filter]);
    }
    if let Some(audio) = audio {
        command.args(["-map", "0:a:0"]);
        if audio == Audio::Aac {
            command.args(["-bsf:a", "aac_adtstoasc"]);
        }
    }
    command.args(["-c", "copy"]);
}

/// Fails the test unless both are the same, unit by unit.
#[track_caller]
pub fn assert_same(what: &str, seen: &[Unit], sent: &[Unit]) {
    assert!(!sent.is_empty(), "{what}: nothing was sent");
    for (at, (seen, sent)) in seen.iter().zip(sent).enumerate() {
        assert!(
            seen.essence() == sent.essence(),
            "{what}: unit {at} is {seen:?}, sent was {sent:?}"
        );
    }
    assert_eq!(seen.len(), sent.len(), "{what}: units");
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line of a framehash list.
struct Line {
    stream: usize,
    dts: i64,
    pts: i64,
    bytes: usize,
}

fn lines(list: &str) -> impl Iterator<Item = Line> {
    list.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let fields: Vec<i64> =
            line.split(',').take(5).map(|field| field.trim().parse().expect("a number")).collect();
        let size = |at: usize| usize::try_from(fields[at]).expect("not negative");
        Line { stream: size(0), dts: fields[1], pts: fields[2], bytes: size(4) }
    })
}

fn time_bases(list: &str) -> Vec<i64> {
    let bases = list.lines().filter(|line| line.starts_with("#tb "));
    bases.map(|line| line.rsplit('/').next().and_then(|n| n.parse().ok()).expect("1/N")).collect()
}

/// The NAL units of a byte stream, each behind a length of 4 bytes.
fn normal_form(data: &[u8]) -> Vec<u8> {
    let starts: Vec<usize> = (0..data.len().saturating_sub(2))
        .filter(|at| data[*at..].starts_with(&[0, 0, 1]))
        .collect();
    let mut out = Vec::with_capacity(data.len() + 8);
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(data.len());
        let unit = &data[start + 3..end];
        let len = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        out.extend(u32::try_from(len).expect("small").to_be_bytes());
        out.extend(&unit[..len]);
    }
    out
}
