//! A stream that comes back after a reboot of the box goes on with its HLS file, by whatever clock
//! there is: a reboot alone never makes it late.

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as StdInstant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgerec::domain::due::{GapEntry, Missing};
use edgerec::domain::eviction::OnFull;
use edgerec::domain::files::FileFormat;
use edgerec::domain::ids::BootId;
use edgerec::domain::matching::{Layer, RuleTable};
use edgerec::domain::rule_set::RuleSet;
use edgerec::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use edgerec::domain::stream_key::StreamKey;
use edgerec::domain::time::{BootTime, ClockQuality, Instant, Moment, UnixMillis, WallTime};
use edgerec::media::clip::ClipSource;
use edgerec::platform::clock::Clock;
use edgerec::platform::flash::SystemFlash;
use edgerec::recorder::live::LiveTable;
use edgerec::recorder::rules::Rules;
use edgerec::recorder::stream::LiveStream;
use edgerec::recorder::{Beginning, Recorder, RecorderSettings};
use edgerec::ring::catalog::CatalogSettings;
use edgerec::ring::catalog::files::FileRecord;
use edgerec::ring::catalog::open::FileState;
use edgerec::ring::catalog::pushes::PushId;
use edgerec::ring::handle::{Ring, RingSettings, RingThreads};
use edgerec::ring::identity::RingIdentity;
use support::recorded_ring::copy_ring;

const SLOT_BYTES: u64 = 1 << 20;
/// FlowContinueDuration.
const WINDOW_S: u32 = 300;
const DAWN_S: i64 = 1_800_000_000;

/// A clock that is set by hand, and runs: the writer syncs by it.
struct HandClock(Mutex<(Moment, StdInstant)>);

impl HandClock {
    fn set(&self, to: Moment) {
        *self.0.lock().expect("nobody panics") = (to, StdInstant::now());
    }
}

impl Clock for HandClock {
    fn now(&self) -> Instant {
        let (set, at) = *self.0.lock().expect("nobody panics");
        later(set, u64::try_from(at.elapsed().as_millis()).expect("small")).at
    }

    fn boot_id(&self) -> BootId {
        self.0.lock().expect("nobody panics").0.boot_id
    }
}

fn moment(boot: u8, boot_s: u64, unix_s: i64) -> Moment {
    let known = unix_s >= DAWN_S;
    let quality = if known { ClockQuality::Trusted } else { ClockQuality::Untrusted };
    let wall = WallTime { unix: UnixMillis(unix_s * 1_000), quality };
    Moment { at: Instant { boot: BootTime(boot_s * 1_000), wall }, boot_id: BootId([boot; 16]) }
}

fn later(from: Moment, ms: u64) -> Moment {
    let unix = from.at.wall.unix.0 + i64::try_from(ms).expect("small");
    let wall = WallTime { unix: UnixMillis(unix), quality: from.at.wall.quality };
    Moment { at: Instant { boot: BootTime(from.at.boot.0 + ms), wall }, ..from }
}

fn key() -> StreamKey {
    StreamKey::new("d", "live", "cam").expect("valid")
}

/// A box from power on to power off.
struct Life {
    ring: Arc<Ring>,
    threads: RingThreads,
    recorder: Arc<Recorder>,
    clock: Arc<HandClock>,
    began: Moment,
}

