//! Every way in which the SDK signs and sends.

use serde_json::{Value, json};

use crate::start;
use crate::support::sdk::{Sdk, Style};

/// A template with nested members, and text that each way of sending has to encode.
fn template(name: &str) -> Value {
    json!({
        "TemplateName": name,
        "Description": "大门 - 录制",
        "FlvParam": {"Enable": 1, "RecordInterval": 600},
        "HlsParam": {"Enable": 1, "VodFileName": "{StreamID} + a&b=c/{StartYear}~*'()%41"},
        "HlsSpecialParam": {"FlowContinueDuration": 300},
        "RemoveWatermark": true,
    })
}

/// Makes a template, finds it again as it was given, and takes it away.
fn round(sdk: &mut Sdk, name: &str) {
    let asked = template(name);
    let number = sdk.live("CreateLiveRecordTemplate", asked.clone())["TemplateId"].clone();
    assert!(number.is_i64(), "{number}");
    let shown = sdk.live("DescribeLiveRecordTemplate", json!({"TemplateId": number}));
    let shown = &shown["Template"];
    for member in ["TemplateName", "Description", "RemoveWatermark"] {
        assert_eq!(shown[member], asked[member], "{member} with {:?}", sdk.style);
    }
    assert_eq!(shown["FlvParam"]["RecordInterval"], 600);
    assert_eq!(shown["HlsParam"]["VodFileName"], asked["HlsParam"]["VodFileName"]);
    assert_eq!(shown["HlsSpecialParam"]["FlowContinueDuration"], 300);
    assert_eq!(shown["Mp4Param"]["Enable"], 0);
    let done = sdk.live("DeleteLiveRecordTemplate", json!({"TemplateId": number}));
    assert!(done["RequestId"].as_str().is_some_and(|id| !id.is_empty()), "{done}");
    assert_eq!(sdk.live("DescribeLiveRecordTemplates", json!({}))["Templates"], json!([]));
}

#[test]
fn every_way_of_signing_and_sending_is_understood_by_both_services() {
    let (_edge, mut sdk) = start();
    for style in Style::all() {
        sdk.style = style;
        round(&mut sdk, &format!("{}-{}", style.sign_method, style.req_method));
        let lists = json!({"StreamIds": ["a b", "门"], "Categories": ["Video"], "Limit": 5});
        let found = sdk.vod("SearchMedia", lists);
        assert_eq!((&found["TotalCount"], &found["MediaInfoSet"]), (&json!(0), &json!([])));
        let told = sdk.vod("DescribeMediaInfos", json!({"FileIds": ["5", "6"]}));
        assert_eq!(told["NotExistFileIdSet"], json!(["5", "6"]), "{style:?}");
    }
}

#[test]
fn wrong_keys_are_told_apart_however_they_sign() {
    let (_edge, mut sdk) = start();
    for style in Style::all() {
        sdk.style = style;
        for service in ["live", "vod"] {
            let action = if service == "live" { "DescribeLiveRecordRules" } else { "SearchMedia" };
            let right = (sdk.secret_id.clone(), sdk.secret_key.clone());
            sdk.secret_key = "ANOTHERSECRET".to_owned();
            let raised = sdk.raises(service, action, json!({}));
            assert_eq!(raised.code, "AuthFailure.SignatureFailure", "{style:?}: {raised:?}");
            assert!(!raised.request_id.is_empty() && !raised.message.is_empty(), "{raised:?}");
            sdk.secret_id = "AKIDNOBODY".to_owned();
            let raised = sdk.raises(service, action, json!({}));
            assert_eq!(raised.code, "AuthFailure.SecretIdNotFound", "{style:?}: {raised:?}");
            (sdk.secret_id, sdk.secret_key) = right;
            sdk.call(service, action, json!({})).expect("the right keys are let in");
        }
    }
}
