//! Commands: actions of the API over the broker, answered where the operator listens, done once.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::signed::Signer;
use super::support::broker::Broker;
use super::support::edge_box::{BoxPlan, EdgeBox};
use super::support::http::act;
use super::support::operator::Operator;
use super::support::scratch;
use super::support::wait::wait_until;
use super::{COMMAND, ONLINE, SOON, STATE, TO_ALL, document, fleet_of_one, hear_applied, mqtt};

const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Sends a command and waits for its answer, which is the `count`th on its topic.
pub(super) fn ask(operator: &mut Operator, command: &Value, topic: &str, count: usize) -> Value {
    let topic = format!("edgerec/v1/venue/reply/{topic}");
    operator.command(COMMAND, command, &topic, false);
    let all = || operator.all(&topic);
    wait_until(ANSWERED_WITHIN, "the answer", || all().len() == count);
    all().pop().expect("there is one")["Response"].take()
}

fn template(name: &str, token: &str) -> Value {
    json!({"Action": "CreateLiveRecordTemplate", "ClientToken": token, "TemplateName": name,
           "FlvParam": {"Enable": 1}})
}

/// The names of the templates that the API has made.
fn made(edge: &EdgeBox) -> Vec<String> {
    let answer = act(edge, "DescribeLiveRecordTemplates", json!({}));
    let all = answer["Templates"].as_array().cloned().unwrap_or_default();
    let name = |one: &Value| one["TemplateName"].as_str().expect("a name").to_owned();
    all.iter().map(name).filter(|name| name != "ten").collect()
}

#[test]
fn actions_are_answered_and_a_token_is_done_once_also_over_a_kill() {
    let broker = Broker::start();
    let (mut operator, mut edge) = fleet_of_one(&broker, "");
    let first = ask(&mut operator, &template("made", "token-1"), "a", 1);
    assert!(first["TemplateId"].is_number(), "{first}");
    assert_eq!(made(&edge), ["made"]);
    // Were it done again, the name would be refused: it is taken.
    assert_eq!(ask(&mut operator, &template("made", "token-1"), "a", 2), first);
    let again = ask(&mut operator, &template("made", "token-2"), "a", 3);
    assert!(again["Error"]["Code"].is_string(), "{again}");

    operator.forget();
    edge.kill();
    edge.start_again();
    let born = |said: &Value| said["online"] == true;
    operator.hear(SOON, ONLINE, "the box is back", born);
    assert_eq!(ask(&mut operator, &template("made", "token-1"), "a", 1), first);
    assert_eq!(made(&edge), ["made"]);
    // What was refused has changed nothing, so the same token may try again.
    let id = &first["TemplateId"];
    let delete = json!({"Action": "DeleteLiveRecordTemplate", "TemplateId": id});
    assert!(ask(&mut operator, &delete, "b", 1)["Error"].is_null());
    let third = ask(&mut operator, &template("made", "token-2"), "b", 2);
    assert!(third["TemplateId"].as_u64() > first["TemplateId"].as_u64(), "{third}");

    let asked = json!({"Action": "DescribeLiveRecordTemplates"});
    let listed = ask(&mut operator, &asked, "c", 1);
    assert_eq!(listed["Templates"].as_array().map(Vec::len), Some(2), "{listed}");
    let unknown = ask(&mut operator, &json!({"Action": "Explode"}), "c", 2);
    assert_eq!(unknown["Error"]["Code"], "InvalidAction");
}

#[test]
fn a_command_that_finds_too_many_waiting_is_told_so_and_not_done() {
    const SENT: usize = 30;
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker, "");
    let commands: Vec<Value> =
        (0..SENT).map(|n| template(&format!("t{n}"), &format!("token-{n}"))).collect();
    let topic = "edgerec/v1/venue/reply/a";
    operator.burst(COMMAND, &commands, topic);
    wait_until(SOON, "every command is answered", || operator.all(topic).len() == SENT);
    let answers = operator.all(topic);
    let code = |answer: &Value| answer["Response"]["Error"]["Code"].as_str().map(str::to_owned);
    let codes: Vec<String> = answers.iter().filter_map(code).collect();
    assert!(!codes.is_empty() && codes.iter().all(|c| c == "RequestLimitExceeded"), "{codes:?}");
    assert_eq!(made(&edge).len(), SENT - codes.len());
    // Nothing is remembered of it, so it can be sent again.
    for (number, command) in commands.iter().enumerate() {
        let again = ask(&mut operator, command, "b", number + 1);
        assert!(again["TemplateId"].is_number(), "{again}");
    }
    assert_eq!(made(&edge).len(), SENT);
}

