//! The ring with the recorder in front of it: what is handed over is found again, also by a
//! program that finds the ring as a crash left it.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgerec::domain::eviction::OnFull;
use edgerec::domain::files::FileFormat;
use edgerec::domain::ids::BootId;
use edgerec::domain::matching::{Layer, RuleTable};
use edgerec::domain::rule_set::RuleSet;
use edgerec::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use edgerec::domain::stream_key::StreamKey;
use edgerec::domain::time::{BootTime, ClockQuality, Instant, Moment, UnixMillis, WallTime};
use edgerec::media::clip::ClipSource;
use edgerec::media::fmp4::parse_moof;
use edgerec::platform::clock::SystemClock;
use edgerec::platform::flash::SystemFlash;
use edgerec::recorder::live::LiveTable;
use edgerec::recorder::rules::Rules;
use edgerec::recorder::session::SessionFault;
use edgerec::recorder::stream::LiveStream;
use edgerec::recorder::{Beginning, Recorder, RecorderSettings};
use edgerec::ring::catalog::CatalogSettings;
use edgerec::ring::catalog::files::FileRecord;
use edgerec::ring::catalog::open::FileState;
use edgerec::ring::catalog::pushes::PushId;
use edgerec::ring::clip::RingClip;
use edgerec::ring::handle::{Ring, RingSettings, RingThreads};
use edgerec::ring::identity::RingIdentity;
use support::recorded_ring::copy_ring;

const SLOT_BYTES: u64 = 1 << 20;
const BOOT: BootId = BootId([1; 16]);

/// In memory: nothing here is about what a power cut leaves, and a sync on a busy disk takes long.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a scratch directory")
}

fn format(path: &Path, slots: u64) {
    let identity = RingIdentity::plan(path, (8 << 20) + slots * SLOT_BYTES, SLOT_BYTES);
    identity.expect("fits").create(&SystemFlash, path).expect("made");
}

fn open(path: &Path) -> (Arc<Ring>, RingThreads) {
    let settings = RingSettings {
        path: path.to_owned(),
        sync_interval: Duration::from_millis(20),
        catalog: CatalogSettings { on_full: OnFull::OverwriteOldest, delivers: false },
    };
    Ring::open(&settings, Arc::new(SystemFlash), Arc::new(SystemClock::new())).expect("opens")
}

fn recorder(ring: &Arc<Ring>, keep_all: bool) -> Arc<Recorder> {
    recorder_that_joins(ring, keep_all, 0)
}

/// A recorder that waits this long for a stream to come back.
fn recorder_that_joins(ring: &Arc<Ring>, keep_all: bool, flow_continue_s: u32) -> Arc<Recorder> {
    let document = r#"{"revision": 1,
        "templates": [{"TemplateName": "t", "Mp4Param": {"Enable": 1, "RecordInterval": 60},
                       "HlsParam": {"Enable": 1},
                       "HlsSpecialParam": {"FlowContinueDuration": SECONDS}}],
        "rules": [{"DomainName": "", "AppName": "", "StreamName": "cam", "TemplateName": "t"}]}"#;
    let document = document.replace("SECONDS", &flow_continue_s.to_string());
    let set = RuleSet::parse(document.as_bytes()).expect("valid");
    let rules =
        Arc::new(ArcSwap::from_pointee(Rules::first(RuleTable::new([(Layer::Fleet, &set)]))));
    let settings = RecorderSettings::for_slots(SLOT_BYTES, keep_all, 3_600);
    let live = Arc::new(LiveTable::default());
    Arc::new(Recorder::new(ring.clone(), rules, live, settings).expect("the ring is open"))
}

fn begin(recorder: &Arc<Recorder>, name: &str, seed: u64) -> LiveStream {
    begin_at(recorder, name, seed, 0)
}

fn begin_at(recorder: &Arc<Recorder>, name: &str, seed: u64, ms: u64) -> LiveStream {
    let key = StreamKey::new("d", "live", name).expect("valid");
    let (now, boot_id) = (at(ms), BOOT);
    let beginning = Beginning {
        key,
        push: PushId(i64::try_from(seed).expect("small")),
        protocol: "rtmp",
        query: String::new(),
        now,
        boot_id,
    };
    let mut number = seed * 1_000;
    let mut random = || {
        number += 2;
        number
    };
    LiveStream::begin(recorder.clone(), beginning, &mut random).expect("a lane is free")
}

