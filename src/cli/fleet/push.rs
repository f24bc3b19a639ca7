//! `edgerec fleet push`: publishes a rule set under a revision above that of the one that is there.

use std::io::Write;

use crate::cli::fleet::document::{Press, There, read, revision, revision_for};
use crate::cli::fleet::scene::Scene;
use crate::cli::fleet::{Fleet, Push, check_box};
use crate::cli::outcome::{Failure, print};

/// Checks a rule set, gives it its revision, signs it and publishes it.
///
/// # Errors
/// It has faults, is older than what is there, would lose a signature, or cannot be published.
pub(super) async fn push(
    fleet: &Fleet<'_>,
    asked: &Push,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let box_id = asked.box_id.as_deref();
    box_id.map_or(Ok(()), check_box)?;
    let press = Press::new(fleet, &asked.signing)?;
    let wanted = read(&asked.file)?;
    let topic = fleet.topics.config(box_id);
    let mut scene = Scene::open(fleet, std::slice::from_ref(&topic)).await?;
    scene.check_signature(box_id, &press)?;
    // What nobody can read is nothing to keep.
    let there = scene.readable(box_id);
    let there = There { set: there.as_ref(), held: scene.newest_held(box_id) };
    let Some(revision) = revision_for(&wanted, there, press.signs())? else {
        let revision = revision(&wanted);
        return print(out, format_args!("{topic}: revision {revision} is there already"));
    };
    let text = press.text(&wanted, revision, box_id)?;
    let (bytes, by) = (text.len(), press.by());
    scene.publish(box_id, text).await?;
    print(out, format_args!("{topic}: revision {revision} is published, {bytes} bytes{by}"))
}
