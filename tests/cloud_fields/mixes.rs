//! Mixes. The box mixes nothing: what says how the picture is made is checked, and is the mixer's
//! own matter; what says which streams there are is stored.

use serde_json::{Value, json};

use crate::support::publisher::{Publisher, Tag};
use crate::walk::Proof::{Acts, Elsewhere, Refused, Shown};
use crate::walk::{Bench, Entry, Family, Proof, entries};

pub const FAMILY: Family = Family {
    actions: &[CREATE, CANCEL],
    base,
    show,
    acts: &[
        ("a_whole_mix_is_declared", a_whole_mix_is_declared),
        ("outputs_take_an_input_or_are_new", outputs_take_an_input_or_are_new),
        ("a_mix_is_cancelled_by_its_name", a_mix_is_cancelled_by_its_name),
        ("its_mixer_is_let_in_beside_the_original", its_mixer_is_let_in_beside_the_original),
    ],
    table,
};
const CREATE: &str = "CreateCommonMixStream";
const CANCEL: &str = "CancelCommonMixStream";
const BAD: &str = "InvalidParameter";

fn base(bench: &Bench, action: &str) -> Value {
    match action {
        CREATE => mix(bench),
        _ => {
            let declared = mix(bench);
            bench.ok(CREATE, &declared);
            json!({"MixStreamSessionId": declared["MixStreamSessionId"]})
        }
    }
}

/// Two inputs; the output takes the name of the second.
fn mix(bench: &Bench) -> Value {
    let (left, right) = (bench.name(), bench.name());
    json!({
        "MixStreamSessionId": bench.name(),
        "InputStreamList": [
            {"InputStreamName": left, "LayoutParams": {"ImageLayer": 1}},
            {"InputStreamName": right, "LayoutParams": {"ImageLayer": 2}},
        ],
        "OutputParams": {"OutputStreamName": right},
    })
}

fn show(bench: &Bench, _: &str, request: &Value, _: &Value) -> Value {
    let mix = stored(bench, &request["MixStreamSessionId"]).expect("stored");
    let inputs = mix["inputs"].as_array().expect("names").iter();
    let inputs: Vec<Value> = inputs.map(|name| json!({"InputStreamName": name})).collect();
    json!({
        "MixStreamSessionId": mix["session"],
        "InputStreamList": inputs,
        "OutputParams": {
            "OutputStreamName": mix["output"],
            "OutputStreamType": u8::from(mix["kind"] == "New"),
        },
    })
}

fn stored(bench: &Bench, session: &Value) -> Option<Value> {
    bench.stored("mix", |mix| mix["session"] == *session)
}

