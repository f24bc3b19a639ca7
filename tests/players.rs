//! An HLS recording over an interrupted push, played to its end by the players that people use:
//! ffmpeg, GStreamer, and hls.js in a browser that has the page from somewhere else. The reference
//! is what the encoder sent.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edgerec::api::signed_url::sign;
use edgerec::domain::secret::Secret;
use serde_json::{Value, json};

use support::browser::{PlayerSite, browse};
use support::edge_box::{BoxPlan, EdgeBox};
use support::ffmpeg::Ffmpeg;
use support::media::Clip;
use support::packets::{Kind, of_kind, packets};
use support::process::{run, run_ok};
use support::push::{Pace, push_file};
use support::tool;
use support::wait::wait_until;

const CLIP: Clip = Clip { seconds: 4, fps: 25, gop: 25, b_frames: 2, video_kbps: 500, audio: true };
const SOON: Duration = Duration::from_secs(60);
const SECRET_KEY: &str = "canary-secret-key";
/// The first picture waits at most for the two before it in the order of decoding.
const FIRST_PICTURE_S_MAX: f64 = 0.1;
/// Width and height of a picture as it is played into a file.
const SIDE: usize = 16;
/// Samples of a frame of AAC.
const FRAME_SAMPLES: u64 = 1_024;

/// A recording over two pushes of a clip.
struct Recording {
    edge: EdgeBox,
    url: String,
    pictures: usize,
    sounds: usize,
}

