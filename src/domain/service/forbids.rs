//! Streams that may not be pushed. A ban is for a stream name on every domain and app, as the
//! cloud has it unless an account asks for strict matching.
//!
//! When a ban ends is a question of wall time. A clock that was never set cannot tell, so a ban
//! holds until it is set. A ban that was made on such a clock is dated once it is set
//! ([`Forbids::date`]): what it may last counts from then, so that its ResumeTime is held to the
//! contract's 90 days, and one without a time of its own lasts the seven days.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::service::limits::ServiceLimits;
use crate::domain::service::{Changes, Kind, Refusal};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{ClockQuality, UnixMillis, WallTime};

/// Bans at the same time.
const BANS_MAX: usize = 1_000;
/// A ban without a time of its own, in seconds.
const DEFAULT_S: u32 = 7 * 86_400;

/// Streams that may not be pushed.
#[derive(Debug, Clone, Default)]
pub struct Forbids {
    /// By stream name.
    bans: BTreeMap<String, Ban>,
}

/// Why and until when a stream may not be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// The end, in Unix milliseconds; `None`: not known.
    until_ms: Option<i64>,
    /// What the caller gave as the reason.
    pub reason: String,
    /// It was made on a clock that was never set: once that is, it may last this much longer, in
    /// seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undated_s: Option<u32>,
}

impl Ban {
    /// Whether it holds at a time.
    #[must_use]
    pub fn holds(&self, now: WallTime) -> bool {
        let over = self.until_ms.is_some_and(|until_ms| until_ms <= now.unix.0);
        now.quality == ClockQuality::Untrusted || !over
    }
}

impl Forbids {
    /// The ban that keeps a stream from being pushed.
    #[must_use]
    pub fn holding(&self, key: &StreamKey, now: WallTime) -> Option<&Ban> {
        self.bans.get(key.stream()).filter(|ban| ban.holds(now))
    }

    /// Bans a stream name until a time, by default for seven days. A ban that stands is replaced.
    ///
    /// # Errors
    /// The time is past or too far away, or there are too many bans.
    pub fn forbid(
        &mut self,
        key: &StreamKey,
        until: Option<UnixMillis>,
        reason: &str,
        now: WallTime,
        limits: &ServiceLimits,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let trusted = now.quality == ClockQuality::Trusted;
        let in_time = |seconds: u32| now.unix.0.saturating_add(i64::from(seconds) * 1_000);
        let until_ms = match until {
            // A clock that was never set is behind, so what is past by it is past.
            Some(until) if until <= now.unix => {
                return Err(wrong_time("is not in the future"));
            }
            Some(until) if trusted && until.0 > in_time(limits.forbid_s) => {
                let days = limits.forbid_s / 86_400;
                return Err(wrong_time(&format!("is more than {days} days ahead")));
            }
            Some(until) => Some(until.0),
            None => trusted.then(|| in_time(DEFAULT_S.min(limits.forbid_s))),
        };
        self.date(now, changes);
        self.forget_past(now, changes);
        let name = key.stream();
        if self.bans.len() >= BANS_MAX && !self.bans.contains_key(name) {
            return Err(Refusal::new("FailedOperation", format!("{BANS_MAX} streams are banned")));
        }
        let most_s = if until.is_some() { limits.forbid_s } else { DEFAULT_S.min(limits.forbid_s) };
        let undated_s = (!trusted).then_some(most_s);
        let ban = Ban { until_ms, reason: reason.to_owned(), undated_s };
        changes.put(Kind::Forbid, name, &ban);
        self.bans.insert(name.to_owned(), ban);
        Ok(())
    }

    /// Lifts the ban of a stream name; nothing happens if there is none.
    pub fn resume(&mut self, key: &StreamKey, changes: &mut Changes) {
        if self.bans.remove(key.stream()).is_some() {
            changes.delete(Kind::Forbid, key.stream());
        }
    }

    /// Whether there are bans that wait for the clock to be set.
    #[must_use]
    pub fn are_undated(&self) -> bool {
        self.bans.values().any(|ban| ban.undated_s.is_some())
    }

    /// Dates the bans that were made before the clock was set, if it is set now.
    pub fn date(&mut self, now: WallTime, changes: &mut Changes) {
        if now.quality == ClockQuality::Untrusted {
            return;
        }
        for (name, ban) in &mut self.bans {
            let Some(most_s) = ban.undated_s.take() else { continue };
            let last_ms = now.unix.0.saturating_add(i64::from(most_s) * 1_000);
            ban.until_ms = Some(ban.until_ms.map_or(last_ms, |until_ms| until_ms.min(last_ms)));
            changes.put(Kind::Forbid, name.as_str(), ban);
        }
    }

    /// Bans that are over leave when the next one is made.
    fn forget_past(&mut self, now: WallTime, changes: &mut Changes) {
        self.bans.retain(|name, ban| {
            if !ban.holds(now) {
                changes.delete(Kind::Forbid, name.as_str());
            }
            ban.holds(now)
        });
    }

    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let ban = serde_json::from_str(content).map_err(|error| error.to_string())?;
        self.bans.insert(key.to_owned(), ban);
        Ok(())
    }
}

