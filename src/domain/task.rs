//! Tasks: recordings that somebody asked for by the API or MQTT, for a window of time. They are
//! independent of rules and of each other, and stay armed over every push inside their window.
//!
//! While the wall clock cannot be believed, nobody knows whether a window is open: it is recorded
//! then, and decided when the clock is set ([`Task::covers`]).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::ids::{RecordingId, TaskId};
use crate::domain::stream_key::StreamKey;
use crate::domain::template::Template;
use crate::domain::time::Moment;

/// Which actions made it: the ids of one family are unknown to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// CreateLiveRecord.
    Live,
    /// CreateRecordTask.
    Record,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its number; the old family shows it.
    pub id: u64,
    /// Its opaque text; the new family shows it.
    pub name: String,
    /// The family.
    pub family: Family,
    /// Domain of its streams, in lower case; empty for any.
    pub domain: String,
    /// Their app.
    pub app: String,
    /// Their name.
    pub stream: String,
    /// Begins, Unix milliseconds; may lie in the past.
    pub start_ms: i64,
    /// Ends, Unix milliseconds.
    pub end_ms: i64,
    /// The same in the time of the boot in which it was made, where it counts from then.
    pub from_then: Option<FromThen>,
    /// It is a highlight.
    pub highlight: bool,
    /// Only what is a mixer's output is recorded.
    pub mixed: bool,
    /// Only sound is recorded.
    pub audio_only: bool,
    /// Which formats and how.
    pub template: Template,
    /// The number of the template that was named; 0 for none.
    pub template_id: u64,
    /// When it was made, Unix milliseconds.
    pub created_ms: i64,
    /// When it was stopped, Unix milliseconds.
    pub stopped_ms: Option<i64>,
    /// Whether later pushes are not recorded any more.
    pub deleted: bool,
    /// Makes its recordings unlike those of any other task.
    pub salt: u64,
}

/// A window in boot time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromThen {
    /// Of which boot.
    pub boot_id: [u8; 16],
    /// Begins.
    pub start_ms: u64,
    /// Ends.
    pub end_ms: u64,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its window comes.
    Armed,
    /// Its window is open, or may be as far as anybody can tell.
    Open,
    /// Its window is past, or it was stopped.
    Over,
}

