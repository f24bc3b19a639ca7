//! The ledger of gaps that the watch over each stream enters, and what was decided about streams
//! when: what `explain` looks back at.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::domain::due::GapEntry;
use crate::domain::ids::BootId;
use crate::domain::matching::Decision;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{ClockQuality, Moment, UnixMillis};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::rows::{sql, stream_id};

/// Decisions that are kept; the oldest go.
const DECISIONS_MAX: u32 = 100_000;
/// Gaps that are told of one time.
const GAPS_TOLD_MAX: u32 = 16;

/// What was decided about a stream, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// `record`, `norecord` or `unmatched`.
    pub decision: String,
    /// Pattern of the rule that decided.
    pub rule: Option<String>,
    /// Name of its template.
    pub template: Option<String>,
    /// Layer of the rule.
    pub layer: Option<String>,
    /// Revision of the layer.
    pub revision: Option<u64>,
    /// All of it in one sentence.
    pub reason: String,
}

impl From<&Decision> for DecisionRecord {
    fn from(decision: &Decision) -> Self {
        let matched = decision.matched();
        DecisionRecord {
            decision: decision.word().to_owned(),
            rule: matched.map(|matched| matched.rule.to_string()),
            template: matched.map(|matched| matched.template.name.clone()),
            layer: matched.map(|matched| matched.layer.to_string()),
            revision: matched.map(|matched| matched.revision),
            reason: decision.reason(),
        }
    }
}

/// A gap as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRecord {
    /// Begins, Unix milliseconds.
    pub from_ms: i64,
    /// Ends, Unix milliseconds; `None` while it lasts.
    pub until_ms: Option<i64>,
    /// Why, in words.
    pub cause: String,
}

