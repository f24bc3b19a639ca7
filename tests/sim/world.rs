//! A box, its cameras, its fleet and its VOD platform, from one seed: what happens to them, and when.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edgerec::domain::eviction::OnFull;
use edgerec::domain::fleet::document::Gate;
use edgerec::domain::fleet::keyring::Keyring;
use edgerec::domain::ids::{BootId, DirectoryId};
use edgerec::domain::matching::Decision;
use edgerec::domain::service::fleet_rules::News;
use edgerec::domain::service::layers::SentLayer;
use edgerec::domain::time::{ClockQuality, Moment, UnixMillis, WallTime};
use edgerec::platform::clock::Clock;
use edgerec::recorder::Beginning;
use edgerec::recorder::stream::LiveStream;
use edgerec::ring::catalog::pushes::PushId;
use edgerec::ring::identity::RingIdentity;
use edgerec::sim::clock::SimClock;
use edgerec::sim::database::Database;
use edgerec::sim::flash::{Operation, SimFlash, Trouble};
use edgerec::sim::random::Random;

use crate::broker::{Arrival, Broker, SECRET};
use crate::camera::{Camera, MARK, Sent};
use crate::checks::LOSS_BOUND_MS;
use crate::life::{CAPACITY_BYTES, Grounds, Life, SLOT_BYTES, SLOTS, us};
use crate::tasks::{Asked, YARD, YARD_INDEX};
use crate::trace::Trace;
use crate::vod::SimVod;

pub const DAY_MS: u64 = 24 * 3_600_000;
/// While something is live, and until everything of it has settled.
const STEP_MS: u64 = 250;
const SETTLED_MS: u64 = 15_000;
/// While nothing is.
const IDLE_STEP_MS: u64 = 60_000;
/// 2027-01-15T08:00:00Z.
pub const WALL_START_MS: i64 = 1_800_000_000_000;
const YEAR_MS: i64 = 365 * 24 * 3_600_000;
/// After new rules nobody says for so long what is due: sessions take them at a key frame.
const RULES_SETTLE_MS: u64 = 10_000;

pub struct World {
    pub seed: u64,
    pub random: Random,
    pub trace: Trace,
    pub clock: Arc<SimClock>,
    pub flash: SimFlash,
    pub dir: tempfile::TempDir,
    pub database: Database,
    pub life: Option<Life>,
    pub cameras: Vec<Camera>,
    pub vod: Arc<SimVod>,
    pub broker: Broker,
    /// Tasks that were made.
    pub asked: Vec<Asked>,
    pub on_full: OnFull,
    /// Errors and delays that the flash has had in this life.
    pub flash_troubles: Arc<AtomicU64>,
    /// The wall clock was set since the last restart.
    pub wall_was_set: bool,
    pub losses_seen: u64,
    /// Promises of the catalog when losses were last looked at.
    pub losses_checked_at: u64,
    /// Becomes the flash's at the next start.
    pub trouble_at_start: Option<Trouble>,
    /// Nothing happens that is not asked for.
    calm: bool,
    gate: Gate,
    lives: u64,
    pushes: i64,
    last_live_ms: u64,
    last_tick_ms: u64,
    rules_seen: (u64, u64),
    syncs_seen: (u64, u64),
    /// What is to happen at these times.
    power_at: Option<(u64, bool)>,
    trouble_ends_ms: Option<u64>,
    /// When the flash last failed each time, from and to.
    fails_ms: Option<(u64, u64)>,
    /// When it began to fail, if it did so up to a power cut or to shortly before it.
    pub failed_since_ms: Option<u64>,
    clock_set_ms: Option<u64>,
    link_turns_ms: u64,
}

impl World {
    pub fn new(seed: u64) -> World {
        World::with_policy(seed, None)
    }

