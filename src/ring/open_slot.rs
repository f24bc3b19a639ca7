//! An open slot: how fragments of one stream are put into it, one behind the other.

use std::io::IoSlice;
use std::sync::Arc;

use crate::domain::limits::PAGE_BYTES;
use crate::platform::flash::FlashFile;
use crate::ring::catalog::durable::DurableFragment;
use crate::ring::fragment::{Fragment, SegmentStart, SessionStart};
use crate::ring::layout::{
    Seal, SegmentHeader, SlotPlace, encode_seal, encode_segment_start, free_head, padding,
    stream_hash,
};

/// No start of a segment takes more beside its init: header and padding.
const SEGMENT_START_BYTES_MAX: u64 = 96 << 10;
/// Seal and padding of a fragment, and a page for the closing box.
const FRAGMENT_OVERHEAD_BYTES: u64 = 4 * PAGE_BYTES;

/// A slot that is being written.
pub(super) struct OpenSlot {
    pub(super) file: Box<dyn FlashFile>,
    pub(super) place: SlotPlace,
    /// Where the next thing is written.
    pub(super) position: u64,
    /// The segment that grows, and where it begins.
    pub(super) segment: Option<(Arc<SegmentStart>, u32)>,
    /// The segment that filled the slot before this one: it only runs on here.
    pub(super) runs_on: Option<Arc<SegmentStart>>,
    /// Written since the last good sync.
    pub(super) dirty: bool,
    /// Something in it is durable.
    pub(super) durable: bool,
    /// Its stream is live.
    pub(super) live: bool,
}

impl OpenSlot {
    /// A slot at its beginning.
    pub(super) fn new(file: Box<dyn FlashFile>, place: SlotPlace) -> Self {
        OpenSlot {
            file,
            place,
            position: 0,
            segment: None,
            runs_on: None,
            dirty: false,
            durable: false,
            live: true,
        }
    }

    /// Whether the segment that grows is of this session.
    pub(super) fn is_of(&self, session: &SessionStart) -> bool {
        self.segment.as_ref().is_some_and(|(segment, _)| segment.session.id == session.id)
    }

    /// Whether the fragment fits, with all that comes with it.
    pub(super) fn has_room(&self, fragment: &Fragment, slot_bytes: u64) -> bool {
        let runs_on = self
            .segment
            .as_ref()
            .is_some_and(|(current, _)| Arc::ptr_eq(current, &fragment.segment));
        let start =
            if runs_on { 0 } else { fragment.segment.init.len() as u64 + SEGMENT_START_BYTES_MAX };
        let need = start + fragment.media_bytes() as u64 + FRAGMENT_OVERHEAD_BYTES;
        self.position + need <= slot_bytes
    }

    /// Makes the rest of the slot one `free` box.
    pub(super) fn close(&self, slot_bytes: u64) -> std::io::Result<()> {
        let rest = slot_bytes - self.position;
        if rest < 8 {
            return Ok(());
        }
        self.file.write_all_at(&[IoSlice::new(&free_head(rest))], self.position)
    }

    /// Writes a fragment at the slot's position, after a segment start if it begins one. The
    /// slot's state changes only if everything was written.
    pub(super) fn write(&mut self, fragment: &Fragment) -> std::io::Result<DurableFragment> {
        let mut start = Vec::new();
        let mut segment_offset = 0;
        match &self.segment {
            Some((current, offset)) if Arc::ptr_eq(current, &fragment.segment) => {
                segment_offset = *offset;
            }
            _ => {
                segment_offset += u32::try_from(self.position).expect("slots are below 4 GiB");
                let mut header = segment_header(&fragment.segment, self.place);
                let before = self.runs_on.as_ref();
                if before.is_some_and(|before| Arc::ptr_eq(before, &fragment.segment)) {
                    header.discontinuity = false;
                }
                start = encode_segment_start(&fragment.segment.init, &header);
            }
        }
        let offset = self.position + start.len() as u64;
        let media_bytes = fragment.media_bytes();
        let seal = seal_of(fragment, self.place, segment_offset, media_bytes);
        let crc = fragment
            .payload
            .iter()
            .fold(crc32c::crc32c(&fragment.head), |crc, part| crc32c::crc32c_append(crc, part));
        let mut tail = encode_seal(&seal, crc);
        let pad = padding(offset + (media_bytes + tail.len()) as u64);
        tail.extend_from_slice(&pad);

        let mut slices = Vec::with_capacity(fragment.payload.len() + 3);
        slices.push(IoSlice::new(&start));
        slices.push(IoSlice::new(&fragment.head));
        slices.extend(fragment.payload.iter().map(|part| IoSlice::new(part)));
        slices.push(IoSlice::new(&tail));
        self.dirty = true;
        self.file.write_all_at(&slices, self.position)?;

        self.position = offset + (media_bytes + tail.len()) as u64;
        self.segment = Some((fragment.segment.clone(), segment_offset));
        Ok(DurableFragment { segment: fragment.segment.clone(), seal, offset, end: self.position })
    }
}

fn segment_header(segment: &SegmentStart, place: SlotPlace) -> SegmentHeader {
    SegmentHeader {
        place,
        key: segment.session.key.clone(),
        session: segment.session.id,
        boot_id: segment.session.boot_id,
        began: segment.session.began,
        discontinuity: segment.discontinuity,
        tracks: segment.tracks.to_vec(),
        origins: segment.origins.clone(),
        script_data: segment.script_data.clone(),
    }
}

fn seal_of(fragment: &Fragment, place: SlotPlace, segment_offset: u32, media_bytes: usize) -> Seal {
    Seal {
        place,
        stream_hash: stream_hash(&fragment.segment.session.key),
        session: fragment.segment.session.id,
        segment_offset,
        sequence: fragment.sequence,
        media_bytes: u32::try_from(media_bytes).expect("bounded by limits"),
        first_arrival: fragment.first_arrival,
        last_arrival: fragment.last_arrival,
        media_start_ms: fragment.media_start_ms,
        media_end_ms: fragment.media_end_ms,
        key: fragment.key,
        recordings: fragment.recordings.clone(),
    }
}
