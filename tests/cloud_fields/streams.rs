//! Streams that are live, who may push, and the pushes that were: with encoders that really push.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::cloud_api::unix_now;
use crate::support::media::Clip;
use crate::support::publisher::Publisher;
use crate::support::push::{Pace, push_file};
use crate::support::wait::{wait_for, wait_until};
use crate::walk::Proof::{Acts, Elsewhere, Refused};
use crate::walk::{Bench, Entry, Family, entries};

pub const FAMILY: Family = Family {
    actions: &[ONLINE, STATE, DROP, FORBID, RESUME, PUBLISHED, EVENTS],
    base,
    show: |_, action, _, _| panic!("{action} shows nothing"),
    acts: &[
        ("what_is_live_is_listed_by_its_names", what_is_live_is_listed_by_its_names),
        ("exactly_the_named_stream_is_cut", exactly_the_named_stream_is_cut),
        ("a_ban_is_for_a_name_until_its_time", a_ban_is_for_a_name_until_its_time),
        ("pushes_are_listed_by_name_time_and_page", pushes_are_listed_by_name_time_and_page),
        ("a_push_is_listed_with_its_picture", a_push_is_listed_with_its_picture),
    ],
    table,
};
const ONLINE: &str = "DescribeLiveStreamOnlineList";
const STATE: &str = "DescribeLiveStreamState";
const DROP: &str = "DropLiveStream";
const FORBID: &str = "ForbidLiveStream";
const RESUME: &str = "ResumeLiveStream";
const PUBLISHED: &str = "DescribeLiveStreamPublishedList";
const EVENTS: &str = "DescribeLiveStreamEventList";
const KEY: [&str; 3] = ["DomainName", "AppName", "StreamName"];
const BAD_VALUE: &str = "InvalidParameterValue";
const SOON: Duration = Duration::from_secs(20);
const DAY_S: i64 = 86_400;
const CLIP: Clip = Clip { seconds: 3, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };

fn base(bench: &Bench, action: &str) -> Value {
    match action {
        ONLINE => json!({}),
        PUBLISHED => within(json!({"DomainName": "cams"})),
        EVENTS => within(json!({})),
        _ => json!({"DomainName": "cams", "AppName": "live", "StreamName": bench.name()}),
    }
}

/// A list of the last and the next hour.
fn within(mut filter: Value) -> Value {
    filter["StartTime"] = json!(utc(unix_now() - 3_600));
    filter["EndTime"] = json!(utc(unix_now() + 3_600));
    filter
}

