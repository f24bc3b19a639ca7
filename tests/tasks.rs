//! Tasks over a real ring: what it held before they were asked for joins what comes, sample by
//! sample; they run over restarts and drops, end where they were stopped, and wake a stream that no
//! rule wants.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgerec::domain::eviction::OnFull;
use edgerec::domain::files::FileFormat;
use edgerec::domain::ids::{BootId, SlotIndex, TaskId};
use edgerec::domain::matching::{Layer, RuleTable};
use edgerec::domain::rule_set::{Apply, ApplyMode, RuleSet};
use edgerec::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use edgerec::domain::service::limits::ServiceLimits;
use edgerec::domain::service::tasks::{When, Wish};
use edgerec::domain::stream_key::StreamKey;
use edgerec::domain::task::{Family, Task};
use edgerec::domain::template::{FormatParams, Template};
use edgerec::domain::time::{BootTime, ClockQuality, Instant, Moment, UnixMillis, WallTime};
use edgerec::media::clip::ClipSource;
use edgerec::media::fmp4::parse_moof;
use edgerec::platform::clock::SystemClock;
use edgerec::platform::flash::SystemFlash;
use edgerec::recorder::live::LiveTable;
use edgerec::recorder::rules::{Rules, RulesInForce};
use edgerec::recorder::stream::LiveStream;
use edgerec::recorder::{Beginning, Recorder, RecorderSettings};
use edgerec::ring::catalog::CatalogSettings;
use edgerec::ring::catalog::files::FileRecord;
use edgerec::ring::catalog::open::FileState;
use edgerec::ring::catalog::pushes::PushId;
use edgerec::ring::clip::RingClip;
use edgerec::ring::handle::{Ring, RingSettings, RingThreads};
use edgerec::ring::identity::{RingIdentity, slot_path};

const SLOT_BYTES: u64 = 1 << 20;
const BOOT: BootId = BootId([1; 16]);
const DAWN_MS: i64 = 1_800_000_000_000;
/// Time between two samples; a key frame comes every 25.
const SAMPLE_MS: u64 = 40;

const RECORD: &str = r#""FlvParam": {"Enable": 1}"#;
const RECORD_OTHERWISE: &str = r#""Mp4Param": {"Enable": 1}"#;
const NO_RECORD: &str = r#""Description": "not recorded""#;

struct Rig {
    ring: Arc<Ring>,
    threads: Option<RingThreads>,
    rules: RulesInForce,
    recorder: Arc<Recorder>,
    /// The rules want the stream recorded.
    recorded: bool,
    stream: Option<LiveStream>,
    /// Number of the next sample, and of the first one of the session.
    next: u64,
    first: u64,
    ids: u64,
    /// The clock is not set.
    blind: bool,
    dir: tempfile::TempDir,
}

fn table(template: &str) -> RuleTable {
    let document = format!(
        r#"{{"revision": 1, "templates": [{{"TemplateName": "t", {template}}}], "rules":
        [{{"DomainName": "", "AppName": "", "StreamName": "", "TemplateName": "t"}}]}}"#
    );
    let set = RuleSet::parse(document.as_bytes()).expect("valid");
    RuleTable::new([(Layer::Fleet, &set)])
}

fn open(path: &Path) -> (Arc<Ring>, RingThreads) {
    let settings = RingSettings {
        path: path.to_owned(),
        sync_interval: Duration::from_millis(20),
        catalog: CatalogSettings { on_full: OnFull::OverwriteOldest, delivers: false },
    };
    Ring::open(&settings, Arc::new(SystemFlash), Arc::new(SystemClock::new())).expect("opens")
}

fn moment(ms: u64) -> Moment {
    let unix = UnixMillis(DAWN_MS + i64::try_from(ms).expect("small"));
    let wall = WallTime { unix, quality: ClockQuality::Trusted };
    Moment { at: Instant { boot: BootTime(1_000 + ms), wall }, boot_id: BOOT }
}

