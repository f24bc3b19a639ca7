//! Notices that wait, lane by lane, and what became of attempts to tell them.
//!
//! A lane is one stream and one receiver (scheme, host and port). Inside a lane notices go out in
//! their order; only the first is ready. One that its receiver refuses for longer than the
//! contract would try waits aside, so that an address that is wrong for one event does not hold up
//! the others for days; a receiver that cannot be reached holds up its lane.

use std::collections::HashSet;

use rusqlite::{Row, params};

use crate::domain::address::Address;
use crate::domain::notice::{Event, NoticeSeq};
use crate::domain::secret::Secret;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::rows::{sql, unsql};

/// Waiting notices of one stream that are looked at: receivers further behind wait for those
/// before them.
const LOOK_AHEAD: u32 = 32;
/// Notices aside that are ready at the same time; those whose last attempt is longest ago.
const ASIDE_MAX: u32 = 64;

/// A notice that is ready to be told.
#[derive(Debug, Clone)]
pub struct WaitingNotice {
    /// Its number.
    pub seq: NoticeSeq,
    /// The stream.
    pub key: StreamKey,
    /// What it tells.
    pub event: Event,
    /// The body without `t` and `sign`, as JSON text.
    pub body: String,
    /// Attempts that failed.
    pub attempts: u32,
    /// The receiver: as the rules say now, else as they said when it happened.
    pub url: Address,
    /// The key of the signature; empty for none.
    pub sign_key: Secret,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it ended.
    pub at: UnixMillis,
    /// What follows.
    pub verdict: Verdict,
    /// What the receiver answered, or why there was no answer.
    pub answer: String,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has it.
    Taken,
    /// It is tried again, before those behind it.
    Again,
    /// It is tried again, and lets those behind it pass.
    Aside,
    /// It is tried no more.
    GivenUp,
}

impl Verdict {
    /// The state in the table.
    fn state(self) -> u8 {
        match self {
            Verdict::Again => 0,
            Verdict::Taken => 1,
            Verdict::GivenUp => 2,
            Verdict::Aside => 3,
        }
    }
}

impl CatalogState {
    /// The first notice of each lane, and those that wait aside.
    ///
    /// # Errors
    /// The database fails.
    pub fn waiting_notices(&self) -> Result<Vec<WaitingNotice>, RingError> {
        self.read_waiting().map_err(RingError::catalog("reading the outbox"))
    }

    /// Keeps what became of an attempt.
    ///
    /// # Errors
    /// The database fails.
    pub fn note_attempt(&mut self, seq: NoticeSeq, attempt: &Attempt) -> Result<(), RingError> {
        let state = attempt.verdict.state();
        self.db
            .prepare_cached(
                "UPDATE notice SET state = ?2, attempts = attempts + 1, last_ms = ?3, answer = ?4
                 WHERE seq = ?1",
            )
            .and_then(|mut update| {
                update.execute(params![sql(seq.0), state, attempt.at.0, attempt.answer])
            })
            .map(drop)
            .map_err(RingError::catalog("keeping an attempt to tell a notice"))
    }

    fn read_waiting(&self) -> rusqlite::Result<Vec<WaitingNotice>> {
        const COLUMNS: &str = "seq, stream, event_type, body, attempts, url, key FROM notice";
        let mut ready = Vec::new();
        let mut streams = self.db.prepare_cached(
            "WITH RECURSIVE lane (stream) AS (
                 SELECT min(stream) FROM notice WHERE state = 0
                 UNION ALL SELECT (SELECT min(stream) FROM notice
                                   WHERE state = 0 AND stream > lane.stream)
                 FROM lane WHERE lane.stream IS NOT NULL)
             SELECT stream FROM lane WHERE stream IS NOT NULL",
        )?;
        let streams: Vec<String> =
            streams.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let mut query = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} WHERE state = 0 AND stream = ?1 ORDER BY seq LIMIT ?2"
        ))?;
        for stream in streams {
            let mut receivers = HashSet::new();
            let rows = query.query_map(params![stream, LOOK_AHEAD], |row| self.waiting(row))?;
            for notice in rows {
                let notice = notice?;
                if receivers.insert(notice.url.origin()) {
                    ready.push(notice);
                }
            }
        }
        let mut aside = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} WHERE state = 3 ORDER BY last_ms LIMIT ?1"
        ))?;
        for notice in aside.query_map([ASIDE_MAX], |row| self.waiting(row))? {
            ready.push(notice?);
        }
        Ok(ready)
    }

    fn waiting(&self, row: &Row<'_>) -> rusqlite::Result<WaitingNotice> {
        let failed = |at: usize, error: Box<dyn std::error::Error + Send + Sync>| {
            rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, error)
        };
        let stream: String = row.get(1)?;
        let key: StreamKey = stream.parse().map_err(|error| failed(1, Box::new(error)))?;
        let number: u16 = row.get(2)?;
        let event = Event::from_number(number)
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(2, i64::from(number)))?;
        let (url, sign_key) = if let Some(now) = self.notice_destination(&key, event) {
            (now.url, now.key)
        } else {
            let stored: String = row.get(5)?;
            let url = Address::parse(&stored, &["http", "https"])
                .map_err(|error| failed(5, Box::new(error)))?;
            (url, Secret::new(&row.get::<_, String>(6)?))
        };
        Ok(WaitingNotice {
            seq: NoticeSeq(unsql(row.get(0)?)),
            key,
            event,
            body: row.get(3)?,
            attempts: row.get(4)?,
            url,
            sign_key,
        })
    }
}
