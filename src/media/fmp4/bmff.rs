//! Boxes of the ISO base media file format: writing into one growing buffer, and reading with
//! every length checked against the bytes there are.

use crate::media::fmp4::Fmp4Error;

/// Writes a box: `content` appends the body, the size is filled in afterwards.
pub fn write_box(out: &mut Vec<u8>, kind: [u8; 4], content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind);
    content(out);
    let size = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Writes a box with version and flags.
pub fn write_full_box(
    out: &mut Vec<u8>,
    kind: [u8; 4],
    version: u8,
    flags: u32,
    content: impl FnOnce(&mut Vec<u8>),
) {
    write_box(out, kind, |out| {
        put_u32(out, u32::from(version) << 24 | flags & 0x00ff_ffff);
        content(out);
    });
}

/// Appends 16 bits, big-endian.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends 32 bits, big-endian.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends 64 bits, big-endian.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// A box without its header.
pub type KindAndBody<'a> = ([u8; 4], &'a [u8]);

/// Reads fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names them in errors.
    #[must_use]
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Reader { bytes, what }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Fmp4Error> {
        let (head, tail) =
            self.bytes.split_at_checked(count).ok_or(Fmp4Error::Truncated(self.what))?;
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fmp4Error> {
        self.take(N)?.try_into().map_err(|_| Fmp4Error::Truncated(self.what))
    }

    /// 32 bits, big-endian.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u32(&mut self) -> Result<u32, Fmp4Error> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// 64 bits, big-endian.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u64(&mut self) -> Result<u64, Fmp4Error> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Version and flags of a full box.
    ///
    /// # Errors
    /// Fewer than four bytes are left.
    pub fn version_and_flags(&mut self) -> Result<(u8, u32), Fmp4Error> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    /// The next box as (type, body), or `None` at the end. A box that says it reaches to the end
    /// of the file (size 0) is not accepted.
    ///
    /// # Errors
    /// The box does not fit the bytes left.
    pub fn next_box(&mut self) -> Result<Option<KindAndBody<'a>>, Fmp4Error> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let mut size = u64::from(self.u32()?);
        let kind = self.array()?;
        let mut header = 8;
        if size == 1 {
            size = self.u64()?;
            header = 16;
        }
        let body = size.checked_sub(header).ok_or(Fmp4Error::Truncated(self.what))?;
        let body = usize::try_from(body).map_err(|_| Fmp4Error::Truncated(self.what))?;
        Ok(Some((kind, self.take(body)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_come_back_and_lengths_are_checked() {
        let mut out = Vec::new();
        write_full_box(&mut out, *b"test", 1, 0x00ab_cdef, |out| put_u64(out, 7));
        let mut reader = Reader::new(&out, "file");
        let (kind, body) = reader.next_box().unwrap().unwrap();
        assert_eq!((&kind, body.len()), (b"test", 12));
        let mut body = Reader::new(body, "test");
        assert_eq!(body.version_and_flags().unwrap(), (1, 0x00ab_cdef));
        assert_eq!(body.u64().unwrap(), 7);
        assert_eq!(body.u32(), Err(Fmp4Error::Truncated("test")));
        assert_eq!(reader.next_box().unwrap(), None);
        for bad in [&out[..7], &out[..19], &[0, 0, 0, 7, b'a', b'b', b'c', b'd']] {
            assert!(Reader::new(bad, "file").next_box().is_err());
        }
        let huge = [0, 0, 0, 1, b'm', b'd', b'a', b't', 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(Reader::new(&huge, "file").next_box().is_err());
    }
}
