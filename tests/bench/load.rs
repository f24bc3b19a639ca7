//! The load: one file as ffmpeg makes it, pushed over and over by many publishers from this one
//! process, on one thread.
//!
//! What the load itself costs is not measured: it runs in the bench's process, the recorders in
//! theirs.

#![allow(dead_code, reason = "each bench uses its part")]

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use edgerec::cli::demo::player::{PlayError, Played, Player, Stage};
use edgerec::cli::demo::reel::Reel;
use edgerec::platform::net::SystemNet;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::support::process::run_ok;
use crate::support::{tool, work_dir};

/// Length of the file that is looped.
const REEL_SECONDS: u32 = 20;
/// The publishers come, with their first key frames, spread over a group of pictures.
const GOP: Duration = Duration::from_secs(2);

/// Publishers at work.
pub struct Load {
    publishers: JoinSet<Result<(), PlayError>>,
    /// When each stream's time 0 was due, and how far it is.
    played: Vec<(Instant, Arc<Played>)>,
    stop: CancellationToken,
}

/// What publishers sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of media.
    pub media_bytes: u64,
    /// Publishers that were refused or cut off.
    pub failed: usize,
}

impl Load {
    /// Begins to push the streams `cam` and each of these numbers, each to its address.
    pub fn begin(
        reel: &Arc<Reel>,
        names: Range<usize>,
        address: impl Fn(usize) -> SocketAddr,
    ) -> Load {
        let streams = names.len();
        let (mut publishers, stop) = (JoinSet::new(), CancellationToken::new());
        let mut all = Vec::with_capacity(streams);
        let begin = Instant::now();
        for (stream, name) in names.enumerate() {
            let number = |count: usize| u32::try_from(count).expect("few streams");
            let begin = begin + GOP * number(stream) / number(streams);
            let (reel, stop) = (Arc::clone(reel), stop.clone());
            let played = Arc::new(Played::default());
            all.push((begin, Arc::clone(&played)));
            let server = address(stream);
            let stage = Stage { server, app: "live".into(), stream: format!("cam{name}") };
            publishers.spawn(async move {
                let player = Player { reel: &reel, begin, length: None, played: &played };
                // Nothing is waited for: this is when it comes.
                let _ = timeout_at(begin, std::future::pending::<()>()).await;
                player.play(&SystemNet, &stage, &stop).await
            });
        }
        Load { publishers, played: all, stop }
    }

    /// How far each stream is.
    pub fn played(&self) -> Vec<Arc<Played>> {
        self.played.iter().map(|(_, played)| Arc::clone(played)).collect()
    }

    /// How far the last publisher is behind the time of its media.
    pub fn behind(&self) -> Duration {
        let now = Instant::now();
        let each = self.played.iter().map(|(begin, played)| {
            (now - *begin).saturating_sub(Duration::from_millis(played.media_ms()))
        });
        each.max().unwrap_or_default()
    }

    /// Ends all streams.
    pub async fn end(mut self) -> Sent {
        self.stop.cancel();
        let mut failed = 0;
        while let Some(ended) = self.publishers.join_next().await {
            let played = ended.expect("a publisher does not panic");
            failed += usize::from(played.is_err());
        }
        let media_bytes = self.played.iter().map(|(_, played)| played.media_bytes()).sum();
        Sent { media_bytes, failed }
    }
}

/// What is pushed over and over.
pub fn reel() -> Reel {
    reel_of(&clip(REEL_SECONDS))
}

/// What a file holds, to be pushed.
pub fn reel_of(path: &Path) -> Reel {
    let bytes = fs::read(path).expect("the file can be read");
    Reel::parse(bytes.into()).expect("ffmpeg makes FLV")
}

/// A file of 4 Mbit/s with its sound, as an encoder would send them. The noise in
/// the picture makes the encoder use its rate without filler.
pub fn clip(seconds: u32) -> PathBuf {
    let dir = work_dir().join("media");
    fs::create_dir_all(&dir).expect("target/tmp/media can be made");
    let path = dir.join(format!("bench-720p-4m-{seconds}s.flv"));
    if !path.exists() {
        let half = path.with_extension("half");
        run_ok(&maker(seconds, &half));
        fs::rename(&half, &path).expect("the file can be renamed");
    }
    path
}

fn maker(seconds: u32, path: &Path) -> Command {
    let mut command = Command::new(tool("ffmpeg"));
    command.args(["-v", "error", "-nostdin", "-y"]);
    command.args(["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25,noise=alls=25:allf=t"]);
    command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t"]);
    command.arg(seconds.to_string());
    command.args(["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-bf", "0"]);
    command.args(["-g", "50", "-keyint_min", "50", "-sc_threshold", "0"]);
    command.args(["-b:v", "3872k", "-maxrate", "3872k", "-bufsize", "3872k"]);
    command.args(["-c:a", "aac", "-b:a", "128k", "-ac", "2"]);
    command.args(["-flvflags", "no_duration_filesize", "-f", "flv"]).arg(path);
    command
}
