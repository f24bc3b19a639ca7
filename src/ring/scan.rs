//! Reading a slot from its start to its last good seal. Used by recovery, by `fsck`, and to find
//! the fragments of a span. What is read is not trusted: every length is checked against the slot
//! before anything is allocated.

use std::cell::RefCell;
use std::io;

use crate::domain::ids::{DirectoryId, FragmentSequence, SlotGeneration, SlotIndex};
use crate::domain::limits::{FRAGMENT_BYTES_TARGET, SAMPLE_BYTES_MAX};
use crate::platform::flash::FlashFile;
use crate::ring::layout::{
    Seal, SealRecordings, SegmentHeader, SlotPlace, decode_seal, decode_segment_start,
    is_nearly_seal, page_align, seal_agrees, stream_hash,
};

/// No fragment is larger: the target, one more sample, and generous headers.
const FRAGMENT_BYTES_MAX: u64 = (FRAGMENT_BYTES_TARGET + SAMPLE_BYTES_MAX + (1 << 20)) as u64;
/// No segment start is larger.
const SEGMENT_START_BYTES_MAX: u64 = 1 << 20;
/// No seal is larger.
const SEAL_BYTES_MAX: u64 = 4_096;

/// Seals are searched in pieces of this size, which overlap by a seal or by the start of one.
const SEAL_SEARCH_BYTES: u64 = 256 << 10;
const SEAL_SEARCH_OVERLAP: u64 = 80;

/// How much of a fragment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Boxes and seals only: finds what is there.
    Seals,
    /// Every byte, against the checksum: proves what is there.
    Checksums,
}

/// A fragment found in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFragment {
    /// Where its `moof` begins, in bytes from the start of the slot.
    pub offset: u64,
    /// Where the next thing may begin.
    pub end: u64,
    /// Bytes of its `moof`.
    pub moof_bytes: u32,
    /// What its seal says.
    pub seal: Seal,
}

/// A segment found in a slot.
#[derive(Debug, Clone)]
pub struct FoundSegment {
    /// Where it begins, in bytes from the start of the slot.
    pub offset: u64,
    /// Where its first fragment begins.
    pub media_offset: u64,
    /// What its header says.
    pub header: SegmentHeader,
    /// Its fragments in order.
    pub fragments: Vec<FoundFragment>,
}

/// What a slot holds.
#[derive(Debug, Clone)]
pub struct FoundSlot {
    /// The life of the slot that its first segment was written in.
    pub generation: Option<SlotGeneration>,
    /// Segments in order.
    pub segments: Vec<FoundSegment>,
    /// Where the last good thing ends.
    pub end: u64,
    /// Why reading stopped, if not at an orderly end.
    pub torn: Option<&'static str>,
}

/// Reads slots of one ring.
pub struct Scanner<'a> {
    file: &'a dyn FlashFile,
    slot_bytes: u64,
    depth: Depth,
    /// The last failed read: what was not read is not damaged.
    failed: RefCell<Option<io::Error>>,
}

impl<'a> Scanner<'a> {
    /// A scanner over one open slot.
    #[must_use]
    pub fn new(file: &'a dyn FlashFile, slot_bytes: u64, depth: Depth) -> Self {
        Scanner { file, slot_bytes, depth, failed: RefCell::new(None) }
    }

    /// The read that failed since the last call, if one did: then what was said to be wrong is only
    /// what could not be read.
    pub fn take_read_error(&self) -> Option<io::Error> {
        self.failed.take()
    }

