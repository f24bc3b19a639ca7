//! A lost catalog is made anew while recording goes on: what the slots hold is read, in two passes, by
//! a thread that gives way to the writer. The catalog's side, and the order of things, is in
//! [`catalog::rebuild`](crate::ring::catalog::rebuild).
//!
//! The first pass notes which pieces of which sessions there are, and where: some 100 bytes for each
//! slot. The second reads the pieces in the order in which they were written and has their fragments
//! entered, a handful at a time. Heads and seals are read, and where a file begins or ends, or its slot
//! does, all of the fragment: a seal is not believed there before it is proven.
//!
//! What is damaged is told and gone around: the files that it was in are made so that whoever reads them
//! finds the damage. Where a power cut tore a write there is no seal, and a file just ends there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{error, info};

use crate::domain::ids::{FragmentSequence, SessionId, SlotIndex};
use crate::domain::limits::PAGE_BYTES;
use crate::domain::time::UnixMillis;
use crate::platform::flash::Open;
use crate::ring::RingError;
use crate::ring::catalog::Catalog;
use crate::ring::catalog::durable::DurableFragment;
use crate::ring::catalog::rebuild::{FoundAgain, is_blank};
use crate::ring::catalog::recover::{READ_TRIES, segment_start, sessions_in_order};
use crate::ring::layout::{Seal, SlotPlace, page_align};
use crate::ring::scan::{Depth, FoundFragment, FoundSegment, Scanner, any_life};
use crate::ring::slots::Slots;

/// To read so many slots takes a while.
const SLOW_SLOTS: usize = 500;
/// So much is handed to the catalog at once: nobody waits long behind it.
const HANDFUL: usize = 32;
/// What reading the heads of a fragment and its seal moves.
const HEADS_BYTES: usize = 3 * PAGE_BYTES as usize;

/// Reads the unread slots of a ring and has the catalog enter what they hold.
pub struct Rebuild {
    slots: Slots,
    stop: Arc<AtomicBool>,
    pieces: Vec<Piece>,
    /// What was found and is not entered yet.
    found: Vec<FoundAgain>,
    /// Slots in which something is wrong.
    damaged: BTreeSet<SlotIndex>,
    /// Sessions that something was sealed of that is not among their pieces.
    broken: BTreeSet<SessionId>,
    /// Slots whose content is not known at all, because it is damaged.
    lost: usize,
}

/// What one slot holds of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    place: SlotPlace,
    /// Where its segment begins in the slot, in bytes.
    offset: u64,
    session: SessionId,
    first: FragmentSequence,
    last: FragmentSequence,
    /// Behind its last good fragment in the slot something was sealed, and is damaged.
    torn: bool,
}

impl Rebuild {
    /// One that ends early once `stop` is set.
    #[must_use]
    pub fn new(slots: Slots, stop: Arc<AtomicBool>) -> Self {
        Rebuild {
            slots,
            stop,
            pieces: Vec::new(),
            found: Vec::new(),
            damaged: BTreeSet::new(),
            broken: BTreeSet::new(),
            lost: 0,
        }
    }

    /// Reads everything. What fails is told in the log, and begun anew at the next start.
    pub fn run(mut self, catalog: &Catalog) {
        match self.read_all(catalog) {
            Ok(()) | Err(RingError::Closed) => {}
            Err(problem) => error!(%problem, cause = ?std::error::Error::source(&problem),
                "the catalog cannot be made anew; the next start tries again"),
        }
    }

    fn read_all(&mut self, catalog: &Catalog) -> Result<(), RingError> {
        let unread = catalog.call_blocking(|state| state.unread_slots())?;
        let mut began = BTreeMap::new();
        let mut follow: Vec<(SessionId, SessionId)> = Vec::new();
        let mut blank = Vec::new();
        for (done, slot) in unread.iter().enumerate() {
            self.go_on()?;
            tell_progress("looked through", done, unread.len());
            let before = self.pieces.len();
            if self.look_through(*slot, &mut began) {
                blank.push(*slot);
            }
            let here = &self.pieces[before..];
            let pairs = here.iter().zip(here.iter().skip(1));
            follow.extend(pairs.map(|(one, next)| (one.session, next.session)));
            if blank.len() >= HANDFUL {
                let blank = std::mem::take(&mut blank);
                catalog.call_blocking(move |state| state.are_blank(&blank))?;
            }
        }
        catalog.call_blocking(move |state| state.are_blank(&blank))?;
        let order = sessions_in_order(began, &follow);
        self.pieces.sort_by_key(|piece| {
            (order.get(&piece.session).copied(), piece.first, piece.place.generation)
        });
        let pieces = std::mem::take(&mut self.pieces);
        for (nth, piece) in pieces.iter().enumerate() {
            self.go_on()?;
            tell_progress("read", nth, pieces.len());
            let next = pieces.get(nth + 1).filter(|next| next.session == piece.session);
            self.enter(catalog, *piece, next, nth as u64)?;
        }
        let found = std::mem::take(&mut self.found);
        catalog.call_blocking(move |state| state.enter_found(found))?;
        let (damaged, lost) = (self.damaged.len(), self.lost);
        if damaged + lost > 0 {
            error!(damaged, lost, "slots are damaged; files with media in them are not delivered");
        }
        catalog.call_blocking(move |state| state.finish_rebuild())
    }

