//! `edgerec fleet push`: publishes a rule set under a revision above that of the one that is there.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::cli::fleet::document::{Press, read, revision, revision_for, unwrapped};
use crate::cli::fleet::{Fleet, Push, check_box, failed};
use crate::cli::outcome::{Failure, print};
use crate::fleet::operator::Operator;

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
    let box_id = asked.box_id.as_deref();
    box_id.map_or(Ok(()), check_box)?;
    let press = Press::new(fleet, &asked.signing)?;
    let wanted = read(&asked.file)?;
    let mut operator = fleet.connect().await?;
    let topic = fleet.topics.config(box_id);
    let there = published(&mut operator, &topic).await?;
    let Some(revision) = revision_for(&wanted, there.as_ref())? else {
        let revision = revision(&wanted);
        return print(out, format_args!("{topic}: revision {revision} is there already"));
    };
    let text = press.text(&wanted, revision, box_id)?;
    let (bytes, by) = (text.len(), press.by());
    operator.keep(&topic, text).await.map_err(failed)?;
    print(out, format_args!("{topic}: revision {revision} is published, {bytes} bytes{by}"))
}

/// The rule set that the broker keeps on a topic.
async fn published(operator: &mut Operator, topic: &str) -> Result<Option<Value>, Failure> {
    operator.listen(&[topic.to_owned()]).await.map_err(failed)?;
    let heard = operator.hear(Instant::now() + KEPT_WITHIN).await.map_err(failed)?;
    heard.map_or(Ok(None), |heard| unwrapped(topic, &heard.payload))
}
