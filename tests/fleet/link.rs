//! The connection: brokers that are restarted, boxes that come and go, TLS, and a box of the same
//! name.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::broker::{Broker, free_addr};
use super::support::edge_box::BoxPlan;
use super::support::media::Clip;
use super::support::operator::Operator;
use super::support::process::run_ok;
use super::support::push::{Pace, Pusher, push_file};
use super::support::wait::wait_until;
use super::support::{scratch, tool};
use super::{
    APPLIED_WITHIN, BACK_WITHIN, CLIENT, ONLINE, SOON, STATE, TO_ALL, decided, document,
    fleet_of_one, hear_applied, mqtt,
};

const CLIP: Clip =
    Clip { seconds: 10, fps: 25, gop: 25, b_frames: 0, video_kbps: 500, audio: true };

/// Restarts the broker under a box, and has it hear of new rules afterwards.
fn restart(mut broker: Broker, end: impl Fn(&mut Broker)) {
    let (mut operator, edge) = fleet_of_one(&broker, "");
    let before = operator.connections();
    end(&mut broker);
    broker.start_again();
    operator.back_after(before);
    operator.forget();
    operator.send(TO_ALL, document(11, "eleven").to_string());
    let birth = |online: &Value| online["online"] == true && online["connection"] == 2;
    operator.hear(BACK_WITHIN, ONLINE, "the box is back", birth);
    hear_applied(&operator, APPLIED_WITHIN, "fleet", 11);
    operator.send(TO_ALL, document(12, "twelve").to_string());
    hear_applied(&operator, APPLIED_WITHIN, "fleet", 12);
    assert_eq!(decided(&edge).0, "twelve");
    assert_eq!(broker.connections_of(CLIENT), 2);
}

#[test]
fn a_broker_that_forgot_everything_is_listened_to_again() {
    restart(Broker::start(), Broker::kill);
}

#[test]
fn a_broker_that_kept_the_session_is_listened_to_again() {
    restart(Broker::start_persistent(), Broker::terminate);
}

#[test]
fn birth_and_death_are_told_with_the_boot_and_the_connection() {
    let broker = Broker::start();
    let (operator, mut edge) = fleet_of_one(&broker, "");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("there");
    let boot_id = boot_id.trim().replace('-', "");
    let said = |process: &Value, online: bool| json!({"online": online, "boot_id": boot_id, "process": process, "connection": 1});
    let born = |process: &Value| {
        let mut born = said(process, true);
        born["version"] = json!(env!("CARGO_PKG_VERSION"));
        born
    };
    let dead = |process: &Value, cause: &str| {
        let mut dead = said(process, false);
        dead["cause"] = json!(cause);
        dead
    };
    let first = operator.all(ONLINE)[0]["process"].clone();
    edge.kill();
    let will = dead(&first, "link lost");
    operator.hear(SOON, ONLINE, "the will", |said| *said == will);
    edge.start_again();
    let birth = operator.hear(SOON, ONLINE, "the birth", |said| said["online"] == true);
    let second = birth["process"].clone();
    assert_ne!(first, second);
    edge.terminate(SOON);
    let farewell = dead(&second, "shutdown");
    operator.hear(SOON, ONLINE, "the farewell", |said| *said == farewell);
    assert_eq!(operator.all(ONLINE), [born(&first), will, born(&second), farewell]);
}

#[test]
fn a_box_of_the_same_name_is_noticed_and_not_chased() {
    let broker = Broker::start();
    let (operator, first) = fleet_of_one(&broker, "");
    let began = Instant::now();
    let second = BoxPlan::default().mqtt(&mqtt(&broker)).start();
    let said = "another box has our name";
    wait_until(BACK_WITHIN, "one of them says so", || {
        [&first, &second].iter().any(|edge| edge.log().contains(said))
    });
    let noticed = |state: &Value| state["link"]["taken_over"].as_u64() > Some(0);
    operator.hear(BACK_WITHIN, STATE, "the fleet is told", noticed);
    let minutes = began.elapsed().as_secs() / 60 + 1;
    let allowed = 2 * 6 * usize::try_from(minutes).expect("few");
    let came = broker.connections_of(CLIENT);
    assert!(came <= allowed, "{came} connections in {minutes} minutes");
}

#[test]
fn a_broker_that_offers_little_is_asked_for_no_more() {
    // Not every broker keeps messages or delivers them for sure, and the state is longer than what
    // this one takes as soon as a few streams are live.
    let broker = Broker::with("allow_anonymous true\nmax_qos 0\nmax_packet_size 1500\n");
    let operator = Operator::connect(broker.addr());
    let edge = BoxPlan::default().mqtt(&mqtt(&broker)).start();
    operator.hear(BACK_WITHIN, STATE, "the state", |state| state["clock"] == "trusted");
    let log = edge.dir().join("push.log");
    let mut pushers: Vec<Pusher> = (0..6)
        .map(|number| {
            let url = edge.push_url(&format!("cam-{number}"));
            push_file(&CLIP.flv(), &url, Pace::Real, &log)
        })
        .collect();
    let left_out = |state: &Value| state["streams_left_out"] == 6;
    operator.hear(SOON, STATE, "the streams are counted", left_out);
    pushers.iter_mut().for_each(|pusher| pusher.finish_within(SOON));
    operator.hear(SOON, STATE, "the streams are gone", |state| state["streams_left_out"] == 0);
    assert_eq!(broker.connections_of(CLIENT), 1);
}

