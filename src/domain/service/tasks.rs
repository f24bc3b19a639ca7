//! Timed and highlight tasks: made, stopped, deleted, listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::domain::ids::TaskId;
use crate::domain::service::limits::ServiceLimits;
use crate::domain::service::{Changes, Kind, Refusal};
use crate::domain::stream_key::StreamKey;
use crate::domain::task::{Family, FromThen, Standing, Task};
use crate::domain::template::Template;
use crate::domain::time::Moment;

/// Tasks that are kept; the oldest that are over go first.
const TASKS_MAX: usize = 10_000;
/// How long tasks are kept, in milliseconds: three months.
const KEPT_MS: i64 = 90 * 86_400_000;
/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;
/// Longest stretch that DescribeRecordTask looks at, in seconds.
const LISTED_SPAN_S: u64 = 604_800;
/// Tasks of one page of DescribeRecordTask.
pub const LISTED_MAX: usize = 100;
/// Characters of a task's text; the published samples have 57 to 63.
const NAME_CHARS: usize = 60;

/// All tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    by_id: BTreeMap<u64, Arc<Task>>,
    by_name: BTreeMap<String, u64>,
    last: u64,
}

/// When a task is to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Between two times, Unix milliseconds.
    Window {
        /// Begins; may lie in the past.
        start_ms: i64,
        /// Ends.
        end_ms: i64,
    },
    /// From now on, or this much earlier, until a time (Unix milliseconds) if one is given.
    Highlight {
        /// How much earlier, in seconds.
        pre_roll_s: u32,
        /// Ends; what is past or too far ahead counts as not given.
        end_ms: Option<i64>,
    },
}

/// A task that is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// By which actions.
    pub family: Family,
    /// Domain of the streams; empty for any.
    pub domain: String,
    /// Their app.
    pub app: String,
    /// Their name.
    pub stream: String,
    /// When.
    pub when: When,
    /// Only what a mixer makes.
    pub mixed: bool,
    /// Only sound.
    pub audio_only: bool,
    /// Which formats and how.
    pub template: Template,
    /// The number of the template; 0 for none.
    pub template_id: u64,
}

/// Which tasks are listed.
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    /// Not before, Unix seconds.
    pub start_s: u64,
    /// Not after, Unix seconds.
    pub end_s: u64,
    /// Of this domain only.
    pub domain: Option<String>,
    /// Of this app only.
    pub app: Option<String>,
    /// Of this stream only.
    pub stream: Option<String>,
    /// Those after this task.
    pub after: u64,
}

