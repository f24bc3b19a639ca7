//! The show itself: the clip is pushed, progress is told, delivered files are named.

use std::collections::HashSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::app::Ready;
use crate::cli::demo::DemoError;
use crate::cli::demo::folder::{Folder, format_of};
use crate::cli::demo::player::{Played, Player, Stage};
use crate::cli::demo::progress::{Progress, size};
use crate::cli::demo::reel::Reel;
use crate::domain::files::FileFormat;
use crate::platform::net::SystemNet;

/// The clip's app and stream.
const APP: &str = "live";
/// See [`APP`].
const STREAM: &str = "demo";
/// Time between two looks at the folder.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// Time between two lines of progress.
const TELL: Duration = Duration::from_secs(1);
/// The files of a push that ended are usually there within a second. After this time the box is
/// shut down, and delivers what is left without streams.
const DELIVER_WITHIN: Duration = Duration::from_secs(10);

/// Where the audience sits: what is delivered, and what is said.
pub(super) struct Hall<'a> {
    /// Where files arrive.
    pub(super) folder: Folder<'a>,
    /// What is said on stderr.
    pub(super) progress: Progress<io::Stderr>,
    /// Files that have arrived.
    pub(super) delivered: usize,
}

/// The show.
pub(super) struct Show<'a, 'f> {
    /// What is played.
    pub(super) reel: &'a Reel,
    /// Where files arrive, as the user wrote it.
    pub(super) dir: &'a Path,
    /// How long; `None` until interrupted.
    pub(super) length: Option<Duration>,
    /// Who sees it.
    pub(super) hall: &'a mut Hall<'f>,
}

/// The two signals that ask a program to end.
pub(super) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// Catches them from now on.
    pub(super) fn catch() -> Result<EndSignals, DemoError> {
        let what = "cannot wait for signals";
        let catch = |kind| signal(kind).map_err(|source| DemoError::System { what, source });
        Ok(EndSignals {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Hall<'_> {
    /// Names files that have arrived since the last look, on stdout; gives their formats.
    pub(super) fn name_arrivals(&mut self) -> Result<Vec<FileFormat>, DemoError> {
        let arrived = self.folder.look();
        if arrived.is_empty() {
            return Ok(Vec::new());
        }
        self.progress.clear();
        self.delivered += arrived.len();
        let mut out = io::stdout().lock();
        arrived
            .iter()
            .try_for_each(|path| writeln!(out, "{}", path.display()))
            .and_then(|()| out.flush())
            .map_err(|source| DemoError::System { what: "nobody reads the paths", source })?;
        Ok(arrived.iter().filter_map(|path| format_of(path)).collect())
    }
}

impl Show<'_, '_> {
    /// Pushes the clip to the box once it is ready; ends when it has ended and its files have
    /// arrived, or should have.
    pub(super) async fn run(mut self, ready: oneshot::Receiver<Ready>) -> Result<(), DemoError> {
        let mut signals = EndSignals::catch()?;
        // The box says itself why it is not ready.
        let Ok(Ready { rtmp: Some(server), .. }) = ready.await else { return Ok(()) };
        self.introduce(server);

        let stage = Stage { server, app: APP.to_owned(), stream: STREAM.to_owned() };
        let (played, stop, begin) = (Played::default(), CancellationToken::new(), Instant::now());
        let player = Player { reel: self.reel, begin, length: self.length, played: &played };
        let mut play = pin!(player.play(&SystemNet, &stage, &stop));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missing = HashSet::from(FileFormat::ALL);
        let (mut ended, mut told) = (None, None);
        loop {
            tokio::select! {
                result = &mut play, if ended.is_none() => {
                    result?;
                    ended = Some(Instant::now());
                }
                _ = look.tick() => {}
                () = signals.next() => {
                    if stop.is_cancelled() || played.is_over() {
                        return Err(DemoError::Interrupted);
                    }
                    stop.cancel();
                }
            }
            let formats = self.hall.name_arrivals()?;
            // What came before the end is of earlier clips of the stream.
            if played.is_over() {
                missing.retain(|format| !formats.contains(format));
            }
            let late = ended.is_some_and(|ended: Instant| ended.elapsed() >= DELIVER_WITHIN);
            if ended.is_some() && (late || missing.is_empty() || played.media_bytes() == 0) {
                return Ok(());
            }
            if told.is_none_or(|told: Instant| told.elapsed() >= TELL) {
                told = Some(Instant::now());
                self.tell(begin.elapsed(), &played);
            }
        }
    }

    fn introduce(&mut self, server: SocketAddr) {
        let progress = &mut self.hall.progress;
        let time = self.length.map_or_else(
            || "until Ctrl-C".to_owned(),
            |length| format!("for {} s", length.as_secs()),
        );
        progress.say(&format!(
            "A box records rtmp://{server}/{APP}/{STREAM} {time} as FLV, HLS, MP4 and AAC."
        ));
        progress
            .say(&format!("Files are delivered to {} when their stream ends.", self.dir.display()));
        progress.say("Push a stream of your own beside it:");
        progress.say(&format!("  ffmpeg -re -i FILE -c copy -f flv rtmp://{server}/{APP}/mine"));
        progress.say(&format!(
            "  OBS: Settings, Stream, Service Custom, Server rtmp://{server}/{APP}, Stream Key mine"
        ));
    }

    fn tell(&mut self, elapsed: Duration, played: &Played) {
        let sent = size(played.media_bytes());
        let seconds = played.media_ms() / 1_000;
        let what = if played.is_over() { "delivering" } else { "recording" };
        let line = format!(
            "{what}: {:02}:{:02} of media, {sent}, {} files delivered",
            seconds / 60,
            seconds % 60,
            self.hall.delivered
        );
        self.hall.progress.tick(elapsed, &line);
    }
}
