//! Tasks of both families. The older one has no action that shows its tasks, so what the box has
//! stored of them is looked at; what tasks record is shown in `tests/tasks.rs`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde_json::{Value, json};

use crate::support::cloud_api::unix_now;
use crate::support::publisher::Publisher;
use crate::support::wait::wait_until;
use crate::walk::Proof::{Acts, Elsewhere, Refused, Shown};
use crate::walk::{Bench, Entry, Family, Proof, entries};

pub const FAMILY: Family = Family {
    actions: &[CREATE_LIVE, STOP_LIVE, DELETE_LIVE, CREATE, STOP, DELETE, DESCRIBE],
    base,
    show,
    acts: &[
        ("a_timed_task_has_both_times", a_timed_task_has_both_times),
        ("stream_param_is_a_query_of_its_own", stream_param_is_a_query_of_its_own),
        ("a_highlight_is_of_a_live_stream", a_highlight_is_of_a_live_stream),
        ("older_tasks_go_by_number_and_stream", older_tasks_go_by_number_and_stream),
        ("a_task_has_the_formats_of_its_template", a_task_has_the_formats_of_its_template),
        (
            "tasks_are_stopped_and_deleted_by_their_text",
            tasks_are_stopped_and_deleted_by_their_text,
        ),
        ("tasks_are_listed_by_time_stream_and_page", tasks_are_listed_by_time_stream_and_page),
    ],
    table,
};
const CREATE_LIVE: &str = "CreateLiveRecord";
const STOP_LIVE: &str = "StopLiveRecord";
const DELETE_LIVE: &str = "DeleteLiveRecord";
const CREATE: &str = "CreateRecordTask";
const STOP: &str = "StopRecordTask";
const DELETE: &str = "DeleteRecordTask";
const DESCRIBE: &str = "DescribeRecordTask";
const SOON: Duration = Duration::from_secs(20);
const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
/// The test of what a task records that wants only mixed streams.
const ONLY_MIXED: &str = "a_mix_with_a_name_of_its_own_is_recorded_beside_its_inputs";
/// Tasks on one page.
const PAGE: usize = 100;

fn base(bench: &Bench, action: &str) -> Value {
    match action {
        CREATE_LIVE => timed(&bench.name()),
        STOP_LIVE | DELETE_LIVE => {
            let stream = bench.name();
            let number = bench.ok(CREATE_LIVE, &timed(&stream))["TaskId"].clone();
            json!({"StreamName": stream, "TaskId": number})
        }
        CREATE => current(&bench.name()),
        STOP | DELETE => {
            json!({"TaskId": bench.ok(CREATE, &current(&bench.name()))["TaskId"]})
        }
        _ => window(),
    }
}

fn timed(stream: &str) -> Value {
    json!({"StreamName": stream, "StartTime": "2030-01-01 10:00:00",
           "EndTime": "2030-01-01 11:00:00"})
}

fn current(stream: &str) -> Value {
    json!({"StreamName": stream, "DomainName": "cams", "AppName": "live",
           "EndTime": unix_now() + HOUR_S})
}

/// What a list looks at.
fn window() -> Value {
    json!({"StartTime": unix_now() - DAY_S, "EndTime": unix_now() + 5 * DAY_S})
}

/// The task that was made, in the form of the request.
fn show(bench: &Bench, action: &str, _: &Value, response: &Value) -> Value {
    let stored = stored(bench, &response["TaskId"]);
    if action == CREATE {
        let listed = listed(bench, &response["TaskId"]).expect("it is listed");
        let mut shown = listed;
        shown["StreamType"] = json!(u8::from(stored["mixed"] == true));
        return shown;
    }
    let formats = ["flv", "hls", "mp4", "aac"];
    let formats: Vec<&str> =
        formats.into_iter().filter(|format| !stored["template"][format].is_null()).collect();
    json!({
        "StreamName": stored["stream"],
        "AppName": stored["app"],
        "DomainName": stored["domain"],
        "StartTime": in_beijing(&stored["start_ms"]),
        "EndTime": in_beijing(&stored["end_ms"]),
        "RecordType": if stored["audio_only"] == true { "audio" } else { "video" },
        "FileFormat": formats.join(" "),
        "Highlight": u8::from(stored["highlight"] == true),
        "MixStream": u8::from(stored["mixed"] == true),
    })
}

