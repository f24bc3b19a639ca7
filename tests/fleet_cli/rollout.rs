//! `edgerec fleet rollout` over real boxes: step by step to all, taken back where a box is not well,
//! gone on with after an interruption.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::broker::free_addr;
use super::support::camera::Camera;
use super::support::edge_box::{BoxPlan, EdgeBox, binary};
use super::support::media::Clip;
use super::support::operator::Operator;
use super::support::process::{Process, Stdout};
use super::support::push::{Pace, Pusher, push_file};
use super::support::wait::wait_until;
use super::{Desk, SOON, key, text};

const TO_ALL: &str = "edgerec/v1/venue/config";
const CLIP: Clip =
    Clip { seconds: 10, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };
const WITHIN: Duration = Duration::from_secs(60);

/// A rule set that differs from that of any other revision.
fn rules(revision: u64, template: &str) -> Value {
    let mut rules = super::rules(revision, template);
    rules["templates"][0]["FlvParam"]["RecordInterval"] = json!(600 + revision);
    rules
}

/// A fleet with revision 10 in force, whose template is called `old`.
struct Scene {
    desk: Desk,
    operator: Operator,
    boxes: Vec<EdgeBox>,
}

impl Scene {
    fn new(boxes: usize) -> Scene {
        let desk = Desk::new();
        let mut operator = Operator::connect(desk.broker.addr());
        operator.send(TO_ALL, rules(10, "old").to_string());
        let plan = |number: usize| plan(&desk, number).start();
        let boxes: Vec<EdgeBox> = (1..=boxes).map(plan).collect();
        let scene = Scene { desk, operator, boxes };
        for number in 1..=scene.boxes.len() {
            scene.applied(number, "fleet", 10);
        }
        scene
    }

    /// Waits until a box says that a revision is in force.
    #[track_caller]
    fn applied(&self, number: usize, layer: &str, revision: u64) {
        let topic = format!("edgerec/v1/venue/box/box-0{number}/state");
        let is = |state: &Value| state["rules"][layer]["applied"] == revision;
        self.operator.hear(SOON, &topic, "it is in force", is);
    }

    /// A stream that is live on a box, and is told so.
    fn push(&self, number: usize) -> Pusher {
        let edge = &self.boxes[number - 1];
        let log = edge.dir().join("push.log");
        let pusher = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::RealLooped, &log);
        let topic = format!("edgerec/v1/venue/box/box-0{number}/state");
        let live = |state: &Value| state["streams"][0]["stream"] == "cam";
        self.operator.hear(SOON, &topic, "the stream is live", live);
        pusher
    }

    /// A rollout at work; its report is in its log.
    fn rollout(&self, file: &str, more: &[&str]) -> Process {
        let mut command = Command::new(binary());
        command.args(["fleet", "rollout", file, "--canary", "33%", "--step", "33%", "--json"]);
        command.args(more);
        command.arg("--config").arg(self.desk.dir.path().join("fleet.toml"));
        let log = self.desk.dir.path().join("rollout.log");
        Process::start(&command, "rollout", &log, Stdout::Log)
    }

    /// What rollouts have told.
    fn told(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.desk.dir.path().join("rollout.log"));
        let log = log.unwrap_or_default();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn events(&self, event: &str) -> Vec<Value> {
        self.told().into_iter().filter(|told| told["event"] == event).collect()
    }

    /// The template that decides about a stream of a box, and the layer of its rule.
    fn decided(&self, number: usize, stream: &str) -> (String, String) {
        let edge = &self.boxes[number - 1];
        let row = edge.cli_ok(&["explain", &edge.stream_key(stream), "--json"]);
        let row: Value = serde_json::from_str(row.trim()).expect("JSON");
        ["template", "layer"].map(|name| row[name].as_str().unwrap_or("").to_owned()).into()
    }

    /// Waits until every box decides by this template.
    #[track_caller]
    fn all_decide(&self, template: &str) {
        for number in 1..=self.boxes.len() {
            let what = format!("box {number} decides by {template}");
            wait_until(SOON, &what, || self.decided(number, "cam").0 == template);
        }
    }

    fn book_is_there(&self) -> bool {
        self.desk.dir.path().join("new.json.rollout").exists()
    }
}

fn plan(desk: &Desk, number: usize) -> BoxPlan {
    let mqtt = format!("url = \"mqtt://{}\"\nfleet = \"venue\"\n", desk.broker.addr());
    BoxPlan::default().id(&format!("box-0{number}")).mqtt(&mqtt)
}

