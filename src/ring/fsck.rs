//! Looking for damage: every slot that holds something is read with all its checksums, and what
//! the catalog says of spans and files is compared with what is there. Nothing is written.
//!
//! Works while the box runs: the catalog is read from a copy, a slot in which something is wrong
//! is read again against a newer copy (it may have been reused meanwhile), and a slot that is
//! being written is good up to its last good seal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::ids::{FileId, SlotGeneration, SlotIndex};
use crate::domain::limits::PAGE_BYTES;
use crate::platform::flash::{Flash, FlashFile, Open};
use crate::ring::RingError;
use crate::ring::catalog::database_path;
use crate::ring::catalog::inventory::{Inventory, SegmentRow, SlotRow, SpanRow};
use crate::ring::catalog::open::SlotState;
use crate::ring::identity::RingIdentity;
use crate::ring::layout::{SlotPlace, page_align};
use crate::ring::scan::{Depth, FoundFragment, FoundSegment, Scanner};
use crate::ring::slots::Slots;
use crate::ring::snapshot::copy_catalog;

/// Slots that are reused while they are read are read again this often.
const PASSES_MAX: usize = 4;
/// Damages of one slot that are told one by one.
const DAMAGES_PER_SLOT_MAX: usize = 64;
/// Behind a torn place, media that came later than one sync interval and this was written after
/// the torn place was made durable.
const SYNC_SLACK: Duration = Duration::from_secs(5);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The slot; `None` for the catalog.
    pub slot: Option<SlotIndex>,
    /// Where in the slot, in bytes.
    pub offset: u64,
    /// The file that it breaks, where it is known to be one.
    pub file: Option<FileId>,
    /// What is wrong.
    pub what: String,
}

/// What was read and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FsckReport {
    /// Slots that hold something.
    pub slots: u64,
    /// Fragments that agree with their seals.
    pub fragments: u64,
    /// Everything that is wrong, in order; at most 64 for a slot.
    pub damages: Vec<Damage>,
}

/// Checks the ring at `path`. `sync_interval` is that of the box.
///
/// # Errors
/// There is no ring of ours, or the catalog cannot be copied.
pub fn check(
    flash: &Arc<dyn Flash>,
    path: &Path,
    sync_interval: Duration,
) -> Result<FsckReport, RingError> {
    let identity = Arc::new(RingIdentity::read(&**flash, path)?);
    let slots = Slots::new(flash.clone(), path.to_owned(), identity);
    let unsynced_ms_max =
        u64::try_from((sync_interval + SYNC_SLACK).as_millis()).unwrap_or(u64::MAX);
    let mut found: BTreeMap<SlotIndex, SlotCheck> = BTreeMap::new();
    let mut before: BTreeMap<SlotIndex, SlotRow> = BTreeMap::new();
    let mut of_catalog = Vec::new();
    for pass in 0..PASSES_MAX {
        let copy = copy_catalog(&**flash, path)?;
        let (catalog, rows, damaged) = read_catalog(copy.path(), &slots.identity);
        of_catalog = damaged;
        let mut again = 0;
        for row in rows {
            let changed = before.insert(row.slot, row) != Some(row);
            let wrong = found.get(&row.slot).is_some_and(|slot| !slot.damages.is_empty());
            if pass > 0 && !(wrong && (changed || pass == 1)) {
                continue;
            }
            again += 1;
            let slot = check_slot(&slots, row, catalog.as_ref(), unsynced_ms_max)?;
            found.insert(row.slot, slot);
        }
        if again == 0 || found.values().all(|slot| slot.damages.is_empty()) {
            break;
        }
    }
    let mut report = FsckReport { damages: of_catalog, ..FsckReport::default() };
    let used = found.values().any(|slot| slot.holds_something);
    if used && !flash.exists(&database_path(path)) {
        let what = "state.db is missing, though slots hold media".to_owned();
        report.damages.push(Damage { slot: None, offset: 0, file: None, what });
    }
    for slot in found.into_values() {
        report.slots += u64::from(slot.holds_something);
        report.fragments += slot.fragments;
        report.damages.extend(slot.damages);
    }
    Ok(report)
}