    fn go_on(&self) -> Result<(), RingError> {
        if self.stop.load(Ordering::Relaxed) { Err(RingError::Closed) } else { Ok(()) }
    }

    /// Notes what a slot holds; tells whether it is blank.
    fn look_through(
        &mut self,
        slot: SlotIndex,
        began: &mut BTreeMap<SessionId, UnixMillis>,
    ) -> bool {
        if is_blank(&self.slots, slot).unwrap_or(false) {
            return true;
        }
        let from = Piece {
            place: any_life(self.slots.identity.directory, slot),
            offset: 0,
            session: SessionId(0),
            first: FragmentSequence(0),
            last: FragmentSequence(0),
            torn: false,
        };
        let mut tried = (0..READ_TRIES).map(|_| self.pieces_of(from));
        let Some(Ok(Noted { mut pieces, sessions, wrong })) = tried.find(Result::is_ok) else {
            error!(%slot, "a slot cannot be read");
            self.lost += 1;
            return false;
        };
        began.extend(sessions);
        if let Some(wrong) = wrong.filter(|wrong| wrong.sealed) {
            match pieces.last_mut() {
                Some(last) if wrong.session == Some(last.session) => last.torn = true,
                _ => {
                    error!(%slot, what = wrong.what, "a slot is damaged, and media in it is lost");
                    self.lost += 1;
                    self.broken.extend(wrong.session);
                }
            }
        }
        self.pieces.extend(pieces);
        false
    }

