//! Kinds of events that the broker does not take. After some refusals in a row a kind rests; from
//! time to time, and on each new connection, one event of it tries whether that has changed. An
//! outbox full of what is refused is not sent again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::notice::{EventKind, NoticeSeq};
use crate::domain::time::BootTime;

/// So many refusals in a row let a kind rest.
const REFUSALS: u32 = 3;
/// How long it rests first; each try in vain doubles it.
const PAUSE_FIRST: Duration = Duration::from_secs(600);
/// It rests at most so long.
const PAUSE_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Which kinds rest.
#[derive(Debug, Default)]
pub struct Rests(BTreeMap<EventKind, Refused>);

/// A kind of which something was refused.
#[derive(Debug)]
struct Refused {
    in_a_row: u32,
    pause: Duration,
    again_at: BootTime,
    /// One event may go.
    may_try: bool,
    /// The one that went.
    trying: Option<NoticeSeq>,
}

impl Refused {
    fn rests(&self) -> bool {
        self.in_a_row >= REFUSALS
    }
}

impl Rests {
    /// Whether this event may be sent now; one of a kind that rests only to try.
    pub fn may_go(&mut self, kind: EventKind, event: NoticeSeq) -> bool {
        let Some(refused) = self.0.get_mut(&kind).filter(|refused| refused.rests()) else {
            return true;
        };
        let goes = std::mem::take(&mut refused.may_try);
        if goes {
            refused.trying = Some(event);
        }
        goes
    }

    /// The broker does not take this event.
    pub fn refused(&mut self, kind: EventKind, event: NoticeSeq, now: BootTime) {
        let refused = self.0.entry(kind).or_insert(Refused {
            in_a_row: 0,
            pause: PAUSE_FIRST,
            again_at: now,
            may_try: false,
            trying: None,
        });
        refused.in_a_row = refused.in_a_row.saturating_add(1);
        if refused.trying.take_if(|trying| *trying == event).is_some() {
            refused.pause = PAUSE_LONGEST.min(refused.pause * 2);
        }
        refused.again_at = after(now, refused.pause);
    }

    /// The broker takes an event of this kind; whether others of it wait for that.
    pub fn taken(&mut self, kind: EventKind) -> bool {
        self.0.remove(&kind).is_some_and(|refused| refused.rests())
    }

    /// There is a new connection: each may try at once.
    pub fn connected(&mut self) {
        for refused in self.0.values_mut() {
            (refused.may_try, refused.trying) = (true, None);
        }
    }

    /// When the next kind may try; `None` if none rests.
    #[must_use]
    pub fn next_try(&self) -> Option<BootTime> {
        let resting = self.0.values().filter(|refused| refused.rests());
        resting.map(|refused| refused.again_at).min()
    }

    /// Lets those try whose time has come.
    pub fn wake(&mut self, now: BootTime) {
        for refused in self.0.values_mut().filter(|refused| refused.again_at <= now) {
            refused.may_try = true;
            refused.again_at = after(now, refused.pause);
        }
    }
}

fn after(now: BootTime, pause: Duration) -> BootTime {
    BootTime(now.0.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: EventKind = EventKind::PushBegin;
    const PAUSE: u64 = PAUSE_FIRST.as_millis() as u64;

    fn resting(now: BootTime) -> Rests {
        let mut rests = Rests::default();
        for event in 1..=u64::from(REFUSALS) {
            assert!(rests.may_go(KIND, NoticeSeq(event)), "refused only {} times", event - 1);
            rests.refused(KIND, NoticeSeq(event), now);
        }
        rests
    }

    #[test]
    fn a_kind_that_is_refused_again_and_again_rests_and_no_other() {
        let mut rests = resting(BootTime(5));
        assert!(!rests.may_go(KIND, NoticeSeq(9)));
        assert!(rests.may_go(EventKind::File, NoticeSeq(9)));
        assert_eq!(rests.next_try(), Some(BootTime(5 + PAUSE)));
    }

    #[test]
    fn one_event_tries_at_a_time_and_each_try_in_vain_doubles_the_pause() {
        let mut rests = resting(BootTime(0));
        // On their way when the kind began to rest: no try.
        rests.refused(KIND, NoticeSeq(4), BootTime(0));
        let (mut now, mut pause) = (0, PAUSE);
        for event in 10..20 {
            now += pause;
            assert_eq!(rests.next_try(), Some(BootTime(now)));
            rests.wake(BootTime(now));
            assert!(rests.may_go(KIND, NoticeSeq(event)));
            assert!(!rests.may_go(KIND, NoticeSeq(event + 1)));
            rests.refused(KIND, NoticeSeq(event), BootTime(now));
            pause = (2 * pause).min(PAUSE_LONGEST.as_millis() as u64);
        }
        assert_eq!(Duration::from_millis(pause), PAUSE_LONGEST);
        assert!(rests.taken(KIND));
        assert!(rests.may_go(KIND, NoticeSeq(30)) && rests.may_go(KIND, NoticeSeq(31)));
        assert_eq!(rests.next_try(), None);
    }

    #[test]
    fn a_try_for_which_nothing_waits_comes_again_after_a_pause() {
        let mut rests = resting(BootTime(0));
        rests.wake(BootTime(PAUSE));
        assert_eq!(rests.next_try(), Some(BootTime(2 * PAUSE)));
    }

    #[test]
    fn a_new_connection_tries_at_once_and_a_single_refusal_is_no_rest() {
        let mut rests = resting(BootTime(0));
        rests.connected();
        assert!(rests.may_go(KIND, NoticeSeq(9)));
        assert!(!rests.may_go(KIND, NoticeSeq(10)));

        let mut rests = Rests::default();
        rests.refused(KIND, NoticeSeq(1), BootTime(0));
        assert_eq!(rests.next_try(), None);
        assert!(!rests.taken(KIND), "nothing waits for it");
    }
}