/// The catalog, the slots as it knows them, and what is wrong with itself. Without it every slot
/// is looked at for what it is.
fn read_catalog(
    folder: &Path,
    identity: &RingIdentity,
) -> (Option<Inventory>, Vec<SlotRow>, Vec<Damage>) {
    let wrong = |file, what| Damage { slot: None, offset: 0, file, what };
    let read = Inventory::open(folder, identity).and_then(|catalog| {
        let Some(catalog) = catalog else { return Ok(None) };
        let (rows, without) = (catalog.slots()?, catalog.files_without_media()?);
        Ok(Some((catalog, rows, without)))
    });
    let unknown = || {
        let (generation, state) = (SlotGeneration(0), SlotState::Reserved as u8);
        let slots = (0..identity.slots).map(SlotIndex);
        slots.map(|slot| SlotRow { slot, generation, state }).collect()
    };
    match read {
        Ok(Some((catalog, rows, without))) => {
            let missing = without
                .into_iter()
                .map(|file| wrong(Some(file), "the catalog has no media of it".to_owned()));
            let rows = rows.into_iter().filter(|row| row.slot.0 < identity.slots).collect();
            (Some(catalog), rows, missing.collect())
        }
        // A ring that was never used has no catalog.
        Ok(None) => (None, unknown(), Vec::new()),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let what = format!("state.db is damaged: {}", cause.unwrap_or(error.to_string()));
            (None, unknown(), vec![wrong(None, what)])
        }
    }
}

fn check_slot(
    slots: &Slots,
    row: SlotRow,
    catalog: Option<&Inventory>,
    unsynced_ms_max: u64,
) -> Result<SlotCheck, RingError> {
    let (segments, spans) = match catalog {
        Some(catalog) => (catalog.segments(row.slot)?, catalog.spans(row.slot)?),
        None => Default::default(),
    };
    let mut check = SlotCheck::new(row);
    if row.state == SlotState::Spare as u8 && segments.is_empty() && spans.is_empty() {
        return Ok(check);
    }
    let file = match slots.open(row.slot, Open::Read) {
        Ok(file) => file,
        Err(RingError::Damaged { offset, what, .. }) => {
            check.wrong(offset, None, what);
            return Ok(check);
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            check.wrong(0, None, format!("{error}: {}", cause.unwrap_or_default()));
            return Ok(check);
        }
    };
    let reader = SlotReader {
        file: &*file,
        scanner: Scanner::new(&*file, slots.identity.slot_bytes, Depth::Checksums),
        slot_bytes: slots.identity.slot_bytes,
        place: SlotPlace {
            directory: slots.identity.directory,
            slot: row.slot,
            generation: row.generation,
        },
        unsynced_ms_max,
    };
    let (end, last) = check.segments(&reader, &segments);
    let growing = [SlotState::Reserved, SlotState::Open, SlotState::Unread]
        .map(|state| state as u8)
        .contains(&row.state);
    if growing {
        let ours = spans.iter().filter(|span| span.generation == row.generation);
        let durable = ours.map(|span| span.end).max().unwrap_or(0);
        check.growing(&reader, end, durable, last);
    }
    if row.state == SlotState::Open as u8 && check.fragments == 0 && check.damages.is_empty() {
        check.wrong(0, None, "no good fragment where the catalog has some");
    }
    check.spans(&spans);
    Ok(check)
}

/// One slot, open for reading.
struct SlotReader<'a> {
    file: &'a dyn FlashFile,
    scanner: Scanner<'a>,
    slot_bytes: u64,
    place: SlotPlace,
    unsynced_ms_max: u64,
}