    /// Reads the slot. `expected` is where it should be; with a generation of 0, any is taken.
    #[must_use]
    pub fn slot(&self, expected: SlotPlace) -> FoundSlot {
        let mut found = FoundSlot { generation: None, segments: Vec::new(), end: 0, torn: None };
        let mut place = expected;
        let mut offset = 0;
        while offset < self.slot_bytes {
            match self.box_at(offset) {
                Some((_, kind)) if &kind == b"ftyp" => {
                    let Some(segment) = self.segment_start(offset, place) else {
                        // Old content of an earlier life, or a torn start.
                        found.torn = Some("no valid segment start");
                        return found;
                    };
                    place.generation = segment.header.place.generation;
                    found.generation = Some(place.generation);
                    offset = segment.media_offset;
                    found.segments.push(segment);
                }
                Some((_, kind)) if &kind == b"moof" => {
                    let Some(segment) = found.segments.last_mut() else {
                        found.torn = Some("a fragment before any segment");
                        return found;
                    };
                    match self.fragment(offset, place, segment) {
                        Ok(fragment) => {
                            offset = fragment.end;
                            segment.fragments.push(fragment);
                        }
                        Err(what) => {
                            found.torn = Some(what);
                            return found;
                        }
                    }
                }
                Some((size, kind)) if &kind == b"free" && offset + size == self.slot_bytes => {
                    return found;
                }
                Some(_) | None => {
                    found.torn = Some("no box of ours");
                    return found;
                }
            }
            found.end = offset;
        }
        found
    }

    /// Whether the closing box of the slot begins at `offset`.
    #[must_use]
    pub fn closes_at(&self, offset: u64) -> bool {
        let closing = |(size, kind)| &kind == b"free" && offset + size == self.slot_bytes;
        self.box_at(offset).is_some_and(closing)
    }

    /// The segment whose start is at `offset`, without its fragments.
    #[must_use]
    pub fn segment_start(&self, offset: u64, expected: SlotPlace) -> Option<FoundSegment> {
        let (ftyp, _) = self.box_at(offset).filter(|(_, kind)| kind == b"ftyp")?;
        let (moov, _) = self.box_at(offset + ftyp).filter(|(_, kind)| kind == b"moov")?;
        let init = ftyp.checked_add(moov)?;
        let (uuid, _) = self.box_at(offset + init).filter(|(_, kind)| kind == b"uuid")?;
        let len = init.checked_add(uuid)?;
        if len > SEGMENT_START_BYTES_MAX || len > self.slot_bytes - offset {
            return None;
        }
        let bytes = self.read(offset, len)?;
        let (header, _, whole) = decode_segment_start(&bytes)?;
        let place = header.place;
        let fits = place.directory == expected.directory
            && place.slot == expected.slot
            && (expected.generation.0 == 0 || place.generation == expected.generation);
        fits.then(|| FoundSegment {
            offset,
            media_offset: offset + whole as u64,
            header,
            fragments: Vec::new(),
        })
    }

