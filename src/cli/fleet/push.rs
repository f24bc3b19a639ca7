//! `edgerec fleet push`: publishes a rule set under a revision above that of the one that is there.

use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::fleet::{Fleet, Push, check_box, failed, signer};
use crate::cli::outcome::{Failure, print};
use crate::domain::rule_set::RuleSet;
use crate::fleet::operator::{DOCUMENT_BYTES_MAX, Operator};

/// A broker sends what it keeps right after it lets us listen; after this time there is nothing.
const KEPT_WITHIN: Duration = Duration::from_secs(2);

/// Checks a rule set, gives it its revision, signs it and publishes it.
///
/// # Errors
/// It has faults, is older than what is there, or cannot be published.
pub(super) async fn push(
    fleet: &Fleet<'_>,
    asked: &Push,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    asked.box_id.as_deref().map_or(Ok(()), check_box)?;
    let signer = asked.sign_key.as_deref().map(signer).transpose()?;
    let mut wanted = read(asked)?;
    let mut operator = fleet.connect().await?;
    let topic = fleet.topics.config(asked.box_id.as_deref());
    let there = published(&mut operator, &topic).await?;
    let Some(revision) = revision_for(&wanted, there.as_ref())? else {
        return print(
            out,
            format_args!("{topic}: revision {} is there already", revision(&wanted)),
        );
    };
    wanted["revision"] = json!(revision);
    let mut text = wanted.to_string();
    let mut by = String::new();
    if let Some(signer) = &signer {
        let lasts = Duration::from_secs(u64::from(asked.valid_days) * 86_400);
        fleet.address(&mut wanted, asked.box_id.as_deref(), lasts);
        text = signer.wrap(&wanted.to_string());
        by = format!(", signed by {}", signer.public_key().id());
    }
    if text.len() > DOCUMENT_BYTES_MAX {
        let what = format!("it has {} bytes, boxes take {DOCUMENT_BYTES_MAX}", text.len());
        return Err(Failure::failed(what));
    }
    let bytes = text.len();
    operator.keep(&topic, text).await.map_err(failed)?;
    print(out, format_args!("{topic}: revision {revision} is published, {bytes} bytes{by}"))
}

/// The rule set of the file, whole and right.
fn read(asked: &Push) -> Result<Value, Failure> {
    let path = asked.file.display();
    let bytes = std::fs::read(&asked.file)
        .map_err(|error| Failure::failed(format!("{path} cannot be read: {error}")))?;
    RuleSet::parse(&bytes)
        .map_err(|faults| Failure::Configuration(format!("{path} cannot be used:\n{faults}")))?;
    Ok(serde_json::from_slice(&bytes).expect("a rule set is JSON"))
}

/// The rule set that the broker keeps on a topic, without its wrapping.
async fn published(operator: &mut Operator, topic: &str) -> Result<Option<Value>, Failure> {
    operator.listen(&[topic.to_owned()]).await.map_err(failed)?;
    let heard = operator.hear(Instant::now() + KEPT_WITHIN).await.map_err(failed)?;
    let Some(heard) = heard.filter(|heard| !heard.payload.is_empty()) else { return Ok(None) };
    let unreadable = || Failure::failed(format!("{topic}: what is there is no rule set"));
    let said: Value = serde_json::from_slice(&heard.payload).map_err(|_| unreadable())?;
    let Some(wrapped) = said["payload"].as_str() else { return Ok(Some(said)) };
    let payload = STANDARD.decode(wrapped).map_err(|_| unreadable())?;
    serde_json::from_slice(&payload).map(Some).map_err(|_| unreadable())
}

fn revision(set: &Value) -> u64 {
    set["revision"].as_u64().unwrap_or(0)
}

/// The revision to publish under; `None`: the same is there already.
fn revision_for(wanted: &Value, there: Option<&Value>) -> Result<Option<u64>, Failure> {
    let given = revision(wanted);
    let Some(there) = there else { return Ok(Some(given)) };
    let newest = revision(there);
    if given < newest {
        let what = format!(
            "revision {given} is older than {newest}, which is published; to go back to old \
             content give it a revision from {newest} on"
        );
        return Err(Failure::failed(what));
    }
    match (given > newest, content(wanted) == content(there)) {
        (true, _) => Ok(Some(given)),
        (false, true) => Ok(None),
        (false, false) => Ok(Some(newest + 1)),
    }
}

/// What a rule set says, whatever its revision and for whomever it was signed.
fn content(set: &Value) -> Value {
    let mut content = set.clone();
    if let Some(members) = content.as_object_mut() {
        for name in ["revision", "fleet", "box", "expires"] {
            members.remove(name);
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_grow_with_the_content_and_never_go_back() {
        let set = |revision: u64, rules: u64| json!({"revision": revision, "rules": rules});
        let signed = json!({"revision": 7, "rules": 1, "fleet": "v", "expires": "t"});
        let of = |wanted: &Value, there: &Value| revision_for(wanted, Some(there));
        assert_eq!(revision_for(&set(3, 1), None), Ok(Some(3)));
        assert_eq!(of(&set(8, 1), &set(7, 1)), Ok(Some(8)));
        assert_eq!(of(&set(7, 2), &set(7, 1)), Ok(Some(8)));
        assert_eq!(of(&set(7, 1), &set(7, 1)), Ok(None));
        assert_eq!(of(&set(7, 1), &signed), Ok(None));
        let refused = of(&set(6, 1), &set(7, 1)).expect_err("older");
        assert!(refused.text().is_some_and(|text| text.contains("6 is older than 7")));
    }
}
