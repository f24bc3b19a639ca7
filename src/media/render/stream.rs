//! A rendered byte stream: fragment after fragment, each laid out as pieces (a head, samples).
//!
//! A format says how one fragment is laid out and how a piece is made; this module finds the
//! fragment of an offset and remembers where the last read ended, so that reading on costs one
//! look at each `moof`.

use std::sync::{Arc, Mutex, PoisonError};

use crate::media::clip::{ClipError, ClipSource};
use crate::media::fmp4::{Moof, parse_moof};
use crate::media::render::RenderError;
use crate::media::render::index::FragmentIndex;
use crate::media::render::payload::PayloadReader;

/// Memory for the marks of a stream, in bytes.
pub const INDEX_BYTES_MAX: usize = 1 << 20;

/// How a format lays out fragments.
pub trait Layout: Send + Sync {
    /// What runs on from fragment to fragment.
    type State: Clone + Default + Send + Sync;

    /// Appends the pieces of a fragment. The lengths must follow from the arguments alone.
    fn lay_out(&self, fragment: u32, moof: &Moof, state: &mut Self::State, pieces: &mut Pieces);

    /// Fills `buf` with the bytes of `piece` from `skip`.
    ///
    /// # Errors
    /// The clip cannot be read.
    fn fill(
        &self,
        source: &mut FragmentSource,
        piece: &Piece,
        skip: u64,
        buf: &mut [u8],
    ) -> Result<(), RenderError>;
}

/// A stretch of output that is made as one.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// First byte, counted from where the fragment begins.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it is made of.
    pub kind: PieceKind,
}

/// What a piece is made of.
#[derive(Debug, Clone, Copy)]
pub enum PieceKind {
    /// What the format puts before the samples of this fragment; `time` as the format counts.
    Head {
        /// Time of the first sample.
        time: i64,
        /// A counter of the format.
        counter: u8,
    },
    /// A sample.
    Sample(PlacedSample),
    /// The whole payload as it lies on flash.
    Payload,
}

/// A sample in its place.
#[derive(Debug, Clone, Copy)]
pub struct PlacedSample {
    /// Which track, as the format counts.
    pub slot: u8,
    /// Decoding can start here.
    pub key: bool,
    /// A counter of the format.
    pub counter: u8,
    /// Decoding time in ticks of the format.
    pub dts: i64,
    /// Presentation time in ticks of the format.
    pub pts: i64,
    /// First byte in the payload of the fragment.
    pub offset: u64,
    /// Bytes of payload.
    pub size: u32,
}

/// The pieces of a fragment.
#[derive(Debug, Default)]
pub struct Pieces {
    list: Vec<Piece>,
    len: u64,
}

impl Pieces {
    /// Appends a piece of `len` bytes.
    pub fn push(&mut self, len: u64, kind: PieceKind) {
        self.list.push(Piece { start: self.len, len, kind });
        self.len = self.len.saturating_add(len);
    }

    /// Bytes of all pieces.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether filling them all reads something of the payload.
    fn have_payload(&self) -> bool {
        self.list.iter().any(|piece| match piece.kind {
            PieceKind::Head { .. } => false,
            PieceKind::Sample(sample) => sample.size > 0,
            PieceKind::Payload => piece.len > 0,
        })
    }

    fn clear(&mut self) {
        self.list.clear();
        self.len = 0;
    }
}

/// The fragment that pieces are made from.
pub struct FragmentSource {
    /// Its number in the clip.
    pub fragment: u32,
    /// Its `moof` box as on flash.
    pub moof: Vec<u8>,
    /// Bytes of its payload.
    pub payload_len: u64,
    payload: PayloadReader,
    /// Where the format found a NAL unit in a sample last, see `ts`.
    pub nal: NalPlace,
}

/// The first length field of a NAL unit in a sample that ends behind `seen`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NalPlace {
    /// Fragment and offset of the sample in its payload.
    pub sample: (u32, u64),
    /// Offset of the length field in the sample.
    pub at: u64,
    /// Length fields that end at or before this offset have been passed.
    pub seen: u64,
}

