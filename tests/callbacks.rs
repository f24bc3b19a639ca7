//! Notices to a receiver that is not ours: it checks every signature with its own code, and
//! answers badly, late or not at all.

mod support;

#[path = "callbacks/of_recordings.rs"]
mod of_recordings;
#[path = "callbacks/on_a_box.rs"]
mod on_a_box;
#[path = "callbacks/receiver.rs"]
mod receiver;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgerec::delivery::callbacks::schedule::Schedule;
use edgerec::delivery::callbacks::{Sender, SenderSettings};
use edgerec::domain::address::Address;
use edgerec::domain::files::FileFormat;
use edgerec::domain::ids::{FileId, RecordingId, SessionId};
use edgerec::domain::notice::{
    Notice, PushBegin, PushEnd, PushEndCause, PushException, PushFacts, RecordEvent,
    RecordException, RecordFile, RecordStatus, What,
};
use edgerec::domain::record_watch::{RecordFinding, RecordTrouble};
use edgerec::domain::secret::Secret;
use edgerec::domain::service::callbacks::Destination;
use edgerec::domain::stream_watch::{StreamReport, StreamTrouble};
use edgerec::domain::time::UnixMillis;
use edgerec::platform::clock::SystemClock;
use edgerec::platform::flash::SystemFlash;
use edgerec::platform::net::SystemNet;
use edgerec::ring::catalog::notices::NoticeDesk;
use edgerec::ring::handle::{Ring, RingThreads};
use edgerec::ring::identity::RingIdentity;
use receiver::{KEY, Receiver, SOON, taken};
use serde_json::{Value, json};
use support::recorded_ring::open;
use support::scratch;
use support::wait::wait_until;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The outbox of a ring, with a sender or without.
struct Bench {
    ring: Arc<Ring>,
    threads: Option<RingThreads>,
    runtime: Runtime,
    shutdown: CancellationToken,
}

fn format(path: &Path) {
    let identity = RingIdentity::plan(path, 16 << 20, 1 << 20).expect("fits");
    identity.create(&SystemFlash, path).expect("made");
}

/// Seconds where the product takes minutes.
fn quick() -> SenderSettings {
    let ms = Duration::from_millis;
    let schedule = Schedule { interval: ms(30), repeats: 12, longest: ms(100), total: ms(600_000) };
    SenderSettings { time_limit: ms(700), schedule, parallel: 8 }
}

impl Bench {
    fn open(path: &Path, url: &str) -> Bench {
        let (ring, threads) = open(path);
        let default = Destination::of_all(
            Address::parse(url, &["http"]).expect("an address"),
            Secret::new(KEY),
        );
        let desk = NoticeDesk {
            appid: 1_250_000_000,
            default: Some(default),
            ..NoticeDesk::of_box("box-01")
        };
        ring.catalog.post(move |state| state.set_notice_desk(desk));
        let runtime = Runtime::new().expect("threads");
        Bench { ring, threads: Some(threads), runtime, shutdown: CancellationToken::new() }
    }

    fn with_sender(self, settings: SenderSettings) -> Bench {
        let news = self.ring.catalog.call_blocking(|state| Ok(state.notice_news()));
        let outbox = (self.ring.catalog.clone(), news.expect("open"));
        let (net, clock) = (Arc::new(SystemNet), Arc::new(SystemClock::new()));
        let sender = Sender::new(outbox, net, clock, settings, &[]).expect("no extra roots");
        self.runtime.spawn(sender.run(self.shutdown.clone()));
        self
    }

    fn post(&self, notice: Notice) -> u64 {
        let entered = self.ring.catalog.call_blocking(move |state| state.post_notice(notice));
        entered.expect("entered").expect("somebody is told").0
    }

    /// How many wait, and how many were given up.
    fn counts(&self) -> (u32, u32) {
        self.ring.catalog.call_blocking(|state| state.notice_counts()).expect("counted")
    }

    fn close(mut self) {
        self.shutdown.cancel();
        self.runtime.shutdown_timeout(SOON);
        self.threads.take().expect("not closed yet").close(&self.ring);
    }
}

fn facts(push: u64) -> PushFacts {
    PushFacts {
        sequence: SessionId(push),
        node: "192.0.2.10".into(),
        user_ip: "198.51.100.7".into(),
        stream_param: "txTime=6553FE10".into(),
    }
}