/// The same on a clock that was never set.
fn blind_moment(ms: u64) -> Moment {
    let Moment { at, boot_id } = moment(ms);
    let unix = UnixMillis(i64::try_from(at.boot.0).expect("small"));
    let wall = WallTime { unix, quality: ClockQuality::Untrusted };
    Moment { at: Instant { wall, ..at }, boot_id }
}

fn key() -> StreamKey {
    StreamKey::new("d", "live", "cam").expect("valid")
}

impl Rig {
    fn new(template: &str) -> Rig {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let identity = RingIdentity::plan(dir.path(), (8 << 20) + 32 * SLOT_BYTES, SLOT_BYTES);
        identity.expect("fits").create(&SystemFlash, dir.path()).expect("made");
        let (ring, threads) = open(dir.path());
        let rules = Arc::new(ArcSwap::from_pointee(Rules::first(table(template))));
        let settings = RecorderSettings::for_slots(SLOT_BYTES, false, 3_600);
        let live = Arc::new(LiveTable::default());
        let recorder = Recorder::new(ring.clone(), rules.clone(), live, settings);
        Rig {
            ring,
            threads: Some(threads),
            rules,
            recorder: Arc::new(recorder.expect("the ring is open")),
            recorded: template != NO_RECORD,
            stream: None,
            next: 0,
            first: 0,
            ids: 0,
            blind: false,
            dir,
        }
    }

    fn now(&self) -> Moment {
        let ms = self.next * SAMPLE_MS;
        if self.blind { blind_moment(ms) } else { moment(ms) }
    }

    fn begin(&mut self) {
        let now = self.now().at;
        let beginning = Beginning {
            key: key(),
            push: PushId(1),
            protocol: "rtmp",
            query: String::new(),
            now,
            boot_id: BOOT,
        };
        let ids = &mut self.ids;
        let mut random = || {
            *ids += 2;
            *ids
        };
        let mut stream = LiveStream::begin(self.recorder.clone(), beginning, &mut random);
        let shape = Shape::Video { width: 64, height: 64 };
        let config = Bytes::from_static(&[1, 66, 0, 30, 255, 225, 0, 0, 1, 0, 0]);
        let (id, codec, timescale) = (TrackId(1), Codec::H264, 1_000);
        let track = Track { id, codec, timescale, config, shape };
        stream.as_mut().expect("a lane is free").tracks(&[track]);
        self.stream = Some(stream.expect("a lane is free"));
        self.first = self.next;
    }

    /// Sends samples up to this number, no faster than the ring makes them durable.
    fn send(&mut self, until: u64) {
        while self.next < until {
            let number = self.next;
            let dts = i64::try_from(number * SAMPLE_MS).expect("small");
            let mut data = vec![0; 3_000];
            data[..8].copy_from_slice(&number.to_be_bytes());
            let key = number.is_multiple_of(25);
            let sample = Sample { track: TrackId(1), dts, pts: dts, key, data: data.into() };
            let (now, ids) = (self.now().at, &mut self.ids);
            let mut random = || {
                *ids += 2;
                *ids
            };
            let stream = self.stream.as_mut().expect("live");
            stream.sample(sample, now, &mut random).expect("taken");
            self.next += 1;
            if number.is_multiple_of(25) {
                self.settle();
            }
        }
    }

    /// Waits until what was sent is durable, but for the fragment that grows. What is not recorded
    /// has nothing to wait for.
    fn settle(&self) {
        let sent_ms = self.now().at.boot.0.cast_signed();
        let ends_ms =
            |file: &FileRecord| file.start_boot_ms.cast_signed() + file.end_ms - file.start_ms;
        let deadline = StdInstant::now() + Duration::from_secs(30);
        loop {
            let growing: Vec<FileRecord> =
                self.files().into_iter().filter(|f| f.state == FileState::Recording).collect();
            let last = growing.iter().map(ends_ms).max();
            // The first fragment is cut with the second key frame.
            let early = self.next < self.first + 30 || !self.recorded;
            if last.map_or(early, |last| last >= sent_ms - 1_200) {
                return;
            }
            assert!(StdInstant::now() < deadline, "what was sent is not durable: {growing:?}");
            std::thread::yield_now();
        }
    }

