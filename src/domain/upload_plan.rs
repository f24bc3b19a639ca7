//! Whether files may set out now: windows of the day, the day's budget of bytes, and links whose
//! bytes cost money. One pure decision over what the box knows; a file that a person wants at once
//! is held up by none of it.
//!
//! While the wall clock cannot be believed, nobody knows whether a window is open: it counts as
//! open, as a link used at the wrong hour does less harm than media overwritten before it was
//! delivered. The day's budget then goes on counting where it stood.

use std::time::Duration;

use crate::domain::day_windows::{DayWindows, LocalDay};
use crate::domain::time::{BootTime, UnixMillis};
use crate::domain::upload_order::UploadOrder;

/// How long a day's account lasts where nobody knows the date.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What the operator has said about uploads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UploadPlan {
    /// The order of the queue.
    pub order: UploadOrder,
    /// When uploads run, and the local calendar.
    pub windows: DayWindows,
    /// Bytes that may go out in a local day; `None` is no limit.
    pub daily_bytes: Option<u64>,
    /// Names of the network interfaces that cost money; `*` at the end stands for any rest.
    pub metered_links: Vec<String>,
    /// Only files of these templates go out over such a link.
    pub metered_templates: Vec<String>,
}

/// What the box knows at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// The wall clock, if it can be believed.
    pub wall: Option<UnixMillis>,
    /// Bytes that have gone out this day.
    pub spent_bytes: u64,
    /// The network interface that uploads leave by, if known.
    pub link: Option<String>,
}

/// Which files may set out. Those that a person wants at once always may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// All.
    Everything,
    /// Those of these templates.
    Templates(Vec<String>),
    /// None.
    Nothing,
}

/// What holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Which files may set out.
    pub admitted: Admitted,
    /// Why the others may not, for people; empty if all may.
    pub why: String,
    /// When this changes by itself, if that is known.
    pub changes_at: Option<UnixMillis>,
}

impl Outlook {
    /// Nothing is held up.
    #[must_use]
    pub fn open() -> Self {
        Outlook { admitted: Admitted::Everything, why: String::new(), changes_at: None }
    }

    /// Whether a file of this template may set out; `urgent` says that a person wants it at once.
    #[must_use]
    pub fn admits(&self, template: &str, urgent: bool) -> bool {
        urgent
            || match &self.admitted {
                Admitted::Everything => true,
                Admitted::Templates(names) => names.iter().any(|name| name == template),
                Admitted::Nothing => false,
            }
    }
}

impl UploadPlan {
    /// What holds in a situation.
    #[must_use]
    pub fn outlook(&self, situation: &Situation) -> Outlook {
        let changes_at = situation.wall.and_then(|now| self.windows.changes_at(now));
        if situation.wall.is_some_and(|now| !self.windows.is_open(now)) {
            let why = match changes_at {
                Some(at) => format!("window opens at {}", self.windows.show(at)),
                None => "no window opens".to_owned(),
            };
            return Outlook { admitted: Admitted::Nothing, why, changes_at };
        }
        if self.daily_bytes.is_some_and(|most| situation.spent_bytes >= most) {
            let next = situation.wall.map(|now| self.windows.next_day(now));
            let goes_on = next
                .map_or_else(String::new, |at| format!(", goes on at {}", self.windows.show(at)));
            let why = format!("daily budget used{goes_on}");
            return Outlook { admitted: Admitted::Nothing, why, changes_at: next };
        }
        let metered = situation
            .link
            .as_ref()
            .filter(|link| self.metered_links.iter().any(|pattern| matches(pattern, link)));
        if let Some(link) = metered {
            let why = format!("metered link {link}");
            let admitted = match self.metered_templates.as_slice() {
                [] => Admitted::Nothing,
                names => Admitted::Templates(names.to_vec()),
            };
            return Outlook { admitted, why, changes_at };
        }
        Outlook { changes_at, ..Outlook::open() }
    }

    /// Whether anything but failures can hold a file up.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        *self != UploadPlan { order: self.order, ..UploadPlan::default() }
    }

    /// The local day, if the clock can be believed.
    #[must_use]
    pub fn day(&self, wall: Option<UnixMillis>) -> Option<LocalDay> {
        wall.map(|now| self.windows.day(now))
    }
}

/// Whether a pattern fits a name.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    }
}

