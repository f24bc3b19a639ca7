//! Events: in order and none missing, whatever link, box and broker do; never gone before the broker
//! has acknowledged them; bounded for weeks without a link, and what fell out is told.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

use super::commands::ask;
use super::support::broker::Broker;
use super::support::edge_box::{BoxPlan, EdgeBox, binary};
use super::support::http::{act, try_act};
use super::support::media::Clip;
use super::support::mqtt_relay::{Mood, MqttRelay};
use super::support::operator::Operator;
use super::support::push::{Pace, push_file};
use super::support::scratch;
use super::support::wait::{wait_for, wait_until};
use super::{BACK_WITHIN, ONLINE, SOON, STATE, TO_ALL, document, mqtt_at};

const CLIP: Clip = Clip { seconds: 2, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };

/// The kinds that one push of a stream that is recorded as FLV is told as. What a recording does is
/// told with the next sync, which may be after the end of a short push.
const OF_A_PUSH: [&str; 4] = ["push_begin", "record_status", "record_status", "push_end"];

/// A box behind a relay, with rules in force, and an operator at the broker itself.
fn behind_a_relay(broker: &Broker, plan: BoxPlan) -> (Operator, MqttRelay, EdgeBox) {
    let mut operator = Operator::connect(broker.addr());
    operator.send(TO_ALL, document(10, "ten").to_string());
    let relay = MqttRelay::start(broker.addr());
    let edge = plan.mqtt(&mqtt_at(relay.addr())).start();
    hear_kinds(&operator, &["config"]);
    wait_until_told(&edge);
    (operator, relay, edge)
}

/// Waits until the box knows that the broker has all events.
#[track_caller]
fn wait_until_told(edge: &EdgeBox) {
    let told = || edge.cli_ok(&["events", "--json"]).lines().all(|row| !row.contains("\"waits\""));
    wait_until(SOON, "the box knows that the broker has all events", told);
}

/// Pushes a stream until all of it is sent, and the box has entered its events.
#[track_caller]
fn push(edge: &EdgeBox, stream: &str) {
    send(edge, stream);
    wait_until_entered(edge, stream, OF_A_PUSH.len());
}

/// Pushes a stream until all of it is sent.
#[track_caller]
fn send(edge: &EdgeBox, stream: &str) {
    let log = edge.dir().join("push.log");
    let url = format!("{}?room=7&txSecret=5EC12E7", edge.push_url(stream));
    push_file(&CLIP.flv(), &url, Pace::Fast, &log).finish_within(SOON);
}

/// Waits until the outbox has so many events of a stream.
#[track_caller]
fn wait_until_entered(edge: &EdgeBox, stream: &str, count: usize) {
    let of_stream = format!("\"{}\"", edge.stream_key(stream));
    let entered = || edge.cli_ok(&["events", "--json"]).matches(&of_stream).count() == count;
    wait_until(SOON, &format!("{count} events of {stream}"), entered);
}

/// The events that were heard, each once, by their numbers; fails unless they came in order.
#[track_caller]
fn once_in_order(operator: &Operator) -> Vec<(String, Value)> {
    let mut known: Vec<(String, Value)> = Vec::new();
    for (kind, event) in operator.events() {
        assert!(!event.to_string().contains("5EC12E7"), "a secret is told: {event:#}");
        let seq = |event: &Value| event["edgerec"]["seq"].as_u64().expect("a number");
        match known.iter().find(|(_, before)| seq(before) == seq(&event)) {
            Some((before, said)) => assert_eq!((before, said), (&kind, &event), "a double differs"),
            None => {
                let last = known.last().map_or(0, |(_, last)| seq(last));
                assert!(seq(&event) > last, "{} came after {last}", seq(&event));
                known.push((kind, event));
            }
        }
    }
    known
}