    fn drop_stream(&mut self) {
        let now = self.now().at;
        self.stream.take().expect("live").end("unplugged", now);
    }

    fn wish(from_ms: i64, to_ms: i64, formats: &[FileFormat]) -> Wish {
        let mut template = Template { name: "task".to_owned(), ..Template::default() };
        for format in formats {
            let params = Some(FormatParams::of(*format));
            match format {
                FileFormat::Flv => template.flv = params,
                FileFormat::Hls => template.hls = params,
                FileFormat::Mp4 => template.mp4 = params,
                FileFormat::Aac => template.aac = params,
            }
        }
        Wish {
            family: Family::Live,
            domain: String::new(),
            app: "live".to_owned(),
            stream: "cam".to_owned(),
            when: When::Window { start_ms: DAWN_MS + from_ms, end_ms: DAWN_MS + to_ms },
            mixed: false,
            audio_only: false,
            template,
            template_id: 0,
        }
    }

    fn ask(&self, wish: Wish) -> Arc<Task> {
        let task = self.create(wish);
        self.tick();
        task
    }

    fn create(&self, wish: Wish) -> Arc<Task> {
        let now = self.now();
        let asked = self.ring.catalog.call_blocking(move |state| {
            state.change_service(|service, changes| {
                service.tasks.create(wish, &ServiceLimits::default(), now, 9, changes)
            })
        });
        asked.expect("stored").expect("allowed")
    }

    fn stop(&self, task: TaskId) {
        let now = self.now();
        let stopped = self.ring.catalog.call_blocking(move |state| {
            state.change_service(|service, changes| {
                service.tasks.stop(task, Family::Live, now, changes)
            })
        });
        stopped.expect("stored").expect("it is there");
    }

    /// What the box does each second.
    fn tick(&self) {
        self.tick_at(self.now());
    }

    fn tick_at(&self, now: Moment) {
        for opening in self.recorder.tick(now) {
            self.recorder.open(opening, now);
        }
    }

    /// Time passes until so many tasks have a file and the stream's end is durable.
    fn tick_until_durable(&self, tasks: usize) {
        let deadline = StdInstant::now() + Duration::from_secs(30);
        let is_over =
            |file: &FileRecord| file.task_id.is_none() && file.state == FileState::Waiting;
        loop {
            let files = self.files();
            let of_tasks = files.iter().filter(|file| file.task_id.is_some()).count();
            if of_tasks == tasks && files.iter().any(is_over) {
                return;
            }
            assert!(StdInstant::now() < deadline, "not durable: {files:#?}");
            self.tick();
        }
    }

    fn files(&self) -> Vec<FileRecord> {
        self.ring.catalog.call_blocking(|state| state.files()).expect("listed")
    }

    /// Every file, once none grows.
    fn all_finished(&self) -> Vec<FileRecord> {
        let deadline = StdInstant::now() + Duration::from_secs(30);
        loop {
            let files = self.files();
            if !files.is_empty() && files.iter().all(|file| file.state == FileState::Waiting) {
                return files;
            }
            assert!(StdInstant::now() < deadline, "files still grow: {files:#?}");
            std::thread::yield_now();
        }
    }

    fn of(&self, task: &Task) -> Vec<FileRecord> {
        let files = self.files().into_iter();
        files.filter(|file| file.task_id.as_ref() == Some(&task.shown())).collect()
    }

    /// The files of a task once it has one.
    fn recording(&self, task: &Task) -> Vec<FileRecord> {
        let deadline = StdInstant::now() + Duration::from_secs(30);
        loop {
            let files = self.of(task);
            if !files.is_empty() {
                return files;
            }
            assert!(StdInstant::now() < deadline, "task {} records nothing", task.id());
            self.tick();
        }
    }

