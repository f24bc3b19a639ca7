//! The pushes and pulls that were live: a row each, from begin to end, recorded or not.
//!
//! Rows are written like media rows, without a flush of their own: a power cut may take the rows of
//! the last seconds. Times are wall times; those of a boot whose clock was not set yet are set
//! right when it is (`dating`).

use rusqlite::{Row, params};

use crate::domain::ids::BootId;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{ClockQuality, Instant};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;

/// Rows that are kept, the newest.
pub const PUSHES_MAX: u64 = 100_000;
/// The cause of a push that ended with the box.
pub const LOST_CAUSE: &str = "the box went down";
/// The disconnect code of such a push: internal.
const LOST_ERRCODE: u32 = 5;

/// Which push: grows with each one, over restarts and reboots too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PushId(pub i64);

/// A push that begins.
#[derive(Debug, Clone)]
pub struct PushStart {
    /// Its number.
    pub id: PushId,
    /// Which stream.
    pub key: StreamKey,
    /// When.
    pub began: Instant,
    /// In which boot.
    pub boot_id: BootId,
    /// Address of the peer.
    pub peer: String,
    /// Query of the push URL, verbatim (it may hold secrets, as with sessions).
    pub query: String,
}

/// How a push ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushEnd {
    /// In words.
    pub cause: String,
    /// Disconnect code of the callbacks' contract (section 4).
    pub errcode: u32,
    /// Width of the picture, in pixels; 0 without one.
    pub width: u32,
    /// Height of the picture, in pixels; 0 without one.
    pub height: u32,
}

/// A push as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRecord {
    /// Its number.
    pub id: PushId,
    /// Which stream.
    pub key: StreamKey,
    /// When it began, in Unix milliseconds.
    pub began_ms: i64,
    /// When it ended; `None` while it is live.
    pub ended_ms: Option<i64>,
    /// Address of the peer.
    pub peer: String,
    /// How it ended.
    pub end: PushEnd,
}

/// Which pushes, and in which order.
#[derive(Debug, Clone)]
pub struct PushFilter {
    /// Live at some time from here, in Unix milliseconds.
    pub from_ms: i64,
    /// To here.
    pub until_ms: i64,
    /// Of this domain.
    pub domain: Option<String>,
    /// Of this app.
    pub app: Option<String>,
    /// Whose stream name has this in it.
    pub name_part: Option<String>,
    /// Whose stream name is this.
    pub name: Option<String>,
    /// The oldest end first, else the newest; what is live ends last of all.
    pub ascending: bool,
}

