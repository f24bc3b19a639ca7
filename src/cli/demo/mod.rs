//! `edgerec demo`: shows the box at work with nothing but the binary.
//!
//! A box on loopback with a ring in the temporary folder records a bundled clip, pushed over real
//! RTMP, in all formats, and delivers the files to a folder. Paths of delivered files go to stdout,
//! one a line; everything else goes to stderr.

mod folder;
pub mod player;
mod progress;
pub mod reel;
mod rest;
mod setup;
mod show;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::app::{self, AppError};
use crate::cli::demo::folder::Folder;
use crate::cli::demo::player::PlayError;
use crate::cli::demo::progress::{Progress, size};
use crate::cli::demo::reel::{Reel, ReelError};
use crate::cli::demo::rest::deliver_rest;
use crate::cli::demo::setup::Setup;
use crate::cli::demo::show::{Hall, Show};
use crate::domain::faults::Faults;
use crate::platform::flash::{Flash, SystemFlash};
use crate::ring::RingError;

/// 9.6 s of H.264 (640x360, 25 frames a second, a key frame each 0.96 s) and AAC. The last frame
/// joins the first without a gap.
pub(crate) static CLIP: &[u8] = include_bytes!("clip.flv");

/// Arguments of the subcommand.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArguments {
    /// Folder that the files are delivered to; made if missing
    #[arg(long, value_name = "D", default_value = "edgerec-demo")]
    pub dir: PathBuf,
    /// End after N seconds of streaming; without it, on Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
}

/// The demo cannot be shown, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The temporary folder has no room for the ring.
    #[error(
        "the demo needs {} free in {} for its ring, there are {} (TMPDIR names another folder)",
        size(*need_bytes), path.display(), size(*free_bytes)
    )]
    NoRoom {
        /// The temporary folder.
        path: PathBuf,
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes that must be.
        need_bytes: u64,
    },
    /// A file or folder cannot be made.
    #[error("cannot make {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What the demo has in code is at fault.
    #[error("the demo's own configuration cannot be used: {0}")]
    Faults(#[from] Faults),
    /// The bundled clip is damaged.
    #[error("the bundled clip cannot be played")]
    Reel(#[from] ReelError),
    /// The box cannot run.
    #[error(transparent)]
    App(#[from] AppError),
    /// The box does not take the clip.
    #[error("the clip cannot be pushed")]
    Play(#[from] PlayError),
    /// The ring cannot be read.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Signals cannot be waited for, or nobody reads the paths.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Files were not delivered.
    #[error("{files} files are not delivered: {why}")]
    Undelivered {
        /// How many.
        files: usize,
        /// The reason that one of them gives.
        why: String,
    },
    /// The user would not wait for the last files.
    #[error("interrupted before the last files were delivered")]
    Interrupted,
}

/// Shows the demo until it ends or is interrupted, and everything is delivered. Needs a runtime
/// with I/O and time, and expects logs below WARN to be off: stderr is its own.
///
/// # Errors
/// The demo cannot be shown, or files are left undelivered.
pub async fn run(arguments: &DemoArguments) -> Result<(), DemoError> {
    let flash = SystemFlash;
    let reel = Reel::parse(Bytes::from_static(CLIP))?;
    let dir = &arguments.dir;
    flash.create_dir_all(dir).map_err(|source| DemoError::Folder { path: dir.clone(), source })?;
    let setup = Setup::new(&flash)?;
    let config = setup.config(&flash, dir)?;
    let mut hall =
        Hall { folder: Folder::watch(&flash, dir), progress: Progress::stderr(), delivered: 0 };

    let shutdown = CancellationToken::new();
    let (ready_out, ready) = oneshot::channel();
    let box_runs = app::run(config.clone(), shutdown.clone(), move |ready| {
        // Without a listener the show is over already.
        let _ = ready_out.send(ready);
    });
    let show = Show {
        reel: &reel,
        dir,
        length: arguments.seconds.map(Duration::from_secs),
        hall: &mut hall,
    };
    let show = async {
        let shown = show.run(ready).await;
        shutdown.cancel();
        shown
    };
    let (ran, shown) = tokio::join!(box_runs, show);
    ran?;
    shown?;
    deliver_rest(&config, &mut hall).await?;
    let summary = format!("{} files delivered to {}", hall.delivered, dir.display());
    hall.progress.say(&summary);
    Ok(())
}
