//! Mixes: the box mixes nothing itself, so a mix declares what a mixer publishes.

use std::collections::HashSet;

use edgerec::domain::contract_time::TimeForm;
use edgerec::domain::time::UnixMillis;
use serde_json::{Value, json};

use crate::support::media::Clip;
use crate::support::packets::{Kind, of_kind, packets};
use crate::support::push::Pace;
use crate::support::wait::wait_until;
use crate::{
    SOON, downloaded, from_now, named, named_with, push, record, start, wait_files, wait_state,
};

const CLIP: Clip =
    Clip { seconds: 60, fps: 25, gop: 25, b_frames: 0, video_kbps: 100, audio: true };
/// Its pictures are others than those of [`CLIP`].
const MIXED: Clip = Clip { video_kbps: 200, ..CLIP };
const SHORT: Clip = Clip { seconds: 3, ..CLIP };

fn mix(session: &str, inputs: &[&str], output: Value) -> Value {
    let input = |(layer, name): (usize, &&str)| {
        json!({"InputStreamName": name, "LayoutParams": {"ImageLayer": layer + 1,
            "ImageWidth": 0.5, "LocationX": 320}})
    };
    let inputs: Vec<Value> = inputs.iter().enumerate().map(input).collect();
    json!({"MixStreamSessionId": session, "InputStreamList": inputs, "OutputParams": output})
}

fn pictures(clip: Clip) -> HashSet<String> {
    of_kind(&packets(&clip.flv()), Kind::Video).into_iter().map(|packet| packet.hash).collect()
}

/// The mixed picture takes the place of an input from the mixer's first key frame on, and leaves it
/// when the mix is cancelled.
#[test]
fn a_mix_takes_the_name_of_an_input_until_it_is_cancelled() {
    let (edge, mut sdk) = start();
    record(&mut sdk, "gate", json!({"TemplateName": "gate", "FlvParam": {"Enable": 1}}));
    let mut gate = push(&edge, &CLIP.flv(), "gate", Pace::Real);
    let _hall = push(&edge, &CLIP.flv(), "hall", Pace::Real);
    wait_state(&mut sdk, "gate", "active");
    wait_state(&mut sdk, "hall", "active");
    let mixer = "gate?mix=match";
    let mut early = push(&edge, &SHORT.flv(), mixer, Pace::Real);
    assert!(!early.end_within(SOON).success(), "the stream is live, and there is no mix");

    wait_until(SOON, "two seconds of the original", || gate.sent_ms() > 2_000);
    let asked = mix("match", &["gate", "hall"], json!({"OutputStreamName": "gate"}));
    sdk.live("CreateCommonMixStream", asked.clone());
    let mut mixed = push(&edge, &MIXED.flv(), mixer, Pace::Real);
    wait_until(SOON, "three seconds of the mix", || mixed.sent_ms() > 3_000);
    sdk.live("CreateCommonMixStream", asked);
    let cancelled = json!({"MixStreamSessionId": "match"});
    sdk.live("CancelCommonMixStream", cancelled.clone());
    assert!(!mixed.end_within(SOON).success(), "the mixer sees that its mix is over");
    let raised = sdk.live_raises("CancelCommonMixStream", cancelled);
    assert_eq!(raised.code, "InvalidParameter.CancelSessionNotExist");
    let sent_ms = gate.sent_ms();
    wait_until(SOON, "two more seconds of the original", || gate.sent_ms() > sent_ms + 2_000);
    gate.process().kill();
    wait_state(&mut sdk, "gate", "inactive");

    wait_until(SOON, "all files are finished", || {
        let rows = edge.ls();
        !rows.is_empty() && rows.iter().all(|row| row["state"] != "recording")
    });
    let count = edge.ls().len();
    let (original, mixed) = (pictures(CLIP), pictures(MIXED));
    let mut order = Vec::new();
    for file in wait_files(&mut sdk, "gate", count) {
        for packet in of_kind(&packets(&downloaded(&edge, &file)), Kind::Video) {
            let of = (original.contains(&packet.hash), mixed.contains(&packet.hash));
            let who = match of {
                (true, false) => "original",
                (false, true) => "mixed",
                _ => panic!("a picture of neither or of both: {packet:?}"),
            };
            order.push(who);
        }
    }
    order.dedup();
    assert_eq!(order, ["original", "mixed", "original"]);
}

