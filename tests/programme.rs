//! The programme of a stream under random schedules: pushes that begin and drop, tasks that are made
//! and stopped, rules that change, clocks that step, reboots. What was asked for and live is recorded
//! once, no clip overlaps another of its recording, and nothing else is.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgerec::domain::files::{FileFormat, FormatSet};
use edgerec::domain::ids::{BootId, RecordingId};
use edgerec::domain::matching::{Decision, Layer, RuleTable};
use edgerec::domain::programme::{Ending, Programme, Why};
use edgerec::domain::recording::{Boundary, Recording, RecordingPlan};
use edgerec::domain::rule_set::RuleSet;
use edgerec::domain::service::Changes;
use edgerec::domain::service::limits::ServiceLimits;
use edgerec::domain::service::tasks::{Tasks, When, Wish};
use edgerec::domain::splice::Pause;
use edgerec::domain::stream_key::StreamKey;
use edgerec::domain::task::{Family, Standing, Task};
use edgerec::domain::template::Template;
use edgerec::domain::time::{BootTime, ClockQuality, Instant, Moment, UnixMillis, WallTime};
use proptest::prelude::*;

/// Between two samples, in milliseconds.
const STEP_MS: u64 = 200;
/// Steps of one schedule.
const STEPS: usize = 400;
/// Every so many samples a key frame.
const GOP: u64 = 5;
/// A stream is waited for so long, in seconds.
const FLOW_S: u32 = 6;
const DAWN_MS: i64 = 1_800_000_000_000;

/// Something that happens.
#[derive(Debug, Clone, Copy)]
enum Event {
    Begin,
    Drop,
    /// Rules: 0 records FLV and HLS, 1 records MP4, 2 says not recorded, 3 says nothing.
    Rules(usize),
    /// A task from so many steps ahead (or back) on, so many steps long.
    Task(i64, u64),
    Stop(usize),
    /// The wall clock steps by so many hours.
    Step(i64),
    Trust(bool),
    Reboot,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Begin),
        3 => Just(Event::Drop),
        2 => (0..4_usize).prop_map(Event::Rules),
        4 => (-60..60_i64, 5..150_u64).prop_map(|(ahead, long)| Event::Task(ahead, long)),
        2 => (0..6_usize).prop_map(Event::Stop),
        1 => (-30..30_i64).prop_map(Event::Step),
        1 => any::<bool>().prop_map(Event::Trust),
        1 => Just(Event::Reboot),
    ]
}

/// A sample that was sent, and what became of it.
struct Sent {
    session: u64,
    key: bool,
    media_ms: i64,
    wall_ms: i64,
    /// In the ring.
    kept: bool,
    /// Which clip of each recording and format it is in.
    clips: Vec<(RecordingId, FileFormat, u32)>,
}

struct World {
    programme: Programme,
    tables: Vec<RuleTable>,
    rules: usize,
    rules_seen: usize,
    tasks: Tasks,
    opened: Vec<(u64, RecordingId)>,
    recordings: u64,
    /// Templates of recordings, to take those up again that wait.
    made: BTreeMap<RecordingId, Arc<Template>>,
    waiting: BTreeMap<RecordingId, (Arc<Template>, Pause, i64)>,
    clips: BTreeMap<(RecordingId, FileFormat), u32>,
    sent: Vec<Sent>,
    session: u64,
    in_session: u64,
    live: bool,
    now: Moment,
    boot: u8,
    wall_off_ms: i64,
    /// Each sample's standing of each task, as it was when the sample came.
    due: Vec<Vec<u64>>,
    stopped: BTreeMap<u64, usize>,
}

fn table(template: &str, rules: bool) -> RuleTable {
    let rule = r#"{"DomainName": "", "AppName": "", "StreamName": "", "TemplateName": "t"}"#;
    let rule = if rules { rule } else { "" };
    let document = format!(
        r#"{{"revision": 1, "templates": [{{"TemplateName": "t"{template}}}], "rules": [{rule}]}}"#
    );
    let set = RuleSet::parse(document.as_bytes()).expect("valid");
    RuleTable::new([(Layer::Fleet, &set)])
}

