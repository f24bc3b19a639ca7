//! When and in which order files set out, with a target and a clock that do as they are told; and
//! how fast, by a server that counts.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edgerec::delivery::settings::DeliverySettings;
use edgerec::delivery::shelf::{Receipt, Shelf};
use edgerec::delivery::target::{DeliveryFuture, Job, Target};
use edgerec::domain::day_windows::{DayWindow, DayWindows, time_zone};
use edgerec::domain::ids::{BootId, FileId};
use edgerec::domain::time::{ClockQuality, Instant as BoxTime, UnixMillis, WallTime};
use edgerec::domain::upload_order::{UploadKind, UploadOrder};
use edgerec::domain::upload_plan::UploadPlan;
use edgerec::platform::clock::{Clock, SystemClock};
use edgerec::platform::links::Links;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::bench::{Running, World, s3_target};
use crate::support::memory_shelf::{MadeUp, MemoryShelf};
use crate::support::s3_server::{S3Server, settings};

/// A wall clock that is set by hand.
struct HandClock {
    boot: SystemClock,
    wall: Mutex<WallTime>,
}

impl HandClock {
    fn at(text: &str) -> Arc<Self> {
        let clock = HandClock { boot: SystemClock::new(), wall: Mutex::new(wall(text)) };
        Arc::new(clock)
    }

    fn set(&self, text: &str) {
        *self.wall.lock().expect("free") = wall(text);
    }
}

/// A trusted time; anything that is none is an untrusted clock.
fn wall(text: &str) -> WallTime {
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => {
            WallTime { unix: UnixMillis(at.as_millisecond()), quality: ClockQuality::Trusted }
        }
        Err(_) => WallTime { unix: UnixMillis(0), quality: ClockQuality::Untrusted },
    }
}

impl Clock for HandClock {
    fn now(&self) -> BoxTime {
        BoxTime { boot: self.boot.now().boot, wall: *self.wall.lock().expect("free") }
    }

    fn boot_id(&self) -> BootId {
        self.boot.boot_id()
    }
}

/// A link that is plugged by hand.
#[derive(Default)]
struct HandLink(Mutex<Option<String>>);

impl Links for HandLink {
    fn outgoing(&self) -> Option<String> {
        self.0.lock().expect("free").clone()
    }
}

/// Takes every file and notes the order.
#[derive(Default)]
struct Notes(Mutex<Vec<FileId>>);

impl Target for Notes {
    fn name(&self) -> &str {
        "notes"
    }

    fn deliver<'a>(&'a self, job: &'a Job) -> DeliveryFuture<'a> {
        self.0.lock().expect("free").push(job.plan.file_id);
        let receipt =
            Receipt { url: "notes:".into(), size: 0, sha256: String::new(), target_file_id: None };
        Box::pin(async { Ok(receipt) })
    }
}

fn one_at_a_time(plan: UploadPlan) -> DeliverySettings {
    DeliverySettings { parallel: 1, plan, ..Running::settings() }
}

fn berlin(windows: &[&str]) -> DayWindows {
    let parse = |text: &&str| DayWindow::parse(text).expect("valid");
    let zone = time_zone("Europe/Berlin").expect("bundled");
    DayWindows::new(windows.iter().map(parse).collect(), zone)
}

const NOON: &str = "2026-03-01T11:00:00Z";
const NIGHT: &str = "2026-03-01T21:00:00Z";

#[tokio::test]
async fn order_is_as_configured() {
    for (newest_first, expected) in [(false, [4, 3, 1, 2]), (true, [4, 3, 2, 1])] {
        let shelf = MemoryShelf::new();
        let files: Vec<_> = (1..=4).map(|n| shelf.put(n, MadeUp::single(n, 1))).collect();
        shelf.ask(files[3], UploadKind::Highlight, false);
        shelf.ask(files[2], UploadKind::Timed, false);
        let order = UploadOrder { newest_first, ..UploadOrder::default() };
        let notes = Arc::new(Notes::default());
        let plan = UploadPlan { order, ..UploadPlan::default() };
        let running = Running::start_with(&shelf, notes.clone(), one_at_a_time(plan));
        for file in &files {
            shelf.delivered(*file).await;
        }
        running.kill().await;
        let seen = notes.0.lock().expect("free").clone();
        assert_eq!(seen, expected.map(|n: usize| files[n - 1]));
    }
}

