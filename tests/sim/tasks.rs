//! Timed and highlight tasks on the camera that no rule speaks of. Each task has its own record of
//! the pictures that were live in its window, by the clock of the box as it was then, and of those
//! that it must never have.

use std::collections::BTreeSet;
use std::sync::Arc;

use edgerec::domain::files::FileFormat;
use edgerec::domain::ids::RecordingId;
use edgerec::domain::service::limits::ServiceLimits;
use edgerec::domain::service::tasks::{When, Wish};
use edgerec::domain::task::{Family, Task};
use edgerec::domain::template::{FormatParams, Template};
use edgerec::domain::time::{ClockQuality, Moment};
use edgerec::platform::clock::Clock;
use edgerec::sim::random::Random;

use crate::camera::Sent;
use crate::world::{WALL_START_MS, World};

/// The camera that is recorded for tasks only, and its number.
pub const YARD: &str = "yard";
pub const YARD_INDEX: usize = 3;

/// A window that has been open for so long is recorded: tick, opening, and the next key frame.
const OPENED_MS: u64 = 10_000;
/// So much may be recorded beside a window: a group of pictures, a tick, and a fragment.
const BESIDE_MS: u64 = 8_000;

pub struct Asked {
    pub task: Arc<Task>,
    /// When it was asked for, in true time.
    asked_ms: u64,
    /// What of the time before it may have.
    early_ms: u64,
    stopped: bool,
    /// Since when its window has been open in this session.
    open_since_ms: Option<u64>,
    last_open_ms: u64,
    /// Pictures that were live in its window.
    due: BTreeSet<u64>,
    /// The same while nobody knew the time: they are dropped if it turns out to be another one.
    hoped: BTreeSet<u64>,
    /// Pictures that were not, by far.
    barred: BTreeSet<u64>,
}

impl Asked {
    /// Whether the window is open, as far as the box can tell.
    fn is_open(&self, now: Moment) -> bool {
        let (wall_ms, boot_ms) = (now.at.wall.unix.0, now.at.boot.0);
        let trusted = now.at.wall.quality == ClockQuality::Trusted;
        let by_wall = !trusted || (self.task.start_ms..self.task.end_ms).contains(&wall_ms);
        !self.stopped
            && match self.task.from_then {
                Some(then) if then.boot_id == now.boot_id.0 => {
                    (then.start_ms..then.end_ms).contains(&boot_ms)
                }
                Some(then) if !trusted => boot_ms < then.end_ms - then.start_ms,
                _ => by_wall,
            }
    }

    fn see(&mut self, number: u64, now_ms: u64, now: Moment) {
        let true_ms = true_wall_ms(now_ms);
        if !self.is_open(now) {
            self.open_since_ms = None;
            // What a wrong clock kept out is in the ring, and taken from there once the time is known.
            let beside_ms = BESIDE_MS.cast_signed();
            let in_truth =
                (self.task.start_ms - beside_ms..self.task.end_ms + beside_ms).contains(&true_ms);
            let late = now_ms > self.last_open_ms.max(self.asked_ms) + BESIDE_MS;
            if late && !in_truth && !self.begins_soon(now) {
                self.barred.insert(number);
            }
            return;
        }
        self.last_open_ms = now_ms;
        let since_ms = *self.open_since_ms.get_or_insert(now_ms);
        let in_truth = (self.task.start_ms..self.task.end_ms).contains(&true_ms);
        if now_ms >= since_ms.max(self.asked_ms) + OPENED_MS {
            match now.at.wall.quality {
                ClockQuality::Trusted => drop(self.due.insert(number)),
                ClockQuality::Untrusted if in_truth => drop(self.hoped.insert(number)),
                ClockQuality::Untrusted => {}
            }
        }
    }

    fn is_due(&self, number: u64) -> bool {
        self.due.contains(&number) || self.hoped.contains(&number)
    }

    fn begins_soon(&self, now: Moment) -> bool {
        let left_ms = self.task.start_ms - now.at.wall.unix.0;
        (0..BESIDE_MS.cast_signed()).contains(&left_ms)
    }
}

impl World {
    /// A task is asked for, or stopped, while its camera is live.
    pub fn draw_task(&mut self) {
        if self.random.one_in(6) && !self.asked.is_empty() {
            self.stop_task();
        }
        if self.random.one_in(4) {
            return;
        }
        let now = Moment { at: self.clock.now(), boot_id: self.clock.boot_id() };
        let (when, early_ms) = window(&mut self.random, now.at.wall.unix.0);
        let random = self.random.number();
        let made = self.life().ring.catalog.call_blocking(move |state| {
            state.change_service(|service, changes| {
                let limits = ServiceLimits::default();
                service.tasks.create(wish(when), &limits, now, random, changes)
            })
        });
        self.note_durability();
        let now_ms = self.now_ms();
        match made {
            Ok(Ok(task)) => {
                let earliest_ms = now_ms.saturating_sub(early_ms + BESIDE_MS);
                let sent = self.cameras[YARD_INDEX].sent.iter();
                let barred = sent.take_while(|sent| sent.at_ms < earliest_ms);
                self.asked.push(Asked {
                    barred: barred.map(|sent| sent.number).collect(),
                    task,
                    asked_ms: now_ms,
                    early_ms,
                    stopped: false,
                    open_since_ms: None,
                    last_open_ms: 0,
                    due: BTreeSet::new(),
                    hoped: BTreeSet::new(),
                });
                self.trace.event(now_ms, "task", &format!("{when:?}"));
            }
            Ok(Err(refusal)) => self.trace.event(now_ms, "task refused", refusal.code),
            Err(error) if self.is_troubled() => {
                self.trace.event(now_ms, "task refused", &error.to_string());
            }
            Err(error) => self.fail(&format!("no task: {error:?}")),
        }
    }

