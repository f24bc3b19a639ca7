//! Which streams are live, and who may push: lists, states, cuts, bans, push keys.

use edgerec::domain::contract_time::TimeForm;
use edgerec::domain::time::UnixMillis;
use serde_json::{Value, json};

use crate::support::media::Clip;
use crate::support::process::run_ok;
use crate::support::push::Pace;
use crate::support::tool;
use crate::{
    DOMAIN, SOON, from_now, named, named_with, push, record, start, wait_files, wait_state,
};

const CLIP: Clip =
    Clip { seconds: 60, fps: 25, gop: 25, b_frames: 0, video_kbps: 100, audio: true };
const SHORT: Clip = Clip { seconds: 3, ..CLIP };

/// A time as the actions of this family take it.
fn utc(unix_s: i64) -> String {
    TimeForm::Utc.show(UnixMillis(unix_s * 1_000))
}

#[test]
fn live_streams_are_listed_cut_and_may_come_back() {
    let (edge, mut sdk) = start();
    assert_eq!(sdk.live("DescribeLiveStreamOnlineList", json!({}))["TotalNum"], 0);
    wait_state(&mut sdk, "gate", "inactive");
    let began = from_now(0);
    let mut gate = push(&edge, &CLIP.flv(), "gate", Pace::Real);
    let mut hall = push(&edge, &CLIP.flv(), "hall", Pace::Real);
    wait_state(&mut sdk, "gate", "active");
    wait_state(&mut sdk, "hall", "active");
    let online = sdk.live("DescribeLiveStreamOnlineList", json!({"PageNum": 1, "PageSize": 10}));
    assert_eq!((&online["TotalNum"], &online["TotalPage"]), (&json!(2), &json!(1)));
    let only = sdk.live("DescribeLiveStreamOnlineList", named("hall"));
    let row = &only["OnlineInfo"][0];
    assert_eq!((&only["TotalNum"], &row["StreamName"]), (&json!(1), &json!("hall")));
    assert_eq!((&row["DomainName"], &row["AppName"]), (&json!(DOMAIN), &json!("live")));
    let since = row["PublishTimeList"][0]["PublishTime"].as_str().expect("a time");
    assert!(utc(began - 1).as_str() <= since && since <= utc(from_now(0)).as_str(), "{since}");

    sdk.live("DropLiveStream", named("gate"));
    assert!(!gate.end_within(SOON).success(), "the encoder sees that it was cut");
    wait_state(&mut sdk, "gate", "inactive");
    wait_state(&mut sdk, "hall", "active");
    sdk.live("DropLiveStream", named("gate"));
    push(&edge, &SHORT.flv(), "gate", Pace::Fast).finish_within(SOON);
    hall.process().kill();
    wait_state(&mut sdk, "hall", "inactive");

    let window = json!({"DomainName": DOMAIN, "AppName": "live", "StreamName": "gat",
        "StartTime": utc(began - 60), "EndTime": utc(from_now(60)), "PageSize": 10});
    let published = sdk.live("DescribeLiveStreamPublishedList", window);
    assert_eq!(published["TotalNum"], 2, "{published}");
    let ended = published["PublishInfo"].as_array().expect("a list");
    assert!(ended.iter().all(|push| push["StreamEndTime"] != "" && push["ClientIp"] == DOMAIN));
    let window = json!({"StreamName": "gate", "IsStrict": 1, "IsAsc": 1,
        "StartTime": utc(began - 60), "EndTime": utc(from_now(60))});
    let events = sdk.live("DescribeLiveStreamEventList", window);
    assert_eq!(events["EventList"][0]["StopReason"], "stream cut", "{events}");
}

#[test]
fn a_forbidden_stream_is_cut_and_refused_until_it_is_resumed() {
    let (edge, mut sdk) = start();
    record(&mut sdk, "", json!({"TemplateName": "all", "FlvParam": {"Enable": 1}}));
    let mut gate = push(&edge, &CLIP.flv(), "gate", Pace::Real);
    wait_state(&mut sdk, "gate", "active");
    let ban = json!({"ResumeTime": utc(from_now(600)), "Reason": "not today"});
    sdk.live("ForbidLiveStream", named_with("gate", &ban));
    assert!(!gate.end_within(SOON).success(), "the encoder sees that it was cut");
    wait_state(&mut sdk, "gate", "forbid");
    let files = edge.ls().len();
    let mut refused = push(&edge, &SHORT.flv(), "gate", Pace::Real);
    assert!(!refused.end_within(SOON).success(), "a forbidden push was taken");
    assert_eq!(edge.ls().len(), files, "a forbidden push was recorded");
    for resume in [from_now(-60), from_now(91 * 86_400)] {
        let ban = named_with("gate", &json!({"ResumeTime": utc(resume)}));
        assert_eq!(sdk.live_raises("ForbidLiveStream", ban).code, "InvalidParameterValue");
    }
    sdk.live("ResumeLiveStream", named("gate"));
    wait_state(&mut sdk, "gate", "inactive");
    push(&edge, &SHORT.flv(), "gate", Pace::Fast).finish_within(SOON);
    wait_files(&mut sdk, "gate", files + 1);
}

/// The secret of a push URL, made by Python.
fn tx_secret(key: &str, stream: &str, time: &str) -> String {
    let program = "import hashlib, sys; print(hashlib.md5(sys.argv[1].encode()).hexdigest())";
    let mut python = std::process::Command::new(tool("python3"));
    let output = run_ok(python.args(["-c", program, &format!("{key}{stream}{time}")]));
    String::from_utf8(output).expect("text").trim().to_owned()
}

#[test]
fn a_push_key_of_the_api_is_asked_for() {
    let (edge, mut sdk) = start();
    let keys = |sdk: &mut crate::support::sdk::Sdk| -> Value {
        sdk.live("DescribeLivePushAuthKey", json!({"DomainName": DOMAIN}))["PushAuthKeyInfo"].take()
    };
    assert_eq!(keys(&mut sdk)["Enable"], 0);
    let key = json!({"DomainName": DOMAIN, "Enable": 1, "MasterAuthKey": "masterKey01",
        "BackupAuthKey": "backupKey01", "AuthDelta": 60});
    sdk.live("ModifyLivePushAuthKey", key);
    let told = keys(&mut sdk);
    assert_eq!(
        (&told["Enable"], &told["MasterAuthKey"], &told["AuthDelta"]),
        (&json!(1), &json!("masterKey01"), &json!(60))
    );
    let time = format!("{:X}", from_now(3_600));
    let wrong = format!("cam?txSecret={}&txTime={time}", tx_secret("masterKey02", "cam", &time));
    for refused in ["cam", &wrong] {
        let mut pusher = push(&edge, &SHORT.flv(), refused, Pace::Real);
        assert!(!pusher.end_within(SOON).success(), "let in: {refused}");
    }
    for key in ["masterKey01", "backupKey01"] {
        let right = format!("cam?txSecret={}&txTime={time}", tx_secret(key, "cam", &time));
        push(&edge, &SHORT.flv(), &right, Pace::Fast).finish_within(SOON);
    }
    sdk.live("ModifyLivePushAuthKey", json!({"DomainName": DOMAIN, "Enable": 0}));
    push(&edge, &SHORT.flv(), "cam", Pace::Fast).finish_within(SOON);
}