/// Groups of a rollout over three boxes: one, one, and all.
fn new_rules(scene: &Scene) -> String {
    scene.desk.file("new.json", &rules(11, "new"))
}

#[test]
fn a_rule_set_reaches_all_boxes_in_steps_and_their_own_rules_stay() {
    let mut scene = Scene::new(3);
    let mut own = rules(3, "own");
    own["rules"][0]["StreamName"] = json!("own");
    scene.operator.send("edgerec/v1/venue/box/box-02/config", own.to_string());
    scene.applied(2, "box", 3);
    let _pushers = [scene.push(1), scene.push(2)];
    let file = new_rules(&scene);
    let mut rollout = scene.rollout(&file, &["--hold", "2"]);
    assert!(rollout.end_within(WITHIN).success(), "{}", rollout.log_tail());

    let steps = scene.events("step");
    let sizes: Vec<usize> =
        steps.iter().map(|step| step["boxes"].as_array().expect("boxes").len()).collect();
    assert_eq!(sizes, [1, 1, 3], "{steps:#?}");
    assert!(steps[..2].iter().all(|step| step["boxes"][0] != "box-03"), "it has no stream to try");
    assert_eq!(scene.events("done")[0]["revision"], 11);
    assert!(!scene.book_is_there());
    for number in 1..=3 {
        scene.applied(number, "fleet", 11);
        assert_eq!(scene.decided(number, "cam"), ("new".to_owned(), "fleet".to_owned()));
    }
    assert_eq!(scene.decided(2, "own"), ("own".to_owned(), "box".to_owned()));
    assert_eq!(scene.decided(1, "own").0, "new");
    for number in [1, 2] {
        let rows = scene.boxes[number - 1].ls();
        assert_eq!(rows.len(), 2, "the stream was restarted once: {rows:#?}");
    }
    let again = scene.desk.done(&["rollout", &file]);
    assert!(again.contains("published already"), "{again}");
}

#[test]
fn streams_that_may_run_on_under_old_rules_are_not_restarted_by_the_last_step() {
    let scene = Scene::new(1);
    let _pusher = scene.push(1);
    let mut new = rules(11, "new");
    new["apply"] = json!({"mode": "next_start"});
    let file = scene.desk.file("new.json", &new);
    let mut rollout = scene.rollout(&file, &["--hold", "1"]);
    assert!(rollout.end_within(WITHIN).success(), "{}", rollout.log_tail());
    scene.applied(1, "fleet", 11);
    scene.applied(1, "box", 2);
    assert_eq!(scene.decided(1, "other"), ("new".to_owned(), "fleet".to_owned()));
    let topic = "edgerec/v1/venue/box/box-01/state";
    let waits = |state: &Value| {
        let cam = &state["streams"][0];
        cam["stale"] == true
            && cam["restart"] == "next_start"
            && state["rules"]["box"]["applied"] == 2
    };
    scene.operator.hear(SOON, topic, "the stream waits for its next start", waits);
    assert_eq!(scene.boxes[0].ls().len(), 1, "{:#?}", scene.boxes[0].ls());
}

#[test]
fn a_box_that_refuses_has_everything_taken_back() {
    let mut scene = Scene::new(2);
    // The third takes only what is signed, and the rollout is not.
    let (_, public) = key(scene.desk.dir.path(), "ours.pem");
    let strict = plan(&scene.desk, 3).mqtt_line(&format!("rules_public_keys = [\"{public}\"]"));
    scene.boxes.push(strict.start());
    let refused = |state: &Value| state["rules"]["fleet"]["refused"]["why"] == "unsigned";
    scene.operator.hear(SOON, "edgerec/v1/venue/box/box-03/state", "it refuses", refused);
    let _pushers = [scene.push(1), scene.push(2)];
    let file = new_rules(&scene);
    let mut rollout = scene.rollout(&file, &["--hold", "1"]);
    assert_eq!(rollout.end_within(WITHIN).code(), Some(1), "{}", rollout.log_tail());

    assert_eq!(scene.events("step").len(), 4, "two boxes had it, then all, then it was taken back");
    let why = scene.events("taken_back")[0]["why"].as_str().expect("words").to_owned();
    assert!(why.contains("box-03 refused: unsigned"), "{why}");
    assert!(!scene.book_is_there());
    for number in [1, 2] {
        scene.applied(number, "fleet", 12);
        assert_eq!(scene.decided(number, "cam"), ("old".to_owned(), "fleet".to_owned()));
    }
    let kept = scene.operator.kept(TO_ALL);
    assert_eq!(kept["templates"], rules(10, "old")["templates"]);
}

