//! Limits of the API; the cloud's values are the defaults.
//!
//! # Specification
//! `live_limits.json` of the contract, and section 12 of its API part.

/// How much callers may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Templates of the local layer.
    pub templates: usize,
    /// Rules of the local layer.
    pub rules: usize,
    /// Callback templates.
    pub callback_templates: usize,
    /// CreateLiveRecord tasks that may be made in a day; deleted ones do not count.
    pub tasks_per_day: usize,
    /// Tasks whose window is open at the same time.
    pub running_tasks: usize,
    /// CreateRecordTask tasks of one stream that are started at the same time.
    pub overlapping_tasks: usize,
    /// Longest window of CreateRecordTask, in seconds.
    pub task_span_s: u32,
    /// How far ahead such a window may end, in seconds.
    pub task_ahead_s: u32,
    /// Longest highlight, in seconds.
    pub highlight_s: u32,
    /// How much earlier a highlight may begin than it was asked for, in seconds.
    pub pre_roll_s: u32,
    /// Longest ban, in seconds.
    pub forbid_s: u32,
    /// Requests of each action in a second; `None`: as many as the cloud takes, action by action.
    pub requests_per_second: Option<u32>,
}

/// What the cloud takes of actions that have a rate of their own (contract, section 12).
const RATES: [(&str, u32); 15] = [
    ("ApplyUpload", 100),
    ("CommitUpload", 100),
    ("CreateLiveRecord", 500),
    ("CreateLiveRecordRule", 200),
    ("CreateLiveRecordTemplate", 200),
    ("CreateRecordTask", 20),
    ("DeleteLiveRecord", 200),
    ("DeleteRecordTask", 20),
    ("DescribeLiveStreamOnlineList", 500),
    ("DescribeLiveStreamState", 1_000),
    ("DropLiveStream", 100),
    ("ForbidLiveStream", 200),
    ("ResumeLiveStream", 100),
    ("StopLiveRecord", 200),
    ("StopRecordTask", 20),
];
/// What it takes of others: not stated, so the commonest one.
const OTHER_RATE: u32 = 200;

impl ServiceLimits {
    /// Requests of `action` in a second.
    #[must_use]
    pub fn rate(&self, action: &str) -> u32 {
        self.requests_per_second.unwrap_or_else(|| {
            let own = RATES.iter().find(|(name, _)| *name == action);
            own.map_or(OTHER_RATE, |(_, rate)| *rate)
        })
    }
}

impl Default for ServiceLimits {
    fn default() -> Self {
        ServiceLimits {
            templates: 50,
            rules: 50,
            callback_templates: 50,
            tasks_per_day: 4_000,
            running_tasks: 400,
            overlapping_tasks: 3,
            task_span_s: 86_400,
            task_ahead_s: 604_800,
            highlight_s: 1_800,
            pre_roll_s: 1_800,
            forbid_s: 90 * 86_400,
            requests_per_second: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_defaults_are_the_clouds() {
        let vectors = include_str!("../../../tests/data/contracts/live_limits.json");
        let vectors: Value = serde_json::from_str(vectors).expect("JSON");
        let limits = ServiceLimits::default();
        let rates = vectors["requests_per_second"].as_object().expect("an object");
        assert_eq!(rates.len(), RATES.len());
        for (action, rate) in rates {
            assert_eq!(Some(u64::from(limits.rate(action))), rate.as_u64(), "{action}");
        }
        assert_eq!(limits.rate("DescribeLiveRecordRules"), OTHER_RATE);
        let all_alike = ServiceLimits { requests_per_second: Some(3), ..limits.clone() };
        assert_eq!((all_alike.rate("CreateRecordTask"), all_alike.rate("Other")), (3, 3));

        let number = |path: &str| vectors.pointer(path).and_then(Value::as_u64).expect("a number");
        assert_eq!(limits.templates as u64, number("/templates_max/current"));
        assert_eq!(limits.rules as u64, number("/rules_max/current"));
        assert_eq!(limits.tasks_per_day as u64, number("/create_live_record/max_tasks_per_day"));
        assert_eq!(limits.running_tasks as u64, number("/create_live_record/max_running_tasks"));
        assert_eq!(
            limits.overlapping_tasks as u64,
            number("/create_record_task/max_overlapping_started")
        );
        assert_eq!(u64::from(limits.task_span_s), number("/create_record_task/max_span_seconds"));
        let ahead_s = number("/create_record_task/max_end_ahead_seconds");
        assert_eq!(u64::from(limits.task_ahead_s), ahead_s);
        assert_eq!(
            u64::from(limits.highlight_s),
            number("/create_live_record/highlight_max_seconds")
        );
        assert_eq!(u64::from(limits.forbid_s), 86_400 * number("/forbid/max_days"));
    }
}
