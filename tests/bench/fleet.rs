//! The fleet bench: 1,000 boxes (the real fleet module, all in this process) on one mosquitto. Prints
//! how long a rule set takes to be reported by all, how they come back after a restart of the broker,
//! and what a box costs in memory. Times are printed, never asserted.
//!
//! `BENCH_BOXES` (1,000) changes the run.

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use edgerec::domain::address::Address;
use edgerec::domain::fleet::document::{Addressee, Gate};
use edgerec::domain::fleet::keyring::Keyring;
use edgerec::domain::fleet::refused::Refused;
use edgerec::domain::notice::NoticeSeq;
use edgerec::domain::service::fleet_rules::News;
use edgerec::domain::service::layers::SentLayer;
use edgerec::domain::service::{Changes, Service};
use edgerec::fleet::{
    BoxFigures, BrokerAccess, Fleet, FleetBox, FleetFuture, FleetSettings, NotTaken, OutgoingEvent,
    StreamReport,
};
use edgerec::platform::clock::{Clock, SystemClock};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use support::broker::Broker;
use support::wait::wait_until;

const FLEET: &str = "bench";
/// Nothing takes longer, or the bench fails.
const PATIENCE: Duration = Duration::from_secs(300);

/// A box whose rules are in memory.
struct BenchBox {
    gate: Gate,
    service: Mutex<Service>,
    clock: Arc<dyn Clock>,
    news: Arc<Notify>,
}

impl BenchBox {
    fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FleetBox for BenchBox {
    fn take(&self, layer: SentLayer, bytes: Bytes) -> FleetFuture<'_, Result<News, NotTaken>> {
        Box::pin(async move {
            let now = self.clock.now().wall;
            let document = self.gate.open(layer, &bytes, now).map_err(NotTaken::Refused)?;
            let mut service = self.service();
            let news = service.fleet_rules.judge(&document).map_err(NotTaken::Refused)?;
            if news == News::Newer {
                let us = self.gate.addressee();
                service.take_document(&document, us, &[], now.unix, &mut Changes::new());
            }
            Ok(news)
        })
    }

    fn command(&self, _: Bytes) -> FleetFuture<'_, Vec<u8>> {
        Box::pin(async { b"{}".to_vec() })
    }

    fn applied(&self, layer: SentLayer) -> Option<u64> {
        self.service().fleet_rules.applied(layer)
    }

    fn received(&self, layer: SentLayer) -> Option<u64> {
        self.service().fleet_rules.revision(layer)
    }

    fn went_back(&self, layer: SentLayer) -> Option<Refused> {
        self.service().fleet_rules.went_back(layer)
    }

    fn streams(&self) -> Vec<StreamReport> {
        Vec::new()
    }

    fn figures(&self) -> FleetFuture<'_, Option<BoxFigures>> {
        Box::pin(async { None })
    }

    fn refused(&self, _: SentLayer, _: &Refused) {}

    fn events(&self, _: NoticeSeq, _: usize) -> FleetFuture<'_, Option<Vec<OutgoingEvent>>> {
        Box::pin(async { Some(Vec::new()) })
    }

    fn told(&self, _: Vec<NoticeSeq>) -> FleetFuture<'_, bool> {
        Box::pin(async { true })
    }

    fn event_news(&self) -> Arc<Notify> {
        self.news.clone()
    }
}

/// What the boxes have said: when each was born with which connection, and which revision it has.
#[derive(Default)]
struct Said {
    births: BTreeMap<(String, u64), Instant>,
    applied: BTreeMap<(String, u64), Instant>,
}

/// Hears all boxes, over restarts of the broker.
fn hear(broker: &Broker, said: &Arc<Mutex<Said>>) -> Client {
    let addr = broker.addr();
    let mut options = MqttOptions::new("operator", addr.ip().to_string(), addr.port());
    options.set_max_packet_size(Some(1 << 20)).set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 16);
    let (listens, said) = (client.clone(), said.clone());
    std::thread::spawn(move || {
        while let Ok(event) = connection.recv() {
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    for kind in ["state", "online"] {
                        let topic = format!("edgerec/v1/{FLEET}/box/+/{kind}");
                        listens.try_subscribe(topic, QoS::AtMostOnce).expect("there is room");
                    }
                }
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    let topic = String::from_utf8_lossy(&message.topic).into_owned();
                    let value: Value = serde_json::from_slice(&message.payload).expect("JSON");
                    let id = topic.split('/').nth(4).unwrap_or_default().to_owned();
                    let now = Instant::now();
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    let revision = value["rules"]["fleet"]["applied"].as_u64();
                    if let Some(revision) = revision {
                        said.applied.entry((id, revision)).or_insert(now);
                    } else if value["online"] == true {
                        let connection = value["connection"].as_u64().unwrap_or(0);
                        said.births.entry((id, connection)).or_insert(now);
                    }
                }
                Ok(_) => {}
                // It would come back without a pause.
                Err(_) => std::thread::park_timeout(Duration::from_millis(200)),
            }
        }
    });
    client
}