/// Waits until events of these kinds were heard, and no others, in whatever order they happened.
#[track_caller]
fn hear_kinds(operator: &Operator, kinds: &[&str]) -> Vec<(String, Value)> {
    let heard = || Some(once_in_order(operator)).filter(|all| all.len() >= kinds.len());
    let all = wait_for(BACK_WITHIN, &format!("{kinds:?}"), heard);
    assert_eq!(sorted(all.iter().map(|(kind, _)| kind.as_str())), sorted(kinds.iter().copied()));
    all
}

fn sorted<'a>(kinds: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut kinds: Vec<&str> = kinds.collect();
    kinds.sort_unstable();
    kinds
}

/// Asserts that numbers grow by one from 1 on.
fn assert_none_missing(events: &[(String, Value)]) {
    for (place, (_, event)) in (1..).zip(events) {
        assert_eq!(event["edgerec"]["seq"], place, "{event:#}");
    }
}

#[test]
fn events_made_without_a_link_and_over_a_kill_arrive_in_order() {
    let broker = Broker::start();
    let (operator, relay, mut edge) = behind_a_relay(&broker, BoxPlan::default());
    relay.set(Mood::Refuse);
    push(&edge, "one");
    edge.kill();
    edge.start_again();
    push(&edge, "two");
    let log = edge.dir().join("cut.log");
    let _cut = push_file(&CLIP.flv(), &edge.push_url("cut"), Pace::RealLooped, &log);
    wait_until_entered(&edge, "cut", 2);
    edge.kill();
    assert_eq!(operator.events().len(), 1, "there is no link");
    relay.set(Mood::Pass);
    edge.start_again();
    let of_stream = |heard: &[(String, Value)], stream: &str| -> Vec<String> {
        let named = |event: &Value| event["stream_id"] == stream;
        heard.iter().filter(|(_, event)| named(event)).map(|(kind, _)| kind.clone()).collect()
    };
    let all = 1 + 3 * OF_A_PUSH.len();
    let heard = wait_for(SOON, "all events", || {
        let heard = once_in_order(&operator);
        let own = heard.iter().filter(|(kind, _)| kind != "gap").count();
        (own == all).then_some(heard)
    });
    assert_none_missing(&heard);
    for stream in ["one", "two", "cut"] {
        let kinds = of_stream(&heard, stream);
        let kinds = sorted(kinds.iter().map(String::as_str));
        assert_eq!(kinds, sorted(OF_A_PUSH.into_iter()), "{heard:#?}");
    }
    let outbox = &heard[0].1["edgerec"]["outbox"];
    assert!(heard.iter().all(|(_, event)| event["edgerec"]["outbox"] == *outbox), "{heard:#?}");
}

#[test]
fn an_event_is_told_until_it_is_acknowledged_and_not_again_after() {
    let broker = Broker::start();
    let (operator, relay, mut edge) = behind_a_relay(&broker, BoxPlan::default());
    relay.set(Mood::SwallowAcks);
    push(&edge, "cam");
    let all = [&["config"], &OF_A_PUSH[..]].concat();
    hear_kinds(&operator, &all);
    wait_until(SOON, "their acknowledgements are gone", || relay.swallowed() >= OF_A_PUSH.len());
    edge.kill();
    relay.set(Mood::Pass);
    edge.start_again();
    let doubles = || operator.events().len() == 1 + 2 * OF_A_PUSH.len();
    wait_until(SOON, "they are told again", doubles);
    hear_kinds(&operator, &all);

    // Now they are acknowledged: the next process tells only what is new.
    wait_until_told(&edge);
    edge.kill();
    operator.forget();
    edge.start_again();
    operator.hear(SOON, ONLINE, "the box is back", |said| said["online"] == true);
    push(&edge, "again");
    hear_kinds(&operator, &OF_A_PUSH);
}