impl FragmentSource {
    /// Fills `buf` from the payload through the cache.
    ///
    /// # Errors
    /// The clip cannot be read.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ClipError> {
        self.payload.read(self.fragment, self.payload_len, offset, buf)
    }

    /// Fills `buf` from the payload past the cache.
    ///
    /// # Errors
    /// The clip cannot be read.
    pub fn copy(&self, offset: u64, buf: &mut [u8]) -> Result<(), ClipError> {
        self.payload.copy(self.fragment, offset, buf)
    }
}

/// Reads and parses the `moof` of a fragment.
///
/// # Errors
/// The flash fails or the box is damaged.
pub fn read_moof(clip: &dyn ClipSource, fragment: u32) -> Result<(Vec<u8>, Moof), ClipError> {
    let bytes = clip.moof(fragment)?;
    match parse_moof(&bytes) {
        Ok(moof) => Ok((bytes, moof)),
        Err(_) => Err(ClipError::Damaged { fragment, what: "the moof box cannot be read" }),
    }
}

/// A rendered byte stream.
pub struct Stream<L: Layout> {
    clip: Arc<dyn ClipSource>,
    layout: L,
    index: FragmentIndex<L::State>,
    len: u64,
    /// Taken out while a read uses it; a second reader starts its own.
    cursor: Mutex<Option<Cursor<L::State>>>,
}

/// Where the last read ended.
struct Cursor<S> {
    source: FragmentSource,
    /// First byte of the fragment in the stream.
    start: u64,
    pieces: Pieces,
    /// State after the fragment.
    state: S,
}

/// Builds a [`Stream`] in one pass over the fragments.
pub struct StreamBuilder<L: Layout> {
    clip: Arc<dyn ClipSource>,
    /// The format; may learn during the pass what a fragment begins.
    pub layout: L,
    index: FragmentIndex<L::State>,
    state: L::State,
    pieces: Pieces,
    len: u64,
}

impl<L: Layout> StreamBuilder<L> {
    /// A stream over `clip` whose marks take at most `index_bytes`.
    #[must_use]
    pub fn new(clip: Arc<dyn ClipSource>, layout: L, index_bytes: usize) -> Self {
        let mark_bytes = size_of::<crate::media::render::index::Mark<L::State>>();
        StreamBuilder {
            clip,
            layout,
            // A growing table is copied: half is for the old one.
            index: FragmentIndex::new(index_bytes / mark_bytes / 2),
            state: L::State::default(),
            pieces: Pieces::default(),
            len: 0,
        }
    }

    /// Takes the next fragment; returns its first byte in the stream. One of which nothing will be read
    /// is read now: its `moof` is believed only with the whole of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn push(&mut self, fragment: u32, moof: &Moof) -> Result<u64, ClipError> {
        let start = self.len;
        self.index.push(fragment, start, &self.state);
        self.pieces.clear();
        self.layout.lay_out(fragment, moof, &mut self.state, &mut self.pieces);
        if !self.pieces.have_payload() {
            self.clip.check(fragment)?;
        }
        self.len = start.saturating_add(self.pieces.len());
        Ok(start)
    }

    /// The stream, all fragments being known.
    #[must_use]
    pub fn finish(self) -> Stream<L> {
        let StreamBuilder { clip, layout, index, len, .. } = self;
        Stream { clip, layout, index, len, cursor: Mutex::new(None) }
    }
}

