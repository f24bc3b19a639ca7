//! Mixed streams: CreateCommonMixStream and CancelCommonMixStream. The box mixes nothing: they
//! declare what an external mixer makes. How it makes it (layout, crops, bit rates) is checked for
//! what the contract allows, and kept nowhere: it is the mixer's own matter.

use serde_json::Map;

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::{Answer, CloudDesk};
use crate::domain::document::{Fields, Json};
use crate::domain::faults::{FaultKind, Faults};
use crate::domain::service::Refusal;
use crate::domain::service::mixes::{INPUTS_MAX, Mix, Output};

/// Longest text of a mix, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
/// More inputs than any mix may have.
const INPUTS_READ_MAX: usize = 64;
/// Templates of layouts, and for how many inputs each is.
const LAYOUTS: [(i64, usize); 12] = [
    (10, 2),
    (20, 2),
    (30, 2),
    (40, 2),
    (50, 2),
    (310, 3),
    (390, 3),
    (391, 3),
    (410, 4),
    (510, 5),
    (590, 5),
    (610, 6),
];
/// Sample rates of sound.
const SAMPLE_RATES: [i64; 9] =
    [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

/// Answers an action of this family.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    Some(match action {
        "CreateCommonMixStream" => create(desk, params).await,
        "CancelCommonMixStream" => cancel(desk, params).await,
        _ => return None,
    })
}

async fn create(desk: &CloudDesk, params: &Params) -> Answer {
    let mut special = None;
    let read = params.read(Codes::Plain, |fields, faults| read_mix(fields, faults, &mut special));
    if let Some(refusal) = special {
        return Err(refusal);
    }
    let mix = read?.ok_or_else(|| Refusal::new("InvalidParameter", "nothing is asked"))?;
    let live: Vec<String> =
        desk.online.live().iter().map(|live| live.key.stream().to_owned()).collect();
    desk.change(move |service, changes| {
        service.mixes.declare(mix, |name| live.iter().any(|live| live == name), changes)
    })
    .await?;
    Ok(Map::new())
}

async fn cancel(desk: &CloudDesk, params: &Params) -> Answer {
    let session = params.read(Codes::Plain, |fields, faults| {
        fields.required_text("MixStreamSessionId", TEXT_BYTES_MAX, faults).map(ToOwned::to_owned)
    })?;
    let session = session.unwrap_or_default();
    desk.change(move |service, changes| service.mixes.cancel(&session, changes)).await?;
    Ok(Map::new())
}

/// `special` is set where the contract has a code of its own, which is told before other faults.
fn read_mix(
    fields: &mut Fields<'_>,
    faults: &mut Faults,
    special: &mut Option<Refusal>,
) -> Option<Mix> {
    let session = fields.required_text("MixStreamSessionId", TEXT_BYTES_MAX, faults);
    let place = fields.place_of("InputStreamList");
    let list = fields.list("InputStreamList", INPUTS_READ_MAX, faults);
    if list.is_empty() && faults.is_empty() {
        faults.add_kind(FaultKind::Missing, &place, "is missing or empty");
    }
    if list.len() > INPUTS_MAX {
        let what = format!("{place}: has {} inputs, {INPUTS_MAX} are allowed", list.len());
        *special = Some(Refusal::new("InvalidParameter.InputNumLimitExceeded", what));
    }
    let (mut inputs, mut layers) = (Vec::new(), Vec::new());
    for (place, value) in &list {
        let Some((name, layer)) = read_input(value, place, faults) else { continue };
        if layers.contains(&layer) {
            let what = format!("{place}.LayoutParams.ImageLayer: {layer} is another input's");
            special.get_or_insert(Refusal::new("InvalidParameter.InvalidLayerParam", what));
        }
        layers.push(layer);
        inputs.push(name);
    }
    let place = fields.place_of("OutputParams");
    let output = match fields.object("OutputParams", faults) {
        Some(output) => read_output(output, faults, special),
        None => {
            faults.add_kind(FaultKind::Missing, place, "is missing");
            None
        }
    };
    if let Some(layout) = fields.integer("MixStreamTemplateId", 0..=i64::MAX, faults)
        && layout != 0
        && !LAYOUTS.contains(&(layout, list.len()))
    {
        let what = format!("MixStreamTemplateId: {layout} is not for {} inputs", list.len());
        special.get_or_insert(Refusal::new("InvalidParameter.TemplateNotMatchInputNum", what));
    }
    if let Some(mut control) = fields.object("ControlParams", faults) {
        for name in ["UseMixCropCenter", "AllowCopy", "PassInputSei", "UsePictureTransparent"] {
            control.integer(name, 0..=1, faults);
        }
        control.finish(faults);
    }
    let (output, kind) = output?;
    Some(Mix { session: session?.to_owned(), inputs, output, kind })
}