    /// The files of a task once none grows, by format.
    fn finished(&self, task: &Task, format: FileFormat, count: usize) -> Vec<FileRecord> {
        let deadline = StdInstant::now() + Duration::from_secs(30);
        loop {
            let mut files = self.files();
            files.retain(|file| {
                file.task_id.as_ref() == Some(&task.shown()) && file.format == format
            });
            let done = files.iter().all(|file| file.state == FileState::Waiting);
            if done && files.len() == count {
                return files;
            }
            assert!(StdInstant::now() < deadline, "not {count} files of the task: {files:#?}");
            std::thread::yield_now();
        }
    }

    /// Damages the fragment that has a sample.
    fn damage(&self, number: u64) {
        let mut wanted = number.to_be_bytes().to_vec();
        wanted.resize(2_000, 0);
        let find = |bytes: &[u8]| bytes.windows(wanted.len()).position(|seen| seen == wanted);
        for slot in 0..32 {
            let path = slot_path(self.dir.path(), SlotIndex(slot));
            let Ok(mut bytes) = std::fs::read(&path) else { continue };
            let Some(sample) = find(&bytes) else { continue };
            let moof = bytes[..sample].windows(4).rposition(|seen| seen == b"moof");
            bytes[moof.expect("before its media")] ^= 1;
            std::fs::write(&path, bytes).expect("written");
            return;
        }
        panic!("sample {number} is in no slot");
    }

    /// The numbers of the samples in a file, in order.
    fn samples(&self, file: &FileRecord) -> Vec<u64> {
        Self::samples_of(&self.ring.open_file_clip(file.id).expect("there"))
    }

    fn samples_of(clip: &RingClip) -> Vec<u64> {
        let mut numbers = Vec::new();
        for fragment in 0..clip.fragment_count() {
            let moof = parse_moof(&clip.moof(fragment).expect("read")).expect("ours");
            let mut offset = 0;
            for sample in moof.runs.iter().flat_map(|run| &run.samples) {
                let mut number = [0; 8];
                clip.read_payload(fragment, offset, &mut number).expect("read");
                numbers.push(u64::from_be_bytes(number));
                offset += sample.size;
            }
        }
        numbers
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            let now = self.now().at;
            stream.end("the test is over", now);
        }
        if let Some(threads) = self.threads.take() {
            threads.close(&self.ring);
        }
    }
}

fn range(from: u64, until: u64) -> Vec<u64> {
    (from..until).collect()
}

#[test]
fn a_task_that_begins_in_the_past_joins_what_comes() {
    let mut rig = Rig::new(RECORD);
    rig.begin();
    rig.send(1_010);
    // From 20.5 s on, so from the key frame at 20 s; now it is 40.4 s.
    let both = [FileFormat::Flv, FileFormat::Hls];
    let task = rig.ask(Rig::wish(20_500, 60_000, &both));
    rig.send(1_600);
    rig.drop_stream();
    rig.tick_at(moment(61_000));
    rig.tick_at(moment(80_000));
    for format in both {
        let files = rig.finished(&task, format, 1);
        // The window ends at 60 s: the sample that comes then is not recorded.
        assert_eq!(rig.samples(&files[0]), range(500, 1_500), "{format}");
        assert_eq!(files[0].duration_ms, 40_000, "{format}");
    }
}

#[test]
fn overlapping_tasks_have_each_their_own_and_a_stopped_one_ends_there() {
    let mut rig = Rig::new(RECORD);
    rig.begin();
    rig.send(100);
    let one = rig.ask(Rig::wish(4_000, 60_000, &[FileFormat::Flv]));
    rig.send(200);
    let other = rig.ask(Rig::wish(8_000, 12_000, &[FileFormat::Mp4]));
    let coming = rig.ask(Rig::wish(10_000, 14_000, &[FileFormat::Flv]));
    rig.send(250);
    rig.tick();
    rig.send(275);
    rig.stop(one.id());
    rig.send(500);
    rig.drop_stream();
    rig.tick_at(moment(21_000));
    rig.tick_at(moment(40_000));
    let of = |task: &Task, format| {
        let files = rig.finished(task, format, 1);
        rig.samples(&files[0])
    };
    // Each begins at the last key frame that was in the ring.
    let check = |task: &Task, format, asked: u64, until: u64| {
        let samples = of(task, format);
        let first = samples[0];
        assert!(first.is_multiple_of(25) && (asked - 100..=asked).contains(&first), "{first}");
        assert_eq!(samples, range(first, until));
    };
    check(&one, FileFormat::Flv, 100, 275);
    check(&other, FileFormat::Mp4, 200, 300);
    check(&coming, FileFormat::Flv, 250, 350);
    let all = rig.all_finished();
    let by_template = all.into_iter().find(|file| file.task_id.is_none()).expect("one");
    assert_eq!(rig.samples(&by_template), range(0, 500));
}

