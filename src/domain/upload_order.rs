//! Which waiting file is delivered next: urgent ones first, then the highest priority, of these the
//! one that has waited longest; a file that failed rests until its time has come.

use std::cmp::Reverse;

use crate::domain::ids::FileId;
use crate::domain::time::BootTime;

/// A file that waits to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingFile {
    /// Which file.
    pub file: FileId,
    /// Somebody wants it delivered now: before all others, at any time of day.
    pub urgent: bool,
    /// Higher goes first; 0 where nobody said anything.
    pub priority: i32,
    /// Its place in the queue: grows with every file that is queued and survives a reboot, so
    /// that a wrong clock never changes the order.
    pub queue_number: u64,
    /// After a failure: not before this time of this boot.
    pub not_before: Option<BootTime>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Deliver this file.
    File(FileId),
    /// Every file rests; the first is ready at this time.
    RestUntil(BootTime),
    /// No file waits.
    Idle,
}

/// The file that goes next among `waiting` (in any order) at the time `now`.
#[must_use]
pub fn next(waiting: &[WaitingFile], now: BootTime) -> Next {
    let ready =
        waiting.iter().filter(|file| file.not_before.is_none_or(|time| time <= now)).min_by_key(
            |file| (Reverse(file.urgent), Reverse(file.priority), file.queue_number, file.file),
        );
    match ready {
        Some(file) => Next::File(file.file),
        None => waiting
            .iter()
            .filter_map(|file| file.not_before)
            .min()
            .map_or(Next::Idle, Next::RestUntil),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiting(file: u64, priority: i32, queue_number: u64, ms: Option<u64>) -> WaitingFile {
        let not_before = ms.map(BootTime);
        WaitingFile { file: FileId(file), urgent: false, priority, queue_number, not_before }
    }

    #[test]
    fn oldest_first_unless_priority_says_otherwise() {
        let mut files = vec![waiting(1, 0, 12, None), waiting(2, 0, 11, None)];
        assert_eq!(next(&files, BootTime(0)), Next::File(FileId(2)));
        files.push(waiting(3, 5, 40, None));
        assert_eq!(next(&files, BootTime(0)), Next::File(FileId(3)));
        files.push(waiting(4, -1, 1, None));
        assert_eq!(next(&files, BootTime(0)), Next::File(FileId(3)));
    }

    #[test]
    fn an_urgent_file_goes_before_every_priority_but_rests_like_any_other() {
        let mut files = [waiting(1, 9, 1, None), waiting(2, -1, 7, Some(500))];
        files[1].urgent = true;
        assert_eq!(next(&files, BootTime(499)), Next::File(FileId(1)));
        assert_eq!(next(&files, BootTime(500)), Next::File(FileId(2)));
    }

    #[test]
    fn a_resting_file_lets_others_pass_and_then_has_its_turn_back() {
        let files = [waiting(1, 0, 1, Some(500)), waiting(2, 0, 2, None)];
        assert_eq!(next(&files, BootTime(499)), Next::File(FileId(2)));
        assert_eq!(next(&files, BootTime(500)), Next::File(FileId(1)));
    }

    #[test]
    fn says_when_the_first_rest_ends() {
        let files = [waiting(1, 9, 1, Some(700)), waiting(2, 0, 2, Some(300))];
        assert_eq!(next(&files, BootTime(0)), Next::RestUntil(BootTime(300)));
        assert_eq!(next(&[], BootTime(0)), Next::Idle);
    }

    proptest! {
        #[test]
        fn nobody_better_is_passed_over(
            files in prop::collection::vec(
                (0u64..20, -2i32..3, 0u64..20, prop::option::of(0u64..20)), 0..12),
            now in 0u64..20,
        ) {
            let files: Vec<_> = files.into_iter().map(|(f, p, q, t)| waiting(f, p, q, t)).collect();
            let ready = |file: &WaitingFile| file.not_before.is_none_or(|time| time.0 <= now);
            match next(&files, BootTime(now)) {
                Next::File(id) => {
                    prop_assert!(files.iter().any(|f| f.file == id && ready(f)));
                    let best = files.iter().filter(|f| ready(f)).all(|other| {
                        files.iter().any(|f| f.file == id && ready(f)
                            && (f.priority > other.priority || (f.priority == other.priority
                                && f.queue_number <= other.queue_number)))
                    });
                    prop_assert!(best);
                }
                Next::RestUntil(time) => {
                    prop_assert!(time.0 > now && !files.iter().any(ready));
                }
                Next::Idle => prop_assert!(files.is_empty()),
            }
        }
    }
}