impl Recording {
    fn of(clip: Clip) -> Recording {
        let rules = json!({"revision": 1,
            "templates": [{"TemplateName": "t", "HlsParam": {"Enable": 1},
                           "Mp4Param": {"Enable": 1},
                           "HlsSpecialParam": {"FlowContinueDuration": 6}}],
            "rules": [{"DomainName": "", "AppName": "live", "StreamName": "",
                       "TemplateName": "t"}]});
        let secret = format!("secret_id = \"me\"\nsecret_key = \"{SECRET_KEY}\"\n");
        let edge = BoxPlan::default().api_setting(&secret).rules(rules).start();
        for round in 1..=2 {
            let log = edge.dir().join(format!("push-{round}.log"));
            push_file(&clip.flv(), &edge.push_url("cam"), Pace::Fast, &log).finish_within(SOON);
            wait_until(SOON, "the MP4 file of the push is finished", || {
                let finished = |row: &&Value| row["format"] == "mp4" && row["state"] == "waiting";
                edge.ls().iter().filter(finished).count() == round
            });
        }
        let row = edge.file_within(SOON, |row| row["format"] == "hls" && row["state"] == "waiting");
        let path = format!("/files/{}", row["file_id"].as_str().expect("an id"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let query = sign(&Secret::new(SECRET_KEY), &path, now.as_secs() + 600);
        let url = format!("http://{}{path}/index.m3u8?{query}", edge.api());
        let sent = packets(&clip.flv());
        let twice = |kind| 2 * of_kind(&sent, kind).len();
        Recording { pictures: twice(Kind::Video), sounds: twice(Kind::Audio), edge, url }
    }

    /// Decoded frames of a kind, one line each.
    fn decoded_by_ffmpeg(&self, stream: &str, filter: &[&str]) -> usize {
        let mut player = Ffmpeg::System.command();
        player.args(["-v", "error", "-i", &self.url, "-map", stream]).args(filter);
        player.args(["-f", "framemd5", "-"]);
        let played = run(&player);
        let complaints = String::from_utf8_lossy(&played.stderr);
        assert!(played.status.success() && complaints.is_empty(), "{complaints}");
        let lines = String::from_utf8(played.stdout).expect("text");
        lines.lines().filter(|line| !line.starts_with('#')).count()
    }

    fn ffmpeg_plays_it(&self) {
        let kept = packets(Path::new(&self.url));
        for (kind, count) in [(Kind::Video, self.pictures), (Kind::Audio, self.sounds)] {
            assert_eq!(of_kind(&kept, kind).len(), count, "{kind:?}");
        }
        let as_it_comes = ["-fps_mode", "passthrough"];
        assert_eq!(self.decoded_by_ffmpeg("0:v", &as_it_comes), self.pictures);
        if self.sounds > 0 {
            // The sound of the second push overlaps the first by part of a frame.
            let frames = self.decoded_by_ffmpeg("0:a", &["-af", "aresample=async=1"]);
            assert!(frames + 4 >= self.sounds, "{frames} of {}", self.sounds);
        }
    }

    /// Played into files: pictures of one size, sound at one rate.
    fn gstreamer_plays_it(&self) {
        let (pictures, sounds) = (self.edge.dir().join("pictures"), self.edge.dir().join("sounds"));
        let mut player = Command::new(tool("gst-launch-1.0"));
        player.args(["-q", "playbin", &format!("uri={}", self.url)]);
        player.arg(format!(
            "video-sink=videoconvert ! videoscale ! video/x-raw,format=GRAY8,width={SIDE},\
             height={SIDE} ! filesink location={}",
            pictures.display()
        ));
        player.arg(format!(
            "audio-sink=audioconvert ! audioresample ! audio/x-raw,format=S16LE,channels=1,\
             rate=48000 ! filesink location={}",
            sounds.display()
        ));
        run_ok(&player);
        let len = |path: &Path| path.metadata().expect("played").len() as usize;
        assert_eq!(len(&pictures), self.pictures * SIDE * SIDE);
        if self.sounds > 0 {
            let frames = len(&sounds) / (2 * FRAME_SAMPLES as usize);
            assert!(frames.abs_diff(self.sounds) <= 4, "{frames} of {}", self.sounds);
        }
    }

    /// The browser has the page from another origin than the media.
    fn browser_plays_it(&self, clip: Clip) {
        let site = PlayerSite::start();
        let browser = browse(&site.page(&self.url), self.edge.dir());
        let report = site.report_within(SOON);
        drop(browser);
        assert_eq!(report["outcome"], "ended", "{report}");
        assert_eq!(report["discontinuities"], 1, "{report}");
        // With frames that are shown in another order than they are decoded the first picture comes
        // a moment after zero, which the player steps over; a busy machine makes it wait. Neither
        // ends the playing.
        let harmless =
            [json!("mediaError bufferSeekOverHole"), json!("mediaError bufferStalledError")];
        let problems = report["problems"].as_array().expect("a list");
        assert!(problems.iter().all(|problem| harmless.contains(problem)), "{report}");
        let ranges = report["buffered"].as_array().expect("a list");
        assert_eq!(ranges.len(), 1, "a hole at the join: {report}");
        let first_s = ranges[0][0].as_f64().expect("a number");
        assert!(first_s < FIRST_PICTURE_S_MAX, "{report}");
        let number = |name: &str| report[name].as_f64().expect("a number");
        let (duration_s, wanted_s) = (number("duration_s"), 2.0 * f64::from(clip.seconds));
        let sound_s = FRAME_SAMPLES as f64 / 48_000.0;
        assert!((duration_s - wanted_s).abs() < 0.1 + 4.0 * sound_s, "{report}");
        assert!((number("position_s") - duration_s).abs() < 0.1, "{report}");
        // A busy machine may show fewer, but a part that is not played would be half of them.
        assert!(number("frames") > 0.75 * self.pictures as f64, "{report}");
    }
}

fn played(clip: Clip) {
    let recording = Recording::of(clip);
    recording.ffmpeg_plays_it();
    recording.gstreamer_plays_it();
    recording.browser_plays_it(clip);
}

#[test]
fn players_play_a_spliced_recording_to_its_end() {
    played(CLIP);
}

#[test]
fn players_play_a_spliced_recording_without_sound_to_its_end() {
    played(Clip { audio: false, ..CLIP });
}

#[test]
fn the_page_tells_of_a_recording_that_does_not_play() {
    let site = PlayerSite::start();
    let dir = support::scratch("browser");
    let browser = browse(&site.page("http://127.0.0.1:1/index.m3u8"), dir.path());
    let report = site.report_within(SOON);
    drop(browser);
    assert_eq!(report["outcome"], "error", "{report}");
}