impl World {
    fn new() -> Self {
        let both = format!(
            r#", "FlvParam": {{"Enable": 1, "RecordInterval": 60}}, "HlsParam": {{"Enable": 1}},
            "HlsSpecialParam": {{"FlowContinueDuration": {FLOW_S}}}"#
        );
        let tables = vec![
            table(&both, true),
            table(r#", "Mp4Param": {"Enable": 1, "RecordInterval": 60}"#, true),
            table("", true),
            table("", false),
        ];
        let mut world = World {
            programme: Programme::default(),
            tables,
            rules: 0,
            rules_seen: 0,
            tasks: Tasks::default(),
            opened: Vec::new(),
            recordings: 0,
            made: BTreeMap::new(),
            waiting: BTreeMap::new(),
            clips: BTreeMap::new(),
            sent: Vec::new(),
            session: 0,
            in_session: 0,
            live: false,
            now: Moment { at: Instant::START, boot_id: BootId([0; 16]) },
            boot: 0,
            wall_off_ms: 0,
            due: Vec::new(),
            stopped: BTreeMap::new(),
        };
        world.set_time(1_000, ClockQuality::Trusted);
        world
    }

    fn key() -> StreamKey {
        StreamKey::new("d", "live", "cam").expect("valid")
    }

    fn set_time(&mut self, boot_ms: u64, quality: ClockQuality) {
        let lived_ms = i64::try_from(self.due.len() as u64 * STEP_MS).expect("small");
        let unix = UnixMillis(DAWN_MS + lived_ms + self.wall_off_ms);
        let at = Instant { boot: BootTime(boot_ms), wall: WallTime { unix, quality } };
        self.now = Moment { at, boot_id: BootId([self.boot; 16]) };
    }

    fn decision(&self) -> Decision {
        self.tables[self.rules].resolve(&Self::key())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Begin if !self.live => self.begin(),
            Event::Drop if self.live => self.drop_stream(),
            Event::Rules(rules) => self.rules = rules,
            Event::Task(ahead, long) => self.ask(ahead, long),
            Event::Stop(which) => self.stop(which),
            Event::Step(hours) => self.wall_off_ms += hours * 3_600_000,
            Event::Trust(trusted) => {
                let quality = if trusted { ClockQuality::Trusted } else { ClockQuality::Untrusted };
                self.set_time(self.now.at.boot.0, quality);
            }
            Event::Reboot => self.reboot(),
            Event::Begin | Event::Drop => {}
        }
    }

    fn begin(&mut self) {
        (self.live, self.session, self.in_session) = (true, self.session + 1, 0);
        self.rules_seen = self.rules;
        let decision = self.decision();
        let begun = self.programme.begin(decision.clone(), false, self.now);
        begun.over.iter().chain(&begun.resumed).for_each(|id| {
            self.waiting.remove(id);
        });
        self.add_template(begun.wants_template, &decision);
    }

    fn add_template(&mut self, wanted: bool, decision: &Decision) {
        if let (true, Some(template)) = (wanted, decision.template()) {
            self.recordings += 1;
            let id = RecordingId(self.recordings);
            let plan = RecordingPlan::of_template(id, template, 3_600);
            self.made.insert(id, template.clone());
            self.programme.add_template(Recording::new(plan), template.clone());
        }
    }

    fn drop_stream(&mut self) {
        self.live = false;
        let hls: BTreeMap<RecordingId, i64> = self
            .programme
            .on()
            .filter_map(|one| Some((one.plan().id, one.open_ms(FileFormat::Hls)?)))
            .collect();
        let ended = self.programme.end(Ending::Gone, self.now);
        for (id, pause) in ended.paused {
            if let (Some(template), Some(ms)) = (self.made.get(&id), hls.get(&id)) {
                self.waiting.insert(id, (template.clone(), pause, *ms));
            }
        }
    }

    fn ask(&mut self, ahead: i64, long: u64) {
        let start_ms = self.now.at.wall.unix.0 + ahead * i64::try_from(STEP_MS).expect("small");
        let end_ms = start_ms + i64::try_from(long * STEP_MS).expect("small");
        let params = edgerec::domain::template::FormatParams::of(FileFormat::Flv);
        let template =
            Template { name: "task".to_owned(), flv: Some(params), ..Template::default() };
        let wish = Wish {
            family: Family::Record,
            domain: "d".to_owned(),
            app: "live".to_owned(),
            stream: "cam".to_owned(),
            when: When::Window { start_ms, end_ms },
            mixed: false,
            audio_only: false,
            template,
            template_id: 0,
        };
        let limits = ServiceLimits { overlapping_tasks: 100, ..ServiceLimits::default() };
        let random = self.due.len() as u64 + 77;
        // One whose window is past is refused.
        let _ = self.tasks.create(wish, &limits, self.now, random, &mut Changes::new());
    }

    fn stop(&mut self, which: usize) {
        let Some(task) = self.tasks.iter().nth(which).cloned() else { return };
        let stopped = self.tasks.stop(task.id(), Family::Record, self.now, &mut Changes::new());
        stopped.expect("it is there");
        self.stopped.entry(task.id).or_insert(self.due.len());
    }

