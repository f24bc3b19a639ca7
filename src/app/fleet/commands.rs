//! Commands of the fleet: actions of the API that come over the link. What changes something and has a
//! token is done once; what only asks is simply answered.

use bytes::Bytes;
use tracing::error;

use crate::api::cloud::{Answer, CloudDesk};
use crate::domain::fleet::command::Command;
use crate::domain::fleet::document::Gate;
use crate::domain::fleet::refused::{Refused, Why};
use crate::domain::service::Refusal;
use crate::domain::service::fleet_commands::Before;
use crate::domain::time::WallTime;
use crate::platform::random::random_bytes;
use crate::wire::cloud::envelope::{self, ActionRequest};

/// Does what a command asks; gives the body of the answer.
pub(super) async fn answer(gate: &Gate, desk: &CloudDesk, bytes: Bytes, now: WallTime) -> Vec<u8> {
    let command = match gate.open_command(&bytes, now) {
        Ok(command) => command,
        Err(refused) => return body(Err(refusal(&refused))),
    };
    let request = match request(&command) {
        Ok(request) => request,
        Err(refusal) => return body(Err(refusal)),
    };
    match command.token.clone().filter(|_| changes_something(&request.action)) {
        Some(token) => once(desk, &command, token, request, now).await,
        None => body(desk.act(request).await),
    }
}

/// Does a command that has a token, unless that was done before.
async fn once(
    desk: &CloudDesk,
    command: &Command,
    token: String,
    request: ActionRequest,
    now: WallTime,
) -> Vec<u8> {
    let (action, until) = (request.action.clone(), command.until);
    let begins = token.clone();
    let begun = desk.change(move |service, changes| {
        let before = service.fleet_commands.before(&begins, &action)?;
        if before == Before::Nothing {
            service.begin_command(&begins, &action, until, now, changes)?;
        }
        Ok(before)
    });
    match begun.await {
        Ok(Before::Nothing) => {}
        Ok(Before::Answer(answer)) => return answer.into_bytes(),
        Err(refusal) => return body(Err(refusal)),
    }
    let done = desk.act(request).await;
    let refused = done.is_err();
    let answer = body(done);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let ended = desk.change(move |service, changes| {
        if refused {
            service.forget_command(&token, changes);
        } else {
            service.end_command(&token, &text, changes);
        }
        Ok(())
    });
    if let Err(problem) = ended.await {
        error!(%problem, "the answer to a command could not be stored");
    }
    answer
}

/// The action that a command names, without what is not its own.
fn request(command: &Command) -> Result<ActionRequest, Refusal> {
    let mut request = ActionRequest::from_json(&command.payload)
        .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    for member in Command::MEMBERS {
        request.parameters.shift_remove(member);
    }
    Ok(request)
}

/// Actions that only ask need not be remembered.
fn changes_something(action: &str) -> bool {
    !["Describe", "Explain"].iter().any(|asks| action.starts_with(asks))
}

fn refusal(refused: &Refused) -> Refusal {
    let code = match refused.why {
        Why::Unsigned | Why::BadSignature => "AuthFailure.SignatureFailure",
        Why::Expired => "AuthFailure.SignatureExpire",
        Why::Foreign => "AuthFailure.UnauthorizedOperation",
        Why::Empty | Why::Malformed | Why::Older | Why::OtherContent | Why::StreamsFail => {
            "InvalidParameter"
        }
    };
    Refusal::new(code, refused.faults.to_string())
}

fn body(answer: Answer) -> Vec<u8> {
    let id = envelope::request_id(random_bytes());
    match answer {
        Ok(members) => envelope::answer(members, &id),
        Err(refusal) => envelope::error_answer(refusal.code, &refusal.message, &id),
    }
}