#[test]
fn what_a_broker_does_not_acknowledge_and_forgets_is_told_to_the_next() {
    const AT_A_TIME: usize = 2;
    let mut broker = Broker::start();
    let plan = BoxPlan::default().env("EDGEREC_PLANT_ACK_S", "8");
    let (operator, relay, edge) = behind_a_relay(&broker, plan);
    // Made now: the time runs from whatever is sent first, and the push is to come within it.
    CLIP.flv();
    relay.set(Mood::SwallowAcks);
    push(&edge, "one");
    let said = "the broker does not acknowledge what it is sent";
    wait_until(SOON, said, || edge.log().contains(said));
    assert!(relay.most_on_their_way() >= OF_A_PUSH.len(), "{}", relay.most_on_their_way());
    relay.set(Mood::Refuse);
    let before = operator.connections();
    broker.kill();
    operator.forget();
    // The next broker knows no session of the box, and takes less at a time.
    broker.add_setting(&format!("max_inflight_messages {AT_A_TIME}\n"));
    broker.start_again();
    operator.back_after(before);
    push(&edge, "two");
    relay.set(Mood::Pass);
    let heard = hear_kinds(&operator, &[&OF_A_PUSH[..], &OF_A_PUSH].concat());
    assert_eq!(heard[0].1["edgerec"]["seq"], 2, "the first was acknowledged");
    assert_none_missing(&[vec![("config".to_owned(), first())], heard].concat());

    wait_until_told(&edge);
    relay.set(Mood::SwallowAcks);
    send(&edge, "three");
    wait_until(SOON, said, || edge.log().matches(said).count() == 2);
    assert_eq!(relay.most_on_their_way(), AT_A_TIME);
}

/// Stands for the event that was acknowledged before.
fn first() -> Value {
    json!({"edgerec": {"seq": 1}})
}

/// What a broker allows everybody.
const ALL: &str = "topic readwrite edgerec/#\n";

/// A broker that does not take the begins of pushes, and the file that says so.
fn broker_without_begins() -> (Broker, PathBuf) {
    const DENIED: &str = "topic deny edgerec/v1/venue/box/box-01/event/push_begin\n";
    let dir = scratch("broker");
    let acl = dir.path().join("acl");
    std::fs::write(&acl, format!("{ALL}{DENIED}")).expect("written");
    (Broker::in_dir(dir, "allow_anonymous true\nacl_file {dir}/acl\n"), acl)
}

/// The kinds of the events that wait.
fn waits(edge: &EdgeBox) -> Vec<String> {
    let rows = edge.cli_ok(&["events", "--json"]);
    let rows = rows.lines().filter(|row| row.contains("\"waits\""));
    rows.map(|row| serde_json::from_str::<Value>(row).expect("JSON")["kind"].to_string()).collect()
}

#[test]
fn a_kind_that_the_broker_refuses_again_and_again_rests() {
    let (broker, acl) = broker_without_begins();
    let denied = |broker: &Broker| broker.log().matches("Denied PUBLISH").count();
    let (operator, relay, edge) = behind_a_relay(&broker, BoxPlan::default());
    let begins_wait = |count| waits(&edge) == vec!["\"push_begin\""; count];
    for (count, stream) in (1..).zip(["a", "b", "c", "d", "e"]) {
        push(&edge, stream);
        wait_until(SOON, "only the begins wait", || begins_wait(count));
    }
    assert_eq!(denied(&broker), 3, "then the kind rests");

    std::fs::write(&acl, ALL).expect("written");
    broker.reload();
    operator.forget();
    relay.set(Mood::Refuse);
    relay.set(Mood::Pass);
    hear_kinds(&operator, &["push_begin"; 5]);
    wait_until_told(&edge);
}

#[test]
fn an_event_that_the_broker_does_not_take_waits_and_holds_up_no_other() {
    let (mut broker, acl) = broker_without_begins();
    let (operator, _relay, mut edge) = behind_a_relay(&broker, BoxPlan::default());
    push(&edge, "cam");
    hear_kinds(&operator, &["config", "push_end", "record_status", "record_status"]);
    wait_until(SOON, "only the refused one waits", || waits(&edge) == ["\"push_begin\""]);
    assert!(edge.log().contains("the broker does not take it"), "{}", edge.log());

    std::fs::write(&acl, ALL).expect("written");
    let before = operator.connections();
    edge.kill();
    broker.kill();
    broker.start_again();
    operator.back_after(before);
    operator.forget();
    edge.start_again();
    hear_kinds(&operator, &["push_begin"]);
    wait_until_told(&edge);
}

