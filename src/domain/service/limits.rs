//! Limits of the API; the cloud's values are the defaults.

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
    /// Requests of one action in a second.
    pub requests_per_second: u32,
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
            requests_per_second: 200,
        }
    }
}