#[test]
fn a_canary_that_is_not_well_spares_the_others() {
    let scene = Scene::new(3);
    // It has the only stream, so it tries the rules; they cut the encoder off.
    let mut pusher = scene.push(1);
    let mut cut = rules(11, "new");
    cut["apply"] = json!({"mode": "restart", "disconnect": true});
    let file = scene.desk.file("new.json", &cut);
    let mut rollout = scene.rollout(&file, &["--hold", "1", "--within", "5"]);
    assert!(!pusher.end_within(WITHIN).success(), "the encoder is cut off, and does not come back");
    assert_eq!(rollout.end_within(WITHIN).code(), Some(1), "{}", rollout.log_tail());
    let why = scene.events("taken_back")[0]["why"].as_str().expect("words").to_owned();
    assert!(why.contains("cam is not live again"), "{why}");
    scene.all_decide("old");
    assert_eq!(scene.operator.kept(TO_ALL)["revision"], 10, "nothing was published for all");
    let steps = scene.events("step");
    assert_eq!(steps.len(), 2, "one step, and back: {steps:#?}");
    assert!(steps.iter().all(|step| step["boxes"] == json!(["box-01"])), "{steps:#?}");
    for number in [2, 3] {
        let topic = format!("edgerec/v1/venue/box/box-0{number}/state");
        let told = scene.operator.all(&topic);
        assert!(told.iter().all(|state| state["rules"]["box"]["received"].is_null()), "{told:#?}");
    }
}

#[test]
fn an_interrupted_rollout_says_how_to_go_on_and_goes_on() {
    let mut scene = Scene::new(3);
    let file = new_rules(&scene);
    let steps = |count: usize| {
        wait_until(WITHIN, "the step begins", || scene.events("step").len() == count);
    };
    let mut first = scene.rollout(&file, &["--hold", "600"]);
    steps(1);
    first.signal(Signal::SIGINT);
    assert_eq!(first.end_within(SOON).code(), Some(1));
    assert!(first.log_tail().contains("the same command goes on with it"), "{}", first.log_tail());
    let other = scene.desk.file("other.json", &rules(11, "other"));
    let changed = scene.desk.dir.path().join("new.json");
    std::fs::copy(&other, &changed).expect("copied");
    assert!(scene.desk.refused(2, &["rollout", &file]).contains("a rollout of other rules"));
    new_rules(&scene);

    // Killed in the middle of the second step.
    let mut second = scene.rollout(&file, &["--hold", "1"]);
    steps(3);
    second.kill();
    let mut third = scene.rollout(&file, &["--hold", "1"]);
    assert!(third.end_within(WITHIN).success(), "{}", third.log_tail());
    scene.all_decide("new");
    assert!(!scene.book_is_there());

    // The next one is killed and taken back.
    let back = scene.desk.file("new.json", &rules(12, "newer"));
    let begun = scene.events("step").len();
    let mut fourth = scene.rollout(&back, &["--hold", "600"]);
    steps(begun + 1);
    fourth.kill();
    // What somebody has given a box of the step meanwhile is not touched.
    let first = scene.events("step").pop().expect("a step")["boxes"][0].take();
    let own = format!("edgerec/v1/venue/box/{}/config", first.as_str().expect("a name"));
    let mut others = rules(99, "others");
    others["rules"][0]["StreamName"] = json!("others");
    scene.operator.send(&own, others.to_string());
    // The way back does not need the file.
    std::fs::remove_file(&changed).expect("there");
    let mut fifth = scene.rollout(&back, &["--back"]);
    assert!(fifth.end_within(WITHIN).success(), "{}", fifth.log_tail());
    scene.all_decide("new");
    assert_eq!(scene.operator.kept(&own), others);
    assert!(scene.desk.refused(2, &["rollout", &back, "--back"]).contains("no rollout of"));
}

