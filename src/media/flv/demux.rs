//! Reads FLV files that lie in memory, tag by tag (Adobe FLV 10.1, E.2 to E.4.1).
//!
//! Every length is checked against the bytes that are there; bodies are shared with the file, never
//! copied. Back pointers are stepped over without a look: writers get them wrong and nobody needs
//! them to read forwards.

use bytes::Bytes;

use crate::media::flv::mux::{BACK_POINTER_BYTES, TAG_HEADER_BYTES};

/// The shortest file header there is.
const HEADER_BYTES_MIN: usize = 9;
/// The bit of a tag's type that says it is encrypted.
const ENCRYPTED: u8 = 0x20;
/// The bits of a tag's type that say what it is.
const KIND_BITS: u8 = 0x1f;

/// A tag as it lies in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlvTag {
    /// What it is: [`TAG_AUDIO`](crate::media::flv::mux::TAG_AUDIO) and its like.
    pub kind: u8,
    /// Its time in milliseconds, modulo 2^32.
    pub time_ms: u32,
    /// Its body, shared with the file.
    pub body: Bytes,
}

/// A file is no FLV, or breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// It does not begin as FLV files of version 1 do.
    #[error("it is not an FLV file")]
    Foreign,
    /// A tag says it is longer than the file.
    #[error("the file breaks off inside the tag at byte {offset}")]
    Truncated {
        /// Where the tag begins.
        offset: usize,
    },
    /// A tag cannot be read without a key.
    #[error("the tag at byte {offset} is encrypted")]
    Encrypted {
        /// Where the tag begins.
        offset: usize,
    },
}

/// The tags of a file in their order. After an error there are no more.
#[derive(Debug)]
pub struct FlvReader {
    file: Bytes,
    offset: usize,
}

impl FlvReader {
    /// Opens a whole file.
    ///
    /// # Errors
    /// It does not begin as an FLV file does.
    pub fn new(file: Bytes) -> Result<Self, FlvError> {
        let header = file.first_chunk::<HEADER_BYTES_MIN>().ok_or(FlvError::Foreign)?;
        let [b'F', b'L', b'V', 1, _flags, size @ ..] = *header else {
            return Err(FlvError::Foreign);
        };
        let size = usize::try_from(u32::from_be_bytes(size)).map_err(|_| FlvError::Foreign)?;
        // Behind the header lies the first back pointer.
        let offset = size.checked_add(BACK_POINTER_BYTES).ok_or(FlvError::Foreign)?;
        if size < HEADER_BYTES_MIN || offset > file.len() {
            return Err(FlvError::Foreign);
        }
        Ok(FlvReader { file, offset })
    }

    fn read(&mut self) -> Result<FlvTag, FlvError> {
        let offset = self.offset;
        let truncated = FlvError::Truncated { offset };
        let rest = &self.file[offset..];
        let [kind, l2, l1, l0, t2, t1, t0, t3, _, _, _] =
            *rest.first_chunk::<TAG_HEADER_BYTES>().ok_or(truncated)?;
        let end = TAG_HEADER_BYTES + u32::from_be_bytes([0, l2, l1, l0]) as usize;
        if rest.len() < end {
            return Err(truncated);
        }
        if kind & ENCRYPTED != 0 {
            return Err(FlvError::Encrypted { offset });
        }
        // The back pointer of the last tag may be missing.
        self.offset = (offset + end + BACK_POINTER_BYTES).min(self.file.len());
        Ok(FlvTag {
            kind: kind & KIND_BITS,
            time_ms: u32::from_be_bytes([t3, t2, t1, t0]),
            body: self.file.slice(offset + TAG_HEADER_BYTES..offset + end),
        })
    }
}

impl Iterator for FlvReader {
    type Item = Result<FlvTag, FlvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.file.len() {
            return None;
        }
        let tag = self.read();
        if tag.is_err() {
            self.offset = self.file.len();
        }
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::flv::mux::{TAG_AUDIO, TAG_VIDEO, back_pointer, file_header, tag_header};

    fn file(tags: &[(u8, u32, &[u8])]) -> Vec<u8> {
        let mut file = file_header(true, true).to_vec();
        for (kind, time_ms, body) in tags {
            file.extend(tag_header(*kind, body.len() as u32, i64::from(*time_ms)));
            file.extend_from_slice(body);
            file.extend(back_pointer(body.len() as u32));
        }
        file
    }

    fn read(file: Vec<u8>) -> Result<Vec<FlvTag>, FlvError> {
        FlvReader::new(file.into())?.collect()
    }

    #[test]
    fn what_our_own_writer_wrote_is_read_back() {
        let tags: [(u8, u32, &[u8]); 3] =
            [(TAG_VIDEO, 0, b"abc"), (TAG_AUDIO, 0x1234_5678, b""), (TAG_VIDEO, u32::MAX, b"d")];
        let read = read(file(&tags)).expect("valid");
        let expected = tags.map(|(kind, time_ms, body)| FlvTag {
            kind,
            time_ms,
            body: Bytes::copy_from_slice(body),
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn a_last_back_pointer_may_be_missing_and_a_header_may_be_longer() {
        let mut whole = file(&[(TAG_VIDEO, 7, b"abc")]);
        whole.truncate(whole.len() - 4);
        assert_eq!(read(whole).expect("valid").len(), 1);
        let mut longer = b"FLV\x01\x05\0\0\0\x0bxx\0\0\0\0".to_vec();
        longer.extend(tag_header(TAG_AUDIO, 1, 9));
        longer.push(b'z');
        assert_eq!(read(longer).expect("valid")[0].body, Bytes::from_static(b"z"));
    }

    #[test]
    fn what_breaks_off_is_told_with_its_place() {
        let whole = file(&[(TAG_VIDEO, 0, b"abc"), (TAG_VIDEO, 40, b"abcdef")]);
        let cut = |len: usize| read(whole[..len].to_vec());
        assert_eq!(cut(12), Err(FlvError::Foreign));
        assert_eq!(cut(13), Ok(Vec::new()));
        assert_eq!(cut(20), Err(FlvError::Truncated { offset: 13 }));
        assert_eq!(cut(36), Err(FlvError::Truncated { offset: 31 }));
        assert_eq!(cut(43), Err(FlvError::Truncated { offset: 31 }));
        let mut reader = FlvReader::new(whole[..36].to_vec().into()).expect("a header");
        assert_eq!(reader.by_ref().count(), 2);
        assert!(reader.next().is_none());
    }

    #[test]
    fn what_is_not_flv_is_refused() {
        for bad in [&b""[..], b"RIFF\0\0\0\0\0\0\0\0\0", b"FLV\x02\x05\0\0\0\x09\0\0\0\0"] {
            assert_eq!(read(bad.to_vec()), Err(FlvError::Foreign));
        }
        for size in [0_u32, 8, 10, u32::MAX] {
            let mut bad = file(&[]);
            bad[5..9].copy_from_slice(&size.to_be_bytes());
            assert_eq!(read(bad), Err(FlvError::Foreign), "{size}");
        }
        let locked = file(&[(TAG_VIDEO | ENCRYPTED, 0, b"abc")]);
        assert_eq!(read(locked), Err(FlvError::Encrypted { offset: 13 }));
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = file_header(true, true).to_vec();
            bytes.extend(body);
            let tags = FlvReader::new(bytes.into()).expect("a header").count();
            prop_assert!(tags <= 8);
        }
    }
}
