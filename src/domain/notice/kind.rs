//! The kinds of events that a fleet is told of. Four are notices of the cloud API too; three are the
//! box's own.

use crate::domain::notice::Event;

/// A kind, by the last part of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A push (or pull) begins.
    PushBegin,
    /// A push (or pull) ends.
    PushEnd,
    /// A recorded file can be had.
    File,
    /// A recording starts, pauses, resumes, fails or ends.
    RecordStatus,
    /// Something that is due is not recorded, or is again.
    Gap,
    /// Something went before anybody had it.
    Loss,
    /// A rule set is applied or refused.
    Config,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [EventKind; 7] = [
        EventKind::PushBegin,
        EventKind::PushEnd,
        EventKind::File,
        EventKind::RecordStatus,
        EventKind::Gap,
        EventKind::Loss,
        EventKind::Config,
    ];

    /// The last part of its topic.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            EventKind::PushBegin => "push_begin",
            EventKind::PushEnd => "push_end",
            EventKind::File => "file",
            EventKind::RecordStatus => "record_status",
            EventKind::Gap => "gap",
            EventKind::Loss => "loss",
            EventKind::Config => "config",
        }
    }

    /// `event_type`: the cloud's number, or one of the box's own, from 10,000 on.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            EventKind::PushBegin => Event::PushBegin.number(),
            EventKind::PushEnd => Event::PushEnd.number(),
            EventKind::File => Event::RecordFile.number(),
            EventKind::RecordStatus => Event::RecordStatus.number(),
            EventKind::Gap => 10_001,
            EventKind::Loss => 10_002,
            EventKind::Config => 10_003,
        }
    }

    /// Back from `event_type`; `None` for what no fleet is told of.
    #[must_use]
    pub fn from_number(number: u16) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// How `event_type` is shown to people, whether a fleet is told of it or only a receiver of notices.
#[must_use]
pub fn event_word(number: u16) -> &'static str {
    let of_notices = || match Event::from_number(number) {
        Some(Event::PushException) => "push_exception",
        Some(Event::RecordException) => "record_exception",
        _ => "unknown",
    };
    EventKind::from_number(number).map_or_else(of_notices, EventKind::word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_and_words_are_of_one_kind_each() {
        let words: BTreeSet<&str> = EventKind::ALL.into_iter().map(EventKind::word).collect();
        assert_eq!(words.len(), EventKind::ALL.len());
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_number(kind.number()), Some(kind));
            assert_eq!(event_word(kind.number()), kind.word());
        }
        assert_eq!(EventKind::from_number(Event::PushException.number()), None);
        let words: BTreeSet<&str> =
            Event::ALL.into_iter().map(|event| event_word(event.number())).collect();
        assert_eq!((words.len(), words.contains("unknown")), (Event::ALL.len(), false));
    }
}
