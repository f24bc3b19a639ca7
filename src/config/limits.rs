//! `[limits]`: how much callers of the API may ask for. What is not set is as in the cloud.

use std::time::Duration;

use crate::config::quantity::parse_duration;
use crate::config::section::{Reading, Section};
use crate::domain::service::limits::ServiceLimits;

/// Most entries of one kind: all of them are in memory, and looked through for a push.
const ENTRIES_MAX: u32 = 10_000;
/// Most tasks of a day: a row each.
const TASKS_PER_DAY_MAX: u32 = 100_000;
/// Most requests a second.
const RATE_MAX: u32 = 100_000;
/// Longest of all times.
const TIME_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Reads the section.
pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> ServiceLimits {
    let mut limits = ServiceLimits::default();
    let counts = [
        ("templates", &mut limits.templates, ENTRIES_MAX),
        ("rules", &mut limits.rules, ENTRIES_MAX),
        ("callback_templates", &mut limits.callback_templates, ENTRIES_MAX),
        ("tasks_per_day", &mut limits.tasks_per_day, TASKS_PER_DAY_MAX),
        ("running_tasks", &mut limits.running_tasks, ENTRIES_MAX),
        ("overlapping_tasks", &mut limits.overlapping_tasks, ENTRIES_MAX),
    ];
    for (key, limit, max) in counts {
        if let Some(number) = section.number(key, 0..=max, reading) {
            *limit = usize::try_from(number).expect("a limit of entries is small");
        }
    }
    let times = [
        ("task_span", &mut limits.task_span_s),
        ("task_ahead", &mut limits.task_ahead_s),
        ("highlight", &mut limits.highlight_s),
        ("pre_roll", &mut limits.pre_roll_s),
        ("forbid", &mut limits.forbid_s),
    ];
    for (key, limit) in times {
        if let Some(seconds) = section.parsed(key, reading, whole_seconds) {
            *limit = seconds;
        }
    }
    let rate = section.number("requests_per_second", 1..=RATE_MAX, reading);
    limits.requests_per_second = rate;
    section.finish(reading);
    limits
}

fn whole_seconds(text: &str) -> Result<u32, String> {
    let time = parse_duration(text)?;
    if time > TIME_MAX {
        return Err("is more than 366d".to_owned());
    }
    if time.subsec_millis() > 0 {
        return Err("is not a whole number of seconds".to_owned());
    }
    Ok(u32::try_from(time.as_secs()).expect("a year of seconds is small"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::platform::flash::SystemFlash;

    fn limits(toml: &str) -> Result<ServiceLimits, String> {
        let text = format!("[limits]\n{toml}");
        let config = Config::parse(&text, Path::new("/etc/edgerec"), &SystemFlash);
        config.map(|config| config.limits).map_err(|faults| faults.to_string())
    }

    #[test]
    fn what_is_set_is_used_and_the_rest_is_the_clouds() {
        assert_eq!(limits(""), Ok(ServiceLimits::default()));
        let set = "templates = 5\nrules = 0\ntask_ahead = \"30d\"\nforbid = \"1h\"\n\
                   requests_per_second = 7\n";
        let expected = ServiceLimits {
            templates: 5,
            rules: 0,
            task_ahead_s: 30 * 86_400,
            forbid_s: 3_600,
            requests_per_second: Some(7),
            ..ServiceLimits::default()
        };
        assert_eq!(limits(set), Ok(expected));
    }

    #[test]
    fn faults_are_told_with_their_places() {
        let faults = limits(
            "templates = -1\nrules = \"5\"\nrequests_per_second = 0\nhighlight = \"500ms\"\n\
             task_span = 60\nforbid = \"400d\"\nbans = 1\ntasks_per_day = 1_000_000\n",
        );
        assert_eq!(
            faults.expect_err("faulty"),
            "line 2, column 13, limits.templates: is outside 0..=10000\n\
             line 3, column 9, limits.rules: is a string, a whole number is expected\n\
             line 4, column 23, limits.requests_per_second: is outside 1..=100000\n\
             line 5, column 13, limits.highlight: is not a whole number of seconds\n\
             line 6, column 13, limits.task_span: is a number, a string is expected\n\
             line 7, column 10, limits.forbid: is more than 366d\n\
             line 8, column 1, limits.bans: is not a known key\n\
             line 9, column 17, limits.tasks_per_day: is outside 0..=100000"
        );
    }
}
