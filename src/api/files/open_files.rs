//! Files that are open for reading. A player asks for many segments, and opening walks the whole
//! clip; so what was opened stays open for a short while.
//!
//! An open file leases its slots: they are not reused. Therefore at most [`OPEN_MAX`] files stay
//! open without a reader, none longer than [`IDLE_MAX`] after its last use, and a file that still
//! grows no longer than [`GROWING_MAX`] after it was opened.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::api::ApiError;
use crate::domain::ids::FileId;
use crate::domain::time::BootTime;
use crate::media::render::Rendering;
use crate::platform::clock::Clock;

/// Files that stay open without a reader.
pub const OPEN_MAX: usize = 4;
/// A file that nobody asked for stays open this long.
pub const IDLE_MAX: Duration = Duration::from_secs(30);
/// What is seen of a growing file is at most this old.
pub const GROWING_MAX: Duration = Duration::from_secs(10);

/// A file that can be read. Its slots are not reused while it lives.
pub type OpenFile = Arc<dyn Rendering>;

/// Which opening of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileView {
    /// The file.
    pub file: FileId,
    /// It was still growing: once finished it is another one.
    pub growing: bool,
}

/// The files that are open.
pub struct OpenFiles {
    clock: Arc<dyn Clock>,
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    view: FileView,
    opened: BootTime,
    used: BootTime,
    file: Arc<OnceCell<OpenFile>>,
}

impl Entry {
    fn is_over(&self, now: BootTime) -> bool {
        now.since(self.used) >= IDLE_MAX
            || self.view.growing && now.since(self.opened) >= GROWING_MAX
    }
}