    fn stop_task(&mut self) {
        let which = self.random.below(self.asked.len() as u64) as usize;
        let id = self.asked[which].task.id();
        let now = Moment { at: self.clock.now(), boot_id: self.clock.boot_id() };
        let stop = self.life().ring.catalog.call_blocking(move |state| {
            state.change_service(|service, changes| {
                service.tasks.stop(id, Family::Record, now, changes)
            })
        });
        self.note_durability();
        self.asked[which].stopped |= matches!(stop, Ok(Ok(())));
        self.trace.event(self.now_ms(), "task stopped", &id.to_string());
    }

    /// A picture of the camera was sent.
    pub fn see_tasks(&mut self, number: u64) {
        let now = Moment { at: self.clock.now(), boot_id: self.clock.boot_id() };
        let now_ms = self.now_ms();
        self.asked.iter_mut().for_each(|asked| asked.see(number, now_ms, now));
    }

    /// A session of the camera began or ended: what is open is taken up anew.
    pub fn break_tasks(&mut self) {
        self.asked.iter_mut().for_each(|asked| asked.open_since_ms = None);
    }

    /// The clock was set. What was recorded while nobody knew the time stays if this is the truth.
    pub fn date_tasks(&mut self, unix_ms: i64) {
        let is_true = unix_ms == true_wall_ms(self.now_ms());
        for asked in &mut self.asked {
            let hoped = std::mem::take(&mut asked.hoped);
            if is_true {
                asked.due.extend(hoped);
            }
        }
    }

    /// Whether a file of this recording may have a picture.
    pub fn check_task_picture(&self, recording: RecordingId, number: u64) {
        let key = &self.cameras[YARD_INDEX].key;
        let asked = self.asked.iter().find(|asked| asked.task.recording_of(key) == recording);
        let Some(asked) = asked else { self.fail(&format!("{recording} is of no task")) };
        if asked.barred.contains(&number) {
            let (task, early_ms) = (&asked.task, asked.early_ms);
            self.fail(&format!("picture {number} is not of task {task:?}, {early_ms}"));
        }
    }

    /// Of the pictures `sent`, those that a task was to record and has not, with its recording.
    pub fn missing_of_tasks(&self, sent: &[Sent]) -> Vec<(RecordingId, Sent)> {
        let key = &self.cameras[YARD_INDEX].key;
        let found = self.numbers_of(YARD_INDEX);
        let missing = |asked: &Asked| {
            let recording = asked.task.recording_of(key);
            let due = sent.iter().filter(|sent| asked.is_due(sent.number));
            let lost = due.filter(|sent| !found.contains_key(&(recording, sent.number)));
            lost.map(|sent| (recording, *sent)).collect::<Vec<_>>()
        };
        self.asked.iter().flat_map(missing).collect()
    }

    /// How many pictures were due, by task and picture.
    pub fn due_of_tasks(&self) -> u64 {
        self.asked.iter().map(|asked| asked.due.len() as u64).sum()
    }
}

fn true_wall_ms(now_ms: u64) -> i64 {
    WALL_START_MS + now_ms.cast_signed()
}

/// A window, and how much of it may lie before now.
fn window(random: &mut Random, wall_ms: i64) -> (When, u64) {
    if random.one_in(3) {
        let pre_roll_s = random.below(60) as u32;
        let ahead_ms = random.between(5_000, 120_000).cast_signed();
        let end_ms = Some(wall_ms + ahead_ms);
        return (When::Highlight { pre_roll_s, end_ms }, u64::from(pre_roll_s) * 1_000);
    }
    let early_ms = random.below(80_000);
    let begin_ms = wall_ms + 40_000 - early_ms.cast_signed();
    let end_ms = begin_ms + random.between(10_000, 120_000).cast_signed();
    (When::Window { start_ms: begin_ms, end_ms }, early_ms.saturating_sub(40_000))
}

fn wish(when: When) -> Wish {
    let template = Template {
        name: "task".to_owned(),
        mp4: Some(FormatParams::of(FileFormat::Mp4)),
        ..Template::default()
    };
    Wish {
        family: Family::Record,
        domain: "cams".to_owned(),
        app: "live".to_owned(),
        stream: YARD.to_owned(),
        when,
        mixed: false,
        audio_only: false,
        template,
        template_id: 0,
    }
}