#[test]
fn weeks_without_a_link_are_bounded_and_what_fell_out_is_in_the_ledger() {
    const ROOM: u64 = 12;
    let broker = Broker::start();
    let plan = BoxPlan::default().env("EDGEREC_PLANT_OUTBOX_UNITS", &ROOM.to_string());
    let (operator, relay, mut edge) = behind_a_relay(&broker, plan);
    relay.set(Mood::Refuse);
    operator.forget();
    for number in 0..6 {
        push(&edge, &format!("cam-{number}"));
    }
    let said = "the outbox is full";
    assert_eq!(edge.log().matches(said).count(), 1, "it is said once: {}", edge.log());
    edge.kill();
    relay.set(Mood::Pass);
    edge.start_again();
    let heard = wait_for(SOON, "the loss is told", || {
        let heard = once_in_order(&operator);
        heard.iter().any(|(kind, _)| kind == "loss").then_some(heard)
    });
    let seq = |place: usize| heard[place].1["edgerec"]["seq"].as_u64().expect("a number");
    let (_, loss) = heard.iter().find(|(kind, _)| kind == "loss").expect("it is there");
    // The first event, about the rules, was told and went before any that waited.
    let first = seq(0);
    let lost = json!({"first_seq": 2, "last_seq": first - 1, "count": first - 2});
    assert_eq!((&loss["events"], &loss["file"]), (&lost, &Value::Null));
    assert!(first > 2 && heard.len() as u64 <= ROOM + 1, "{heard:#?}");
    let told: Vec<u64> = (0..heard.len()).map(seq).collect();
    assert_eq!(told, (first..first + heard.len() as u64).collect::<Vec<_>>(), "none is missing");
    operator.hear(SOON, STATE, "the ledger has it", |state| state["ring"]["losses"] == 1);
}

#[test]
fn a_file_that_rotted_before_it_was_delivered_is_told_as_a_loss_and_the_rest_goes_on() {
    let broker = Broker::start();
    let folder = scratch("outbox");
    let target = folder.path().join("usb");
    let upload = format!("[upload]\ntarget = \"directory\"\npath = {target:?}\n");
    let (operator, _relay, mut edge) =
        behind_a_relay(&broker, BoxPlan::default().sections(&upload));
    for stream in ["rotten", "sound"] {
        send(&edge, stream);
        edge.file_within(SOON, |row| row["stream"] == stream && row["state"] == "queued");
    }
    assert!(edge.terminate(SOON).success());
    flip_a_bit_of(&edge, "rotten");
    fs::create_dir(&target).expect("made");
    edge.start_again();
    edge.file_within(SOON, |row| row["stream"] == "sound" && row["state"] == "delivered");
    let row = edge.file_within(SOON, |row| row["stream"] == "rotten" && row["state"] == "failed");
    let told = || operator.events().into_iter().find(|(kind, _)| kind == "loss");
    let (_, loss) = wait_for(SOON, "the loss is told", told);
    assert_eq!(loss["file"]["file_id"], row["file_id"], "{loss:#}");
    assert_eq!((&loss["file"]["stream"], &loss["reason"]), (&json!("rotten"), &row["why"]));
    assert!(row["why"].as_str().is_some_and(|why| why.contains("damaged")), "{row:#}");
}