impl Task {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId(self.id)
    }

    /// What its makers know it by.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.family {
            Family::Live => self.id.to_string(),
            Family::Record => self.name.clone(),
        }
    }

    /// Whether it is for this stream.
    #[must_use]
    pub fn covers_key(&self, key: &StreamKey) -> bool {
        (self.domain.is_empty() || self.domain == key.domain())
            && self.app == key.app()
            && self.stream == key.stream()
    }

    /// Its recording of a stream: always the same one.
    #[must_use]
    pub fn recording_of(&self, key: &StreamKey) -> RecordingId {
        let mut hash = Sha256::new();
        hash.update(self.salt.to_be_bytes());
        hash.update(self.id.to_be_bytes());
        hash.update(key.to_string().as_bytes());
        let digest = hash.finalize();
        let bits = u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
        RecordingId(bits >> 1)
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self, now: Moment) -> Standing {
        if self.stopped_ms.is_some() {
            return Standing::Over;
        }
        let within = |now: i128, start: i128, end: i128| match () {
            () if now < start => Standing::Armed,
            () if now < end => Standing::Open,
            () => Standing::Over,
        };
        let boot_ms = i128::from(now.at.boot.0);
        match (self.from_then, now.trusted_wall()) {
            (Some(then), _) if then.boot_id == now.boot_id.0 => {
                within(boot_ms, then.start_ms.into(), then.end_ms.into())
            }
            (_, Some(wall)) => within(wall.0.into(), self.start_ms.into(), self.end_ms.into()),
            // It counted from a boot that is over; only its length is left to go by.
            (Some(then), None) => {
                within(boot_ms, 0, i128::from(then.end_ms.saturating_sub(then.start_ms)))
            }
            (None, None) => Standing::Open,
        }
    }

    /// Whether its window was past when it was made: it is for what the ring has.
    #[must_use]
    pub fn is_of_the_past(&self) -> bool {
        self.end_ms <= self.created_ms && self.stopped_ms.is_none()
    }

    /// Whether its window has anything of the time from `from_ms` to `until_ms`, Unix milliseconds.
    #[must_use]
    pub fn covers(&self, from_ms: i64, until_ms: i64) -> bool {
        self.start_ms < until_ms && from_ms < self.end_ms
    }

    /// How long to wait for a change of where it stands, in milliseconds; `None` if none comes or
    /// nobody can tell.
    #[must_use]
    pub fn changes_in_ms(&self, now: Moment) -> Option<u64> {
        let next = |now: i64, start: i64, end: i64| {
            let at = if now < start { start } else { end };
            u64::try_from(at.saturating_sub(now)).ok().filter(|left| *left > 0)
        };
        if self.stopped_ms.is_some() {
            return None;
        }
        let own_boot = self.from_then.filter(|then| then.boot_id == now.boot_id.0);
        match (own_boot, now.trusted_wall()) {
            (Some(then), _) => {
                let signed = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
                next(signed(now.at.boot.0), signed(then.start_ms), signed(then.end_ms))
            }
            (None, Some(wall)) => next(wall.0, self.start_ms, self.end_ms),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::files::FileFormat;
    use crate::domain::ids::BootId;
    use crate::domain::template::FormatParams;
    use crate::domain::time::{BootTime, ClockQuality, Instant, UnixMillis, WallTime};

    /// A task that makes FLV files of `d/live/cam` between two times, in milliseconds.
    pub(crate) fn task(id: u64, start_ms: i64, end_ms: i64) -> Task {
        let template = Template {
            name: "task".to_owned(),
            flv: Some(FormatParams::of(FileFormat::Flv)),
            ..Template::default()
        };
        Task {
            id,
            name: format!("task{id}"),
            family: Family::Record,
            domain: "d".to_owned(),
            app: "live".to_owned(),
            stream: "cam".to_owned(),
            start_ms,
            end_ms,
            from_then: None,
            highlight: false,
            mixed: false,
            audio_only: false,
            template,
            template_id: 0,
            created_ms: 0,
            stopped_ms: None,
            deleted: false,
            salt: 7,
        }
    }

    /// A moment of boot `boot`.
    pub(crate) fn moment(boot: u8, boot_ms: u64, unix_ms: i64, trusted: bool) -> Moment {
        let quality = if trusted { ClockQuality::Trusted } else { ClockQuality::Untrusted };
        let wall = WallTime { unix: UnixMillis(unix_ms), quality };
        Moment { at: Instant { boot: BootTime(boot_ms), wall }, boot_id: BootId([boot; 16]) }
    }

    #[test]
    fn a_window_opens_and_ends_by_the_trusted_clock() {
        let task = task(1, 1_000, 2_000);
        let at = |ms| task.standing(moment(1, 5, ms, true));
        assert_eq!((at(999), at(1_000)), (Standing::Armed, Standing::Open));
        assert_eq!((at(1_999), at(2_000)), (Standing::Open, Standing::Over));
        assert_eq!(task.changes_in_ms(moment(1, 5, 400, true)), Some(600));
        assert_eq!(task.changes_in_ms(moment(1, 5, 1_400, true)), Some(600));
        assert_eq!(task.changes_in_ms(moment(1, 5, 2_000, true)), None);
    }

    #[test]
    fn without_a_clock_a_window_may_be_open_until_it_is_stopped() {
        let mut task = task(1, 1_000, 2_000);
        assert_eq!(task.standing(moment(1, 5, 0, false)), Standing::Open);
        task.stopped_ms = Some(0);
        assert_eq!(task.standing(moment(1, 5, 0, false)), Standing::Over);
    }

    #[test]
    fn what_counts_from_a_boot_needs_no_clock() {
        let mut task = task(1, 1_000, 2_000);
        task.from_then = Some(FromThen { boot_id: [1; 16], start_ms: 50, end_ms: 1_050 });
        assert_eq!(task.standing(moment(1, 1_049, 9_000_000, true)), Standing::Open);
        assert_eq!(task.standing(moment(1, 1_050, 0, false)), Standing::Over);
        assert_eq!(task.standing(moment(2, 999, 0, false)), Standing::Open);
        assert_eq!(task.standing(moment(2, 1_000, 0, false)), Standing::Over);
        assert_eq!(task.standing(moment(2, 5, 2_500, true)), Standing::Over);
    }

    #[test]
    fn recordings_differ_by_task_and_stream_and_stay_the_same() {
        let key = |stream| StreamKey::new("d", "live", stream).expect("valid");
        let (one, two) = (task(1, 0, 1), task(2, 0, 1));
        assert_eq!(one.recording_of(&key("a")), one.recording_of(&key("a")));
        assert_ne!(one.recording_of(&key("a")), two.recording_of(&key("a")));
        assert_ne!(one.recording_of(&key("a")), one.recording_of(&key("b")));
    }
}
