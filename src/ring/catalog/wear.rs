//! The account of what was written to the disk of the ring; kept with the ring, so that a card has its
//! own. It has no flush of its own: a power cut may take the last entry, and with it what was written
//! after the one before.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::domain::ids::BootId;
use crate::domain::wear::{WearAccount, WearDay, WearReading, Written};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::rows::{sql, unsql};

impl CatalogState {
    /// Enters what the kernel has counted; gives all that is known then.
    ///
    /// # Errors
    /// The database fails.
    pub fn enter_wear(&mut self, reading: WearReading) -> Result<WearAccount, RingError> {
        let now = self.now();
        self.db
            .transaction()
            .and_then(|transaction| {
                let mut account = read(&transaction)?;
                account.take(reading, now.boot_id, now.at.wall);
                keep(&transaction, &account)?;
                transaction.commit()?;
                Ok(account)
            })
            .map_err(RingError::catalog("keeping the account of wear"))
    }
}

fn read(transaction: &Transaction<'_>) -> rusqlite::Result<WearAccount> {
    let written = |row: &Row<'_>, at: usize| -> rusqlite::Result<Written> {
        Ok(Written { bytes: unsql(row.get(at)?), flushes: unsql(row.get(at + 1)?) })
    };
    let account = transaction
        .query_row(
            "SELECT boot_id, appearance, seen_bytes, seen_flushes, bytes, flushes, undated_bytes,
             undated_flushes FROM wear",
            [],
            |row| {
                let reading = WearReading {
                    appearance: unsql(row.get(1)?),
                    bytes: unsql(row.get(2)?),
                    flushes: unsql(row.get(3)?),
                };
                let last = Some((BootId(row.get(0)?), reading));
                let (total, undated) = (written(row, 4)?, written(row, 6)?);
                Ok(WearAccount { last, total, undated, days: Vec::new() })
            },
        )
        .optional()?;
    let days = transaction
        .prepare_cached("SELECT day, bytes, flushes FROM wear_day ORDER BY day")?
        .query_map([], |row| Ok((WearDay(row.get(0)?), written(row, 1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(WearAccount { days, ..account.unwrap_or_default() })
}

fn keep(transaction: &Transaction<'_>, account: &WearAccount) -> rusqlite::Result<()> {
    let Some((boot_id, seen)) = account.last else { return Ok(()) };
    transaction
        .prepare_cached("INSERT OR REPLACE INTO wear VALUES (0, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            boot_id.0,
            sql(seen.appearance),
            sql(seen.bytes),
            sql(seen.flushes),
            sql(account.total.bytes),
            sql(account.total.flushes),
            sql(account.undated.bytes),
            sql(account.undated.flushes)
        ])?;
    let mut day =
        transaction.prepare_cached("INSERT OR REPLACE INTO wear_day VALUES (?1, ?2, ?3)")?;
    for (number, of) in &account.days {
        day.execute(params![number.0, sql(of.bytes), sql(of.flushes)])?;
    }
    if let Some((oldest, _)) = account.days.first() {
        transaction.execute("DELETE FROM wear_day WHERE day < ?1", [oldest.0])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::catalog::notices::tests::open;

    #[test]
    fn the_account_goes_on_where_it_was() {
        let dir = tempfile::tempdir().expect("scratch");
        let reading = |bytes| WearReading { appearance: 1, bytes, flushes: bytes / 100 };
        let first = open(dir.path()).enter_wear(reading(1_000)).expect("kept");
        let second = open(dir.path()).enter_wear(reading(1_500)).expect("kept");
        assert_eq!(first.total, Written { bytes: 1_000, flushes: 10 });
        assert_eq!(second.total, Written { bytes: 1_500, flushes: 15 });
        assert_eq!(second.days.iter().map(|(_, of)| of.bytes).sum::<u64>(), 500);
        assert_eq!(second.days.len(), first.days.len(), "{second:?}");
    }
}
