//! A lost catalog is made anew while recording goes on: the catalog's side of it. The slots are read
//! by [`Rebuild`](crate::ring::rebuild::Rebuild).
//!
//! 1. A slot without a row gets one as *unread*. Unread slots are neither written to nor evicted.
//! 2. Recording goes on in slots that are seen to be blank. A sixty-fourth of a large ring is kept blank
//!    for this (`RingIdentity::kept_blank`), and where it lies is known without reading.
//! 3. What is found in unread slots is entered beside what is being recorded. Its files do not count as
//!    finished before all slots were read; then they all do, in the transaction in which the slots
//!    are no longer unread.
//! 4. A start that finds unread slots forgets what was entered of them and begins anew.

use std::collections::BTreeMap;

use rusqlite::params;
use tracing::{info, warn};

use crate::domain::files::FileFormat;
use crate::domain::ids::{RecordingId, SlotIndex};
use crate::domain::limits::PAGE_BYTES;
use crate::platform::flash::Open;
use crate::platform::random::random_u64;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::durable::{DurableFragment, Origin, finished_state};
use crate::ring::catalog::open::{OpenFile, OpenSegment, SlotState};
use crate::ring::catalog::rows::{sql, store_segment};
use crate::ring::layout::SlotPlace;
use crate::ring::slots::Slots;

/// Slots that are looked at, at most, each time that recording asks for some.
const LOOKS_MAX: u32 = 16;
/// A ring that was never full is blank at its end, a new one also here.
const LOOKS_IN_FRONT: u32 = 4;

/// Slots that are found again are older than all that are written from now on, whose age is positive.
const BEFORE_ALL_NEW: i64 = 1 << 40;

/// The reason that a file which is being found again gives.
pub(super) const WHY: &str = "the catalog is being made anew";

/// What is known of a rebuild under way.
pub(super) struct Rebuilding {
    slots: Slots,
    /// Slots that were looked at for being blank: so many in front, and all from here on.
    in_front: u32,
    from: u32,
    /// A generation that no old content can have.
    beyond: u64,
    /// What grows of that which is found again.
    files: BTreeMap<(RecordingId, FileFormat), OpenFile>,
    segments: BTreeMap<SlotIndex, OpenSegment>,
}

/// Something that was found in an unread slot.
#[derive(Debug)]
pub enum FoundAgain {
    /// A fragment, with the place of its segment among all.
    Fragment {
        /// What its seal says. It begins where damage before it does, if it is the first good one.
        fragment: Box<DurableFragment>,
        /// The place of its segment in the order in which all were written.
        order: u64,
        /// Something before it in its segment is damaged.
        behind_damage: bool,
    },
    /// What comes next in a segment, and was durable, is not there any more.
    BrokenOff(SlotPlace),
}

impl CatalogState {
    /// Forgets what a rebuild that did not come to its end has entered, and begins one if there are
    /// slots that nobody knows. Tells whether.
    pub(super) fn begin_rebuild(&mut self, slots: &Slots) -> Result<bool, RingError> {
        let what = RingError::catalog("looking for unread slots");
        self.slots = Some(slots.clone());
        let unread = "SELECT EXISTS (SELECT 1 FROM slot WHERE state = 5)";
        if !self.db.query_row(unread, [], |row| row.get::<_, bool>(0)).map_err(what)? {
            return Ok(false);
        }
        self.in_transaction("beginning to rebuild", |transaction| {
            transaction.execute_batch(
                "DELETE FROM span WHERE file IN
                     (SELECT id FROM file WHERE state = 0 AND maybe_there = 1);
                 DELETE FROM file WHERE state = 0 AND maybe_there = 1;
                 DELETE FROM segment WHERE slot IN (SELECT slot FROM slot WHERE state = 5);
                 DELETE FROM session WHERE ended_ms IS NULL AND protocol = '';",
            )
        })?;
        self.rebuilding = Some(Rebuilding {
            slots: slots.clone(),
            in_front: 0,
            from: self.identity.slots,
            beyond: 1_000_000 + random_u64() % 1_000_000_000_000,
            files: BTreeMap::new(),
            segments: BTreeMap::new(),
        });
        Ok(true)
    }

