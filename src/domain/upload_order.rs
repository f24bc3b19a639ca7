//! Which waiting file is delivered next: what a person wants at once, then by the kind of what
//! asked for it, of these the oldest or the newest; a file that failed rests until its time has
//! come.

use std::cmp::Reverse;
use std::str::FromStr;

use crate::domain::faults::quoted;
use crate::domain::ids::FileId;
use crate::domain::time::BootTime;

/// What asked for a file. The numbers are kept with the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum UploadKind {
    /// A template, by a rule.
    Template = 0,
    /// A task with a window of time.
    Timed = 1,
    /// A highlight.
    Highlight = 2,
}

impl UploadKind {
    /// All of them, the least pressing first.
    pub const ALL: [UploadKind; 3] =
        [UploadKind::Template, UploadKind::Timed, UploadKind::Highlight];

    /// The kind of a number that was kept; unknown ones are the least pressing.
    #[must_use]
    pub fn from_number(number: i64) -> Self {
        UploadKind::ALL
            .into_iter()
            .find(|kind| *kind as i64 == number)
            .unwrap_or(UploadKind::Template)
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            UploadKind::Template => "template",
            UploadKind::Timed => "timed",
            UploadKind::Highlight => "highlight",
        }
    }
}

impl FromStr for UploadKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        UploadKind::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("{} is none of `highlight`, `timed`, `template`", quoted(text)))
    }
}

/// The order of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadOrder {
    /// What goes first of all, second and last.
    pub kinds: [UploadKind; 3],
    /// Of one kind, the newest goes first instead of the oldest.
    pub newest_first: bool,
}

impl Default for UploadOrder {
    fn default() -> Self {
        let kinds = [UploadKind::Highlight, UploadKind::Timed, UploadKind::Template];
        UploadOrder { kinds, newest_first: false }
    }
}

impl UploadOrder {
    /// How pressing a kind is, from 0 for the least.
    #[must_use]
    pub fn rank(&self, kind: UploadKind) -> u8 {
        let behind = self.kinds.iter().rev().position(|of| *of == kind);
        u8::try_from(behind.unwrap_or(0)).unwrap_or(0)
    }

    /// How pressing a file is.
    #[must_use]
    pub fn urgency(&self, file: &WaitingFile) -> Urgency {
        Urgency { urgent: file.urgent, rank: self.rank(file.kind) }
    }

    /// Smaller goes first.
    fn key(&self, file: &WaitingFile) -> (Reverse<Urgency>, u64, FileId) {
        let place =
            if self.newest_first { u64::MAX - file.queue_number } else { file.queue_number };
        (Reverse(self.urgency(file)), place, file.file)
    }
}

/// How pressing a file is; what is more pressing is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency {
    /// A person wants it at once.
    pub urgent: bool,
    rank: u8,
}

/// A file that waits to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingFile {
    /// Which file.
    pub file: FileId,
    /// A person wants it at once: it goes before everything, whatever holds the others.
    pub urgent: bool,
    /// What asked for it.
    pub kind: UploadKind,
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
    File(WaitingFile),
    /// Every file rests; the first is ready at this time.
    RestUntil(BootTime),
    /// No file waits.
    Idle,
}