impl CatalogState {
    /// Enters a push, and posts the notice of its beginning.
    ///
    /// # Errors
    /// The database fails.
    pub fn begin_push(&mut self, push: &PushStart) -> Result<(), RingError> {
        let (key, wall) = (&push.key, self.dates.instant(push.boot_id, push.began).wall);
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO push (id, domain, app, stream, boot_id, began_boot_ms,
                 began_ms, trusted, peer, query)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )
            .and_then(|mut insert| {
                insert.execute(params![
                    push.id.0,
                    key.domain(),
                    key.app(),
                    key.stream(),
                    push.boot_id.0,
                    i64::try_from(push.began.boot.0).unwrap_or(i64::MAX),
                    wall.unix.0,
                    wall.quality == ClockQuality::Trusted,
                    push.peer,
                    push.query
                ])
            })
            .map_err(RingError::catalog("entering a push"))?;
        self.tell_push_begin(push.id)
    }

    /// Enters the end of a push, and posts the notice of it. One that is not known is left alone.
    ///
    /// # Errors
    /// The database fails.
    pub fn end_push(&mut self, id: PushId, at: Instant, end: &PushEnd) -> Result<(), RingError> {
        // Counted from its beginning by boot time: the wall clock may have been set meanwhile.
        self.db
            .prepare_cached(
                "UPDATE push SET ended_ms = began_ms + max(0, ?2 - began_boot_ms), cause = ?3,
                 errcode = ?4, width = ?5, height = ?6 WHERE id = ?1",
            )
            .and_then(|mut update| {
                let boot_ms = i64::try_from(at.boot.0).unwrap_or(i64::MAX);
                update.execute(params![
                    id.0,
                    boot_ms,
                    end.cause,
                    end.errcode,
                    end.width,
                    end.height
                ])
            })
            .map_err(RingError::catalog("entering the end of a push"))?;
        self.tell_push_end(id)
    }

    /// After a start: ends the pushes that were live when the box went down, as late as media of
    /// theirs is in the ring, posts the notices of that, and leaves the newest `keep`. Tells the
    /// last number given out.
    ///
    /// # Errors
    /// The database fails.
    pub fn take_up_pushes(&mut self, keep: u64) -> Result<Option<PushId>, RingError> {
        let what = RingError::catalog("taking up the pushes");
        let lost = self.open_pushes().map_err(what)?;
        self.db
            .execute(
                "UPDATE push SET cause = ?1, errcode = ?2, ended_ms = began_ms + max(0, coalesce((
                     SELECT max(first_boot_ms + last_ms - first_ms) - push.began_boot_ms FROM segment
                     JOIN session ON session.id = segment.session
                     JOIN stream ON stream.id = session.stream
                     WHERE stream.domain = push.domain AND stream.app = push.app
                     AND stream.stream = push.stream AND session.boot_id = push.boot_id
                     AND session.began_boot_ms >= push.began_boot_ms), 0))
                 WHERE ended_ms IS NULL",
                params![LOST_CAUSE, LOST_ERRCODE],
            )
            .map_err(RingError::catalog("taking up the pushes"))?;
        for id in lost {
            self.tell_push_end(id)?;
        }
        self.prune_pushes(keep)?;
        let what = RingError::catalog("taking up the pushes");
        let last: Option<i64> =
            self.db.query_row("SELECT max(id) FROM push", [], |row| row.get(0)).map_err(what)?;
        Ok(last.map(PushId))
    }

    /// The pushes whose end nobody entered.
    fn open_pushes(&self) -> rusqlite::Result<Vec<PushId>> {
        let mut query =
            self.db.prepare("SELECT id FROM push WHERE ended_ms IS NULL ORDER BY id")?;
        let rows = query.query_map([], |row| row.get(0).map(PushId))?;
        rows.collect()
    }

    /// Leaves the newest `keep` pushes.
    ///
    /// # Errors
    /// The database fails.
    pub fn prune_pushes(&mut self, keep: u64) -> Result<(), RingError> {
        self.db
            .execute(
                "DELETE FROM push WHERE id <=
                 (SELECT id FROM push ORDER BY id DESC LIMIT 1 OFFSET ?1)",
                params![i64::try_from(keep).unwrap_or(i64::MAX)],
            )
            .map(drop)
            .map_err(RingError::catalog("forgetting old pushes"))
    }

    /// `limit` pushes after the first `offset`, and how many there are.
    ///
    /// # Errors
    /// The database fails.
    pub fn pushes(
        &self,
        filter: &PushFilter,
        offset: u64,
        limit: u32,
    ) -> Result<(Vec<PushRecord>, u64), RingError> {
        self.read_pushes(filter, offset, limit).map_err(RingError::catalog("listing pushes"))
    }

    fn read_pushes(
        &self,
        filter: &PushFilter,
        offset: u64,
        limit: u32,
    ) -> rusqlite::Result<(Vec<PushRecord>, u64)> {
        const WHICH: &str = "FROM push WHERE began_ms <= ?2 AND coalesce(ended_ms, ?2) >= ?1
            AND (?3 IS NULL OR domain = ?3) AND (?4 IS NULL OR app = ?4)
            AND (?5 IS NULL OR instr(stream, ?5) > 0) AND (?6 IS NULL OR stream = ?6)";
        let order = if filter.ascending { "ASC" } else { "DESC" };
        let which = params![
            filter.from_ms,
            filter.until_ms,
            filter.domain,
            filter.app,
            filter.name_part,
            filter.name
        ];
        let total: i64 = self
            .db
            .prepare_cached(&format!("SELECT count(*) {WHICH}"))?
            .query_row(which, |row| row.get(0))?;
        let page = format!(
            "SELECT id, domain, app, stream, began_ms, ended_ms, peer, cause, errcode, width,
             height {WHICH} ORDER BY coalesce(ended_ms, {}) {order}, id {order}
             LIMIT {limit} OFFSET {offset}",
            i64::MAX
        );
        let rows = self.db.prepare(&page)?.query_map(which, record)?.collect::<Result<_, _>>()?;
        Ok((rows, u64::try_from(total).unwrap_or(0)))
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<PushRecord> {
    let part = |index| row.get::<_, String>(index);
    let key = StreamKey::new(&part(1)?, &part(2)?, &part(3)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(PushRecord {
        id: PushId(row.get(0)?),
        key,
        began_ms: row.get(4)?,
        ended_ms: row.get(5)?,
        peer: row.get(6)?,
        end: PushEnd {
            cause: row.get(7)?,
            errcode: row.get(8)?,
            width: row.get(9)?,
            height: row.get(10)?,
        },
    })
}
