//! Reading sample payloads of a clip through two cached blocks, so that many small samples cost
//! one read of the flash.

use std::sync::Arc;

use crate::media::clip::{ClipError, ClipSource};

/// Bytes of one block; a fragment usually fits in two.
pub const BLOCK_BYTES: usize = 512 << 10;
/// Blocks kept.
const BLOCKS: usize = 2;

/// Reads payloads.
pub struct PayloadReader {
    clip: Arc<dyn ClipSource>,
    blocks: [Block; BLOCKS],
    /// The block to give up next.
    oldest: usize,
}

#[derive(Default)]
struct Block {
    fragment: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl PayloadReader {
    /// Reads from `clip`; nothing is cached yet.
    #[must_use]
    pub fn new(clip: Arc<dyn ClipSource>) -> Self {
        PayloadReader { clip, blocks: Default::default(), oldest: 0 }
    }

    /// Fills `buf` from the payload of `fragment`, which has `payload_len` bytes, from `offset`.
    ///
    /// # Errors
    /// The range lies outside the payload, or the flash fails.
    pub fn read(
        &mut self,
        fragment: u32,
        payload_len: u64,
        mut offset: u64,
        mut buf: &mut [u8],
    ) -> Result<(), ClipError> {
        if offset.saturating_add(buf.len() as u64) > payload_len {
            return Err(ClipError::Damaged { fragment, what: "a sample reaches past the payload" });
        }
        while !buf.is_empty() {
            let start = offset - offset % BLOCK_BYTES as u64;
            let block = self.block(fragment, start, payload_len)?;
            let from = (offset - start) as usize;
            let count = buf.len().min(self.blocks[block].bytes.len() - from);
            let (head, tail) = buf.split_at_mut(count);
            head.copy_from_slice(&self.blocks[block].bytes[from..from + count]);
            buf = tail;
            offset += count as u64;
        }
        Ok(())
    }

    /// Fills `buf` past the cache: for copies of whole stretches.
    ///
    /// # Errors
    /// The range lies outside the payload, or the flash fails.
    pub fn copy(&self, fragment: u32, offset: u64, buf: &mut [u8]) -> Result<(), ClipError> {
        let offset = u32::try_from(offset)
            .map_err(|_| ClipError::Damaged { fragment, what: "the payload is too long" })?;
        self.clip.read_payload(fragment, offset, buf)
    }

    fn block(&mut self, fragment: u32, start: u64, payload_len: u64) -> Result<usize, ClipError> {
        let held = |block: &Block| {
            block.fragment == fragment && block.start == start && !block.bytes.is_empty()
        };
        if let Some(at) = self.blocks.iter().position(held) {
            return Ok(at);
        }
        let at = self.oldest;
        self.oldest = (at + 1) % BLOCKS;
        let mut bytes = std::mem::take(&mut self.blocks[at].bytes);
        bytes.resize((payload_len - start).min(BLOCK_BYTES as u64) as usize, 0);
        self.copy(fragment, start, &mut bytes)?;
        self.blocks[at] = Block { fragment, start, bytes };
        Ok(at)
    }
}