fn utc(unix_s: i64) -> String {
    let time = Timestamp::from_second(unix_s).expect("in range");
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn table() -> Vec<Entry> {
    let mut table = Vec::new();
    let long = || Refused(json!("x".repeat(300)), BAD_VALUE);
    for action in [ONLINE, STATE, DROP, FORBID, RESUME, PUBLISHED, EVENTS] {
        table.extend(entries(action, &KEY, long));
    }
    let all = ["DomainName", "AppName", "StreamName", "PageNum", "PageSize"];
    table.extend(entries(ONLINE, &all, || Acts("what_is_live_is_listed_by_its_names")));
    table.extend(entries(STATE, &KEY, || Acts("exactly_the_named_stream_is_cut")));
    table.extend(entries(DROP, &KEY, || Acts("exactly_the_named_stream_is_cut")));
    let ban = || Acts("a_ban_is_for_a_name_until_its_time");
    table.extend(entries(FORBID, &KEY, ban));
    table.extend(entries(FORBID, &["ResumeTime", "Reason"], ban));
    table.extend(entries(RESUME, &KEY, ban));
    let banned = "a_banned_stream_is_refused_after_a_look_at_its_keys";
    table.extend(entries(FORBID, &KEY, || Elsewhere("src/app/publish_check.rs", banned)));
    for wrong in [utc(unix_now() - 60), utc(unix_now() + 91 * DAY_S), "soon".to_owned()] {
        table.extend(entries(FORBID, &["ResumeTime"], || Refused(json!(wrong), BAD_VALUE)));
    }
    let reason = || Refused(json!("x".repeat(2_049)), BAD_VALUE);
    table.extend(entries(FORBID, &["Reason"], reason));

    let listed = || Acts("pushes_are_listed_by_name_time_and_page");
    for action in [PUBLISHED, EVENTS] {
        table.extend(entries(action, &all, listed));
        table.extend(entries(action, &["StartTime", "EndTime"], listed));
        let wrong = || Refused(json!("2018-13-01T00:00:00Z"), BAD_VALUE);
        table.extend(entries(action, &["StartTime", "EndTime"], wrong));
        for off in [-40 * DAY_S, -63 * DAY_S, 7_200] {
            let start = || Refused(json!(utc(unix_now() + off)), BAD_VALUE);
            table.extend(entries(action, &["StartTime"], start));
        }
    }
    table.extend(entries(EVENTS, &["IsFilter", "IsStrict", "IsAsc"], listed));
    table.extend(entries(PUBLISHED, &KEY, || Acts("a_push_is_listed_with_its_picture")));
    let flag = || Refused(json!(2), BAD_VALUE);
    table.extend(entries(EVENTS, &["IsFilter", "IsStrict", "IsAsc"], flag));
    for (action, range) in [
        (ONLINE, "/online_list_page_size"),
        (PUBLISHED, "/published_list_page_size"),
        (EVENTS, "/event_list_page_size"),
    ] {
        let text = include_str!("../data/contracts/live_limits.json");
        let limits: Value = serde_json::from_str(text).expect("JSON");
        let range = limits.pointer(range).expect("a range");
        let end = |index: usize| range[index].as_i64().expect("a number");
        for outside in [end(0) - 1, end(1) + 1] {
            table.extend(entries(action, &["PageSize"], || Refused(json!(outside), BAD_VALUE)));
        }
        table.extend(entries(action, &["PageNum"], || Refused(json!(0), BAD_VALUE)));
    }
    table
}

fn key(domain: &str, app: &str, stream: &str) -> Value {
    json!({"DomainName": domain, "AppName": app, "StreamName": stream})
}

fn push(bench: &Bench, domain: &str, app: &str, stream: &str) -> Publisher {
    let name = format!("{stream}?vhost={domain}");
    Publisher::publish_to(bench.edge.rtmp(), app, &name).expect("taken")
}

fn state(bench: &Bench, key: &Value) -> String {
    bench.ok(STATE, key)["StreamState"].as_str().expect("a word").to_owned()
}

#[track_caller]
fn wait_state(bench: &Bench, key: &Value, wanted: &str) {
    wait_until(SOON, &format!("{key} is {wanted}"), || state(bench, key) == wanted);
}

/// `domain/app/stream` of the rows of a list.
fn names(answer: &Value, list: &str) -> Vec<String> {
    let rows = answer[list].as_array().expect("a list").iter();
    let part = |row: &Value, name: &str| row[name].as_str().expect("text").to_owned();
    rows.map(|row| KEY.map(|name| part(row, name)).join("/")).collect()
}

fn what_is_live_is_listed_by_its_names(bench: &Bench) {
    let (domain, other) = (bench.name(), bench.name());
    let mut live: Vec<Publisher> =
        (10..21).map(|number| push(bench, &domain, "live", &format!("cam{number}"))).collect();
    live.push(push(bench, &domain, "vod", "hall"));
    live.push(push(bench, &other, "live", "hall"));
    let list = |filter: Value| {
        let answer = bench.ok(ONLINE, &filter);
        (names(&answer, "OnlineInfo"), answer)
    };
    wait_until(SOON, "all are live", || list(json!({})).1["TotalNum"] == 13);
    let here = json!({"DomainName": domain.to_uppercase(), "PageSize": 300_000});
    assert_eq!(list(here).0.len(), 12);
    let (vod, elsewhere) = (format!("{domain}/vod/hall"), format!("{other}/live/hall"));
    assert_eq!(list(json!({"AppName": "vod"})).0, std::slice::from_ref(&vod));
    let mut halls = vec![vod.clone(), elsewhere];
    halls.sort();
    assert_eq!(list(json!({"StreamName": "hall"})).0, halls);
    assert_eq!(list(json!({"StreamName": "hal"})).0.len(), 0, "exactly the name");
    let (first, answer) = list(json!({"DomainName": domain}));
    assert_eq!((first.len(), &answer["TotalPage"], &answer["PageNum"]), (10, &json!(2), &json!(1)));
    let (second, answer) = list(json!({"DomainName": domain, "PageNum": 2, "PageSize": 10}));
    assert_eq!((second.len(), &second[1], &answer["TotalNum"]), (2, &vod, &json!(12)));
    let began = answer["OnlineInfo"][0]["PublishTimeList"][0]["PublishTime"].as_str();
    let began: Timestamp = began.expect("text").parse().expect("a time");
    assert!((began.as_second() - unix_now()).abs() < 60);
    live.into_iter().for_each(Publisher::finish);
    wait_until(SOON, "all have ended", || list(json!({})).1["TotalNum"] == 0);
}

fn exactly_the_named_stream_is_cut(bench: &Bench) {
    let (domain, stream) = (bench.name(), bench.name());
    let whole = key(&domain, "live", &stream);
    bench.ok(DROP, &whole);
    assert_eq!(state(bench, &whole), "inactive");
    let pushed = push(bench, &domain, "live", &stream);
    wait_state(bench, &whole, "active");
    for other in
        [key("other", "live", &stream), key(&domain, "vod", &stream), key(&domain, "live", "other")]
    {
        assert_eq!(state(bench, &other), "inactive");
        bench.ok(DROP, &other);
        assert_eq!(state(bench, &whole), "active", "{other} is another one");
    }
    bench.ok(DROP, &whole);
    wait_state(bench, &whole, "inactive");
    let of_it = within(json!({"DomainName": domain}));
    let row = wait_for(SOON, "its end is listed", || {
        let row = bench.ok(EVENTS, &of_it)["EventList"][0].clone();
        (row["StreamEndTime"] != "").then_some(row)
    });
    assert_eq!((&row["StopReason"], &row["ClientIp"]), (&json!("stream cut"), &json!("127.0.0.1")));
    let again = push(bench, &domain, "live", &stream);
    wait_state(bench, &whole, "active");
    drop((pushed, again));
}

fn a_ban_is_for_a_name_until_its_time(bench: &Bench) {
    let (domain, stream) = (bench.name(), bench.name());
    let whole = key(&domain, "live", &stream);
    let pushed = push(bench, &domain, "live", &stream);
    wait_state(bench, &whole, "active");
    let mut ban = whole.clone();
    ban["Reason"] = json!("night-shift-only");
    bench.ok(FORBID, &ban);
    let online =
        |bench: &Bench| bench.ok(ONLINE, &json!({"StreamName": stream}))["TotalNum"].clone();
    wait_until(SOON, "it is cut", || online(bench) == 0);
    assert!(bench.edge.log().contains("night-shift-only"), "the reason is in the log");
    // By the name alone, as the cloud has it.
    let namesake = key("other", "vod", &stream);
    assert_eq!((state(bench, &whole), state(bench, &namesake)), ("forbid".into(), "forbid".into()));
    let refused = || Publisher::publish(bench.edge.rtmp(), &stream).err();
    assert!(refused().is_some_and(|told| told.contains("18/305")), "{:?}", refused());
    bench.ok(RESUME, &key(&domain, "live", "other"));
    assert_eq!(state(bench, &whole), "forbid");
    bench.ok(RESUME, &namesake);
    assert_eq!(state(bench, &whole), "inactive");
    Publisher::publish(bench.edge.rtmp(), &stream).expect("taken again").finish();

    let (short, end_s) = (bench.name(), unix_now() + 3);
    let mut ban = key(&domain, "live", &short);
    ban["ResumeTime"] = json!(utc(end_s));
    bench.ok(FORBID, &ban);
    let short = key(&domain, "live", &short);
    let ended_s = wait_for(SOON, "it is over by itself", || {
        let before_s = unix_now();
        (state(bench, &short) == "inactive").then_some(before_s)
    });
    assert!(ended_s >= end_s - 1, "over {} s early", end_s - ended_s);
    drop(pushed);
}

fn pushes_are_listed_by_name_time_and_page(bench: &Bench) {
    let domain = bench.name();
    for number in 10..21 {
        push(bench, &domain, "live", &format!("cam{number}")).finish();
        let all = within(json!({"DomainName": domain, "PageSize": 100}));
        wait_for(SOON, "it is listed as ended", || {
            let rows = bench.ok(EVENTS, &all)["EventList"].clone();
            let ended = |row: &Value| row["StreamEndTime"] != "" && row["StopReason"] != "";
            let rows = rows.as_array().expect("a list");
            (rows.len() == number - 9 && rows.iter().all(ended)).then_some(())
        });
    }
    let live = push(bench, &domain, "vod", "hall");
    let rows = |action: &str, filter: Value| {
        let mut asked = within(json!({"DomainName": domain}));
        let filter = filter.as_object().expect("an object").clone();
        asked.as_object_mut().expect("an object").extend(filter);
        let answer = bench.ok(action, &asked);
        let list = if action == EVENTS { "EventList" } else { "PublishInfo" };
        let short = |name: String| name.replace(&format!("{domain}/"), "");
        (names(&answer, list).into_iter().map(short).collect::<Vec<_>>(), answer)
    };
    for action in [PUBLISHED, EVENTS] {
        let most = json!({"PageSize": 100});
        wait_until(SOON, "all are listed", || rows(action, most.clone()).0.len() == 12);
        assert_eq!(rows(action, json!({"AppName": "vod"})).0, ["vod/hall"]);
        assert_eq!(rows(action, json!({"StreamName": "m1"})).0.len(), 10, "a part of the name");
        let (second, answer) = rows(action, json!({"PageNum": 2, "PageSize": 10}));
        assert_eq!((second.len(), &answer["TotalNum"]), (2, &json!(12)));
        let mut all = [rows(action, json!({"PageNum": 1})).0, second].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 12, "each on one page");
        let before = json!({"EndTime": utc(unix_now() - 600)});
        assert_eq!(rows(action, before).0.len(), 0, "they came later");
        let after = json!({"StartTime": utc(unix_now() + 600)});
        assert_eq!(rows(action, after).0, ["vod/hall"], "only what is live may be then");
        assert_eq!(rows(action, json!({"DomainName": "cams"})).0.len(), 0);
    }
    let strict = |name: &str| rows(EVENTS, json!({"StreamName": name, "IsStrict": 1})).0;
    assert_eq!((strict("m1").len(), strict("cam11")), (0, vec!["live/cam11".to_owned()]));
    let order = |ascending: u8| rows(EVENTS, json!({"PageSize": 100, "IsAsc": ascending})).0;
    let mut turned = order(0);
    turned.reverse();
    assert_eq!(order(1), turned);
    // Pushes that were refused are not kept, so there is nothing that it could leave out.
    let filtered = |filter: u8| rows(EVENTS, json!({"PageSize": 100, "IsFilter": filter})).0;
    assert_eq!(filtered(1), filtered(0));
    live.finish();
}