    /// The slots whose content is not known, in order.
    ///
    /// # Errors
    /// The database fails.
    pub fn unread_slots(&self) -> Result<Vec<SlotIndex>, RingError> {
        self.db
            .prepare_cached("SELECT slot FROM slot WHERE state = 5 ORDER BY slot")
            .and_then(|mut query| query.query_map([], |row| row.get(0).map(SlotIndex))?.collect())
            .map_err(RingError::catalog("listing unread slots"))
    }

    /// Looks for up to `count` blank slots among the unread ones, at places where they are likely: a
    /// bounded number of reads, however large the ring is.
    pub(super) fn find_blank(&mut self, count: usize) -> Result<(), RingError> {
        let Some(rebuilding) = &mut self.rebuilding else { return Ok(()) };
        let mut blank = Vec::new();
        for _ in 0..LOOKS_MAX {
            if blank.len() >= count || rebuilding.in_front >= rebuilding.from {
                break;
            }
            let slot = if rebuilding.in_front < LOOKS_IN_FRONT {
                rebuilding.in_front += 1;
                SlotIndex(rebuilding.in_front - 1)
            } else {
                rebuilding.from -= 1;
                SlotIndex(rebuilding.from)
            };
            match is_blank(&rebuilding.slots, slot) {
                Ok(true) => blank.push(slot),
                Ok(false) => {}
                Err(error) => warn!(%slot, %error, "a slot cannot be read"),
            }
        }
        self.are_blank(&blank)
    }

    /// Slots hold nothing: they may be written to, unless they are already.
    ///
    /// # Errors
    /// The database fails.
    pub fn are_blank(&mut self, slots: &[SlotIndex]) -> Result<(), RingError> {
        let beyond = self.rebuilding.as_ref().map_or(0, |rebuilding| rebuilding.beyond);
        self.in_transaction("entering blank slots", |transaction| {
            let mut update = transaction.prepare_cached(
                "UPDATE slot SET state = 0, generation = ?2 WHERE slot = ?1 AND state = 5",
            )?;
            slots.iter().try_for_each(|slot| update.execute(params![slot.0, sql(beyond)]).map(drop))
        })
    }

    /// Enters what was found in unread slots. What is no longer one is left out: it is being recorded
    /// to.
    ///
    /// # Errors
    /// The database fails.
    pub fn enter_found(&mut self, found: Vec<FoundAgain>) -> Result<(), RingError> {
        self.with_found(|state| {
            state.in_entry(Origin::Rebuild, |entry| {
                for one in found {
                    let place = match &one {
                        FoundAgain::Fragment { fragment, .. } => fragment.seal.place,
                        FoundAgain::BrokenOff(place) => *place,
                    };
                    let unread: bool = entry
                        .transaction
                        .prepare_cached("SELECT state = 5 FROM slot WHERE slot = ?1")?
                        .query_row([place.slot.0], |row| row.get(0))?;
                    match one {
                        _ if !unread => {}
                        FoundAgain::BrokenOff(place) => break_off(entry.files, place),
                        FoundAgain::Fragment { fragment, order, behind_damage } => {
                            if behind_damage {
                                break_off(entry.files, place);
                            }
                            entry
                                .transaction
                                .prepare_cached(
                                    "UPDATE slot SET generation = ?2, age = ?3 WHERE slot = ?1",
                                )?
                                .execute(params![
                                    place.slot.0,
                                    sql(place.generation.0),
                                    sql(order) - BEFORE_ALL_NEW
                                ])?;
                            entry.fragment(&fragment)?;
                        }
                    }
                }
                Ok(())
            })
        })
    }

