//! The keys of push domains: ModifyLivePushAuthKey, DescribeLivePushAuthKey.
//!
//! Any domain may be asked about: the box has no list of its own. One without keys of its own shows
//! the key of the configuration, as that is what its pushes are made with. A MasterAuthKey that is
//! given empty stands for that key too.

use serde_json::{Map, json};

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::{Answer, CloudDesk};
use crate::domain::document::Fields;
use crate::domain::faults::Faults;
use crate::domain::limits::STREAM_KEY_PART_BYTES_MAX;
use crate::domain::secret::Secret;
use crate::domain::service::push_keys::PushKeyEdit;

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Answers an action of this family.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    match action {
        "ModifyLivePushAuthKey" => Some(modify(desk, params).await),
        "DescribeLivePushAuthKey" => Some(describe(desk, params)),
        _ => None,
    }
}

async fn modify(desk: &CloudDesk, params: &Params) -> Answer {
    let (domain, edit) = params.read(Codes::Full, |fields, faults| {
        let domain = domain(fields, faults);
        let enabled = fields.integer("Enable", 0..=1, faults).map(|enable| enable == 1);
        let mut key = |name| fields.text(name, KEY_BYTES_MAX, faults).map(Secret::new);
        let (master, backup) = (key("MasterAuthKey"), key("BackupAuthKey"));
        let delta_s = fields
            .integer("AuthDelta", 0..=i64::from(u32::MAX), faults)
            .map(|seconds| u32::try_from(seconds).expect("inside the range"));
        (domain, PushKeyEdit { enabled, master, backup, delta_s })
    })?;
    let configured = desk.push_key.clone();
    desk.change(move |service, changes| {
        service.push_keys.edit(&domain, edit, &configured, changes)
    })
    .await?;
    Ok(Map::new())
}

fn describe(desk: &CloudDesk, params: &Params) -> Answer {
    let domain = params.read(Codes::Full, domain)?;
    let keys = desk.service.load().push_keys.of(&domain, &desk.push_key);
    let info = json!({
        "DomainName": domain,
        "Enable": i32::from(keys.enabled),
        "MasterAuthKey": keys.master.expose(),
        "BackupAuthKey": keys.backup.expose(),
        "AuthDelta": keys.delta_s,
    });
    Ok(Map::from_iter([("PushAuthKeyInfo".to_owned(), info)]))
}

fn domain(fields: &mut Fields<'_>, faults: &mut Faults) -> String {
    let domain = fields.required_text("DomainName", STREAM_KEY_PART_BYTES_MAX, faults);
    if domain == Some("") {
        faults.add("DomainName", "is empty");
    }
    domain.unwrap_or_default().to_owned()
}