/// What a real encoder pushed, as it is told afterwards.
fn a_push_is_listed_with_its_picture(bench: &Bench) {
    let (domain, stream) = (bench.name(), bench.name());
    let url = format!("{}?vhost={domain}", bench.edge.push_url(&stream));
    let log = bench.edge.dir().join("push.log");
    let began_s = unix_now();
    push_file(&CLIP.flv(), &url, Pace::Real, &log).finish_within(SOON);
    let of_it = within(key(&domain, "live", &stream));
    let row = wait_for(SOON, "it is listed as ended", || {
        let row = bench.ok(PUBLISHED, &of_it)["PublishInfo"][0].clone();
        (row["StreamEndTime"].as_str().is_some_and(|end| !end.is_empty())).then_some(row)
    });
    let second = |name: &str| -> i64 {
        let time: Timestamp = row[name].as_str().expect("text").parse().expect("a time");
        time.as_second()
    };
    let (start_s, end_s) = (second("StreamStartTime"), second("StreamEndTime"));
    assert!(began_s <= start_s && end_s <= unix_now(), "{row}");
    let lasted_s = row["Duration"].as_i64().expect("a number");
    let clip_s = i64::from(CLIP.seconds);
    assert!(lasted_s >= clip_s - 1 && (end_s - start_s - lasted_s).abs() <= 1, "{row}");
    assert_eq!((&row["Resolution"], &row["ClientIp"]), (&json!("640x360"), &json!("127.0.0.1")));
    assert_ne!(row["StopReason"], "", "{row}");
}
