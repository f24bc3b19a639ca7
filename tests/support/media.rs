//! Media to send: made once by ffmpeg, kept in `target/tmp/media`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ffmpeg::Ffmpeg;
use super::process::run_ok;
use super::{tool, work_dir};

/// A file made once by these arguments of ffmpeg, in which `PICTURES` and `SOUND` stand for a test
/// picture and a tone as inputs.
pub fn made(ffmpeg: Ffmpeg, name: &str, arguments: &str) -> PathBuf {
    let dir = work_dir().join("media");
    fs::create_dir_all(&dir).expect("target/tmp/media can be made");
    let path = dir.join(name);
    if !path.exists() {
        let mut command = ffmpeg.command();
        for argument in arguments.split_whitespace() {
            match argument {
                "PICTURES" => command.args(["-f", "lavfi", "-i", "testsrc2=size=192x108:rate=25"]),
                "SOUND" => command.args(["-f", "lavfi", "-i", "sine=frequency=440"]),
                other => command.arg(other),
            };
        }
        let half = half_of(&path);
        run_ok(command.arg(&half));
        keep_first(&half, &path);
    }
    path
}

/// A name of its own for a file being made, so that tests side by side never see half of it.
fn half_of(path: &Path) -> PathBuf {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    path.with_file_name(format!("half-{}-{thread}-{name}", std::process::id()))
}

/// The first to be ready is kept: encoders do not give the same bytes twice, and another test may
/// already have sent what is there.
fn keep_first(half: &Path, path: &Path) {
    match fs::hard_link(half, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            panic!("{} cannot be kept: {error}", path.display())
        }
        _ => fs::remove_file(half).expect("the half-made name goes"),
    }
}

/// What a clip is like. The picture changes all the time and carries its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clip {
    /// Length in seconds.
    pub seconds: u32,
    /// Frames per second.
    pub fps: u32,
    /// Distance of key frames, in frames.
    pub gop: u32,
    /// Most B-frames in a row; 0 for none.
    pub b_frames: u32,
    /// Constant video bit rate, in kbit/s.
    pub video_kbps: u32,
    /// Whether there is sound (AAC, 48 kHz stereo, 128 kbit/s).
    pub audio: bool,
}

impl Default for Clip {
    fn default() -> Clip {
        Clip { seconds: 10, fps: 25, gop: 50, b_frames: 0, video_kbps: 1_000, audio: true }
    }
}

impl Clip {
    /// The clip as an FLV file with H.264 (and AAC).
    pub fn flv(&self) -> PathBuf {
        let dir = work_dir().join("media");
        fs::create_dir_all(&dir).expect("target/tmp/media can be made");
        let name = format!(
            "{}s-{}fps-gop{}-b{}-{}k{}",
            self.seconds,
            self.fps,
            self.gop,
            self.b_frames,
            self.video_kbps,
            if self.audio { "-aac" } else { "" }
        );
        let path = dir.join(format!("{name}.flv"));
        if !path.exists() {
            let half = half_of(&path);
            run_ok(self.maker().arg(&half));
            keep_first(&half, &path);
        }
        path
    }

    fn maker(&self) -> Command {
        let rate = format!("{}k", self.video_kbps);
        let mut command = Command::new(tool("ffmpeg"));
        command.args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i"]);
        command.arg(format!("testsrc2=size=640x360:rate={}", self.fps));
        if self.audio {
            command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
            command.args(["-c:a", "aac", "-b:a", "128k", "-ac", "2"]);
        }
        command.args(["-t", &self.seconds.to_string(), "-c:v", "libx264", "-preset", "veryfast"]);
        command.args(["-pix_fmt", "yuv420p", "-sc_threshold", "0"]);
        command.args(["-g", &self.gop.to_string(), "-keyint_min", &self.gop.to_string()]);
        command.args(["-bf", &self.b_frames.to_string()]);
        command.args(["-b:v", &rate, "-minrate", &rate, "-maxrate", &rate, "-bufsize", &rate]);
        // Filler makes the rate constant whatever the picture.
        command.args(["-x264-params", "nal-hrd=cbr", "-flvflags", "no_duration_filesize"]);
        command.args(["-f", "flv"]);
        command
    }
}
