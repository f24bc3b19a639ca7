//! Recording templates: Create, Modify, Delete and Describe LiveRecordTemplate(s).
//!
//! Shown are the templates of all layers, each with its layer in a member `Layer` of our own; only
//! those of the local one can be changed. Parameters of a format that is off are not remembered: it
//! is shown with the contract's defaults. VodSubAppId, Procedure and ClassId go with the files to the
//! VOD platform; RemoveWatermark is kept and shown, and nothing else comes of it: it is for
//! transcoded streams.

use serde_json::{Map, Value, json};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::{Answer, CloudDesk};
use crate::domain::document::Fields;
use crate::domain::faults::Faults;
use crate::domain::files::FileFormat;
use crate::domain::ids::TemplateNumber;
use crate::domain::service::Refusal;
use crate::domain::service::layers::NumberedTemplate;
use crate::domain::template::{FormatParams, RECORD_INTERVAL_S_DEFAULT, Template, TemplateChange};

/// Answers an action of this family.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    Some(match action {
        "CreateLiveRecordTemplate" => create(desk, params).await,
        "ModifyLiveRecordTemplate" => modify(desk, params).await,
        "DeleteLiveRecordTemplate" => delete(desk, params).await,
        "DescribeLiveRecordTemplate" => describe(desk, params),
        "DescribeLiveRecordTemplates" => describe_all(desk, params),
        _ => return None,
    })
}

/// The TemplateId of a request.
pub(super) fn read_number(fields: &mut Fields<'_>, faults: &mut Faults) -> TemplateNumber {
    let number = fields.required_integer("TemplateId", 0..=i64::MAX, faults);
    TemplateNumber(number.map_or(0, i64::unsigned_abs))
}

async fn create(desk: &CloudDesk, params: &Params) -> Answer {
    let template = params.read(Codes::Full, Template::read_fields)?;
    let template = template.ok_or_else(|| Refusal::new("MissingParameter", "TemplateName"))?;
    let limits = desk.limits.clone();
    let number = desk
        .change(move |service, changes| service.layers.create_template(template, &limits, changes))
        .await?;
    Ok(Map::from_iter([("TemplateId".to_owned(), json!(number.0))]))
}

async fn modify(desk: &CloudDesk, params: &Params) -> Answer {
    let (number, change) = params.read(Codes::Full, |fields, faults| {
        (read_number(fields, faults), TemplateChange::read(fields, faults))
    })?;
    desk.change(move |service, changes| service.layers.modify_template(number, change, changes))
        .await?;
    Ok(Map::new())
}

async fn delete(desk: &CloudDesk, params: &Params) -> Answer {
    let number = params.read(Codes::Full, read_number)?;
    desk.change(move |service, changes| service.layers.delete_template(number, changes)).await?;
    Ok(Map::new())
}

fn describe(desk: &CloudDesk, params: &Params) -> Answer {
    let number = params.read(Codes::Full, read_number)?;
    let found = desk.service.load().layers.template(number).ok_or_else(|| {
        Refusal::new("FailedOperation.NotFound", format!("there is no template {number}"))
    })?;
    Ok(Map::from_iter([("Template".to_owned(), shown(&found))]))
}

fn describe_all(desk: &CloudDesk, params: &Params) -> Answer {
    let slow = params.read(Codes::Full, |fields, faults| {
        fields.integer("IsDelayLive", 0..=1, faults) == Some(1)
    })?;
    // There is no slow live here, so no template of it.
    let all = if slow { Vec::new() } else { desk.service.load().layers.templates() };
    let all: Vec<Value> = all.iter().map(shown).collect();
    Ok(Map::from_iter([("Templates".to_owned(), Value::Array(all))]))
}

/// The contract's RecordTemplateInfo.
fn shown(one: &NumberedTemplate) -> Value {
    let template = &one.template;
    let format = |format| shown_format(format, template.params(format));
    json!({
        "TemplateId": one.number.0,
        "TemplateName": template.name,
        "Description": template.description,
        "FlvParam": format(FileFormat::Flv),
        "HlsParam": format(FileFormat::Hls),
        "Mp4Param": format(FileFormat::Mp4),
        "AacParam": format(FileFormat::Aac),
        "Mp3Param": shown_format(FileFormat::Aac, None),
        "IsDelayLive": 0,
        "HlsSpecialParam": {"FlowContinueDuration": template.flow_continue_s},
        "RemoveWatermark": template.remove_watermark,
        "CosStore": 0,
        "FlvSpecialParam": {"UploadInRecording": false},
        "Layer": one.layer.to_string(),
    })
}

/// The contract's RecordParam.
fn shown_format(format: FileFormat, params: Option<&FormatParams>) -> Value {
    let default = FormatParams::of(format);
    let shown = params.unwrap_or(&default);
    json!({
        "RecordInterval": shown.interval_s.unwrap_or(RECORD_INTERVAL_S_DEFAULT),
        "StorageTime": shown.storage_time_s,
        "Enable": u8::from(params.is_some()),
        "VodSubAppId": shown.vod_sub_app_id,
        "VodFileName": shown.vod_file_name.given(),
        "Procedure": shown.procedure,
        "StorageMode": "normal",
        "ClassId": shown.class_id,
        "CosBucketName": "",
        "CosBucketRegion": "",
        "CosBucketPath": "",
    })
}
