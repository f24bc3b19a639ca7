//! Real media made by ffmpeg, and what ffprobe reads in a file.

use std::process::Command;

use bytes::Bytes;
use edgerec::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use edgerec::domain::time::rescale;
use sha2::{Digest, Sha256};

/// Seconds of each source.
const SECONDS: &str = "20";

/// A packet as ffprobe tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub stream: usize,
    pub pts: i64,
    pub dts: i64,
    pub key: bool,
    pub video: bool,
    pub hash: String,
}

/// A source: what a camera or encoder sent.
#[derive(Debug, Clone)]
pub struct Source {
    pub tracks: Vec<Track>,
    pub samples: Vec<Sample>,
    pub script_data: Bytes,
}

impl Source {
    pub fn is_video(&self, sample: &Sample) -> bool {
        self.tracks.iter().any(|track| track.id == sample.track && track.is_video())
    }

    fn timescale(&self, sample: &Sample) -> u32 {
        self.tracks.iter().find(|track| track.id == sample.track).unwrap().timescale
    }

    /// Moves all times by `ms`.
    pub fn shift(&mut self, ms: i64) {
        for at in 0..self.samples.len() {
            let by = rescale(ms, 1_000, self.timescale(&self.samples[at]));
            self.samples[at].dts += by;
            self.samples[at].pts += by;
        }
    }

    pub fn shift_seconds(&mut self, seconds: i64) {
        self.shift(seconds * 1_000);
    }

    /// From the first sample of the track that HLS is timed by to the end of the last track.
    pub fn duration_us(&self) -> i64 {
        let times = |track: &Track| -> Vec<i64> {
            self.samples.iter().filter(|s| s.track == track.id).map(|s| s.dts).collect()
        };
        let us = |ticks, track: &Track| rescale(ticks, track.timescale, 1_000_000);
        let end = |track: &Track| {
            let times = times(track);
            let last = times.len() - 1;
            us(times[last] + times[last] - times[last - 1], track)
        };
        let video = self.tracks.iter().position(Track::is_video).unwrap_or(0);
        let start = us(times(&self.tracks[video])[0], &self.tracks[video]);
        self.tracks.iter().map(end).max().unwrap() - start
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().expect("ffmpeg is installed");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Makes a file; `v` and `a` in the arguments stand for a test picture and a tone.
pub fn make(name: &str, arguments: &[&str], extension: &str) -> Source {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("{name}.{extension}"));
    let path = path.to_str().unwrap();
    let mut all = vec!["-nostdin", "-v", "error", "-y"];
    for argument in arguments {
        match *argument {
            "v" => all.extend(["-f", "lavfi", "-i", "testsrc2=size=192x108:rate=25"]),
            "a" => all.extend(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100"]),
            other => all.push(other),
        }
    }
    if arguments.contains(&"v") {
        all.extend(["-preset", "ultrafast", "-pix_fmt", "yuv420p", "-sc_threshold", "0"]);
        if arguments.contains(&"-bf") && !arguments.contains(&"0") {
            all.extend(["-b_strategy", "0"]);
        }
    }
    all.extend(["-t", SECONDS, "-threads", "1", "-use_editlist", "0", path]);
    run("ffmpeg", &all);
    load(path)
}

fn load(path: &str) -> Source {
    let file = std::fs::read(path).unwrap();
    let json = run(
        "ffprobe",
        &[
            "-v",
            "error",
            "-ignore_editlist",
            "1",
            "-show_streams",
            "-show_packets",
            "-of",
            "json",
            path,
        ],
    );
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let number = |value: &serde_json::Value| -> i64 {
        value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap()
    };
    let mut tracks: Vec<Track> = Vec::new();
    for stream in json["streams"].as_array().unwrap() {
        let id = TrackId(u8::try_from(tracks.len() + 1).unwrap());
        let timescale = stream["time_base"].as_str().unwrap().split_once('/').unwrap().1;
        let (codec, config) = match stream["codec_name"].as_str().unwrap() {
            "h264" => (Codec::H264, find_box(&file, b"avcC").to_vec()),
            "hevc" => (Codec::H265, find_box(&file, b"hvcC").to_vec()),
            "aac" => (Codec::Aac, specific_config(find_box(&file, b"esds"))),
            "pcm_alaw" => (Codec::PcmAlaw, Vec::new()),
            other => panic!("{other}"),
        };
        let shape = if codec.is_video() {
            let side = |name: &str| u16::try_from(number(&stream[name])).unwrap();
            Shape::Video { width: side("width"), height: side("height") }
        } else {
            Shape::Audio {
                sample_rate: u32::try_from(number(&stream["sample_rate"])).unwrap(),
                channels: u8::try_from(number(&stream["channels"])).unwrap(),
            }
        };
        let timescale = timescale.parse().unwrap();
        tracks.push(Track { id, codec, timescale, config: config.into(), shape });
    }
    let mut samples = Vec::new();
    for packet in json["packets"].as_array().unwrap() {
        let (pos, size) = (number(&packet["pos"]) as usize, number(&packet["size"]) as usize);
        let track = tracks[number(&packet["stream_index"]) as usize].id;
        samples.push(Sample {
            track,
            dts: number(&packet["dts"]),
            pts: number(&packet["pts"]),
            key: packet["flags"].as_str().unwrap().starts_with('K'),
            data: Bytes::copy_from_slice(&file[pos..pos + size]),
        });
    }
    let mut source = Source { tracks, samples, script_data: Bytes::new() };
    // A stream's times are not negative.
    let first = source.samples.iter().map(|s| s.dts.min(s.pts)).min().unwrap();
    if first < 0 {
        source.shift_seconds(1);
    }
    source
}

fn find_box<'a>(file: &'a [u8], kind: &[u8; 4]) -> &'a [u8] {
    let at = file.windows(4).rposition(|word| word == kind).expect("the box is there");
    let size = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
    &file[at + 4..at - 4 + size]
}

