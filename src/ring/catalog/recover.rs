//! Recovery: what the catalog does not know yet is found again in the slots that were open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};
use serde::Serialize;
use tracing::{error, info, warn};

use crate::domain::files::FileFormat;
use crate::domain::ids::{SessionId, SlotGeneration, SlotIndex};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{Moment, UnixMillis};
use crate::platform::flash::{Flash, Open, replace_file};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::durable::{DurableEvent, DurableFragment, finished_state};
use crate::ring::catalog::notices::END_RECORDINGS;
use crate::ring::catalog::open::{FileState, OpenSegment, SlotState};
use crate::ring::catalog::rows::{sql, store_segment, unsql, wall_at};
use crate::ring::desk::ReadySlot;
use crate::ring::fragment::{SegmentStart, SessionStart};
use crate::ring::layout::{SegmentHeader, SlotPlace};
use crate::ring::scan::{Depth, FoundSlot, Scanner, any_life};
use crate::ring::slots::Slots;
use crate::ring::writer::ResumableSlot;

/// Loss bound of the design: fragment, tick and the sync itself, in milliseconds.
const LOSS_BOUND_MS: u64 = 2_500;

/// How often a slot is read until it counts as unreadable.
pub(in crate::ring) const READ_TRIES: usize = 3;

/// What recovery gives the writer to go on with.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Slots that were promised and never used.
    pub ready: Vec<ReadySlot>,
    /// Slots with room behind their last good seal.
    pub resumable: Vec<ResumableSlot>,
    /// There are slots whose content is not known.
    pub rebuilds: bool,
}

/// `recovery.json`: what the last start found and what was lost.
#[derive(Debug, Serialize)]
struct RecoveryReport {
    at_ms: i64,
    /// Whether the catalog is being made anew from the slots.
    catalog_rebuilt: bool,
    slots_scanned: usize,
    streams: BTreeMap<String, StreamReport>,
}

#[derive(Debug, Serialize)]
struct StreamReport {
    fragments_found: usize,
    /// Wall time of the last sample that is safe.
    last_safe_ms: i64,
    /// No more media than this was lost after it.
    lost_at_most_ms: u64,
}

impl CatalogState {
    /// Brings the catalog up to what the slots hold: scans slots that were open or promised, finishes
    /// sessions and files that a crash left open, and says what it found in `recovery.json`. Slots whose
    /// content is not known at all are left to a [`Rebuild`](crate::ring::rebuild::Rebuild), so that
    /// this takes as long for a large ring as for a small one.
    ///
    /// # Errors
    /// The database cannot be written. A slot that cannot be read is given up.
    pub fn recover(
        &mut self,
        flash: &dyn Flash,
        path: &Path,
        slots: &Slots,
    ) -> Result<Recovered, RingError> {
        let what = "recovering";
        self.look_at_clock();
        // A dating that was cut off goes on, whatever boot it was of.
        self.date_rows()?;
        self.forgive_slots().map_err(RingError::catalog(what))?;
        let rebuilds = self.begin_rebuild(slots)?;
        let found = self.scan_slots(slots)?;
        let now = self.clock.now().wall.unix.0;
        let mut report = RecoveryReport {
            at_ms: now,
            catalog_rebuilt: rebuilds,
            slots_scanned: found.len(),
            streams: BTreeMap::new(),
        };
        self.forget_growing_rows(&found).map_err(RingError::catalog(what))?;
        let fragments = fragments_in_order(&found);
        for fragment in &fragments {
            let stream = fragment.segment.session.key.to_string();
            let entry = report.streams.entry(stream).or_insert(StreamReport {
                fragments_found: 0,
                last_safe_ms: 0,
                lost_at_most_ms: LOSS_BOUND_MS,
            });
            entry.fragments_found += 1;
            let boot = fragment.segment.session.boot_id;
            let first = self.dates.instant(boot, fragment.seal.first_arrival);
            entry.last_safe_ms = wall_at(first, fragment.seal.last_arrival);
        }
        self.replay(fragments.into_iter().map(Box::new).map(DurableEvent::Fragment).collect())?;
        let mut recovered = self.sort_slots(found)?;
        recovered.rebuilds = rebuilds;
        self.finish_all()?;
        let text = serde_json::to_string_pretty(&report).expect("plain fields");
        if let Err(problem) = replace_file(flash, &path.join("recovery.json"), text.as_bytes()) {
            warn!(%problem, "recovery.json is not written");
        }
        info!(slots = report.slots_scanned, streams = report.streams.len(), "ring recovered");
        Ok(recovered)
    }

