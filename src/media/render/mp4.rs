//! Progressive MP4: `ftyp`, `moov`, then one `mdat` that is the fragments' payloads as they are.
//!
//! Times are source time minus the clip's first dts, in the source's own ticks; an edit list says
//! where each track begins. Small steps back of dts are evened out, pts are kept. The tables are
//! made while they are read; `moov` is never held whole.

use std::sync::{Arc, Mutex, PoisonError};

use crate::media::clip::{ClipError, ClipSource};
use crate::media::fmp4::Moof;
use crate::media::fmp4::bmff::put_u64;
use crate::media::render::index::{FragmentIndex, Mark};
use crate::media::render::mp4_moov::{Region, file_head};
use crate::media::render::mp4_tables::{Captured, Lanes, Table, TableState, Target, Wanted};
use crate::media::render::program::{Programs, dropped, push_once};
use crate::media::render::stream::{
    FragmentSource, Layout, Piece, PieceKind, Pieces, Stream, StreamBuilder, overlay, read_moof,
};
use crate::media::render::{Object, RenderError, Rendering};

/// Memory for the marks of the tables, in bytes.
const TABLE_INDEX_BYTES_MAX: usize = 1 << 20;
/// Memory for the marks of the payloads, in bytes.
const PAYLOAD_INDEX_BYTES_MAX: usize = 256 << 10;

/// Tables of at most this many bytes in all are kept from the pass at open; longer ones are made
/// when they are read, at the price of one more pass each.
pub const TABLES_BYTES_MAX: usize = 1 << 20;

/// A clip as MP4.
pub struct Mp4Rendering {
    clip: Arc<dyn ClipSource>,
    lanes: Lanes,
    /// The file up to the payloads: where each stretch begins, and what it is.
    head: Vec<(u64, Region)>,
    head_len: u64,
    index: FragmentIndex<TableState>,
    payloads: Stream<PayloadLayout>,
    /// Taken out while a read uses it.
    cursor: Mutex<Option<TableCursor>>,
    objects: [Object; 1],
    dropped: Vec<String>,
}

/// Where the last read of a table ended.
struct TableCursor {
    /// The fragment after the block.
    next: u32,
    state: TableState,
    /// The table, and what the last fragment adds to it.
    block: Target,
    /// Where that stands in the table.
    block_start: u64,
}

impl TableCursor {
    fn is_of(&self, wanted: Wanted) -> bool {
        matches!(&self.block, Target::One(one, _) if *one == wanted)
    }

    fn block(&self) -> &[u8] {
        match &self.block {
            Target::One(_, bytes) => bytes,
            _ => &[],
        }
    }
}

impl Mp4Rendering {
    /// Looks at every fragment's `moof` once.
    ///
    /// # Errors
    /// The clip cannot be read or has no track.
    pub fn open(clip: Arc<dyn ClipSource>) -> Result<Self, RenderError> {
        Self::open_keeping(clip, TABLES_BYTES_MAX)
    }

    /// As [`open`](Self::open), but keeps tables of at most `tables_bytes_max` bytes in all. The
    /// bytes of the file are the same.
    ///
    /// # Errors
    /// The clip cannot be read or has no track.
    pub fn open_keeping(
        clip: Arc<dyn ClipSource>,
        tables_bytes_max: usize,
    ) -> Result<Self, RenderError> {
        let (lanes, left_out) = Lanes::new(Programs::new(clip.parts()));
        if lanes.list.is_empty() {
            return Err(RenderError::NothingToHold { format: "mp4" });
        }
        let mut names = Vec::new();
        for track in &left_out {
            push_once(&mut names, dropped(track, "the clip has too many tracks"));
        }
        let mark_bytes = size_of::<Mark<()>>() + TableState::bytes(lanes.list.len());
        let mut index = FragmentIndex::new(TABLE_INDEX_BYTES_MAX / mark_bytes / 2);
        let mut builder =
            StreamBuilder::new(Arc::clone(&clip), PayloadLayout, PAYLOAD_INDEX_BYTES_MAX);
        // Payload offsets count from 0 in the index; where payloads begin is added on reading.
        let mut state = TableState::new(lanes.list.len(), 0);
        let mut target = Target::All(Captured::new(tables_bytes_max));
        for fragment in 0..clip.fragment_count() {
            let (_, moof) = read_moof(&*clip, fragment)?;
            let offset = builder.push(fragment, &moof)?;
            index.push(fragment, offset, &state);
            lanes.apply(fragment, &moof, &mut state, &mut target);
        }
        let payloads = builder.finish();
        let (mut head, head_len) = placed(file_head(&lanes.list, &state), payloads.len());
        if let Target::All(captured) = &mut target {
            fill_gaps(&mut head, captured, head_len);
        }
        let len = head_len + payloads.len();
        let object = Object { name: String::new(), len, content_type: "video/mp4" };
        let (cursor, objects) = (Mutex::new(None), [object]);
        Ok(Mp4Rendering {
            clip,
            lanes,
            head,
            head_len,
            index,
            payloads,
            cursor,
            objects,
            dropped: names,
        })
    }