fn table() -> Vec<Entry> {
    let mut table = Vec::new();
    let mut line = |field: &str, proof: Proof| {
        table.push(Entry { action: CREATE, field: field.to_owned(), proof });
    };
    line("MixStreamSessionId", Shown(json!("mix_1"), json!("mix_1")));
    line("MixStreamSessionId", Refused(json!("a b"), BAD));
    line("MixStreamTemplateId", Refused(json!(310), "InvalidParameter.TemplateNotMatchInputNum"));
    let input = "InputStreamList.0";
    let name = format!("{input}.InputStreamName");
    line(&name, Shown(json!("left_1"), json!("left_1")));
    line(&name, Refused(json!("a/b"), BAD));
    let layer = format!("{input}.LayoutParams.ImageLayer");
    line(&layer, Refused(json!(2), "InvalidParameter.InvalidLayerParam"));
    line(&layer, Refused(json!(17), BAD));
    let long = json!("x".repeat(1_025));
    for (field, wrong) in [
        ("LayoutParams.InputType", json!(6)),
        ("LayoutParams.ImageHeight", json!("high")),
        ("LayoutParams.ImageWidth", json!("wide")),
        ("LayoutParams.LocationX", json!("left")),
        ("LayoutParams.LocationY", json!("NaN")),
        ("LayoutParams.Color", long.clone()),
        ("LayoutParams.WatermarkId", json!("one")),
        ("LayoutParams.WebPageUrl", long.clone()),
        ("CropParams.CropWidth", json!("wide")),
        ("CropParams.CropHeight", json!("high")),
        ("CropParams.CropStartLocationX", json!("left")),
        ("CropParams.CropStartLocationY", json!("inf")),
        ("PortraitSegmentParams.Color", long.clone()),
    ] {
        line(&format!("{input}.{field}"), Refused(wrong, BAD));
    }
    let no_output = "InvalidParameter.InvalidOutputStreamID";
    for (field, wrong, code) in [
        ("OutputStreamName", json!("none-of-them"), no_output),
        ("OutputStreamType", json!(1), no_output),
        ("OutputStreamType", json!(2), BAD),
        ("OutputStreamBitRate", json!(10_001), "InvalidParameter.InvalidBitrate"),
        ("OutputStreamGop", json!(11), BAD),
        ("OutputStreamFrameRate", json!(61), BAD),
        ("OutputAudioBitRate", json!(501), BAD),
        ("OutputAudioSampleRate", json!(44_000), BAD),
        ("OutputAudioChannels", json!(3), BAD),
        ("MixSei", long, BAD),
    ] {
        line(&format!("OutputParams.{field}"), Refused(wrong, code));
    }
    for field in ["UseMixCropCenter", "AllowCopy", "PassInputSei", "UsePictureTransparent"] {
        line(&format!("ControlParams.{field}"), Refused(json!(2), BAD));
        line(&format!("ControlParams.{field}"), Acts("a_whole_mix_is_declared"));
    }
    for field in ["MixStreamSessionId", "OutputParams.OutputStreamName"] {
        line(field, Acts("its_mixer_is_let_in_beside_the_original"));
    }
    for field in ["OutputParams.OutputStreamName", "OutputParams.OutputStreamType"] {
        line(field, Acts("outputs_take_an_input_or_are_new"));
        for test in [
            "a_mixer_takes_over_a_stream_and_gives_it_back_when_its_mix_is_cancelled",
            "a_mix_with_a_name_of_its_own_is_recorded_beside_its_inputs",
        ] {
            line(field, Elsewhere("tests/mid_session.rs", test));
        }
    }
    for field in ["MixStreamTemplateId", "OutputParams.MixSei", &layer] {
        line(field, Acts("a_whole_mix_is_declared"));
    }
    let session = &["MixStreamSessionId"];
    table.extend(entries(CANCEL, session, || Acts("a_mix_is_cancelled_by_its_name")));
    let unknown = || Refused(json!("nobody"), "InvalidParameter.CancelSessionNotExist");
    table.extend(entries(CANCEL, session, unknown));
    table
}

/// Everything that can be said of a mix, with good values.
fn a_whole_mix_is_declared(bench: &Bench) {
    let (left, right) = (bench.name(), bench.name());
    let layout = |layer: u8| {
        json!({"ImageLayer": layer, "InputType": 4, "ImageHeight": 0.5, "ImageWidth": "360",
               "LocationX": 0, "LocationY": 1.5, "Color": "0xcc0033", "WatermarkId": 7,
               "WebPageUrl": "http://10.0.0.7/"})
    };
    let crop = json!({"CropWidth": 0.5, "CropHeight": 1, "CropStartLocationX": 0,
                      "CropStartLocationY": "10"});
    let session = bench.name();
    bench.ok(
        CREATE,
        &json!({
            "MixStreamSessionId": session,
            "InputStreamList": [
                {"InputStreamName": left, "LayoutParams": layout(1), "CropParams": crop,
                 "PortraitSegmentParams": {"Color": "0x000000"}},
                {"InputStreamName": right, "LayoutParams": layout(16)},
            ],
            "OutputParams": {"OutputStreamName": left, "OutputStreamType": 0,
                "OutputStreamBitRate": 10_000, "OutputStreamGop": 10, "OutputStreamFrameRate": 60,
                "OutputAudioBitRate": 500, "OutputAudioSampleRate": 44_100,
                "OutputAudioChannels": 2, "MixSei": "sei"},
            "MixStreamTemplateId": 20,
            "ControlParams": {"UseMixCropCenter": 1, "AllowCopy": 1, "PassInputSei": 0,
                "UsePictureTransparent": "1"},
        }),
    );
    let mix = stored(bench, &json!(session)).expect("stored");
    assert_eq!((&mix["inputs"], &mix["output"]), (&json!([left, right]), &json!(left)));
}

