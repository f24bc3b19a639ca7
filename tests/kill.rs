//! The box is killed at any moment and started again: what it kept, against what was sent.

mod support;

use std::time::Duration;

use support::chance::Chance;
use support::edge_box::EdgeBox;
use support::media::Clip;
use support::packets::{assert_stretch_of, packets, video_end_ms};
use support::push::{Pace, Pusher, push_file};
use support::wait::wait_until;

const STREAMS: usize = 2;
/// The kill comes after this much media, in milliseconds, and up to twice that.
const RUN_MS: u64 = 2_000;
/// The promise, in milliseconds. (A kill leaves the page cache alone: a fragment is the usual loss.)
const LOST_MS_MAX: i64 = 2_500;
/// How long a box may take to record again.
const READY_MAX: Duration = Duration::from_secs(1);
const FRAME_MS: i64 = 40;

const CLIP: Clip =
    Clip { seconds: 10, fps: 25, gop: 25, b_frames: 0, video_kbps: 1_000, audio: true };

#[test]
#[ignore = "needs the recorder, which is not there yet"]
fn a_killed_box_loses_at_most_the_promise_and_records_again() {
    let rounds = std::env::var("EDGEREC_KILLS").map_or(20, |n| n.parse().expect("a number"));
    let mut chance = Chance::from_env("kill");
    let sent = packets(&CLIP.flv());
    let mut edge = EdgeBox::start();
    let mut lost_max_ms = 0;
    for round in 0..rounds {
        let names: Vec<String> = (0..STREAMS).map(|stream| format!("r{round}s{stream}")).collect();
        let pushers: Vec<Pusher> = names
            .iter()
            .map(|name| {
                let log = edge.dir().join(format!("{name}.log"));
                push_file(&CLIP.flv(), &edge.push_url(name), Pace::Real, &log)
            })
            .collect();
        let until_ms = (RUN_MS + chance.below(RUN_MS)).cast_signed();
        wait_until(Duration::from_secs(30), "the encoders have sent enough", || {
            pushers.iter().all(|pusher| pusher.sent_ms() >= until_ms)
        });
        let sent_ms: Vec<i64> = pushers.iter().map(Pusher::sent_ms).collect();
        edge.kill();
        drop(pushers);

        let ready = edge.start_again();
        assert!(ready <= READY_MAX, "round {round}: ready after {ready:?}");
        for (name, sent_ms) in names.iter().zip(sent_ms) {
            let key = edge.stream_key(name);
            let path = edge.export_all(&key, "flv", &format!("{name}.flv"));
            let kept = packets(&path.unwrap_or_else(|why| panic!("{name} is gone: {why}")));
            assert_stretch_of(&kept, &sent, name);
            let lost_ms = sent_ms - video_end_ms(&kept, FRAME_MS);
            assert!(lost_ms <= LOST_MS_MAX, "{name}: lost {lost_ms} ms");
            lost_max_ms = lost_max_ms.max(lost_ms);
        }
    }
    println!("{rounds} kills: lost at most {lost_max_ms} ms");
    edge.terminate(Duration::from_secs(5));
    edge.cli_ok(&["fsck"]);
}
