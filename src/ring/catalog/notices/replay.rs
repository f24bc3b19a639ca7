//! The outbox from a cursor: every event from a number on that is still kept, told or not.

use rusqlite::params;

use crate::domain::notice::{NoticeSeq, without_push_secret};
use crate::domain::time::UnixMillis;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::notices::NOBODY;
use crate::ring::catalog::rows::{sql, unsql};

/// How a reader stands to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// It is not told of it.
    No,
    /// It has not got it yet.
    Waits,
    /// It has it.
    Has,
    /// It never got it, and will not.
    GivenUp,
}

impl Reader {
    /// The word of reports; `None`: it is no reader.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Reader::No => None,
            Reader::Waits => Some("waits"),
            Reader::Has => Some("told"),
            Reader::GivenUp => Some("given_up"),
        }
    }

    fn of_receiver(state: u8) -> Reader {
        match state {
            1 => Reader::Has,
            2 => Reader::GivenUp,
            NOBODY => Reader::No,
            _ => Reader::Waits,
        }
    }

    fn of_fleet(state: u8) -> Reader {
        match state {
            1 => Reader::Waits,
            2 => Reader::Has,
            _ => Reader::No,
        }
    }
}

/// An event as the outbox keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Its number.
    pub seq: NoticeSeq,
    /// `event_type`.
    pub number: u16,
    /// When it happened.
    pub at: UnixMillis,
    /// The stream key; empty for what is of no stream.
    pub stream: String,
    /// What it says, as JSON text, without the signature of an attempt and the secret of a push.
    pub body: String,
    /// The receiver of its notices.
    pub receiver: Reader,
    /// The fleet.
    pub fleet: Reader,
}

impl CatalogState {
    /// Events from a number on, in order; at most `most`.
    ///
    /// # Errors
    /// The database fails.
    pub fn events_from(&self, from: NoticeSeq, most: u32) -> Result<Vec<EventRecord>, RingError> {
        self.db
            .prepare_cached(
                "SELECT seq, event_type, at_ms, stream, body, state, fleet FROM notice
                 WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
            )
            .and_then(|mut query| {
                let rows = query.query_map(params![sql(from.0), most], |row| {
                    Ok(EventRecord {
                        seq: NoticeSeq(unsql(row.get(0)?)),
                        number: row.get(1)?,
                        at: UnixMillis(row.get(2)?),
                        stream: row.get(3)?,
                        body: without_push_secret(row.get(4)?),
                        receiver: Reader::of_receiver(row.get(5)?),
                        fleet: Reader::of_fleet(row.get(6)?),
                    })
                })?;
                rows.collect()
            })
            .map_err(RingError::catalog("reading the outbox"))
    }

    /// The outbox that numbers are of: another one once the catalog was lost.
    ///
    /// # Errors
    /// The database fails.
    pub fn outbox_id(&self) -> Result<String, RingError> {
        self.db
            .prepare_cached("SELECT id FROM outbox")
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .map_err(RingError::catalog("reading which outbox it is"))
    }
}
