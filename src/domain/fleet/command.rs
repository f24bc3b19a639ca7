//! A command of the fleet as it arrives: an action of the API as a JSON object, signed where keys are
//! set. Beside the action's own members it may have a `ClientToken`, by which it is done once however
//! often it comes, and the members that say for whom it is and until when.
//!
//! A signed command must have all of them, and may be sent again for no longer than its token is
//! remembered: else whoever has heard it could have it done again.

use crate::domain::document::{Fields, Json};
use crate::domain::faults::{FaultKind, Faults};
use crate::domain::fleet::document::Gate;
use crate::domain::fleet::refused::{Refused, Why};
use crate::domain::rule_set::read_scope;
use crate::domain::service::layers::SentLayer;
use crate::domain::time::{ClockQuality, UnixMillis, WallTime};

/// Longest command, its wrapping included, in bytes.
pub const COMMAND_BYTES_MAX: usize = 64 << 10;
/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 64;
/// A signed command is valid no longer than this, in milliseconds.
const VALID_MS_MAX: i64 = 24 * 3_600_000;
/// How long the token of an unsigned one is remembered, in milliseconds.
const UNSIGNED_REMEMBERED_MS: i64 = 3_600_000;

/// A command that is for this box, and signed where it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The whole JSON object.
    pub payload: Vec<u8>,
    /// By which it is done once.
    pub token: Option<String>,
    /// How long that is remembered.
    pub until: UnixMillis,
}

impl Command {
    /// Members that are not the action's own.
    pub const MEMBERS: [&'static str; 4] = ["fleet", "box", "expires", "ClientToken"];
}

impl Gate {
    /// Opens a command.
    ///
    /// # Errors
    /// Why it is not done.
    pub fn open_command(&self, bytes: &[u8], now: WallTime) -> Result<Command, Refused> {
        let refuse = |place: &str, what: &str| Refused::new(Why::Malformed, None, place, what);
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(refuse("", "is longer than a command may be"));
        }
        let payload = self.payload(bytes)?;
        let json = Json::parse(&payload, COMMAND_BYTES_MAX)
            .map_err(|fault| refuse(&fault.place, &fault.what))?;
        let mut faults = Faults::new();
        let fields = Fields::open(&json, "", &mut faults);
        let (scope, token) = fields.map_or_else(Default::default, |mut fields| {
            let token = fields.text("ClientToken", TOKEN_BYTES_MAX, &mut faults);
            (read_scope(&mut fields, &mut faults), token.map(ToOwned::to_owned))
        });
        if self.is_signed() && token.is_none() {
            let what = "is missing in what is signed";
            faults.add_kind(FaultKind::Missing, "ClientToken", what);
        }
        if !faults.is_empty() {
            return Err(Refused { why: Why::Malformed, revision: None, faults });
        }
        self.check_scope(SentLayer::Box, &scope, now)?;
        let until = match scope.expires.filter(|_| self.is_signed()) {
            None => now.unix.0.saturating_add(UNSIGNED_REMEMBERED_MS),
            Some(_) if now.quality == ClockQuality::Untrusted => {
                let what = "cannot be judged: the clock of the box is not set";
                return Err(Refused::new(Why::Expired, None, "expires", what));
            }
            Some(expires) if expires.0.saturating_sub(now.unix.0) > VALID_MS_MAX => {
                return Err(refuse("expires", "is more than a day away"));
            }
            Some(expires) => expires.0,
        };
        Ok(Command { payload: payload.into_owned(), token, until: UnixMillis(until) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::fleet::document::Addressee;
    use crate::domain::fleet::keyring::Keyring;
    use crate::domain::fleet::keyring::tests::{pair, public, wrapped};

    const NOW: WallTime =
        WallTime { unix: UnixMillis(1_800_000_000_000), quality: ClockQuality::Trusted };

    fn gate(keys: &[u8]) -> Gate {
        let addressee = Addressee { fleet: "venue".into(), box_id: "box-01".into() };
        Gate::new(addressee, Keyring::new(keys.iter().map(|n| public(&pair(*n))).collect()))
    }

    fn whole() -> Value {
        json!({"Action": "A", "X": 1, "ClientToken": "t", "fleet": "venue", "box": "box-01",
               "expires": 1_800_000_060})
    }

    #[test]
    fn an_unsigned_command_needs_nothing_and_is_for_us_where_it_says_for_whom() {
        let gate = gate(&[]);
        let command = gate.open_command(br#"{"Action": "A"}"#, NOW).expect("taken");
        assert_eq!((command.token, command.until), (None, UnixMillis(1_800_003_600_000)));
        let command = gate.open_command(whole().to_string().as_bytes(), NOW).expect("taken");
        assert_eq!(command.token.as_deref(), Some("t"));
        for (bad, why) in [
            (r#"{"Action": "A", "box": "box-02"}"#, Why::Foreign),
            (r#"{"Action": "A", "expires": 1}"#, Why::Expired),
            (r#"{"Action": "A", "ClientToken": 7}"#, Why::Malformed),
            (r#"{"Action": "A", "Action": "A"}"#, Why::Malformed),
            ("[]", Why::Malformed),
            (&" ".repeat(COMMAND_BYTES_MAX + 1), Why::Malformed),
        ] {
            let refused = gate.open_command(bad.as_bytes(), NOW).expect_err(bad);
            assert_eq!(refused.why, why, "{bad:.60}");
        }
    }

    #[test]
    fn a_signed_command_says_everything_and_is_not_valid_for_long() {
        let gate = gate(&[1]);
        let open = |payload: &Value, now| {
            gate.open_command(wrapped(&pair(1), &payload.to_string()).as_bytes(), now)
        };
        let command = open(&whole(), NOW).expect("taken");
        assert_eq!(command.until, UnixMillis(1_800_000_060_000));
        for member in Command::MEMBERS {
            let mut less = whole();
            less.as_object_mut().expect("members").remove(member);
            assert_eq!(open(&less, NOW).expect_err(member).why, Why::Malformed);
        }
        let mut long = whole();
        long["expires"] = json!(1_800_000_000 + 86_401);
        assert_eq!(open(&long, NOW).expect_err("long").why, Why::Malformed);
        let unset = WallTime { quality: ClockQuality::Untrusted, ..NOW };
        assert_eq!(open(&whole(), unset).expect_err("no clock").why, Why::Expired);
        let unsigned = gate.open_command(whole().to_string().as_bytes(), NOW);
        assert_eq!(unsigned.expect_err("unsigned").why, Why::Unsigned);
    }
}