    /// Fills `buf` from `offset` of a table.
    fn read_table(
        &self,
        wanted: Wanted,
        mut offset: u64,
        mut buf: &mut [u8],
    ) -> Result<(), RenderError> {
        let held = self.cursor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let fresh = self.table_cursor(wanted, offset)?;
        let mut cursor = match held {
            Some(held)
                if held.is_of(wanted) && held.block_start <= offset && fresh.next <= held.next =>
            {
                held
            }
            _ => fresh,
        };
        while !buf.is_empty() {
            let from = (offset - cursor.block_start) as usize;
            let block = cursor.block().get(from..).unwrap_or(&[]);
            let count = block.len().min(buf.len());
            let (head, tail) = buf.split_at_mut(count);
            head.copy_from_slice(&block[..count]);
            offset += count as u64;
            buf = tail;
            if !buf.is_empty() {
                self.next_block(&mut cursor)?;
            }
        }
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor);
        Ok(())
    }

    /// A cursor before the block that has `offset`.
    fn table_cursor(&self, wanted: Wanted, offset: u64) -> Result<TableCursor, RenderError> {
        let (fragment, mark) = self
            .index
            .locate(|mark| mark.state.table_len(wanted) <= offset)
            .ok_or(ClipError::Damaged { fragment: 0, what: "the clip is empty" })?;
        let mut state = mark.state.clone();
        let block_start = state.table_len(wanted);
        state.payload = state.payload.saturating_add(self.head_len);
        let block = Target::One(wanted, Vec::new());
        Ok(TableCursor { next: fragment, state, block, block_start })
    }

    fn next_block(&self, cursor: &mut TableCursor) -> Result<(), RenderError> {
        let fragment = cursor.next;
        if fragment >= self.clip.fragment_count() {
            return Err(ClipError::Damaged { fragment, what: "read past the last one" }.into());
        }
        let (_, moof) = read_moof(&*self.clip, fragment)?;
        cursor.block_start += cursor.block().len() as u64;
        if let Target::One(_, bytes) = &mut cursor.block {
            bytes.clear();
        }
        self.lanes.apply(fragment, &moof, &mut cursor.state, &mut cursor.block);
        cursor.next += 1;
        Ok(())
    }
}

impl Rendering for Mp4Rendering {
    fn objects(&self) -> &[Object] {
        &self.objects
    }

    fn read_at(&self, _object: usize, offset: u64, buf: &mut [u8]) -> Result<(), RenderError> {
        let end = offset + buf.len() as u64;
        let mut at = self.head.partition_point(|(start, _)| *start <= offset).saturating_sub(1);
        while let Some((start, region)) = self.head.get(at).filter(|(start, _)| *start < end) {
            match region {
                Region::Known(bytes) => overlay(bytes, *start, offset, buf),
                Region::Gap(wanted, len) => {
                    let (from, to) = ((*start).max(offset), (start + len).min(end));
                    if from < to {
                        let target = &mut buf[(from - offset) as usize..(to - offset) as usize];
                        self.read_table(*wanted, from - start, target)?;
                    }
                }
            }
            at += 1;
        }
        let from = self.head_len.max(offset);
        if from < end {
            let target = &mut buf[(from - offset) as usize..];
            self.payloads.read_at(from - self.head_len, target)?;
        }
        Ok(())
    }

    fn dropped_tracks(&self) -> &[String] {
        &self.dropped
    }
}

/// Gives each region its place and appends the `mdat` header; returns the length of all.
fn placed(regions: Vec<Region>, payload_len: u64) -> (Vec<(u64, Region)>, u64) {
    let mut mdat = b"\0\0\0\x01mdat".to_vec();
    put_u64(&mut mdat, payload_len.saturating_add(16));
    let mut len = 0;
    let mut head = Vec::with_capacity(regions.len() + 1);
    for region in regions.into_iter().chain([Region::Known(mdat)]) {
        let start = len;
        len += match &region {
            Region::Known(bytes) => bytes.len() as u64,
            Region::Gap(_, len) => *len,
        };
        head.push((start, region));
    }
    (head, len)
}

/// Puts tables that were kept from the pass at open into their gaps.
fn fill_gaps(head: &mut [(u64, Region)], captured: &mut Captured, payload_start: u64) {
    for (_, region) in head {
        let Region::Gap(wanted, _) = region else { continue };
        let mut bytes = captured.take(*wanted);
        if wanted.table == Table::Offsets {
            for entry in bytes.chunks_exact_mut(8) {
                let offset = u64::from_be_bytes(entry.try_into().expect("eight bytes"));
                entry.copy_from_slice(&offset.saturating_add(payload_start).to_be_bytes());
            }
        }
        bytes.shrink_to_fit();
        *region = Region::Known(bytes);
    }
}

/// Payloads as on flash.
struct PayloadLayout;

impl Layout for PayloadLayout {
    type State = ();

    fn lay_out(&self, _fragment: u32, moof: &Moof, (): &mut (), pieces: &mut Pieces) {
        pieces.push(moof.payload_len(), PieceKind::Payload);
    }

    fn fill(
        &self,
        source: &mut FragmentSource,
        _piece: &Piece,
        skip: u64,
        buf: &mut [u8],
    ) -> Result<(), RenderError> {
        source.copy(skip, buf)?;
        Ok(())
    }
}
