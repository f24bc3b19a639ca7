//! What every waiting file is doing, for those who ask: on its way, resting after a failure, or
//! waiting for its turn. There is always a reason in words.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::delivery::settings::{DeliverySettings, Rest};
use crate::delivery::target::Meter;
use crate::domain::backoff::Backoff;
use crate::domain::ids::FileId;
use crate::domain::rate::seconds_left;
use crate::domain::time::BootTime;
use crate::domain::upload_order::WaitingFile;
use crate::domain::upload_plan::Outlook;

/// What is known of a file that is not in sight is forgotten when it was of no use for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// What a waiting file is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It waits, and why.
    Queued {
        /// For people.
        why: String,
    },
    /// It is on its way.
    Uploading(Going),
}

/// How a file on its way goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Going {
    /// Bytes of it that are out.
    pub bytes: u64,
    /// Bytes of it in all; 0 until that is known.
    pub total_bytes: u64,
    /// Bytes a second of late, if there is something to go by.
    pub bytes_per_s: Option<u64>,
    /// Seconds that the rest takes at this rate.
    pub left_s: Option<u64>,
}

impl Going {
    fn of(meter: &Meter) -> Self {
        let (bytes, total_bytes) = (meter.position(), meter.total());
        let bytes_per_s = meter.bytes_per_s();
        let left = total_bytes.checked_sub(bytes).filter(|_| total_bytes > 0);
        let left_s = left.zip(bytes_per_s).and_then(|(left, rate)| seconds_left(left, rate));
        Going { bytes, total_bytes, bytes_per_s, left_s }
    }
}

/// A waiting file that somebody asks about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Which file.
    pub file: FileId,
    /// The template that it is of.
    pub template: &'a str,
    /// A person wants it at once.
    pub urgent: bool,
}

/// A shared view of the queue at work. Cheap to ask at any time; no call waits for I/O.
pub struct Board {
    state: Mutex<State>,
    file_rest: Rest,
    totals: Totals,
}

/// What was delivered since the start; only grows.
#[derive(Default)]
struct Totals {
    rounds: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

/// What was delivered since the program started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Files that the target has confirmed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Attempts that failed.
    pub failures: u64,
}

struct State {
    moving: HashMap<FileId, Arc<Meter>>,
    resting: HashMap<FileId, Resting>,
    target_backoff: Backoff,
    target_rests: Option<Pause>,
    /// It asked to be left alone. That another file under way gets through, or fails otherwise,
    /// takes nothing of that back.
    target_asked: Option<Pause>,
    stopped: Option<String>,
    outlook: Outlook,
    /// Since when.
    doubtful: HashMap<FileId, BootTime>,
}

struct Resting {
    backoff: Backoff,
    pause: Pause,
}

#[derive(Clone)]
struct Pause {
    until: BootTime,
    why: String,
}

impl State {
    /// Those that hold up every file.
    fn pauses_of_target(&self) -> impl Iterator<Item = &Pause> {
        self.target_rests.iter().chain(&self.target_asked)
    }
}

impl Board {
    /// A board on which nothing happens yet.
    #[must_use]
    pub fn new(settings: &DeliverySettings) -> Self {
        let target = settings.target_rest;
        Board {
            state: Mutex::new(State {
                moving: HashMap::new(),
                resting: HashMap::new(),
                target_backoff: Backoff::new(target.first, target.longest),
                target_rests: None,
                target_asked: None,
                stopped: None,
                outlook: Outlook::open(),
                doubtful: HashMap::new(),
            }),
            file_rest: settings.file_rest,
            totals: Totals::default(),
        }
    }

    /// What was delivered since the start.
    #[must_use]
    pub fn delivered(&self) -> Delivered {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Totals { files, bytes, failures, .. } = &self.totals;
        Delivered { files: of(files), bytes: of(bytes), failures: of(failures) }
    }

