//! Reading clips from the ring: spans as a [`ClipSource`], under leases that keep their slots.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ids::SlotIndex;
use crate::domain::limits::PAGE_BYTES;
use crate::media::clip::{ClipError, ClipPart, ClipSource};
use crate::platform::flash::{FlashFile, Open};
use crate::ring::RingError;
use crate::ring::catalog::open::Span;
use crate::ring::layout::{Seal, seal_agrees};
use crate::ring::right_of_way::PIECE_BYTES;
use crate::ring::scan::{Depth, FoundSegment, Scanner};
use crate::ring::slots::Slots;

/// A fragment up to this size is checked and served from memory; a larger one is checked in
/// pieces and read from flash again.
const CACHED_FRAGMENT_BYTES_MAX: usize = 3 << 20;
/// What reading a `moof` and checking that its seal is there moves: pages of both.
const HEADS_BYTES: usize = 3 * PAGE_BYTES as usize;

/// Which slots are being read. A leased slot is not reused.
#[derive(Debug, Default)]
pub struct Leases(Mutex<HashMap<SlotIndex, u32>>);

/// Keeps slots from being reused until dropped.
pub struct Lease {
    leases: Arc<Leases>,
    slots: Vec<SlotIndex>,
}

impl Leases {
    /// Leases slots.
    #[must_use]
    pub fn take(self: &Arc<Self>, slots: impl IntoIterator<Item = SlotIndex>) -> Lease {
        let slots: Vec<SlotIndex> = slots.into_iter().collect();
        let mut counts = self.counts();
        for slot in &slots {
            *counts.entry(*slot).or_default() += 1;
        }
        drop(counts);
        Lease { leases: self.clone(), slots }
    }

    /// The slots that are leased now.
    #[must_use]
    pub fn snapshot(&self) -> HashSet<SlotIndex> {
        self.counts().keys().copied().collect()
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<SlotIndex, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut counts = self.leases.counts();
        for slot in &self.slots {
            if let Some(count) = counts.get_mut(slot) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(slot);
                }
            }
        }
    }
}

/// One span, opened.
struct OpenSpan {
    file: Box<dyn FlashFile>,
    span: Span,
    segment: FoundSegment,
    first_fragment: u32,
    /// Where each fragment begins, in pages: two bytes a fragment, so that twelve hours fit.
    pages: Vec<u16>,
}

/// A clip in the ring.
pub struct RingClip {
    slots: Slots,
    spans: Vec<OpenSpan>,
    parts: Vec<ClipPart>,
    cache: Mutex<Option<CachedFragment>>,
    _lease: Lease,
}

struct CachedFragment {
    fragment: u32,
    moof_bytes: usize,
    /// The whole fragment, or only its `moof` if it is large.
    bytes: Vec<u8>,
    /// Where `moof` begins in the slot.
    offset: u64,
}

impl RingClip {
    /// Opens spans, in order, and finds their fragments by their seals.
    ///
    /// # Errors
    /// A slot cannot be read, was reused, or does not hold what the span says.
    pub fn open(slots: Slots, spans: &[Span], lease: Lease) -> Result<Self, RingError> {
        let mut opened: Vec<OpenSpan> = Vec::with_capacity(spans.len());
        let mut parts: Vec<ClipPart> = Vec::new();
        let mut next_fragment = 0;
        for span in spans {
            let open = open_span(&slots, *span, next_fragment)?;
            let fragments = u32::try_from(open.pages.len()).expect("bounded by the slot");
            if fragments == 0 {
                continue;
            }
            let header = &open.segment.header;
            let runs_on = opened.last().is_some_and(|before| {
                let before = &before.segment.header;
                before.session == header.session && !begins_anew(&open)
            });
            if runs_on && let Some(part) = parts.last_mut() {
                part.fragments += fragments;
            } else {
                parts.push(ClipPart {
                    tracks: header.tracks.clone().into(),
                    script_data: header.script_data.clone(),
                    first_fragment: next_fragment,
                    fragments,
                    discontinuity: !parts.is_empty(),
                });
            }
            next_fragment += fragments;
            opened.push(open);
        }
        if parts.is_empty() {
            return Err(RingError::Gone("no fragment is left of the clip".to_owned()));
        }
        Ok(RingClip { slots, spans: opened, parts, cache: Mutex::new(None), _lease: lease })
    }

    fn locate(&self, fragment: u32) -> Result<(&OpenSpan, u64), ClipError> {
        let after = self.spans.partition_point(|span| span.first_fragment <= fragment);
        let span = after.checked_sub(1).map(|at| &self.spans[at]);
        let page = span.and_then(|span| span.pages.get((fragment - span.first_fragment) as usize));
        match (span, page) {
            (Some(span), Some(page)) => Ok((span, u64::from(*page) * PAGE_BYTES)),
            _ => Err(ClipError::Damaged { fragment, what: "there is no such fragment" }),
        }
    }