fn wrong_time(what: &str) -> Refusal {
    Refusal::new("InvalidParameterValue", format!("ResumeTime: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;
    const DAY_MS: i64 = 86_400_000;

    fn at(unix_ms: i64, quality: ClockQuality) -> WallTime {
        WallTime { unix: UnixMillis(unix_ms), quality }
    }

    fn trusted(unix_ms: i64) -> WallTime {
        at(unix_ms, ClockQuality::Trusted)
    }

    fn key(stream: &str) -> StreamKey {
        StreamKey::new("push.example.com", "live", stream).expect("a key")
    }

    fn forbid(
        forbids: &mut Forbids,
        stream: &str,
        until_ms: Option<i64>,
        now: WallTime,
    ) -> Result<Changes, Refusal> {
        let mut changes = Changes::new();
        let limits = ServiceLimits::default();
        let until = until_ms.map(UnixMillis);
        forbids.forbid(&key(stream), until, "why", now, &limits, &mut changes).map(|()| changes)
    }

    #[test]
    fn a_ban_holds_for_its_name_until_its_time() {
        let mut forbids = Forbids::default();
        forbid(&mut forbids, "cam", None, trusted(NOW_MS)).expect("made");
        let elsewhere = StreamKey::new("other.example", "app", "cam").expect("a key");
        let end = NOW_MS + 7 * DAY_MS;
        for key in [key("cam"), elsewhere] {
            assert!(forbids.holding(&key, trusted(end - 1)).is_some());
            assert!(forbids.holding(&key, trusted(end)).is_none());
            assert!(forbids.holding(&key, at(end, ClockQuality::Untrusted)).is_some());
        }
        assert!(forbids.holding(&key("cam2"), trusted(NOW_MS)).is_none());
        let mut changes = Changes::new();
        forbids.resume(&key("cam"), &mut changes);
        forbids.resume(&key("cam"), &mut changes);
        assert_eq!(changes.iter().count(), 1);
        assert!(forbids.holding(&key("cam"), trusted(NOW_MS)).is_none());
    }

    #[test]
    fn a_time_is_in_the_future_and_at_most_ninety_days_away() {
        let mut forbids = Forbids::default();
        let longest = NOW_MS + 90 * DAY_MS;
        for wrong in [NOW_MS, NOW_MS - 1, longest + 1] {
            let refusal = forbid(&mut forbids, "cam", Some(wrong), trusted(NOW_MS));
            assert_eq!(refusal.expect_err("refused").code, "InvalidParameterValue");
        }
        forbid(&mut forbids, "cam", Some(longest), trusted(NOW_MS)).expect("made");
        forbid(&mut forbids, "cam", Some(NOW_MS + 1), trusted(NOW_MS)).expect("replaced");
        assert!(forbids.holding(&key("cam"), trusted(NOW_MS + 1)).is_none());
    }

    #[test]
    fn a_ban_that_was_made_without_a_clock_is_dated_once_it_is_set() {
        let unset = at(5_000, ClockQuality::Untrusted);
        let longest = NOW_MS + 90 * DAY_MS;
        for (asked, end) in [
            (None, NOW_MS + 7 * DAY_MS),
            (Some(NOW_MS + DAY_MS), NOW_MS + DAY_MS),
            (Some(longest), longest),
            (Some(longest + 1), longest),
        ] {
            let mut forbids = Forbids::default();
            forbid(&mut forbids, "cam", asked, unset).expect("made");
            let mut changes = Changes::new();
            forbids.date(unset, &mut changes);
            assert!(changes.is_empty() && forbids.are_undated());
            forbids.date(trusted(NOW_MS), &mut changes);
            forbids.date(trusted(NOW_MS + DAY_MS), &mut changes);
            assert!(changes.iter().count() == 1 && !forbids.are_undated(), "dated once");
            assert!(forbids.holding(&key("cam"), trusted(end - 1)).is_some(), "{asked:?}");
            assert!(forbids.holding(&key("cam"), trusted(end)).is_none(), "{asked:?}");
        }
        let past = forbid(&mut Forbids::default(), "cam", Some(5_000), unset);
        assert_eq!(past.expect_err("refused").code, "InvalidParameterValue");
    }

    #[test]
    fn what_is_stored_is_the_same_again_and_past_bans_leave() {
        let mut forbids = Forbids::default();
        forbid(&mut forbids, "old", Some(NOW_MS + 1), trusted(NOW_MS)).expect("made");
        let changes = forbid(&mut forbids, "new", None, trusted(NOW_MS + 2)).expect("made");
        let told: Vec<_> =
            changes.iter().map(|change| (change.key.as_str(), change.content.is_some())).collect();
        assert_eq!(told, [("old", false), ("new", true)]);
        let mut back = Forbids::default();
        let content = changes.iter().nth(1).and_then(|change| change.content.clone());
        back.restore("new", &content.expect("put")).expect("readable");
        assert_eq!(back.bans, forbids.bans);
    }

    #[test]
    fn bans_are_bounded() {
        let mut forbids = Forbids::default();
        for number in 0..BANS_MAX {
            forbid(&mut forbids, &number.to_string(), None, trusted(NOW_MS)).expect("room");
        }
        let refusal = forbid(&mut forbids, "more", None, trusted(NOW_MS)).expect_err("full");
        assert_eq!(refusal.code, "FailedOperation");
        forbid(&mut forbids, "0", None, trusted(NOW_MS)).expect("replaced");
    }
}