/// A task by its number or text.
#[track_caller]
fn stored(bench: &Bench, id: &Value) -> Value {
    let task = bench.stored("task", |task| task["id"] == *id || task["name"] == *id);
    task.unwrap_or_else(|| panic!("no task {id} is stored"))
}

fn listed(bench: &Bench, text: &Value) -> Option<Value> {
    let mut asked = window();
    asked["StreamName"] = stored(bench, text)["stream"].clone();
    let list = bench.ok(DESCRIBE, &asked)["TaskList"].clone();
    list.as_array().expect("a list").iter().find(|task| task["TaskId"] == *text).cloned()
}

fn in_beijing(unix_ms: &Value) -> String {
    let time = Timestamp::from_millisecond(unix_ms.as_i64().expect("a time")).expect("in range");
    Offset::constant(8).to_datetime(time).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn table() -> Vec<Entry> {
    let mut table = older();
    let now = unix_now();
    let mut line = |field: &str, proof: Proof| {
        table.push(Entry { action: CREATE, field: field.to_owned(), proof });
    };
    line("StreamName", Shown(json!("门 1"), json!("门 1")));
    line("StreamName", Refused(json!(""), "InvalidParameter"));
    line("DomainName", Shown(json!("Push.Example"), json!("push.example")));
    line("AppName", Shown(json!("vod"), json!("vod")));
    line("AppName", Refused(json!(""), "InvalidParameter"));
    line("StartTime", Shown(json!(now + 60), json!(now + 60)));
    line("StartTime", Refused(json!(now + 2 * HOUR_S), "InvalidParameter"));
    line("StartTime", Refused(json!(now - DAY_S), "InvalidParameter"));
    line("EndTime", Shown(json!(now + 7_777), json!(now + 7_777)));
    line("EndTime", Refused(json!(now - 5), "InvalidParameter"));
    line("EndTime", Refused(json!(now + DAY_S + 60), "InvalidParameter"));
    line("StreamType", Shown(json!(1), json!(1)));
    line("StreamType", Shown(json!(0), json!(0)));
    line("StreamType", Refused(json!(2), "InvalidParameter"));
    line("StreamType", Elsewhere("tests/mid_session.rs", ONLY_MIXED));
    line("TemplateId", Acts("a_task_has_the_formats_of_its_template"));
    // Unknown is not wrong: it is HLS then.
    line("TemplateId", Shown(json!(404), json!(0)));
    // Undefined in the contract and empty in its samples; only too much is refused.
    line("Extension", Refused(json!("x".repeat(1_025)), "InvalidParameter"));
    for test in [
        "a_task_that_begins_in_the_past_joins_what_comes",
        "a_window_that_is_past_is_served_from_the_ring_once",
        "a_task_runs_on_through_a_restart_and_over_drops",
    ] {
        let recorded = || Elsewhere("tests/tasks.rs", test);
        table.extend(entries(CREATE, &["StartTime", "EndTime"], recorded));
    }
    let stopped = "overlapping_tasks_have_each_their_own_and_a_stopped_one_ends_there";
    table.extend(entries(STOP, &["TaskId"], || Elsewhere("tests/tasks.rs", stopped)));
    for action in [STOP, DELETE] {
        let by_text = || Acts("tasks_are_stopped_and_deleted_by_their_text");
        table.extend(entries(action, &["TaskId"], by_text));
        table.extend(entries(action, &["TaskId"], || Refused(json!("404"), "InvalidParameter")));
    }
    let fields = ["StartTime", "EndTime", "StreamName", "DomainName", "AppName", "ScrollToken"];
    let listed = || Acts("tasks_are_listed_by_time_stream_and_page");
    table.extend(entries(DESCRIBE, &fields, listed));
    let token = || Refused(json!("x"), "InvalidParameter");
    table.extend(entries(DESCRIBE, &["ScrollToken"], token));
    let long_ago = || Refused(json!(unix_now() - 91 * DAY_S), "InvalidParameter");
    table.extend(entries(DESCRIBE, &["StartTime"], long_ago));
    let too_long = || Refused(json!(unix_now() + 7 * DAY_S), "InvalidParameter");
    table.extend(entries(DESCRIBE, &["EndTime"], too_long));
    table
}

/// CreateLiveRecord and what belongs to it.
fn older() -> Vec<Entry> {
    let mut table = Vec::new();
    let mut line = |field: &str, proof: Proof| {
        table.push(Entry { action: CREATE_LIVE, field: field.to_owned(), proof });
    };
    let bad = || "InvalidParameterValue";
    line("StreamName", Shown(json!("门 1"), json!("门 1")));
    line("StreamName", Refused(json!(""), bad()));
    line("AppName", Shown(json!("vod"), json!("vod")));
    line("AppName", Shown(Value::Null, json!("live")));
    line("DomainName", Shown(json!("Push.Example"), json!("push.example")));
    line("StartTime", Shown(json!("2029-12-31 23:00:00"), json!("2029-12-31 23:00:00")));
    line("StartTime", Shown(json!("2029-12-31+23%3a00%3a01"), json!("2029-12-31 23:00:01")));
    line("StartTime", Refused(json!("2030-01-01 12:00:00"), bad()));
    line("StartTime", Refused(json!("2030-01-01T02:00:00Z"), bad()));
    line("EndTime", Shown(json!("2030-01-01 10:30:00"), json!("2030-01-01 10:30:00")));
    line("EndTime", Refused(json!("soon"), bad()));
    for field in ["StartTime", "EndTime"] {
        line(field, Acts("a_timed_task_has_both_times"));
    }
    line("RecordType", Shown(json!("AUDIO"), json!("audio")));
    line("RecordType", Shown(json!("video"), json!("video")));
    line("RecordType", Refused(json!("text"), bad()));
    let sound = "a_task_for_sound_gives_files_without_a_picture";
    line("RecordType", Elsewhere("tests/live_and_sound.rs", sound));
    line("FileFormat", Shown(Value::Null, json!("flv")));
    for format in ["flv", "hls", "mp4", "aac"] {
        line("FileFormat", Shown(json!(format), json!(format)));
        line("FileFormat", Shown(json!(format.to_uppercase()), json!(format)));
    }
    line("FileFormat", Refused(json!("mp3"), "UnsupportedOperation"));
    line("FileFormat", Refused(json!("avi"), bad()));
    line("Highlight", Acts("a_highlight_is_of_a_live_stream"));
    line("Highlight", Refused(json!(1), "ResourceUnavailable.StreamNotExist"));
    line("Highlight", Refused(json!(2), bad()));
    let highlight = "a_highlight_begins_at_the_last_key_frame_or_earlier_if_asked";
    line("Highlight", Elsewhere("tests/tasks.rs", highlight));
    line("MixStream", Shown(json!(1), json!(1)));
    line("MixStream", Refused(json!(2), bad()));
    line("MixStream", Elsewhere("tests/mid_session.rs", ONLY_MIXED));
    line("StreamParam", Acts("stream_param_is_a_query_of_its_own"));
    for wrong in ["record_interval=1799", "record_interval=7201", "storage_time=-1"] {
        line("StreamParam", Refused(json!(wrong), bad()));
    }
    for action in [STOP_LIVE, DELETE_LIVE] {
        let unknown = "ResourceNotFound.TaskId";
        let by_both = || Acts("older_tasks_go_by_number_and_stream");
        table.extend(entries(action, &["StreamName", "TaskId"], by_both));
        table.extend(entries(action, &["StreamName"], || Refused(json!("other"), unknown)));
        table.extend(entries(action, &["TaskId"], || Refused(json!(404_404), unknown)));
    }
    table
}

fn a_timed_task_has_both_times(bench: &Bench) {
    let whole = timed(&bench.name());
    bench.ok(CREATE_LIVE, &whole);
    for time in ["StartTime", "EndTime"] {
        let mut without = whole.clone();
        without.as_object_mut().expect("an object").shift_remove(time);
        bench.refused(CREATE_LIVE, &without, "MissingParameter");
    }
}

fn stream_param_is_a_query_of_its_own(bench: &Bench) {
    let flv = |param: &str| {
        let mut asked = timed(&bench.name());
        asked["StreamParam"] = json!(param);
        let number = bench.ok(CREATE_LIVE, &asked)["TaskId"].clone();
        let flv = stored(bench, &number)["template"]["flv"].clone();
        (flv["interval_s"].clone(), flv["storage_time_s"].clone())
    };
    assert_eq!(flv(""), (json!(1_800), json!(0)));
    let asked = "record_interval=7200&storage_time=86400&room=1";
    assert_eq!(flv(asked), (json!(7_200), json!(86_400)));
    assert_eq!(flv("record_interval%3D3600%26storage_time%3D60"), (json!(3_600), json!(60)));
}

fn a_highlight_is_of_a_live_stream(bench: &Bench) {
    let stream = bench.name();
    let asked = json!({"StreamName": stream, "Highlight": 1, "StartTime": "2030-01-01 10:00:00"});
    bench.refused(CREATE_LIVE, &asked, "ResourceUnavailable.StreamNotExist");
    let live = Publisher::publish(bench.edge.rtmp(), &stream).expect("taken");
    let key = json!({"DomainName": "127.0.0.1", "AppName": "live", "StreamName": stream});
    wait_until(SOON, "it is live", || {
        bench.ok("DescribeLiveStreamState", &key)["StreamState"] == "active"
    });
    let lasts_s = |asked: &Value| {
        let number = bench.ok(CREATE_LIVE, asked)["TaskId"].clone();
        let task = stored(bench, &number);
        assert_eq!(task["highlight"], true, "{asked}");
        (task["end_ms"].as_i64().expect("a time") - task["start_ms"].as_i64().expect("a time"))
            / 1_000
    };
    assert_eq!(lasts_s(&asked), 1_800, "StartTime counts for nothing");
    for (end_s, longest) in [(300, 300), (-60, 1_800), (HOUR_S, 1_800)] {
        let mut asked = asked.clone();
        asked["EndTime"] = json!(in_beijing(&json!((unix_now() + end_s) * 1_000)));
        let lasts_s = lasts_s(&asked);
        assert!((longest - 5..=longest).contains(&lasts_s), "{end_s}: {lasts_s}");
    }
    // As the first published example asks for one.
    assert_eq!(lasts_s(&json!({"StreamName": stream, "MixStream": 1})), 1_800);
    let elsewhere = json!({"StreamName": stream, "Highlight": 1, "AppName": "vod"});
    bench.refused(CREATE_LIVE, &elsewhere, "ResourceUnavailable.StreamNotExist");
    let elsewhere = json!({"StreamName": stream, "Highlight": 1, "DomainName": "cams"});
    bench.refused(CREATE_LIVE, &elsewhere, "ResourceUnavailable.StreamNotExist");
    live.finish();
}

fn older_tasks_go_by_number_and_stream(bench: &Bench) {
    let stream = bench.name();
    let make = || bench.ok(CREATE_LIVE, &timed(&stream))["TaskId"].clone();
    let (one, other) = (make(), make());
    let of = |number: &Value| json!({"StreamName": stream, "TaskId": number});
    bench.ok(STOP_LIVE, &of(&one));
    bench.ok(STOP_LIVE, &of(&one));
    assert!(stored(bench, &one)["stopped_ms"].is_i64());
    assert!(stored(bench, &other)["stopped_ms"].is_null());
    bench.ok(DELETE_LIVE, &of(&one));
    bench.refused(STOP_LIVE, &of(&one), "ResourceNotFound.TaskId");
    bench.ok(STOP_LIVE, &of(&other));
    // A window that is open now: it runs.
    let mut open = timed(&stream);
    open["StartTime"] = json!(in_beijing(&json!((unix_now() - 60) * 1_000)));
    let open = of(&bench.ok(CREATE_LIVE, &open)["TaskId"]);
    bench.refused(DELETE_LIVE, &open, "FailedOperation.AlterTaskState");
    let text = bench.ok(CREATE, &current(&stream))["TaskId"].clone();
    let number = stored(bench, &text)["id"].clone();
    bench.refused(STOP_LIVE, &of(&number), "ResourceNotFound.TaskId");
}

fn a_task_has_the_formats_of_its_template(bench: &Bench) {
    let template = json!({"TemplateName": bench.name(), "Mp4Param": {"Enable": 1},
                          "AacParam": {"Enable": 1, "RecordInterval": 60}});
    let number = bench.ok("CreateLiveRecordTemplate", &template)["TemplateId"].clone();
    let nothing = json!({"TemplateName": bench.name()});
    let nothing = bench.ok("CreateLiveRecordTemplate", &nothing)["TemplateId"].clone();
    let formats = |template: &Value| {
        let mut asked = current(&bench.name());
        asked["TemplateId"] = template.clone();
        let text = bench.ok(CREATE, &asked)["TaskId"].clone();
        let stored = stored(bench, &text)["template"].clone();
        let listed = listed(bench, &text).expect("listed")["TemplateId"].clone();
        (["flv", "hls", "mp4", "aac"].map(|format| !stored[format].is_null()), listed)
    };
    assert_eq!(formats(&number), ([false, false, true, true], number.clone()));
    for unknown in [json!(0), json!(404), nothing] {
        assert_eq!(formats(&unknown), ([false, true, false, false], json!(0)), "{unknown}");
    }
}

fn tasks_are_stopped_and_deleted_by_their_text(bench: &Bench) {
    let stream = bench.name();
    let make = || json!({"TaskId": bench.ok(CREATE, &current(&stream))["TaskId"]});
    let (stopped, deleted, left) = (make(), make(), make());
    bench.ok(STOP, &stopped);
    bench.ok(DELETE, &deleted);
    let listed = |task: &Value| listed(bench, &task["TaskId"]);
    let stop = |task: &Value| listed(task).map(|task| task["Stopped"].as_i64().expect("a time"));
    assert!(stop(&stopped).is_some_and(|at| (at - unix_now()).abs() < 60));
    assert_eq!((stop(&deleted), stop(&left)), (None, Some(0)));
    bench.refused(STOP, &deleted, "InvalidParameter");
    let older = bench.ok(CREATE_LIVE, &timed(&stream))["TaskId"].to_string();
    bench.refused(STOP, &json!({"TaskId": older}), "InvalidParameter");
}

fn tasks_are_listed_by_time_stream_and_page(bench: &Bench) {
    let stream = bench.name();
    let start_s = unix_now() + HOUR_S;
    let make = |domain: &str, app: &str, stream: &str| {
        let asked = json!({"StreamName": stream, "DomainName": domain, "AppName": app,
                           "StartTime": start_s, "EndTime": start_s + 60});
        bench.ok(CREATE, &asked)["TaskId"].clone()
    };
    let mut all: Vec<Value> = (0..PAGE).map(|_| make("cams", "live", &stream)).collect();
    all.push(make("door", "vod", &stream));
    let page = |filter: Value| {
        let mut asked = json!({"StartTime": start_s, "EndTime": start_s + 60});
        asked.as_object_mut().expect("an object").extend(filter.as_object().expect("one").clone());
        let answer = bench.ok(DESCRIBE, &asked);
        let list = answer["TaskList"].as_array().expect("a list").clone();
        let ids: Vec<Value> = list.into_iter().map(|task| task["TaskId"].clone()).collect();
        (ids, answer["ScrollToken"].clone())
    };
    let (first, token) = page(json!({"StreamName": stream}));
    let (rest, end) = page(json!({"StreamName": stream, "ScrollToken": token}));
    assert_eq!(([first, rest].concat(), end), (all.clone(), json!("")));
    let last = vec![all.last().expect("made").clone()];
    for filter in [json!({"DomainName": "DOOR"}), json!({"AppName": "vod"})] {
        let mut filter = filter;
        filter["StreamName"] = json!(stream);
        assert_eq!(page(filter.clone()).0, last, "{filter}");
    }
    for (field, value) in [("StartTime", start_s + 1), ("EndTime", start_s + 59)] {
        let (outside, _) = page(json!({"StreamName": stream, field: value}));
        assert_eq!(outside, [Value::Null; 0], "not inside of the time: {field}");
    }
}
