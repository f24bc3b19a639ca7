//! The harness itself: what it promises to the tests that stand on it.

mod support;

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, Instant};

use support::block_log::{BlockLog, Cache};
use support::chance::Chance;
use support::media::Clip;
use support::packets::{Kind, of_kind, packets, streams, try_packets};
use support::process::{Process, Stdout, run_ok};
use support::wait::{poll_for, wait_until};
use support::{scratch, tool};

const SECTOR: usize = 512;

/// A log as qemu writes it: entries of (first sector, flags, one byte that fills the data).
fn log_bytes(entries: &[(u64, u64, &[u8])], count: u64) -> Vec<u8> {
    let sector = |numbers: &[u64]| {
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.resize(SECTOR, 0);
        bytes
    };
    let mut log = sector(&[0x006a_7366_7773_6872, 1, count, SECTOR as u64]);
    for (at, flags, fill) in entries {
        log.extend(sector(&[*at, fill.len() as u64, *flags, 0]));
        log.extend(fill.iter().flat_map(|byte| [*byte; SECTOR]));
    }
    log
}

fn disk_after(log: &BlockLog, end: usize, cache: Cache, seed: u64) -> Vec<u8> {
    let dir = scratch("disk");
    let path = dir.path().join("disk.img");
    let image = File::create_new(&path).expect("made");
    image.set_len(8 * SECTOR as u64).expect("stretched");
    let flushed = log.flushed_before(end);
    log.apply(&image, 0, flushed).expect("applied");
    log.apply_unflushed(&image, flushed, end, cache, &mut Chance::new(seed)).expect("applied");
    fs::read(&path).expect("read").chunks(SECTOR).map(|sector| sector[0]).collect()
}

#[test]
fn a_block_log_is_cut_as_the_cache_models_say() {
    let dir = scratch("log");
    let path = dir.path().join("log.img");
    let entries: [(u64, u64, &[u8]); 6] = [
        (0, 0, &[1, 1]),
        (0, 1, &[]),
        (2, 0, &[2, 3]),
        (4, 2, &[4]),
        (0, 0, &[5]),
        (5, 0, &[6, 7]),
    ];
    fs::write(&path, log_bytes(&entries, 6)).expect("written");
    let log = BlockLog::open(&path).expect("parsed");
    assert_eq!(log.entries().len(), 6);
    assert_eq!(log.flushed_before(1), 0);
    assert_eq!(log.flushed_before(6), 1);

    assert_eq!(disk_after(&log, 4, Cache::Prefix, 1), [1, 1, 2, 3, 4, 0, 0, 0]);
    assert_eq!(disk_after(&log, 6, Cache::Prefix, 1), [5, 1, 2, 3, 4, 6, 7, 0]);
    let mut seen = [false; 4];
    for seed in 0..64 {
        let torn = disk_after(&log, 6, Cache::TornLast, seed);
        assert_eq!(torn[..5], [5, 1, 2, 3, 4]);
        assert!(torn[5..] == [0, 0, 0] || torn[5..] == [6, 0, 0], "{torn:?}");
        seen[usize::from(torn[5] == 6)] = true;

        let half = disk_after(&log, 6, Cache::RandomHalf, seed);
        assert_eq!((half[1], half[4]), (1, 4), "flushed and forced writes stay");
        assert!(half[0] == 1 || half[0] == 5, "{half:?}");
        assert!(half[2..4] == [0, 0] || half[2..4] == [2, 3], "a write goes whole: {half:?}");
        seen[2 + usize::from(half[0] == 5)] = true;
    }
    assert_eq!(seen, [true; 4], "chance never took one of the ways");
}

#[test]
fn a_block_log_that_says_more_than_it_has_is_refused() {
    let dir = scratch("log");
    let path = dir.path().join("log.img");
    fs::write(&path, log_bytes(&[(0, 0, &[1])], 2)).expect("written");
    assert!(BlockLog::open(&path).is_err());
    fs::write(&path, [0; 4 * SECTOR]).expect("written");
    assert!(BlockLog::open(&path).is_err());
}

#[test]
fn a_wait_ends_when_the_condition_holds_and_at_its_deadline() {
    let began = Instant::now();
    wait_until(Duration::from_secs(30), "now", || true);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(poll_for(Duration::from_millis(50), || None::<()>), None);
    let late = std::panic::catch_unwind(|| {
        wait_until(Duration::from_millis(50), "the impossible", || false);
    });
    let words = late.expect_err("a wait that fails panics");
    assert!(words.downcast_ref::<String>().is_some_and(|text| text.contains("the impossible")));
}

#[test]
fn a_process_ends_with_its_guard() {
    let dir = scratch("process");
    let log = dir.path().join("log");
    let mut process =
        Process::start(Command::new(tool("cat")).arg("/dev/zero"), "cat", &log, Stdout::Piped);
    assert!(process.is_running());
    let proc_dir = format!("/proc/{}", process.id());
    assert!(fs::exists(&proc_dir).expect("proc is there"));
    drop(process);
    assert!(!fs::exists(&proc_dir).expect("proc is there"));
}

/// Where the middle of the largest tag's body is: in a picture, whatever else a file has.
fn middle_of_largest_tag(flv: &[u8]) -> usize {
    let mut largest = 0..0;
    // Header and the first length; a tag has 11 bytes before its body and its length after it.
    let mut at = 9 + 4;
    while let Some(head) = flv.get(at..at + 11) {
        let body = at + 11..at + 11 + u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        at = body.end + 4;
        if body.len() > largest.len() {
            largest = body;
        }
    }
    largest.start + largest.len() / 2
}

#[test]
fn a_clip_is_what_was_asked_for_and_its_packets_can_be_compared() {
    let clip = Clip { seconds: 4, fps: 25, gop: 25, b_frames: 2, video_kbps: 500, audio: true };
    let path = clip.flv();
    let all = packets(&path);
    let video = of_kind(&all, Kind::Video);
    assert_eq!(video.len(), 100);
    assert_eq!(video.iter().filter(|packet| packet.key).count(), 4);
    assert!(video.iter().any(|packet| packet.pts > packet.dts), "no B-frames");
    assert!(video.iter().is_sorted_by_key(|packet| packet.dts));
    assert!(of_kind(&all, Kind::Audio).len() > 180);
    let bytes: u64 = video.iter().map(|packet| packet.size).sum();
    assert!((210_000..290_000).contains(&bytes), "{bytes} bytes of video at 500 kbit/s for 4 s");
    let kinds: Vec<_> = streams(&path).iter().map(|stream| stream.codec.clone()).collect();
    assert_eq!(kinds, ["h264", "aac"]);

    // The same samples in another container are the same packets; other bytes are not.
    let dir = scratch("clip");
    let mp4 = dir.path().join("clip.mp4");
    run_ok(
        Command::new(tool("ffmpeg"))
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(&path)
            .args(["-c", "copy"])
            .arg(&mp4),
    );
    let hashes = |kind| of_kind(&packets(&mp4), kind).into_iter().map(|packet| packet.hash);
    assert!(hashes(Kind::Video).eq(video.iter().map(|packet| packet.hash.clone())));
    let mut bytes = fs::read(&path).expect("read");
    let in_a_picture = middle_of_largest_tag(&bytes);
    bytes[in_a_picture] ^= 1;
    let flipped = dir.path().join("flipped.flv");
    fs::write(&flipped, bytes).expect("written");
    assert_ne!(try_packets(&flipped), Ok(all));
}
