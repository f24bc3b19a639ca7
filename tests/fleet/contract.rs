//! The documents about MQTT say what boxes really do: what a real box sends on a real broker is valid
//! by them, and what differs in one member is not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use edgerec::api::cloud::ACTIONS;
use edgerec::domain::ids::FileId;
use edgerec::domain::notice::box_event::{BoxNews, Loss, Lost};
use edgerec::domain::notice::{BoxEvent, EventKind, NoticeSeq, Origin};
use edgerec::domain::time::UnixMillis;
use edgerec::fleet::operator::FleetTopics;
use serde_json::{Value, json};

use super::commands::ask;
use super::support::broker::Broker;
use super::support::edge_box::BoxPlan;
use super::support::json_schema::{Case, contract, faults, judge, planted, shapes};
use super::support::media::Clip;
use super::support::operator::Operator;
use super::support::outbox::Outbox;
use super::support::push::{Pace, push_file};
use super::support::wait::wait_until;
use super::{ONLINE, SOON, STATE, TO_ALL, document, hear_applied, mqtt};

const CLIP: Clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("it is there");
    serde_json::from_str(&text).expect("JSON")
}

/// Has a box say everything that can be had of one in a few seconds.
fn say_everything(operator: &mut Operator, broker: &Broker) -> Value {
    let target = Outbox::new();
    operator.send(TO_ALL, document(10, "ten").to_string());
    let plan = BoxPlan::default().sections(&target.section());
    let mut edge = plan.mqtt(&mqtt(broker)).start();
    hear_applied(operator, SOON, "fleet", 10);
    let log = edge.dir().join("push.log");
    let mut pusher = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Real, &log);
    let live = |state: &Value| state["streams"][0]["template"] == "ten";
    operator.hear(SOON, STATE, "the stream is told", live);
    let mut wrong = document(11, "eleven");
    wrong["rules"][0]["TemplateName"] = json!("nobody");
    operator.send(TO_ALL, wrong.to_string());
    let refused = |state: &Value| state["rules"]["fleet"]["refused"].is_object();
    operator.hear(SOON, STATE, "the refusal is told", refused);
    pusher.finish_within(SOON);
    let live = |unix_s: u64| {
        json!({"Action": "CreateRecordTask", "DomainName": "d",
        "AppName": "live", "StreamName": "nobody", "EndTime": unix_s + 60})
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let answer = ask(operator, &live(now.expect("after 1970").as_secs()), "a", 1);
    assert!(answer["TaskId"].is_string(), "{answer}");
    let kinds = || operator.events().into_iter().map(|(kind, _)| kind).collect::<BTreeSet<_>>();
    let wanted = EventKind::ALL.iter().filter(|kind| **kind != EventKind::Loss);
    let wanted: BTreeSet<String> = wanted.map(|kind| kind.word().to_owned()).collect();
    wait_until(SOON, &format!("{wanted:?}"), || kinds() == wanted);
    edge.terminate(SOON);
    operator.hear(SOON, ONLINE, "the farewell", |said| said["cause"] == "shutdown");
    answer
}

#[test]
fn what_boxes_say_is_as_the_documents_have_it() {
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let answer = say_everything(&mut operator, &broker);

    let mut said: BTreeMap<(&str, Option<String>), Vec<Value>> = BTreeMap::new();
    said.insert(("state.schema.json", None), operator.all(STATE));
    said.insert(("online.schema.json", None), operator.all(ONLINE));
    let answer = json!({"Response": answer});
    said.insert(("command.schema.json", Some("answer".to_owned())), vec![answer]);
    // Of these one shape cannot be had in a few seconds.
    said.insert(("events.schema.json", Some("loss".to_owned())), losses());
    for (kind, event) in operator.events() {
        said.entry(("events.schema.json", Some(kind))).or_default().push(event);
    }
    let case = |name, part, documents| Case { schema: contract(name), part, documents };
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for ((name, part), documents) in said {
        // An answer may have any member of its action's.
        let planted = shapes(&documents).into_iter().flat_map(|document| match name {
            "command.schema.json" => planted(document, &["/Response/TaskId"], false),
            _ => planted(document, &["/stream_param", "/ring", "/queue", "/flash"], true),
        });
        bad.push(case(name, part.clone(), planted.collect()));
        good.push(case(name, part, documents));
    }
    for (case, faults) in good.iter().zip(judge(&good)) {
        for (document, fault) in case.documents.iter().zip(faults) {
            assert_eq!(fault, None, "{}, {:?}: {document:#}", case.schema.display(), case.part);
        }
    }
    for (case, faults) in bad.iter().zip(judge(&bad)) {
        assert!(!faults.is_empty(), "{}, {:?}", case.schema.display(), case.part);
        for (document, fault) in case.documents.iter().zip(faults) {
            let (schema, part) = (case.schema.display(), &case.part);
            assert!(fault.is_some(), "{schema}, {part:?} takes {document:#}");
        }
    }
}