fn notice(stream: &str, what: What) -> Notice {
    let key = format!("push.example.com/live/{stream}").parse().expect("a key");
    Notice { key, at: UnixMillis(1_700_000_000_000), what }
}

fn begin(stream: &str, push: u64) -> Notice {
    notice(stream, What::PushBegin(PushBegin { push: facts(push), width: 0, height: 0 }))
}

fn end(stream: &str, push: u64) -> Notice {
    let (errcode, errmsg) = PushEndCause::ClientClosed.told();
    let (push, duration_ms, width, height) = (facts(push), 9, 640, 360);
    let end = PushEnd { push, duration_ms, errcode, errmsg, width, height };
    notice(stream, What::PushEnd(end))
}

/// One notice of every kind, each with the name of its example in the contract.
fn one_of_each() -> Vec<(&'static str, Notice)> {
    let (recording, format) = (RecordingId(7), FileFormat::Hls);
    let file = RecordFile {
        file: FileId(3_270_000_000_000_000_001),
        target_file_id: None,
        template: Some(1_000),
        format,
        task_id: String::new(),
        started: UnixMillis(1_700_000_004_316),
        ended: UnixMillis(1_700_001_806_618),
        duration_ms: 1_800_000,
        size: 450_123_456,
        stream_param: Some(String::new()),
        url: "http://h/f.mp4".into(),
        media_start_ms: 80,
        video_codec: "h264".into(),
        recording,
        resolution: (1_920, 1_080),
    };
    let status = RecordStatus {
        event: RecordEvent::StartSucceeded,
        recording,
        format,
        by_task: false,
        pulled: false,
        task_id: String::new(),
    };
    let mut report = StreamReport::default();
    report.add(StreamTrouble::LongGop, UnixMillis(1_700_000_000_000), 10_040);
    let exception = PushException { push: facts(1), report };
    let finding = RecordFinding { kind: RecordTrouble::OddGop, occurs: 1 };
    let odd = RecordException { recording, format, finding };
    vec![
        ("push_begin", begin("cam", 1)),
        ("record_status", notice("cam", What::RecordStatus(status))),
        ("push_exception", notice("cam", What::PushException(Box::new(exception)))),
        ("record_exception", notice("cam", What::RecordException(odd))),
        ("push_end", end("cam", 1)),
        ("record_file", notice("cam", What::RecordFile(Box::new(file)))),
    ]
}

/// The names of the members, sorted, each with the kind of its value.
fn shape(body: &Value) -> Vec<(String, &'static str)> {
    let kind = |value: &Value| match value {
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        _ => "object",
    };
    let members = body.as_object().expect("an object").iter();
    let mut shape: Vec<_> = members.map(|(name, value)| (name.clone(), kind(value))).collect();
    shape.sort();
    shape
}

#[test]
fn every_event_arrives_in_order_signed_and_with_the_members_of_the_contract() {
    let text = include_str!("data/contracts/callbacks.json");
    let contract: Value = serde_json::from_str(text).expect("JSON");
    let receiver = Receiver::start(&json!([]));
    let dir = scratch("callbacks");
    format(dir.path());
    let bench = Bench::open(dir.path(), &receiver.url()).with_sender(quick());
    let notices = one_of_each();
    for (_, notice) in &notices {
        bench.post(notice.clone());
    }
    let seen = receiver.wait("all six", |seen| seen.len() >= notices.len());
    for (place, (seen, (example, _))) in seen.iter().zip(&notices).enumerate() {
        assert_eq!((&seen["signed"], &seen["type"]), (&json!(true), &json!("application/json")));
        assert_eq!(seen["path"], "/hook?from=test");
        let body = &seen["body"];
        assert_eq!(body["edgerec"]["seq"], place + 1, "{example}");
        let mut expected = contract["examples"][example].clone();
        expected["edgerec"] = json!({});
        assert_eq!(shape(body), shape(&expected), "{example}");
    }
    wait_until(SOON, "all are entered as told", || bench.counts() == (0, 0));
    assert_eq!(receiver.seen().len(), notices.len(), "each once");
    bench.close();
}