    /// The box goes down and comes up: what waits is taken up, everything else is over.
    fn reboot(&mut self) {
        if self.live {
            self.drop_stream();
        }
        self.boot += 1;
        self.set_time(500, ClockQuality::Untrusted);
        self.programme = Programme::default();
        self.opened.clear();
        for (id, (template, pause, ms)) in self.waiting.clone() {
            let plan = RecordingPlan::of_template(id, &template, 3_600);
            self.programme.add_paused(Recording::resumed(plan, ms), template, pause);
        }
    }

    /// What the recorder does as time passes: closes what is past, opens what is due.
    fn look(&mut self) {
        let over: Vec<u64> = self
            .programme
            .tasks()
            .filter(|id| {
                let task = self.tasks.any(*id).expect("known");
                task.standing(self.now) != Standing::Open
            })
            .map(|id| id.0)
            .collect();
        for id in over {
            let task = self.tasks.any(edgerec::domain::ids::TaskId(id)).expect("known");
            self.programme.close_task(task.id()).expect("it was there");
            self.opened.retain(|(known, _)| *known != id);
        }
        let open: Vec<Arc<Task>> = self
            .tasks
            .iter()
            .filter(|task| task.standing(self.now) == Standing::Open)
            .filter(|task| self.opened.iter().all(|(known, _)| *known != task.id))
            .cloned()
            .collect();
        for task in open {
            self.open(&task);
        }
        let expired = self.programme.expire(self.now);
        expired.over.iter().for_each(|id| drop(self.waiting.remove(id)));
    }

    /// Opens a task: with what the ring has of the live session, then with what comes.
    fn open(&mut self, task: &Task) {
        let id = task.recording_of(&Self::key());
        self.opened.push((task.id, id));
        let mut recording = Recording::new(RecordingPlan::of_template(id, &task.template, 3_600));
        let has_some = self.sent.iter().any(|sent| sent.clips.iter().any(|clip| clip.0 == id));
        let session = self.session;
        let unbroken = self.sent.iter().rposition(|sent| sent.session != session || !sent.kept);
        let unbroken = unbroken.map_or(0, |at| at + 1);
        let wanted = |sent: &Sent| sent.wall_ms <= task.start_ms && sent.key;
        let begin = (unbroken..self.sent.len())
            .rfind(|at| wanted(&self.sent[*at]))
            .or_else(|| (unbroken..self.sent.len()).find(|at| self.sent[*at].key))
            .filter(|_| self.live && !has_some);
        if let Some(begin) = begin {
            for at in begin..self.sent.len() {
                let Sent { key, media_ms, .. } = self.sent[at];
                let boundary =
                    Boundary { key, media_ms, first: at == begin, ..Boundary::default() };
                let step = recording.step(&boundary);
                self.clip(at, id, step.begins, recording.open_formats());
            }
        }
        let why = Why::Task { id: task.id(), flow_continue_s: 0, opened: self.now };
        self.programme.open_task(recording, why, begin.is_some());
    }

    fn clip(&mut self, at: usize, id: RecordingId, begins: FormatSet, open: FormatSet) {
        for format in begins.iter() {
            *self.clips.entry((id, format)).or_default() += 1;
        }
        for format in open.iter() {
            let number = self.clips[&(id, format)];
            self.sent[at].clips.push((id, format, number));
        }
    }

    /// A sample comes, if the stream is live.
    fn sample(&mut self) {
        let key = self.in_session.is_multiple_of(GOP);
        if self.rules != self.rules_seen && key {
            self.rules_seen = self.rules;
            let decision = self.decision();
            let before = self.programme.decision().expect("live").clone();
            if !before.same_content(&decision) {
                let begun = self.programme.restart(decision.clone(), false);
                self.add_template(begun.wants_template, &decision);
            }
        }
        let media_ms = i64::try_from(self.in_session * STEP_MS).expect("small");
        let step =
            self.programme.step(&Boundary { key, media_ms, ..Boundary::default() }, u64::MAX);
        let wall_ms = self.now.at.wall.unix.0;
        let (session, kept) = (self.session, step.kept);
        self.sent.push(Sent { session, key, media_ms, wall_ms, kept, clips: Vec::new() });
        let at = self.sent.len() - 1;
        let on: Vec<(RecordingId, FormatSet)> =
            self.programme.on().map(|one| (one.plan().id, one.open_formats())).collect();
        for (id, open) in on {
            let begins = step.begins.iter().find(|(of, _)| *of == id);
            self.clip(at, id, begins.map_or(FormatSet::EMPTY, |(_, begins)| *begins), open);
        }
        self.in_session += 1;
        self.check(at);
    }