impl Life {
    fn begin(path: &Path, now: Moment) -> Life {
        let settings = RingSettings {
            path: path.to_owned(),
            sync_interval: Duration::from_millis(20),
            catalog: CatalogSettings { on_full: OnFull::OverwriteOldest, delivers: false },
        };
        let clock = Arc::new(HandClock(Mutex::new((now, StdInstant::now()))));
        let opened = Ring::open(&settings, Arc::new(SystemFlash), clock.clone());
        let (ring, threads) = opened.expect("opens");
        let document = format!(
            r#"{{"revision": 1, "templates": [{{"TemplateName": "t", "HlsParam": {{"Enable": 1}},
            "HlsSpecialParam": {{"FlowContinueDuration": {WINDOW_S}}}}}], "rules":
            [{{"DomainName": "", "AppName": "", "StreamName": "", "TemplateName": "t"}}]}}"#
        );
        let set = RuleSet::parse(document.as_bytes()).expect("valid");
        let table = RuleTable::new([(Layer::Fleet, &set)]);
        let rules = Arc::new(ArcSwap::from_pointee(Rules::first(table)));
        let settings = RecorderSettings::for_slots(SLOT_BYTES, false, 3_600);
        let recorder = Recorder::new(ring.clone(), rules, Arc::new(LiveTable::default()), settings);
        let recorder = Arc::new(recorder.expect("the ring is open"));
        Life { ring, threads, recorder, clock, began: now }
    }

    /// A push of six samples, half a second apart, that begins now.
    fn push(&self, seed: u64) -> LiveStream {
        let key = key();
        let Moment { at: now, boot_id } = self.began;
        let beginning = Beginning {
            key,
            push: PushId(1),
            protocol: "rtmp",
            query: String::new(),
            now,
            boot_id,
        };
        let mut ids = seed * 1_000;
        let mut random = || {
            ids += 2;
            ids
        };
        let stream = LiveStream::begin(self.recorder.clone(), beginning, &mut random);
        let mut stream = stream.expect("a lane is free");
        let shape = Shape::Video { width: 64, height: 64 };
        let config = Bytes::from_static(&[1, 66, 0, 30, 255, 225, 0, 0, 1, 0, 0]);
        let (id, codec, timescale) = (TrackId(1), Codec::H264, 1_000);
        stream.tracks(&[Track { id, codec, timescale, config, shape }]);
        for index in 0..6_u64 {
            let dts = i64::try_from(index * 500).expect("small");
            let data = Bytes::from_static(&[7; 64]);
            let sample = Sample { track: id, dts, pts: dts, key: true, data };
            let at = later(self.began, index * 500).at;
            stream.sample(sample, at, &mut random).expect("taken");
        }
        stream
    }

    fn files(&self) -> Vec<FileRecord> {
        self.ring.catalog.call_blocking(|state| state.files()).expect("listed")
    }

    /// From and until of what the ledger has of the stream, in milliseconds since dawn.
    fn gaps(&self) -> Vec<(i64, Option<i64>)> {
        let gaps = self.ring.catalog.call_blocking(|state| state.gaps(&key(), 0, i64::MAX));
        let since = |ms: i64| ms - DAWN_S * 1_000;
        let gaps = gaps.expect("read").into_iter().rev();
        gaps.map(|gap| (since(gap.from_ms), gap.until_ms.map(since))).collect()
    }

    fn wait_for(
        &self,
        what: &str,
        mut holds: impl FnMut(&[FileRecord]) -> bool,
    ) -> Vec<FileRecord> {
        let deadline = StdInstant::now() + Duration::from_secs(30);
        loop {
            let files = self.files();
            if holds(&files) {
                return files;
            }
            assert!(StdInstant::now() < deadline, "not reached: {what}; files: {files:#?}");
            std::thread::yield_now();
        }
    }
}

/// How the first life of the box ends.
#[derive(Debug, Clone, Copy)]
enum PowerOff {
    /// In order: the stream was gone before.
    Clean,
    /// In the middle of the stream.
    Crash,
}

/// One push, a reboot, another push: gives the HLS files with their parts in the end.
fn two_lives(off: PowerOff, first: Moment, second: Moment) -> Vec<(FileRecord, usize)> {
    let scratch = || tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let (dir, crashed) = (scratch(), scratch());
    let identity = RingIdentity::plan(dir.path(), (8 << 20) + 16 * SLOT_BYTES, SLOT_BYTES);
    identity.expect("fits").create(&SystemFlash, dir.path()).expect("made");
    let life = Life::begin(dir.path(), first);
    let stream = life.push(1);
    life.wait_for("two seconds are durable", |files| {
        files.iter().any(|file| file.duration_ms >= 2_000)
    });
    copy_ring(dir.path(), crashed.path());
    stream.end("unplugged", later(first, 3_000).at);
    life.threads.close(&life.ring);

    let path = match off {
        PowerOff::Clean => dir.path(),
        PowerOff::Crash => crashed.path(),
    };
    let life = Life::begin(path, second);
    let stream = life.push(2);
    stream.end("finished", later(second, 3_000).at);
    let total = |files: &[FileRecord]| files.iter().map(|file| file.duration_ms).sum::<i64>();
    life.wait_for("both pushes are durable", |files| total(files) >= 5_000);
    // Nobody comes back: after the window everything is over.
    let mut over = later(second, u64::from(WINDOW_S) * 1_000 + 4_000);
    let files = life.wait_for("everything is finished", |files| {
        assert!(life.recorder.tick(over).is_empty());
        over = later(over, 1_000);
        files.iter().all(|file| file.state == FileState::Waiting)
    });
    let with_parts = |file: FileRecord| {
        let parts = life.ring.open_file_clip(file.id).expect("there").parts().len();
        (file, parts)
    };
    let found = files.into_iter().map(with_parts).collect();
    life.threads.close(&life.ring);
    found
}

fn joins(off: PowerOff, first: Moment, second: Moment) {
    let files = two_lives(off, first, second);
    assert_eq!(files.len(), 1, "{off:?}: {files:#?}");
    let (file, parts) = &files[0];
    assert_eq!((file.format, *parts), (FileFormat::Hls, 2), "{off:?}");
    assert!(file.duration_ms >= 5_000, "{off:?}: {}", file.duration_ms);
}

const BOTH: [PowerOff; 2] = [PowerOff::Clean, PowerOff::Crash];