    /// Reads the slots that may hold more than the catalog says.
    fn scan_slots(&mut self, slots: &Slots) -> Result<Vec<(SlotIndex, FoundSlot)>, RingError> {
        let rows: Vec<(u32, i64)> = self
            .db
            .prepare("SELECT slot, generation FROM slot WHERE state IN (1, 2)")
            .and_then(|mut query| {
                query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(RingError::catalog("finding open slots"))?;
        let mut found = Vec::with_capacity(rows.len());
        for (slot, generation) in rows {
            let slot = SlotIndex(slot);
            let mut place = any_life(self.identity.directory, slot);
            place.generation = SlotGeneration(unsql(generation));
            match self.read_slot(slots, place) {
                Ok(content) => found.push((slot, content)),
                Err(error) => {
                    // What the catalog says of it stays; what it does not know stays unknown.
                    error!(%slot, %error, "a slot cannot be read");
                    self.db
                        .execute(
                            "UPDATE slot SET state = ?2 WHERE slot = ?1",
                            params![slot.0, SlotState::Closed as u8],
                        )
                        .map_err(RingError::catalog("giving up a slot"))?;
                }
            }
        }
        Ok(found)
    }

    /// What a slot holds. Flash that fails to read is asked again: what could not be read is not the
    /// end of what is there.
    fn read_slot(&self, slots: &Slots, place: SlotPlace) -> Result<FoundSlot, RingError> {
        let read = || {
            let file = slots.open(place.slot, Open::Read)?;
            // What a process that was killed had written, and what a sync of it that failed has lost,
            // is in the page cache only. The catalog names nothing but what is on flash.
            let what = || format!("making slot {} durable", place.slot);
            file.sync_data().map_err(RingError::flash(what()))?;
            file.forget_cached();
            let scanner = Scanner::new(&*file, self.identity.slot_bytes, Depth::Checksums);
            let found = scanner.slot(place);
            match scanner.take_read_error() {
                None => Ok(found),
                Some(source) => {
                    let what = format!("reading slot {}", place.slot);
                    Err(RingError::Flash { what, source })
                }
            }
        };
        (1..READ_TRIES).find_map(|_| read().ok()).map_or_else(read, Ok)
    }

    /// Rows about the open slots are made anew from what they hold.
    fn forget_growing_rows(&mut self, found: &[(SlotIndex, FoundSlot)]) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        for (slot, _) in found {
            transaction.execute("DELETE FROM segment WHERE slot = ?1", params![slot.0])?;
            transaction.execute(
                "DELETE FROM span WHERE slot = ?1 AND past = 0
                 AND file IN (SELECT id FROM file WHERE state = 0)",
                params![slot.0],
            )?;
        }
        transaction.commit()
    }

    /// Decides what becomes of each scanned slot.
    fn sort_slots(&mut self, found: Vec<(SlotIndex, FoundSlot)>) -> Result<Recovered, RingError> {
        let mut recovered = Recovered::default();
        let mut newest: BTreeMap<StreamKey, ResumableSlot> = BTreeMap::new();
        let mut closed = Vec::new();
        for (slot, found) in found {
            if let Some(place) = self.known_behind(slot, found.end)? {
                error!(%slot, "media in a slot is damaged; what is behind it is kept");
                closed.push(place);
                continue;
            }
            let last = found.segments.last();
            let Some((key, generation)) =
                last.map(|last| last.header.key.clone()).zip(found.generation)
            else {
                recovered.ready.extend(self.promise_again(slot)?);
                continue;
            };
            let place = SlotPlace { directory: self.identity.directory, slot, generation };
            let resumable = ResumableSlot { key: key.clone(), place, position: found.end };
            let whole = found.torn.is_none();
            match newest.get(&key) {
                _ if whole => closed.push(place),
                Some(other) if other.place.generation >= generation => closed.push(place),
                _ => closed.extend(newest.insert(key, resumable).map(|older| older.place)),
            }
        }
        self.replay(closed.into_iter().map(DurableEvent::SlotClosed).collect())?;
        recovered.resumable = newest.into_values().collect();
        Ok(recovered)
    }

    /// The place of a slot that finished files have media in behind `end`: it is not written to.
    fn known_behind(&self, slot: SlotIndex, end: u64) -> Result<Option<SlotPlace>, RingError> {
        let known = self
            .db
            .prepare_cached(
                "SELECT generation FROM slot WHERE slot = ?1 AND EXISTS (SELECT 1 FROM span WHERE
                 span.slot = slot.slot AND span.generation = slot.generation AND end > ?2)",
            )
            .and_then(|mut query| {
                query.query_row(params![slot.0, sql(end)], |row| row.get(0)).optional()
            })
            .map_err(RingError::catalog("looking for media behind damage"))?;
        let directory = self.identity.directory;
        let place = |known| SlotPlace { directory, slot, generation: SlotGeneration(unsql(known)) };
        Ok(known.map(place))
    }

