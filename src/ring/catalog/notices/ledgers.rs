//! Events of the ledgers: told as a difference. An entry says what the fleet was told of it, which is
//! brought up to date in the transaction that enters the events: a crash in between only delays them,
//! and what recovery enters before anybody knows of a fleet is told too. Without a fleet an entry counts
//! as told, so that a box which joins one tells it nothing of the time before.

use rusqlite::{Row, Transaction, params};
use tracing::error;

use crate::domain::files::FileFormat;
use crate::domain::ids::FileId;
use crate::domain::notice::BoxEvent;
use crate::domain::notice::box_event::{BoxNews, Gap, Loss, Lost};
use crate::domain::time::UnixMillis;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::files::stream_key;
use crate::ring::catalog::notices::enter_box_event;
use crate::ring::catalog::rows::{sql, unsql};

/// Entries that are told in one transaction.
const TOLD_AT_ONCE: u32 = 64;

impl CatalogState {
    /// Tells the fleet what the ledgers have and it was not told. Durable if anything is told. What
    /// can come in floods is entered without this, and told once by [`apply`](Self::apply).
    pub fn tell_ledgers(&mut self) {
        // Before the desk is set nobody knows whether there is a fleet.
        if self.notice_desk_set
            && let Err(problem) = self.try_tell_ledgers()
        {
            error!(%problem, "what the ledgers have is told later");
        }
    }

    fn try_tell_ledgers(&mut self) -> Result<(), RingError> {
        let what = "telling what the ledgers have";
        let Some(desk) = self.fleet_desk() else {
            return self.in_transaction(what, forget_ledgers);
        };
        loop {
            let gaps = self.untold_gaps().map_err(RingError::catalog(what))?;
            let losses = self.untold_losses().map_err(RingError::catalog(what))?;
            if gaps.is_empty() && losses.is_empty() {
                return Ok(());
            }
            self.durably(what, |transaction| {
                for event in gaps.iter().chain(&losses) {
                    enter_box_event(transaction, event, &desk)?;
                    mark_told(transaction, event)?;
                }
                Ok(())
            })?;
            self.notify_readers();
        }
    }

    fn untold_gaps(&self) -> rusqlite::Result<Vec<BoxEvent>> {
        let at = self.clock.now().wall.unix;
        let mut query = self.db.prepare_cached(
            "SELECT domain, app, stream.stream, gap.id, from_ms, until_ms,
             CASE WHEN until_ms IS NOT NULL THEN media_ms END, cause FROM gap
             JOIN stream ON stream.id = gap.stream
             WHERE told = 0 OR told = 1 AND until_ms IS NOT NULL ORDER BY gap.id LIMIT ?1",
        )?;
        let gap = |row: &Row<'_>| {
            let gap = Gap {
                number: unsql(row.get(3)?),
                key: stream_key(row, 0)?,
                from: UnixMillis(row.get(4)?),
                until: row.get::<_, Option<i64>>(5)?.map(UnixMillis),
                media_ms: row.get(6)?,
                cause: row.get(7)?,
            };
            Ok(BoxEvent { at, what: BoxNews::Gap(gap) })
        };
        query.query_map([TOLD_AT_ONCE], gap)?.collect()
    }

    fn untold_losses(&self) -> rusqlite::Result<Vec<BoxEvent>> {
        let at = self.clock.now().wall.unix;
        let mut query = self.db.prepare_cached(
            "SELECT domain, app, stream.stream, loss.id, loss.file, file.format, loss.media_ms,
             reason FROM loss LEFT JOIN file ON file.id = loss.file
             LEFT JOIN stream ON stream.id = file.stream
             WHERE told = 0 AND events = 0 ORDER BY loss.id LIMIT ?1",
        )?;
        let loss = |row: &Row<'_>| {
            let format: Option<u8> = row.get(5)?;
            let known = row.get::<_, Option<String>>(0)?.is_some();
            let lost = Lost::File {
                file: FileId(unsql(row.get(4)?)),
                key: if known { Some(stream_key(row, 0)?) } else { None },
                format: format.map(|format| FileFormat::ALL[usize::from(format).min(3)]),
                media_ms: row.get(6)?,
            };
            let loss = Loss { number: unsql(row.get(3)?), reason: row.get(7)?, lost };
            Ok(BoxEvent { at, what: BoxNews::Loss(loss) })
        };
        query.query_map([TOLD_AT_ONCE], loss)?.collect()
    }
}

/// There is no fleet that is to be told.
fn forget_ledgers(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE gap SET told = 2 WHERE told = 0 OR told = 1 AND until_ms IS NOT NULL",
        )?
        .execute([])?;
    transaction.prepare_cached("UPDATE loss SET told = 2 WHERE told = 0")?.execute([])?;
    Ok(())
}

fn mark_told(transaction: &Transaction<'_>, event: &BoxEvent) -> rusqlite::Result<()> {
    let (table, number, told) = match &event.what {
        BoxNews::Gap(gap) => ("gap", gap.number, if gap.until.is_some() { 2 } else { 1 }),
        BoxNews::Loss(loss) => ("loss", loss.number, 2),
        BoxNews::Applied { .. } | BoxNews::Refused { .. } => return Ok(()),
    };
    transaction
        .prepare_cached(&format!("UPDATE {table} SET told = ?2 WHERE id = ?1"))?
        .execute(params![sql(number), told])
        .map(drop)
}