#[test]
fn a_stream_that_returns_after_a_reboot_joins() {
    for off in BOTH {
        joins(off, moment(1, 9_000, DAWN_S), moment(2, 20, DAWN_S + 60));
    }
}

#[test]
fn with_the_clock_in_1970_only_powered_time_counts() {
    for off in BOTH {
        joins(off, moment(1, 9_000, DAWN_S), moment(2, 40, 40));
        joins(off, moment(1, 9_000, 9_000), moment(2, 40, DAWN_S));
        joins(off, moment(1, 9_000, 9_000), moment(2, 40, 40));
    }
}

#[test]
fn a_stream_that_returns_too_late_does_not() {
    for off in BOTH {
        let late = i64::from(WINDOW_S) + 60;
        let files = two_lives(off, moment(1, 9_000, DAWN_S), moment(2, 20, DAWN_S + late));
        let parts: Vec<usize> = files.iter().map(|(_, parts)| *parts).collect();
        assert_eq!(parts, [1, 1], "{off:?}");
    }
}

/// The start and the end of the only file in milliseconds since dawn, if they can be believed.
fn times(files: &[FileRecord]) -> Option<(i64, i64)> {
    assert_eq!(files.len(), 1, "{files:#?}");
    let since = |ms: i64| ms - DAWN_S * 1_000;
    files[0].trusted.then(|| (since(files[0].start_ms), since(files[0].end_ms)))
}

#[test]
fn a_boot_in_1970_has_its_times_once_the_clock_is_set_and_keeps_them_over_a_power_cut() {
    let scratch = || tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let (dir, cut) = (scratch(), scratch());
    let identity = RingIdentity::plan(dir.path(), (8 << 20) + 16 * SLOT_BYTES, SLOT_BYTES);
    identity.expect("fits").create(&SystemFlash, dir.path()).expect("made");
    let first = moment(1, 9_000, 9_000);
    let life = Life::begin(dir.path(), first);
    let (from, cause) = (later(first, 100).at, Missing::NoKeyFrame);
    let (boot_id, begins) = (first.boot_id, GapEntry::Begins { from, cause });
    let enter = |entry| {
        let entered = life
            .ring
            .catalog
            .call_blocking(move |state| state.enter_watched_gap(&key(), boot_id, entry));
        entered.expect("entered");
    };
    enter(begins);
    enter(GapEntry::Ends { until: later(first, 300).at });
    let stream = life.push(1);
    let all = |files: &[FileRecord]| files.iter().any(|file| file.duration_ms >= 2_500);
    let files = life.wait_for("all but what grows is durable", all);
    assert_eq!(times(&files), None);
    assert!(life.gaps()[0].0 < 0);

    life.clock.set(moment(1, 9_004, DAWN_S));
    assert_eq!(times(&life.files()), Some((-4_000, files[0].end_ms - files[0].start_ms - 4_000)));
    assert_eq!(life.gaps(), [(-3_900, Some(-3_700))]);
    let dawn_ms = DAWN_S * 1_000;
    let range = |life: &Life, from_ms, until_ms| {
        let clip = life.ring.open_range_clip(&key(), dawn_ms + from_ms, dawn_ms + until_ms);
        clip.map_or(0, |clip| clip.fragment_count())
    };
    let fragments = range(&life, -5_000, 0);
    assert!(fragments > 2);
    // From the key frame at or before, and not beyond.
    assert_eq!(range(&life, -3_900, -3_100), 2);
    assert_eq!(range(&life, -dawn_ms, -5_000), 0);
    let (file, end_ms) = (life.files().remove(0), times(&life.files()).expect("dated").1);
    copy_ring(dir.path(), cut.path());
    stream.end("unplugged", later(first, 3_000).at);
    life.threads.close(&life.ring);

    // Nobody knows the time again. What was found in the slots has the times of 1970.
    let life = Life::begin(cut.path(), moment(2, 40, 40));
    let files = life.files();
    assert_eq!((files[0].id, times(&files)), (file.id, Some((-4_000, end_ms))));
    assert!(range(&life, -5_000, 0) >= fragments);
    let unended = (end_ms, Some(end_ms));
    assert_eq!(life.gaps(), [(-3_900, Some(-3_700)), unended]);
    let stream = life.push(2);
    life.wait_for("the stream goes on", |files| files.iter().any(|file| file.duration_ms >= 4_000));
    assert_eq!(times(&life.files()).map(|(start, _)| start), Some(-4_000));
    life.clock.set(moment(2, 100, DAWN_S + 160));
    let (_, end_ms) = times(&life.files()).expect("still believed");
    assert!((101_500..104_000).contains(&end_ms), "by the clock of the second boot: {end_ms}");
    let ends: Vec<Option<i64>> = life.gaps().into_iter().map(|(_, until)| until).collect();
    let until = ends[1].expect("it is over");
    assert!((100_000..130_000).contains(&until), "the box was there again at 40 s: {until}");
    drop(stream);
    life.threads.close(&life.ring);
}
