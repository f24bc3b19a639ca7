//! Commands of the fleet that have a token: begun durably before they are done, answered durably after.
//! A token that comes again is answered with what was answered then, and nothing is done; what was
//! refused has changed nothing and may be tried again. One that was
//! begun and not answered, because the power went, is not done again either: what became of it is to be
//! looked up.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::service::{Changes, Kind, Refusal, Service};
use crate::domain::time::{ClockQuality, UnixMillis, WallTime};

/// Tokens that are remembered.
const TOKENS_MAX: usize = 1_024;
/// Longest answer that is remembered, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// The tokens.
#[derive(Debug, Clone, Default)]
pub struct FleetCommands(BTreeMap<String, Arc<Remembered>>);

/// What is known of a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    until_ms: i64,
    action: String,
    answer: Option<String>,
}

/// What came of a token before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// It is new.
    Nothing,
    /// It was answered like this.
    Answer(String),
}

impl FleetCommands {
    /// What came of a token before.
    ///
    /// # Errors
    /// It was for another action, or was begun and never answered.
    pub fn before(&self, token: &str, action: &str) -> Result<Before, Refusal> {
        let Some(known) = self.0.get(token) else { return Ok(Before::Nothing) };
        if known.action != action {
            let what = format!("ClientToken: was the one of an action {}", known.action);
            return Err(Refusal::new("InvalidParameter", what));
        }
        match &known.answer {
            Some(answer) => Ok(Before::Answer(answer.clone())),
            None => {
                let what =
                    "the command was begun once, and its answer is not known: look what it did";
                Err(Refusal::new("InternalError", what))
            }
        }
    }

    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let known = serde_json::from_str(content).map_err(|error| error.to_string())?;
        self.0.insert(key.to_owned(), Arc::new(known));
        Ok(())
    }
}

impl Service {
    /// A command with a new token begins.
    ///
    /// # Errors
    /// As many tokens are remembered as may be.
    pub fn begin_command(
        &mut self,
        token: &str,
        action: &str,
        until: UnixMillis,
        now: WallTime,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        if now.quality == ClockQuality::Trusted {
            self.fleet_commands.0.retain(|token, known| {
                let remembered = known.until_ms >= now.unix.0;
                if !remembered {
                    changes.delete(Kind::FleetCommand, token);
                }
                remembered
            });
        }
        if self.fleet_commands.0.len() >= TOKENS_MAX {
            let what = format!("the box remembers {TOKENS_MAX} commands already");
            return Err(Refusal::new("RequestLimitExceeded", what));
        }
        let known = Remembered { until_ms: until.0, action: action.to_owned(), answer: None };
        changes.put(Kind::FleetCommand, token, &known);
        self.fleet_commands.0.insert(token.to_owned(), Arc::new(known));
        Ok(())
    }

    /// A command was done and answered. A long answer is not remembered.
    pub fn end_command(&mut self, token: &str, answer: &str, changes: &mut Changes) {
        let Some(known) = self.fleet_commands.0.get_mut(token) else { return };
        if answer.len() > ANSWER_BYTES_MAX {
            return;
        }
        let answer = Some(answer.to_owned());
        *known = Arc::new(Remembered { answer, ..Remembered::clone(known) });
        changes.put(Kind::FleetCommand, token, &**known);
    }

    /// A command was refused, so that nothing has changed: it may be tried again.
    pub fn forget_command(&mut self, token: &str, changes: &mut Changes) {
        if self.fleet_commands.0.remove(token).is_some() {
            changes.delete(Kind::FleetCommand, token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix_ms: i64) -> WallTime {
        WallTime { unix: UnixMillis(unix_ms), quality: ClockQuality::Trusted }
    }

    fn begin(service: &mut Service, token: &str, until: i64, now: i64) -> Result<Changes, Refusal> {
        let mut changes = Changes::new();
        service.begin_command(token, "A", UnixMillis(until), at(now), &mut changes)?;
        Ok(changes)
    }

    #[test]
    fn a_token_is_done_once_also_over_a_restart() {
        let mut service = Service::default();
        assert_eq!(service.fleet_commands.before("t", "A"), Ok(Before::Nothing));
        let mut changes = begin(&mut service, "t", 100, 0).expect("room");
        let unanswered = service.fleet_commands.before("t", "A").expect_err("not answered");
        assert_eq!(unanswered.code, "InternalError");
        service.end_command("t", "{}", &mut changes);
        let last = changes.iter().last().expect("stored").clone();
        let mut restarted = Service::default();
        let content = last.content.expect("there");
        restarted.restore(last.kind, &last.key, &content).expect("own form");
        let before = restarted.fleet_commands.before("t", "A");
        assert_eq!(before, Ok(Before::Answer("{}".to_owned())));
        let other = restarted.fleet_commands.before("t", "B").expect_err("another action");
        assert_eq!(other.code, "InvalidParameter");
        restarted.forget_command("t", &mut changes);
        assert_eq!(restarted.fleet_commands.before("t", "B"), Ok(Before::Nothing));
    }

    #[test]
    fn only_so_many_are_remembered_and_none_longer_than_it_is_valid() {
        let mut service = Service::default();
        for number in 0..TOKENS_MAX {
            begin(&mut service, &number.to_string(), 100, 0).expect("room");
        }
        let full = begin(&mut service, "one more", 100, 100).expect_err("full");
        assert_eq!(full.code, "RequestLimitExceeded");
        let changes = begin(&mut service, "one more", 200, 101).expect("the others are over");
        assert_eq!(changes.iter().filter(|change| change.content.is_none()).count(), TOKENS_MAX);
    }
}