/// What has gone out in a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayAccount {
    /// Which day; `None` until the clock could be believed.
    pub day: Option<LocalDay>,
    /// Bytes that have gone out.
    pub bytes: u64,
    /// Since when this is counted, in the time of this boot.
    pub since: BootTime,
}

impl DayAccount {
    /// Counts `bytes` more on the local `day`. Another day begins at zero; where nobody knows the
    /// date, one begins after 24 hours.
    pub fn add(&mut self, day: Option<LocalDay>, now: BootTime, bytes: u64) {
        let other = match (self.day, day) {
            (Some(then), Some(now)) => then != now,
            (_, None) => now.since(self.since) >= DAY,
            // Now it is known which day all this was.
            (None, Some(_)) => false,
        };
        if other {
            *self = DayAccount { day, bytes: 0, since: now };
        }
        self.day = day.or(self.day);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::day_windows::{DayWindow, time_zone};

    fn plan() -> UploadPlan {
        let zone = time_zone("Asia/Shanghai").expect("bundled");
        let night = DayWindow::parse("22:00-06:00").expect("valid");
        UploadPlan {
            windows: DayWindows::new(vec![night], zone),
            daily_bytes: Some(1_000),
            metered_links: vec!["wwan*".to_owned()],
            metered_templates: vec!["alarm".to_owned()],
            ..UploadPlan::default()
        }
    }

    fn at(text: &str, spent_bytes: u64, link: &str) -> Situation {
        let wall = text.parse::<jiff::Timestamp>().ok();
        let wall = wall.map(|at| UnixMillis(at.as_millisecond()));
        Situation { wall, spent_bytes, link: Some(link.to_owned()) }
    }

    const NIGHT: &str = "2026-03-01T20:00:00Z";
    const NOON: &str = "2026-03-01T04:00:00Z";

    #[test]
    fn what_holds_a_file_up_is_said() {
        let plan = plan();
        let open = plan.outlook(&at(NIGHT, 999, "eth0"));
        assert!(open.admits("all", false) && open.why.is_empty());
        assert_eq!(open.changes_at, Some(UnixMillis(1_772_402_400_000)), "it closes at 06:00");
        let closed = plan.outlook(&at(NOON, 0, "eth0"));
        assert_eq!(closed.why, "window opens at 2026-03-01 22:00");
        assert!(!closed.admits("alarm", false) && closed.admits("all", true));
        let spent = plan.outlook(&at(NIGHT, 1_000, "eth0"));
        assert_eq!(spent.why, "daily budget used, goes on at 2026-03-03 00:00");
        assert!(!spent.admits("all", false) && spent.admits("all", true));
        let metered = plan.outlook(&at(NIGHT, 0, "wwan0"));
        assert_eq!(metered.why, "metered link wwan0");
        assert!(metered.admits("alarm", false) && !metered.admits("all", false));
        assert!(metered.admits("all", true));
        let none = UploadPlan { metered_templates: Vec::new(), ..plan };
        assert!(!none.outlook(&at(NIGHT, 0, "wwan0")).admits("alarm", false));
    }

    #[test]
    fn an_unknown_time_opens_windows_and_keeps_the_budget() {
        let plan = plan();
        assert!(plan.outlook(&at("", 0, "eth0")).admits("all", false));
        assert_eq!(plan.outlook(&at("", 1_000, "eth0")).why, "daily budget used");
        let unknown = Situation { link: None, ..at("", 0, "") };
        assert!(plan.outlook(&unknown).admits("all", false), "no link that is known to cost");
    }

    #[test]
    fn a_day_begins_at_zero_and_an_unknown_one_after_a_day() {
        let hour = |n: u64| BootTime(n * 3_600_000);
        let mut account = DayAccount { day: None, bytes: 5, since: hour(0) };
        account.add(None, hour(23), 1);
        assert_eq!(account.bytes, 6);
        account.add(Some(LocalDay(7)), hour(23), 1);
        assert_eq!((account.bytes, account.day), (7, Some(LocalDay(7))));
        account.add(None, hour(23), 1);
        assert_eq!((account.bytes, account.day), (8, Some(LocalDay(7))));
        account.add(Some(LocalDay(8)), hour(24), 2);
        assert_eq!((account.bytes, account.since), (2, hour(24)));
        account.add(None, hour(48), 3);
        assert_eq!((account.bytes, account.day), (3, None));
    }
}