fn read_input(value: &Json, place: &str, faults: &mut Faults) -> Option<(String, i64)> {
    let mut input = Fields::open(value, place, faults)?.null_is_absent();
    let name = input.required_text("InputStreamName", TEXT_BYTES_MAX, faults);
    let layout_place = input.place_of("LayoutParams");
    let mut layer = None;
    match input.object("LayoutParams", faults) {
        None => faults.add_kind(FaultKind::Missing, layout_place, "is missing"),
        Some(mut layout) => {
            layer = layout.required_integer("ImageLayer", 1..=16, faults);
            layout.integer("InputType", 0..=5, faults);
            numbers(&mut layout, &["ImageHeight", "ImageWidth", "LocationX", "LocationY"], faults);
            layout.integer("WatermarkId", i64::MIN..=i64::MAX, faults);
            layout.text("Color", TEXT_BYTES_MAX, faults);
            layout.text("WebPageUrl", TEXT_BYTES_MAX, faults);
            layout.finish(faults);
        }
    }
    if let Some(mut crop) = input.object("CropParams", faults) {
        let names = ["CropWidth", "CropHeight", "CropStartLocationX", "CropStartLocationY"];
        numbers(&mut crop, &names, faults);
        crop.finish(faults);
    }
    if let Some(mut portrait) = input.object("PortraitSegmentParams", faults) {
        portrait.text("Color", TEXT_BYTES_MAX, faults);
        portrait.finish(faults);
    }
    input.finish(faults);
    Some((name?.to_owned(), layer?))
}

fn read_output(
    mut output: Fields<'_>,
    faults: &mut Faults,
    special: &mut Option<Refusal>,
) -> Option<(String, Output)> {
    let name = output.required_text("OutputStreamName", TEXT_BYTES_MAX, faults);
    let kind = match output.integer("OutputStreamType", 0..=1, faults) {
        Some(1) => Output::New,
        _ => Output::TakesInput,
    };
    if let Some(rate) = output.integer("OutputStreamBitRate", i64::MIN..=i64::MAX, faults)
        && !(0..=10_000).contains(&rate)
    {
        let what = format!("OutputParams.OutputStreamBitRate: {rate} is outside 1..=10000");
        special.get_or_insert(Refusal::new("InvalidParameter.InvalidBitrate", what));
    }
    // 0 is what clients send for "not given".
    output.integer("OutputStreamGop", 0..=10, faults);
    output.integer("OutputStreamFrameRate", 0..=60, faults);
    output.integer("OutputAudioBitRate", 0..=500, faults);
    output.integer("OutputAudioChannels", 0..=2, faults);
    let place = output.place_of("OutputAudioSampleRate");
    if let Some(rate) = output.integer("OutputAudioSampleRate", 0..=96_000, faults)
        && rate != 0
        && !SAMPLE_RATES.contains(&rate)
    {
        faults.add(place, format!("{rate} is no sample rate"));
    }
    output.text("MixSei", TEXT_BYTES_MAX, faults);
    output.finish(faults);
    Some((name?.to_owned(), kind))
}

/// Numbers, whole or not, also written as texts.
fn numbers(fields: &mut Fields<'_>, names: &[&str], faults: &mut Faults) {
    for name in names {
        let place = fields.place_of(name);
        let is_number = match fields.take(name) {
            None | Some(Json::Number(_)) => true,
            Some(Json::Text(text)) => text.parse::<f64>().is_ok_and(f64::is_finite),
            Some(_) => false,
        };
        if !is_number {
            faults.add(place, "is not a number");
        }
    }
}
