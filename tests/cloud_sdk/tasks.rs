//! Timed tasks, tasks of the past, and highlights.

use edgerec::domain::contract_time::TimeForm;
use edgerec::domain::time::UnixMillis;
use serde_json::{Value, json};

use crate::support::media::Clip;
use crate::support::push::Pace;
use crate::support::sdk::Sdk;
use crate::support::wait::{wait_for, wait_until};
use crate::{
    SOON, duration, from_now, named, named_with, of_type, push, record, start, text, wait_files,
    wait_state,
};

const CLIP: Clip =
    Clip { seconds: 14, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };
const SHORT: Clip = Clip { seconds: 4, ..CLIP };

/// A moment as CreateLiveRecord takes it: UTC+8, to the second.
fn beijing(unix_s: i64) -> String {
    TimeForm::Beijing.show(UnixMillis(unix_s * 1_000))
}

/// As the contract's example has it, encoded once more.
fn encoded(unix_s: i64) -> String {
    beijing(unix_s).replace(' ', "+").replace(':', "%3a")
}

/// The tasks of the new family around now.
fn listed(sdk: &mut Sdk) -> Vec<Value> {
    let window = named_with("cam", &json!({"StartTime": from_now(-600), "EndTime": from_now(900)}));
    let told = sdk.live("DescribeRecordTask", window);
    assert_eq!(told["ScrollToken"], "", "{told}");
    told["TaskList"].as_array().expect("a list").clone()
}

/// A task takes each push in its window, in files of its own, until it is stopped.
#[test]
fn a_record_task_takes_every_push_until_it_is_stopped() {
    let (edge, mut sdk) = start();
    let template = json!({"TemplateName": "task", "FlvParam": {"Enable": 1}});
    let number = sdk.live("CreateLiveRecordTemplate", template)["TemplateId"].clone();
    let asked = named_with("cam", &json!({"EndTime": from_now(600), "TemplateId": number}));
    let task = sdk.live("CreateRecordTask", asked.clone())["TaskId"].clone();
    assert!((1..=128).contains(&text(&task).len()), "{task}");
    let other = sdk.live("CreateRecordTask", asked)["TaskId"].clone();
    assert_ne!(task, other);
    sdk.live("StopRecordTask", json!({"TaskId": other}));

    for pushes in 1..=2 {
        push(&edge, &SHORT.flv(), "cam", Pace::Real).finish_within(SOON);
        let files = wait_files(&mut sdk, "cam", pushes);
        let last = files.last().expect("one at least");
        assert_eq!(last["BasicInfo"]["Type"], "flv");
        assert!(duration(last) > 1.0, "{last:#}");
        assert!(edge.ls().iter().all(|row| row["task_id"] == task), "{:#?}", edge.ls());
    }
    sdk.live("StopRecordTask", json!({"TaskId": task}));
    let of = |listed: &[Value], task: &Value| {
        listed.iter().find(|row| row["TaskId"] == *task).cloned().expect("it is listed")
    };
    let row = of(&listed(&mut sdk), &task);
    assert!(row["Stopped"].as_i64().is_some_and(|at| (from_now(-60)..=from_now(0)).contains(&at)));
    assert_eq!((&row["TemplateId"], &row["StreamName"]), (&number, &json!("cam")));
    push(&edge, &SHORT.flv(), "cam", Pace::Fast).finish_within(SOON);
    wait_state(&mut sdk, "cam", "inactive");
    assert_eq!(edge.ls().len(), 2, "nothing of the third push");

    sdk.live("DeleteRecordTask", json!({"TaskId": task}));
    let left = listed(&mut sdk);
    assert_eq!((left.len(), &left[0]["TaskId"]), (1, &other));
    for action in ["StopRecordTask", "DeleteRecordTask"] {
        assert_eq!(sdk.live_raises(action, json!({"TaskId": task})).code, "InvalidParameter");
    }
}