    /// The worker begins a round.
    pub(super) fn round(&self) {
        self.totals.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// Rounds of the worker: it makes one whenever it is woken.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.totals.rounds.load(Ordering::Relaxed)
    }

    /// Counts a file of so many bytes that the target has confirmed.
    pub(super) fn count_delivery(&self, bytes: u64) {
        self.totals.files.fetch_add(1, Ordering::Relaxed);
        self.totals.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts an attempt that failed.
    pub(super) fn count_failure(&self) {
        self.totals.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// What a waiting file is doing.
    #[must_use]
    pub fn standing(&self, asked: &Asked<'_>, now: BootTime) -> Standing {
        let state = self.lock();
        let file = asked.file;
        if let Some(meter) = state.moving.get(&file) {
            return Standing::Uploading(Going::of(meter));
        }
        let rests = state.resting.get(&file).map(|resting| &resting.pause);
        let pauses = rests.into_iter().chain(state.pauses_of_target());
        let longest = pauses.filter(|pause| pause.until > now).max_by_key(|pause| pause.until);
        let held_up = !state.outlook.admits(asked.template, asked.urgent);
        let why = match (&state.stopped, longest) {
            (Some(why), _) => why.clone(),
            _ if held_up => state.outlook.why.clone(),
            (None, Some(pause)) => {
                let left = pause.until.since(now).as_millis().div_ceil(1000);
                format!("{}, next try in {left} s", pause.why)
            }
            (None, None) => "waiting for its turn".to_owned(),
        };
        Standing::Queued { why }
    }

    /// Files on their way, and their bytes a second of late.
    #[must_use]
    pub fn moving(&self) -> (u64, u64) {
        let state = self.lock();
        let rate = state.moving.values().filter_map(|meter| meter.bytes_per_s()).sum();
        (state.moving.len() as u64, rate)
    }

    /// What may set out from now on.
    pub(super) fn hold(&self, outlook: &Outlook) {
        let mut state = self.lock();
        if state.outlook != *outlook {
            state.outlook = outlook.clone();
        }
    }

    /// Some of a file went out and nobody knows what arrived.
    pub(super) fn doubt(&self, file: FileId, now: BootTime) {
        self.lock().doubtful.insert(file, now);
    }

    /// Whether some of a file may have arrived that nobody knows of.
    pub(super) fn is_doubtful(&self, file: FileId) -> bool {
        self.lock().doubtful.contains_key(&file)
    }

    /// A file stopped on the way without fault; it waits again.
    pub(super) fn put_back(&self, file: FileId) {
        self.lock().moving.remove(&file);
    }

    /// A file sets out.
    pub(super) fn begin(&self, file: FileId) -> Arc<Meter> {
        let meter = Arc::new(Meter::default());
        self.lock().moving.insert(file, Arc::clone(&meter));
        meter
    }

    /// A file is through, or set aside for good.
    pub(super) fn finish(&self, file: FileId) {
        let mut state = self.lock();
        state.moving.remove(&file);
        state.resting.remove(&file);
        state.doubtful.remove(&file);
    }

    /// The target works: its rest is over, unless it asked for one.
    pub(super) fn target_works(&self) {
        let mut state = self.lock();
        state.target_backoff.reset();
        state.target_rests = None;
    }

    /// A file came some way before it failed: neither it nor the target is hopeless, so their
    /// next rests are short again.
    pub(super) fn progressed(&self, file: FileId) {
        self.target_works();
        self.lock().resting.remove(&file);
    }

    /// A file failed and rests; gives how many attempts in a row have failed. `random` is uniform.
    pub(super) fn rest_file(&self, file: FileId, why: &str, now: BootTime, random: u64) -> u32 {
        let rest = self.file_rest;
        let mut state = self.lock();
        state.moving.remove(&file);
        let new = || Resting {
            backoff: Backoff::new(rest.first, rest.longest),
            pause: Pause { until: now, why: String::new() },
        };
        let resting = state.resting.entry(file).or_insert_with(new);
        resting.pause = pause(resting.backoff.next_delay(random), why, now);
        resting.backoff.failures()
    }

    /// The target failed a file, which is ready again as soon as the target is; gives how many
    /// attempts in a row have failed. It rests at least as long as it asked for itself.
    pub(super) fn rest_target(
        &self,
        file: FileId,
        why: &str,
        now: BootTime,
        (random, asked): (u64, Option<Duration>),
    ) -> u32 {
        let mut state = self.lock();
        state.moving.remove(&file);
        let delay = state.target_backoff.next_delay(random);
        state.target_rests = Some(pause(delay, why, now));
        let asked = asked.map(|asked| pause(asked, why, now));
        let before = state.target_asked.take();
        state.target_asked = before.into_iter().chain(asked).max_by_key(|pause| pause.until);
        state.target_backoff.failures()
    }

    /// Nothing goes out any more, and why.
    pub(super) fn stop(&self, file: FileId, why: &str) {
        let mut state = self.lock();
        state.moving.remove(&file);
        state.stopped = Some(why.to_owned());
    }

    /// Until when nothing at all may set out; `None`: something may.
    pub(super) fn target_rests_until(&self, now: BootTime) -> Option<BootTime> {
        let state = self.lock();
        if state.stopped.is_some() {
            return Some(BootTime(u64::MAX));
        }
        state.pauses_of_target().map(|pause| pause.until).filter(|until| *until > now).max()
    }

    /// Leaves out files that are on their way and notes when the others may set out. What is known
    /// of files that no longer wait is forgotten: at once if the list is `complete`; where it never
    /// is, after an hour.
    pub(super) fn annotate(&self, waiting: &mut Vec<WaitingFile>, complete: bool, now: BootTime) {
        let mut state = self.lock();
        let known: HashSet<FileId> = waiting.iter().map(|waiting| waiting.file).collect();
        let stays = |file: &FileId, last: BootTime| {
            known.contains(file) || (!complete && now.since(last) <= FORGOTTEN_AFTER)
        };
        state.resting.retain(|file, resting| stays(file, resting.pause.until));
        state.doubtful.retain(|file, since| stays(file, *since));
        waiting.retain(|waiting| !state.moving.contains_key(&waiting.file));
        for file in waiting {
            file.not_before = state.resting.get(&file.file).map(|resting| resting.pause.until);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pause from `now` on. Times count in whole milliseconds; a pause is never cut short.
fn pause(delay: Duration, why: &str, now: BootTime) -> Pause {
    let ms = u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    Pause { until: BootTime(now.0.saturating_add(ms)), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::upload_order::UploadKind;
    use crate::domain::upload_plan::Admitted;

    const FILE: FileId = FileId(7);

    fn why(board: &Board, now: u64) -> String {
        let asked = Asked { file: FILE, template: "all", urgent: false };
        match board.standing(&asked, BootTime(now)) {
            Standing::Queued { why } => why,
            Standing::Uploading(going) => format!("{} bytes", going.bytes),
        }
    }

    #[test]
    fn there_is_always_a_reason() {
        let board = Board::new(&DeliverySettings::default());
        assert_eq!(why(&board, 0), "waiting for its turn");
        board.begin(FILE).add(12);
        assert_eq!(why(&board, 0), "12 bytes");
        for _ in 0..5 {
            board.rest_target(FILE, "no link", BootTime(0), (u64::MAX, None));
        }
        assert_eq!(why(&board, 4_500), "no link, next try in 12 s");
        board.target_works();
        assert_eq!(why(&board, 0), "waiting for its turn");
        board.rest_file(FILE, "no room", BootTime(0), u64::MAX);
        assert_eq!(why(&board, 0), "no room, next try in 5 s");
        let admitted = Admitted::Templates(vec!["alarm".to_owned()]);
        let closed = Outlook { admitted, why: "metered link wwan0".into(), changes_at: None };
        board.hold(&closed);
        assert_eq!(why(&board, 0), "metered link wwan0");
        board.hold(&Outlook { admitted: Admitted::Templates(vec!["all".to_owned()]), ..closed });
        assert_eq!(why(&board, 0), "no room, next try in 5 s");
        board.stop(FILE, "bad endpoint");
        assert_eq!(why(&board, 0), "bad endpoint");
    }

    #[test]
    fn what_the_target_asked_for_holds_whatever_becomes_of_others_under_way() {
        const OTHER: FileId = FileId(8);
        let board = Board::new(&DeliverySettings::default());
        board.begin(OTHER);
        board.rest_target(FILE, "busy", BootTime(0), (u64::MAX, Some(Duration::from_secs(90))));
        assert_eq!(why(&board, 0), "busy, next try in 90 s");
        let holds = |board: &Board, now| {
            assert_eq!(board.target_rests_until(BootTime(now)), Some(BootTime(90_000)));
            assert!(why(board, now).starts_with("busy, next try in "), "{}", why(board, now));
        };
        board.target_works();
        holds(&board, 1_000);
        board.progressed(OTHER);
        holds(&board, 2_000);
        board.rest_target(OTHER, "no link", BootTime(3_000), (u64::MAX, None));
        holds(&board, 3_000);
        // Who asks for less later does not make it shorter.
        board.rest_target(OTHER, "b", BootTime(4_000), (0, Some(Duration::from_secs(10))));
        holds(&board, 4_000);
        assert_eq!(board.target_rests_until(BootTime(90_000)), None);
        assert_eq!(why(&board, 90_000), "waiting for its turn");
    }

    #[test]
    fn progress_makes_rests_short_again() {
        let board = Board::new(&DeliverySettings::default());
        for _ in 0..10 {
            board.rest_target(FILE, "x", BootTime(0), (u64::MAX, None));
            board.rest_file(FILE, "x", BootTime(0), u64::MAX);
        }
        assert_eq!(why(&board, 0), "x, next try in 600 s");
        board.progressed(FILE);
        board.rest_target(FILE, "x", BootTime(0), (u64::MAX, None));
        board.rest_file(FILE, "x", BootTime(0), u64::MAX);
        assert_eq!(why(&board, 0), "x, next try in 5 s");
    }

    #[test]
    fn rests_of_files_that_left_are_forgotten() {
        let board = Board::new(&DeliverySettings::default());
        board.rest_file(FILE, "x", BootTime(0), u64::MAX);
        board.annotate(&mut Vec::new(), false, BootTime(0));
        assert_eq!(board.lock().resting.len(), 1);
        board.annotate(&mut Vec::new(), true, BootTime(0));
        assert!(board.lock().resting.is_empty());
    }

    #[test]
    fn where_the_list_is_never_complete_what_is_not_in_it_is_forgotten_after_an_hour() {
        const HOUR_MS: u64 = 3_600_000;
        let board = Board::new(&DeliverySettings::default());
        let seen = WaitingFile {
            file: FILE,
            urgent: false,
            kind: UploadKind::Template,
            queue_number: 1,
            not_before: None,
        };
        for file in [FILE, FileId(8)] {
            board.rest_file(file, "x", BootTime(0), u64::MAX);
            board.doubt(file, BootTime(0));
        }
        let kept = |now| {
            board.annotate(&mut vec![seen], false, BootTime(now));
            let state = board.lock();
            (state.resting.len(), state.doubtful.len())
        };
        assert_eq!(kept(HOUR_MS), (2, 2));
        assert_eq!(kept(HOUR_MS + 1), (2, 1), "the rest lasted for 5 s");
        assert_eq!(kept(HOUR_MS + 5_001), (1, 1));
        assert!(board.is_doubtful(FILE) && board.lock().resting.contains_key(&FILE));
    }
}
