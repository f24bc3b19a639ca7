//! Others on the same broker, and brokers that do not let the box: nobody without its rights changes
//! anything, what is denied is told and makes no loop, and a flood costs the recording nothing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{Client, MqttOptions};
use serde_json::{Value, json};

use super::support::broker::{Broker, free_addr};
use super::support::edge_box::BoxPlan;
use super::support::media::Clip;
use super::support::operator::Operator;
use super::support::packets::{Kind, Packet, of_kind, packets};
use super::support::process::run_ok;
use super::support::push::{Pace, push_file};
use super::support::wait::wait_until;
use super::support::{scratch, tool};
use super::{
    APPLIED_WITHIN, CLIENT, COMMAND, ONLINE, SOON, STATE, TO_ALL, TO_BOX, decided, document,
    fleet_of_one, hear_applied, mqtt,
};

const CLIP: Clip =
    Clip { seconds: 10, fps: 25, gop: 25, b_frames: 2, video_kbps: 500, audio: true };
/// What a box needs, and no more.
const RIGHTS: &str = "user operator\ntopic readwrite edgerec/v1/venue/#\n\
    pattern read edgerec/v1/venue/config\npattern read edgerec/v1/venue/box/%u/config\n\
    pattern read edgerec/v1/venue/box/%u/command\npattern readwrite edgerec/v1/venue/box/%u/online\n\
    pattern write edgerec/v1/venue/box/%u/state\npattern write edgerec/v1/venue/box/%u/event/+\n\
    pattern write edgerec/v1/venue/reply/#\n";
/// A flood has this many bytes a second.
const FLOOD_BYTES_PER_S: u64 = 10 << 20;
/// What a box may take for it, in KiB: packets on their way, and one that is read.
const FLOOD_RSS_KIB_MAX: u64 = 24 << 10;

fn options(broker: &Broker, user: &str) -> MqttOptions {
    let addr = broker.addr();
    let mut options = MqttOptions::new(user, addr.ip().to_string(), addr.port());
    options.set_credentials(user, "secret");
    options
}

#[test]
fn a_box_needs_no_rights_but_its_own_and_those_of_another_change_nothing() {
    let dir = scratch("broker");
    fs::write(dir.path().join("rights"), RIGHTS).expect("written");
    let passwords = dir.path().join("passwords");
    fs::write(&passwords, "").expect("written");
    for user in ["operator", "box-01", "box-02"] {
        let mut command = Command::new(tool("mosquitto_passwd"));
        run_ok(command.arg("-b").arg(&passwords).args([user, "secret"]));
    }
    let settings = "allow_anonymous false\npassword_file {dir}/passwords\nacl_file {dir}/rights\n";
    let broker = Broker::in_dir(dir, settings);
    let mut operator = Operator::with(broker.addr(), options(&broker, "operator"));
    operator.send(TO_ALL, document(10, "ten").to_string());
    let mqtt = format!("url = \"mqtt://box-01:secret@{}\"\nfleet = \"venue\"\n", broker.addr());
    let edge = BoxPlan::default().mqtt(&mqtt).start();
    hear_applied(&operator, SOON, "fleet", 10);
    let asked = json!({"Action": "DescribeLiveRecordTemplates"});
    super::commands::ask(&mut operator, &asked, "a", 1);

    let mut hostile = Operator::with(broker.addr(), options(&broker, "box-02"));
    hostile.send(TO_ALL, document(99, "poison").to_string());
    hostile.send(TO_BOX, document(99, "poison").to_string());
    hostile.send(ONLINE, json!({"online": false, "process": "x"}).to_string());
    hostile.send(STATE, json!({"rules": "x"}).to_string());
    let order = json!({"Action": "CreateLiveRecordTemplate", "TemplateName": "bad",
        "FlvParam": {"Enable": 1}});
    hostile.command(COMMAND, &order, "edgerec/v1/venue/reply/b", false);
    // Its own topics are open to it.
    let own = "edgerec/v1/venue/box/box-02/state";
    hostile.send(own, json!({"mine": true}).to_string());
    operator.hear(SOON, own, "its own word is heard", |said| said["mine"] == true);

    operator.send(TO_ALL, document(11, "eleven").to_string());
    hear_applied(&operator, APPLIED_WITHIN, "fleet", 11);
    assert_eq!(decided(&edge).0, "eleven");
    let is_ours = |said: &Value| said["rules"]["box"]["received"].is_null() && said != "x";
    assert!(operator.all(STATE).iter().all(is_ours), "a document of the box layer came");
    assert!(operator.all(ONLINE).iter().all(|said| said["online"] == true));
    let made = super::commands::ask(&mut operator, &asked, "a", 2);
    assert!(!made.to_string().contains("bad"), "{made}");
    assert!(hostile.all(STATE).is_empty() && hostile.all(ONLINE).is_empty(), "it hears nothing");
    assert_eq!(broker.connections_of(CLIENT), 1);
}

/// The plugin of mosquitto that can deny listening.
fn rights_plugin() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").expect("there").flatten();
    let plugin = "mosquitto_dynamic_security.so";
    let mut found = libraries.map(|dir| dir.path().join(plugin)).filter(|path| path.is_file());
    found.next().expect("Debian's mosquitto has it")
}

