//! Two ffmpegs: the system's, and a newer one that speaks enhanced RTMP.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::process::{run, run_ok};
use super::{tool, work_dir};

/// Which ffmpeg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ffmpeg {
    /// The system's.
    System,
    /// The static one of the PyPI package imageio-ffmpeg; knows H.265 in FLV.
    Newest,
}

impl Ffmpeg {
    /// A command that says errors only.
    pub fn command(self) -> Command {
        let mut command = Command::new(match self {
            Ffmpeg::System => tool("ffmpeg"),
            Ffmpeg::Newest => newest().to_owned(),
        });
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

/// Installed below `target/tmp` if it is not there; one process at a time.
fn newest() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        fs::create_dir_all(work_dir()).expect("target/tmp can be made");
        let lock = File::create(work_dir().join("imageio-ffmpeg.lock")).expect("the lock opens");
        lock.lock().expect("the lock is free at last");
        let venv = work_dir().join("imageio-ffmpeg-0.6");
        let python = venv.join("bin/python");
        let ask = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
        let asked = |python: &Path| {
            let output = python.exists().then(|| run(Command::new(python).args(["-c", ask])))?;
            output.status.success().then_some(output.stdout)
        };
        let answer = asked(&python).unwrap_or_else(|| {
            run_ok(Command::new(tool("python3")).args(["-m", "venv"]).arg(&venv));
            run_ok(Command::new(&python).args(["-m", "pip", "-q", "install", "imageio-ffmpeg"]));
            asked(&python).expect("imageio-ffmpeg is installed")
        });
        PathBuf::from(String::from_utf8(answer).expect("a path").trim())
    })
}
