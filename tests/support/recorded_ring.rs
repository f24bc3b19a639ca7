//! A ring with a recording in it, made with the library: the samples of an FLV file, handed to the
//! recorder as fast as the ring takes them, with the times they would have had.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgerec::domain::eviction::OnFull;
use edgerec::domain::ids::BootId;
use edgerec::domain::matching::{Layer, RuleTable};
use edgerec::domain::rule_set::RuleSet;
use edgerec::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use edgerec::domain::stream_key::StreamKey;
use edgerec::domain::time::{BootTime, ClockQuality, Instant, UnixMillis, WallTime};
use edgerec::platform::clock::SystemClock;
use edgerec::platform::flash::{Flash, SystemFlash};
use edgerec::recorder::live::LiveTable;
use edgerec::recorder::rules::Rules;
use edgerec::recorder::stream::LiveStream;
use edgerec::recorder::{Beginning, Recorder, RecorderSettings};
use edgerec::ring::catalog::CatalogSettings;
use edgerec::ring::catalog::pushes::PushId;
use edgerec::ring::handle::{Ring, RingSettings, RingThreads};
use serde_json::Value;

use super::wait::wait_until;

/// When recordings begin: 2027-01-15T08:00:00Z.
pub const BEGAN_MS: i64 = 1_800_000_000_000;
const VIDEO: TrackId = TrackId(1);
const AUDIO: TrackId = TrackId(2);
const AHEAD_MS: u64 = 1_000;

/// What a stream sends: its tracks, and samples in order of arrival.
pub struct Sent {
    tracks: Vec<Track>,
    samples: Vec<Sample>,
}

impl Sent {
    /// The H.264 and AAC of an FLV file.
    pub fn of_flv(path: &Path) -> Sent {
        let file = fs::read(path).expect("the clip can be read");
        let mut sent = Sent { tracks: Vec::new(), samples: Vec::new() };
        let mut at = 13;
        while let Some(head) = file.get(at..at + 11) {
            let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, b| sum << 8 | u32::from(*b));
            let len = number(&head[1..4]) as usize;
            let dts = i64::from(number(&head[4..7]) | u32::from(head[7]) << 24);
            sent.tag(head[0], dts, &file[at + 11..at + 11 + len]);
            at += 11 + len + 4;
        }
        assert!(!sent.samples.is_empty(), "no samples in {}", path.display());
        sent
    }

    fn tag(&mut self, kind: u8, dts: i64, body: &[u8]) {
        let bytes = |from: usize| Bytes::copy_from_slice(&body[from..]);
        match (kind, body) {
            (9, [first, packet, a, b, c, ..]) => {
                // A signed number of 24 bits.
                let offset = i64::from(i32::from_be_bytes([*a, *b, *c, 0]) >> 8);
                let key = first >> 4 == 1;
                let shape = Shape::Video { width: 640, height: 360 };
                match packet {
                    0 => self.track(VIDEO, Codec::H264, shape, bytes(5)),
                    1 => self.sample(VIDEO, dts, dts + offset, key, bytes(5)),
                    _ => {}
                }
            }
            (8, [_, 0, ..]) => {
                let shape = Shape::Audio { sample_rate: 48_000, channels: 2 };
                self.track(AUDIO, Codec::Aac, shape, bytes(2));
            }
            (8, [_, 1, ..]) => self.sample(AUDIO, dts, dts, true, bytes(2)),
            _ => {}
        }
    }

    fn track(&mut self, id: TrackId, codec: Codec, shape: Shape, config: Bytes) {
        self.tracks.push(Track { id, codec, timescale: 1_000, config, shape });
    }

    fn sample(&mut self, track: TrackId, dts: i64, pts: i64, key: bool, data: Bytes) {
        self.samples.push(Sample { track, dts, pts, key, data });
    }
}

/// Copies a ring as a power cut would leave it.
pub fn copy_ring(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("slots")).expect("made");
    for folder in ["", "slots"] {
        for entry in fs::read_dir(from.join(folder)).expect("listed") {
            let path = entry.expect("listed").path();
            if path.is_file() {
                let name = path.file_name().expect("a file");
                fs::copy(&path, to.join(folder).join(name)).expect("copied");
            }
        }
    }
}

