//! Encoders: ffmpeg and GStreamer pushing a file over RTMP.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::ffmpeg::Ffmpeg;
use super::process::{Process, Stdout};
use super::tool;

/// How fast a file is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// In the time of the media, as an encoder does.
    Real,
    /// In the time of the media, over and over, with timestamps that run on.
    RealLooped,
    /// So many times faster than the media.
    Times(u32),
    /// As fast as it is taken.
    Fast,
}

/// An encoder at work.
pub struct Pusher {
    process: Process,
    sent_ms: Arc<AtomicI64>,
}

impl Pusher {
    /// Media time sent so far, in milliseconds, as the encoder reports it (every 100 ms); -1 before
    /// the first report. GStreamer reports none.
    pub fn sent_ms(&self) -> i64 {
        self.sent_ms.load(Ordering::Relaxed)
    }

    /// A handle on [`Self::sent_ms`] for other threads.
    pub fn sent_clock(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.sent_ms)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until everything is sent.
    #[track_caller]
    pub fn end_within(&mut self, within: Duration) -> ExitStatus {
        self.process.end_within(within)
    }

    /// Waits until everything is sent; fails the test when the encoder complains.
    #[track_caller]
    pub fn finish_within(&mut self, within: Duration) {
        let status = self.process.end_within(within);
        assert!(status.success(), "the encoder: {status}\n{}", self.process.log_tail());
    }
}

/// Pushes a file with ffmpeg, without re-encoding; with the file's own timestamps, unless it is
/// looped. The log goes to `log`.
pub fn push_file(path: &Path, url: &str, pace: Pace, log: &Path) -> Pusher {
    push_file_with(Ffmpeg::System, path, url, pace, log)
}

/// As [`push_file`], with this ffmpeg.
pub fn push_file_with(ffmpeg: Ffmpeg, path: &Path, url: &str, pace: Pace, log: &Path) -> Pusher {
    let mut command = ffmpeg.command();
    command.args(["-progress", "pipe:1", "-stats_period", "0.1"]);
    if pace != Pace::RealLooped {
        command.arg("-copyts");
    }
    match pace {
        Pace::Real => command.arg("-re"),
        Pace::RealLooped => command.args(["-re", "-stream_loop", "-1"]),
        Pace::Times(speed) => command.args(["-readrate", &speed.to_string()]),
        Pace::Fast => &mut command,
    };
    command.arg("-i").arg(path).args(["-map", "0", "-c", "copy", "-f", "flv"]);
    command.args(["-flvflags", "no_duration_filesize", url]);
    let mut process = Process::start(&command, "ffmpeg", log, Stdout::Piped);
    let progress = process.child().stdout.take().expect("stdout is piped");
    let sent_ms = Arc::new(AtomicI64::new(-1));
    let clock = Arc::clone(&sent_ms);
    std::thread::spawn(move || {
        for line in BufReader::new(progress).lines().map_while(Result::ok) {
            let sent_us = line.strip_prefix("out_time_us=").map(str::parse::<i64>);
            if let Some(Ok(sent_us)) = sent_us {
                clock.store(sent_us / 1_000, Ordering::Relaxed);
            }
        }
    });
    Pusher { process, sent_ms }
}

/// Pushes an FLV file (H.264 and AAC) with GStreamer's `rtmp2sink` in the time of the media.
pub fn push_file_gst(path: &Path, url: &str, log: &Path) -> Pusher {
    let mut command = Command::new(tool("gst-launch-1.0"));
    command.args(["-q", "filesrc", &format!("location={}", path.display()), "!"]);
    command.args(["flvdemux", "name=d", "flvmux", "name=m", "streamable=true", "!"]);
    command.args(["rtmp2sink", &format!("location={url}"), "sync=true"]);
    command.args(["d.video", "!", "queue", "!", "h264parse", "!", "m.video"]);
    command.args(["d.audio", "!", "queue", "!", "aacparse", "!", "m.audio"]);
    let process = Process::start(&command, "gst-launch", log, Stdout::Log);
    Pusher { process, sent_ms: Arc::new(AtomicI64::new(-1)) }
}