/// A task with MixStream records a stream only as what a mix makes.
#[test]
fn a_task_for_a_mixed_stream_waits_for_the_mix() {
    let (edge, mut sdk) = start();
    let beijing = |seconds| TimeForm::Beijing.show(UnixMillis(from_now(seconds) * 1_000));
    let window = json!({"StartTime": beijing(-60), "EndTime": beijing(600), "MixStream": 1,
        "FileFormat": "mp4"});
    let task = sdk.live("CreateLiveRecord", named_with("both", &window))["TaskId"].clone();
    push(&edge, &SHORT.flv(), "both", Pace::Real).finish_within(SOON);
    wait_state(&mut sdk, "both", "inactive");
    assert!(edge.ls().is_empty(), "recorded though no mix makes it: {:#?}", edge.ls());

    let output = json!({"OutputStreamName": "both", "OutputStreamType": 1});
    sdk.live("CreateCommonMixStream", mix("new", &["gate", "hall"], output));
    push(&edge, &SHORT.flv(), "both", Pace::Real).finish_within(SOON);
    wait_state(&mut sdk, "both", "inactive");
    sdk.live("StopLiveRecord", json!({"StreamName": "both", "TaskId": task}));
    let files = wait_files(&mut sdk, "both", 1);
    assert_eq!(files[0]["BasicInfo"]["Type"], "mp4");
}

#[test]
fn a_mix_that_cannot_be_is_refused() {
    let (edge, mut sdk) = start();
    let _gate = push(&edge, &CLIP.flv(), "gate", Pace::Real);
    wait_state(&mut sdk, "gate", "active");
    let takes = |name: &str| json!({"OutputStreamName": name});
    let new = |name: &str| json!({"OutputStreamName": name, "OutputStreamType": 1});
    sdk.live("CreateCommonMixStream", mix("match", &["gate", "hall"], takes("gate")));
    let without_output = {
        let mut asked = mix("other", &["a"], Value::Null);
        asked.as_object_mut().expect("an object").remove("OutputParams");
        asked
    };
    let mut twice = mix("other", &["a", "b"], takes("a"));
    twice["InputStreamList"][1]["LayoutParams"]["ImageLayer"] = json!(1);
    let mut layout = mix("other", &["a", "b"], takes("a"));
    layout["MixStreamTemplateId"] = json!(310);
    let bits = json!({"OutputStreamName": "a", "OutputStreamBitRate": 10_001});
    for (asked, code) in [
        (
            mix("match", &["gate", "hall"], takes("hall")),
            "InvalidParameter.SessionOutputStreamChanged",
        ),
        (mix("other", &["hall"], new("gate")), "InvalidParameter.InvalidOutputStreamID"),
        (mix("other", &["a", "b"], takes("c")), "InvalidParameter.InvalidOutputStreamID"),
        (mix("other", &["a", "b"], new("b")), "InvalidParameter.InvalidOutputStreamID"),
        (mix("other name", &["a"], takes("a")), "InvalidParameter"),
        (mix("other", &[], takes("a")), "InvalidParameter"),
        (mix("other", &["a"], bits), "InvalidParameter.InvalidBitrate"),
        (without_output, "InvalidParameter"),
        (twice, "InvalidParameter.InvalidLayerParam"),
        (layout, "InvalidParameter.TemplateNotMatchInputNum"),
    ] {
        let raised = sdk.live_raises("CreateCommonMixStream", asked.clone());
        assert_eq!(raised.code, code, "{asked}: {raised:?}");
    }
    assert_eq!(sdk.live("DescribeLiveStreamState", named("gate"))["StreamState"], "active");
}
