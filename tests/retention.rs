//! How long the ring keeps a stream is told while it is recorded: by `explain`, in the metrics and in
//! the state that the fleet reads.

mod support;

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use support::broker::Broker;
use support::edge_box::{BoxPlan, EdgeBox};
use support::http::metric;
use support::media::Clip;
use support::operator::Operator;
use support::push::{Pace, push_file};
use support::wait::wait_for;

const TO_ALL: &str = "edgerec/v1/venue/config";
const STATE: &str = "edgerec/v1/venue/box/box-01/state";
const SOON: Duration = Duration::from_secs(60);
const SLOT_BYTES: u64 = 1 << 20;
const CLIP: Clip =
    Clip { seconds: 20, fps: 25, gop: 25, b_frames: 0, video_kbps: 1_000, audio: true };

fn explained(edge: &EdgeBox) -> Value {
    let row = edge.cli_ok(&["explain", &edge.stream_key("cam"), "--json"]);
    serde_json::from_str(row.trim()).expect("a row of explain is JSON")
}

#[test]
fn a_stream_is_told_how_long_it_is_kept_at_its_rate() {
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let rules = json!({"revision": 1,
        "templates": [{"TemplateName": "t", "FlvParam": {"Enable": 1}}],
        "rules": [{"DomainName": "", "StreamName": "", "TemplateName": "t"}]});
    operator.send(TO_ALL, rules.to_string());
    let mqtt = format!("url = \"mqtt://{}\"\nfleet = \"venue\"\n", broker.addr());
    let plan = BoxPlan::default().mqtt(&mqtt).ring_setting("slot", "\"1MiB\"");
    let edge = plan.ring_setting("capacity", "\"40MiB\"").start();
    let log = edge.dir().join("push.log");
    let _pusher = push_file(&CLIP.flv(), &edge.push_url("cam"), Pace::Real, &log);

    let known = || Some(explained(&edge)).filter(|row| row["bytes_per_s"].is_u64());
    let row = wait_for(SOON, "the rate is known", known);
    let rate = row["bytes_per_s"].as_u64().expect("known");
    let sent = fs::metadata(CLIP.flv()).expect("there").len() / u64::from(CLIP.seconds);
    let near = |value: u64, of: u64| value * 4 > of * 3 && value * 4 < of * 5;
    assert!(near(rate, sent), "{rate} bytes a second are told, {sent} were sent");
    // 40 MiB less the catalog's part and the slots that are open or promised.
    let kept = row["keeps_s"].as_u64().expect("known") * rate / SLOT_BYTES;
    assert!((26..=32).contains(&kept), "{kept} slots: {row}");
    let gauges = ["edgerec_written_bytes_per_second", "edgerec_ring_keeps_seconds"];
    let [gauge, keeps] = gauges.map(|name| metric::<f64>(&edge, name).expect("a gauge") as u64);
    assert!(near(gauge, sent) && near(keeps, row["keeps_s"].as_u64().expect("known")));
    assert_eq!(
        metric::<f64>(&edge, "edgerec_ring_safe_offline_seconds"),
        None,
        "nothing is delivered"
    );
    // The state is told anew with anything that happens to a stream.
    let log = edge.dir().join("other.log");
    let _other = push_file(&CLIP.flv(), &edge.push_url("other"), Pace::Real, &log);
    let told = |state: &Value| state["streams"][1].is_object();
    let state = operator.hear(SOON, STATE, "the stream is told", told);
    let cam = &state["streams"][0];
    assert!(cam["bytes_per_s"].is_u64() && cam["keeps_s"].is_u64(), "{state:#}");
    assert_eq!(state["ring"]["safe_offline_s"], Value::Null);
}