/// It needs nobody for that: the box itself finds that the rules fail, and the fleet's decide again.
#[test]
fn a_canary_whose_camera_fails_goes_back_while_the_rollout_is_dead() {
    let camera = Camera::start(4);
    let with_camera = |revision, url: &str| {
        let mut rules = rules(revision, if revision == 10 { "old" } else { "new" });
        rules["sources"] = json!([{"DomainName": "cams", "AppName": "live",
            "StreamName": "gate", "Url": url}]);
        rules
    };
    let desk = Desk::new();
    let mut operator = Operator::connect(desk.broker.addr());
    let url = camera.url("/endless");
    operator.send(TO_ALL, with_camera(10, url.as_str()).to_string());
    let edge = plan(&desk, 1).start();
    let scene = Scene { desk, operator, boxes: vec![edge] };
    let state = "edgerec/v1/venue/box/box-01/state";
    let recorded = |state: &Value| state["streams"][0]["decision"] == "record";
    scene.operator.hear(SOON, state, "the camera is recorded", recorded);

    let nowhere = format!("rtsp://{}/endless", free_addr());
    let file = scene.desk.file("new.json", &with_camera(11, &nowhere));
    let mut killed = scene.rollout(&file, &["--hold", "600"]);
    // Before it can see that they fail, which takes half a second.
    scene.operator.kept("edgerec/v1/venue/box/box-01/config");
    killed.kill();
    let back = |state: &Value| {
        let of_box = &state["rules"]["box"];
        (&of_box["received"], &of_box["applied"]) == (&json!(1), &Value::Null)
    };
    let told = scene.operator.hear(WITHIN, state, "it goes back by itself", back);
    let refused = &told["rules"]["box"]["refused"];
    assert_eq!((&refused["why"], &refused["revision"]), (&json!("streams_fail"), &json!(1)));
    let decided = || scene.boxes[0].cli_ok(&["explain", "cams/live/gate", "--json"]);
    wait_until(SOON, "the fleet's rules decide", || {
        let row: Value = serde_json::from_str(decided().trim()).expect("JSON");
        (&row["template"], &row["layer"]) == (&json!("old"), &json!("fleet"))
    });
    assert_eq!(scene.operator.kept(TO_ALL)["revision"], 10, "nothing was published for all");

    // Whoever comes later takes the rest back, and the box can try the next rules.
    scene.desk.done(&["rollout", &file, "--back"]);
    scene.applied(1, "box", 2);
    scene.desk.file("new.json", &with_camera(13, url.as_str()));
    let mut next = scene.rollout(&file, &["--hold", "1"]);
    assert!(next.end_within(WITHIN).success(), "{}", next.log_tail());
    let steps = scene.events("step");
    assert_eq!(steps[steps.len() - 2]["boxes"], json!(["box-01"]), "{steps:#?}");
    scene.applied(1, "fleet", 13);
}

#[test]
fn a_signed_rollout_is_taken_by_boxes_that_have_the_key() {
    let desk = Desk::new();
    let (ours, public) = key(desk.dir.path(), "ours.pem");
    let operator = Operator::connect(desk.broker.addr());
    let strict = plan(&desk, 1).mqtt_line(&format!("rules_public_keys = [\"{public}\"]"));
    let mut scene = Scene { desk, operator, boxes: Vec::new() };
    scene.boxes.push(strict.start());
    let there = |state: &Value| state["clock"] == "trusted";
    scene.operator.hear(SOON, "edgerec/v1/venue/box/box-01/state", "it is there", there);
    let file = new_rules(&scene);
    let ours = text(&ours);
    let sign = ["--sign-key", ours.as_str()];
    let mut killed = scene.rollout(&file, &[&["--hold", "600"], &sign[..]].concat());
    wait_until(WITHIN, "the step begins", || scene.events("step").len() == 1);
    killed.kill();
    assert!(scene.desk.refused(2, &["rollout", &file]).contains("--sign-key is missing"));
    let mut rollout = scene.rollout(&file, &[&["--hold", "1"], &sign[..]].concat());
    assert!(rollout.end_within(WITHIN).success(), "{}", rollout.log_tail());
    scene.applied(1, "fleet", 11);
    assert_eq!(scene.decided(1, "cam"), ("new".to_owned(), "fleet".to_owned()));
    // The same rules once more, under a signature that lasts longer.
    let mut renewed = scene.rollout(&file, &[&["--hold", "1"], &sign[..]].concat());
    assert!(renewed.end_within(WITHIN).success(), "{}", renewed.log_tail());
    let done: Vec<_> = scene.events("done").iter().map(|done| done["revision"].clone()).collect();
    assert_eq!(done, [11, 12], "{}", renewed.log_tail());
    scene.applied(1, "fleet", 12);
}