/// Hands a sample over; no new session begins with it.
fn send(stream: &mut LiveStream, sample: Sample, arrival: u64) -> Result<(), SessionFault> {
    stream.sample(sample, at(arrival), &mut || unreachable!("no identity is needed"))
}

fn moment(ms: u64) -> Moment {
    Moment { at: at(ms), boot_id: BOOT }
}

fn at(ms: u64) -> Instant {
    let unix = UnixMillis(1_800_000_000_000 + i64::try_from(ms).expect("small"));
    let wall = WallTime { unix, quality: ClockQuality::Trusted };
    Instant { boot: BootTime(1_000 + ms), wall }
}

/// A sample every 40 ms, a key frame every second, payload that says which sample it is.
fn feed(session: &mut LiveStream, from: u64, until: u64, bytes: usize) {
    let shape = Shape::Video { width: 64, height: 64 };
    let config = Bytes::from_static(&[1, 66, 0, 30, 255, 225, 0, 0, 1, 0, 0]);
    let (id, codec, timescale) = (TrackId(1), Codec::H264, 1_000);
    session.tracks(&[Track { id, codec, timescale, config, shape }]);
    for index in from..until {
        let dts = i64::try_from(index * 40).expect("small");
        let mut data = vec![0; bytes];
        data[..8].copy_from_slice(&index.to_be_bytes());
        let key = index % 25 == 0;
        let sample = Sample { track: id, dts, pts: dts, key, data: data.into() };
        send(session, sample, index * 40).expect("taken");
    }
}

/// One sample of a track with this configuration, at a source time and an arrival time.
fn feed_one(session: &mut LiveStream, config: &'static [u8], dts: i64, arrival: u64) {
    feed_one_of(session, config, dts, arrival, 64);
}

fn feed_one_of(
    session: &mut LiveStream,
    config: &'static [u8],
    dts: i64,
    arrival: u64,
    bytes: usize,
) {
    let shape = Shape::Video { width: 64, height: 64 };
    let (id, codec, timescale) = (TrackId(1), Codec::H264, 1_000);
    session.tracks(&[Track { id, codec, timescale, config: config.into(), shape }]);
    let data = vec![7; bytes].into();
    let sample = Sample { track: id, dts, pts: dts, key: true, data };
    send(session, sample, arrival).expect("taken");
}

const CONFIG_A: &[u8] = &[1, 66, 0, 30, 255, 225, 0, 0, 1, 0, 0];
const CONFIG_B: &[u8] = &[1, 77, 0, 30, 255, 225, 0, 0, 1, 0, 0];

/// Feeds no faster than the ring writes: a lane holds seven fragments.
fn feed_paced(ring: &Ring, session: &mut LiveStream, from: u64, until: u64, bytes: usize) {
    for start in (from..until).step_by(100) {
        let end = until.min(start + 100);
        feed(session, start, end, bytes);
        let fed_ms = i64::try_from(end * 40).expect("small");
        wait_for(ring, "what was fed is durable", |files| {
            let last = files.iter().map(|file| file.end_ms).max().unwrap_or(0);
            last - 1_800_000_000_000 >= fed_ms - 1_100
        });
    }
}

/// Asks the catalog until it says what is expected.
fn wait_for(ring: &Ring, what: &str, holds: impl Fn(&[FileRecord]) -> bool) -> Vec<FileRecord> {
    let deadline = StdInstant::now() + Duration::from_secs(60);
    loop {
        let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
        if holds(&files) {
            return files;
        }
        assert!(StdInstant::now() < deadline, "not reached: {what}; files: {files:#?}");
    }
}

/// The numbers of the samples in a clip, in order, with their times checked.
fn samples_of(clip: &RingClip) -> Vec<u64> {
    let mut numbers = Vec::new();
    for fragment in 0..clip.fragment_count() {
        let moof = parse_moof(&clip.moof(fragment).expect("read")).expect("ours");
        let mut offset = 0;
        for sample in moof.runs.iter().flat_map(|run| &run.samples) {
            let mut number = [0; 8];
            clip.read_payload(fragment, offset, &mut number).expect("read");
            let number = u64::from_be_bytes(number);
            assert_eq!(sample.dts, i64::try_from(number * 40).expect("small"));
            numbers.push(number);
            offset += sample.size;
        }
    }
    numbers
}

