//! Two ffmpegs: the system's, and a newer one that speaks enhanced RTMP.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::process::{run, run_ok};
use super::{python, tool};

/// Which ffmpeg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ffmpeg {
    /// The system's.
    System,
    /// The static one of the PyPI package imageio-ffmpeg; knows H.265 in FLV.
    Newest,
}

impl Ffmpeg {
    pub fn program(self) -> PathBuf {
        match self {
            Ffmpeg::System => tool("ffmpeg"),
            Ffmpeg::Newest => newest().to_owned(),
        }
    }

    /// A command that says errors only.
    pub fn command(self) -> Command {
        let mut command = Command::new(self.program());
        command.args(["-v", "error", "-nostdin", "-y"]);
        command
    }

    /// Decodes every packet of the file.
    ///
    /// # Errors
    /// What ffmpeg complains about.
    pub fn decode(self, path: &Path) -> Result<(), String> {
        let output = run(self.command().arg("-i").arg(path).args(["-f", "null", "-"]));
        let complaints = String::from_utf8_lossy(&output.stderr);
        if output.status.success() && complaints.trim().is_empty() {
            return Ok(());
        }
        Err(format!("{} does not decode: {}\n{complaints}", path.display(), output.status))
    }

    /// Fails the test unless every packet of the file decodes without a word.
    #[track_caller]
    pub fn assert_decodes(self, path: &Path) {
        if let Err(fault) = self.decode(path) {
            panic!("{fault}");
        }
    }
}

/// The one of the package imageio-ffmpeg.
fn newest() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let ask = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
        let answer = run_ok(Command::new(python()).args(["-c", ask]));
        PathBuf::from(String::from_utf8(answer).expect("a path").trim())
    })
}
