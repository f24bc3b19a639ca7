//! The catalog in figures, for metrics.

use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::open::FileState;
use crate::ring::catalog::rows::unsql;

/// How much of what the catalog knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogFigures {
    /// Slots by the number of their state.
    pub slots: [u64; 6],
    /// Listed files by the number of their state.
    pub files: [u64; 7],
    /// Bytes of the files that wait to be delivered, as their media is on flash.
    pub queued_bytes: u64,
    /// Gaps ever entered into the ledger.
    pub gaps: u64,
    /// Losses ever entered into the ledger.
    pub losses: u64,
    /// Size of `state.db` in bytes, without its log.
    pub database_bytes: u64,
}

impl CatalogFigures {
    /// Files that wait to be delivered or are on their way.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.files[FileState::Queued as usize] + self.files[FileState::Uploading as usize]
    }
}

impl CatalogState {
    /// The figures now.
    ///
    /// # Errors
    /// The database fails.
    pub fn figures(&self) -> Result<CatalogFigures, RingError> {
        self.read_figures().map_err(RingError::catalog("counting"))
    }

    fn read_figures(&self) -> rusqlite::Result<CatalogFigures> {
        let one = |text: &str| -> rusqlite::Result<u64> {
            let number: Option<i64> =
                self.db.prepare_cached(text)?.query_row([], |row| row.get(0))?;
            Ok(unsql(number.unwrap_or(0)))
        };
        let mut figures = CatalogFigures {
            queued_bytes: one("SELECT sum(span.end - span.start) FROM file
                 JOIN span ON span.file = file.id WHERE file.state IN (2, 3)")?,
            // Numbers of the ledgers grow for ever; the oldest entries go.
            gaps: one("SELECT max(id) FROM gap")?,
            losses: one("SELECT max(id) FROM loss")?,
            database_bytes: one("PRAGMA page_count")? * one("PRAGMA page_size")?,
            ..CatalogFigures::default()
        };
        self.count_states("SELECT state, count(*) FROM slot GROUP BY state", &mut figures.slots)?;
        self.count_states("SELECT state, count(*) FROM file GROUP BY state", &mut figures.files)?;
        Ok(figures)
    }

    fn count_states(&self, text: &str, counts: &mut [u64]) -> rusqlite::Result<()> {
        let mut query = self.db.prepare_cached(text)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(count) = counts.get_mut(usize::from(row.get::<_, u8>(0)?)) {
                *count = unsql(row.get(1)?);
            }
        }
        Ok(())
    }
}