fn by_format(files: &[FileRecord], format: FileFormat) -> Vec<&FileRecord> {
    files.iter().filter(|file| file.format == format).collect()
}

#[test]
fn a_session_becomes_files_that_hold_every_sample_once() {
    let dir = scratch();
    format(dir.path(), 24);
    let (ring, threads) = open(dir.path());
    let mut session = begin(&recorder(&ring, false), "cam", 1);
    feed_paced(&ring, &mut session, 0, 3_100, 4_000);
    session.end("finished", at(124_000));
    let done = |files: &[FileRecord]| {
        files.len() == 4 && files.iter().all(|file| file.state == FileState::Waiting)
    };
    let files = wait_for(&ring, "one HLS file and three MP4 files", done);
    let hls = by_format(&files, FileFormat::Hls);
    assert_eq!((hls[0].duration_ms, hls[0].tracks.as_slice()), (124_000, &["h264".to_owned()][..]));
    let all: Vec<u64> = (0..3_100).collect();
    assert_eq!(samples_of(&ring.open_file_clip(hls[0].id).expect("there")), all);
    let mp4 = by_format(&files, FileFormat::Mp4);
    let starts: Vec<i64> = mp4.iter().map(|file| file.start_ms - hls[0].start_ms).collect();
    assert_eq!(starts, [0, 60_000, 120_000]);
    let parts =
        mp4.iter().flat_map(|file| samples_of(&ring.open_file_clip(file.id).expect("there")));
    assert_eq!(parts.collect::<Vec<_>>(), all);

    // A range of the ring begins at the key frame before it.
    let key = hls[0].key.clone();
    let from_ms = hls[0].start_ms + 10_500;
    let range = ring.open_range_clip(&key, from_ms, from_ms + 3_000).expect("there");
    let numbers = samples_of(&range);
    assert_eq!(numbers.first(), Some(&250));
    assert!((325..=375).contains(numbers.last().expect("some")), "{numbers:?}");
    drop(range);
    threads.close(&ring);

    let (ring, threads) = open(dir.path());
    assert_eq!(samples_of(&ring.open_file_clip(files[0].id).expect("still there")).len(), {
        let again = ring.catalog.call_blocking(|state| state.files()).expect("listed");
        assert_eq!(again.len(), 4);
        samples_of(&ring.open_file_clip(again[0].id).expect("there")).len()
    });
    threads.close(&ring);
}

#[test]
fn what_was_durable_at_a_crash_is_found_again_and_the_slot_goes_on() {
    let dir = scratch();
    let crashed = scratch();
    format(dir.path(), 24);
    let (ring, threads) = open(dir.path());
    let mut session = begin(&recorder(&ring, false), "cam", 1);
    feed_paced(&ring, &mut session, 0, 1_000, 4_000);
    let durable = |files: &[FileRecord]| files.iter().any(|file| file.duration_ms >= 38_000);
    wait_for(&ring, "38 s are durable", durable);
    copy_ring(dir.path(), crashed.path());
    session.end("finished", at(40_000));
    threads.close(&ring);

    let (ring, threads) = open(crashed.path());
    let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
    assert_eq!(files.len(), 2, "{files:#?}");
    for file in &files {
        assert_eq!(file.state, FileState::Waiting);
        let numbers = samples_of(&ring.open_file_clip(file.id).expect("there"));
        assert!(numbers.len() >= 950, "only {} samples were found", numbers.len());
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    }
    // A new session of the same stream goes on in the slot that was open.
    let mut session = begin(&recorder(&ring, false), "cam", 2);
    feed(&mut session, 0, 100, 4_000);
    session.end("finished", at(4_000));
    let files = wait_for(&ring, "the new session's files", |files| {
        files.len() == 4 && files.iter().all(|file| file.state == FileState::Waiting)
    });
    for file in &files[2..] {
        assert!(samples_of(&ring.open_file_clip(file.id).expect("there")).len() >= 100);
    }
    threads.close(&ring);
}