fn outputs_take_an_input_or_are_new(bench: &Bench) {
    let kind = |asked: &Value| {
        stored(bench, &asked["MixStreamSessionId"]).expect("stored")["kind"].clone()
    };
    let mut taking = mix(bench);
    taking["OutputParams"]["OutputStreamType"] = json!(0);
    bench.ok(CREATE, &taking);
    assert_eq!(kind(&taking), "TakesInput");
    let mut new = mix(bench);
    new["OutputParams"] = json!({"OutputStreamName": bench.name(), "OutputStreamType": "1"});
    bench.ok(CREATE, &new);
    assert_eq!(kind(&new), "New");
    new["OutputParams"]["OutputStreamName"] = json!(bench.name());
    bench.refused(CREATE, &new, "InvalidParameter.SessionOutputStreamChanged");
    let mut many = mix(bench);
    let inputs = (1..=17).map(|number| {
        json!({"InputStreamName": format!("in{number}"), "LayoutParams": {"ImageLayer": number}})
    });
    many["InputStreamList"] = inputs.collect();
    bench.refused(CREATE, &many, "InvalidParameter.InputNumLimitExceeded");
}

/// Who names the mix may publish to the name of its output while the original does.
fn its_mixer_is_let_in_beside_the_original(bench: &Bench) {
    let declared = mix(bench);
    bench.ok(CREATE, &declared);
    let output = declared["OutputParams"]["OutputStreamName"].as_str().expect("a name");
    let input = declared["InputStreamList"][0]["InputStreamName"].as_str().expect("a name");
    let session = declared["MixStreamSessionId"].as_str().expect("a name");
    let publish = |name: &str| Publisher::publish(bench.edge.rtmp(), name);
    // What the originals send now and then keeps their places.
    let metadata = Tag { kind: 18, time_ms: 0, body: b"\x02\x00\x01a\x05".to_vec() };
    let mut originals = [output, input].map(|name| publish(name).expect("taken"));
    let mut beside = |name: &str| {
        originals.iter_mut().for_each(|original| original.send(&metadata));
        publish(name).map(Publisher::finish).is_ok()
    };
    assert!(!beside(output) && !beside(&format!("{output}?mix=nobody")));
    assert!(!beside(&format!("{input}?mix={session}")), "of the output only");
    assert!(beside(&format!("{output}?mix={session}")));
    bench.ok(CANCEL, &json!({"MixStreamSessionId": session}));
    assert!(!beside(&format!("{output}?mix={session}")), "the mix is over");
}

fn a_mix_is_cancelled_by_its_name(bench: &Bench) {
    let (one, other) = (mix(bench), mix(bench));
    bench.ok(CREATE, &one);
    bench.ok(CREATE, &other);
    let cancel = json!({"MixStreamSessionId": one["MixStreamSessionId"]});
    bench.ok(CANCEL, &cancel);
    let is_stored = |mix: &Value| stored(bench, &mix["MixStreamSessionId"]).is_some();
    assert_eq!((is_stored(&one), is_stored(&other)), (false, true));
    bench.refused(CANCEL, &cancel, "InvalidParameter.CancelSessionNotExist");
}