#[tokio::test]
async fn files_wait_for_their_window_but_not_what_is_wanted_now() {
    let shelf = MemoryShelf::new();
    let (waits, now) = (shelf.put(1, MadeUp::single(1, 1)), shelf.put(2, MadeUp::single(2, 1)));
    shelf.ask(now, UploadKind::Template, true);
    let clock = HandClock::at(NOON);
    let plan = UploadPlan { windows: berlin(&["22:00-06:00"]), ..UploadPlan::default() };
    let world = World { clock: clock.clone(), ..World::default() };
    let running =
        Running::start_in(&world, &shelf, Arc::new(Notes::default()), one_at_a_time(plan));
    shelf.delivered(now).await;
    assert_eq!(running.why(waits), "window opens at 2026-03-01 22:00");
    assert!(shelf.fate(waits).receipt.is_none());
    clock.set(NIGHT);
    running.wake.notify_one();
    shelf.delivered(waits).await;
    // A clock that nobody has set opens the windows.
    clock.set("never");
    let third = shelf.put(3, MadeUp::single(3, 1));
    running.wake.notify_one();
    shelf.delivered(third).await;
    running.kill().await;
}

#[tokio::test]
async fn a_metered_link_takes_chosen_templates_only() {
    let shelf = MemoryShelf::new();
    let link = Arc::new(HandLink::default());
    *link.0.lock().expect("free") = Some("wwan0".to_owned());
    let world = World { links: link.clone(), ..World::default() };
    let plan = |templates: &[&str]| UploadPlan {
        metered_links: vec!["wwan*".to_owned()],
        metered_templates: templates.iter().map(|name| (*name).to_owned()).collect(),
        ..UploadPlan::default()
    };
    let chosen = shelf.put(1, MadeUp::single(1, 1));
    let notes = Arc::new(Notes::default());
    let running = Running::start_in(&world, &shelf, notes.clone(), one_at_a_time(plan(&["all"])));
    shelf.delivered(chosen).await;
    running.kill().await;
    let other = shelf.put(2, MadeUp::single(2, 1));
    let running = Running::start_in(&world, &shelf, notes, one_at_a_time(plan(&["alarm"])));
    running.until_why(other, "metered link wwan0").await;
    *link.0.lock().expect("free") = Some("eth0".to_owned());
    running.wake.notify_one();
    shelf.delivered(other).await;
    running.kill().await;
}

#[tokio::test]
async fn the_daily_budget_holds_over_restarts_and_ends_with_the_day() {
    const MIB: u64 = 1 << 20;
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let files: Vec<_> = (1..=4).map(|n| shelf.put(n, MadeUp::single(n, MIB))).collect();
    let clock = HandClock::at(NOON);
    let world = World { clock: clock.clone(), ..World::default() };
    let plan =
        UploadPlan { windows: berlin(&[]), daily_bytes: Some(2 * MIB), ..UploadPlan::default() };
    let target = || s3_target(&server.settings(), Arc::new(SystemClock::new()));
    let start = || Running::start_in(&world, &shelf, target(), one_at_a_time(plan.clone()));
    let running = start();
    running.until_why(files[2], "daily budget used, goes on at 2026-03-02 00:00").await;
    running.shut_down().await;
    let spent = shelf.day_account().expect("kept").bytes;
    assert_eq!(spent, 2 * MIB);
    let running = start();
    running.until_why(files[3], "daily budget used, goes on at 2026-03-02 00:00").await;
    assert!(shelf.fate(files[2]).receipt.is_none(), "not over the budget");
    clock.set("2026-03-01T23:00:01Z");
    running.wake.notify_one();
    shelf.delivered(files[3]).await;
    running.kill().await;
}

