//! The gap ledger's watch over one stream: while something is due to be recorded and is not, there is
//! a gap with a start, an end and a cause.

use crate::domain::time::Instant;

/// Gaps shorter than this are none, in milliseconds.
const GAP_MS_MIN: u128 = 100;

/// Why what is due is not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A camera that rules want recorded does not deliver.
    Camera,
    /// A camera whose address changed could not be opened beside its old connection.
    Reopened,
    /// A recording waits for its stream to come back.
    Interrupted,
    /// A task is open.
    NotLive,
    /// The stream is live, and nothing can begin yet.
    NoKeyFrame,
    /// The stream is live, and nothing comes.
    NoMedia,
    /// As many streams as the box can are recorded.
    Full,
    /// The stream may not be pushed.
    Forbidden,
}

impl Missing {
    /// For the ledger.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Missing::Camera => "the camera did not deliver",
            Missing::Reopened => {
                "the camera moved and could not be opened beside its old connection"
            }
            Missing::Interrupted => "the stream was interrupted",
            Missing::NotLive => "a task was open and the stream was not live",
            Missing::NoKeyFrame => "no key frame had come yet",
            Missing::NoMedia => "the stream was live and nothing came",
            Missing::Full => "the box recorded as many streams as it can",
            Missing::Forbidden => "the stream was forbidden",
        }
    }
}

/// What is to be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapEntry {
    /// A gap that is not over.
    Begins {
        /// Since when.
        from: Instant,
        /// Why.
        cause: Missing,
    },
    /// The gap that began last is over.
    Ends {
        /// Since when.
        until: Instant,
    },
}

/// The watch over one stream.
#[derive(Debug, Default)]
pub struct DueWatch {
    gap: Option<Gap>,
}

#[derive(Debug)]
struct Gap {
    from: Instant,
    cause: Missing,
    entered: bool,
}

impl DueWatch {
    /// Something is due and nothing is recorded since `from`.
    pub fn missing(
        &mut self,
        from: Instant,
        cause: Missing,
        now: Instant,
        enter: &mut dyn FnMut(GapEntry),
    ) {
        if self.gap.as_ref().is_some_and(|gap| gap.cause != cause) {
            self.over(now, enter);
            self.gap = Some(Gap { from: now, cause, entered: false });
        }
        let gap = self.gap.get_or_insert(Gap { from, cause, entered: false });
        if !gap.entered && lasts(gap.from, now) {
            gap.entered = true;
            enter(GapEntry::Begins { from: gap.from, cause });
        }
    }

    /// It is recorded, or due no longer.
    pub fn over(&mut self, now: Instant, enter: &mut dyn FnMut(GapEntry)) {
        let Some(gap) = self.gap.take() else { return };
        if gap.entered || lasts(gap.from, now) {
            if !gap.entered {
                enter(GapEntry::Begins { from: gap.from, cause: gap.cause });
            }
            enter(GapEntry::Ends { until: now });
        }
    }

    /// Why something is missing, if it is.
    #[must_use]
    pub fn cause(&self) -> Option<Missing> {
        self.gap.as_ref().map(|gap| gap.cause)
    }

    /// Whether a gap is under way.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.gap.is_some()
    }
}

fn lasts(from: Instant, now: Instant) -> bool {
    now.boot.since(from.boot).as_millis() >= GAP_MS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::tests::moment;

    fn at(ms: u64) -> Instant {
        moment(1, ms, 1_000, true).at
    }

    #[test]
    fn a_gap_is_entered_when_it_begins_and_when_it_ends() {
        let (mut watch, mut entries) = (DueWatch::default(), Vec::new());
        let mut enter = |entry| entries.push(entry);
        watch.missing(at(1_000), Missing::Camera, at(1_050), &mut enter);
        watch.missing(at(1_900), Missing::Camera, at(2_000), &mut enter);
        watch.missing(at(1_900), Missing::Camera, at(3_000), &mut enter);
        watch.over(at(3_500), &mut enter);
        watch.over(at(4_000), &mut enter);
        let from = at(1_000);
        let begins = GapEntry::Begins { from, cause: Missing::Camera };
        assert_eq!(entries, [begins, GapEntry::Ends { until: at(3_500) }]);
    }

    #[test]
    fn another_cause_is_another_gap_and_a_moment_is_none() {
        let (mut watch, mut entries) = (DueWatch::default(), Vec::new());
        let mut enter = |entry| entries.push(entry);
        watch.missing(at(0), Missing::Interrupted, at(0), &mut enter);
        watch.over(at(60), &mut enter);
        watch.missing(at(500), Missing::NotLive, at(1_000), &mut enter);
        watch.missing(at(500), Missing::NoKeyFrame, at(2_000), &mut enter);
        watch.over(at(2_500), &mut enter);
        let expected = [
            GapEntry::Begins { from: at(500), cause: Missing::NotLive },
            GapEntry::Ends { until: at(2_000) },
            GapEntry::Begins { from: at(2_000), cause: Missing::NoKeyFrame },
            GapEntry::Ends { until: at(2_500) },
        ];
        assert_eq!(entries, expected);
    }
}