impl OpenFiles {
    /// No file is open.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        OpenFiles { clock, entries: Mutex::new(Vec::new()) }
    }

    /// The file as it is open, or as `open` opens it. Those who ask at the same time wait for one
    /// opening.
    ///
    /// # Errors
    /// Those of `open`; nothing stays open then.
    pub async fn get<F>(
        &self,
        view: FileView,
        open: impl FnOnce() -> F,
    ) -> Result<OpenFile, ApiError>
    where
        F: Future<Output = Result<OpenFile, ApiError>>,
    {
        let cell = self.cell(view);
        let opened = cell.get_or_try_init(open).await.cloned();
        if opened.is_err() {
            self.entries().retain(|entry| !Arc::ptr_eq(&entry.file, &cell));
        }
        opened
    }

    /// Closes what nobody asked for any more.
    pub fn sweep(&self) {
        let now = self.clock.now().boot;
        self.take(|entry| entry.is_over(now));
    }

    /// Closes a file, if it is open.
    pub fn close(&self, file: FileId) {
        self.take(|entry| entry.view.file == file);
    }

    /// Removes entries; what they held is dropped outside of the lock.
    fn take(&self, over: impl Fn(&Entry) -> bool) {
        let mut entries = self.entries();
        let (gone, kept) = std::mem::take(&mut *entries).into_iter().partition(over);
        *entries = kept;
        drop(entries);
        let gone: Vec<Entry> = gone;
        drop(gone);
    }

    /// The cell of a file, marked as used now.
    fn cell(&self, view: FileView) -> Arc<OnceCell<OpenFile>> {
        let now = self.clock.now().boot;
        // What it was while it grew is of no use once it is finished.
        self.take(|entry| entry.is_over(now) || entry.view.file == view.file && entry.view != view);
        let mut entries = self.entries();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.view == view) {
            entry.used = now;
            return entry.file.clone();
        }
        let file = Arc::new(OnceCell::new());
        let longest = (0..entries.len()).min_by_key(|at| entries[*at].used);
        let closed = match longest {
            Some(at) if entries.len() >= OPEN_MAX => Some(entries.swap_remove(at)),
            _ => None,
        };
        entries.push(Entry { view, opened: now, used: now, file: file.clone() });
        drop(entries);
        drop(closed);
        file
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;
    use crate::domain::ids::BootId;
    use crate::domain::time::{ClockQuality, Instant, UnixMillis, WallTime};
    use crate::media::render::{Object, RenderError};

    #[derive(Default)]
    struct HandClock(AtomicU64);

    impl HandClock {
        fn pass(&self, time: Duration) {
            self.0.fetch_add(u64::try_from(time.as_millis()).expect("short"), Ordering::Relaxed);
        }
    }

    impl Clock for HandClock {
        fn now(&self) -> Instant {
            let wall = WallTime { unix: UnixMillis(0), quality: ClockQuality::Trusted };
            Instant { boot: BootTime(self.0.load(Ordering::Relaxed)), wall }
        }

        fn boot_id(&self) -> BootId {
            BootId([0; 16])
        }
    }

    struct Nothing;

    impl Rendering for Nothing {
        fn objects(&self) -> &[Object] {
            &[]
        }

        fn read_at(&self, _: usize, _: u64, _: &mut [u8]) -> Result<(), RenderError> {
            Ok(())
        }

        fn dropped_tracks(&self) -> &[String] {
            &[]
        }
    }

    struct Rig {
        clock: Arc<HandClock>,
        files: OpenFiles,
        openings: AtomicUsize,
    }

    impl Rig {
        fn new() -> Rig {
            let clock = Arc::new(HandClock::default());
            let files = OpenFiles::new(clock.clone());
            Rig { clock, files, openings: AtomicUsize::new(0) }
        }

        async fn get(&self, file: u64, growing: bool) -> OpenFile {
            let view = FileView { file: FileId(file), growing };
            let open = || async {
                self.openings.fetch_add(1, Ordering::Relaxed);
                Ok(Arc::new(Nothing) as OpenFile)
            };
            self.files.get(view, open).await.expect("opens")
        }

        fn openings(&self) -> usize {
            self.openings.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_file_in_use_stays_open_and_an_idle_one_is_closed() {
        let rig = Rig::new();
        let file = rig.get(1, false).await;
        for _ in 0..10 {
            rig.clock.pass(IDLE_MAX / 2);
            rig.files.sweep();
            assert!(Arc::ptr_eq(&file, &rig.get(1, false).await));
        }
        assert_eq!((rig.openings(), Arc::strong_count(&file)), (1, 2));
        rig.clock.pass(IDLE_MAX);
        rig.files.sweep();
        assert_eq!(Arc::strong_count(&file), 1, "nobody else holds it");
        rig.get(1, false).await;
        rig.files.close(FileId(1));
        rig.get(1, false).await;
        assert_eq!(rig.openings(), 3);
    }

    #[tokio::test]
    async fn the_one_that_was_not_used_for_longest_is_closed_for_a_new_one() {
        let rig = Rig::new();
        let mut held = Vec::new();
        for file in 0..=OPEN_MAX as u64 {
            held.push(rig.get(file, false).await);
            rig.clock.pass(Duration::from_millis(1));
        }
        let open: Vec<bool> = held.iter().map(|file| Arc::strong_count(file) == 2).collect();
        assert_eq!(open, [false, true, true, true, true]);
    }

    #[tokio::test]
    async fn what_grew_is_opened_again_when_it_is_finished_or_old() {
        let rig = Rig::new();
        let growing = rig.get(1, true).await;
        rig.clock.pass(GROWING_MAX / 2);
        assert!(Arc::ptr_eq(&growing, &rig.get(1, true).await));
        rig.clock.pass(GROWING_MAX / 2);
        assert!(!Arc::ptr_eq(&growing, &rig.get(1, true).await));
        rig.get(1, false).await;
        assert_eq!(rig.openings(), 3);
        assert_eq!(rig.files.entries().len(), 1);
    }

    #[tokio::test]
    async fn those_who_ask_together_open_once_and_a_failure_is_not_kept() {
        let rig = Rig::new();
        let (a, b) = tokio::join!(rig.get(1, false), rig.get(1, false));
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!(rig.openings(), 1);
        let view = FileView { file: FileId(2), growing: false };
        let failed = rig.files.get(view, || async { Err(ApiError::BadRequest("no".to_owned())) });
        assert!(failed.await.is_err());
        assert_eq!(rig.files.entries().len(), 1);
    }
}
