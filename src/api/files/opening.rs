//! Opening a file walks its whole clip, which may be hours of media. It is done on threads that
//! may block, few at a time, and stops when nobody waits for it any more.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::ApiError;
use crate::api::files::open_files::OpenFile;
use crate::media::audio_only::as_shown;
use crate::media::clip::{ClipError, ClipPart, ClipSource};
use crate::media::render;
use crate::ring::RingError;
use crate::ring::catalog::files::FileRecord;
use crate::ring::handle::Ring;

/// Files that are opened at the same time; who comes later waits.
const OPENINGS_MAX: usize = 2;

/// Opens files of a ring.
pub struct Opener {
    ring: Arc<Ring>,
    turns: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Opener {
    /// Opens files of `ring` in `tasks`.
    #[must_use]
    pub fn new(ring: Arc<Ring>, tasks: TaskTracker) -> Self {
        Opener { ring, turns: Arc::new(Semaphore::new(OPENINGS_MAX)), tasks }
    }

    /// Opens a file. Dropping the future stops the walk at the next fragment.
    ///
    /// # Errors
    /// The media is gone or damaged, or the format holds none of it.
    pub async fn open(&self, record: &FileRecord) -> Result<OpenFile, ApiError> {
        let closed = || ApiError::Ring(RingError::Closed);
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| closed())?;
        let (file, format, audio_only) = (record.id, record.format, record.audio_only);
        let (ring, given_up) = (self.ring.clone(), CancellationToken::new());
        let waiting = given_up.clone().drop_guard();
        let opened = self.tasks.spawn_blocking(move || {
            let _turn = turn;
            let clip = Watched { clip: ring.open_file_clip(file)?, given_up };
            Ok(OpenFile::from(render::open(format, as_shown(Arc::new(clip), audio_only))?))
        });
        let opened = opened.await.unwrap_or_else(|_| Err(closed()));
        // What is open is read for others too.
        waiting.disarm();
        opened
    }
}

/// A clip that can be given up while it is walked.
struct Watched<C> {
    clip: C,
    given_up: CancellationToken,
}

impl<C: ClipSource> ClipSource for Watched<C> {
    fn parts(&self) -> &[ClipPart] {
        self.clip.parts()
    }

    fn moof(&self, fragment: u32) -> Result<Vec<u8>, ClipError> {
        if self.given_up.is_cancelled() {
            let source = io::Error::other("nobody waits for it any more");
            return Err(ClipError::Read { fragment, source });
        }
        self.clip.moof(fragment)
    }

    fn check(&self, fragment: u32) -> Result<(), ClipError> {
        self.clip.check(fragment)
    }

    fn read_payload(&self, fragment: u32, offset: u32, buf: &mut [u8]) -> Result<(), ClipError> {
        self.clip.read_payload(fragment, offset, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Endless;

    impl ClipSource for Endless {
        fn parts(&self) -> &[ClipPart] {
            &[]
        }

        fn moof(&self, _: u32) -> Result<Vec<u8>, ClipError> {
            Ok(Vec::new())
        }

        fn check(&self, _: u32) -> Result<(), ClipError> {
            Ok(())
        }

        fn read_payload(&self, _: u32, _: u32, _: &mut [u8]) -> Result<(), ClipError> {
            Ok(())
        }
    }

    #[test]
    fn the_walk_ends_when_nobody_waits_and_not_before() {
        let given_up = CancellationToken::new();
        let clip = Watched { clip: Endless, given_up: given_up.clone() };
        assert!(clip.moof(0).is_ok());
        let waiting = given_up.clone().drop_guard();
        drop(waiting);
        assert!(matches!(clip.moof(1), Err(ClipError::Read { fragment: 1, .. })));
        let given_up = CancellationToken::new();
        let clip = Watched { clip: Endless, given_up: given_up.clone() };
        given_up.drop_guard().disarm();
        assert!(clip.moof(0).is_ok());
    }
}