impl Tasks {
    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let task: Task = serde_json::from_str(content).map_err(|error| error.to_string())?;
        if key != entry_key(task.id) {
            return Err("the entry is another task's".to_owned());
        }
        self.enter(task);
        Ok(())
    }

    /// Makes a task; `random` is uniform.
    ///
    /// # Errors
    /// Its times make no sense, or there are too many tasks.
    pub fn create(
        &mut self,
        wish: Wish,
        limits: &ServiceLimits,
        now: Moment,
        random: u64,
        changes: &mut Changes,
    ) -> Result<Arc<Task>, Refusal> {
        let wall_ms = now.at.wall.unix.0;
        let (start_ms, end_ms, from_then) = match wish.when {
            When::Window { start_ms, end_ms } => {
                check_window(wish.family, start_ms, end_ms, limits, now)?;
                (start_ms, end_ms, None)
            }
            When::Highlight { pre_roll_s, end_ms } => {
                let lasts_ms = highlight_ms(end_ms, limits, now);
                let early_ms = u64::from(pre_roll_s.min(limits.pre_roll_s)) * 1_000;
                let boot_ms = now.at.boot.0;
                let then = FromThen {
                    boot_id: now.boot_id.0,
                    start_ms: boot_ms.saturating_sub(early_ms),
                    end_ms: boot_ms.saturating_add(lasts_ms),
                };
                let signed = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
                let start_ms = wall_ms.saturating_sub(signed(early_ms));
                (start_ms, wall_ms.saturating_add(signed(lasts_ms)), Some(then))
            }
        };
        self.forget_old(wall_ms, now, changes);
        self.check_counts(&wish, (start_ms, end_ms), limits, now)?;
        let id = self.last + 1;
        let task = Task {
            id,
            name: name_of(id, random),
            family: wish.family,
            domain: wish.domain.to_lowercase(),
            app: wish.app,
            stream: wish.stream,
            start_ms,
            end_ms,
            from_then,
            highlight: from_then.is_some(),
            mixed: wish.mixed,
            audio_only: wish.audio_only,
            template: wish.template,
            template_id: wish.template_id,
            created_ms: wall_ms,
            stopped_ms: None,
            deleted: false,
            salt: random,
        };
        changes.put(Kind::Task, entry_key(id), &task);
        Ok(self.enter(task))
    }

    /// Ends a task's recording; it never starts again. Stopping twice changes nothing.
    ///
    /// # Errors
    /// There is no such task of the family.
    pub fn stop(
        &mut self,
        task: TaskId,
        family: Family,
        now: Moment,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let mut stopped = self.get(task, family).ok_or_else(|| unknown(family))?.as_ref().clone();
        if stopped.stopped_ms.is_none() {
            stopped.stopped_ms = Some(now.at.wall.unix.0);
            changes.put(Kind::Task, entry_key(stopped.id), &stopped);
            self.enter(stopped);
        }
        Ok(())
    }

    /// Forgets a task. One of the old family that is running stays as it is; one of the new family
    /// goes on with the push that it records and takes no later one.
    ///
    /// # Errors
    /// There is no such task of the family, or it may not be forgotten.
    pub fn delete(
        &mut self,
        task: TaskId,
        family: Family,
        now: Moment,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let found = self.get(task, family).ok_or_else(|| unknown(family))?.clone();
        match (found.standing(now), family) {
            (Standing::Open, Family::Live) => {
                let what = "the task is running; stop it first";
                Err(Refusal::new("FailedOperation.AlterTaskState", what))
            }
            (Standing::Open, Family::Record) => {
                let deleted = Task { deleted: true, ..Task::clone(&found) };
                changes.put(Kind::Task, entry_key(deleted.id), &deleted);
                self.enter(deleted);
                Ok(())
            }
            _ => {
                self.forget(found.id, changes);
                Ok(())
            }
        }
    }

    /// A task of a family.
    #[must_use]
    pub fn get(&self, task: TaskId, family: Family) -> Option<&Arc<Task>> {
        self.by_id.get(&task.0).filter(|task| task.family == family && !task.deleted)
    }

    /// The task of the new family with this text.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Task>> {
        self.get(TaskId(*self.by_name.get(name)?), Family::Record)
    }

    /// A task whatever has become of it.
    #[must_use]
    pub fn any(&self, task: TaskId) -> Option<&Arc<Task>> {
        self.by_id.get(&task.0)
    }

    /// Every task, in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.by_id.values()
    }

    /// The tasks for a stream that are not past by now.
    pub fn of_stream<'a>(
        &'a self,
        key: &'a StreamKey,
        now: Moment,
    ) -> impl Iterator<Item = &'a Arc<Task>> {
        let wanted =
            move |task: &&Arc<Task>| task.covers_key(key) && task.standing(now) != Standing::Over;
        self.by_id.values().filter(wanted)
    }

    /// A page of the new family's tasks that lie inside a stretch of time, and whether there are
    /// more.
    ///
    /// # Errors
    /// The stretch is too long or too far back.
    pub fn list(&self, query: &TaskQuery, now: Moment) -> Result<(Vec<Arc<Task>>, bool), Refusal> {
        let span_s = query.end_s.checked_sub(query.start_s);
        if span_s.is_none_or(|span_s| span_s > LISTED_SPAN_S) {
            let what = "EndTime must be after StartTime, by at most seven days";
            return Err(Refusal::new("InvalidParameter", what));
        }
        let (start_ms, end_ms) = (to_ms(query.start_s), to_ms(query.end_s));
        if now.trusted_wall().is_some_and(|wall| start_ms < wall.0 - KEPT_MS) {
            return Err(Refusal::new("InvalidParameter", "StartTime is over 90 days back"));
        }
        let is = |wanted: &Option<String>, given: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == given)
        };
        let mut found = self.by_id.range(query.after + 1..).map(|(_, task)| task).filter(|task| {
            task.family == Family::Record
                && !task.deleted
                && task.start_ms >= start_ms
                && task.end_ms <= end_ms
                && is(&query.domain, &task.domain)
                && is(&query.app, &task.app)
                && is(&query.stream, &task.stream)
        });
        let page = found.by_ref().take(LISTED_MAX).cloned().collect();
        Ok((page, found.next().is_some()))
    }

    fn check_counts(
        &self,
        wish: &Wish,
        (start_ms, end_ms): (i64, i64),
        limits: &ServiceLimits,
        now: Moment,
    ) -> Result<(), Refusal> {
        let open = self.iter().filter(|task| task.standing(now) == Standing::Open).count();
        if open >= limits.running_tasks {
            let what = format!("{open} tasks are running, {} are allowed", limits.running_tasks);
            return Err(Refusal::new("LimitExceeded.MaximumRunningTask", what));
        }
        match wish.family {
            Family::Live => {
                let since = now.at.wall.unix.0 - DAY_MS;
                let recent = self.iter().filter(|task| {
                    task.family == Family::Live && !task.highlight && task.created_ms > since
                });
                let recent = recent.count();
                if wish_is_timed(wish) && recent >= limits.tasks_per_day {
                    let what = format!("{recent} tasks were made within a day");
                    return Err(Refusal::new("LimitExceeded.MaximumTask", what));
                }
            }
            Family::Record => {
                let beside = self.iter().filter(|task| {
                    task.family == Family::Record
                        && !task.deleted
                        && task.standing(now) != Standing::Over
                        && (&task.domain, &task.app, &task.stream)
                            == (&wish.domain, &wish.app, &wish.stream)
                        && task.covers(start_ms, end_ms)
                });
                let beside = beside.count();
                if beside >= limits.overlapping_tasks {
                    let what = format!("{beside} tasks of the stream overlap with it already");
                    return Err(Refusal::new("LimitExceeded.MaximumRunningTask", what));
                }
            }
        }
        Ok(())
    }

    /// Makes room: what is over for three months, and the oldest beyond the bound.
    fn forget_old(&mut self, wall_ms: i64, now: Moment, changes: &mut Changes) {
        let over = |task: &&Arc<Task>| task.standing(now) == Standing::Over;
        let mut gone: Vec<u64> = Vec::new();
        if now.trusted_wall().is_some() {
            let old = self.iter().filter(over).filter(|task| task.end_ms < wall_ms - KEPT_MS);
            gone.extend(old.map(|task| task.id));
        }
        let left = self.by_id.len() - gone.len();
        let surplus = (left + 1).saturating_sub(TASKS_MAX);
        let rest = self.iter().filter(over).map(|task| task.id).filter(|id| !gone.contains(id));
        let rest: Vec<u64> = rest.take(surplus).collect();
        for id in gone.into_iter().chain(rest) {
            self.forget(id, changes);
        }
    }

    fn enter(&mut self, task: Task) -> Arc<Task> {
        let task = Arc::new(task);
        self.last = self.last.max(task.id);
        self.by_name.insert(task.name.clone(), task.id);
        self.by_id.insert(task.id, task.clone());
        task
    }

    fn forget(&mut self, id: u64, changes: &mut Changes) {
        // The last number stays, so that it is never given again.
        if id == self.last {
            if let Some(task) = self.by_id.get(&id) {
                let now_past = task.end_ms.min(task.created_ms);
                let gone = Task { deleted: true, stopped_ms: Some(now_past), ..Task::clone(task) };
                changes.put(Kind::Task, entry_key(id), &gone);
                self.enter(gone);
            }
            return;
        }
        if let Some(task) = self.by_id.remove(&id) {
            self.by_name.remove(&task.name);
            changes.delete(Kind::Task, entry_key(id));
        }
    }
}