/// A broker that lets anonymous clients do this much; the operator comes in by another door.
fn stingy_broker(listening: bool, speaking: bool) -> (Broker, std::net::SocketAddr) {
    let dir = scratch("broker");
    let rights = json!({
        "defaultACLAccess": {"publishClientSend": speaking, "publishClientReceive": true,
            "subscribe": listening, "unsubscribe": true},
        "clients": [], "roles": [], "groups": [],
    });
    fs::write(dir.path().join("rights.json"), rights.to_string()).expect("written");
    let door = free_addr();
    let settings = format!(
        "allow_anonymous true\nplugin {}\nplugin_opt_config_file {{dir}}/rights.json\n\
         listener {} 127.0.0.1\nallow_anonymous true\n",
        rights_plugin().display(),
        door.port()
    );
    (Broker::in_dir(dir, &settings), door)
}

#[test]
fn a_box_that_may_not_listen_says_so_and_stays() {
    let (broker, door) = stingy_broker(false, true);
    let operator = Operator::connect(door);
    let edge = BoxPlan::default().mqtt(&mqtt(&broker)).start();
    operator.hear(SOON, STATE, "it is told", |state| state["link"]["denied"] == true);
    assert!(edge.log().contains("the broker does not let the box listen"));
    assert_eq!(broker.connections_of(CLIENT), 1);
}

#[test]
fn a_box_that_may_not_speak_says_so_and_takes_rules_all_the_same() {
    let (broker, door) = stingy_broker(true, false);
    let mut operator = Operator::connect(door);
    let edge = BoxPlan::default().mqtt(&mqtt(&broker)).start();
    let said = "the broker does not take what the box says";
    wait_until(SOON, said, || edge.log().contains(said));
    for revision in 10..=12 {
        operator.send(TO_ALL, document(revision, &format!("t{revision}")).to_string());
        let template = format!("t{revision}");
        wait_until(SOON, "the rules are in force", || decided(&edge).0 == template);
    }
    assert_eq!(operator.all(STATE), [Value::Null; 0]);
    assert_eq!(broker.connections_of(CLIENT), 1);
}

/// Sends nonsense to the box until it is told to stop; counts its bytes.
fn flood(broker: &Broker, stop: &Arc<AtomicBool>, sent: &Arc<AtomicU64>) {
    let addr = broker.addr();
    let mut options = MqttOptions::new("flood", addr.ip().to_string(), addr.port());
    options.set_max_packet_size(Some(16 << 20));
    let (client, mut connection) = Client::new(options, 4);
    std::thread::spawn(move || while let Ok(Ok(_)) = connection.recv() {});
    let (stop, sent) = (stop.clone(), sent.clone());
    std::thread::spawn(move || {
        let nonsense = [
            (TO_ALL, vec![b'['; 900 << 10]),
            (TO_BOX, format!("{{\"revision\": 1, \"x\": \"{}\"}}", "y".repeat(900 << 10)).into()),
            (COMMAND, vec![b'z'; 200 << 10]),
            (ONLINE, format!("\"{}\"", "y".repeat(200 << 10)).into()),
        ];
        let began = Instant::now();
        for (topic, bytes) in nonsense.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            // As fast as agreed: a test of the box, not of the machine.
            let due = sent.load(Ordering::Relaxed) * 1_000 / FLOOD_BYTES_PER_S;
            let ahead = Duration::from_millis(due).saturating_sub(began.elapsed());
            std::thread::park_timeout(ahead);
            let bytes = bytes.clone();
            sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            client.publish(*topic, QoS::AtMostOnce, false, bytes).expect("the client runs");
        }
    });
}

/// How much a broker sent to a client, by its log.
fn bytes_for(log: &str, client: &str) -> u64 {
    let words = format!("Sending PUBLISH to {client} ");
    let bytes = |line: &str| line.rsplit_once('(')?.1.strip_suffix(" bytes))")?.parse::<u64>().ok();
    log.lines().filter(|line| line.contains(&words)).filter_map(bytes).sum()
}

/// The most memory that a process ever had, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn a_flood_on_its_topics_costs_the_box_no_sample_and_little_memory() {
    let broker = Broker::start();
    let (mut operator, mut edge) = fleet_of_one(&broker, "");
    let pid = edge.process().id();
    let log = edge.dir().join("push.log");
    let mut pusher = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Real, &log);
    wait_until(SOON, "a second is sent", || pusher.sent_ms() >= 1_000);
    let before_kib = peak_kib(pid);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    flood(&broker, &stop, &sent);
    pusher.finish_within(SOON);
    wait_until(SOON, "ten seconds' worth is sent", || {
        sent.load(Ordering::Relaxed) >= 8 * FLOOD_BYTES_PER_S
    });
    let grown_kib = peak_kib(pid).saturating_sub(before_kib);
    assert!(grown_kib < FLOOD_RSS_KIB_MAX, "{grown_kib} KiB");
    stop.store(true, Ordering::Relaxed);

    operator.send(TO_ALL, document(11, "eleven").to_string());
    hear_applied(&operator, SOON, "fleet", 11);
    let came = bytes_for(&broker.log(), CLIENT);
    assert!(came >= 5 * FLOOD_BYTES_PER_S, "{came} bytes went to the box");
    assert_eq!(broker.connections_of(CLIENT), 1);
    let row = edge.file_within(SOON, |row| row["state"] != "recording");
    let file = edge.export_file(row["file_id"].as_str().expect("an id"), "cam.flv");
    let told = |packet: Packet| (packet.dts, packet.pts, packet.hash);
    for kind in [Kind::Video, Kind::Audio] {
        let of = |path: &std::path::Path| -> Vec<_> {
            of_kind(&packets(path), kind).into_iter().map(told).collect()
        };
        assert_eq!(of(&file), of(&CLIP.flv()), "{kind:?}");
    }
}
