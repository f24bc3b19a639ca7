//! What was told, for the delivery log of the API.

use rusqlite::{named_params, params};

use crate::domain::notice::Event;
use crate::domain::stream_key::percent_encode;
use crate::domain::time::UnixMillis;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;

/// Which notices are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The stream's name, whatever its domain and app.
    pub stream: String,
    /// Happened at this time or later.
    pub from: UnixMillis,
    /// Happened at this time or earlier.
    pub until: UnixMillis,
    /// Only of this kind.
    pub event: Option<Event>,
    /// Only those that were taken, or only those that were not.
    pub taken: Option<bool>,
    /// How many to leave out, the newest first.
    pub skip: u64,
    /// How many at most.
    pub most: u32,
}

/// A notice that was told, or that nobody took so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeRecord {
    /// When it happened.
    pub at: UnixMillis,
    /// To which stream, by its name alone.
    pub stream: String,
    /// `event_type`.
    pub event_number: u16,
    /// The body without `t` and `sign`.
    pub body: String,
    /// What the receiver answered at last, or why there was no answer.
    pub answer: String,
    /// When that was.
    pub answered: UnixMillis,
    /// Whether the receiver has it.
    pub taken: bool,
}

/// A page of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The newest first.
    pub records: Vec<NoticeRecord>,
    /// How many there are on all pages.
    pub total: u32,
}

impl CatalogState {
    /// Notices of a stream for which an attempt was made, the newest first.
    ///
    /// # Errors
    /// The database fails.
    pub fn notice_history(&self, query: &HistoryQuery) -> Result<HistoryPage, RingError> {
        self.read_history(query).map_err(RingError::catalog("reading what was told"))
    }

    fn read_history(&self, query: &HistoryQuery) -> rusqlite::Result<HistoryPage> {
        const WHICH: &str = "FROM notice WHERE attempts > 0 AND at_ms BETWEEN :from AND :until
             AND substr(stream, -length(:name)) = :name
             AND (:event IS NULL OR event_type = :event)
             AND (:taken IS NULL OR (state = 1) = :taken)";
        let name = format!("/{}", percent_encode(&query.stream));
        let event = query.event.map(Event::number);
        let total = self.db.prepare_cached(&format!("SELECT count(*) {WHICH}"))?.query_row(
            named_params! {":from": query.from.0, ":until": query.until.0, ":name": name,
            ":event": event, ":taken": query.taken},
            |row| row.get(0),
        )?;
        let mut select = self.db.prepare_cached(&format!(
            "SELECT at_ms, event_type, body, coalesce(answer, ''), coalesce(last_ms, at_ms),
             state = 1 {WHICH} ORDER BY seq DESC LIMIT :most OFFSET :skip"
        ))?;
        let skip = i64::try_from(query.skip).unwrap_or(i64::MAX);
        let rows = select.query_map(
            named_params! {":from": query.from.0, ":until": query.until.0, ":name": name,
            ":event": event, ":taken": query.taken, ":most": query.most, ":skip": skip},
            |row| {
                Ok(NoticeRecord {
                    at: UnixMillis(row.get(0)?),
                    stream: query.stream.clone(),
                    event_number: row.get(1)?,
                    body: row.get(2)?,
                    answer: row.get(3)?,
                    answered: UnixMillis(row.get(4)?),
                    taken: row.get(5)?,
                })
            },
        )?;
        Ok(HistoryPage { records: rows.collect::<rusqlite::Result<_>>()?, total })
    }

    /// How many notices wait, and how many were given up and are still known.
    ///
    /// # Errors
    /// The database fails.
    pub fn notice_counts(&self) -> Result<(u32, u32), RingError> {
        let count = |states: &str| {
            let text = format!("SELECT count(*) FROM notice WHERE state IN ({states})");
            self.db.prepare_cached(&text)?.query_row(params![], |row| row.get(0))
        };
        let counts = || Ok((count("0, 3")?, count("2")?));
        counts().map_err(RingError::catalog("counting notices"))
    }
}