fn main() {
    let boxes = std::env::var("BENCH_BOXES").map_or(1_000, |text| text.parse().expect("a number"));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("it may be used up");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("the system gives threads");
    let mut broker = Broker::start();
    let said = Arc::new(Mutex::new(Said::default()));
    let operator = hear(&broker, &said);
    let shutdown = CancellationToken::new();
    let before_kib = rss_kib();
    let began = Instant::now();
    (0..boxes).for_each(|number| start_box(&broker, number, &runtime, &shutdown));

    let births = |connection: u64| times(&said, |said| &said.births, connection);
    wait_until(PATIENCE, "all boxes are born", || births(1).len() == boxes);
    row("boxes", format!("{boxes}"));
    row("first connections, all born", seconds(&births(1), began));
    let kib = rss_kib().saturating_sub(before_kib) as f64 / boxes as f64;
    row("memory of a box", format!("{kib:.0} KiB"));

    for revision in [1, 2] {
        let set = json!({"revision": revision,
            "templates": [{"TemplateName": "t", "FlvParam": {"Enable": 1}}],
            "rules": [{"DomainName": "", "StreamName": "", "TemplateName": "t"}]});
        let pushed = Instant::now();
        let topic = format!("edgerec/v1/{FLEET}/config");
        operator.publish(topic, QoS::AtLeastOnce, true, set.to_string()).expect("it runs");
        let applied = || times(&said, |said| &said.applied, revision);
        wait_until(PATIENCE, "all have it", || applied().len() == boxes);
        row(&format!("push of revision {revision}, reported"), seconds(&applied(), pushed));
    }

    broker.kill();
    broker.start_again();
    let (again, again_s) = (Instant::now(), unix_s());
    wait_until(PATIENCE, "all are back", || births(2).len() == boxes);
    row("restart of the broker, all back", seconds(&births(2), again));
    let peak = peak_connections(&broker, again_s);
    let share = peak as f64 * 100.0 / boxes as f64;
    row("most connections in a second", format!("{peak} ({share:.1} % of the boxes)"));
    let peak_mib = rss_kib() as f64 / 1_024.0;
    row("memory of this process at the end", format!("{peak_mib:.0} MiB"));
    shutdown.cancel();
    runtime.shutdown_timeout(Duration::from_secs(5));
}

fn start_box(
    broker: &Broker,
    number: usize,
    runtime: &tokio::runtime::Runtime,
    shutdown: &CancellationToken,
) {
    let us = Addressee { fleet: FLEET.to_owned(), box_id: format!("box-{number:04}") };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let url = Address::parse(&format!("mqtt://{}", broker.addr()), &["mqtt"]).expect("a URL");
    let settings = FleetSettings {
        broker: BrokerAccess { url, ca: None, identity: None },
        us: us.clone(),
        boot_id: clock.boot_id(),
    };
    let gate = Gate::new(us, Keyring::default());
    let service = Mutex::new(Service::default());
    let bench_box =
        Arc::new(BenchBox { gate, service, clock: clock.clone(), news: Arc::default() });
    let fleet = Fleet::new(&settings, bench_box, clock).expect("no certificates");
    let Fleet { link, keeper, errands, voice, herald } = fleet;
    runtime.spawn(link.run(shutdown.clone()));
    runtime.spawn(keeper.run(shutdown.clone()));
    runtime.spawn(errands.run(shutdown.clone()));
    runtime.spawn(voice.run(shutdown.clone()));
    runtime.spawn(herald.run(shutdown.clone()));
}

/// When each box said the thing with this number.
fn times(
    said: &Mutex<Said>,
    what: impl Fn(&Said) -> &BTreeMap<(String, u64), Instant>,
    number: u64,
) -> Vec<Instant> {
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    what(&said).iter().filter(|((_, of), _)| *of == number).map(|(_, at)| *at).collect()
}

/// Half of them, and all, since a moment.
fn seconds(times: &[Instant], since: Instant) -> String {
    let mut after: Vec<Duration> = times.iter().map(|at| at.duration_since(since)).collect();
    after.sort_unstable();
    let half = after[after.len() / 2].as_secs_f64();
    let all = after.last().expect("there are boxes").as_secs_f64();
    format!("half after {half:.1} s, all after {all:.1} s")
}

/// By the broker's own log, in which each line begins with the time.
fn peak_connections(broker: &Broker, since_s: u64) -> usize {
    let log = broker.log();
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    let came = log.lines().filter(|line| line.contains("New client connected"));
    for second in came.filter_map(|line| line.split(':').next()?.parse().ok()) {
        *seconds.entry(second).or_default() += usize::from(second >= since_s);
    }
    seconds.values().max().copied().unwrap_or(0)
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn rss_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

fn row(what: &str, how: impl std::fmt::Display) {
    println!("{what:<36} {how}");
}