    /// The fragment at `offset`, which must belong to `segment` and follow its last one.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn fragment(
        &self,
        offset: u64,
        place: SlotPlace,
        segment: &FoundSegment,
    ) -> Result<FoundFragment, &'static str> {
        let boxed = |at, kind: &[u8; 4]| self.box_at(at).filter(|(_, found)| found == kind);
        let (moof, _) = boxed(offset, b"moof").ok_or("no moof")?;
        let (mdat, _) = boxed(offset + moof, b"mdat").ok_or("no mdat after moof")?;
        let media = moof.checked_add(mdat).ok_or("sizes overflow")?;
        if media > FRAGMENT_BYTES_MAX || media > self.slot_bytes - offset {
            return Err("a fragment larger than any is");
        }
        let (seal_len, _) = boxed(offset + media, b"uuid").ok_or("no seal after mdat")?;
        if seal_len > SEAL_BYTES_MAX || seal_len > self.slot_bytes - offset - media {
            return Err("a seal larger than any is");
        }
        let seal_box = self.read(offset + media, seal_len).ok_or("the seal is not readable")?;
        let seal = decode_seal(&seal_box).ok_or("the seal is no seal")?;
        if self.depth == Depth::Checksums {
            let bytes = self.read(offset, media).ok_or("the media is not readable")?;
            if !seal_agrees(&seal_box, crc32c::crc32c(&bytes)) {
                return Err("the checksum does not agree");
            }
        }
        let follows =
            segment.fragments.last().is_none_or(|last| seal.sequence > last.seal.sequence);
        let fits = seal.place == place
            && u64::from(seal.media_bytes) == media
            && u64::from(seal.segment_offset) == segment.offset
            && seal.session == segment.header.session
            && seal.stream_hash == stream_hash(&segment.header.key)
            && follows;
        if !fits {
            return Err("the seal belongs elsewhere");
        }
        let end = page_align(offset + media + seal_len);
        let gap = end - (offset + media + seal_len);
        let end = if gap > 0 && gap < 8 { end + crate::domain::limits::PAGE_BYTES } else { end };
        let moof_bytes = u32::try_from(moof).map_err(|_| "a moof larger than any is")?;
        Ok(FoundFragment { offset, end, moof_bytes, seal })
    }

    /// Whether something stands behind `offset` that was sealed as a fragment of `segment`, though it
    /// is not good any more. Where a write was cut off there is no seal.
    #[must_use]
    pub fn was_sealed(&self, offset: u64, place: SlotPlace, segment: &FoundSegment) -> bool {
        let last = segment.fragments.last().map(|last| last.seal.sequence);
        let like = Seal {
            place,
            stream_hash: stream_hash(&segment.header.key),
            session: segment.header.session,
            segment_offset: u32::try_from(segment.offset).unwrap_or(u32::MAX),
            sequence: FragmentSequence(0),
            media_bytes: 0,
            first_arrival: segment.header.began,
            last_arrival: segment.header.began.boot,
            media_start_ms: 0,
            media_end_ms: 0,
            key: false,
            recordings: SealRecordings::new(),
        };
        let until = self.slot_bytes.min(offset + FRAGMENT_BYTES_MAX);
        let mut at = offset;
        while at + SEAL_SEARCH_OVERLAP < until {
            let Some(bytes) = self.read(at, (until - at).min(SEAL_SEARCH_BYTES)) else { break };
            let found = bytes.windows(SEAL_SEARCH_OVERLAP as usize).any(|window| {
                (window[4..8] == *b"uuid" || window[8..12] == *b"edge")
                    && is_nearly_seal(window, &like, last)
            });
            if found {
                return true;
            }
            at += SEAL_SEARCH_BYTES - SEAL_SEARCH_OVERLAP;
        }
        false
    }

    /// The first seal behind `offset`, whatever it belongs to and whether or not its media is good.
    #[must_use]
    pub fn any_seal(&self, offset: u64, directory: DirectoryId) -> Option<Seal> {
        let until = self.slot_bytes.min(offset + FRAGMENT_BYTES_MAX);
        let mut at = offset;
        while at + SEAL_BYTES_MAX < until {
            let bytes = self.read(at, (until - at).min(SEAL_SEARCH_BYTES))?;
            let sealed =
                bytes.windows(24).enumerate().filter(|(_, window)| window[4..8] == *b"uuid");
            for (place, window) in sealed {
                let len = u32::from_be_bytes(window[..4].try_into().ok()?) as usize;
                let seal = bytes.get(place..place.saturating_add(len)).and_then(decode_seal);
                if let Some(seal) = seal.filter(|seal| seal.place.directory == directory) {
                    return Some(seal);
                }
            }
            at += SEAL_SEARCH_BYTES - SEAL_BYTES_MAX;
        }
        None
    }

    /// Size and type of the box at `offset`, if it lies within the slot.
    fn box_at(&self, offset: u64) -> Option<(u64, [u8; 4])> {
        if offset.checked_add(8)? > self.slot_bytes {
            return None;
        }
        let mut head = [0; 8];
        self.read_into(&mut head, offset)?;
        let size = u64::from(u32::from_be_bytes(head[..4].try_into().ok()?));
        let kind = head[4..].try_into().ok()?;
        (size >= 8 && size <= self.slot_bytes - offset).then_some((size, kind))
    }

    fn read(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        self.read_into(&mut bytes, offset)?;
        Some(bytes)
    }

    fn read_into(&self, buf: &mut [u8], offset: u64) -> Option<()> {
        self.file
            .read_exact_at(buf, offset)
            .map_err(|error| {
                // A slot that is too short will not be longer the next time.
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    self.failed.replace(Some(error));
                }
            })
            .ok()
    }
}

/// The place of a slot whose life is not known.
#[must_use]
pub fn any_life(directory: DirectoryId, slot: SlotIndex) -> SlotPlace {
    SlotPlace { directory, slot, generation: SlotGeneration(0) }
}