/// What was found in one slot.
struct SlotCheck {
    row: SlotRow,
    holds_something: bool,
    fragments: u64,
    /// Where good fragments begin and end, in bytes.
    begins: BTreeSet<u64>,
    ends: BTreeSet<u64>,
    damages: Vec<Damage>,
}

impl SlotCheck {
    fn new(row: SlotRow) -> Self {
        SlotCheck {
            row,
            holds_something: false,
            fragments: 0,
            begins: BTreeSet::new(),
            ends: BTreeSet::new(),
            damages: Vec::new(),
        }
    }

    fn wrong(&mut self, offset: u64, file: Option<FileId>, what: impl Into<String>) {
        if self.damages.len() < DAMAGES_PER_SLOT_MAX {
            let (slot, what) = (Some(self.row.slot), what.into());
            self.damages.push(Damage { slot, offset, file, what });
        }
    }

    fn good(&mut self, reader: &SlotReader<'_>, fragment: &FoundFragment) {
        self.holds_something = true;
        self.fragments += 1;
        self.begins.insert(fragment.offset);
        self.ends.insert(fragment.end);
        let seal = fragment.offset + u64::from(fragment.seal.media_bytes);
        self.padding(reader, seal, 1, fragment.end);
    }

    /// Behind a seal, or the three boxes of a segment start, there is a free box up to the page.
    fn padding(&mut self, reader: &SlotReader<'_>, at: u64, boxes: usize, end: u64) {
        if let Some(at) = reader.bad_padding(at, boxes, end) {
            self.wrong(at, None, "no free box up to the next page");
        }
    }

    /// Segments that have ended: all that the catalog says must be there. Gives back where the
    /// last one ends, and the last one.
    fn segments(
        &mut self,
        reader: &SlotReader<'_>,
        rows: &[SegmentRow],
    ) -> (u64, Option<FoundSegment>) {
        let (mut end, mut last) = (0, None);
        for row in rows {
            self.holds_something = true;
            end = row.end;
            if row.generation != self.row.generation {
                self.wrong(row.start, None, "the catalog has a segment of another life here");
                continue;
            }
            let Some(segment) = reader.scanner.segment_start(row.start, reader.place) else {
                self.wrong(row.start, None, "no valid segment start");
                continue;
            };
            self.padding(reader, segment.offset, 3, segment.media_offset);
            last = Some(self.segment(reader, *row, segment));
        }
        (end, last)
    }

    fn segment(
        &mut self,
        reader: &SlotReader<'_>,
        row: SegmentRow,
        mut segment: FoundSegment,
    ) -> FoundSegment {
        let mut offset = row.media;
        let mut skipping = false;
        while offset < row.end.min(reader.slot_bytes) {
            match reader.scanner.fragment(offset, reader.place, &segment) {
                Ok(fragment) => {
                    skipping = false;
                    offset = fragment.end;
                    self.good(reader, &fragment);
                    // Only the last one is compared with.
                    segment.fragments = vec![fragment];
                }
                Err(what) => {
                    if !skipping {
                        self.wrong(offset, None, what);
                    }
                    skipping = true;
                    offset = page_align(offset + 1);
                }
            }
        }
        segment
    }

