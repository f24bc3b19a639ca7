//! The load: one file as ffmpeg makes it, pushed over and over by many publishers from this one
//! process, on one thread.
//!
//! What the load itself costs is not measured: it runs in the bench's process, the recorders in
//! theirs.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use edgerec::cli::demo::player::{Played, Player, Stage};
use edgerec::cli::demo::reel::Reel;
use edgerec::platform::net::SystemNet;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::process::run_ok;
use crate::support::{tool, work_dir};

/// Length of the file; it is looped.
const SECONDS: &str = "20";
/// The first key frames of the streams are spread over a group of pictures.
const GOP: Duration = Duration::from_secs(2);

/// Publishers at work.
pub struct Load {
    publishers: JoinSet<u64>,
    stop: CancellationToken,
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
        let begin = Instant::now();
        for (stream, name) in names.enumerate() {
            let number = |count: usize| u32::try_from(count).expect("few streams");
            let begin = begin + GOP * number(stream) / number(streams);
            let (reel, stop) = (Arc::clone(reel), stop.clone());
            let server = address(stream);
            let stage = Stage { server, app: "live".into(), stream: format!("cam{name}") };
            publishers.spawn(async move {
                let played = Played::default();
                let player = Player { reel: &reel, begin, length: None, played: &played };
                let pushed = player.play(&SystemNet, &stage, &stop).await;
                pushed.expect("the recorder takes all");
                played.media_bytes()
            });
        }
        Load { publishers, stop }
    }

    /// Ends all streams; gives back the bytes of media sent.
    pub async fn end(mut self) -> u64 {
        self.stop.cancel();
        let mut media_bytes = 0;
        while let Some(sent) = self.publishers.join_next().await {
            media_bytes += sent.expect("a publisher does not panic");
        }
        media_bytes
    }
}

/// The file that is pushed: 4 Mbit/s with its sound, as an encoder would send them. The noise in
/// the picture makes the encoder use its rate without filler.
pub fn reel() -> Reel {
    let dir = work_dir().join("media");
    fs::create_dir_all(&dir).expect("target/tmp/media can be made");
    let path = dir.join("bench-720p-4m.flv");
    if !path.exists() {
        let half = path.with_extension("half");
        run_ok(&maker(&half));
        fs::rename(&half, &path).expect("the file can be renamed");
    }
    let bytes = fs::read(&path).expect("the file can be read");
    Reel::parse(bytes.into()).expect("ffmpeg makes FLV")
}

fn maker(path: &PathBuf) -> Command {
    let mut command = Command::new(tool("ffmpeg"));
    command.args(["-v", "error", "-nostdin", "-y"]);
    command.args(["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25,noise=alls=25:allf=t"]);
    command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", SECONDS]);
    command.args(["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-bf", "0"]);
    command.args(["-g", "50", "-keyint_min", "50", "-sc_threshold", "0"]);
    command.args(["-b:v", "3872k", "-maxrate", "3872k", "-bufsize", "3872k"]);
    command.args(["-c:a", "aac", "-b:a", "128k", "-ac", "2"]);
    command.args(["-flvflags", "no_duration_filesize", "-f", "flv"]).arg(path);
    command
}