#[test]
fn a_lost_catalog_is_made_anew_from_the_slots() {
    let dir = scratch();
    format(dir.path(), 24);
    let (ring, threads) = open(dir.path());
    let mut session = begin(&recorder(&ring, false), "cam", 1);
    feed_paced(&ring, &mut session, 0, 2_000, 4_000);
    session.end("finished", at(80_000));
    let done = |files: &[FileRecord]| {
        files.len() == 3 && files.iter().all(|file| file.state == FileState::Waiting)
    };
    let mut before: Vec<_> =
        wait_for(&ring, "files", done).iter().map(|file| (file.id, file.duration_ms)).collect();
    threads.close(&ring);
    std::fs::write(dir.path().join("state.db"), vec![0xa5; 20_000]).expect("damaged");

    let (ring, threads) = open(dir.path());
    assert!(dir.path().join("state.db.damaged").exists());
    let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
    let mut after: Vec<_> = files.iter().map(|file| (file.id, file.duration_ms)).collect();
    before.sort();
    after.sort();
    assert_eq!(after, before);
    threads.close(&ring);
}

#[test]
fn a_full_ring_reuses_the_oldest_slots_and_leased_ones_stay() {
    let dir = scratch();
    format(dir.path(), 8);
    let (ring, threads) = open(dir.path());
    let mut session = begin(&recorder(&ring, false), "cam", 1);
    feed_paced(&ring, &mut session, 0, 500, 4_000);
    wait_for(&ring, "a first file", |files| files.iter().any(|file| file.duration_ms > 15_000));
    let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
    let leased = ring.open_file_clip(by_format(&files, FileFormat::Hls)[0].id).expect("there");
    feed_paced(&ring, &mut session, 500, 6_000, 4_000);
    let first = samples_of(&leased);
    assert_eq!(first, (0..first.len() as u64).collect::<Vec<_>>());
    drop(leased);
    session.end("finished", at(240_000));
    threads.close(&ring);
}

#[test]
fn a_stream_without_a_rule_leaves_nothing_in_the_ring_and_keep_all_keeps_it() {
    let dir = scratch();
    format(dir.path(), 8);
    let (ring, threads) = open(dir.path());
    let mut unwanted = begin(&recorder(&ring, false), "other", 1);
    feed(&mut unwanted, 0, 3, 1_000);
    unwanted.end("finished", at(120));
    let mut session = begin(&recorder(&ring, true), "other", 2);
    feed(&mut session, 3, 150, 1_000);
    session.end("finished", at(6_000));
    let key = StreamKey::new("d", "live", "other").expect("valid");
    let deadline = StdInstant::now() + Duration::from_secs(60);
    let clip = loop {
        match ring.open_range_clip(&key, 0, i64::MAX) {
            Ok(clip) if samples_of(&clip).last() == Some(&149) => break clip,
            _ => assert!(StdInstant::now() < deadline, "the stream is not in the ring"),
        }
    };
    assert_eq!(samples_of(&clip).first(), Some(&25), "a range begins at a key frame");
    let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
    assert!(files.is_empty(), "ring-only media is no file: {files:?}");
    drop(clip);
    threads.close(&ring);
}

#[test]
fn a_change_of_parameters_or_time_begins_new_mp4_files_and_a_new_part_of_the_hls_file() {
    let dir = scratch();
    format(dir.path(), 16);
    let (ring, threads) = open(dir.path());
    let mut session = begin(&recorder(&ring, false), "cam", 1);
    for index in 0..4 {
        feed_one(&mut session, CONFIG_A, 10_000 + index * 500, index as u64 * 500);
    }
    let reached = |arrival: i64| {
        wait_for(&ring, "what was fed is durable", |files| {
            files.iter().any(|file| file.end_ms - 1_800_000_000_000 >= arrival)
        });
    };
    reached(1_000);
    // Other parameters, time goes on; then the source's clock jumps back by eight seconds.
    for index in 4..8 {
        feed_one(&mut session, CONFIG_B, 10_000 + index * 500, index as u64 * 500);
    }
    reached(3_000);
    for index in 8..12 {
        feed_one(&mut session, CONFIG_B, index * 500, index as u64 * 500);
    }
    session.end("finished", at(6_000));
    let done = |files: &[FileRecord]| {
        files.len() == 4 && files.iter().all(|file| file.state == FileState::Waiting)
    };
    let files = wait_for(&ring, "one HLS file and three MP4 files", done);
    let hls = ring.open_file_clip(by_format(&files, FileFormat::Hls)[0].id).expect("there");
    let parts: Vec<(bool, u8)> =
        hls.parts().iter().map(|part| (part.discontinuity, part.tracks[0].config[1])).collect();
    assert_eq!(parts, [(false, 66), (true, 77), (true, 77)]);
    for file in by_format(&files, FileFormat::Mp4) {
        let clip = ring.open_file_clip(file.id).expect("there");
        assert_eq!((clip.parts().len(), clip.fragment_count()), (1, 4), "{file:?}");
        assert_eq!(file.duration_ms, 2_000);
    }
    threads.close(&ring);
}

