//! Recording rules: Create, Delete and Describe LiveRecordRule(s).
//!
//! An AppName that is not given is `live`, an empty one is a wildcard; DomainName must be given, and
//! an empty one is a wildcard too, which the cloud does not take. Rules of all layers are shown, each
//! with its layer in a member `Layer` of our own.

use serde_json::{Map, Value, json};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::templates::read_number;
use crate::api::cloud::{Answer, CloudDesk};
use crate::domain::document::Fields;
use crate::domain::faults::Faults;
use crate::domain::limits::STREAM_KEY_PART_BYTES_MAX;
use crate::domain::rule_set::{APP_DEFAULT, Pattern};
use crate::domain::service::Refusal;

/// Answers an action of this family.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    Some(match action {
        "CreateLiveRecordRule" => create(desk, params).await,
        "DeleteLiveRecordRule" => delete(desk, params).await,
        "DescribeLiveRecordRules" => describe(desk, params),
        _ => return None,
    })
}

/// The three parts of a rule's pattern.
fn read_pattern(fields: &mut Fields<'_>, faults: &mut Faults) -> Pattern {
    let domain = fields.required_text("DomainName", STREAM_KEY_PART_BYTES_MAX, faults);
    let app = fields.text("AppName", STREAM_KEY_PART_BYTES_MAX, faults);
    let stream = fields.text("StreamName", STREAM_KEY_PART_BYTES_MAX, faults);
    Pattern::new(domain.unwrap_or(""), app.unwrap_or(APP_DEFAULT), stream.unwrap_or(""))
}

/// A domain is a host name or an address.
fn check_domain(pattern: &Pattern) -> Result<(), Refusal> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if pattern.domain().chars().all(plain) {
        return Ok(());
    }
    let what = "DomainName: is no host name";
    Err(Refusal::new("InvalidParameter.DomainFormatError", what))
}

async fn create(desk: &CloudDesk, params: &Params) -> Answer {
    let (pattern, number) = params.read(Codes::Full, |fields, faults| {
        (read_pattern(fields, faults), read_number(fields, faults))
    })?;
    check_domain(&pattern)?;
    let (limits, now) = (desk.limits.clone(), desk.clock.now().wall.unix);
    desk.change(move |service, changes| {
        service.layers.create_rule(pattern, number, now, &limits, changes)
    })
    .await?;
    Ok(Map::new())
}

async fn delete(desk: &CloudDesk, params: &Params) -> Answer {
    let pattern = params.read(Codes::Full, read_pattern)?;
    check_domain(&pattern)?;
    desk.change(move |service, changes| service.layers.delete_rule(&pattern, changes)).await?;
    Ok(Map::new())
}

fn describe(desk: &CloudDesk, params: &Params) -> Answer {
    params.read(Codes::Full, |_, _| ())?;
    let rules = desk.service.load().layers.rules();
    let shown = |rule: &crate::domain::service::layers::ShownRule| {
        json!({
            "CreateTime": rule.created.civil_text(),
            "UpdateTime": rule.created.civil_text(),
            "TemplateId": rule.template.map_or(0, |number| number.0),
            "DomainName": rule.pattern.domain(),
            "AppName": rule.pattern.app(),
            "StreamName": rule.pattern.stream(),
            "Layer": rule.layer.to_string(),
        })
    };
    let rules: Vec<Value> = rules.iter().map(shown).collect();
    Ok(Map::from_iter([("Rules".to_owned(), Value::Array(rules))]))
}