    /// With this policy of a full ring, or the seed's own.
    fn with_policy(seed: u64, policy: Option<OnFull>) -> World {
        let mut random = Random::new(seed);
        let mut source = random.split();
        edgerec::platform::random::simulated::set_source(Some(Box::new(move || source.number())));
        let dir = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let wall = WallTime { unix: UnixMillis(WALL_START_MS), quality: ClockQuality::Trusted };
        let clock = Arc::new(SimClock::new(BootId([1; 16]), wall));
        let flash = SimFlash::new(1 << 30);
        flash.forbid(&forbidden());
        let identity = RingIdentity {
            directory: DirectoryId([7; 16]),
            box_id: us().box_id,
            slot_bytes: SLOT_BYTES,
            slots: SLOTS,
            capacity_bytes: CAPACITY_BYTES,
        };
        identity.create(&flash, dir.path()).expect("made");
        let vod = SimVod::new(clock.clone(), random.split());
        let names = ["gate", "hall", SECRET, YARD];
        let cameras = (0..)
            .zip(names)
            .map(|(index, name)| Camera::new(index, name, random.between(1_000, 3_600_000)));
        let cameras = cameras.collect();
        let on_full =
            if random.one_in(3) { OnFull::KeepUndelivered } else { OnFull::OverwriteOldest };
        let mut world = World {
            seed,
            trace: Trace::default(),
            clock,
            flash,
            database: Database::new(dir.path()),
            dir,
            life: None,
            cameras,
            vod,
            broker: Broker::default(),
            asked: Vec::new(),
            on_full: policy.unwrap_or(on_full),
            flash_troubles: Arc::default(),
            wall_was_set: false,
            losses_seen: 0,
            losses_checked_at: 0,
            trouble_at_start: None,
            calm: false,
            gate: Gate::new(us(), Keyring::new(Vec::new())),
            lives: 0,
            pushes: 0,
            last_live_ms: 0,
            last_tick_ms: 0,
            rules_seen: (0, 0),
            syncs_seen: (0, 0),
            power_at: None,
            trouble_ends_ms: None,
            fails_ms: None,
            failed_since_ms: None,
            clock_set_ms: None,
            link_turns_ms: random.between(600_000, DAY_MS),
            random,
        };
        world.start();
        let first = world.broker.publish(&mut world.random);
        world.arrive(first);
        world
    }

    /// One in which nothing happens by itself.
    pub fn calm(seed: u64) -> World {
        let mut world = World::with_policy(seed, Some(OnFull::OverwriteOldest));
        world.calm = true;
        world.link_turns_ms = u64::MAX;
        for camera in &mut world.cameras {
            camera.turns_at_ms = u64::MAX;
        }
        world.vod.state().trouble = 0;
        world
    }

    pub fn life(&self) -> &Life {
        self.life.as_ref().expect("the box is on")
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.true_ms()
    }

    fn start(&mut self) {
        self.lives += 1;
        let mut boot_id = [0; 16];
        boot_id[..8].copy_from_slice(&self.lives.to_be_bytes());
        self.clock.boot(BootId(boot_id));
        self.vod.state().life = (self.lives, self.now_ms());
        let grounds = Grounds {
            path: self.dir.path(),
            flash: &self.flash,
            clock: &self.clock,
            vod: &self.vod,
            on_full: self.on_full,
        };
        let mut life = Life::begin(&grounds);
        if life.is_err() && self.flash_troubles.load(Ordering::Relaxed) > 0 {
            // The service manager starts it again.
            self.flash.kill();
            life = Life::begin(&grounds);
        }
        self.life = Some(life.unwrap_or_else(|error| self.fail(&format!("no start: {error:?}"))));
        self.rules_seen = (0, self.now_ms());
        self.last_tick_ms = self.now_ms();
        self.losses_checked_at = u64::MAX;
        self.note_durability();
    }

    /// Everything stops here.
    pub fn fail(&self, what: &str) -> ! {
        panic!(
            "{what}\nseed {}, at {} ms; again with EDGEREC_SIM_SEED={}\n{}",
            self.seed,
            self.now_ms(),
            self.seed,
            self.trace.last_lines()
        );
    }