    /// All unread slots were read: the files found in them are finished, and the slots are like others.
    ///
    /// # Errors
    /// The database fails: the next start begins anew.
    pub fn finish_rebuild(&mut self) -> Result<(), RingError> {
        self.with_found(|state| {
            state.in_entry(Origin::Rebuild, |entry| {
                let keys: Vec<_> = entry.files.keys().copied().collect();
                keys.into_iter().try_for_each(|key| entry.finish_file(key))?;
                std::mem::take(entry.segments)
                    .values()
                    .try_for_each(|open| store_segment(entry.transaction, open))
            })
        })?;
        let now_ms = self.clock.now().wall.unix.0;
        let (state, why) = finished_state(self.settings.delivers);
        let beyond = self.rebuilding.as_ref().map_or(0, |rebuilding| rebuilding.beyond);
        let closed = SlotState::Closed as u8;
        self.durably("finishing a rebuild", |transaction| {
            transaction.execute(
                "UPDATE recording SET ended = 1, status = 3, told = 3 WHERE id IN
                 (SELECT recording FROM file WHERE state = 0 AND maybe_there = 1)",
                [],
            )?;
            transaction.execute(
                "UPDATE file SET state = ?1, why = ?2 WHERE state = 0 AND maybe_there = 1",
                params![state as u8, why],
            )?;
            // Only the last session of a stream can have been cut off.
            transaction.execute(
                "INSERT INTO gap (stream, session, from_ms, until_ms, media_ms, cause)
                 SELECT stream, id, last_ms, max(?1, last_ms), max(?1 - last_ms, 0),
                 'the box went down without warning'
                 FROM (SELECT stream, id, max(began_ms), (SELECT max(last_ms) FROM segment
                     WHERE segment.session = session.id) AS last_ms
                     FROM session WHERE ended_ms IS NULL AND protocol = '' GROUP BY stream)
                 WHERE last_ms IS NOT NULL",
                params![now_ms],
            )?;
            transaction.execute(
                "UPDATE session SET cause = 'found again in the ring', ended_ms = coalesce((SELECT
                 max(last_ms) FROM segment WHERE segment.session = session.id), began_ms)
                 WHERE ended_ms IS NULL AND protocol = ''",
                [],
            )?;
            transaction.execute(
                "UPDATE slot SET generation = ?1 WHERE state = 5 AND generation = 0",
                params![sql(beyond)],
            )?;
            transaction.execute("UPDATE slot SET state = ?1 WHERE state = 5", [closed]).map(drop)
        })?;
        self.rebuilding = None;
        self.news.notify_one();
        self.tell_ledgers();
        info!("the catalog is made anew");
        Ok(())
    }

    /// Has `work` done with what grows of that which is found again, in place of what grows.
    fn with_found(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), RingError>,
    ) -> Result<(), RingError> {
        let Some(mut rebuilding) = self.rebuilding.take() else { return Err(RingError::Closed) };
        std::mem::swap(&mut self.open_files, &mut rebuilding.files);
        std::mem::swap(&mut self.open_segments, &mut rebuilding.segments);
        let done = work(self);
        std::mem::swap(&mut self.open_files, &mut rebuilding.files);
        std::mem::swap(&mut self.open_segments, &mut rebuilding.segments);
        self.rebuilding = Some(rebuilding);
        done
    }
}

/// The spans that grow in a slot reach over what is damaged there: whoever reads the file finds it.
fn break_off(files: &mut BTreeMap<(RecordingId, FileFormat), OpenFile>, place: SlotPlace) {
    for span in files.values_mut().filter_map(|open| open.span.as_mut()) {
        if span.place == place {
            span.end += PAGE_BYTES;
        }
    }
}

/// Whether the first page of a slot is as `format` made it.
pub(in crate::ring) fn is_blank(slots: &Slots, slot: SlotIndex) -> Result<bool, RingError> {
    let file = slots.open(slot, Open::Read)?;
    let mut page = [0; PAGE_BYTES as usize];
    file.read_exact_at(&mut page, 0).map_err(RingError::flash(format!("reading slot {slot}")))?;
    Ok(page.iter().all(|byte| *byte == 0))
}