/// The events of both kinds of losses, as a box makes them.
fn losses() -> Vec<Value> {
    let (key, format) = ("d/live/cam".parse().ok(), None);
    let file = Lost::File { file: FileId(11), key, format, media_ms: 60_000 };
    let events = Lost::Events { first: NoticeSeq(4), last: NoticeSeq(9), count: 5 };
    let body = |lost: Lost| {
        let what = BoxNews::Loss(Loss { number: 1, reason: "r".into(), lost });
        let origin = Origin { appid: 0, box_id: "box-01", outbox: "0123456789abcdef" };
        let body = BoxEvent { at: UnixMillis(1), what }.body(origin, NoticeSeq(7));
        serde_json::from_str(&body).expect("JSON")
    };
    [file, events].map(body).into()
}

#[test]
fn the_description_of_mqtt_is_sound_and_names_what_is_there() {
    let path = contract("asyncapi.json");
    let description = read(&path);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let official = data.join("asyncapi/3.0.0.schema.json");
    let mut bad = description.clone();
    bad["channels"]["state"]["adress"] = bad["channels"]["state"]["address"].take();
    let judged = faults(&official, &[description.clone(), bad]);
    assert_eq!(judged[0], None);
    assert!(judged[1].is_some(), "the official schema takes anything");

    let mut references = Vec::new();
    references_in(&description, &mut references);
    assert!(references.len() > 40, "{references:?}");
    for reference in &references {
        let (file, place) = reference.split_once('#').unwrap_or((reference, ""));
        let target = if file.is_empty() { description.clone() } else { read(&contract(file)) };
        assert!(target.pointer(place).is_some(), "{reference} is nowhere");
    }
    let used = |name: &str| references.iter().any(|reference| reference.starts_with(name));
    for entry in std::fs::read_dir(contract("")).expect("a folder") {
        let name = entry.expect("readable").file_name().to_string_lossy().into_owned();
        assert!(name == "asyncapi.json" || used(&name), "{name} is in no message");
    }
}

fn references_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                found.push(reference.to_owned());
            }
            members.values().for_each(|member| references_in(member, found));
        }
        Value::Array(elements) => elements.iter().for_each(|one| references_in(one, found)),
        _ => {}
    }
}

#[test]
fn the_operator_has_the_topics_of_the_description() {
    let description = read(&contract("asyncapi.json"));
    let channels = description["channels"].as_object().expect("channels");
    let described: BTreeSet<&str> =
        channels.values().map(|channel| channel["address"].as_str().expect("text")).collect();
    let topics = FleetTopics::of("{fleet}");
    let exact = [
        topics.config(None),
        topics.config(Some("{box}")),
        topics.command("{box}"),
        topics.answers("{mark}"),
    ];
    for topic in &exact {
        assert!(described.contains(topic.as_str()), "{topic} is not described");
    }
    // A filter's last part may stand for anything.
    let heard: Vec<String> = topics.said_by(Some("{box}"));
    let heard = |topic: &str| {
        heard.iter().any(|filter| match filter.strip_suffix('+') {
            Some(begin) => topic.starts_with(begin),
            None => topic == filter,
        })
    };
    for topic in described {
        assert!(exact.iter().any(|known| known == topic) || heard(topic), "nobody knows {topic}");
    }
}

#[test]
fn the_documents_list_every_action_that_can_be_commanded() {
    let schema = contract("command.schema.json");
    let listed = &read(&schema)["$defs"]["action"]["enum"];
    let listed: BTreeSet<&str> =
        listed.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(listed, ACTIONS.into_iter().collect(), "of the schema, and of the box");
    let good = [
        json!({"Action": "DescribeLiveRecordRules"}),
        json!({"Action": "CreateLiveRecord", "ClientToken": "t", "fleet": "venue",
               "box": "box-01", "expires": 1_800_000_000, "StreamName": "cam"}),
        json!({"payload": "e30=", "key_id": "0123456789abcdef", "sig": "c2ln"}),
    ];
    assert_eq!(faults(&schema, &good), [None, None, None]);
    let bad = [
        json!({"Action": "Sing"}),
        json!({"StreamName": "cam"}),
        json!({"payload": "e30=", "key_id": "0123456789abcdef"}),
        json!({"payload": "e30=", "key_id": "short", "sig": "c2ln"}),
    ];
    for (bad, fault) in bad.iter().zip(faults(&schema, &bad)) {
        assert!(fault.is_some(), "{bad}");
    }
}
