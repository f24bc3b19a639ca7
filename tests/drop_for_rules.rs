//! `"disconnect": true` over a real ring and a clock of its own: a pusher is dropped, and never again
//! once it did not come back by itself, also over a restart of the box; a mixer beside it is restarted in
//! place. And a camera that was closed to be opened anew, as the gap ledger has it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgerec::domain::due::Missing;
use edgerec::domain::eviction::OnFull;
use edgerec::domain::ids::BootId;
use edgerec::domain::matching::{Layer, RuleTable};
use edgerec::domain::rule_set::{Apply, RuleSet};
use edgerec::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use edgerec::domain::service::drops::COMES_BACK_WITHIN_S;
use edgerec::domain::service::mixes::{Mix, Output};
use edgerec::domain::stream_key::StreamKey;
use edgerec::domain::time::{BootTime, ClockQuality, Instant, Moment, UnixMillis, WallTime};
use edgerec::platform::clock::SystemClock;
use edgerec::platform::flash::SystemFlash;
use edgerec::recorder::live::LiveTable;
use edgerec::recorder::rules::{Rules, RulesInForce};
use edgerec::recorder::session::SessionFault;
use edgerec::recorder::stream::LiveStream;
use edgerec::recorder::{Beginning, Recorder, RecorderSettings};
use edgerec::ring::catalog::CatalogSettings;
use edgerec::ring::catalog::ledger::GapRecord;
use edgerec::ring::catalog::pushes::PushId;
use edgerec::ring::handle::{Ring, RingSettings, RingThreads};
use edgerec::ring::identity::RingIdentity;

const SLOT_BYTES: u64 = 1 << 20;
const BOOT: BootId = BootId([1; 16]);

struct Rig {
    ring: Arc<Ring>,
    threads: Option<RingThreads>,
    rules: RulesInForce,
    recorder: Arc<Recorder>,
    live: Arc<LiveTable>,
    now_s: u64,
    revision: u64,
    ids: u64,
}

fn table(revision: u64) -> RuleTable {
    let interval_s = 600 + revision;
    let document = format!(
        r#"{{"revision": {revision}, "templates": [{{"TemplateName": "t",
            "FlvParam": {{"Enable": 1, "RecordInterval": {interval_s}}}}}],
            "rules": [{{"DomainName": "", "StreamName": "", "TemplateName": "t"}}],
            "sources": [{{"DomainName": "d", "AppName": "live", "StreamName": "gate",
            "Url": "rtsp://10.0.0.8/main"}}]}}"#
    );
    let set = RuleSet::parse(document.as_bytes()).expect("valid");
    RuleTable::new([(Layer::Fleet, &set)])
}

impl Rig {
    fn open(path: &Path, now_s: u64) -> Rig {
        let settings = RingSettings {
            path: path.to_owned(),
            sync_interval: Duration::from_millis(20),
            catalog: CatalogSettings { on_full: OnFull::OverwriteOldest, delivers: false },
        };
        let clock = Arc::new(SystemClock::new());
        let (ring, threads) = Ring::open(&settings, Arc::new(SystemFlash), clock).expect("opens");
        let rules = Arc::new(ArcSwap::from_pointee(Rules::first(table(1))));
        let live = Arc::new(LiveTable::default());
        let settings = RecorderSettings::for_slots(SLOT_BYTES, false, 3_600);
        let recorder = Recorder::new(ring.clone(), rules.clone(), live.clone(), settings);
        let recorder = Arc::new(recorder.expect("the ring is open"));
        Rig { ring, threads: Some(threads), rules, recorder, live, now_s, revision: 1, ids: 0 }
    }

    fn now(&self) -> Instant {
        let unix =
            UnixMillis(1_800_000_000_000 + i64::try_from(self.now_s * 1_000).expect("small"));
        let wall = WallTime { unix, quality: ClockQuality::Trusted };
        Instant { boot: BootTime(self.now_s * 1_000), wall }
    }

    fn arrive(&mut self) -> LiveStream {
        self.arrive_as(key(), 1, "rtmp", "")
    }

    fn arrive_as(
        &mut self,
        key: StreamKey,
        push: i64,
        protocol: &'static str,
        query: &str,
    ) -> LiveStream {
        let beginning = Beginning {
            key,
            push: PushId(push),
            protocol,
            query: query.to_owned(),
            now: self.now(),
            boot_id: BOOT,
        };
        let mut random = || {
            self.ids += 2;
            self.ids
        };
        let stream = LiveStream::begin(self.recorder.clone(), beginning, &mut random);
        let mut stream = stream.expect("a lane is free");
        let shape = Shape::Video { width: 64, height: 64 };
        let config = Bytes::from_static(&[1, 66, 0, 30, 255, 225, 0, 0, 1, 0, 0]);
        let (id, codec, timescale) = (TrackId(1), Codec::H264, 1_000);
        stream.tracks(&[Track { id, codec, timescale, config, shape }]);
        self.send(&mut stream).expect("it has just begun");
        stream
    }

    /// One key frame.
    fn send(&mut self, stream: &mut LiveStream) -> Result<(), SessionFault> {
        self.now_s += 1;
        let dts = i64::try_from(self.now_s * 1_000).expect("small");
        let data = Bytes::from(vec![7; 1_000]);
        let sample = Sample { track: TrackId(1), dts, pts: dts, key: true, data };
        let now = self.now();
        let mut random = || {
            self.ids += 2;
            self.ids
        };
        stream.sample(sample, now, &mut random)
    }