    /// A slot without anything good: reserved again if it was, spare if not.
    fn promise_again(&self, slot: SlotIndex) -> Result<Option<ReadySlot>, RingError> {
        let reserve = "UPDATE slot SET state = 1 WHERE slot = ?1 AND state IN (1, 2)
             RETURNING generation";
        let generations: Vec<i64> = self
            .db
            .prepare_cached(reserve)
            .and_then(|mut update| update.query_map(params![slot.0], |row| row.get(0))?.collect())
            .map_err(RingError::catalog("promising a slot again"))?;
        let ready = generations
            .first()
            .map(|generation| ReadySlot { slot, generation: SlotGeneration(unsql(*generation)) });
        Ok(ready)
    }

    /// No session lives on over a restart: files that grew are finished, but for those that wait for
    /// their stream, and gaps are entered.
    fn finish_all(&mut self) -> Result<(), RingError> {
        let now = self.dates.moment(self.now());
        let waiting = self.recordings_that_wait(now)?;
        let waits = |recording| waiting.iter().any(|one| one.id == recording);
        self.finish_open_files(|recording, format| format == FileFormat::Hls && waits(recording))?;
        let (state, why) = finished_state(self.settings.delivers);
        let kept: Vec<i64> = waiting.iter().map(|one| sql(one.id.0)).collect();
        let kept = serde_json::to_string(&kept).expect("numbers");
        let grown: Vec<OpenSegment> = self.open_segments.values().cloned().collect();
        self.durably("finishing what a crash left open", |transaction| {
            transaction.execute(
                "UPDATE file SET state = ?1, why = ?2 WHERE state = ?3 AND NOT (format = ?4
                 AND recording IN (SELECT value FROM json_each(?5)))",
                params![state as u8, why, FileState::Recording as u8, FileFormat::Hls as u8, kept],
            )?;
            transaction.execute(
                "UPDATE file SET state = ?1 WHERE state = ?2",
                params![FileState::Queued as u8, FileState::Uploading as u8],
            )?;
            // Where a slot goes on, its last segment has no row yet.
            grown.iter().try_for_each(|open| store_segment(transaction, open))?;
            end_of_life(transaction, now)?;
            transaction.execute(
                &format!("{END_RECORDINGS} AND id NOT IN (SELECT value FROM json_each(?1))"),
                params![kept],
            )
        })?;
        self.waiting = waiting;
        Ok(())
    }
}

/// Sessions, gaps and decisions that were under way when the box went down end. Gaps last until now if
/// that can be told, and else get their end with the date of this boot; sessions and decisions end with
/// their media.
fn end_of_life(transaction: &Transaction<'_>, now: Moment) -> rusqlite::Result<()> {
    // Of a session's newest segment.
    const NEWEST: &str = "FROM segment WHERE segment.session = session.id
        ORDER BY first_sequence DESC LIMIT 1";
    // By the clock of one boot, else by wall clocks that both can be believed, else not at all.
    const UNTIL: &str = "CASE WHEN boot_id = ?3 THEN from_ms + max(0, ?4 - boot_ms)
        WHEN trusted AND ?2 THEN max(?1, from_ms) ELSE from_ms END";
    let went_down = "the box went down without warning";
    transaction.execute(
        &format!(
            "INSERT INTO gap (stream, session, from_ms, cause, trusted, boot_id, boot_ms)
             SELECT stream, id, coalesce((SELECT last_ms {NEWEST}), began_ms), ?1, trusted, boot_id,
             coalesce((SELECT coalesce(first_boot_ms + last_ms - first_ms,
                 began_boot_ms + last_ms - began_ms) {NEWEST}), began_boot_ms)
             FROM session WHERE ended_ms IS NULL"
        ),
        [went_down],
    )?;
    transaction.execute(
        &format!(
            "UPDATE session SET cause = ?1, ended_ms = max(began_ms, coalesce((SELECT coalesce(
             began_ms + first_boot_ms - began_boot_ms + last_ms - first_ms, last_ms) {NEWEST}), 0))
             WHERE ended_ms IS NULL"
        ),
        [went_down],
    )?;
    let trusted = now.trusted_wall().is_some();
    let now = params![now.at.wall.unix.0, trusted, now.boot_id.0, sql(now.at.boot.0)];
    transaction.execute(
        &format!(
            "UPDATE gap SET until_ms = {UNTIL}, until_boot_ms = ?4,
             until_boot_id = CASE WHEN NOT ?2 AND boot_id IS NOT ?3 THEN ?3 END,
             media_ms = CASE session WHEN 0 THEN {UNTIL} - from_ms ELSE media_ms END
             WHERE until_ms IS NULL"
        ),
        now,
    )?;
    transaction.execute(
        "UPDATE decision SET until_ms = CASE
             WHEN boot_id = ?3 THEN from_ms + max(0, ?4 - boot_ms)
             WHEN trusted AND ?2 THEN max(?1, from_ms)
             ELSE max(from_ms, coalesce((SELECT max(ended_ms) FROM session WHERE
                 session.stream = decision.stream AND session.boot_id = decision.boot_id), 0)) END
         WHERE until_ms IS NULL",
        now,
    )?;
    Ok(())
}

