//! A program written for the cloud works against a box when only its endpoint is changed: the
//! official Python SDK drives a real box, and raises its own exceptions where the box refuses.

mod support;

#[path = "cloud_sdk/signing.rs"]
mod signing;

use support::edge_box::{BoxPlan, EdgeBox};
use support::sdk::Sdk;

const SECRET_ID: &str = "AKIDEXAMPLE";
const SECRET_KEY: &str = "SECRETEXAMPLE";

/// A box that asks for signatures and has no rules yet, with the SDK pointed at it.
fn start() -> (EdgeBox, Sdk) {
    start_with(BoxPlan::default())
}

/// As [`start`], with more of a plan.
fn start_with(plan: BoxPlan) -> (EdgeBox, Sdk) {
    let keys = format!("secret_id = \"{SECRET_ID}\"\nsecret_key = \"{SECRET_KEY}\"\n");
    let no_rules = serde_json::json!({"revision": 1, "templates": [], "rules": []});
    let edge = plan.api_setting(&keys).rules(no_rules).start();
    let sdk = Sdk::start(&edge, SECRET_ID, SECRET_KEY);
    (edge, sdk)
}