#[test]
fn a_task_wakes_a_stream_that_is_not_recorded_and_lets_it_sleep_again() {
    let mut rig = Rig::new(NO_RECORD);
    rig.begin();
    rig.send(110);
    let task = rig.ask(Rig::wish(0, 10_000, &[FileFormat::Flv]));
    rig.send(500);
    rig.drop_stream();
    rig.tick_at(moment(21_000));
    rig.tick_at(moment(40_000));
    let files = rig.finished(&task, FileFormat::Flv, 1);
    // Nothing of the past is in the ring: from the next key frame to the end of the window.
    assert_eq!(rig.samples(&files[0]), range(125, 250));
    assert_eq!(rig.files().len(), 1, "nothing else is recorded");
    let whole = rig.ring.open_range_clip(&key(), 0, i64::MAX).expect("the task's media");
    assert_eq!(Rig::samples_of(&whole), range(125, 250), "nothing else is on flash");
}

#[test]
fn a_task_runs_on_through_a_restart_and_over_drops() {
    let mut rig = Rig::new(RECORD);
    rig.begin();
    rig.send(60);
    let task = rig.ask(Rig::wish(0, 60_000, &[FileFormat::Flv]));
    rig.send(110);
    let apply = Apply { mode: ApplyMode::Restart, within_s: 0, disconnect: false };
    let next = rig.rules.load().followed_by(table(RECORD_OTHERWISE), apply, rig.now().at.boot);
    rig.rules.store(Arc::new(next));
    rig.send(200);
    rig.drop_stream();
    rig.next = 250;
    rig.tick();
    rig.begin();
    rig.send(300);
    rig.drop_stream();
    rig.tick_at(moment(61_000));
    rig.tick_at(moment(80_000));
    let files = rig.finished(&task, FileFormat::Flv, 2);
    assert_eq!(rig.samples(&files[0]), range(0, 200), "no cut where the rules changed");
    assert_eq!(rig.samples(&files[1]), range(250, 300), "a new file after the interruption");
    let of_rules: Vec<FileRecord> =
        rig.all_finished().into_iter().filter(|file| file.task_id.is_none()).collect();
    let samples: Vec<(FileFormat, Vec<u64>)> =
        of_rules.iter().map(|file| (file.format, rig.samples(file))).collect();
    let expected = [
        (FileFormat::Flv, range(0, 125)),
        (FileFormat::Mp4, range(125, 200)),
        (FileFormat::Mp4, range(250, 300)),
    ];
    assert_eq!(samples, expected);
}

#[test]
fn a_task_that_opens_as_its_stream_ends_has_what_was_on_its_way_to_flash() {
    for ends_first in [true, false] {
        let mut rig = Rig::new(RECORD);
        rig.begin();
        rig.send(112);
        let wish = Rig::wish(0, 60_000, &[FileFormat::Flv]);
        if ends_first {
            rig.drop_stream();
        }
        let task = rig.ask(wish);
        if !ends_first {
            rig.drop_stream();
        }
        rig.tick_until_durable(1);
        rig.tick_at(moment(61_000));
        rig.tick_at(moment(80_000));
        let files = rig.finished(&task, FileFormat::Flv, 1);
        let samples = rig.samples(&files[0]);
        let ends = (samples.first(), samples.last(), samples.len());
        assert_eq!(ends, (Some(&0), Some(&111), 112), "the stream ends first: {ends_first}");
        assert_eq!(files[0].duration_ms, 112 * 40);
    }
}