    pub fn run_days(&mut self, days: u64) {
        let end_ms = self.now_ms() + days * DAY_MS;
        let mut day_ends_ms = self.now_ms() + DAY_MS;
        while self.now_ms() < end_ms {
            self.step(true);
            if self.now_ms() >= day_ends_ms {
                day_ends_ms += DAY_MS;
                self.check_day();
                self.trace.event(self.now_ms(), "day", "");
            }
        }
    }

    /// Nothing is wrong any more, and everything that can be delivered is.
    pub fn come_to_rest(&mut self) {
        self.vod.state().trouble = 0;
        self.set_link(true);
        self.end_trouble();
        (self.power_at, self.link_turns_ms) = (None, u64::MAX);
        for index in 0..self.cameras.len() {
            self.end_session(index);
        }
        let end_ms = self.now_ms() + 12 * 3_600_000;
        while self.now_ms() < end_ms {
            self.step(false);
        }
        self.check_day();
        self.check_all_delivered();
        let due = self.due_of_tasks();
        self.trace.count("pictures of tasks", due);
        let reused = self.slots_reused();
        self.trace.count("slots reused", reused);
    }

    /// One camera is recorded, and the flash takes nothing for `lasts_ms` in the middle of it. Gives
    /// how many slots are given up, and how many pictures the end of the recording lacks.
    pub fn suffer_full_flash(&mut self, lasts_ms: u64) -> (u64, u64) {
        self.begin_session(0);
        (self.power_at, self.clock_set_ms, self.link_turns_ms) = (None, None, u64::MAX);
        self.end_trouble();
        self.cameras[0].turns_at_ms = u64::MAX;
        let run = |world: &mut World, for_ms: u64| {
            let end_ms = world.now_ms() + for_ms;
            while world.now_ms() < end_ms {
                world.step(false);
                world.attend(0);
            }
        };
        run(self, 10_000);
        self.flash.set_trouble(Some(Box::new(|operation| match operation {
            // ENOSPC.
            Operation::Write => Err(io::Error::from_raw_os_error(28)),
            _ => Ok(()),
        })));
        run(self, lasts_ms);
        self.end_trouble();
        run(self, 20_000);
        self.do_jobs(usize::MAX);
        let sent = self.cameras[0].sent.last().map_or(0, |sent| sent.number);
        let kept = self.pictures_of(0).last().copied().unwrap_or(0);
        (self.slots_given_up(), sent - kept)
    }

    pub fn step(&mut self, cameras_come: bool) {
        let awake = self.now_ms() < self.last_live_ms + SETTLED_MS;
        let next_ms = if awake { STEP_MS } else { self.idle_ms(cameras_come) };
        self.clock.advance(Duration::from_millis(next_ms));
        let now_ms = self.now_ms();
        self.happen(now_ms);
        if cameras_come {
            (0..self.cameras.len()).for_each(|index| self.attend(index));
        }
        if now_ms >= self.last_tick_ms + 1_000 {
            let passed = Duration::from_millis(now_ms - self.last_tick_ms);
            self.last_tick_ms = now_ms;
            self.tick(passed);
        }
        self.work();
        self.take_news();
    }

    fn idle_ms(&self, cameras_come: bool) -> u64 {
        let now_ms = self.now_ms();
        let next = self.cameras.iter().map(|camera| camera.turns_at_ms).min().unwrap_or(u64::MAX);
        let next = if cameras_come { next } else { u64::MAX };
        next.saturating_sub(now_ms).clamp(1, IDLE_STEP_MS)
    }

    fn tick(&mut self, passed: Duration) {
        let now = Moment { at: self.clock.now(), boot_id: self.clock.boot_id() };
        // What was evicted is judged before anything else is delivered.
        self.do_jobs(usize::MAX);
        for opening in self.life().recorder.tick(now) {
            self.life().recorder.open(opening, now);
        }
        self.do_jobs(usize::MAX);
        self.life().deliver(passed.min(Duration::from_millis(IDLE_STEP_MS)));
        self.note_durability();
    }