    fn pieces_of(&self, from: Piece) -> Result<Noted, RingError> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut sessions = Vec::new();
        let wrong = self.walk(from, None, &mut |step| {
            match step {
                Step::Segment(segment) => {
                    let header = &segment.header;
                    sessions.push((header.session, header.began.wall.unix));
                }
                Step::Fragment { segment, fragment, behind_damage } => {
                    let seal = &fragment.seal;
                    match pieces.last_mut() {
                        Some(piece) if piece.offset == segment.offset => piece.last = seal.sequence,
                        before => {
                            if let Some(before) = before {
                                before.torn |= behind_damage;
                            }
                            pieces.push(Piece {
                                place: seal.place,
                                offset: segment.offset,
                                session: seal.session,
                                first: seal.sequence,
                                last: seal.sequence,
                                torn: false,
                            });
                        }
                    }
                }
            }
            Ok(true)
        })?;
        Ok(Noted { pieces, sessions, wrong })
    }

    /// Has the fragments of a piece entered, up to where the next piece of the session begins.
    fn enter(
        &mut self,
        catalog: &Catalog,
        piece: Piece,
        next: Option<&Piece>,
        order: u64,
    ) -> Result<(), RingError> {
        let mut found = std::mem::take(&mut self.found);
        let mut start = None;
        let mut damaged = false;
        let mut last = None;
        let until = next.map_or(u32::MAX, |next| next.first.0);
        let walked = self.walk(piece, Some(piece.last), &mut |step| {
            match step {
                Step::Segment(segment) if segment.offset == piece.offset => {
                    start = Some(Arc::new(segment_start(&segment.header)));
                }
                Step::Segment(_) => return Ok(false),
                Step::Fragment { segment, fragment, behind_damage } => {
                    let Some(start) = start.as_ref() else { return Ok(false) };
                    if fragment.seal.sequence.0 >= until {
                        return Ok(false);
                    }
                    damaged |= behind_damage;
                    // The first good one begins where its segment does, whatever is damaged before it.
                    let offset = last.map_or(segment.media_offset, |_| fragment.offset);
                    last = Some(fragment.seal.sequence);
                    let fragment = Box::new(DurableFragment {
                        segment: start.clone(),
                        seal: fragment.seal.clone(),
                        offset,
                        end: fragment.end,
                    });
                    found.push(FoundAgain::Fragment { fragment, order, behind_damage });
                }
            }
            if found.len() >= HANDFUL {
                let found = std::mem::take(&mut found);
                catalog.call_blocking(move |state| state.enter_found(found))?;
            }
            Ok(true)
        });
        let wrong = match walked {
            Ok(wrong) => piece.torn || wrong.is_some_and(|wrong| wrong.sealed),
            Err(RingError::Flash { what, source }) => {
                error!(%what, %source, "a slot cannot be read any more");
                true
            }
            Err(error) => return Err(error),
        };
        // What was written anew after a failed sync is in the next piece, and misses nothing.
        let misses = next.is_none_or(|next| last.is_none_or(|last| next.first.0 > last.0 + 1));
        let elsewhere = self.broken.contains(&piece.session) || next.is_some() && self.lost > 0;
        if misses && (wrong || elsewhere) {
            damaged = true;
            found.push(FoundAgain::BrokenOff(piece.place));
        }
        if damaged && self.damaged.insert(piece.place.slot) {
            error!(slot = %piece.place.slot, session = %piece.session, "media in a slot is damaged");
        }
        self.found = found;
        Ok(())
    }

    /// Gives what a slot holds from a segment on to `take`, in order, until that has enough, and goes
    /// around what is damaged. Fragments that files may begin or end with are proven if the sequence of
    /// the last one is given. Tells what is wrong at the end, if something is.
    fn walk(
        &self,
        from: Piece,
        prove: Option<FragmentSequence>,
        take: &mut dyn FnMut(Step<'_>) -> Result<bool, RingError>,
    ) -> Result<Option<Wrong>, RingError> {
        let Piece { mut place, mut offset, .. } = from;
        let slot_bytes = self.slots.identity.slot_bytes;
        let file = self.slots.open(place.slot, Open::Read)?;
        let [scanner, prover] =
            [Depth::Seals, Depth::Checksums].map(|depth| Scanner::new(&*file, slot_bytes, depth));
        let mut segment: Option<FoundSegment> = None;
        let mut wrong: Option<(u64, &'static str)> = None;
        while offset < slot_bytes && !scanner.closes_at(offset) {
            self.go_on()?;
            self.slots.way.give_way(HEADS_BYTES);
            if let Some(begun) = scanner.segment_start(offset, place) {
                place.generation = begun.header.place.generation;
                offset = begun.media_offset;
                if !take(Step::Segment(&begun))? {
                    break;
                }
                segment = Some(begun);
                continue;
            }
            let Some(current) = segment.as_mut() else {
                wrong = Some((offset, "no valid segment start"));
                break;
            };
            let read = scanner.fragment(offset, place, current).and_then(|fragment| {
                match prove.is_some_and(|last| decides(current, &fragment, last)) {
                    true => {
                        self.slots.way.give_way(fragment.seal.media_bytes as usize);
                        prover.fragment(offset, place, current)
                    }
                    false => Ok(fragment),
                }
            });
            match read {
                Ok(fragment) => {
                    offset = fragment.end;
                    let behind_damage = wrong.take().is_some();
                    let step =
                        Step::Fragment { segment: current, fragment: &fragment, behind_damage };
                    if !take(step)? {
                        break;
                    }
                    // Only the last one is compared with.
                    current.fragments = vec![fragment];
                }
                Err(what) => {
                    wrong.get_or_insert((offset, what));
                    offset = page_align(offset + 1);
                }
            }
        }
        let wrong = wrong.map(|(from, what)| match &segment {
            Some(segment) => {
                let sealed = scanner.was_sealed(from, place, segment);
                Wrong { what, sealed, session: Some(segment.header.session) }
            }
            None => {
                let seal = scanner.any_seal(from, place.directory);
                Wrong { what, sealed: seal.is_some(), session: seal.map(|seal| seal.session) }
            }
        });
        match scanner.take_read_error().or_else(|| prover.take_read_error()) {
            None => Ok(wrong),
            Some(source) => {
                Err(RingError::Flash { what: format!("reading slot {}", place.slot), source })
            }
        }
    }
}

/// What the first pass notes of a slot.
struct Noted {
    pieces: Vec<Piece>,
    sessions: Vec<(SessionId, UnixMillis)>,
    wrong: Option<Wrong>,
}

/// What is wrong at the end of a slot.
struct Wrong {
    what: &'static str,
    /// Something was sealed there.
    sealed: bool,
    /// Of which session.
    session: Option<SessionId>,
}

/// Something in a slot.
enum Step<'a> {
    Segment(&'a FoundSegment),
    Fragment { segment: &'a FoundSegment, fragment: &'a FoundFragment, behind_damage: bool },
}

/// Whether where files begin and end may hang on what the seal of a fragment says.
fn decides(segment: &FoundSegment, fragment: &FoundFragment, last: FragmentSequence) -> bool {
    let seal = &fragment.seal;
    let files = |seal: &Seal| -> Vec<_> {
        seal.recordings.iter().map(|one| (one.recording, one.formats)).collect()
    };
    let before = segment.fragments.last();
    seal.sequence == last
        || seal.recordings.iter().any(|recording| !recording.begins.is_empty())
        || before.is_none_or(|before| files(&before.seal) != files(seal))
}

/// Says ten times how far it is.
/// Says how far it is, where that takes a while.
fn tell_progress(what: &str, done: usize, of: usize) {
    if of >= SLOW_SLOTS && done.is_multiple_of((of / 10).max(1)) {
        info!(done, of, "the catalog is being made anew: slots {what}");
    }
}