/// One window that comes, one that was, while a rule records all of it.
#[test]
fn timed_tasks_have_their_windows_also_from_the_past() {
    let (edge, mut sdk) = start();
    record(&mut sdk, "", json!({"TemplateName": "all", "HlsParam": {"Enable": 1}}));
    let mut pusher = push(&edge, &CLIP.flv(), "cam", Pace::Real);
    wait_state(&mut sdk, "cam", "active");
    let began = from_now(0);
    let coming = json!({"StartTime": beijing(began + 3), "EndTime": beijing(began + 8),
        "FileFormat": "mp4"});
    let coming = sdk.live("CreateLiveRecord", named_with("cam", &coming))["TaskId"].clone();
    assert!(coming.is_u64(), "{coming}");
    pusher.finish_within(SOON);
    let passed = json!({"StartTime": encoded(began + 5), "EndTime": encoded(began + 8),
        "FileFormat": "FLV", "RecordType": "Video", "StreamParam": "record_interval%3d3600"});
    let passed = sdk.live("CreateLiveRecord", named_with("cam", &passed))["TaskId"].clone();
    assert_ne!(coming, passed);

    let files = wait_files(&mut sdk, "cam", 3);
    // From the key frame before it, of which there is one in 0.8 s. What is asked for ahead begins
    // at the last one that is durable when the window opens: a fragment and a tick earlier at most.
    for (kind, begins, ends, early) in
        [("mp4", began + 3, began + 8, 3), ("flv", began + 5, began + 8, 1)]
    {
        let file = of_type(&files, kind)[0];
        let (asked, most) = ((ends - begins) as f64, (ends - begins + early) as f64);
        assert!(
            (asked - 0.5..most + 0.5).contains(&duration(file)),
            "{asked} s: {}",
            duration(file)
        );
        let source = &file["BasicInfo"]["SourceInfo"]["LiveRecordInfo"];
        let mut starts =
            (begins - early - 1..=begins).map(|at| TimeForm::Utc.show(UnixMillis(at * 1_000)));
        assert!(starts.any(|start| source["RecordStartTime"] == start), "{begins}: {source}");
    }
    assert!(duration(of_type(&files, "m3u8")[0]) > 13.0, "the rule's is whole");
    // Both are over.
    for task in [coming, passed] {
        let parameters = json!({"StreamName": "cam", "TaskId": task});
        sdk.live("DeleteLiveRecord", parameters.clone());
        let raised = sdk.live_raises("DeleteLiveRecord", parameters);
        assert_eq!(raised.code, "ResourceNotFound.TaskId");
    }
}

/// As the API has it today, and as its first published example spells it.
#[test]
fn a_highlight_begins_at_once_and_ends_when_it_is_stopped() {
    let (edge, mut sdk) = start();
    for spelling in ["Highlight", "MixStream"] {
        let raised = sdk.live_raises("CreateLiveRecord", named_with("cam", &json!({spelling: 1})));
        let expected = "ResourceUnavailable.StreamNotExist";
        assert_eq!(raised.code, expected, "{spelling}: {raised:?}");
    }
    record(&mut sdk, "", json!({"TemplateName": "all", "HlsParam": {"Enable": 1}}));
    let mut pusher = push(&edge, &CLIP.flv(), "cam", Pace::Real);
    wait_until(SOON, "five seconds are sent", || pusher.sent_ms() > 5_000);
    let highlight = |more: &Value| named_with("cam", more);
    let today = highlight(&json!({"Highlight": 1, "FileFormat": "mp4"}));
    let first = highlight(&json!({"MixStream": 1}));
    let tasks = [today, first].map(|asked| {
        let task = sdk.live("CreateLiveRecord", asked)["TaskId"].clone();
        json!({"StreamName": "cam", "TaskId": task})
    });
    // Beyond the cloud's API: it begins before it is asked for.
    let early = highlight(&json!({"Highlight": 1, "FileFormat": "aac", "PreRollSeconds": 4}));
    let early = sdk.call_untyped("live", "CreateLiveRecord", early).expect("taken");
    let early = json!({"StreamName": "cam", "TaskId": early["TaskId"]});
    let asked_ms = pusher.sent_ms();
    wait_until(SOON, "three more seconds are sent", || pusher.sent_ms() > asked_ms + 3_000);
    let raised = sdk.live_raises("DeleteLiveRecord", tasks[0].clone());
    assert_eq!(raised.code, "FailedOperation.AlterTaskState");
    for task in tasks.iter().chain([&early]) {
        sdk.live("StopLiveRecord", task.clone());
    }
    // They are files while the stream goes on.
    let files = wait_for(SOON, "files of all three", || {
        let found = sdk.vod("SearchMedia", json!({"StreamIds": ["cam"], "Limit": 50}));
        found["MediaInfoSet"].as_array().filter(|files| files.len() == 3).cloned()
    });
    assert_eq!(sdk.live("DescribeLiveStreamState", named("cam"))["StreamState"], "active");
    let length = |kind: &str| duration(of_type(&files, kind)[0]);
    // From the last key frame that is durable, which is two seconds back at most, or a bit more on
    // a machine that is busy.
    for kind in ["mp4", "flv"] {
        assert!((2.0..8.0).contains(&length(kind)), "{kind}: {} s", length(kind));
    }
    assert!(length("aac") > length("mp4") + 1.0, "{} and {} s", length("aac"), length("mp4"));
    pusher.finish_within(SOON);
    for task in tasks {
        sdk.live("DeleteLiveRecord", task.clone());
        assert_eq!(sdk.live_raises("StopLiveRecord", task).code, "ResourceNotFound.TaskId");
    }
}