    /// The writer and the catalog do as much as they come to.
    fn work(&mut self) {
        if !self.random.one_in(8) {
            self.life.as_mut().expect("the box is on").writer.round();
            self.note_durability();
        }
        let most = if self.random.one_in(6) { self.random.below(3) } else { u64::MAX };
        self.do_jobs(usize::try_from(most).unwrap_or(usize::MAX));
    }

    /// One job after the other, so that each is looked at before the next.
    pub fn do_jobs(&mut self, most: usize) {
        for _ in 0..most {
            if self.life().jobs.step(1) == 0 {
                return;
            }
            self.note_durability();
            self.check_evictions();
        }
    }

    /// The database is durable with the file system, and where the catalog has promised it.
    pub fn note_durability(&mut self) {
        let seen = (self.flash.syncs(), self.life().jobs.promises());
        if seen != self.syncs_seen {
            self.syncs_seen = seen;
            self.database.synced().expect("the log is readable");
        }
    }

    fn take_news(&mut self) {
        let (news, faults) = {
            let mut state = self.vod.state();
            (std::mem::take(&mut state.news), std::mem::take(&mut state.faults))
        };
        for (at_ms, kind, what) in news {
            self.trace.event(at_ms, kind, &what);
        }
        if let Some(fault) = faults.first() {
            self.fail(&format!("VOD: {fault}"));
        }
        if self.flash.forbidden_seen() > 0 {
            self.fail("a stream that is not to be recorded is on flash");
        }
    }

    // What the cameras do.

    fn attend(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let camera = &self.cameras[index];
        if now_ms >= camera.turns_at_ms {
            if camera.live.is_some() { self.end_session(index) } else { self.begin_session(index) }
        }
        if self.cameras[index].live.is_some() {
            self.last_live_ms = now_ms;
            if now_ms >= self.cameras[index].next_sample_ms {
                self.send(index);
            }
        }
    }

    pub fn begin_session(&mut self, index: usize) {
        let now_ms = self.now_ms();
        self.pushes += 1;
        let mut ids = self.random.split();
        let beginning = Beginning {
            key: self.cameras[index].key.clone(),
            push: PushId(self.pushes),
            protocol: "rtmp",
            query: String::new(),
            now: self.clock.now(),
            boot_id: self.clock.boot_id(),
        };
        let recorder = self.life().recorder.clone();
        let begun = LiveStream::begin(recorder, beginning, &mut || ids.number());
        let Ok(mut live) = begun else { self.fail("no lane is free") };
        live.tracks(&[Camera::track()]);
        let camera = &mut self.cameras[index];
        camera.live = Some(live);
        camera.turns_at_ms = now_ms + self.random.between(15_000, 90_000);
        camera.next_sample_ms = now_ms;
        (camera.in_session, camera.due_since_ms) = (0, None);
        camera.began_ms = now_ms;
        let name = camera.key.to_string();
        self.trace.event(now_ms, "session", &name);
        if index == YARD_INDEX {
            self.break_tasks();
            if !self.calm && self.clock_set_ms.is_none() {
                self.draw_task();
            }
        }
        self.draw_fate();
    }

    pub fn end_session(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let now = self.clock.now();
        let camera = &mut self.cameras[index];
        if let Some(live) = camera.live.take() {
            live.end("the camera went", now);
        }
        camera.turns_at_ms = now_ms + self.random.between(300_000, 9 * 3_600_000);
    }

    fn send(&mut self, index: usize) {
        let (now, now_ms) = (self.clock.now(), self.now_ms());
        let rules = self.life().rules.load_full();
        if rules.number != self.rules_seen.0 {
            self.rules_seen = (rules.number, now_ms);
        }
        let camera = &mut self.cameras[index];
        let recorded = matches!(rules.table.resolve(&camera.key), Decision::Record(_));
        if !recorded || camera.due_since_ms.is_none() {
            camera.due_since_ms = recorded.then_some(now_ms);
        }
        let settled = now_ms >= self.rules_seen.1 + RULES_SETTLE_MS || self.rules_seen.0 == 0;
        let due = recorded && settled;
        let (number, sample) = camera.picture();
        camera.sent.push(Sent { number, at_ms: now_ms, wall_ms: now.wall.unix.0, due });
        camera.next_sample_ms = now_ms + 900 + self.random.below(200);
        let mut ids = self.random.split();
        let mut live = camera.live.take().expect("it is live");
        let taken = live.sample(sample, now, &mut || ids.number());
        self.cameras[index].live = Some(live);
        self.trace.count("pictures", 1);
        if index == YARD_INDEX {
            self.see_tasks(number);
        }
        if taken.is_err() {
            self.end_session(index);
        }
    }

