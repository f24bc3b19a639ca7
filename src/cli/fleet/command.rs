//! `edgerec fleet command`: an action of the API for one box, over the broker.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::fleet::{Fleet, Order, check_box, failed, signer};
use crate::cli::outcome::{Failure, print_json};
use crate::fleet::operator::Question;
use crate::platform::random::random_u64;

/// Sends the command and prints what the box answers.
///
/// # Errors
/// The box does not answer in time, or with an error.
pub(super) async fn command(
    fleet: &Fleet<'_>,
    order: &Order,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    check_box(&order.box_id)?;
    let mut action: Value = serde_json::from_str(&order.action)
        .map_err(|error| Failure::Usage(format!("the action is no JSON: {error}")))?;
    if !action["Action"].is_string() {
        return Err(Failure::Usage("the action has no \"Action\"".to_owned()));
    }
    let mark = format!("{:016x}", random_u64());
    // The box does it once, however often the broker delivers it.
    if action["ClientToken"].is_null() {
        action["ClientToken"] = json!(mark);
    }
    let lasts = Duration::from_secs(order.within.into());
    let text = match &order.sign_key {
        None => action.to_string(),
        Some(path) => {
            fleet.address(&mut action, Some(&order.box_id), lasts);
            signer(path)?.wrap(&action.to_string())
        }
    };
    let until = Instant::now() + lasts;
    let mut operator = fleet.connect().await?;
    let answer_to = fleet.topics.answers(&mark);
    operator.listen(std::slice::from_ref(&answer_to)).await.map_err(failed)?;
    let correlation = Bytes::from(mark);
    let question =
        Question { answer_to, correlation: correlation.clone(), expires_s: order.within.max(1) };
    let topic = fleet.topics.command(&order.box_id);
    operator.ask(&topic, text, question).await.map_err(failed)?;
    loop {
        let Some(heard) = operator.hear(until).await.map_err(failed)? else {
            let what = format!("{} did not answer within {} s", order.box_id, order.within);
            return Err(Failure::failed(what));
        };
        if heard.correlation.as_ref() != Some(&correlation) {
            continue;
        }
        let answer: Value = serde_json::from_slice(&heard.payload)
            .map_err(|_| Failure::failed("the box gave an answer that is no JSON"))?;
        print_json(out, &answer)?;
        let refused = !answer["Response"]["Error"].is_null();
        return if refused { Err(Failure::Said(Failure::FAILED)) } else { Ok(()) };
    }
}