fn wish_is_timed(wish: &Wish) -> bool {
    matches!(wish.when, When::Window { .. })
}

/// The old family knows no codes for missing tasks but its own.
fn unknown(family: Family) -> Refusal {
    let code = match family {
        Family::Live => "ResourceNotFound.TaskId",
        Family::Record => "InvalidParameter",
    };
    Refusal::new(code, "there is no such task")
}

fn check_window(
    family: Family,
    start_ms: i64,
    end_ms: i64,
    limits: &ServiceLimits,
    now: Moment,
) -> Result<(), Refusal> {
    let code = match family {
        Family::Live => "InvalidParameterValue",
        Family::Record => "InvalidParameter",
    };
    let bad = |what: &str| Err(Refusal::new(code, what));
    if end_ms <= start_ms {
        return bad("EndTime must be after StartTime");
    }
    // Nobody knows the time: what can only be told by it is let through.
    let wall_ms = now.trusted_wall().map(|wall| wall.0);
    if family == Family::Record {
        if wall_ms.is_some_and(|wall_ms| end_ms <= wall_ms) {
            return bad("EndTime has passed");
        }
        if end_ms - start_ms > i64::from(limits.task_span_s) * 1_000 {
            let what = format!("the window is longer than {} s", limits.task_span_s);
            return bad(&what);
        }
        let ahead_ms = i64::from(limits.task_ahead_s) * 1_000;
        if wall_ms.is_some_and(|wall_ms| end_ms > wall_ms + ahead_ms) {
            return bad(&format!("EndTime is more than {} s ahead", limits.task_ahead_s));
        }
    }
    Ok(())
}