    // What happens to them.

    /// What is to go wrong during a session that begins.
    fn draw_fate(&mut self) {
        if self.calm {
            return;
        }
        let now_ms = self.now_ms();
        let soon = |random: &mut Random| now_ms + random.between(500, 80_000);
        if self.random.one_in(4) {
            self.power_at = Some((soon(&mut self.random), self.random.one_in(3)));
        }
        if self.random.one_in(8) {
            self.begin_trouble();
        }
        if self.random.one_in(10) {
            let (step, quality) = match self.random.below(3) {
                0 => (YEAR_MS, ClockQuality::Trusted),
                1 => (-YEAR_MS / 2, ClockQuality::Trusted),
                _ => (-WALL_START_MS, ClockQuality::Untrusted),
            };
            self.set_wall(WALL_START_MS + now_ms.cast_signed() + step, quality);
            self.clock_set_ms = Some(soon(&mut self.random));
        }
        if self.random.one_in(3) {
            let arrival = self.broker.noise(&mut self.random);
            self.arrive(arrival);
            let arrival = self.broker.publish(&mut self.random);
            if self.random.one_in(2) {
                let again = Arrival { bytes: arrival.bytes.clone(), revision: None };
                self.arrive(arrival);
                self.arrive(again);
            } else {
                self.arrive(arrival);
            }
            let arrival = self.broker.noise(&mut self.random);
            self.arrive(arrival);
        }
    }

    fn happen(&mut self, now_ms: u64) {
        if self.trouble_ends_ms.is_some_and(|at| now_ms >= at) {
            self.end_trouble();
        }
        if self.clock_set_ms.is_some_and(|at| now_ms >= at) {
            self.clock_set_ms = None;
            self.set_wall(WALL_START_MS + now_ms.cast_signed(), ClockQuality::Trusted);
        }
        if now_ms >= self.link_turns_ms {
            let up = !self.vod.state().link_up;
            self.set_link(up);
            let most = if up { DAY_MS } else { 2 * DAY_MS };
            self.link_turns_ms = now_ms + self.random.between(600_000, most);
        }
        if let Some((_, kill)) = self.power_at.filter(|(at, _)| now_ms >= *at) {
            self.power_at = None;
            self.restart(kill);
        }
    }

    fn set_link(&mut self, up: bool) {
        self.vod.state().link_up = up;
        self.trace.event(self.now_ms(), "link", if up { "up" } else { "down" });
    }

    fn set_wall(&mut self, unix_ms: i64, quality: ClockQuality) {
        self.clock.set_wall(WallTime { unix: UnixMillis(unix_ms), quality });
        self.wall_was_set = true;
        self.date_tasks(unix_ms);
        self.trace.event(self.now_ms(), "clock", &unix_ms.to_string());
    }

