//! Boxes are killed at any moment and started again: what they kept, against what was sent.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use support::chance::Chance;
use support::edge_box::{BoxPlan, EdgeBox};
use support::ffmpeg::Ffmpeg;
use support::media::Clip;
use support::packets::{Packet, assert_stretch_of, packets, video_end_ms};
use support::push::{Pace, Pusher, push_file};
use support::wait::wait_until;

/// Side by side: each mostly waits for its encoders.
const BOXES: usize = 4;
const STREAMS: usize = 4;
/// The kill comes after this much media, in milliseconds, and up to twice that.
const RUN_MS: u64 = 1_500;
/// The promise, in milliseconds. (A kill leaves the page cache alone: a fragment is the usual loss.)
const LOST_MS_MAX: i64 = 2_500;
/// An encoder's report of what it sent is at most this old, in milliseconds.
const REPORT_AGE_MS: i64 = 100;
/// How long a box may take to record again.
const READY_MAX: Duration = Duration::from_secs(1);
const FRAME_MS: i64 = 40;
/// Kills of an ordinary run.
const KILLS: usize = 20;

const CLIP: Clip =
    Clip { seconds: 10, fps: 25, gop: 25, b_frames: 2, video_kbps: 1_000, audio: true };

#[test]
fn a_killed_box_loses_at_most_the_promise_and_records_again() {
    let kills = std::env::var("EDGEREC_KILLS").map_or(KILLS, |n| n.parse().expect("a number"));
    let mut chance = Chance::from_env("kill");
    let sent = packets(&CLIP.flv());
    let seeds: [Chance; BOXES] = std::array::from_fn(|_| Chance::new(chance.below(u64::MAX)));
    let (rounds, sent) = (kills.div_ceil(BOXES), &sent);
    let mut lost: Vec<i64> = std::thread::scope(|scope| {
        let boxes = seeds.map(|seed| scope.spawn(move || kill_again_and_again(rounds, seed, sent)));
        boxes.into_iter().flat_map(|one| one.join().expect("a box fails its test")).collect()
    });
    lost.sort_unstable();
    let (median, most) = (lost[lost.len() / 2], lost[lost.len() - 1]);
    println!("{kills} kills: lost {median} ms in the middle, at most {most} ms");
}

/// Kills one box that many times; what each kill lost of each stream, in milliseconds.
fn kill_again_and_again(rounds: usize, mut chance: Chance, sent: &[Packet]) -> Vec<i64> {
    // Fewer slots than streams come and go: what a kill left open must not hold the ring.
    let mut edge = BoxPlan::default().ring_setting("capacity", "\"128MiB\"").start();
    let mut lost = Vec::new();
    for round in 0..rounds {
        let names: Vec<String> = (0..STREAMS).map(|stream| format!("r{round}s{stream}")).collect();
        let sent_ms = push_and_kill(&mut edge, &names, RUN_MS + chance.below(RUN_MS));
        let ready = edge.start_again();
        assert!(ready <= READY_MAX, "round {round}: ready after {ready:?}");
        for (name, sent_ms) in names.iter().zip(sent_ms) {
            let kept_ms = the_file(&edge, name).map_or(0, |path| {
                Ffmpeg::System.assert_decodes(&path);
                let kept = packets(&path);
                fs::remove_file(&path).expect("it is there");
                assert_stretch_of(&kept, sent, name);
                video_end_ms(&kept, FRAME_MS)
            });
            let lost_ms = sent_ms - kept_ms;
            assert!(lost_ms <= LOST_MS_MAX, "{name}: lost {lost_ms} ms");
            lost.push(lost_ms);
        }
        if round % 50 == 49 {
            println!("{} kills of a box", round + 1);
        }
    }
    assert!(edge.terminate(Duration::from_secs(5)).success());
    edge.cli_ok(&["fsck"]);
    lost
}

/// Pushes a stream of each name and kills the box under them; tells what each had sent by then.
fn push_and_kill(edge: &mut EdgeBox, names: &[String], run_ms: u64) -> Vec<i64> {
    let start = |name: &String| {
        let log = edge.dir().join(format!("{name}.log"));
        push_file(&CLIP.flv(), &edge.push_url(name), Pace::Real, &log)
    };
    let pushers: Vec<Pusher> = names.iter().map(start).collect();
    wait_until(Duration::from_secs(30), "the encoders have sent enough", || {
        pushers.iter().all(|pusher| pusher.sent_ms() >= run_ms.cast_signed())
    });
    edge.kill();
    pushers.iter().map(|pusher| pusher.sent_ms() + REPORT_AGE_MS).collect()
}

/// The file that the box has of a stream, if it was there long enough to have one.
fn the_file(edge: &EdgeBox, name: &str) -> Option<PathBuf> {
    let rows: Vec<_> = edge.ls().into_iter().filter(|row| row["stream"] == name).collect();
    assert!(rows.len() <= 1, "files of {name}: {rows:#?}");
    let id = rows.first()?["file_id"].as_str().expect("a row has a file id");
    Some(edge.export_file(id, &format!("{name}.flv")))
}