#[test]
fn tasks_beyond_what_a_stream_can_have_wait_and_lose_nothing() {
    let mut rig = Rig::new(RECORD);
    rig.begin();
    rig.send(50);
    let wish = || Rig::wish(0, 60_000, &[FileFormat::Flv]);
    let tasks: Vec<Arc<Task>> = (0..64).map(|_| rig.ask(wish())).collect();
    rig.send(100);
    let opened = |rig: &Rig| {
        let of_tasks = rig.files().into_iter().filter_map(|file| file.task_id);
        of_tasks.collect::<std::collections::BTreeSet<String>>().len()
    };
    assert_eq!(opened(&rig), 61);
    tasks[..3].iter().for_each(|task| rig.stop(task.id()));
    rig.tick();
    rig.tick();
    assert_eq!(opened(&rig), 64);
    rig.send(150);
    rig.drop_stream();
    rig.tick_until_durable(64);
    rig.tick_at(moment(61_000));
    rig.tick_at(moment(80_000));
    for (number, task) in tasks.iter().enumerate() {
        let files = rig.finished(task, FileFormat::Flv, 1);
        let samples = rig.samples(&files[0]);
        let end = if number < 3 { 99 } else { 149 };
        let ends = (samples.first(), samples.last(), samples.len() as u64);
        assert_eq!(ends, (Some(&0), Some(&end), end + 1), "task {number}");
    }
}

#[test]
fn a_window_that_is_past_is_served_from_the_ring_once() {
    let mut rig = Rig::new(RECORD);
    rig.begin();
    rig.send(500);
    rig.drop_stream();
    rig.all_finished();
    rig.next = 700;
    let task = rig.ask(Rig::wish(5_000, 9_000, &[FileFormat::Mp4]));
    rig.tick_at(moment(40_000));
    rig.tick_at(moment(60_000));
    let files = rig.finished(&task, FileFormat::Mp4, 1);
    let samples = rig.samples(&files[0]);
    assert_eq!(samples.first(), Some(&125));
    assert!((225..=250).contains(samples.last().expect("some")), "{samples:?}");
}

#[test]
fn a_past_window_with_damage_in_it_is_served_but_for_what_is_damaged() {
    let mut rig = Rig::new(RECORD);
    rig.begin();
    rig.send(900);
    rig.drop_stream();
    rig.all_finished();
    rig.damage(250);
    rig.next = 1_000;
    let task = rig.ask(Rig::wish(5_000, 29_000, &[FileFormat::Mp4]));
    rig.tick_at(moment(60_000));
    rig.tick_at(moment(90_000));
    let files = rig.all_finished();
    let of_task = files.iter().filter(|file| file.task_id.as_ref() == Some(&task.shown()));
    let samples: Vec<u64> = of_task.flat_map(|file| rig.samples(file)).collect();
    assert!(range(125, 250).iter().all(|number| samples.contains(number)), "{samples:?}");
    assert!(!samples.contains(&250) && samples.contains(&700), "{samples:?}");
    assert!(samples.is_sorted());
}

#[test]
fn a_highlight_begins_at_the_last_key_frame_or_earlier_if_asked() {
    let mut rig = Rig::new(RECORD);
    rig.begin();
    rig.send(512);
    let highlight = |pre_roll_s| Wish {
        when: When::Highlight { pre_roll_s, end_ms: Some(DAWN_MS + 30_000) },
        ..Rig::wish(0, 1, &[FileFormat::Mp4])
    };
    let plain = rig.ask(highlight(0));
    let early = rig.ask(highlight(10));
    rig.send(600);
    rig.stop(plain.id());
    rig.send(900);
    rig.drop_stream();
    rig.tick_at(moment(37_000));
    rig.tick_at(moment(60_000));
    let of = |task: &Task| rig.samples(&rig.finished(task, FileFormat::Mp4, 1)[0]);
    // What arrived last may not be durable yet: the key frame before it then.
    let samples = of(&plain);
    let first = samples[0];
    assert!([450, 475, 500].contains(&first), "{first}");
    assert_eq!(samples, range(first, 600));
    assert_eq!(of(&early), range(250, 750));
}