#[test]
fn what_flash_cannot_take_is_dropped_whole_and_its_file_begins_with_what_follows() {
    let dir = scratch();
    format(dir.path(), 8);
    let (ring, threads) = open(dir.path());
    let recorder = recorder(&ring, false);
    // The writer is gone: nothing takes fragments from the lane any more.
    threads.close(&ring);
    let mut session = begin(&recorder, "cam", 1);
    feed(&mut session, 0, 1_000, 100);
    let dropped = ring.lanes.meters.read().fragments_dropped;
    assert!(dropped >= 30, "the lane holds seven of forty fragments");
    session.end("finished", at(40_000));
}

/// Feeds six samples, half a second apart, that arrive from `arrival` on.
fn feed_short(session: &mut LiveStream, arrival: u64) {
    for index in 0..6_i64 {
        feed_one(session, CONFIG_A, index * 500, arrival + index.cast_unsigned() * 500);
    }
}

#[test]
fn a_stream_that_stalls_leaves_nothing_in_memory() {
    let dir = scratch();
    format(dir.path(), 8);
    let (ring, threads) = open(dir.path());
    let recorder = recorder(&ring, false);
    let mut session = begin(&recorder, "cam", 1);
    feed(&mut session, 0, 10, 100);
    assert!(recorder.tick(moment(2_000)).is_empty());
    wait_for(&ring, "what has come is durable", |files| {
        files.iter().any(|file| file.duration_ms == 400)
    });
    session.end("finished", at(2_000));
    threads.close(&ring);
}

/// Waits until sessions have ended for the catalog too: each leaves a finished MP4 file.
fn wait_for_ended(ring: &Ring, sessions: usize) {
    wait_for(ring, "the sessions' ends are durable", |files| {
        let mp4 = by_format(files, FileFormat::Mp4);
        mp4.iter().filter(|file| file.state == FileState::Waiting).count() == sessions
    });
}

#[test]
fn a_stream_that_comes_back_in_time_goes_on_with_its_hls_file_and_begins_a_new_mp4() {
    let dir = scratch();
    let crashed = scratch();
    format(dir.path(), 16);
    let (ring, threads) = open(dir.path());
    let recorder = recorder_that_joins(&ring, false, 60);
    let mut first = begin_at(&recorder, "cam", 1, 0);
    feed_short(&mut first, 0);
    first.end("unplugged", at(3_000));
    let mut second = begin_at(&recorder, "cam", 2, 50_000);
    feed_short(&mut second, 50_000);
    let growing = wait_for(&ring, "the second stretch is durable", |files| {
        files.iter().any(|file| file.format == FileFormat::Hls && file.duration_ms >= 5_000)
    });
    assert_eq!(by_format(&growing, FileFormat::Mp4)[0].state, FileState::Waiting);
    copy_ring(dir.path(), crashed.path());
    second.end("unplugged", at(53_000));
    wait_for_ended(&ring, 2);
    // Nobody comes back: after the window the recording is over.
    assert!(recorder.tick(moment(113_000)).is_empty());
    let open_still = ring.catalog.call_blocking(|state| state.files()).expect("listed");
    assert_eq!(by_format(&open_still, FileFormat::Hls)[0].state, FileState::Recording);
    assert!(recorder.tick(moment(113_001)).is_empty());
    assert!(recorder.tick(moment(126_000)).is_empty());
    let files = wait_for(&ring, "everything is finished", |files| {
        files.len() == 3 && files.iter().all(|file| file.state == FileState::Waiting)
    });
    let hls = by_format(&files, FileFormat::Hls);
    assert_eq!((hls.len(), hls[0].duration_ms), (1, 6_000));
    let clip = ring.open_file_clip(hls[0].id).expect("there");
    let parts: Vec<(bool, u32)> =
        clip.parts().iter().map(|part| (part.discontinuity, part.fragments)).collect();
    assert_eq!(parts, [(false, 6), (true, 6)]);
    drop(clip);
    threads.close(&ring);

    // A crash in the second stretch: what was durable of both is one file.
    let (ring, threads) = open(crashed.path());
    let files = ring.catalog.call_blocking(|state| state.files()).expect("listed");
    let hls = by_format(&files, FileFormat::Hls);
    assert_eq!((hls.len(), hls[0].state), (1, FileState::Waiting));
    let clip = ring.open_file_clip(hls[0].id).expect("there");
    let discontinuities: Vec<bool> = clip.parts().iter().map(|part| part.discontinuity).collect();
    assert_eq!((discontinuities, clip.fragment_count() >= 10), (vec![false, true], true));
    drop(clip);
    threads.close(&ring);
}

