//! `edgerec fleet` against a real broker and a box: rule sets are checked, signed, numbered and
//! published, the box is shown and does what it is told.

mod support;

#[path = "fleet_cli/kept.rs"]
mod kept;
#[path = "fleet_cli/rollout.rs"]
mod rollout;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use support::broker::Broker;
use support::edge_box::{BoxPlan, EdgeBox, binary};
use support::process::{run, run_ok};
use support::wait::wait_for;
use support::{scratch, tool};

const SOON: Duration = Duration::from_secs(20);

/// An operator with a folder, a broker and a fleet.
struct Desk {
    dir: tempfile::TempDir,
    broker: Broker,
}

impl Desk {
    fn new() -> Desk {
        let (dir, broker) = (scratch("operator"), Broker::start());
        let mqtt = format!("[mqtt]\nurl = \"mqtt://{}\"\nfleet = \"venue\"\n", broker.addr());
        std::fs::write(dir.path().join("fleet.toml"), mqtt).expect("written");
        Desk { dir, broker }
    }

    fn fleet(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.arg("fleet").args(arguments);
        command.arg("--config").arg(self.dir.path().join("fleet.toml"));
        run(&command)
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.fleet(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What the command says on stderr when it is refused with this exit code.
    #[track_caller]
    fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.fleet(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    fn file(&self, name: &str, content: &Value) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content.to_string()).expect("written");
        text(&path)
    }

    fn start_box(&self, more: &str) -> EdgeBox {
        let mqtt = format!("url = \"mqtt://{}\"\nfleet = \"venue\"\n{more}", self.broker.addr());
        BoxPlan::default().mqtt(&mqtt).start()
    }

    /// Waits until the box says that a revision of a layer is in force; its row of `status`.
    fn applied(&self, layer: &str, revision: u64) -> Value {
        wait_for(SOON, "the rules are in force", || {
            let rows = self.done(&["status", "--json"]);
            let row: Value = serde_json::from_str(rows.lines().next()?).expect("JSON");
            (row["state"]["rules"][layer]["applied"] == revision).then_some(row)
        })
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

fn rules(revision: u64, template: &str) -> Value {
    json!({"revision": revision,
        "templates": [{"TemplateName": template, "FlvParam": {"Enable": 1}}],
        "rules": [{"DomainName": "", "StreamName": "", "TemplateName": template}]})
}

#[test]
fn rule_sets_are_published_under_growing_revisions_and_taken_by_boxes() {
    let desk = Desk::new();
    let _edge = desk.start_box("");
    let one = desk.file("one.json", &rules(4, "one"));
    let said = desk.done(&["push", &one]);
    assert!(said.contains("edgerec/v1/venue/config: revision 4 is published"), "{said}");
    let row = desk.applied("fleet", 4);
    assert_eq!((&row["box"], &row["online"]["online"]), (&json!("box-01"), &json!(true)));

    assert!(desk.done(&["push", &one]).contains("revision 4 is there already"));
    let other = desk.file("other.json", &rules(4, "other"));
    assert!(desk.done(&["push", &other]).contains("revision 5 is published"));
    desk.applied("fleet", 5);
    let old = desk.file("old.json", &rules(3, "one"));
    assert!(desk.refused(1, &["push", &old]).contains("revision 3 is older than 5"));
    let faulty = desk.file("faulty.json", &json!({"revision": 9, "surprise": 1}));
    assert!(desk.refused(64, &["push", &faulty]).contains("surprise"));

    let own = desk.file("own.json", &rules(1, "own"));
    assert!(desk.done(&["push", &own, "--box", "box-01"]).contains("box/box-01/config"));
    let row = desk.applied("box", 1);
    assert_eq!(row["state"]["rules"]["fleet"]["applied"], 5);
    let table = desk.done(&["status"]);
    let line = table.lines().find(|line| line.starts_with("box-01")).expect("a row");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..4], ["box-01", "yes", "5", "1"], "{table}");
    assert_eq!(
        desk.refused(2, &["push", &own, "--box", "a/b"]),
        "edgerec: --box: a box has no such name\n"
    );
}

/// A key of openssl, and its public half as a box has it.
fn key(dir: &Path, name: &str) -> (PathBuf, String) {
    let path = dir.join(name);
    let openssl = || Command::new(tool("openssl"));
    run_ok(openssl().args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&path));
    let public = ["-pubout", "-outform", "DER"];
    let der = run_ok(openssl().args(["pkey", "-in"]).arg(&path).args(public));
    (path, STANDARD.encode(&der[der.len() - 32..]))
}

#[test]
fn signed_rule_sets_are_taken_by_boxes_that_have_the_key_and_no_others() {
    let desk = Desk::new();
    let (ours, public) = key(desk.dir.path(), "ours.pem");
    let (other, _) = key(desk.dir.path(), "other.pem");
    let _edge = desk.start_box(&format!("rules_public_keys = [\"{public}\"]\n"));
    let file = desk.file("rules.json", &rules(1, "signed"));
    let said = desk.done(&["push", &file, "--sign-key", &text(&ours)]);
    assert!(said.contains("signed by "), "{said}");
    desk.applied("fleet", 1);

    let next = desk.file("next.json", &rules(2, "next"));
    desk.done(&["push", &next, "--sign-key", &text(&other)]);
    let table = wait_for(SOON, "the box refuses it", || {
        let table = desk.done(&["status"]);
        table.contains("fleet: ").then_some(table)
    });
    assert!(table.contains("signature"), "{table}");
    desk.done(&["push", &desk.file("third.json", &rules(3, "next")), "--sign-key", &text(&ours)]);
    desk.applied("fleet", 3);
    let no_key = desk.file("no-key.pem", &json!("nonsense"));
    assert!(desk.refused(1, &["push", &next, "--sign-key", &no_key]).contains("no private key"));

    let asked = r#"{"Action": "DescribeLiveRecordRules"}"#;
    let told = desk.done(&["command", "--box", "box-01", asked, "--sign-key", &text(&ours)]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["Response"]["Rules"][0]["Layer"], "fleet", "{told}");
}

#[test]
fn a_box_does_what_it_is_told_and_says_why_not() {
    let desk = Desk::new();
    let _edge = desk.start_box("");
    let on = |box_id: &'static str, action: &'static str| {
        ["command", "--box", box_id, action, "--within", "15"]
    };
    let made = desk.done(&on("box-01", r#"{"Action": "CreateLiveRecordTemplate", "TemplateName": "mine", "Mp4Param": {"Enable": 1}}"#));
    let made: Value = serde_json::from_str(&made).expect("JSON");
    assert!(made["Response"]["TemplateId"].is_u64(), "{made}");
    let refused = desk.fleet(&on("box-01", r#"{"Action": "Sing"}"#));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("InvalidAction"), "{refused:?}");
    let silent =
        ["command", "--box", "box-99", r#"{"Action": "DescribeLiveRecordRules"}"#, "--within", "1"];
    assert!(desk.refused(1, &silent).contains("box-99 did not answer within 1 s"));
    assert!(desk.refused(2, &on("box-01", "{}")).contains("no \"Action\""));
    assert!(desk.refused(2, &on("box-01", "{")).contains("no JSON"));
}

#[test]
fn without_a_broker_it_says_so() {
    let mut desk = Desk::new();
    desk.broker.kill();
    assert!(desk.refused(1, &["status"]).contains("the broker: "));
    std::fs::write(desk.dir.path().join("fleet.toml"), "").expect("written");
    assert!(desk.refused(64, &["status"]).contains("[mqtt]"));
}