#[test]
fn windows_that_may_be_open_are_recorded_and_decided_once_the_clock_is_set() {
    let mut rig = Rig::new(NO_RECORD);
    let here = rig.create(Rig::wish(0, 60_000, &[FileFormat::Flv]));
    let ahead = rig.create(Rig::wish(100_000, 160_000, &[FileFormat::Mp4]));
    rig.blind = true;
    rig.begin();
    rig.tick();
    rig.send(100);
    for task in [&here, &ahead] {
        let files = rig.recording(task);
        assert_eq!((files.len(), files[0].trusted), (1, false), "{files:#?}");
    }
    rig.blind = false;
    rig.send(150);
    rig.tick();
    rig.drop_stream();
    // All of it is durable.
    rig.finished(&here, FileFormat::Flv, 1);
    rig.tick_at(moment(20_000));
    let discarded = rig.of(&ahead);
    let why = "recorded while the clock was not set; the task's window was elsewhere";
    assert_eq!((discarded[0].state, discarded[0].why.as_str()), (FileState::Evicted, why));

    // The window that lay ahead opens: what it discarded says nothing of what it records.
    rig.next = 2_600;
    rig.tick();
    rig.begin();
    rig.tick();
    rig.send(2_700);
    rig.drop_stream();
    let deadline = StdInstant::now() + Duration::from_secs(30);
    let kept = loop {
        let mut kept = rig.of(&ahead);
        kept.retain(|file| file.state == FileState::Waiting);
        if !kept.is_empty() {
            break kept;
        }
        assert!(StdInstant::now() < deadline, "not recorded again: {:#?}", rig.of(&ahead));
        std::thread::yield_now();
    };
    rig.tick_at(moment(161_000));
    rig.tick_at(moment(180_000));
    let files = rig.finished(&here, FileFormat::Flv, 1);
    assert_eq!(rig.samples(&files[0]), range(0, 150));
    let times = (files[0].start_ms - DAWN_MS, files[0].end_ms - DAWN_MS, files[0].trusted);
    assert_eq!(times, (0, 149 * 40, true), "dated by what came later");
    assert_eq!(kept.len(), 1, "{kept:#?}");
    assert_eq!(rig.samples(&kept[0]), range(2_600, 2_700));
}

#[test]
fn a_task_goes_on_after_the_clock_was_wrong_by_a_year() {
    let mut rig = Rig::new(RECORD);
    rig.begin();
    rig.send(50);
    let task = rig.ask(Rig::wish(0, 120_000, &[FileFormat::Flv]));
    rig.recording(&task);
    rig.send(100);
    let year_on = |ms: u64| {
        let Moment { mut at, boot_id } = moment(ms);
        at.wall.unix.0 += 365 * 86_400_000;
        Moment { at, boot_id }
    };
    rig.tick_at(year_on(4_000));
    rig.tick_at(year_on(5_100));
    rig.send(200);
    // Set right again, with the window still open.
    rig.tick_at(moment(8_000));
    rig.send(600);
    rig.tick();
    rig.send(700);
    rig.drop_stream();
    rig.tick_at(moment(121_000));
    rig.tick_at(moment(140_000));
    let files = rig.all_finished();
    let of_task = files.iter().filter(|file| file.task_id.as_ref() == Some(&task.shown()));
    let samples: Vec<u64> = of_task.flat_map(|file| rig.samples(file)).collect();
    let once: std::collections::BTreeSet<u64> = samples.iter().copied().collect();
    assert_eq!(once.len(), samples.len(), "each picture once");
    assert!(once.range(600..700).count() == 100, "{samples:?}");
}
