//! A box of a fleet on a real broker: rule sets come in and are told about, poison changes nothing,
//! rules outlive the box and the broker, and the fleet knows who is there.

mod support;

#[path = "fleet/commands.rs"]
mod commands;
#[path = "fleet/contract.rs"]
mod contract;
#[path = "fleet/events.rs"]
mod events;
#[path = "fleet/hostile.rs"]
mod hostile;
#[path = "fleet/link.rs"]
mod link;
#[path = "fleet/network.rs"]
mod network;
#[path = "fleet/orders.rs"]
mod orders;
#[path = "fleet/rules.rs"]
mod rules;
#[path = "fleet/signed.rs"]
mod signed;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use support::broker::Broker;
use support::edge_box::{BoxPlan, EdgeBox};
use support::operator::Operator;

const TO_ALL: &str = "edgerec/v1/venue/config";
const TO_BOX: &str = "edgerec/v1/venue/box/box-01/config";
const COMMAND: &str = "edgerec/v1/venue/box/box-01/command";
const STATE: &str = "edgerec/v1/venue/box/box-01/state";
const ONLINE: &str = "edgerec/v1/venue/box/box-01/online";
const CLIENT: &str = "edgerec-venue-box-01";

/// A good document must be in force within this time.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(20);
/// A box that lost its broker may take 100 s, and more if its first attempt fails.
const BACK_WITHIN: Duration = Duration::from_secs(240);

/// The lines of `[mqtt]` for a broker.
fn mqtt(broker: &Broker) -> String {
    mqtt_at(broker.addr())
}

/// The lines of `[mqtt]` for a broker at an address.
fn mqtt_at(addr: SocketAddr) -> String {
    format!("url = \"mqtt://{addr}\"\nfleet = \"venue\"\n")
}

/// A rule set that records all of the app `live` under a template of this name.
fn document(revision: u64, template: &str) -> Value {
    json!({"revision": revision,
        "templates": [{"TemplateName": template, "FlvParam": {"Enable": 1}}],
        "rules": [{"DomainName": "", "StreamName": "", "TemplateName": template}]})
}

/// The template that would decide about the stream `cam`, and the layer and revision of its rule.
fn decided(edge: &EdgeBox) -> (String, String, u64) {
    decided_of(edge, "cam")
}

fn decided_of(edge: &EdgeBox, stream: &str) -> (String, String, u64) {
    let row = edge.cli_ok(&["explain", &edge.stream_key(stream), "--json"]);
    let row: Value = serde_json::from_str(row.trim()).expect("a row of explain is JSON");
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    (text("template"), text("layer"), row["revision"].as_u64().unwrap_or(0))
}

/// Waits until the box tells that a revision of a layer is in force.
fn hear_applied(operator: &Operator, within: Duration, layer: &str, revision: u64) -> Value {
    let what = format!("revision {revision} of {layer} is in force");
    operator.hear(within, STATE, &what, |state| state["rules"][layer]["applied"] == revision)
}

/// A box and an operator on one broker, with revision 10 of the fleet in force.
fn fleet_of_one(broker: &Broker, more: &str) -> (Operator, EdgeBox) {
    let mut operator = Operator::connect(broker.addr());
    operator.send(TO_ALL, document(10, "ten").to_string());
    let edge = BoxPlan::default().mqtt(&format!("{}{more}", mqtt(broker))).start();
    hear_applied(&operator, SOON, "fleet", 10);
    (operator, edge)
}
