//! Checksums that run along with what is sent and that survive a restart.

use std::fmt::Write as _;

use md5::Md5;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};

use crate::delivery::crc64::RunningCrc64;

/// A SHA-256 over everything so far. Its state can be saved and taken up again.
#[derive(Clone, Default)]
pub struct RunningSha256(Sha256);

impl RunningSha256 {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of everything so far, in hex.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0.clone().finalize())
    }

    /// The state, in hex.
    #[must_use]
    pub fn save(&self) -> String {
        hex(&self.0.serialize())
    }

    /// Takes up a saved state; `None` if the text is none.
    #[must_use]
    pub fn restore(text: &str) -> Option<Self> {
        let bytes = unhex(text)?;
        let state = SerializedState::<Sha256>::try_from(&bytes[..]).ok()?;
        Some(RunningSha256(Sha256::deserialize(&state).ok()?))
    }
}

impl std::fmt::Debug for RunningSha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunningSha256({})", self.hex())
    }
}

/// The checksums of a transfer.
#[derive(Debug, Clone, Default)]
pub struct Checksums {
    /// Over the file: all objects, one after the other.
    pub file: RunningSha256,
    /// Over the object at hand.
    pub object: RunningSha256,
    /// Over the object at hand.
    pub crc64: RunningCrc64,
    /// Over the request body at hand.
    pub body: Md5,
}

impl Checksums {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.file.update(bytes);
        // A file of one object is hashed twice; that is cheap beside the link.
        self.object.update(bytes);
        self.crc64.update(bytes);
        self.body.update(bytes);
    }

    /// The MD5 of the request body, in hex; the next body begins.
    pub fn take_body_md5(&mut self) -> String {
        hex(&std::mem::take(&mut self.body).finalize())
    }

    /// The next object begins.
    pub fn begin_object(&mut self) {
        self.object = RunningSha256::default();
        self.body = Md5::default();
    }
}

/// The ETag that S3 gives an object of several parts: the MD5 of the parts' MD5s, a dash, and
/// how many there are. `None` if one is no MD5 in hex.
#[must_use]
pub fn multipart_etag<'a>(part_md5s: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut all = Md5::default();
    let mut count = 0;
    for md5 in part_md5s {
        all.update(unhex(md5).filter(|bytes| bytes.len() == 16)?);
        count += 1;
    }
    Some(format!("{}-{count}", hex(&all.finalize())))
}

/// Bytes as lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// Hex digits as bytes.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_sum_goes_on_where_it_stood() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
        for cut in [0, 1, 63, 64, 65, 128, 999] {
            let mut first = RunningSha256::default();
            first.update(&bytes[..cut]);
            let mut second = RunningSha256::restore(&first.save()).expect("own state");
            second.update(&bytes[cut..]);
            assert_eq!(second.hex(), hex(&Sha256::digest(&bytes)), "cut at {cut}");
        }
        let saved = RunningSha256::default().save();
        for bad in ["", "zz", "00", &saved[2..]] {
            assert!(RunningSha256::restore(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn etag_of_parts_as_s3_computes_it() {
        // Two parts, "hello" and "world"; computed with Python's hashlib.
        let parts = ["5d41402abc4b2a76b9719d911017c592", "7d793037a0760186574b0282f2f435e7"];
        let etag = multipart_etag(parts.into_iter()).expect("md5s");
        assert_eq!(etag, "065947336a2f2a95ba8899f3675c3be6-2");
        assert!(multipart_etag(["not an md5"].into_iter()).is_none());
    }
}