#[test]
fn no_command_is_done_again_because_the_broker_keeps_it() {
    let broker = Broker::start();
    let (mut operator, mut edge) = fleet_of_one(&broker, "");
    edge.terminate(SOON);
    operator.command(COMMAND, &template("kept", "token-1"), "edgerec/v1/venue/reply/a", true);
    edge.start_again();
    let said = "is a retained message, which is not done";
    wait_until(SOON, said, || edge.log().contains(said));
    let asked = json!({"Action": "DescribeLiveRecordTemplates"});
    ask(&mut operator, &asked, "b", 1);
    assert_eq!(made(&edge), ["kept"], "it was also queued for the box while that was away, once");
}

#[test]
fn no_answer_goes_where_others_listen() {
    let broker = Broker::start();
    let (mut operator, edge) = fleet_of_one(&broker, "");
    // The box would put its answer where all boxes look for rules.
    operator.command(COMMAND, &template("done", "token-1"), TO_ALL, false);
    let asked = json!({"Action": "DescribeLiveRecordTemplates"});
    ask(&mut operator, &asked, "a", 1);
    assert_eq!(made(&edge), ["done"]);
    hear_applied(&operator, SOON, "fleet", 10);
    operator.send(TO_ALL, document(11, "eleven").to_string());
    hear_applied(&operator, SOON, "fleet", 11);
    let refused = |state: &Value| !state["rules"]["fleet"]["refused"].is_null();
    assert!(!operator.all(STATE).iter().any(refused), "an answer came among the rules");
}

#[test]
fn a_box_with_keys_takes_only_signed_commands_that_are_for_it() {
    let dir = scratch("keys");
    let ours = Signer::new(dir.path(), "ours");
    let stranger = Signer::new(dir.path(), "stranger");
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let keys = format!("rules_public_keys = {}\n", json!([STANDARD.encode(ours.public())]));
    let edge = BoxPlan::default().mqtt(&format!("{}{keys}", mqtt(&broker))).start();
    operator.hear(SOON, ONLINE, "the box is there", |said| said["online"] == true);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_s = now.expect("after 1970").as_secs();
    let whole = |name: &str, token: &str| {
        let mut command = template(name, token);
        command["fleet"] = json!("venue");
        command["box"] = json!("box-01");
        command["expires"] = json!(now_s + 600);
        command
    };
    let mut foreign = whole("bad", "token-1");
    foreign["box"] = json!("box-02");
    let mut over = whole("bad", "token-1");
    over["expires"] = json!(now_s - 600);
    let bad = [
        (template("bad", "token-1"), "AuthFailure.SignatureFailure"),
        (stranger.sign(&whole("bad", "token-1")), "AuthFailure.SignatureFailure"),
        (ours.sign(&template("bad", "token-1")), "InvalidParameter"),
        (ours.sign(&foreign), "AuthFailure.UnauthorizedOperation"),
        (ours.sign(&over), "AuthFailure.SignatureExpire"),
    ];
    for (number, (command, code)) in bad.iter().enumerate() {
        let answer = ask(&mut operator, command, "a", number + 1);
        assert_eq!(answer["Error"]["Code"], *code, "{answer}");
    }
    assert_eq!(made(&edge), [""; 0]);
    let good = ours.sign(&whole("good", "token-1"));
    let answer = ask(&mut operator, &good, "b", 1);
    assert!(answer["TemplateId"].is_number(), "{answer}");
    // Whoever has heard it may say it again, and nothing comes of it.
    assert_eq!(ask(&mut operator, &good, "b", 2), answer);
    assert_eq!(made(&edge), ["good"]);
}
