//! What the control socket tells beside the ring: decisions by the rules in force and by the
//! sessions that are live, and transfers under way.

use std::sync::Arc;

use crate::api::control::Decisions;
use crate::api::report::{ExplainReport, Transfer};
use crate::delivery::board::{Board, Standing};
use crate::domain::ids::FileId;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;
use crate::platform::clock::Clock;
use crate::recorder::live::LiveTable;
use crate::recorder::rules::RulesInForce;

/// The box's own knowledge, for reports.
pub(super) struct BoxDecisions {
    pub(super) rules: RulesInForce,
    pub(super) live: Arc<LiveTable>,
    pub(super) board: Option<Arc<Board>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Decisions for BoxDecisions {
    fn explain(&self, key: &StreamKey, _at: Option<UnixMillis>) -> ExplainReport {
        let now = self.rules.load().table.resolve(key);
        // A live session keeps what it began with.
        let Some(live) = self.live.get(key) else { return ExplainReport::of_rules(key, &now) };
        let mut report = ExplainReport::of_rules(key, &live.decision);
        report.stale = !live.decision.same_content(&now);
        if report.stale {
            report.reason = format!(
                "the live session began under older rules: {}; the next session: {}",
                report.reason,
                now.reason()
            );
        }
        report
    }

    fn transfer(&self, file: FileId) -> Option<Transfer> {
        let board = self.board.as_ref()?;
        Some(match board.standing(file, self.clock.now().boot) {
            Standing::Uploading { bytes } => Transfer::Moving { bytes },
            Standing::Queued { why } => Transfer::Waiting { why },
        })
    }
}