/// Every fragment found, by session and sequence. A fragment that stands twice (a failed sync had
/// it written again) counts once, where it was written last.
fn fragments_in_order(found: &[(SlotIndex, FoundSlot)]) -> Vec<DurableFragment> {
    let (mut began, mut follow) = (BTreeMap::new(), Vec::new());
    for (_, slot) in found {
        let headers = slot.segments.iter().map(|segment| &segment.header);
        for header in headers.clone() {
            began.entry(header.session).or_insert(header.began.wall.unix);
        }
        let pairs = headers.clone().zip(headers.skip(1));
        follow.extend(pairs.map(|(first, second)| (first.session, second.session)));
    }
    let sessions = sessions_in_order(began, &follow);
    let mut ordered = BTreeMap::new();
    for (_, slot) in found {
        for segment in &slot.segments {
            let start = Arc::new(segment_start(&segment.header));
            let nth = sessions.get(&segment.header.session).copied();
            for fragment in &segment.fragments {
                let seal = &fragment.seal;
                let order = (nth, seal.session, seal.sequence);
                let durable = DurableFragment {
                    segment: start.clone(),
                    seal: seal.clone(),
                    offset: fragment.offset,
                    end: fragment.end,
                };
                let generation = seal.place.generation;
                let newer = ordered.get(&order).is_none_or(|(other, _)| *other <= generation);
                if newer {
                    ordered.insert(order, (generation, durable));
                }
            }
        }
    }
    ordered.into_values().map(|(_, durable)| durable).collect()
}

/// The place of each session in the order in which they were written: as `follow` has them, which
/// is how they stand in slots one after the other, else by the wall clock, which may have been set back
/// between them.
pub(in crate::ring) fn sessions_in_order(
    began: BTreeMap<SessionId, UnixMillis>,
    follow: &[(SessionId, SessionId)],
) -> BTreeMap<SessionId, usize> {
    let mut before: BTreeMap<SessionId, BTreeSet<SessionId>> = BTreeMap::new();
    for (first, second) in follow.iter().filter(|(first, second)| first != second) {
        before.entry(*second).or_default().insert(*first);
    }
    let mut left: BTreeSet<_> = began.into_iter().map(|(session, at)| (at, session)).collect();
    let mut ordered = BTreeMap::new();
    while let Some(first) = left.first().copied() {
        let is_next = |session: &SessionId| {
            before.get(session).is_none_or(|all| all.iter().all(|one| ordered.contains_key(one)))
        };
        // Damaged slots may contradict each other: then by the clock.
        let next = left.iter().find(|(_, session)| is_next(session)).copied().unwrap_or(first);
        left.remove(&next);
        ordered.insert(next.1, ordered.len());
    }
    ordered
}

/// A segment as it was handed to the writer once, as far as the header tells.
pub(in crate::ring) fn segment_start(header: &SegmentHeader) -> SegmentStart {
    SegmentStart {
        session: Arc::new(SessionStart {
            id: header.session,
            key: header.key.clone(),
            boot_id: header.boot_id,
            began: header.began,
            protocol: "",
            query: String::new(),
        }),
        number: 0,
        discontinuity: header.discontinuity,
        tracks: header.tracks.clone().into(),
        origins: header.origins.clone(),
        script_data: header.script_data.clone(),
        init: bytes::Bytes::new(),
    }
}