/// The file that goes next among `waiting` (in any order) at the time `now`.
#[must_use]
pub fn next(order: &UploadOrder, waiting: &[WaitingFile], now: BootTime) -> Next {
    let ready = waiting
        .iter()
        .filter(|file| file.not_before.is_none_or(|time| time <= now))
        .min_by_key(|file| order.key(file));
    match ready {
        Some(file) => Next::File(*file),
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

    fn waiting(file: u64, kind: UploadKind, queue_number: u64, ms: Option<u64>) -> WaitingFile {
        let not_before = ms.map(BootTime);
        WaitingFile { file: FileId(file), urgent: false, kind, queue_number, not_before }
    }

    fn first(files: &[WaitingFile], order: UploadOrder) -> u64 {
        chosen(next(&order, files, BootTime(0)))
    }

    fn chosen(next: Next) -> u64 {
        let Next::File(file) = next else { panic!("{next:?}") };
        file.file.0
    }

    #[test]
    fn what_is_wanted_now_then_highlights_then_the_oldest() {
        use UploadKind::{Highlight, Template, Timed};
        let order = UploadOrder::default();
        let mut files = vec![waiting(1, Template, 12, None), waiting(2, Template, 11, None)];
        assert_eq!(first(&files, order), 2);
        assert_eq!(first(&files, UploadOrder { newest_first: true, ..order }), 1);
        files.push(waiting(3, Timed, 40, None));
        assert_eq!(first(&files, order), 3);
        files.push(waiting(4, Highlight, 50, None));
        assert_eq!(first(&files, order), 4);
        let kinds = [Template, Timed, Highlight];
        assert_eq!(first(&files, UploadOrder { kinds, ..order }), 2);
        files.push(WaitingFile { urgent: true, ..waiting(5, Template, 60, None) });
        assert_eq!(first(&files, order), 5);
    }

    #[test]
    fn what_is_wanted_now_goes_before_every_kind_but_rests_like_any_other() {
        use UploadKind::{Highlight, Template};
        let order = UploadOrder::default();
        let mut files = [waiting(1, Highlight, 1, None), waiting(2, Template, 7, Some(500))];
        files[1].urgent = true;
        assert_eq!(chosen(next(&order, &files, BootTime(499))), 1);
        assert_eq!(chosen(next(&order, &files, BootTime(500))), 2);
    }

    #[test]
    fn a_resting_file_lets_others_pass_and_then_has_its_turn_back() {
        let kind = UploadKind::Timed;
        let files = [waiting(1, kind, 1, Some(500)), waiting(2, kind, 2, None)];
        let order = UploadOrder::default();
        assert_eq!(chosen(next(&order, &files, BootTime(499))), 2);
        assert_eq!(chosen(next(&order, &files, BootTime(500))), 1);
    }

    #[test]
    fn says_when_the_first_rest_ends() {
        let kind = UploadKind::Highlight;
        let files = [waiting(1, kind, 1, Some(700)), waiting(2, kind, 2, Some(300))];
        let order = UploadOrder::default();
        assert_eq!(next(&order, &files, BootTime(0)), Next::RestUntil(BootTime(300)));
        assert_eq!(next(&order, &[], BootTime(0)), Next::Idle);
    }

    #[test]
    fn kinds_have_numbers_and_names() {
        for kind in UploadKind::ALL {
            assert_eq!(UploadKind::from_number(kind as i64), kind);
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!(UploadKind::from_number(9), UploadKind::Template);
        assert!("live".parse::<UploadKind>().is_err());
    }

    proptest! {
        #[test]
        fn nobody_better_is_passed_over(
            files in prop::collection::vec(
                (0u64..20, 0i64..3, 0u64..20, prop::option::of(0u64..20), any::<bool>()), 0..12),
            newest_first: bool,
            now in 0u64..20,
        ) {
            let file = |(file, kind, place, ms, urgent)| {
                WaitingFile { urgent, ..waiting(file, UploadKind::from_number(kind), place, ms) }
            };
            let files: Vec<_> = files.into_iter().map(file).collect();
            let order = UploadOrder { newest_first, ..UploadOrder::default() };
            let ready = |file: &&WaitingFile| file.not_before.is_none_or(|time| time.0 <= now);
            let before = |a: &WaitingFile, b: &WaitingFile| {
                let (a_first, b_first) = ((a.urgent, a.kind), (b.urgent, b.kind));
                let older = if newest_first { a.queue_number >= b.queue_number }
                    else { a.queue_number <= b.queue_number };
                a_first > b_first || (a_first == b_first && older)
            };
            match next(&order, &files, BootTime(now)) {
                Next::File(file) => {
                    let best = files.iter().filter(ready).all(|other| before(&file, other));
                    prop_assert!(best && ready(&&file) && files.contains(&file));
                }
                Next::RestUntil(time) => {
                    prop_assert!(time.0 > now && !files.iter().any(|file| ready(&file)));
                }
                Next::Idle => prop_assert!(files.is_empty()),
            }
        }
    }
}