    /// What came after the ended segments: good up to the last good seal, but at least to
    /// `durable`, where the last span ends.
    fn growing(
        &mut self,
        reader: &SlotReader<'_>,
        from: u64,
        durable: u64,
        last: Option<FoundSegment>,
    ) {
        let mut place = reader.place;
        let mut current = last;
        let mut offset = from;
        let mut skipping = false;
        while offset < reader.slot_bytes {
            if let Some(segment) = reader.scanner.segment_start(offset, place) {
                self.padding(reader, offset, 3, segment.media_offset);
                place.generation = segment.header.place.generation;
                offset = segment.media_offset;
                current = Some(segment);
                skipping = false;
                continue;
            }
            let found = match &current {
                Some(segment) => reader.scanner.fragment(offset, place, segment),
                None => Err("no valid segment start"),
            };
            match (found, current.as_mut()) {
                (Ok(fragment), Some(segment)) => {
                    offset = fragment.end;
                    self.good(reader, &fragment);
                    // Only the last one is compared with.
                    segment.fragments = vec![fragment];
                    skipping = false;
                }
                (Err(what), segment) if !skipping => {
                    let safe = offset < durable
                        || segment.is_some_and(|segment| {
                            reader.was_durable(offset, place, segment.clone())
                        });
                    if !safe {
                        return;
                    }
                    self.wrong(offset, None, what);
                    skipping = true;
                }
                _ => offset = page_align(offset + 1),
            }
        }
    }

    /// Each span must begin and end with a good fragment; what is wrong with the media is told
    /// already.
    fn spans(&mut self, spans: &[SpanRow]) {
        for span in spans {
            let SpanRow { file, start, end, .. } = *span;
            let told = self.damages.iter().any(|damage| {
                damage.file.is_none() && (span.segment..end).contains(&damage.offset)
            });
            if span.generation != self.row.generation {
                self.wrong(start, Some(file), "its span is of another life of the slot");
            } else if told {
                continue;
            } else if !self.begins.contains(&start) {
                self.wrong(start, Some(file), "no fragment begins where its span does");
            } else if !self.ends.contains(&end) {
                self.wrong(end, Some(file), "no fragment ends where its span does");
            }
        }
    }
}

impl SlotReader<'_> {
    /// Whether what stands at `torn` had been made durable: good media of the same life follows
    /// that came later than anything one sync may leave out. Where nothing stands before it that says
    /// when it came, it came before what follows, and not before its session.
    fn was_durable(&self, torn: u64, place: SlotPlace, mut segment: FoundSegment) -> bool {
        let (boot, session) = (segment.header.boot_id, segment.header.session);
        let began = segment.header.began.boot;
        let mut since = segment.fragments.last().map(|last| last.seal.last_arrival);
        let mut offset = page_align(torn + 1);
        while offset < self.slot_bytes {
            if let Some(later) = self.scanner.segment_start(offset, place) {
                if later.header.boot_id != boot {
                    return true;
                }
                offset = later.media_offset;
                segment = later;
                continue;
            }
            match self.scanner.fragment(offset, place, &segment) {
                Ok(fragment) => {
                    let arrived = fragment.seal.first_arrival.boot;
                    // Each fragment takes a page at least: did the session begin in this slot?
                    let missing = (offset - torn) / PAGE_BYTES;
                    let began_here = fragment.seal.session == session
                        && u64::from(fragment.seal.sequence.0) <= missing;
                    let since = since.get_or_insert(if began_here { began } else { arrived });
                    if arrived.0.saturating_sub(since.0) > self.unsynced_ms_max {
                        return true;
                    }
                    offset = fragment.end;
                    segment.fragments = vec![fragment];
                }
                Err(_) => offset = page_align(offset + 1),
            }
        }
        false
    }

    /// Where the padding up to `end` should begin but does not, behind so many boxes from `at`.
    fn bad_padding(&self, mut at: u64, boxes: usize, end: u64) -> Option<u64> {
        for _ in 0..boxes {
            at += self.box_head(at)?.0;
        }
        if at >= end {
            return None;
        }
        let whole = self.box_head(at)? == (end - at, *b"free");
        (!whole).then_some(at)
    }

    /// Size and type of the box at `at`; `None` if the flash fails, which is told elsewhere.
    fn box_head(&self, at: u64) -> Option<(u64, [u8; 4])> {
        let mut head = [0; 8];
        self.file.read_exact_at(&mut head, at).ok()?;
        let [a, b, c, d, kind @ ..] = head;
        Some((u64::from(u32::from_be_bytes([a, b, c, d])), kind))
    }
}