/// Flips a bit of the first fragment of a stream, in its slot.
fn flip_a_bit_of(edge: &EdgeBox, stream: &str) {
    let db = rusqlite::Connection::open(edge.ring().join("state.db")).expect("opens");
    let (slot, media): (u32, u32) = db
        .query_row(
            "SELECT slot, media FROM segment JOIN session ON session.id = segment.session
             JOIN stream ON stream.id = session.stream WHERE stream.stream = ?1",
            [stream],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("it is on flash");
    let path = edge.ring().join(format!("slots/{slot:06}.mp4"));
    let slot = fs::File::options().read(true).write(true).open(path).expect("opens");
    let (mut byte, at) = ([0], u64::from(media) + 1_000);
    slot.read_exact_at(&mut byte, at).expect("read");
    slot.write_all_at(&[byte[0] ^ 4], at).expect("written");
}

#[test]
fn what_was_told_is_replayed_from_any_number() {
    let broker = Broker::start();
    let (mut operator, _relay, mut edge) = behind_a_relay(&broker, BoxPlan::default());
    push(&edge, "cam");
    hear_kinds(&operator, &[&["config"], &OF_A_PUSH[..]].concat());
    let rows = |edge: &EdgeBox, from: &str| -> Vec<Value> {
        let rows = edge.cli_ok(&["events", "--json", "--from", from]);
        rows.lines().map(|row| serde_json::from_str(row).expect("a row is JSON")).collect()
    };
    wait_until_told(&edge);
    let all = rows(&edge, "0");
    let heard: Vec<Value> = operator.events().into_iter().map(|(_, event)| event).collect();
    assert_eq!(all.iter().map(|row| row["event"].clone()).collect::<Vec<_>>(), heard);
    let readers = |row: &Value| row["receiver"].is_null() && row["fleet"] == "told";
    assert!(all.iter().all(readers), "{all:#?}");
    assert_eq!(rows(&edge, "3"), all[2..]);
    assert_eq!(rows(&edge, "6"), [Value::Null; 0]);

    let page = json!({"FromSeq": 2, "Limit": 3});
    let by_http = act(&edge, "DescribeEvents", page.clone());
    let seqs: Vec<&Value> =
        by_http["Events"].as_array().expect("a list").iter().map(|e| &e["Seq"]).collect();
    assert_eq!((seqs, &by_http["NextSeq"]), (vec![&json!(2), &json!(3), &json!(4)], &json!(5)));
    assert_eq!(by_http["Events"][0]["Event"], heard[1]);
    assert_eq!(by_http["Outbox"], heard[0]["edgerec"]["outbox"]);
    let mut command = page;
    command["Action"] = json!("DescribeEvents");
    let by_mqtt = ask(&mut operator, &command, "a", 1);
    assert_eq!(by_mqtt["Events"], by_http["Events"]);
    let refused = try_act(&edge, "DescribeEvents", json!({"Limit": 101}));
    assert_eq!(refused["Error"]["Code"], "InvalidParameterValue");

    // Whoever follows hears what happens from then on; a box at rest can be asked too.
    let mut following = Following::start(&edge, "5");
    assert_eq!(following.next(), all[4]);
    push(&edge, "more");
    let next = following.next();
    assert_eq!((&next["seq"], &next["kind"]), (&json!(6), &json!("push_begin")));
    drop(following);
    edge.terminate(SOON);
    assert_eq!(rows(&edge, "0")[..5], all);
}

/// `edgerec events --follow` at work; ended when dropped.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(edge: &EdgeBox, from: &str) -> Following {
        let mut command = Command::new(binary());
        command.args(["events", "--follow", "--json", "--from", from, "--config"]);
        command.arg(edge.dir().join("edgerec.toml")).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let stdout = child.stdout.take().expect("piped");
        let (line_out, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line_out.send(line).is_err() {
                    return;
                }
            }
        });
        Following { child, lines }
    }

    #[track_caller]
    fn next(&mut self) -> Value {
        let line = self.lines.recv_timeout(SOON).expect("a line in time");
        serde_json::from_str(&line).expect("a row is JSON")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_box_without_a_fleet_keeps_nothing_for_one() {
    let edge = BoxPlan::default().start();
    send(&edge, "cam");
    edge.file_within(SOON, |row| row["state"] != "recording");
    assert_eq!(edge.cli_ok(&["events", "--json"]), "");
}