#[test]
fn a_broker_that_keeps_no_messages_hears_the_box_all_the_same() {
    let broker = Broker::with("allow_anonymous true\nretain_available false\n");
    let operator = Operator::connect(broker.addr());
    let _edge = BoxPlan::default().mqtt(&mqtt(&broker)).start();
    operator.hear(BACK_WITHIN, ONLINE, "the birth", |said| said["online"] == true);
    operator.hear(SOON, STATE, "the state", |state| state["clock"] == "trusted");
    assert_eq!(broker.connections_of(CLIENT), 1);
}

#[test]
fn a_broker_that_says_nothing_costs_nothing_but_the_attempts() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let addr = silent.local_addr().expect("bound");
    let edge =
        BoxPlan::default().mqtt(&format!("url = \"mqtt://{addr}\"\nfleet = \"venue\"\n")).start();
    wait_until(BACK_WITHIN, "it is given up", || edge.log().contains("Timeout"));
    assert!(edge.cli(&["ls", "--json"]).status.success(), "the box works all the same");
}

/// Runs openssl in a folder.
fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new(tool("openssl"));
    run_ok(command.args(arguments.split_whitespace()).current_dir(dir));
}

/// An authority with a certificate for the loopback, both versions, and one for a box.
pub(super) fn make_certificates(dir: &Path) {
    fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1,IP:::1\n").expect("written");
    fs::write(dir.join("v3"), "basicConstraints=CA:FALSE\n").expect("written");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 9 -subj /CN=ca"));
    for (name, extensions) in [("server", "san"), ("box-01", "v3")] {
        openssl(dir, &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 \
                 -extfile {extensions} -out {name}.pem"
            ),
        );
    }
}

#[test]
fn tls_with_a_certificate_of_the_box_and_a_password() {
    let dir = scratch("broker");
    make_certificates(dir.path());
    let passwords = dir.path().join("passwords");
    let mut command = Command::new(tool("mosquitto_passwd"));
    run_ok(command.arg("-c").arg("-b").arg(&passwords).args(["box", "pass word"]));
    // The operator comes in by a door of its own.
    let plain = free_addr();
    let settings = format!(
        "allow_anonymous false\npassword_file {{dir}}/passwords\ncafile {{dir}}/ca.pem\n\
         certfile {{dir}}/server.pem\nkeyfile {{dir}}/server.key\nrequire_certificate true\n\
         listener {} 127.0.0.1\nallow_anonymous true\n",
        plain.port()
    );
    let broker = Broker::in_dir(dir, &settings);
    let mut operator = Operator::connect(plain);
    operator.send(TO_ALL, document(10, "ten").to_string());
    let at = |name: &str| broker.dir().join(name).to_string_lossy().into_owned();
    let secure = |user: &str, identity: &str| {
        format!(
            "url = \"mqtts://{user}@{}\"\nfleet = \"venue\"\nca = \"{}\"\n{identity}",
            broker.addr(),
            at("ca.pem")
        )
    };
    let identity = format!("cert = \"{}\"\nkey = \"{}\"\n", at("box-01.pem"), at("box-01.key"));
    let edge = BoxPlan::default().mqtt(&secure("box:pass%20word", &identity)).start();
    hear_applied(&operator, SOON, "fleet", 10);
    assert_eq!(decided(&edge).0, "ten");
    drop(edge);

    for (user, identity, why) in [
        ("box:wrong", identity.as_str(), "NotAuthorized"),
        ("box:pass%20word", "", "CertificateRequired"),
    ] {
        operator.forget();
        let edge = BoxPlan::default().mqtt(&secure(user, identity)).start();
        wait_until(SOON, why, || edge.log().contains(why));
        assert!(!edge.log().contains("pass word"), "no secret is logged");
        assert_eq!(operator.all(STATE), [Value::Null; 0]);
    }
    fs::write(broker.dir().join("ca.pem"), "no certificate").expect("written");
    let edge = BoxPlan::default().mqtt(&secure("box:pass%20word", &identity)).prepare();
    let checked = edge.cli(&["check-config"]);
    assert_eq!(checked.status.code(), Some(64), "{checked:?}");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(said.contains("ca cannot be used: it holds no certificate in PEM"), "{said}");
    let strange = format!("url = \"mqtts://{}\"\nfleet = \"venue\"\n", broker.addr());
    let edge = BoxPlan::default().mqtt(&strange).start();
    wait_until(SOON, "a strange authority", || edge.log().contains("UnknownIssuer"));
}

#[test]
fn a_broker_that_cannot_be_reached_is_tried_six_times_a_minute_at_most() {
    let mut broker = Broker::start();
    broker.kill();
    let edge = BoxPlan::default().mqtt(&mqtt(&broker)).start();
    let failures = || edge.log().matches("the fleet's broker is not reached").count();
    wait_until(Duration::from_secs(60), "three attempts", || failures() >= 3);
    assert!(edge.cli(&["ls", "--json"]).status.success(), "the box works without a broker");
    assert!(failures() <= 6, "{} attempts", failures());
}