#[tokio::test]
async fn what_is_on_its_way_when_the_window_closes_stops_and_goes_on_in_the_next() {
    const MIB: u64 = 1 << 20;
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 20 * MIB);
    let file = shelf.put(1, made_up.clone());
    let clock = HandClock::at(NIGHT);
    let world = World { clock: clock.clone(), ..World::default() };
    let plan = UploadPlan { windows: berlin(&["22:00-06:00"]), ..UploadPlan::default() };
    // Slow enough to be met in the middle.
    let settings = DeliverySettings { cap_bytes_per_s: Some(6 * MIB), ..one_at_a_time(plan) };
    let target = s3_target(&server.settings(), Arc::new(SystemClock::new()));
    let running = Running::start_in(&world, &shelf, target, settings);
    shelf
        .until("a part", file, |fate| fate.progress.as_ref().is_some_and(|p| p.multipart.is_some()))
        .await;
    clock.set(NOON);
    running.wake.notify_one();
    running.until_why(file, "window opens at 2026-03-01 22:00").await;
    let sent = server.count("PUT", "part").await;
    assert!(sent < 3, "it stopped in the middle: {sent} parts");
    assert!(shelf.fate(file).failures.is_empty(), "that is no failure");
    clock.set(NIGHT);
    running.wake.notify_one();
    assert_eq!(shelf.delivered(file).await.sha256, made_up.sha256());
    assert_eq!(server.count("PUT", "part").await, 3, "no part twice");
    running.kill().await;
}

/// Never ends; notes what set out, and whether something of it may have arrived before.
#[derive(Default)]
struct Endless(Mutex<Vec<(FileId, bool)>>);

impl Endless {
    fn began(&self) -> Vec<(FileId, bool)> {
        self.0.lock().expect("free").clone()
    }
}

impl Target for Endless {
    fn name(&self) -> &str {
        "endless"
    }

    fn deliver<'a>(&'a self, job: &'a Job) -> DeliveryFuture<'a> {
        self.0.lock().expect("free").push((job.plan.file_id, job.doubtful));
        job.meter.add(100);
        Box::pin(std::future::pending())
    }
}

const CLOSED: &str = "window opens at 2026-03-01 22:00";

#[tokio::test]
async fn what_does_not_stop_in_time_is_cut_off_and_looked_for_the_next_time() {
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 1));
    let clock = HandClock::at(NIGHT);
    let world = World { clock: clock.clone(), ..World::default() };
    let plan = UploadPlan { windows: berlin(&["22:00-06:00"]), ..UploadPlan::default() };
    let settings =
        DeliverySettings { stop_grace: Duration::from_millis(200), ..one_at_a_time(plan) };
    let endless = Arc::new(Endless::default());
    let running = Running::start_in(&world, &shelf, endless.clone(), settings);
    running.until_why(file, "uploading, 100 bytes").await;
    clock.set(NOON);
    running.wake.notify_one();
    running.until_why(file, CLOSED).await;
    clock.set(NIGHT);
    running.wake.notify_one();
    running.until("it sets out again", || endless.began().len() > 1).await;
    assert_eq!(endless.began(), [(file, false), (file, true)]);
    assert!(shelf.fate(file).failures.is_empty(), "that is no failure");
    running.kill().await;
}