/// How long a highlight lasts: to its end if that is given and makes sense, else as long as it may.
fn highlight_ms(end_ms: Option<i64>, limits: &ServiceLimits, now: Moment) -> u64 {
    let longest_ms = u64::from(limits.highlight_s) * 1_000;
    let left = end_ms.zip(now.trusted_wall()).map(|(end, wall)| end.saturating_sub(wall.0));
    let left = left.and_then(|left| u64::try_from(left).ok());
    left.filter(|left| (1..=longest_ms).contains(left)).unwrap_or(longest_ms)
}

/// Letters and digits that nobody can guess.
fn name_of(id: u64, random: u64) -> String {
    let mut hash = Sha256::new();
    hash.update(random.to_be_bytes());
    hash.update(id.to_be_bytes());
    let hex = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    hex[..NAME_CHARS].to_owned()
}

/// Tasks are stored under their numbers, in order.
fn entry_key(id: u64) -> String {
    format!("{id:020}")
}

fn to_ms(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::tests::{moment, task};

    const NOW_MS: i64 = 1_800_000_000_000;

    fn now() -> Moment {
        moment(1, 50_000, NOW_MS, true)
    }

    fn wish(family: Family, when: When) -> Wish {
        let model = task(0, 0, 1);
        Wish {
            family,
            domain: model.domain,
            app: model.app,
            stream: model.stream,
            when,
            mixed: false,
            audio_only: false,
            template: model.template,
            template_id: 0,
        }
    }

    fn window(from_s: i64, to_s: i64) -> When {
        When::Window { start_ms: NOW_MS + from_s * 1_000, end_ms: NOW_MS + to_s * 1_000 }
    }

    fn create(tasks: &mut Tasks, family: Family, when: When) -> Result<Arc<Task>, Refusal> {
        let limits = ServiceLimits::default();
        tasks.create(wish(family, when), &limits, now(), 3, &mut Changes::new())
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
        result.expect_err("refused").code
    }

    #[test]
    fn windows_are_checked_as_their_family_says() {
        let mut tasks = Tasks::default();
        assert_eq!(code(create(&mut tasks, Family::Live, window(5, 5))), "InvalidParameterValue");
        for when in [window(5, 5), window(-9, -1), window(0, 86_401), window(604_000, 604_801)] {
            assert_eq!(code(create(&mut tasks, Family::Record, when)), "InvalidParameter");
        }
        create(&mut tasks, Family::Live, window(0, 1_000_000)).expect("the old family has no span");
        create(&mut tasks, Family::Live, window(-90, -30)).expect("what the ring has can be had");
        create(&mut tasks, Family::Record, window(-50, 86_000)).expect("the past may be asked for");
    }

    #[test]
    fn a_highlight_ends_in_time_whatever_is_asked() {
        let mut tasks = Tasks::default();
        let mut lasts = |end_s: Option<i64>| {
            let end_ms = end_s.map(|end_s| NOW_MS + end_s * 1_000);
            let when = When::Highlight { pre_roll_s: 20, end_ms };
            let task = create(&mut tasks, Family::Live, when).expect("made");
            let then = task.from_then.expect("counts from now");
            assert_eq!(then.start_ms, 30_000);
            (then.end_ms - 50_000) / 1_000
        };
        let all = [lasts(None), lasts(Some(60)), lasts(Some(-5)), lasts(Some(1_801))];
        assert_eq!(all, [1_800, 60, 1_800, 1_800]);
    }

    #[test]
    fn counts_are_limited() {
        let mut tasks = Tasks::default();
        for _ in 0..3 {
            create(&mut tasks, Family::Record, window(0, 100)).expect("three may overlap");
        }
        let fourth = create(&mut tasks, Family::Record, window(99, 200));
        assert_eq!(code(fourth), "LimitExceeded.MaximumRunningTask");
        create(&mut tasks, Family::Record, window(100, 200)).expect("it follows on");
        let limits = ServiceLimits { tasks_per_day: 1, running_tasks: 4, ..Default::default() };
        let mut live = |when| {
            let wish = wish(Family::Live, when);
            tasks.create(wish, &limits, now(), 3, &mut Changes::new())
        };
        live(window(500, 600)).expect("the first of the day");
        assert_eq!(code(live(window(500, 600))), "LimitExceeded.MaximumTask");
        let highlight = When::Highlight { pre_roll_s: 0, end_ms: None };
        live(highlight).expect("highlights do not count");
        assert_eq!(code(live(highlight)), "LimitExceeded.MaximumRunningTask");
    }

    #[test]
    fn families_do_not_know_each_other() {
        let mut tasks = Tasks::default();
        let live = create(&mut tasks, Family::Live, window(5, 50)).expect("made");
        let record = create(&mut tasks, Family::Record, window(5, 50)).expect("made");
        let changes = &mut Changes::new();
        let stopped = tasks.stop(live.id(), Family::Record, now(), changes);
        assert_eq!(code(stopped), "InvalidParameter");
        let stopped = tasks.stop(record.id(), Family::Live, now(), changes);
        assert_eq!(code(stopped), "ResourceNotFound.TaskId");
        assert!(tasks.named(&live.name).is_none() && tasks.named(&record.name).is_some());
        assert_eq!(record.name.len(), NAME_CHARS);
    }

    #[test]
    fn deleting_leaves_what_runs_alone() {
        let mut tasks = Tasks::default();
        let live = create(&mut tasks, Family::Live, window(-5, 50)).expect("made");
        let record = create(&mut tasks, Family::Record, window(-5, 50)).expect("made");
        let changes = &mut Changes::new();
        let deleted = tasks.delete(live.id(), Family::Live, now(), changes);
        assert_eq!(code(deleted), "FailedOperation.AlterTaskState");
        tasks.stop(live.id(), Family::Live, now(), changes).expect("stopped");
        tasks.delete(live.id(), Family::Live, now(), changes).expect("over, so it goes");
        assert!(tasks.any(live.id()).is_none());
        tasks.delete(record.id(), Family::Record, now(), changes).expect("told");
        let kept = tasks.any(record.id()).expect("it goes on with its push");
        assert!(kept.deleted && kept.standing(now()) == Standing::Open);
        assert_eq!(
            code(tasks.delete(record.id(), Family::Record, now(), changes)),
            "InvalidParameter"
        );
    }

    #[test]
    fn numbers_are_never_given_again_and_entries_bring_everything_back() {
        let mut tasks = Tasks::default();
        let changes = &mut Changes::new();
        let limits = ServiceLimits::default();
        let mut stored = BTreeMap::new();
        for _ in 0..3 {
            let task = tasks.create(wish(Family::Live, window(5, 50)), &limits, now(), 3, changes);
            let task = task.expect("made");
            tasks.delete(task.id(), Family::Live, now(), changes).expect("deleted");
        }
        let fourth = create(&mut tasks, Family::Live, window(5, 50)).expect("made");
        assert_eq!(fourth.id, 4);
        changes.put(Kind::Task, entry_key(4), &*fourth);
        for change in changes.iter() {
            match &change.content {
                Some(content) => stored.insert(change.key.clone(), content.clone()),
                None => stored.remove(&change.key),
            };
        }
        let mut again = Tasks::default();
        for (key, content) in &stored {
            again.restore(key, content).expect("as stored");
        }
        assert_eq!(again.last, 4);
        assert_eq!(again.any(TaskId(4)), Some(&fourth));
    }

    #[test]
    fn lists_are_of_the_new_family_inside_the_stretch_and_in_pages() {
        let mut tasks = Tasks::default();
        let limits = ServiceLimits { overlapping_tasks: 1_000, ..ServiceLimits::default() };
        for _ in 0..LISTED_MAX + 5 {
            let wish = wish(Family::Record, window(10, 20));
            tasks.create(wish, &limits, now(), 3, &mut Changes::new()).expect("made");
        }
        create(&mut tasks, Family::Live, window(10, 20)).expect("made");
        let now_s = u64::try_from(NOW_MS / 1_000).expect("positive");
        let mut query =
            TaskQuery { start_s: now_s + 10, end_s: now_s + 20, ..TaskQuery::default() };
        let (first, more) = tasks.list(&query, now()).expect("listed");
        assert!(first.len() == LISTED_MAX && more);
        query.after = first.last().expect("a page").id;
        let (second, more) = tasks.list(&query, now()).expect("listed");
        assert!(second.len() == 5 && !more);
        query = TaskQuery { start_s: now_s + 11, end_s: now_s + 20, ..TaskQuery::default() };
        assert!(tasks.list(&query, now()).expect("listed").0.is_empty());
        query = TaskQuery { start_s: now_s, end_s: now_s + 604_801, ..TaskQuery::default() };
        assert_eq!(code(tasks.list(&query, now())), "InvalidParameter");
    }
}
