//! Why a stream is recorded or not, now or at a time: what the rules decided, the tasks, the bans
//! and the gaps of the ledger.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::api::report::ExplainReport;
use crate::domain::matching::Decision;
use crate::domain::service::Service;
use crate::domain::stream_key::StreamKey;
use crate::domain::task::{Standing, Task};
use crate::domain::time::{Moment, UnixMillis};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::ledger::{DecisionRecord, GapRecord};

/// What is known of a stream's live session.
#[derive(Debug, Clone)]
pub enum Presence {
    /// No box runs.
    Unknown,
    /// There is none.
    Away,
    /// There is one, and this was decided about it.
    Live(Decision),
}

impl From<Option<Decision>> for Presence {
    fn from(decision: Option<Decision>) -> Self {
        decision.map_or(Presence::Away, Presence::Live)
    }
}

/// Explains what is decided about a stream, now or at a time. A time of which nothing is known is
/// answered with what the rules say now.
///
/// # Errors
/// The database fails.
pub fn explain(
    state: &mut CatalogState,
    presence: Presence,
    key: &StreamKey,
    at: Option<UnixMillis>,
) -> Result<ExplainReport, RingError> {
    let service = state.service().load_full();
    match at {
        None => explain_now(state, &service, presence, key),
        Some(at) => match explain_then(state, &service, key, at)? {
            Some(report) => Ok(report),
            None => {
                let what = "nothing is known of the stream at that time; what the rules say now";
                let mut report = ExplainReport::new(key, rules_now(&service, presence, key).0);
                report.reason = format!("{what}: {}", report.reason);
                Ok(report)
            }
        },
    }
}

fn explain_now(
    state: &mut CatalogState,
    service: &Service,
    presence: Presence,
    key: &StreamKey,
) -> Result<ExplainReport, RingError> {
    let now = state.now();
    let away = matches!(presence, Presence::Away);
    let (record, stale) = rules_now(service, presence, key);
    let mut report = ExplainReport::new(key, record);
    report.stale = stale;
    for task in service.tasks.of_stream(key, now).filter(|task| !task.deleted) {
        if task.standing(now) == Standing::Open {
            report.tasks.push(task.shown());
        }
        say(&mut report.reason, &task_now(task, now));
    }
    if let Some(ban) = service.forbids.holding(key, now.at.wall) {
        let why = if ban.reason.is_empty() { "without a reason" } else { &ban.reason };
        say(&mut report.reason, &format!("it is forbidden to push the stream: {why}"));
    }
    if away {
        say(&mut report.reason, "the stream is not live");
    }
    let now_ms = now.at.wall.unix.0;
    if let Some(forecast) = state.forecast()?.streams.get(key) {
        (report.bytes_per_s, report.keeps_s) = (Some(forecast.bytes_per_s), forecast.keeps_s);
    }
    for gap in state.gaps(key, now_ms, now_ms)?.iter().filter(|gap| gap.until_ms.is_none()) {
        say(&mut report.reason, &gap_words(gap));
    }
    Ok(report)
}

/// What the rules decided, and whether the session runs under older ones.
fn rules_now(service: &Service, presence: Presence, key: &StreamKey) -> (DecisionRecord, bool) {
    let table = service.layers.table();
    let now = table.resolve(key);
    let mut said = now.reason();
    if let Some(idle) = table.idle_reason(key) {
        say(&mut said, &idle);
    }
    // A live session keeps what it began with.
    match presence {
        Presence::Live(then) if !then.same_content(&now) => {
            let mut record = DecisionRecord::from(&then);
            record.reason = format!(
                "the live session began under older rules: {}; the next session: {said}",
                record.reason
            );
            (record, true)
        }
        _ => (DecisionRecord { reason: said, ..DecisionRecord::from(&now) }, false),
    }
}

/// What was decided at a time, as far as the catalog knows: of live streams by what was kept then,
/// of media that outlived a lost catalog by its recordings.
fn explain_then(
    state: &CatalogState,
    service: &Service,
    key: &StreamKey,
    at: UnixMillis,
) -> Result<Option<ExplainReport>, RingError> {
    let gaps = state.gaps(key, at.0, at.0)?;
    let was_open = |task: &&std::sync::Arc<Task>| {
        let stopped = task.stopped_ms.is_some_and(|stopped_ms| stopped_ms <= at.0);
        task.covers_key(key) && task.covers(at.0, at.0.saturating_add(1)) && !stopped
    };
    let tasks: Vec<String> = service.tasks.iter().filter(was_open).map(|t| t.shown()).collect();
    let mut report = match state.decision_at(key, at)? {
        Some(record) => ExplainReport::new(key, record),
        None => match state.recordings_at(key, at)? {
            Some(recordings) => ExplainReport::of_recordings(key, at, &recordings),
            None if gaps.is_empty() && tasks.is_empty() => return Ok(None),
            None => ExplainReport::of_no_rule(key, "the stream was not live".to_owned()),
        },
    };
    for task in &tasks {
        say(&mut report.reason, &format!("task {task} was open"));
    }
    for gap in &gaps {
        say(&mut report.reason, &gap_words(gap));
    }
    report.tasks = tasks;
    Ok(Some(report))
}

/// Goes on with a sentence.
fn say(reason: &mut String, what: &str) {
    // Writing to a text does not fail.
    let _ = write!(reason, "; {what}");
}

fn task_now(task: &Task, now: Moment) -> String {
    let (id, from, until) = (task.shown(), time(task.start_ms), time(task.end_ms));
    let mixed = if task.mixed { " what a mixer makes of it" } else { " it" };
    match (task.standing(now), now.trusted_wall()) {
        (Standing::Open, None) if task.from_then.is_none() => format!(
            "task {id} records{mixed} until the clock is set and tells whether it is between \
             {from} and {until}"
        ),
        (Standing::Open, _) => format!("task {id} records{mixed} until {until}"),
        _ => format!("task {id} will record{mixed} from {from} to {until}"),
    }
}

fn gap_words(gap: &GapRecord) -> String {
    let from = time(gap.from_ms);
    match gap.until_ms {
        Some(until_ms) => {
            format!("from {from} to {} what was due is missing: {}", time(until_ms), gap.cause)
        }
        None => format!("since {from} what is due is missing: {}", gap.cause),
    }
}

fn time(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string()
}