#[test]
fn a_stream_that_comes_back_too_late_begins_a_new_recording() {
    let dir = scratch();
    format(dir.path(), 16);
    let (ring, threads) = open(dir.path());
    let recorder = recorder_that_joins(&ring, false, 60);
    let mut first = begin_at(&recorder, "cam", 1, 0);
    feed_short(&mut first, 0);
    first.end("unplugged", at(3_000));
    wait_for_ended(&ring, 1);
    let mut second = begin_at(&recorder, "cam", 2, 63_001);
    feed_short(&mut second, 63_001);
    second.end("unplugged", at(66_001));
    wait_for_ended(&ring, 2);
    assert!(recorder.tick(moment(200_000)).is_empty());
    assert!(recorder.tick(moment(213_000)).is_empty());
    let files = wait_for(&ring, "everything is finished", |files| {
        files.len() == 4 && files.iter().all(|file| file.state == FileState::Waiting)
    });
    for hls in by_format(&files, FileFormat::Hls) {
        assert_eq!(ring.open_file_clip(hls.id).expect("there").parts().len(), 1);
    }
    threads.close(&ring);
}

#[test]
fn parameters_that_change_all_the_time_end_the_session() {
    let dir = scratch();
    format(dir.path(), 8);
    let (ring, threads) = open(dir.path());
    let mut session = begin(&recorder(&ring, false), "cam", 1);
    let mut taken = 0;
    for (index, config) in [CONFIG_A, CONFIG_B].into_iter().cycle().take(100).enumerate() {
        let shape = Shape::Video { width: 64, height: 64 };
        let (id, codec, timescale) = (TrackId(1), Codec::H264, 1_000);
        session.tracks(&[Track { id, codec, timescale, config: config.into(), shape }]);
        let dts = i64::try_from(index * 40).expect("small");
        let data = Bytes::from_static(&[7; 64]);
        let sample = Sample { track: id, dts, pts: dts, key: true, data };
        if send(&mut session, sample, index as u64 * 40).is_err() {
            break;
        }
        taken += 1;
    }
    assert!((20..=40).contains(&taken), "{taken} changes were let through");
    session.end("faulty", at(5_000));
    threads.close(&ring);
}

#[test]
fn a_segment_that_runs_on_into_further_slots_is_one_part() {
    let dir = scratch();
    format(dir.path(), 16);
    let (ring, threads) = open(dir.path());
    let mut session = begin(&recorder(&ring, false), "cam", 1);
    feed_one(&mut session, CONFIG_A, 0, 0);
    for index in 1..20_i64 {
        let arrival = index.cast_unsigned() * 500;
        feed_one_of(&mut session, CONFIG_B, index * 500, arrival, 200_000);
        // A sample ends the fragment of the one before it.
        wait_for(&ring, "the sample before is durable", |files| {
            let last = files.iter().map(|file| file.end_ms).max().unwrap_or(0);
            last - 1_800_000_000_000 >= (index - 1) * 500
        });
    }
    session.end("finished", at(10_000));
    let files = wait_for(&ring, "everything is finished", |files| {
        files.len() == 3 && files.iter().all(|file| file.state == FileState::Waiting)
    });
    let clip = ring.open_file_clip(by_format(&files, FileFormat::Hls)[0].id).expect("there");
    let parts: Vec<(bool, u32)> =
        clip.parts().iter().map(|part| (part.discontinuity, part.fragments)).collect();
    assert_eq!(parts, [(false, 1), (true, 19)], "four slots, one change");
    threads.close(&ring);
}