/// The AudioSpecificConfig in an `esds` as ffmpeg writes it.
fn specific_config(esds: &[u8]) -> Vec<u8> {
    let at = esds.windows(4).position(|word| word == [5, 0x80, 0x80, 0x80]).unwrap();
    let len = usize::from(esds[at + 4]);
    esds[at + 5..at + 5 + len].to_vec()
}

/// The packets of a file, in its order.
pub fn probe(file: &[u8], extension: &str, arguments: &[&str]) -> Vec<Packet> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("rendered.{extension}"));
    std::fs::write(&path, file).unwrap();
    let mut all = vec!["-v", "error"];
    all.extend(arguments);
    all.extend([
        "-show_packets",
        "-show_data_hash",
        "SHA256",
        "-of",
        "json",
        path.to_str().unwrap(),
    ]);
    let json: serde_json::Value = serde_json::from_slice(&run("ffprobe", &all)).unwrap();
    let packets = json["packets"].as_array().unwrap();
    let packet = |packet: &serde_json::Value| Packet {
        stream: packet["stream_index"].as_u64().unwrap() as usize,
        pts: packet["pts"].as_i64().unwrap_or(i64::MIN),
        dts: packet["dts"].as_i64().unwrap_or(i64::MIN),
        key: packet["flags"].as_str().unwrap().starts_with('K'),
        video: packet["codec_type"] == "video",
        hash: packet["data_hash"].as_str().unwrap().trim_start_matches("SHA256:").to_owned(),
    };
    packets.iter().map(packet).collect()
}

/// The video of a transport stream as it is.
pub fn elementary_stream(ts: &[u8], format: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rendered.ts");
    std::fs::write(&path, ts).unwrap();
    let path = path.to_str().unwrap();
    run("ffmpeg", &["-v", "error", "-i", path, "-map", "0:v", "-c", "copy", "-f", format, "-"])
}

/// FLV and TS number streams by first appearance: brings them into the order of the tracks.
pub fn in_track_order(mut packets: Vec<Packet>, source: &Source) -> Vec<Packet> {
    for packet in &mut packets {
        let of_kind = |track: &Track| track.is_video() == packet.video;
        packet.stream = source.tracks.iter().position(of_kind).expect("a track of the kind");
    }
    packets
}

/// Times of the video and audio tags that carry samples.
pub fn flv_times(file: &[u8]) -> (Vec<i64>, Vec<i64>) {
    let (mut video, mut audio, mut at) = (Vec::new(), Vec::new(), 13);
    while at < file.len() {
        let len = u32::from_be_bytes([0, file[at + 1], file[at + 2], file[at + 3]]) as usize;
        let time = u32::from_be_bytes([file[at + 7], file[at + 4], file[at + 5], file[at + 6]]);
        match (file[at], file[at + 12]) {
            (9, 1) => video.push(i64::from(time)),
            (8, 1) => audio.push(i64::from(time)),
            _ => {}
        }
        at += 11 + len + 4;
    }
    (video, audio)
}

/// The configurations in the video tags.
pub fn flv_configs(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut configs, mut at) = (Vec::new(), 13);
    while at < file.len() {
        let len = u32::from_be_bytes([0, file[at + 1], file[at + 2], file[at + 3]]) as usize;
        let body = &file[at + 11..at + 11 + len];
        if (file[at], body[1]) == (9, 0) {
            configs.push(body[5..].to_vec());
        }
        at += 11 + len + 4;
    }
    configs
}