    /// Other rules come, after which pushers are to be dropped.
    fn change_rules(&mut self) {
        self.now_s += 10;
        self.revision += 1;
        let apply = Apply { disconnect: true, ..Apply::default() };
        let next = self.rules.load().followed_by(table(self.revision), apply, self.now().boot);
        self.rules.store(Arc::new(next));
    }

    fn drop_for_rules(&mut self, mut stream: LiveStream) {
        self.change_rules();
        assert_eq!(self.send(&mut stream), Err(SessionFault::DroppedForRules));
        assert_eq!(self.send(&mut stream), Ok(()), "it is said once");
        stream.end("dropped", self.now());
    }

    fn taken(&self) -> Option<u64> {
        self.live.get(&key())?.decision.matched().map(|matched| matched.revision)
    }

    /// What was told to the catalog is in force.
    fn settle(&self) {
        self.ring.catalog.call_blocking(|_| Ok(())).expect("it runs");
    }

    fn close(mut self) {
        drop(self.recorder);
        self.threads.take().expect("open").close(&self.ring);
    }
}

fn key() -> StreamKey {
    StreamKey::new("d", "live", "cam").expect("valid")
}

#[test]
fn a_pusher_that_did_not_come_back_by_itself_is_not_dropped_again() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let identity = RingIdentity::plan(dir.path(), (8 << 20) + 32 * SLOT_BYTES, SLOT_BYTES);
    identity.expect("fits").create(&SystemFlash, dir.path()).expect("made");
    let mut rig = Rig::open(dir.path(), 100);
    let first = rig.arrive();
    rig.drop_for_rules(first);
    // Back within the time, twice: it is one of those that can be dropped.
    rig.now_s += u64::from(COMES_BACK_WITHIN_S) - 5;
    let second = rig.arrive();
    rig.settle();
    rig.drop_for_rules(second);
    // Somebody had to walk there.
    rig.now_s += u64::from(COMES_BACK_WITHIN_S) * 10;
    let mut third = rig.arrive();
    rig.settle();
    assert_eq!(rig.taken(), Some(3), "it comes back under the newest rules");
    rig.change_rules();
    assert_eq!(rig.send(&mut third), Ok(()), "it is restarted where it is");
    assert_eq!(rig.taken(), Some(4));
    third.end("over", rig.now());
    let now_s = rig.now_s;
    rig.close();

    let mut rig = Rig::open(dir.path(), now_s);
    let mut fourth = rig.arrive();
    rig.settle();
    rig.change_rules();
    assert_eq!(rig.send(&mut fourth), Ok(()), "that is remembered over a restart of the box");
    assert_eq!(rig.taken(), Some(2));
    fourth.end("over", rig.now());
    rig.close();
}

#[test]
fn a_mixer_is_restarted_where_it_is_and_the_publisher_can_be_dropped_later() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let identity = RingIdentity::plan(dir.path(), (8 << 20) + 32 * SLOT_BYTES, SLOT_BYTES);
    identity.expect("fits").create(&SystemFlash, dir.path()).expect("made");
    let mut rig = Rig::open(dir.path(), 100);
    let declared = rig.ring.catalog.call_blocking(|state| {
        let (session, output) = ("show".to_owned(), "cam".to_owned());
        let mix = Mix { session, inputs: vec![output.clone()], output, kind: Output::TakesInput };
        state.change_service(|service, changes| service.mixes.declare(mix, |_| true, changes))
    });
    declared.expect("it runs").expect("a mix like others");
    let mut publisher = rig.arrive();
    let mut mixer = rig.arrive_as(key(), 2, "rtmp", "mix=show");
    rig.change_rules();
    assert_eq!(rig.send(&mut mixer), Ok(()), "it is restarted where it is");
    assert_eq!(rig.taken(), Some(2));
    mixer.end("over", rig.now());
    rig.settle();
    // Long after a dropped one would have been due: nobody waits for the stream to come back.
    rig.now_s += u64::from(COMES_BACK_WITHIN_S) * 10;
    rig.send(&mut publisher).expect("it feeds again");
    rig.drop_for_rules(publisher);
    rig.close();
}

#[test]
fn a_camera_that_is_opened_anew_and_stays_away_does_not_deliver() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let identity = RingIdentity::plan(dir.path(), (8 << 20) + 32 * SLOT_BYTES, SLOT_BYTES);
    identity.expect("fits").create(&SystemFlash, dir.path()).expect("made");
    let mut rig = Rig::open(dir.path(), 100);
    let gate = StreamKey::new("d", "live", "gate").expect("valid");
    let camera = rig.arrive_as(gate.clone(), 1, "rtsp", "");
    camera.end_to_reopen("it moved", rig.now());
    let closed_s = rig.now_s;
    for _ in 0..60 {
        rig.now_s += 1;
        let (at, boot_id) = (rig.now(), BOOT);
        drop(rig.recorder.tick(Moment { at, boot_id }));
    }
    let gaps = rig.ring.catalog.call_blocking(move |state| state.gaps(&gate, 0, i64::MAX));
    let told = |gap: &GapRecord| {
        let second = |ms: i64| ms / 1_000 - 1_800_000_000 - i64::try_from(closed_s).expect("small");
        (second(gap.from_ms), gap.until_ms.map(second), gap.cause.clone())
    };
    let told: Vec<_> = gaps.expect("it runs").iter().map(told).collect();
    let (moved, away) = (Missing::Reopened.words().to_owned(), Missing::Camera.words().to_owned());
    assert_eq!(told, [(15, None, away), (0, Some(15), moved)]);
    rig.close();
}