    /// What must hold of each sample when it comes.
    fn check(&self, at: usize) {
        let sent = &self.sent[at];
        let in_clip = |id: RecordingId| sent.clips.iter().any(|clip| clip.0 == id);
        let since_key = self.sent[..=at]
            .iter()
            .rposition(|one| one.key && one.session == sent.session)
            .is_some();
        // Everything that is asked for by a template is recorded from the session's first key on.
        let decision = self.programme.decision().expect("live");
        let templates = self.made.keys().filter(|id| in_clip(**id)).count();
        match decision {
            Decision::Record(_) => assert!(!since_key || templates == 1, "{templates} templates"),
            Decision::NoRecord(_) | Decision::Unmatched => {
                assert_eq!(templates, 0, "not to be recorded");
                let by_tasks = self.opened.iter().any(|(_, id)| in_clip(*id));
                assert_eq!(sent.kept, by_tasks, "kept only for tasks");
            }
        }
        for task in self.tasks.iter() {
            let id = task.recording_of(&Self::key());
            match task.standing(self.now) {
                Standing::Open => {
                    // From the first key frame since it was opened on; it may join earlier.
                    let opened = self.due.iter().rposition(|due| !due.contains(&task.id));
                    let opened = opened.map_or(0, |step| step + 1);
                    let keys = self.sent[..=at].iter().rev().take(self.due.len() + 1 - opened);
                    let key = keys.filter(|one| one.session == sent.session).any(|one| one.key);
                    assert!(in_clip(id) || !key, "task {} is open and not recorded", task.id);
                    // Once it has begun, also in the past, it goes on without a hole.
                    let before = at.checked_sub(1).map(|before| &self.sent[before]);
                    let runs = before.is_some_and(|before| {
                        before.session == sent.session
                            && before.clips.iter().any(|clip| clip.0 == id)
                    });
                    assert!(in_clip(id) || !runs, "task {} has a hole", task.id);
                }
                Standing::Armed | Standing::Over => {
                    assert!(!in_clip(id), "task {} is not open and recorded", task.id);
                }
            }
        }
    }

    /// What must hold in the end: clips follow one another, each sample once.
    fn check_clips(&self) {
        let mut last: BTreeMap<(RecordingId, FileFormat), (u32, usize, u64)> = BTreeMap::new();
        for (at, sent) in self.sent.iter().enumerate() {
            assert!(sent.kept || sent.clips.is_empty(), "recorded and not kept");
            for (id, format, number) in &sent.clips {
                let same = sent.clips.iter().filter(|clip| (clip.0, clip.1) == (*id, *format));
                assert_eq!(same.count(), 1, "twice in {id} {format}");
                let before = last.insert((*id, *format), (*number, at, sent.session));
                let Some((before, at_before, session)) = before else { continue };
                assert!(before <= *number, "an older clip goes on");
                let runs_on = at_before + 1 == at && session == sent.session;
                let joins = *format == FileFormat::Hls && session != sent.session;
                let gap_ok = before != *number || runs_on || joins;
                assert!(gap_ok, "a hole in clip {number} of {id} {format}");
            }
        }
        for (task, since) in &self.stopped {
            let id = self.tasks.any(edgerec::domain::ids::TaskId(*task)).expect("known");
            let id = id.recording_of(&Self::key());
            let late = self
                .sent
                .iter()
                .skip(self.sent_at(*since))
                .any(|sent| sent.clips.iter().any(|clip| clip.0 == id));
            assert!(!late, "a stopped task recorded");
        }
    }

    /// Samples that had come before a step.
    fn sent_at(&self, step: usize) -> usize {
        self.due[..step].iter().filter(|due| due.contains(&u64::MAX)).count()
    }

    fn step(&mut self) {
        self.look();
        if self.live {
            self.sample();
        }
        let open = self.tasks.iter().filter(|task| task.standing(self.now) == Standing::Open);
        let mut due: Vec<u64> = open.map(|task| task.id).collect();
        due.extend(self.live.then_some(u64::MAX));
        self.due.push(due);
        let quality = self.now.at.wall.quality;
        self.set_time(self.now.at.boot.0 + STEP_MS, quality);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_was_asked_for_and_live_is_recorded_once(
        schedule in prop::collection::vec((0..STEPS, event()), 0..60)
    ) {
        let mut world = World::new();
        for step in 0..STEPS {
            for (_, event) in schedule.iter().filter(|(at, _)| *at == step) {
                world.happen(*event);
            }
            world.step();
        }
        world.check_clips();
    }
}
