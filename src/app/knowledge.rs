//! What the control socket tells beside the ring: the decisions about live sessions, and transfers
//! under way.

use std::sync::Arc;

use crate::api::control::BoxKnowledge;
use crate::api::report::{Moving, Transfer};
use crate::delivery::board::{Asked, Board, Standing};
use crate::domain::matching::Decision;
use crate::domain::stream_key::StreamKey;
use crate::platform::clock::Clock;
use crate::recorder::live::LiveTable;
use crate::ring::catalog::files::FileRecord;

/// The box's own knowledge, for reports.
pub(super) struct Knowledge {
    pub(super) live: Arc<LiveTable>,
    pub(super) board: Option<Arc<Board>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl BoxKnowledge for Knowledge {
    fn decision(&self, key: &StreamKey) -> Option<Decision> {
        self.live.get(key).map(|live| live.decision)
    }

    fn transfer(&self, file: &FileRecord) -> Option<Transfer> {
        let board = self.board.as_ref()?;
        let asked = Asked { file: file.id, template: &file.template, urgent: file.urgent };
        Some(match board.standing(&asked, self.clock.now().boot) {
            Standing::Uploading(going) => Transfer::Moving(Moving {
                bytes: going.bytes,
                bytes_per_s: going.bytes_per_s,
                left_s: going.left_s,
            }),
            Standing::Queued { why } => Transfer::Waiting { why },
        })
    }
}