#[tokio::test]
async fn what_is_wanted_now_is_not_cut_off_although_it_set_out_before_it_was() {
    let shelf = MemoryShelf::new();
    let files: Vec<_> = (1..=4).map(|n| shelf.put(n, MadeUp::single(n, 1))).collect();
    let clock = HandClock::at(NIGHT);
    let world = World { clock: clock.clone(), ..World::default() };
    let plan = UploadPlan { windows: berlin(&["22:00-06:00"]), ..UploadPlan::default() };
    let stop_grace = Duration::from_secs(3);
    let settings = DeliverySettings { parallel: 3, stop_grace, plan, ..Running::settings() };
    let endless = Arc::new(Endless::default());
    let running = Running::start_in(&world, &shelf, endless.clone(), settings);
    running.until("three set out", || endless.began().len() == 3).await;
    // One is asked for before the window closes, one after it.
    shelf.ask(files[0], UploadKind::Template, true);
    clock.set(NOON);
    running.wake.notify_one();
    running.until_why(files[3], CLOSED).await;
    shelf.ask(files[1], UploadKind::Template, true);
    running.wake.notify_one();
    running.until_why(files[2], CLOSED).await;
    let rounds = running.board.rounds();
    running.until("another round", || running.board.rounds() > rounds + 1).await;
    assert_eq!(endless.began().len(), 3, "none was cut off to set out again");
    for file in &files[..2] {
        assert_eq!(running.why(*file), "uploading, 100 bytes");
    }
    running.kill().await;
}

#[tokio::test]
async fn while_every_place_is_taken_the_queue_is_read_only_when_something_happened() {
    let shelf = MemoryShelf::new();
    let files: Vec<_> = (1..=3).map(|n| shelf.put(n, MadeUp::single(n, 1))).collect();
    let clock = HandClock::at(NIGHT);
    let world = World { clock: clock.clone(), ..World::default() };
    let plan = UploadPlan { windows: berlin(&["22:00-06:00"]), ..UploadPlan::default() };
    let endless = Arc::new(Endless::default());
    let running = Running::start_in(&world, &shelf, endless.clone(), one_at_a_time(plan));
    // The clock is looked at each second.
    running.until("a second round", || running.board.rounds() > 1).await;
    let (rounds, looks) = (running.board.rounds(), shelf.looks());
    running.until("four rounds", || running.board.rounds() > rounds + 3).await;
    assert_eq!(shelf.looks(), looks);
    shelf.ask(files[1], UploadKind::Highlight, false);
    running.wake.notify_one();
    running.until("the more pressing one", || endless.began().len() > 1).await;
    assert_eq!(endless.began()[1].0, files[1]);
    running.kill().await;
}

/// A server that takes bodies, notes when how much of them came, and answers each with its MD5.
async fn counting_server() -> (u16, Arc<Mutex<Vec<(Instant, usize)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let seen: Arc<Mutex<Vec<(Instant, usize)>>> = Arc::default();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                let mut buf = vec![0; 64 << 10];
                while let Ok(read) = stream.read(&mut buf).await {
                    if read == 0 {
                        return;
                    }
                    noted.lock().expect("free").push((Instant::now(), read));
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_holds_over_all_files_in_any_ten_seconds() {
    const CAP: u64 = 400_000;
    let (port, seen) = counting_server().await;
    let shelf = MemoryShelf::new();
    for number in 1..=3 {
        shelf.put(number, MadeUp::single(number, 15 << 20));
    }
    let target = s3_target(&settings(port), Arc::new(SystemClock::new()));
    let wanted =
        DeliverySettings { parallel: 3, cap_bytes_per_s: Some(CAP), ..Running::settings() };
    let running = Running::start_with(&shelf, target, wanted);
    let span = |seen: &[(Instant, usize)]| match (seen.first(), seen.last()) {
        (Some((first, _)), Some((last, _))) => *last - *first,
        _ => Duration::ZERO,
    };
    let enough = Duration::from_secs(12);
    running.until("twelve seconds of bodies", || span(&seen.lock().expect("free")) > enough).await;
    running.kill().await;
    let seen = seen.lock().expect("free").clone();
    let most = (0..seen.len())
        .map(|from| {
            let end = seen[from].0 + Duration::from_secs(10);
            seen[from..].iter().take_while(|(at, _)| *at < end).map(|(_, n)| n).sum::<usize>()
        })
        .max()
        .expect("something came");
    let percent = most as f64 * 100.0 / (CAP as f64 * 10.0);
    println!("at most {percent:.1} % of the cap in 10 s");
    assert!(percent <= 105.0, "{percent} %");
    assert!(percent >= 60.0, "the cap is used: {percent} %");
}