/// Opens a ring as the box does.
pub fn open(path: &Path) -> (Arc<Ring>, RingThreads) {
    open_on(path, Arc::new(SystemFlash))
}

/// Opens a ring on a flash of the test's.
pub fn open_on(path: &Path, flash: Arc<dyn Flash>) -> (Arc<Ring>, RingThreads) {
    Ring::open(&settings(path), flash, Arc::new(SystemClock::new())).expect("opens")
}

/// How these rings are run.
pub fn settings(path: &Path) -> RingSettings {
    RingSettings {
        path: path.to_owned(),
        sync_interval: Duration::from_millis(20),
        catalog: CatalogSettings { on_full: OnFull::OverwriteOldest, delivers: false },
    }
}

/// A stream under way.
pub struct Recording {
    key: StreamKey,
    stream: Option<LiveStream>,
    /// Arrival of the newest sample since the beginning, in milliseconds.
    arrived_ms: u64,
}

impl Recording {
    /// Begins a stream under a rule set that records it. `number` tells sessions apart.
    pub fn begin(ring: &Arc<Ring>, rules: &Value, key: &str, number: u64) -> Recording {
        let set = RuleSet::parse(rules.to_string().as_bytes()).expect("valid rules");
        let rules =
            Arc::new(ArcSwap::from_pointee(Rules::first(RuleTable::new([(Layer::Fleet, &set)]))));
        let settings = RecorderSettings::for_slots(ring.identity.slot_bytes, false, 3_600);
        let live = Arc::new(LiveTable::default());
        let recorder =
            Recorder::new(ring.clone(), rules, live, settings).expect("the ring is open");
        let key: StreamKey = key.parse().expect("a key");
        let beginning = Beginning {
            key: key.clone(),
            push: PushId(1),
            protocol: "rtmp",
            query: String::new(),
            now: at(0),
            boot_id: BootId([1; 16]),
        };
        let mut id = number * 1_000;
        let mut random = || {
            id += 2;
            id
        };
        let stream = LiveStream::begin(Arc::new(recorder), beginning, &mut random);
        Recording { key, stream: Some(stream.expect("a lane is free")), arrived_ms: 0 }
    }

    /// Hands all samples over, no faster than the ring makes them durable.
    pub fn feed(&mut self, ring: &Ring, sent: &Sent) {
        let start_ms = self.arrived_ms;
        let stream = self.stream.as_mut().expect("not ended");
        stream.tracks(&sent.tracks);
        let mut waited_ms = start_ms;
        for sample in &sent.samples {
            let arrived = start_ms + u64::try_from(sample.dts).expect("not negative");
            if arrived > waited_ms + AHEAD_MS {
                wait_durable(ring, &self.key, arrived.saturating_sub(3 * AHEAD_MS));
                waited_ms = arrived;
            }
            let mut sample = sample.clone();
            sample.dts += i64::try_from(start_ms).expect("small");
            sample.pts += i64::try_from(start_ms).expect("small");
            let none = &mut || unreachable!("no identity is needed");
            stream.sample(sample, at(arrived), none).expect("taken");
            self.arrived_ms = arrived;
        }
        self.arrived_ms += 40;
    }

    /// Ends the stream and waits until its files are finished.
    pub fn end(mut self, ring: &Ring) {
        let stream = self.stream.take().expect("not ended");
        stream.end("finished", at(self.arrived_ms));
        wait_until(Duration::from_secs(20), "the files are finished", || {
            let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
            !files.is_empty() && files.iter().all(|file| file.state.name() != "recording")
        });
    }
}

/// Waits until what arrived before `ms` since the beginning is in the catalog.
pub fn wait_durable(ring: &Ring, key: &StreamKey, ms: u64) {
    let wanted = BEGAN_MS + i64::try_from(ms).expect("small");
    wait_until(Duration::from_secs(20), "what was fed is durable", || {
        let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
        let ours = files.iter().filter(|file| file.key == *key);
        ms == 0 || ours.map(|file| file.end_ms).max().unwrap_or(0) >= wanted
    });
}

fn at(ms: u64) -> Instant {
    let unix = UnixMillis(BEGAN_MS + i64::try_from(ms).expect("small"));
    let wall = WallTime { unix, quality: ClockQuality::Trusted };
    Instant { boot: BootTime(1_000 + ms), wall }
}
