//! Reads big-endian fields from the front of shared bytes.

use bytes::{Buf, Bytes};

use crate::media::codec::CodecError;

/// The rest of a record; `what` names the record in errors.
pub(super) struct ByteReader {
    rest: Bytes,
    what: &'static str,
}

impl ByteReader {
    pub(super) fn new(record: &Bytes, what: &'static str) -> Self {
        ByteReader { rest: record.clone(), what }
    }

    pub(super) fn u8(&mut self) -> Result<u8, CodecError> {
        self.rest.try_get_u8().map_err(|_| CodecError::Truncated(self.what))
    }

    pub(super) fn u16(&mut self) -> Result<u16, CodecError> {
        self.rest.try_get_u16().map_err(|_| CodecError::Truncated(self.what))
    }

    /// `len` bytes, shared with the record.
    pub(super) fn take(&mut self, len: usize) -> Result<Bytes, CodecError> {
        if self.rest.len() < len {
            return Err(CodecError::Truncated(self.what));
        }
        Ok(self.rest.split_to(len))
    }

    /// A 16-bit length and as many bytes.
    pub(super) fn block16(&mut self) -> Result<Bytes, CodecError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    pub(super) fn into_rest(self) -> Bytes {
        self.rest
    }
}