#[test]
fn what_is_not_taken_is_told_again_with_the_same_content_and_in_order() {
    let bad = ["500", "hang", "reset", "302", "204", "403"];
    let faults: Vec<Value> = bad.iter().map(|bad| json!({"fault": bad, "times": 1})).collect();
    let receiver = Receiver::start(&json!(faults));
    let dir = scratch("callbacks");
    format(dir.path());
    let bench = Bench::open(dir.path(), &receiver.url()).with_sender(quick());
    bench.post(begin("cam", 1));
    bench.post(end("cam", 1));
    let seen = receiver.wait("both", |seen| taken(seen).len() >= 2);
    let happened: Vec<&str> =
        seen.iter().map(|seen| seen["fault"].as_str().expect("a word")).collect();
    assert_eq!(happened, ["500", "hang", "reset", "302", "204", "403", "none", "none"]);
    let without_sign = |seen: &Value| {
        let mut body = seen["body"].clone();
        let members = body.as_object_mut().expect("an object");
        assert!(members.remove("t").is_some() && members.remove("sign").is_some());
        body
    };
    for again in &seen[..7] {
        assert_eq!((without_sign(again), &again["signed"]), (without_sign(&seen[0]), &json!(true)));
        assert_eq!(again["path"], "/hook?from=test", "redirects are not followed");
    }
    assert_eq!(seen[7]["body"]["event_type"], 0);
    bench.close();
}

#[test]
fn a_stream_that_hangs_does_not_hold_up_the_others() {
    let receiver = Receiver::start(&json!([{"stream": "slow", "fault": "hang", "times": 99}]));
    let dir = scratch("callbacks");
    format(dir.path());
    let settings = SenderSettings { time_limit: Duration::from_secs(600), ..quick() };
    let bench = Bench::open(dir.path(), &receiver.url()).with_sender(settings);
    bench.post(begin("slow", 1));
    receiver.wait("the slow one", |seen| seen.len() == 1);
    for push in 2..6 {
        bench.post(begin("fast", push));
    }
    let seen = receiver.wait("the fast ones", |seen| taken(seen).len() == 4);
    let pushes: Vec<&Value> = taken(&seen).iter().map(|body| &body["sequence"]).collect();
    assert_eq!(pushes, ["2", "3", "4", "5"]);
    wait_until(SOON, "only the slow one waits", || bench.counts() == (1, 0));
    bench.close();
}

#[test]
fn a_wrong_address_for_one_event_holds_up_the_others_only_as_long_as_the_contract_tries() {
    let receiver = Receiver::start(&json!([{"event": 1, "fault": "404", "times": 99}]));
    let dir = scratch("callbacks");
    format(dir.path());
    let ms = Duration::from_millis;
    let schedule = Schedule { interval: ms(10), repeats: 3, longest: ms(40), total: ms(150) };
    let bench = Bench::open(dir.path(), &receiver.url())
        .with_sender(SenderSettings { schedule, ..quick() });
    bench.post(begin("cam", 1));
    bench.post(end("cam", 1));
    let seen = receiver.wait("the end", |seen| taken(seen).len() == 1);
    let before = seen.iter().take_while(|seen| seen["fault"] == "404").count();
    assert!(before >= 4, "first and three repeats before the next one: {before}");
    wait_until(SOON, "the other is given up", || bench.counts() == (0, 1));
    bench.close();
}

#[test]
fn what_happens_while_the_link_is_down_is_told_when_it_is_back() {
    let mut receiver = Receiver::away();
    let dir = scratch("callbacks");
    format(dir.path());
    let bench = Bench::open(dir.path(), &receiver.url()).with_sender(quick());
    for push in 1..=3 {
        bench.post(begin("cam", push));
    }
    let attempts = |bench: &Bench| {
        let waiting = bench.ring.catalog.call_blocking(|state| state.waiting_notices());
        waiting.expect("read").first().map_or(0, |notice| notice.attempts)
    };
    wait_until(SOON, "attempts fail", || attempts(&bench) >= 3);
    bench.close();
    // The box restarts with the link still down.
    let bench = Bench::open(dir.path(), &receiver.url()).with_sender(quick());
    assert_eq!(bench.post(begin("cam", 4)), 4);
    wait_until(SOON, "more attempts fail", || attempts(&bench) >= 5);
    receiver.listen(&json!([]));
    let seen = receiver.wait("all four", |seen| seen.len() >= 4);
    let numbers: Vec<&Value> = seen.iter().map(|seen| &seen["body"]["edgerec"]["seq"]).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    wait_until(SOON, "nothing waits", || bench.counts() == (0, 0));
    bench.close();
}
