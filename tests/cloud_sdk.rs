//! A program written for the cloud works against a box when only its endpoint is changed: the
//! official Python SDK drives a real box, and raises its own exceptions where the box refuses.

mod support;

#[path = "cloud_sdk/callbacks.rs"]
mod callbacks;
#[path = "cloud_sdk/mixes.rs"]
mod mixes;
#[path = "callbacks/receiver.rs"]
mod receiver;
#[path = "cloud_sdk/recording.rs"]
mod recording;
#[path = "cloud_sdk/refusals.rs"]
mod refusals;
#[path = "cloud_sdk/signing.rs"]
mod signing;
#[path = "cloud_sdk/streams.rs"]
mod streams;
#[path = "cloud_sdk/tasks.rs"]
mod tasks;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use support::edge_box::{BoxPlan, EdgeBox};
use support::process::run_ok;
use support::push::{Pace, Pusher, push_file};
use support::sdk::Sdk;
use support::tool;
use support::wait::poll_for;

const SECRET_ID: &str = "AKIDEXAMPLE";
const SECRET_KEY: &str = "SECRETEXAMPLE";
/// The domain that encoders push to: the host of their URL.
const DOMAIN: &str = "127.0.0.1";
/// Everything that a test waits for happens within this time.
const SOON: Duration = Duration::from_secs(60);

/// A box that asks for signatures and has no rules yet, with the SDK pointed at it.
fn start() -> (EdgeBox, Sdk) {
    let no_rules = json!({"revision": 1, "templates": [], "rules": []});
    start_with(BoxPlan::default().rules(no_rules))
}

/// As [`start`], with a plan of one's own.
fn start_with(plan: BoxPlan) -> (EdgeBox, Sdk) {
    let keys = format!("secret_id = \"{SECRET_ID}\"\nsecret_key = \"{SECRET_KEY}\"\n");
    let edge = plan.api_setting(&keys).start();
    let sdk = Sdk::start(&edge, SECRET_ID, SECRET_KEY);
    (edge, sdk)
}

/// Makes a template, and a rule that binds it to a stream, or to all if the name is empty.
fn record(sdk: &mut Sdk, stream: &str, template: Value) -> Value {
    let number = sdk.live("CreateLiveRecordTemplate", template)["TemplateId"].clone();
    let rule = json!({"DomainName": DOMAIN, "AppName": "live", "StreamName": stream,
        "TemplateId": number});
    sdk.live("CreateLiveRecordRule", rule);
    number
}

/// The parameters that name a stream of the app `live`, which most actions have.
fn named(stream: &str) -> Value {
    json!({"DomainName": DOMAIN, "AppName": "live", "StreamName": stream})
}

/// [`named`] with more parameters.
fn named_with(stream: &str, more: &Value) -> Value {
    let mut parameters = named(stream);
    for (name, value) in more.as_object().expect("an object") {
        parameters[name] = value.clone();
    }
    parameters
}

/// Has ffmpeg push a file; `stream` may have a query.
fn push(edge: &EdgeBox, clip: &Path, stream: &str, pace: Pace) -> Pusher {
    push_file(clip, &edge.push_url(stream), pace, &edge.dir().join("push.log"))
}

/// Waits until a stream is in this state.
#[track_caller]
fn wait_state(sdk: &mut Sdk, stream: &str, wanted: &str) {
    let mut last = Value::Null;
    let reached = poll_for(SOON, || {
        last = sdk.live("DescribeLiveStreamState", named(stream))["StreamState"].clone();
        (last == wanted).then_some(())
    });
    assert!(reached.is_some(), "{stream} is {last}, not {wanted}");
}

/// Waits until so many finished files of a stream are found; they come as they began.
#[track_caller]
fn wait_files(sdk: &mut Sdk, stream: &str, count: usize) -> Vec<Value> {
    let asked = json!({"StreamIds": [stream], "Limit": 50,
        "Sort": {"Field": "CreateTime", "Order": "Asc"}});
    let mut found = Value::Null;
    let reached = poll_for(SOON, || {
        found = sdk.vod("SearchMedia", asked.clone());
        (found["TotalCount"] == count).then_some(())
    });
    assert!(reached.is_some(), "not {count} files of {stream}: {found:#}");
    found["MediaInfoSet"].as_array().expect("a list").clone()
}

/// Of these files those of one type.
fn of_type<'a>(files: &'a [Value], kind: &str) -> Vec<&'a Value> {
    files.iter().filter(|file| file["BasicInfo"]["Type"] == kind).collect()
}

/// Downloads an address as any program does, and tells the status.
fn download(url: &str, to: &Path) -> u16 {
    let program = "import sys, urllib.error, urllib.request\n\
                   try:\n    urllib.request.urlretrieve(sys.argv[1], sys.argv[2])\n\
                   except urllib.error.HTTPError as error:\n    print(error.code)\n\
                   else:\n    print(200)";
    let mut command = Command::new(tool("python3"));
    command.args(["-c", program, url]).arg(to).env("no_proxy", "*");
    let status = String::from_utf8(run_ok(&command)).expect("text");
    status.trim().parse().expect("a status")
}

fn media_url(file: &Value) -> &str {
    text(&file["BasicInfo"]["MediaUrl"])
}

fn downloaded(edge: &EdgeBox, file: &Value) -> PathBuf {
    let path = edge.dir().join(format!("{}.media", text(&file["FileId"])));
    assert_eq!(download(media_url(file), &path), 200, "{file:#}");
    path
}

/// The text of a member.
#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The seconds that a file lasts.
#[track_caller]
fn duration(file: &Value) -> f64 {
    file["MetaData"]["Duration"].as_f64().expect("a number")
}

/// Unix seconds, so far from now.
fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("small") + seconds
}