    /// Makes `fragment` the cached one, read whole and checked against its seal.
    fn cached(&self, fragment: u32) -> Result<MutexGuard<'_, Option<CachedFragment>>, ClipError> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.as_ref().is_none_or(|cached| cached.fragment != fragment) {
            let reused = cache.take().map(|cached| cached.bytes).unwrap_or_default();
            *cache = Some(self.read_checked(fragment, reused)?);
        }
        Ok(cache)
    }

    fn read_checked(&self, fragment: u32, mut bytes: Vec<u8>) -> Result<CachedFragment, ClipError> {
        let (span, offset) = self.locate(fragment)?;
        let scanner = self.scanner(span);
        let found = scanner
            .fragment(offset, span.span.place, &span.segment)
            .map_err(|what| clip_error(&scanner, fragment, what))?;
        let media = found.seal.media_bytes as usize;
        let moof_bytes = found.moof_bytes as usize;
        let kept = if media <= CACHED_FRAGMENT_BYTES_MAX { media } else { moof_bytes };
        let read = |buf: &mut [u8], at: u64| {
            span.file.read_exact_at(buf, at).map_err(|source| ClipError::Read { fragment, source })
        };
        bytes.resize(kept, 0);
        let mut at = 0;
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            self.slots.way.give_way(piece.len());
            read(piece, offset + at as u64)?;
            at += piece.len();
        }
        let mut crc = crc32c::crc32c(&bytes);
        let mut piece = vec![0; PIECE_BYTES.min(media - kept)];
        while at < media {
            let len = piece.len().min(media - at);
            self.slots.way.give_way(len);
            read(&mut piece[..len], offset + at as u64)?;
            crc = crc32c::crc32c_append(crc, &piece[..len]);
            at += len;
        }
        let agrees = seal_covers(span, offset, &found.seal, crc)
            .map_err(|source| ClipError::Read { fragment, source })?;
        if !agrees {
            return Err(ClipError::Damaged { fragment, what: "the checksum does not agree" });
        }
        Ok(CachedFragment { fragment, moof_bytes, bytes, offset })
    }

    fn scanner<'a>(&self, span: &'a OpenSpan) -> Scanner<'a> {
        Scanner::new(&*span.file, self.slots.identity.slot_bytes, Depth::Seals)
    }
}

impl ClipSource for RingClip {
    fn parts(&self) -> &[ClipPart] {
        &self.parts
    }

    /// Only the `moof` is read, so that indexing a clip does not read all of it. Its checksum is
    /// that of the whole fragment and is checked when the payload is read.
    fn moof(&self, fragment: u32) -> Result<Vec<u8>, ClipError> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cache.as_ref().filter(|cached| cached.fragment == fragment) {
            return Ok(cached.bytes[..cached.moof_bytes].to_vec());
        }
        drop(cache);
        self.slots.way.give_way(HEADS_BYTES);
        let (span, offset) = self.locate(fragment)?;
        let scanner = self.scanner(span);
        let found = scanner
            .fragment(offset, span.span.place, &span.segment)
            .map_err(|what| clip_error(&scanner, fragment, what))?;
        let mut moof = vec![0; found.moof_bytes as usize];
        span.file
            .read_exact_at(&mut moof, offset)
            .map_err(|source| ClipError::Read { fragment, source })?;
        Ok(moof)
    }

    fn check(&self, fragment: u32) -> Result<(), ClipError> {
        self.cached(fragment).map(drop)
    }

    fn read_payload(&self, fragment: u32, offset: u32, buf: &mut [u8]) -> Result<(), ClipError> {
        let cache = self.cached(fragment)?;
        let cached = cache.as_ref().expect("just cached");
        let from = cached.moof_bytes + MDAT_HEAD_BYTES + offset as usize;
        if let Some(bytes) = cached.bytes.get(from..from + buf.len()) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        let (span, _) = self.locate(fragment)?;
        span.file
            .read_exact_at(buf, cached.offset + from as u64)
            .map_err(|source| ClipError::Read { fragment, source })
    }
}

/// An `mdat` of ours always has the short head.
const MDAT_HEAD_BYTES: usize = 8;

/// Whether the span stands at the start of a segment that says it does not run on.
fn begins_anew(span: &OpenSpan) -> bool {
    span.segment.header.discontinuity && span.span.start == span.segment.media_offset
}

/// Whether the seal of a fragment agrees with the checksum of its media.
fn seal_covers(span: &OpenSpan, offset: u64, seal: &Seal, crc: u32) -> std::io::Result<bool> {
    let at = offset + u64::from(seal.media_bytes);
    let mut head = [0; 4];
    span.file.read_exact_at(&mut head, at)?;
    // The scanner has checked this length.
    let mut seal_box = vec![0; u32::from_be_bytes(head) as usize];
    span.file.read_exact_at(&mut seal_box, at)?;
    Ok(seal_agrees(&seal_box, crc))
}

/// What a scanner found wrong: only unreadable (try again), or damaged.
fn clip_error(scanner: &Scanner<'_>, fragment: u32, what: &'static str) -> ClipError {
    match scanner.take_read_error() {
        Some(source) => ClipError::Read { fragment, source },
        None => ClipError::Damaged { fragment, what },
    }
}

/// What a scanner found wrong in a slot: only unreadable (try again), or damaged.
pub(super) fn ring_error(
    scanner: &Scanner<'_>,
    slot: SlotIndex,
    offset: u64,
    what: &'static str,
) -> RingError {
    match scanner.take_read_error() {
        Some(source) => RingError::Flash { what: format!("reading slot {slot}"), source },
        None => RingError::Damaged { slot, offset, what },
    }
}

fn open_span(slots: &Slots, span: Span, first_fragment: u32) -> Result<OpenSpan, RingError> {
    let slot = span.place.slot;
    let file = slots.open(slot, Open::Read)?;
    let scanner = Scanner::new(&*file, slots.identity.slot_bytes, Depth::Seals);
    let segment = scanner
        .segment_start(span.segment_offset, span.place)
        .ok_or_else(|| ring_error(&scanner, slot, span.segment_offset, "no such segment"))?;
    let mut pages = Vec::new();
    let mut offset = span.start;
    while offset < span.end {
        let found = scanner
            .fragment(offset, span.place, &segment)
            .map_err(|what| ring_error(&scanner, slot, offset, what))?;
        let page = u16::try_from(offset / PAGE_BYTES).map_err(|_| RingError::Damaged {
            slot,
            offset,
            what: "beyond any slot",
        })?;
        pages.push(page);
        offset = found.end;
    }
    Ok(OpenSpan { file, span, segment, first_fragment, pages })
}