    fn begin_trouble(&mut self) {
        let kind = self.random.below(5);
        let once = self.random.one_in(2);
        let lasts_ms = self.random.between(300, 20_000);
        let now_ms = self.now_ms();
        self.trouble_ends_ms = Some(now_ms + lasts_ms);
        self.fails_ms = (kind != 4 && !once).then_some((now_ms, now_ms + lasts_ms));
        let (clock, troubles) = (self.clock.clone(), self.flash_troubles.clone());
        let mut random = self.random.split();
        let mut left = if once { 1 } else { u64::MAX };
        self.flash.set_trouble(Some(Box::new(move |operation| {
            let hit =
                matches!((kind, operation), (0 | 1, Operation::Write) | (2 | 3, Operation::Sync));
            if kind == 4 && operation == Operation::Sync {
                troubles.fetch_add(1, Ordering::Relaxed);
                clock.advance(Duration::from_millis(random.between(200, 3_000)));
            }
            if !hit || left == 0 {
                return Ok(());
            }
            left -= 1;
            troubles.fetch_add(1, Ordering::Relaxed);
            // EIO and ENOSPC.
            Err(io::Error::from_raw_os_error(if kind == 1 { 28 } else { 5 }))
        })));
        self.trace.event(self.now_ms(), "flash trouble", &format!("{kind} {once} {lasts_ms}"));
    }

    fn end_trouble(&mut self) {
        self.flash.set_trouble(None);
        self.trouble_ends_ms = None;
    }

    /// Something comes from the broker.
    fn arrive(&mut self, arrival: Arrival) {
        self.do_jobs(usize::MAX);
        let layer = SentLayer::Fleet;
        let before = self.applied();
        let opened = self.gate.open(layer, &arrival.bytes, self.clock.now().wall);
        let taken = opened.ok().and_then(|document| {
            let now = self.clock.now().wall.unix;
            let take = self.life().ring.catalog.call_blocking(move |state| {
                match state.service().load().fleet_rules.judge(&document) {
                    Ok(News::Newer) => {}
                    _ => return Ok(false),
                }
                let taken = state.change_service(|service, changes| {
                    service.take_document(&document, &us(), &[], now, changes);
                    Ok(())
                })?;
                taken.expect("what was judged is not refused");
                Ok(true)
            });
            take.ok()
        });
        if let Some(revision) = arrival.revision {
            self.broker.arrived = revision;
        }
        self.note_durability();
        let taken = taken == Some(true);
        self.trace.event(self.now_ms(), if taken { "rules" } else { "refused" }, "");
        if taken != arrival.revision.is_some() || self.applied() < before {
            self.fail(&format!("rules: taken {taken}, from {before:?} to {:?}", self.applied()));
        }
        self.check_revision();
    }

    pub fn applied(&self) -> Option<u64> {
        let service = self.life().recorder.service().load();
        service.fleet_rules.applied(SentLayer::Fleet)
    }

    /// The power goes, or the process is killed; the box starts again some time later.
    pub fn restart(&mut self, kill: bool) {
        let down_ms = self.now_ms();
        let image = if kill { self.database.killed() } else { self.database.cut(&mut self.random) };
        let image = image.expect("the files are readable");
        let life = self.life.take().expect("the box is on");
        drop(life.jobs.take_state());
        for camera in &mut self.cameras {
            if let Some(live) = camera.live.take() {
                drop(live);
                camera.turns_at_ms = down_ms + self.random.between(1_000, 20_000);
            }
        }
        drop(life);
        if kill {
            self.flash.kill()
        } else {
            self.flash.cut(&mut self.random)
        }
        let failed = self.fails_ms.take().filter(|(_, until)| down_ms < until + LOSS_BOUND_MS);
        self.failed_since_ms = failed.filter(|_| !kill).map(|(since, _)| since);
        self.end_trouble();
        self.database.restore(&image).expect("written");
        let kind = if kill { "kill" } else { "power cut" };
        self.trace.event(down_ms, kind, "");
        self.clock.advance(Duration::from_millis(self.random.between(300, 5_000)));
        self.syncs_seen = (u64::MAX, u64::MAX);
        let (_, since_ms) = self.vod.state().life;
        self.flash.set_trouble(self.trouble_at_start.take());
        self.start();
        self.flash.set_trouble(None);
        self.check_restart(since_ms, down_ms, kill);
        self.flash_troubles.store(0, Ordering::Relaxed);
        self.wall_was_set = false;
        self.last_live_ms = self.now_ms();
    }
}

/// What no write may have: the head of the pictures of the camera that is not recorded.
fn forbidden() -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    bytes.push(2);
    bytes
}