impl<L: Layout> Stream<L> {
    /// Reads the whole clip once to know where everything lies.
    ///
    /// # Errors
    /// The clip cannot be read.
    pub fn open(clip: Arc<dyn ClipSource>, layout: L) -> Result<Self, RenderError> {
        let mut builder = StreamBuilder::new(Arc::clone(&clip), layout, INDEX_BYTES_MAX);
        for fragment in 0..clip.fragment_count() {
            let (_, moof) = read_moof(&*clip, fragment)?;
            builder.push(fragment, &moof)?;
        }
        Ok(builder.finish())
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The format.
    #[must_use]
    pub fn layout(&self) -> &L {
        &self.layout
    }

    /// Memory of the index in bytes.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// The clip cannot be read, or no longer is what it was at open.
    pub fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), RenderError> {
        if buf.is_empty() {
            return Ok(());
        }
        let held = self.cursor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut cursor = self.seek(held, offset)?;
        while !buf.is_empty() {
            let filled = self.fill_from(&mut cursor, offset, buf)?;
            buf = &mut buf[filled..];
            offset += filled as u64;
            if !buf.is_empty() {
                self.step(&mut cursor)?;
            }
        }
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor);
        Ok(())
    }

    /// A cursor on the fragment that has `offset`.
    fn seek(
        &self,
        held: Option<Cursor<L::State>>,
        offset: u64,
    ) -> Result<Cursor<L::State>, RenderError> {
        let (fragment, mark) = self
            .index
            .locate(|mark| mark.offset <= offset)
            .ok_or(ClipError::Damaged { fragment: 0, what: "the clip is empty" })?;
        let mut cursor = match held {
            Some(held) if held.start <= offset && fragment <= held.source.fragment => held,
            held => {
                let payload = match held {
                    Some(held) => held.source.payload,
                    None => PayloadReader::new(Arc::clone(&self.clip)),
                };
                let nal = NalPlace::default();
                let source =
                    FragmentSource { fragment, moof: Vec::new(), payload_len: 0, payload, nal };
                let (start, state) = (mark.offset, mark.state.clone());
                let mut cursor = Cursor { source, start, pieces: Pieces::default(), state };
                self.load(&mut cursor)?;
                cursor
            }
        };
        while offset >= cursor.start.saturating_add(cursor.pieces.len()) {
            self.step(&mut cursor)?;
        }
        Ok(cursor)
    }

    fn step(&self, cursor: &mut Cursor<L::State>) -> Result<(), RenderError> {
        cursor.start = cursor.start.saturating_add(cursor.pieces.len());
        cursor.source.fragment += 1;
        self.load(cursor)
    }

    fn load(&self, cursor: &mut Cursor<L::State>) -> Result<(), RenderError> {
        let fragment = cursor.source.fragment;
        if fragment >= self.clip.fragment_count() {
            return Err(ClipError::Damaged { fragment, what: "read past the last one" }.into());
        }
        let (bytes, moof) = read_moof(&*self.clip, fragment)?;
        cursor.source.moof = bytes;
        cursor.source.payload_len = moof.payload_len();
        cursor.pieces.clear();
        self.layout.lay_out(fragment, &moof, &mut cursor.state, &mut cursor.pieces);
        Ok(())
    }

    /// Fills what the cursor's fragment has from `offset` on; returns how much that was.
    fn fill_from(
        &self,
        cursor: &mut Cursor<L::State>,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, RenderError> {
        let from = offset - cursor.start;
        let pieces = &cursor.pieces.list;
        let mut at = pieces.partition_point(|piece| piece.start + piece.len <= from);
        let mut filled = 0;
        while let Some(piece) = pieces.get(at).filter(|_| filled < buf.len()) {
            let skip = from + filled as u64 - piece.start;
            let count = (piece.len - skip).min((buf.len() - filled) as u64) as usize;
            self.layout.fill(&mut cursor.source, piece, skip, &mut buf[filled..filled + count])?;
            filled += count;
            at += 1;
        }
        Ok(filled)
    }
}

/// Copies the part of a piece that is known as bytes: `known` stands at `known_start` of the
/// piece, `buf` shows the piece from `skip`.
pub fn overlay(known: &[u8], known_start: u64, skip: u64, buf: &mut [u8]) {
    let from = known_start.max(skip);
    let to = (known_start + known.len() as u64).min(skip + buf.len() as u64);
    if from < to {
        let source = &known[(from - known_start) as usize..(to - known_start) as usize];
        buf[(from - skip) as usize..(to - skip) as usize].copy_from_slice(source);
    }
}