impl CatalogState {
    /// Enters what the watch over a stream says, on the clocks of a boot. A gap lasts as long as the boot
    /// clock says, whatever the wall clock does meanwhile. Its beginning is durable when this returns:
    /// where nothing is recorded, nothing else would make it so.
    ///
    /// # Errors
    /// The database fails.
    pub fn enter_watched_gap(
        &mut self,
        key: &StreamKey,
        boot_id: BootId,
        entry: GapEntry,
    ) -> Result<(), RingError> {
        let what = "entering a gap";
        match entry {
            GapEntry::Begins { from, cause } => {
                let wall = self.dates.instant(boot_id, from).wall;
                self.durably(what, |transaction| {
                    let stream = stream_id(transaction, key)?;
                    transaction
                        .prepare_cached(
                            "INSERT INTO gap (stream, session, from_ms, cause, trusted, boot_id,
                             boot_ms) VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6)",
                        )?
                        .execute(params![
                            stream,
                            wall.unix.0,
                            cause.words(),
                            wall.quality == ClockQuality::Trusted,
                            boot_id.0,
                            sql(from.boot.0)
                        ])?;
                    Ok(())
                })?;
            }
            GapEntry::Ends { until } => self.in_transaction(what, |transaction| {
                let stream = stream_id(transaction, key)?;
                transaction
                    .prepare_cached(
                        "UPDATE gap SET until_ms = from_ms + max(0, ?2 - boot_ms),
                         media_ms = max(0, ?2 - boot_ms) WHERE stream = ?1 AND session = 0
                         AND until_ms IS NULL AND boot_id = ?3",
                    )?
                    .execute(params![stream, sql(until.boot.0), boot_id.0])?;
                Ok(())
            })?,
        }
        self.tell_ledgers();
        Ok(())
    }

    /// The gaps of a stream that have something of a stretch of time, Unix milliseconds.
    ///
    /// # Errors
    /// The database fails.
    pub fn gaps(
        &self,
        key: &StreamKey,
        from_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<GapRecord>, RingError> {
        self.db
            .prepare_cached(
                "SELECT from_ms, until_ms, cause FROM gap JOIN stream ON stream.id = gap.stream
                 WHERE domain = ?1 AND app = ?2 AND stream.stream = ?3 AND from_ms <= ?5
                 AND coalesce(until_ms, ?4) >= ?4 ORDER BY from_ms DESC LIMIT ?6",
            )
            .and_then(|mut query| {
                let asked = params![
                    key.domain(),
                    key.app(),
                    key.stream(),
                    from_ms,
                    until_ms,
                    GAPS_TOLD_MAX
                ];
                let gap = |row: &rusqlite::Row<'_>| {
                    let (from_ms, until_ms) = (row.get(0)?, row.get(1)?);
                    Ok(GapRecord { from_ms, until_ms, cause: row.get(2)? })
                };
                query.query_map(asked, gap)?.collect()
            })
            .map_err(RingError::catalog("reading the gap ledger"))
    }

    /// Keeps what was decided about a stream from a moment on; `None`: it is not live any more.
    ///
    /// # Errors
    /// The database fails.
    pub fn enter_decision(
        &mut self,
        key: &StreamKey,
        decision: Option<&DecisionRecord>,
        now: Moment,
    ) -> Result<(), RingError> {
        let what = "keeping a decision";
        let content =
            decision.map(|decision| serde_json::to_string(decision).expect("plain fields"));
        let wall = self.dates.moment(now).at.wall;
        let transaction = self.db.transaction().map_err(RingError::catalog(what))?;
        stream_id(&transaction, key)
            .and_then(|stream| {
                let boot = (now.boot_id.0, sql(now.at.boot.0));
                transaction
                    .prepare_cached(
                        "UPDATE decision SET until_ms = from_ms + max(0, ?2 - boot_ms)
                         WHERE stream = ?1 AND until_ms IS NULL AND boot_id = ?3",
                    )?
                    .execute(params![stream, boot.1, boot.0])?;
                if let Some(content) = content {
                    transaction
                        .prepare_cached(
                            "INSERT INTO decision (stream, boot_id, boot_ms, from_ms, content, trusted)
                             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                        )?
                        .execute(params![
                            stream,
                            boot.0,
                            boot.1,
                            wall.unix.0,
                            content,
                            wall.quality == ClockQuality::Trusted
                        ])?;
                    transaction
                        .prepare_cached(
                            "DELETE FROM decision WHERE id < (SELECT max(id) FROM decision) - ?1",
                        )?
                        .execute([DECISIONS_MAX])?;
                }
                transaction.commit()
            })
            .map_err(RingError::catalog(what))
    }

    /// What was decided about a stream that was live at a time; `None` if none was known to be.
    ///
    /// # Errors
    /// The database fails.
    pub fn decision_at(
        &self,
        key: &StreamKey,
        at: UnixMillis,
    ) -> Result<Option<DecisionRecord>, RingError> {
        let content: Option<String> = self
            .db
            .prepare_cached(
                "SELECT content FROM decision JOIN stream ON stream.id = decision.stream
                 WHERE domain = ?1 AND app = ?2 AND stream.stream = ?3 AND from_ms <= ?4
                 AND coalesce(until_ms, ?4) >= ?4 ORDER BY from_ms DESC LIMIT 1",
            )
            .and_then(|mut query| {
                let asked = params![key.domain(), key.app(), key.stream(), at.0];
                query.query_row(asked, |row| row.get(0)).optional()
            })
            .map_err(RingError::catalog("reading decisions"))?;
        // What another version of the program wrote is not known here.
        Ok(content.and_then(|content| serde_json::from_str(&content).ok()))
    }

    /// Stream keys that the ring knows of a pattern; an empty domain is any.
    ///
    /// # Errors
    /// The database fails.
    pub fn known_streams(
        &self,
        domain: &str,
        app: &str,
        stream: &str,
    ) -> Result<Vec<StreamKey>, RingError> {
        self.db
            .prepare_cached(
                "SELECT domain, app, stream FROM stream
                 WHERE (?1 = '' OR domain = ?1) AND app = ?2 AND stream = ?3",
            )
            .and_then(|mut query| {
                let key = |row: &rusqlite::Row<'_>| super::files::stream_key(row, 0);
                query.query_map(params![domain, app, stream], key)?.collect()
            })
            .map_err(RingError::catalog("reading streams"))
    }
}
